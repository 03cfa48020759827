//! One direction of a link: delay, rate, queue, loss, reordering, duplication, corruption, congestion marks, MTU.

use arrayvec::ArrayVec;

use super::codel::{Fate, Sojourn};
use super::pipe::Pipe;
use super::shape::{ALWAYS, Shape, ShapeStats};
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};

/// ECN codepoint of packets whose sender does not support ECN.
const NOT_ECT: u8 = 0;

/// ECN codepoint "congestion experienced".
const CE: u8 = 3;

/// A copy of a datagram that gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When it arrives.
    pub at: Instant,
    /// How long it waits in the queue.
    pub queued: Duration,
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
    pipe: Option<Pipe>,
    sojourn: Sojourn,
    /// Whether a link with bursts of loss is bad at present.
    bad: bool,
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
            pipe: (shape.rate > 0).then(|| Pipe::new(shape.rate, &shape.steps, start)),
            shape,
            start,
            rng,
            sojourn: Sojourn::default(),
            bad: false,
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

    /// Bytes of IP packets that wait in the queue or are being sent.
    pub fn backlog(&self, now: Instant) -> u64 {
        self.pipe.as_ref().map_or(0, |pipe| pipe.backlog(now))
    }

    /// Decides the fate of a packet of `len` bytes with `payload` bytes of UDP payload: the copies that get through.
    pub fn offer(&mut self, now: Instant, len: usize, payload: usize, ecn: u8) -> ArrayVec<Passage, 2> {
        self.stats.sent += 1;
        let mut copies = ArrayVec::new();
        if self.is_lost(now, len) {
            return copies;
        }
        let backlog = self.backlog(now);
        let Some((queued, departure, ecn)) = self.queue(now, len, backlog, ecn) else { return copies };
        let ecn = self.ecn(ecn, backlog);
        let twice = happens(&mut self.rng, self.shape.duplicate);
        self.stats.duplicated += u64::from(twice);
        for _ in 0..1 + usize::from(twice) {
            let at = self.arrival(departure);
            let flipped = self.flipped(payload);
            copies.push(Passage { at, queued, flipped, ecn });
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
        } else if let Some(gilbert) = shape.gilbert {
            let turns = if self.bad { gilbert.to_good } else { gilbert.to_bad };
            self.bad ^= happens(&mut self.rng, turns);
            if !happens(&mut self.rng, if self.bad { gilbert.loss_bad } else { gilbert.loss_good }) {
                return false;
            }
            &mut self.stats.lost_burst
        } else {
            return false;
        };
        *counter += 1;
        true
    }

    /// How long it waits, when its last bit is sent, and its ECN codepoint then; `None` if the queue drops it.
    fn queue(&mut self, now: Instant, len: usize, backlog: u64, ecn: u8) -> Option<(Duration, Instant, u8)> {
        let Some(pipe) = &mut self.pipe else { return Some((Duration::ZERO, now, ecn)) };
        if backlog > self.shape.queue {
            self.stats.lost_queue += 1;
            return None;
        }
        let begins = pipe.free_at().max(now);
        let queued = begins.saturating_since(now);
        let fate = self.shape.codel.map_or(Fate::Passes, |codel| self.sojourn.fate(&codel, begins, queued));
        let ecn = match fate {
            Fate::Passes => ecn,
            Fate::Dropped if ecn == NOT_ECT || !self.shape.codel.is_some_and(|codel| codel.marks) => {
                self.stats.lost_codel += 1;
                return None;
            }
            Fate::Dropped => {
                self.stats.marked += u64::from(ecn != CE);
                CE
            }
        };
        Some((queued, pipe.send(now, len), ecn))
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
        if ecn != CE && (full || happens(&mut self.rng, self.shape.marks)) {
            self.stats.marked += 1;
            return CE;
        }
        ecn
    }

    fn arrival(&mut self, departure: Instant) -> Instant {
        let at = departure + self.shape.delay;
        if happens(&mut self.rng, self.shape.reorder) {
            self.stats.reordered += 1;
            let held = if self.shape.held.is_zero() { 4 * self.shape.delay } else { self.shape.held };
            return at + self.up_to(held);
        }
        if self.shape.late > 0 && happens(&mut self.rng, self.shape.late) {
            self.stats.reordered += 1;
            return at + self.shape.late_by;
        }
        let at = at + self.up_to(self.shape.jitter);
        if self.shape.overtaking {
            return at;
        }
        self.last = self.last.max(at);
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

/// Draws whether something with this probability, per million, happens.
fn happens(rng: &mut Rng, probability: u64) -> bool {
    rng.below(ALWAYS) < probability
}

/// Draws whether something happens, at most `limit` times in a row unless that is 0.
fn in_a_row(rng: &mut Rng, probability: u64, limit: u64, row: &mut u64) -> bool {
    let happens = probability > 0 && happens(rng, probability) && (limit == 0 || *row < limit);
    *row = if happens { *row + 1 } else { 0 };
    happens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::forwarder::{Codel, Gilbert, Outage, PER_MILLE};

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
        let mut bad = link(Shape {
            loss: 900 * PER_MILLE,
            loss_run: 3,
            corrupt: 900 * PER_MILLE,
            corrupt_run: 2,
            ..Shape::default()
        });
        let through = through(&mut bad, 1000);
        assert!(through.windows(4).all(|w| w.contains(&true)) && through.windows(3).any(|w| !w.contains(&true)));
        let mut damaging = link(Shape { corrupt: 900 * PER_MILLE, corrupt_run: 2, ..Shape::default() });
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
        assert!(!arrivals(Shape { reorder: 200 * PER_MILLE, held: ms(20), ..Shape::default() }).is_sorted());
        assert!(!arrivals(Shape { reorder: 200 * PER_MILLE, delay: ms(5), ..Shape::default() }).is_sorted());
    }

    #[test]
    fn only_ecn_capable_packets_are_marked() {
        let ecn = |shape: Shape, ecn| {
            let mut link = link(shape);
            (0..4).map(|_| link.offer(at(0), 1000, 972, ecn)[0].ecn).collect::<Vec<_>>()
        };
        let always = Shape { marks: ALWAYS, ..Shape::default() };
        assert_eq!(ecn(always.clone(), 0), [0; 4]);
        assert_eq!(ecn(always, 2), [3; 4]);
        assert_eq!(ecn(Shape { bleach: true, ..Shape::default() }, 3), [0; 4]);
        let standing = Shape { rate: 8_000_000, mark_above: Some(1500), ..Shape::default() };
        assert_eq!(ecn(standing, 1), [1, 1, 3, 3]);
    }

    #[test]
    fn a_rate_changes_in_the_middle_of_a_packet() {
        // 1000 bytes a millisecond, and a fourth of it from 1.5 ms on.
        let steps = vec![(Duration::from_micros(1500), 2_000_000)];
        let mut link = link(Shape { rate: 8_000_000, steps, ..Shape::default() });
        let passages: Vec<_> = (0..3).flat_map(|_| link.offer(at(0), 1000, 972, 0)).collect();
        let micros = |us| at(0) + Duration::from_micros(us);
        assert_eq!(passages.iter().map(|p| p.at).collect::<Vec<_>>(), [at(1), micros(3500), micros(7500)]);
        let waits = [0, 1000, 3500].map(Duration::from_micros);
        assert_eq!(passages.iter().map(|p| p.queued).collect::<Vec<_>>(), waits);
        assert_eq!([at(0), at(1), at(2)].map(|now| link.backlog(now)), [3000, 2000, 1375]);
    }

    #[test]
    fn bursts_of_loss_are_as_long_and_as_rare_as_they_should_be() {
        let gilbert = Gilbert { to_bad: PER_MILLE, to_good: 100 * PER_MILLE, loss_good: 0, loss_bad: 900 * PER_MILLE };
        let mut link = link(Shape { gilbert: Some(gilbert), ..Shape::default() });
        let through = through(&mut link, 200_000);
        let lost = through.iter().filter(|passed| !**passed).count();
        // It is bad for 1 / 101 of the time, ten datagrams at a time.
        assert!((1400..2200).contains(&lost), "{lost}");
        let bursts = through.windows(2).filter(|pair| pair[0] && !pair[1]).count();
        assert!(lost > 4 * bursts, "{lost} in {bursts}");
        assert_eq!(link.stats().lost_burst, lost as u64);
    }

    #[test]
    fn late_datagrams_are_overtaken_and_hold_up_nobody() {
        let shape = Shape { late: 10 * PER_MILLE, late_by: Duration::from_millis(20), ..Shape::default() };
        let mut link = link(shape);
        let delays: Vec<_> =
            (0..1000).map(|i| link.offer(at(i), 1000, 972, 0)[0].at.saturating_since(at(i)).as_millis()).collect();
        let late = delays.iter().filter(|delay| **delay == 20).count();
        assert!((2..30).contains(&late) && delays.iter().all(|delay| [0, 20].contains(delay)), "{delays:?}");
        assert_eq!(link.stats().reordered, late as u64);
    }

    #[test]
    fn jitter_may_reorder() {
        let shape = Shape { jitter: Duration::from_millis(5), overtaking: true, ..Shape::default() };
        let mut link = link(shape);
        let arrivals: Vec<_> = (0..200).map(|i| link.offer(at(i), 1000, 972, 0)[0].at).collect();
        assert!(!arrivals.is_sorted());
        assert!(arrivals.iter().zip(0..).all(|(a, i)| a.saturating_since(at(i)) < Duration::from_millis(5)));
    }

    /// What remains of a flood of twice the rate for two seconds: the longest wait in its second half, drops and marks.
    fn flooded(codel: Option<Codel>, ecn: u8) -> (Duration, ShapeStats) {
        let mut link = link(Shape { rate: 8_000_000, queue: 4_000_000, codel, ..Shape::default() });
        let offers = (0..4000).map(|i| at(0) + Duration::from_micros(500 * i));
        let waits: Vec<_> = offers.flat_map(|now| link.offer(now, 1000, 972, ecn)).map(|p| p.queued).collect();
        (waits[waits.len() / 2..].iter().copied().max().unwrap(), link.stats())
    }

    #[test]
    fn codel_drops_or_marks_what_waits_for_too_long() {
        let (tail_drop, _) = flooded(None, 0);
        assert!(tail_drop > Duration::from_millis(1900), "{tail_drop:?}");
        let (wait, stats) = flooded(Some(Codel::default()), 0);
        assert!(wait < tail_drop && stats.lost_codel > 20 && stats.marked == 0, "{wait:?} {stats:?}");
        let (_, stats) = flooded(Some(Codel { marks: true, ..Codel::default() }), 2);
        assert!(stats.lost() == 0 && stats.marked > 20, "{stats:?}");
        // Those that cannot be marked are dropped.
        assert!(flooded(Some(Codel { marks: true, ..Codel::default() }), 0).1.lost_codel > 20);
    }
}
