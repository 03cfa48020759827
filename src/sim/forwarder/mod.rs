//! A forwarder between a client's side and a server's side: links that lose, delay and damage datagrams, and a NAT that
//! rebinds.
//!
//! It does no I/O: datagrams and the time are passed in; deadlines, and what has arrived, come out. The same seed and
//! the same datagrams at the same times have the same fate. `gannet-interop` runs it between network namespaces.

mod codel;
mod in_flight;
mod link;
mod nat;
mod pipe;
mod shape;

use std::net::SocketAddr;

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};

pub use codel::Codel;
pub use in_flight::InFlight;
pub use link::{Link, Passage};
pub use nat::{Nat, NatStats, Rebinding};
pub use shape::{ALWAYS, Gilbert, Outage, PER_MILLE, Shape, ShapeStats};

/// A UDP datagram. `tag` is for what the caller needs to send it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<T> {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// ECN codepoint (RFC 3168 §5).
    pub ecn: u8,
    /// UDP payload.
    pub payload: Vec<u8>,
    /// Passed through.
    pub tag: T,
}

impl<T> Datagram<T> {
    /// Length of the IP packet without options, in bytes.
    pub fn ip_len(&self) -> usize {
        self.payload.len() + if self.to.is_ipv4() { 28 } else { 48 }
    }
}

/// Both directions and the NAT.
#[derive(Clone, Debug, Default)]
pub struct ForwarderConfig {
    /// What datagrams to the server meet.
    pub to_server: Shape,
    /// What datagrams to the client meet.
    pub to_client: Shape,
    /// Times, counted from the start, at which all clients get another source.
    pub rebindings: Vec<(Duration, Rebinding)>,
    /// Source addresses that clients get in turn. Those of the client's IP version are used.
    pub addresses: Vec<std::net::IpAddr>,
    /// Whether sources that clients had before a rebinding still reach them.
    pub keeps_mappings: bool,
}

/// Counters of a forwarder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwarderStats {
    /// Datagrams to the server.
    pub to_server: ShapeStats,
    /// Datagrams to the client.
    pub to_client: ShapeStats,
    /// The NAT.
    pub nat: NatStats,
}

/// The forwarder.
#[derive(Debug)]
pub struct Forwarder<T> {
    nat: Nat,
    to_server: Link,
    to_client: Link,
    flying: InFlight<(Side, Datagram<T>)>,
}

impl<T: Clone> Forwarder<T> {
    /// A forwarder that starts at `start`. All that is random derives from `rng`.
    pub fn new(config: &ForwarderConfig, start: Instant, rng: &mut Rng) -> Self {
        let mut draw = || Rng::from_u64(rng.next_u64());
        Self {
            to_server: Link::new(config.to_server.clone(), start, draw()),
            to_client: Link::new(config.to_client.clone(), start, draw()),
            nat: Nat::new(config, start, draw()),
            flying: InFlight::default(),
        }
    }

    /// Takes a datagram that travels to `to`. A client's source is translated when it leaves the client; a server's
    /// datagram is translated when it arrives at the NAT, behind the link, so that a rebinding strands those in flight.
    pub fn send(&mut self, now: Instant, to: Side, mut datagram: Datagram<T>) {
        self.nat.advance(now);
        if to == Side::Server {
            datagram.from = self.nat.outward(datagram.from);
        }
        let link = if to == Side::Server { &mut self.to_server } else { &mut self.to_client };
        for passage in link.offer(now, datagram.ip_len(), datagram.payload.len(), datagram.ecn) {
            let mut datagram = datagram.clone();
            datagram.ecn = passage.ecn;
            if let Some(bit) = passage.flipped {
                let bit = harmless(bit, &datagram.payload);
                datagram.payload[bit / 8] ^= 1 << (bit % 8);
            }
            self.flying.push(passage.at, (to, datagram));
        }
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.flying.next()
    }

    /// The next datagram that has arrived by `now`, and its destination.
    pub fn receive(&mut self, now: Instant) -> Option<(Side, Datagram<T>)> {
        while self.next_arrival().is_some_and(|at| at <= now) {
            let (at, (to, mut datagram)) = self.flying.pop()?;
            if to == Side::Client {
                self.nat.advance(at);
                let Some(inner) = self.nat.inward(datagram.to) else { continue };
                datagram.to = inner;
            }
            return Some((to, datagram));
        }
        None
    }

    /// The current source of the client at `inner`, if it has sent anything.
    pub fn source_of(&self, inner: SocketAddr) -> Option<SocketAddr> {
        self.nat.source_of(inner)
    }

    /// Whether `ip` is a source that the NAT assigns to clients but no client has of its own, and who has it now.
    pub fn owner_of(&self, ip: std::net::IpAddr) -> Option<std::net::IpAddr> {
        self.nat.owner_of(ip)
    }

    /// Counters so far.
    pub fn stats(&self) -> ForwarderStats {
        ForwarderStats { to_server: self.to_server.stats(), to_client: self.to_client.stats(), nat: self.nat.stats() }
    }
}

/// The bit to flip in place of `bit`. A short header does not become a long one: its ciphertext would be read as
/// lengths, and the run would depend on the random numbers of TLS. The fixed bit is flipped instead.
pub(super) fn harmless(bit: usize, payload: &[u8]) -> usize {
    if bit == 7 && payload[0] & 0x80 == 0 { 6 } else { bit }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "10.9.0.2:1000";
    const SERVER: &str = "10.9.0.1:4433";

    fn datagram(from: &str, to: SocketAddr, payload: &[u8]) -> Datagram<u8> {
        Datagram { from: from.parse().unwrap(), to, ecn: 2, payload: payload.to_vec(), tag: 7 }
    }

    fn server() -> SocketAddr {
        SERVER.parse().unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn datagrams_pass_both_ways_unchanged() {
        let start = Instant::from_nanos(5);
        let mut forwarder = Forwarder::new(&ForwarderConfig::default(), start, &mut Rng::from_u64(1));
        forwarder.send(start, Side::Server, datagram(CLIENT, server(), b"ping"));
        assert_eq!(forwarder.receive(start), Some((Side::Server, datagram(CLIENT, server(), b"ping"))));
        let back = datagram(SERVER, CLIENT.parse().unwrap(), b"pong");
        forwarder.send(start, Side::Client, back.clone());
        assert_eq!(forwarder.receive(start), Some((Side::Client, back)));
        assert_eq!(forwarder.receive(start), None);
    }

    #[test]
    fn a_rebinding_moves_the_client_and_strands_what_is_in_flight() {
        let shape = Shape { delay: ms(10), ..Shape::default() };
        let config = ForwarderConfig {
            to_server: shape.clone(),
            to_client: shape,
            rebindings: vec![(ms(15), Rebinding::Address)],
            addresses: vec!["fd00::9".parse().unwrap(), "10.9.0.77".parse().unwrap()],
            keeps_mappings: false,
        };
        let start = Instant::from_nanos(0);
        let mut forwarder = Forwarder::new(&config, start, &mut Rng::from_u64(1));
        forwarder.send(start, Side::Server, datagram(CLIENT, server(), b"a"));
        let (_, first) = forwarder.receive(start + ms(10)).unwrap();
        assert_eq!(first.from, CLIENT.parse().unwrap());
        // Sent before the rebinding, at the NAT after it.
        forwarder.send(start + ms(10), Side::Client, datagram(SERVER, first.from, b"stranded"));
        assert_eq!(forwarder.receive(start + ms(30)), None);
        assert_eq!(forwarder.stats().nat.stranded, 1);
        forwarder.send(start + ms(30), Side::Server, datagram(CLIENT, server(), b"b"));
        let (_, second) = forwarder.receive(start + ms(40)).unwrap();
        assert_eq!(second.from, "10.9.0.77:1000".parse().unwrap());
        forwarder.send(start + ms(40), Side::Client, datagram(SERVER, second.from, b"found"));
        let (to, found) = forwarder.receive(start + ms(50)).unwrap();
        assert_eq!((to, found.to), (Side::Client, CLIENT.parse().unwrap()));
        assert_eq!(forwarder.owner_of("10.9.0.77".parse().unwrap()), Some("10.9.0.2".parse().unwrap()));
        assert_eq!(forwarder.owner_of("10.9.0.2".parse().unwrap()), None);
    }

    #[test]
    fn a_flipped_bit_does_not_turn_a_short_header_into_a_long_one() {
        assert_eq!(harmless(7, &[0x40]), 6);
        assert_eq!(harmless(7, &[0xc0]), 7);
        assert_eq!(harmless(8, &[0x40]), 8);
        let shape = Shape { corrupt: ALWAYS, ..Shape::default() };
        let config = ForwarderConfig { to_server: shape, ..ForwarderConfig::default() };
        let mut forwarder = Forwarder::new(&config, Instant::ZERO, &mut Rng::from_u64(1));
        for _ in 0..200 {
            forwarder.send(Instant::ZERO, Side::Server, datagram(CLIENT, server(), &[0x40, 0]));
            let (_, got) = forwarder.receive(Instant::ZERO).unwrap();
            assert!(got.payload != [0x40, 0] && got.payload[0] & 0x80 == 0);
        }
    }

    #[test]
    fn same_seed_same_fate() {
        let run = || {
            let shape = Shape {
                delay: ms(5),
                jitter: ms(3),
                rate: 50_000_000,
                loss: 100 * PER_MILLE,
                duplicate: 100 * PER_MILLE,
                reorder: 100 * PER_MILLE,
                corrupt: 100 * PER_MILLE,
                marks: 100 * PER_MILLE,
                ..Shape::default()
            };
            let config = ForwarderConfig {
                to_server: shape.clone(),
                to_client: shape,
                rebindings: vec![(ms(20), Rebinding::Port), (ms(30), Rebinding::Port)],
                ..ForwarderConfig::default()
            };
            let mut forwarder = Forwarder::new(&config, Instant::ZERO, &mut Rng::from_u64(9));
            let mut all = Vec::new();
            for i in 0..500_u64 {
                let now = Instant::ZERO + Duration::from_micros(100 * i);
                forwarder.send(now, Side::Server, datagram(CLIENT, server(), &[i as u8; 100]));
                let source = forwarder.source_of(CLIENT.parse().unwrap()).unwrap();
                forwarder.send(now, Side::Client, datagram(SERVER, source, &[i as u8; 100]));
                all.extend(std::iter::from_fn(|| forwarder.receive(now)));
            }
            (all, forwarder.stats())
        };
        let (a, b) = (run(), run());
        assert_eq!(a, b);
        let stats = a.1;
        assert_eq!(stats.nat.rebindings, 2);
        assert!(stats.to_client.lost_random > 20 && stats.to_server.duplicated > 20 && stats.to_server.corrupted > 20);
    }
}
