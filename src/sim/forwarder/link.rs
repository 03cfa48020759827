//! One direction of a link: delay, rate, queue, loss, reordering, duplication, corruption, congestion marks, MTU.

use std::ops::RangeInclusive;

use arrayvec::ArrayVec;

use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};

/// ECN codepoint of packets whose sender does not support ECN.
const NOT_ECT: u8 = 0;

/// ECN codepoint "congestion experienced".
const CE: u8 = 3;

/// A time in which nothing gets through, which may recur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Its start, counted from the start of the link.
    pub from: Duration,
    /// Its length.
    pub length: Duration,
    /// Time from one start to the next; zero if there is only one.
    pub every: Duration,
}

impl Outage {
    fn contains(&self, since: Duration) -> bool {
        let Some(into) = since.checked_sub(self.from) else { return false };
        let every = self.every.as_nanos();
        let into = if every == 0 { into.as_nanos() } else { into.as_nanos() % every };
        into < self.length.as_nanos()
    }
}

/// What happens to datagrams in one direction. Probabilities are per mille.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Propagation delay.
    pub delay: Duration,
    /// Additional delay of up to this time for each datagram. The order is kept.
    pub jitter: Duration,
    /// Bits per second; 0 for no limit.
    pub rate: u64,
    /// Capacity of the queue before a link with a rate, in bytes of IP packets. Further packets are dropped.
    pub queue: u64,
    /// Probability of loss.
    pub loss: u64,
    /// Most datagrams that are lost in a row at random; 0 for no limit.
    pub loss_run: u64,
    /// Datagrams that are lost, counted from 1.
    pub drops: Vec<RangeInclusive<u64>>,
    /// `(period, count)`: of each `period` datagrams, the last `count` are lost.
    pub bursts: Option<(u64, u64)>,
    /// Times in which nothing gets through.
    pub outages: Vec<Outage>,
    /// Probability that one bit is flipped.
    pub corrupt: u64,
    /// Most datagrams that are corrupted in a row; 0 for no limit.
    pub corrupt_run: u64,
    /// Probability of a second copy.
    pub duplicate: u64,
    /// Probability that a datagram is held back by up to `held`, so that others overtake it.
    pub reorder: u64,
    /// The most that one is held back; zero for four times the delay.
    pub held: Duration,
    /// Probability that a packet of an ECN-capable sender is marked "congestion experienced".
    pub marks: u64,
    /// Such packets are also marked if more than this many bytes wait in the queue.
    pub mark_above: Option<u64>,
    /// ECN codepoints are cleared.
    pub bleach: bool,
    /// Largest IP packet in bytes; 0 for no limit.
    pub mtu: usize,
    /// Another MTU from this time on, counted from the start.
    pub later_mtu: Option<(Duration, usize)>,
}

impl Default for Shape {
    /// A perfect link.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: 0,
            queue: 1 << 20,
            loss: 0,
            loss_run: 0,
            drops: Vec::new(),
            bursts: None,
            outages: Vec::new(),
            corrupt: 0,
            corrupt_run: 0,
            duplicate: 0,
            reorder: 0,
            held: Duration::ZERO,
            marks: 0,
            mark_above: None,
            bleach: false,
            mtu: 0,
            later_mtu: None,
        }
    }
}

/// Counters of one direction, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapeStats {
    /// Offered to the link.
    pub sent: u64,
    /// Copies that get through.
    pub passed: u64,
    /// Lost at random.
    pub lost_random: u64,
    /// Lost because of their number: [`Shape::drops`] and [`Shape::bursts`].
    pub lost_by_number: u64,
    /// Lost in an outage.
    pub lost_outage: u64,
    /// Lost because the queue was full.
    pub lost_queue: u64,
    /// Lost because of their size.
    pub lost_size: u64,
    /// Second copies.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// With a flipped bit.
    pub corrupted: u64,
    /// Marked "congestion experienced" here.
    pub marked: u64,
    /// With a cleared ECN codepoint.
    pub bleached: u64,
}

impl ShapeStats {
    /// All that were lost.
    pub const fn lost(&self) -> u64 {
        self.lost_random + self.lost_by_number + self.lost_outage + self.lost_queue + self.lost_size
    }
}

/// A copy of a datagram that gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When it arrives.
    pub at: Instant,
    /// The bit of the payload that is flipped.
    pub flipped: Option<usize>,
    /// Its ECN codepoint on arrival.
    pub ecn: u8,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    shape: Shape,
    start: Instant,
    rng: Rng,
    /// When the last bit of the queue has been sent.
    free_at: Instant,
    /// Arrival of the datagram that arrives last of those that keep the order.
    last: Instant,
    losses_in_a_row: u64,
    corruptions_in_a_row: u64,
    stats: ShapeStats,
}

impl Link {
    /// A link that starts at `start`.
    pub fn new(shape: Shape, start: Instant, rng: Rng) -> Self {
        Self {
            shape,
            start,
            rng,
            free_at: start,
            last: start,
            losses_in_a_row: 0,
            corruptions_in_a_row: 0,
            stats: ShapeStats::default(),
        }
    }

    /// Counters so far.
    pub fn stats(&self) -> ShapeStats {
        self.stats
    }

    /// Decides the fate of a packet of `len` bytes with `payload` bytes of UDP payload: the copies that get through.
    pub fn offer(&mut self, now: Instant, len: usize, payload: usize, ecn: u8) -> ArrayVec<Passage, 2> {
        self.stats.sent += 1;
        let mut copies = ArrayVec::new();
        if self.is_lost(now, len) {
            return copies;
        }
        let backlog = self.backlog(now);
        let Some(departure) = self.departure(now, len, backlog) else {
            self.stats.lost_queue += 1;
            return copies;
        };
        let ecn = self.ecn(ecn, backlog);
        let twice = self.rng.chance(self.shape.duplicate);
        self.stats.duplicated += u64::from(twice);
        for _ in 0..1 + usize::from(twice) {
            let at = self.arrival(departure);
            let flipped = self.flipped(payload);
            copies.push(Passage { at, flipped, ecn });
        }
        self.stats.passed += copies.len() as u64;
        copies
    }

    fn is_lost(&mut self, now: Instant, len: usize) -> bool {
        let (shape, since, number) = (&self.shape, now.saturating_since(self.start), self.stats.sent);
        let mtu = shape.later_mtu.filter(|(at, _)| since >= *at).map_or(shape.mtu, |(_, mtu)| mtu);
        let in_burst = shape.bursts.is_some_and(|(period, count)| {
            let place = (number - 1) % period.max(1);
            place + count >= period.max(1)
        });
        let counter = if mtu > 0 && len > mtu {
            &mut self.stats.lost_size
        } else if shape.outages.iter().any(|outage| outage.contains(since)) {
            &mut self.stats.lost_outage
        } else if in_burst || shape.drops.iter().any(|range| range.contains(&number)) {
            &mut self.stats.lost_by_number
        } else if in_a_row(&mut self.rng, shape.loss, shape.loss_run, &mut self.losses_in_a_row) {
            &mut self.stats.lost_random
        } else {
            return false;
        };
        *counter += 1;
        true
    }

    /// Bytes that wait to be sent.
    fn backlog(&self, now: Instant) -> u64 {
        let wait = self.free_at.saturating_since(now);
        u64::try_from(wait.as_nanos() * u128::from(self.shape.rate) / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// When the last bit is sent; `None` if the queue is full.
    fn departure(&mut self, now: Instant, len: usize, backlog: u64) -> Option<Instant> {
        if self.shape.rate == 0 {
            return Some(now);
        }
        if backlog > self.shape.queue {
            return None;
        }
        self.free_at = self.free_at.max(now) + Duration::from_nanos(len as u64 * 8_000_000_000 / self.shape.rate);
        Some(self.free_at)
    }

    fn ecn(&mut self, ecn: u8, backlog: u64) -> u8 {
        if ecn == NOT_ECT {
            return ecn;
        }
        if self.shape.bleach {
            self.stats.bleached += 1;
            return NOT_ECT;
        }
        let full = self.shape.mark_above.is_some_and(|limit| backlog > limit);
        if ecn != CE && (full || self.rng.chance(self.shape.marks)) {
            self.stats.marked += 1;
            return CE;
        }
        ecn
    }

    fn arrival(&mut self, departure: Instant) -> Instant {
        let at = departure + self.shape.delay;
        if self.rng.chance(self.shape.reorder) {
            self.stats.reordered += 1;
            let held = if self.shape.held.is_zero() { 4 * self.shape.delay } else { self.shape.held };
            return at + self.up_to(held);
        }
        let jitter = self.up_to(self.shape.jitter);
        self.last = self.last.max(at + jitter);
        self.last
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if most == 0 { 0 } else { self.rng.below(most) })
    }

    fn flipped(&mut self, payload: usize) -> Option<usize> {
        let (shape, row) = (&self.shape, &mut self.corruptions_in_a_row);
        if payload == 0 || !in_a_row(&mut self.rng, shape.corrupt, shape.corrupt_run, row) {
            return None;
        }
        self.stats.corrupted += 1;
        Some(self.rng.below(8 * payload as u64) as usize)
    }
}

/// Draws whether something happens, at most `limit` times in a row unless that is 0.
fn in_a_row(rng: &mut Rng, per_mille: u64, limit: u64, row: &mut u64) -> bool {
    let happens = per_mille > 0 && rng.chance(per_mille) && (limit == 0 || *row < limit);
    *row = if happens { *row + 1 } else { 0 };
    happens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(shape: Shape) -> Link {
        Link::new(shape, Instant::from_nanos(1_000_000_000), Rng::from_u64(3))
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms)
    }

    /// Which of `count` datagrams, one a millisecond, get through.
    fn through(link: &mut Link, count: u64) -> Vec<bool> {
        (0..count).map(|i| !link.offer(at(i), 1000, 972, 0).is_empty()).collect()
    }

    #[test]
    fn the_rate_spaces_arrivals_and_the_queue_is_bounded() {
        let mut link =
            link(Shape { rate: 8_000_000, queue: 2000, delay: Duration::from_millis(1), ..Shape::default() });
        let arrivals: Vec<_> = (0..10).flat_map(|_| link.offer(at(0), 1000, 972, 0)).map(|p| p.at).collect();
        assert_eq!(arrivals, [at(2), at(3), at(4)]);
        assert_eq!((link.stats().lost_queue, link.stats().lost()), (7, 7));
        // It drains.
        assert_eq!(link.offer(at(3), 1000, 972, 0)[0].at, at(5));
    }

    #[test]
    fn datagrams_are_dropped_by_number() {
        let mut first = link(Shape { drops: vec![1..=2, 5..=5], ..Shape::default() });
        assert_eq!(through(&mut first, 6), [false, false, true, true, false, true]);
        let mut bursts = link(Shape { bursts: Some((4, 1)), ..Shape::default() });
        assert_eq!(through(&mut bursts, 8), [true, true, true, false, true, true, true, false]);
        assert_eq!(bursts.stats().lost_by_number, 2);
    }

    #[test]
    fn outages_recur_and_sizes_count() {
        let ms = Duration::from_millis;
        let outage = Outage { from: ms(1), length: ms(2), every: ms(5) };
        let mut link = link(Shape { outages: vec![outage], later_mtu: Some((ms(9), 999)), ..Shape::default() });
        let expected = [true, false, false, true, true, true, false, false, true, false];
        assert_eq!(through(&mut link, 10), expected);
        assert_eq!((link.stats().lost_outage, link.stats().lost_size), (4, 1));
        assert_eq!(link.offer(at(10), 999, 971, 0).len(), 1);
        let once = Outage { every: Duration::ZERO, ..outage };
        assert!(once.contains(ms(2)) && !once.contains(ms(3)) && !once.contains(ms(7)));
    }

    #[test]
    fn losses_in_a_row_are_limited() {
        let mut bad = link(Shape { loss: 900, loss_run: 3, corrupt: 900, corrupt_run: 2, ..Shape::default() });
        let through = through(&mut bad, 1000);
        assert!(through.windows(4).all(|w| w.contains(&true)) && through.windows(3).any(|w| !w.contains(&true)));
        let mut damaging = link(Shape { corrupt: 900, corrupt_run: 2, ..Shape::default() });
        let flips: Vec<_> = (0..1000).map(|i| damaging.offer(at(i), 1000, 972, 0)[0].flipped.is_some()).collect();
        assert!(flips.windows(3).all(|w| w.contains(&false)) && flips.windows(2).any(|w| !w.contains(&false)));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let ms = Duration::from_millis;
        let arrivals = |shape| {
            let mut link = link(shape);
            (0..200).map(|i| link.offer(at(i), 1000, 972, 0)[0].at).collect::<Vec<_>>()
        };
        let jittered = arrivals(Shape { jitter: ms(20), ..Shape::default() });
        assert!(jittered.is_sorted());
        let late = jittered.iter().zip(0..).filter(|(a, i)| **a > at(*i)).count();
        assert!(late > 100, "{late}");
        assert!(!arrivals(Shape { reorder: 200, held: ms(20), ..Shape::default() }).is_sorted());
        assert!(!arrivals(Shape { reorder: 200, delay: ms(5), ..Shape::default() }).is_sorted());
    }

    #[test]
    fn only_ecn_capable_packets_are_marked() {
        let ecn = |shape: Shape, ecn| {
            let mut link = link(shape);
            (0..4).map(|_| link.offer(at(0), 1000, 972, ecn)[0].ecn).collect::<Vec<_>>()
        };
        let always = Shape { marks: 1000, ..Shape::default() };
        assert_eq!(ecn(always.clone(), 0), [0; 4]);
        assert_eq!(ecn(always, 2), [3; 4]);
        assert_eq!(ecn(Shape { bleach: true, ..Shape::default() }, 3), [0; 4]);
        let standing = Shape { rate: 8_000_000, mark_above: Some(1500), ..Shape::default() };
        assert_eq!(ecn(standing, 1), [1, 1, 3, 3]);
    }
}
