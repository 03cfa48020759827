//! The network between two simulated hosts: delay, rate, loss, reorder, duplication, corruption, MTU.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};

/// What a link does to datagrams. Chances are per mille.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// Propagation delay.
    pub delay: Duration,
    /// Bits per second; 0: no limit.
    pub rate: u64,
    /// Bytes that may wait for the link, when it has a rate; the rest is dropped.
    pub queue: u64,
    /// Chance that a datagram is lost.
    pub loss: u64,
    /// Chance that a datagram arrives twice.
    pub duplicate: u64,
    /// Chance that a datagram is held back by up to four times the delay.
    pub reorder: u64,
    /// Chance that one of a datagram's bits is flipped.
    pub corrupt: u64,
    /// Largest UDP payload that gets through, bytes.
    pub mtu: usize,
}

impl Default for LinkConfig {
    /// A perfect link of 1 ms.
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
        }
    }
}

/// What became of the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams given to the network.
    pub sent: u64,
    /// Arrivals.
    pub delivered: u64,
    /// Lost by chance, by a full queue or for their size.
    pub lost: u64,
    /// Extra copies.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// With a flipped bit.
    pub corrupted: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at: Instant,
    /// Keeps the order of what arrives at the same time.
    seq: u64,
    to_server: bool,
    data: Vec<u8>,
}

/// Both directions between a client and a server.
#[derive(Debug)]
pub struct Network {
    config: LinkConfig,
    rng: Rng,
    flying: BinaryHeap<Reverse<Arrival>>,
    /// When the link is free again, by destination.
    free_at: [Instant; 2],
    seq: u64,
    /// Nothing gets through any more.
    pub cut: bool,
    /// What happened so far.
    pub stats: LinkStats,
}

impl Network {
    /// A network whose accidents follow from `rng`.
    pub fn new(config: LinkConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            flying: BinaryHeap::new(),
            free_at: [Instant::ZERO; 2],
            seq: 0,
            cut: false,
            stats: LinkStats::default(),
        }
    }

    /// Takes a datagram from the other side of `to`.
    pub fn send(&mut self, now: Instant, to: Side, data: &[u8]) {
        self.stats.sent += 1;
        if self.cut || data.len() > self.config.mtu || self.rng.chance(self.config.loss) {
            self.stats.lost += 1;
            return;
        }
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
                data[bit / 8] ^= 1 << (bit % 8);
            }
            self.seq += 1;
            self.flying.push(Reverse(Arrival { at, seq: self.seq, to_server: to == Side::Server, data }));
        }
    }

    /// When the last bit has left; `None` when the queue is full.
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

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse(a)| a.at)
    }

    /// The next datagram that has arrived by `now`, and where.
    pub fn receive(&mut self, now: Instant) -> Option<(Side, Vec<u8>)> {
        if self.next_arrival()? > now {
            return None;
        }
        let Reverse(arrival) = self.flying.pop()?;
        self.stats.delivered += 1;
        Some((if arrival.to_server { Side::Server } else { Side::Client }, arrival.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_spaces_arrivals_and_the_queue_is_bounded() {
        let config = LinkConfig { rate: 8_000_000, queue: 2000, ..LinkConfig::default() };
        let mut net = Network::new(config, Rng::from_u64(1));
        for _ in 0..10 {
            net.send(Instant::ZERO, Side::Server, &[0; 1000]);
        }
        assert_eq!(net.stats.lost, 7, "one on the wire, two bytes-worth in the queue");
        assert_eq!(net.next_arrival(), Some(Instant::from_nanos(2_000_000)));
        let late = Instant::from_nanos(1 << 40);
        assert_eq!(std::iter::from_fn(|| net.receive(late)).count(), 3);
    }

    #[test]
    fn same_seed_same_accidents() {
        let run = || {
            let config = LinkConfig { loss: 100, duplicate: 100, reorder: 200, corrupt: 100, ..LinkConfig::default() };
            let mut net = Network::new(config, Rng::from_u64(9));
            (0..500u32).for_each(|i| net.send(Instant::ZERO, Side::Client, &i.to_be_bytes()));
            let all: Vec<_> = std::iter::from_fn(|| net.receive(Instant::MAX)).collect();
            (all, net.stats)
        };
        let (a, b) = (run(), run());
        assert_eq!(a, b);
        assert!(a.1.lost > 20 && a.1.duplicated > 20 && a.1.corrupted > 20 && a.1.reordered > 50);
    }
}
