//! The network between two simulated hosts: delay, rate, loss, reordering, duplication, corruption, MTU.

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::sim::forwarder::InFlight;
use crate::sim::moves::Ends;

/// ECN codepoints (RFC 3168 §5).
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// What a router does with datagrams that are marked for ECN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnFate {
    /// It leaves the mark alone.
    #[default]
    Kept,
    /// It clears the mark.
    Cleared,
    /// It marks all of them as having experienced congestion.
    Congested,
    /// It changes the mark to ECT(1).
    Changed,
    /// It drops them.
    Dropped,
}

/// Properties of a link. Probabilities are per mille.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// Propagation delay.
    pub delay: Duration,
    /// Bits per second; 0 for no limit.
    pub rate: u64,
    /// Capacity of the queue before a link with a rate, in bytes. Further datagrams are dropped.
    pub queue: u64,
    /// Probability that a datagram is lost.
    pub loss: u64,
    /// Probability that a datagram is duplicated.
    pub duplicate: u64,
    /// Probability that a datagram is held back by up to four times the delay.
    pub reorder: u64,
    /// Probability that one bit of a datagram is flipped.
    pub corrupt: u64,
    /// Maximum UDP payload that gets through, in bytes.
    pub mtu: usize,
    /// Another MTU from this time on, counted from the start.
    pub later_mtu: Option<(Duration, usize)>,
    /// Whether routers report their MTU.
    pub routers_tell: bool,
    /// Probability that an attacker claims a smaller MTU, for a datagram it has seen or made up.
    pub lies: u64,
    /// A period in which nothing gets through: its start, counted from the start of the run, and its length.
    pub outage: Option<(Duration, Duration)>,
    /// Probability that a datagram arrives with a random ECN codepoint.
    pub marks: u64,
    /// Probability that a marked datagram is marked as having experienced congestion.
    pub congestion: u64,
    /// What becomes of marks otherwise.
    pub ecn: EcnFate,
    /// Datagrams are delivered only at multiples of this time, all at once. With 0, each is delivered when it arrives.
    pub every: Duration,
}

impl Default for LinkConfig {
    /// A perfect link with a delay of 1 ms.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            rate: 0,
            queue: 1 << 20,
            loss: 0,
            duplicate: 0,
            reorder: 0,
            corrupt: 0,
            mtu: 1472,
            later_mtu: None,
            routers_tell: false,
            lies: 0,
            outage: None,
            marks: 0,
            congestion: 0,
            ecn: EcnFate::Kept,
            every: Duration::ZERO,
        }
    }
}

impl LinkConfig {
    /// Draws rare events: outages, changes of the MTU, claims and ECN marks.
    pub fn draw_weather(&mut self, rng: &mut Rng) {
        // Short times are as frequent as long ones, up to `2^most` nanoseconds.
        let time = |rng: &mut Rng, least: u64, most: u64| {
            let bits = least + rng.below(most + 1 - least);
            Duration::from_nanos(rng.below(1 << bits))
        };
        // At most 17 s, so that a client returns before its address token expires; with twice as long, it would not.
        self.outage = rng.chance(100).then(|| (time(rng, 10, 34), time(rng, 20, 34)));
        self.later_mtu = rng.chance(150).then(|| (time(rng, 10, 34), 1200 + rng.below(273) as usize));
        self.routers_tell = rng.chance(500);
        self.lies = if rng.chance(100) { 1 + rng.below(100) } else { 0 };
        self.marks = if rng.chance(200) { rng.below(1001) } else { 0 };
    }
}

/// A claim about the size of a datagram.
#[derive(Debug)]
pub struct Claim {
    /// The sender of the datagram, which receives the claim.
    pub to: Side,
    /// Maximum UDP payload that would be forwarded, in bytes.
    pub max: u16,
    /// Length of the datagram in bytes.
    pub len: u16,
    /// Its first bytes.
    pub quoted: Vec<u8>,
}

/// Counters of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams sent into the network.
    pub sent: u64,
    /// Arrivals.
    pub delivered: u64,
    /// Lost at random, by a full queue, or because of their size.
    pub lost: u64,
    /// Extra copies.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// With a flipped bit.
    pub corrupted: u64,
}

/// A datagram that arrives: its destination, addresses, ECN codepoint and payload.
pub type Arrival = (Side, Ends, u8, Vec<u8>);

/// Both directions between a client and a server.
#[derive(Debug)]
pub struct Network {
    config: LinkConfig,
    rng: Rng,
    /// By when they are delivered, and when they arrive.
    flying: InFlight<Arrival, (Instant, Instant)>,
    /// When the link becomes free, by destination.
    free_at: [Instant; 2],
    /// When the world began.
    pub start: Instant,
    /// Claims to be delivered.
    pub claims: Vec<Claim>,
    /// Random numbers for events other than datagrams, so that the fate of datagrams does not depend on those.
    side_rng: Rng,
    /// Whether nothing gets through any more.
    pub cut: bool,
    /// Counters so far.
    pub stats: LinkStats,
}

impl Network {
    /// A network whose random events derive from `rng`.
    pub fn new(config: LinkConfig, mut rng: Rng) -> Self {
        Self {
            start: Instant::ZERO,
            claims: Vec::new(),
            side_rng: Rng::from_u64(rng.next_u64()),
            config,
            rng,
            flying: InFlight::default(),
            free_at: [Instant::ZERO; 2],
            cut: false,
            stats: LinkStats::default(),
        }
    }

    /// Sends a datagram to `to` with the ECN codepoint `ecn`. Without `ends`, it leads nowhere.
    pub fn send(&mut self, now: Instant, to: Side, ends: Option<Ends>, ecn: u8, data: &[u8]) {
        self.stats.sent += 1;
        let mtu = self.mtu(now);
        if data.len() > mtu && self.config.routers_tell {
            self.claim(to.peer(), mtu as u16, data);
        }
        if self.config.lies > 0 && self.side_rng.chance(self.config.lies) {
            self.lie(to.peer(), data);
        }
        let dropped = ecn != 0 && self.config.ecn == EcnFate::Dropped;
        if self.cut || self.is_out(now) || data.len() > mtu || dropped || self.rng.chance(self.config.loss) {
            self.stats.lost += 1;
            return;
        }
        let Some(ends) = ends else {
            self.stats.lost += 1;
            return;
        };
        let Some(departure) = self.departure(now, to, data.len()) else {
            self.stats.lost += 1;
            return;
        };
        let copies = 1 + u64::from(self.rng.chance(self.config.duplicate));
        self.stats.duplicated += copies - 1;
        for _ in 0..copies {
            let mut at = departure + self.config.delay;
            if self.rng.chance(self.config.reorder) {
                self.stats.reordered += 1;
                at += Duration::from_nanos(self.rng.below(4 * self.config.delay.as_nanos() as u64));
            }
            let mut data = data.to_vec();
            if self.rng.chance(self.config.corrupt) {
                self.stats.corrupted += 1;
                let bit = self.rng.below(8 * data.len() as u64) as usize;
                let bit = crate::sim::forwarder::harmless(bit, &data);
                data[bit / 8] ^= 1 << (bit % 8);
            }
            let marked = self.config.marks > 0 && self.side_rng.chance(self.config.marks);
            let congested = ecn != 0 && self.config.congestion > 0 && self.side_rng.chance(self.config.congestion);
            let ecn = match self.config.ecn {
                _ if marked => 1 + self.side_rng.below(3) as u8,
                EcnFate::Cleared => 0,
                EcnFate::Congested if ecn != 0 => CE,
                EcnFate::Changed if ecn != 0 => ECT_1,
                _ if congested => CE,
                _ => ecn,
            };
            let every = self.config.every.as_nanos() as u64;
            let given = if every == 0 { at } else { Instant::from_nanos(at.as_nanos().next_multiple_of(every)) };
            self.flying.push((given, at), (to, ends, ecn, data));
        }
    }

    /// Maximum UDP payload that gets through at `now`.
    fn mtu(&self, now: Instant) -> usize {
        let later = self.config.later_mtu.filter(|(at, _)| now.saturating_since(self.start) >= *at);
        later.map_or(self.config.mtu, |(_, mtu)| mtu)
    }

    fn is_out(&self, now: Instant) -> bool {
        let since = now.saturating_since(self.start);
        self.config.outage.is_some_and(|(from, time)| since >= from && since < from + time)
    }

    fn claim(&mut self, to: Side, max: u16, data: &[u8]) {
        self.claims.push(Claim { to, max, len: data.len() as u16, quoted: data[..data.len().min(32)].to_vec() });
    }

    /// Makes up a claim, about this datagram or about one of another connection.
    fn lie(&mut self, to: Side, data: &[u8]) {
        let max = self.side_rng.below(1600) as u16;
        let mut data = data.to_vec();
        if self.side_rng.chance(300) {
            self.side_rng.fill(&mut data);
        }
        self.claim(to, max, &data);
    }

    /// When the last bit is sent; `None` if the queue is full.
    fn departure(&mut self, now: Instant, to: Side, len: usize) -> Option<Instant> {
        if self.config.rate == 0 {
            return Some(now);
        }
        let free = &mut self.free_at[usize::from(to == Side::Server)];
        let wait = free.saturating_since(now);
        let backlog = wait.as_nanos() * u128::from(self.config.rate) / 8_000_000_000;
        if backlog > u128::from(self.config.queue) {
            return None;
        }
        *free = (*free).max(now) + Duration::from_nanos(len as u64 * 8_000_000_000 / self.config.rate);
        Some(*free)
    }

    /// When the next datagram is delivered.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.flying.next().map(|(given, _)| given)
    }

    /// The next datagram that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Arrival> {
        if self.next_arrival()? > now {
            return None;
        }
        let (_, arrival) = self.flying.pop()?;
        self.stats.delivered += 1;
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Option<Ends> {
        let any = crate::sim::moves::local(0);
        Some(Ends { local: any, remote: any, outside: any })
    }

    #[test]
    fn rate_spaces_arrivals_and_the_queue_is_bounded() {
        let config = LinkConfig { rate: 8_000_000, queue: 2000, ..LinkConfig::default() };
        let mut net = Network::new(config, Rng::from_u64(1));
        for _ in 0..10 {
            net.send(Instant::ZERO, Side::Server, ends(), 0, &[0; 1000]);
        }
        assert_eq!(net.stats.lost, 7, "one on the wire, two bytes-worth in the queue");
        assert_eq!(net.next_arrival(), Some(Instant::from_nanos(2_000_000)));
        let late = Instant::from_nanos(1 << 40);
        assert_eq!(std::iter::from_fn(|| net.receive(late)).count(), 3);
    }

    #[test]
    fn outages_narrow_times_and_claims() {
        let ms = Duration::from_millis;
        let config = LinkConfig {
            outage: Some((ms(10), ms(5))),
            later_mtu: Some((ms(20), 1300)),
            routers_tell: true,
            marks: 1000,
            ..LinkConfig::default()
        };
        let mut net = Network::new(config, Rng::from_u64(1));
        net.start = Instant::from_nanos(1_000_000_000);
        let through: Vec<_> = [9, 10, 14, 15, 20, 21]
            .into_iter()
            .map(|at| {
                let now = net.start + ms(at);
                net.send(now, Side::Server, ends(), 0, &[7; 1400]);
                net.receive(now + ms(1)).is_some_and(|(_, _, ecn, _)| (1..=3).contains(&ecn))
            })
            .collect();
        assert_eq!(through, [true, false, false, true, false, false]);
        let claim = &net.claims[1];
        assert_eq!((net.claims.len(), claim.to, claim.max, claim.len), (2, Side::Client, 1300, 1400));
        assert_eq!(claim.quoted, [7; 32]);
    }

    #[test]
    fn same_seed_same_accidents() {
        let run = || {
            let config = LinkConfig { loss: 100, duplicate: 100, reorder: 200, corrupt: 100, ..LinkConfig::default() };
            let mut net = Network::new(config, Rng::from_u64(9));
            (0..500u32).for_each(|i| net.send(Instant::ZERO, Side::Client, ends(), 0, &i.to_be_bytes()));
            let all: Vec<_> = std::iter::from_fn(|| net.receive(Instant::MAX)).collect();
            (all, net.stats)
        };
        let (a, b) = (run(), run());
        assert_eq!(a, b);
        assert!(a.1.lost > 20 && a.1.duplicated > 20 && a.1.corrupted > 20 && a.1.reordered > 50);
    }
}
