//! A NAT that gives clients other source ports and addresses at given times.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::ForwarderConfig;
use crate::base::rng::Rng;
use crate::base::time::Instant;

/// Lowest source port that is assigned.
const LOWEST_PORT: u64 = 1024;

/// Number of earlier sources of one client that are remembered.
const REMEMBERED: usize = 64;

/// What changes about a client's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebinding {
    /// The UDP port.
    Port,
    /// The IP address.
    Address,
    /// Both.
    Both,
}

/// Counters of a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatStats {
    /// Clients seen.
    pub clients: u64,
    /// Times that a client got another source.
    pub rebindings: u64,
    /// Datagrams of servers to a source that no client has any more, or never had; they are dropped.
    pub stranded: u64,
}

/// A NAT. It changes nothing before the first rebinding.
#[derive(Debug)]
pub struct Nat {
    plan: VecDeque<(Instant, Rebinding)>,
    addresses: Vec<IpAddr>,
    keeps_mappings: bool,
    rng: Rng,
    /// The sources of each client, the current one last.
    sources: BTreeMap<SocketAddr, VecDeque<SocketAddr>>,
    /// The client of each source.
    inners: BTreeMap<SocketAddr, SocketAddr>,
    turn: usize,
    stats: NatStats,
}

impl Nat {
    /// A NAT for the rebindings of `config`, which are counted from `start`.
    pub fn new(config: &ForwarderConfig, start: Instant, rng: Rng) -> Self {
        let mut plan: Vec<_> = config.rebindings.iter().map(|(at, what)| (start + *at, *what)).collect();
        plan.sort_by_key(|(at, _)| *at);
        Self {
            plan: plan.into(),
            addresses: config.addresses.clone(),
            keeps_mappings: config.keeps_mappings,
            rng,
            sources: BTreeMap::new(),
            inners: BTreeMap::new(),
            turn: 0,
            stats: NatStats::default(),
        }
    }

    /// Carries out the rebindings that are due by `now`.
    pub fn advance(&mut self, now: Instant) {
        while self.plan.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, what)) = self.plan.pop_front() else { return };
            let clients: Vec<_> = self.sources.keys().copied().collect();
            for inner in clients {
                self.rebind(inner, what);
            }
        }
    }

    /// Gives the client at `inner` another source. `None` if there is none for it: it keeps its own.
    fn rebind(&mut self, inner: SocketAddr, what: Rebinding) -> Option<()> {
        let mut outer = self.source_of(inner)?;
        if matches!(what, Rebinding::Address | Rebinding::Both) {
            let fitting: Vec<_> = self.addresses.iter().filter(|ip| ip.is_ipv4() == inner.is_ipv4()).collect();
            self.turn += 1;
            outer.set_ip(**fitting.get((self.turn - 1) % fitting.len().max(1))?);
        }
        let keeps_port = matches!(what, Rebinding::Address);
        for _ in 0..1000 {
            if !keeps_port || self.inners.contains_key(&outer) {
                outer.set_port(self.draw_port());
            }
            if !self.inners.contains_key(&outer) {
                break;
            }
        }
        if self.inners.contains_key(&outer) {
            // All ports that were drawn are taken: the client stays.
            return None;
        }
        let sources = self.sources.get_mut(&inner)?;
        let kept = if self.keeps_mappings { REMEMBERED } else { 0 };
        while sources.len() > kept {
            let old = sources.pop_front()?;
            self.inners.remove(&old);
        }
        sources.push_back(outer);
        self.inners.insert(outer, inner);
        self.stats.rebindings += 1;
        Some(())
    }

    fn draw_port(&mut self) -> u16 {
        (LOWEST_PORT + self.rng.below(0x1_0000 - LOWEST_PORT)) as u16
    }

    /// The source of a datagram that the client at `inner` sends.
    pub fn outward(&mut self, inner: SocketAddr) -> SocketAddr {
        if let Some(outer) = self.source_of(inner) {
            return outer;
        }
        // Another client may have been moved there.
        let mut outer = inner;
        while self.inners.contains_key(&outer) {
            outer.set_port(self.draw_port());
        }
        self.stats.clients += 1;
        self.sources.insert(inner, VecDeque::from([outer]));
        self.inners.insert(outer, inner);
        outer
    }

    /// The client that a datagram to `outer` is for.
    pub fn inward(&mut self, outer: SocketAddr) -> Option<SocketAddr> {
        let inner = self.inners.get(&outer).copied();
        self.stats.stranded += u64::from(inner.is_none());
        inner
    }

    /// The current source of the client at `inner`, if it has sent anything.
    pub fn source_of(&self, inner: SocketAddr) -> Option<SocketAddr> {
        self.sources.get(&inner)?.back().copied()
    }

    /// The client's address behind `ip`, if `ip` is assigned by the NAT rather than a client's own.
    pub fn owner_of(&self, ip: IpAddr) -> Option<IpAddr> {
        let mut of_this = self.inners.iter().filter(|(outer, _)| outer.ip() == ip);
        of_this.find(|(outer, inner)| outer.ip() != inner.ip()).map(|(_, inner)| inner.ip())
    }

    /// Counters so far.
    pub fn stats(&self) -> NatStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Duration;

    fn nat(rebindings: &[(u64, Rebinding)], keeps_mappings: bool) -> Nat {
        let ms = Duration::from_millis;
        let config = ForwarderConfig {
            rebindings: rebindings.iter().map(|(at, what)| (ms(*at), *what)).collect(),
            addresses: vec!["10.0.0.8".parse().unwrap(), "10.0.0.9".parse().unwrap(), "fd00::8".parse().unwrap()],
            keeps_mappings,
            ..ForwarderConfig::default()
        };
        Nat::new(&config, Instant::ZERO, Rng::from_u64(1))
    }

    fn addr(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn all_clients_move_at_once_and_only_then() {
        let mut nat = nat(&[(10, Rebinding::Port)], false);
        let clients = [addr("10.0.0.2:5"), addr("10.0.0.2:6"), addr("[fd00::2]:5")];
        for client in clients {
            assert_eq!(nat.outward(client), client);
        }
        nat.advance(at(9));
        assert_eq!(clients.map(|c| nat.outward(c)), clients);
        nat.advance(at(10));
        let moved = clients.map(|c| nat.outward(c));
        for (new, old) in moved.iter().zip(clients) {
            assert!(new.port() != old.port() && new.ip() == old.ip());
            assert_eq!(nat.inward(*new), Some(old));
            assert_eq!(nat.inward(old), None);
        }
        let stats = nat.stats();
        assert_eq!((stats.clients, stats.rebindings, stats.stranded), (3, 3, 3));
    }

    #[test]
    fn addresses_are_taken_in_turn_and_fit_the_version() {
        let plan = [(1, Rebinding::Address), (2, Rebinding::Address), (3, Rebinding::Both)];
        let mut nat = nat(&plan, true);
        let (v4, v6) = (addr("10.0.0.2:5"), addr("[fd00::2]:5"));
        nat.outward(v4);
        let mut seen = Vec::new();
        for ms in 1..=2 {
            nat.advance(at(ms));
            seen.push(nat.outward(v4));
        }
        assert_eq!(seen, [addr("10.0.0.8:5"), addr("10.0.0.9:5")]);
        assert_eq!(nat.outward(v6), v6);
        nat.advance(at(3));
        assert_eq!(nat.outward(v4).ip(), seen[0].ip());
        assert_ne!(nat.outward(v4).port(), 5);
        assert_eq!(nat.outward(v6).ip(), addr("[fd00::8]:5").ip());
        // Earlier mappings are kept.
        assert_eq!([v4, seen[0], seen[1]].map(|outer| nat.inward(outer)), [Some(v4); 3]);
    }

    #[test]
    fn a_source_belongs_to_one_client() {
        let mut nat = nat(&[(1, Rebinding::Address)], false);
        let (a, b) = (addr("10.0.0.2:5"), addr("10.0.0.8:5"));
        nat.outward(a);
        nat.advance(at(1));
        assert_eq!(nat.outward(a), b);
        let other = nat.outward(b);
        assert!(other != b && other.ip() == b.ip());
        assert_eq!((nat.inward(b), nat.inward(other)), (Some(a), Some(b)));
    }
}
