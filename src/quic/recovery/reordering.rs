//! Reordering: how far packets overtake each other, and losses that were nothing else.
//!
//! The thresholds of loss detection start at the values of RFC 9002 §6.1 and follow what is observed, as that section
//! allows: in packet numbers, and in time as RFC 8985 §6.2 does. Both are bounded, and go back to their initial values
//! when there has been no reordering for a while (RFC 8985 §6.2, step 4).
//!
//! The numbers lost since the last reduction of the window are recorded. Once all of them are acknowledged, there was
//! no congestion (RFC 9438 §4.9).

use core::ops::RangeInclusive;
use std::collections::VecDeque;

use crate::base::time::{Duration, Instant};

/// The initial threshold in packets (RFC 9002 §6.1.1).
pub(crate) const PACKET_THRESHOLD: u64 = 3;

/// The largest threshold in packets. From there on, time decides.
const MAX_PACKET_THRESHOLD: u64 = 4096;

/// Maximum number of lost packets that are remembered.
const MAX_LOST: usize = 512;

/// Thresholds are kept for this number of reductions of the window without further reordering (RFC 8985 §6.2).
const PERSISTENCE: u8 = 16;

/// A lost packet of the Data space.
#[derive(Clone, Copy, Debug)]
struct Lost {
    pn: u64,
    /// When it was sent.
    sent: Instant,
    /// Whether it was lost after the last reduction of the window.
    counts: bool,
}

/// A packet that was acknowledged after later ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    /// Its number.
    pub(super) pn: u64,
    /// When it was sent.
    pub(super) sent: Instant,
}

#[derive(Clone, Debug)]
pub(super) struct Reordering {
    /// The threshold in packets.
    packets: u64,
    /// How much longer than a round trip a packet may take, beyond the usual eighth.
    time: Duration,
    /// Reductions of the window since there was reordering.
    calm: u8,
    /// Recent losses in ascending order.
    lost: VecDeque<Lost>,
    /// The number of those that count.
    unproven: usize,
    /// Proof that comes later does not count.
    deadline: Instant,
    /// Whether the last reduction can still prove to be unfounded.
    armed: bool,
}

impl Default for Reordering {
    fn default() -> Self {
        Self {
            packets: PACKET_THRESHOLD,
            time: Duration::ZERO,
            calm: 0,
            lost: VecDeque::new(),
            unproven: 0,
            deadline: Instant::ZERO,
            armed: false,
        }
    }
}

impl Reordering {
    /// The number of later packets acknowledged after which a packet is lost.
    #[inline]
    pub(super) fn packet_threshold(&self) -> u64 {
        self.packets
    }

    /// How long after it was sent a packet is lost if a later one is acknowledged; `usual` is that time without
    /// reordering. It is no more than twice as long (RFC 8985 §6.2, step 4).
    #[inline]
    pub(super) fn loss_delay(&self, usual: Duration) -> Duration {
        usual + self.time.min(usual)
    }

    /// Starts a new record, before the window is reduced.
    pub(super) fn restart(&mut self, deadline: Instant) {
        self.lost.iter_mut().for_each(|lost| lost.counts = false);
        (self.unproven, self.deadline, self.armed) = (0, deadline, true);
        if self.packets > PACKET_THRESHOLD || self.time > Duration::ZERO {
            self.calm += 1;
            if self.calm > PERSISTENCE {
                (self.packets, self.time, self.calm) = (PACKET_THRESHOLD, Duration::ZERO, 0);
            }
        }
    }

    /// Records the loss of packet `pn`, which was sent at `sent`.
    pub(super) fn insert(&mut self, pn: u64, sent: Instant) {
        if self.lost.len() == MAX_LOST && self.lost.pop_front().is_some_and(|lost| lost.counts) {
            // That one can no longer be proved.
            self.disarm();
        }
        self.unproven += usize::from(self.armed);
        self.lost.push_back(Lost { pn, sent, counts: self.armed });
    }

    /// The lowest recorded number.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.lost.front().map(|lost| lost.pn)
    }

    /// Removes `range`, which is acknowledged. Returns the lowest number among those that were recorded.
    pub(super) fn on_acked(&mut self, range: RangeInclusive<u64>) -> Option<Late> {
        if self.lost.back().is_none_or(|lost| lost.pn < *range.start()) {
            return None;
        }
        let from = self.lost.partition_point(|lost| lost.pn < *range.start());
        let to = self.lost.partition_point(|lost| lost.pn <= *range.end());
        let late = self.lost.range(from..to).next().map(|lost| Late { pn: lost.pn, sent: lost.sent });
        let proven = self.lost.drain(from..to).filter(|lost| lost.counts).count();
        self.unproven -= proven;
        late
    }

    /// A packet has been acknowledged at `now` that was overtaken by `distance` packets or more. `usual` is the time
    /// after which a packet is lost without reordering.
    pub(super) fn on_late(&mut self, now: Instant, late: Late, distance: u64, usual: Duration) {
        self.calm = 0;
        // A quarter more, so that not every new maximum costs a retransmission.
        let packets = distance + distance / 4 + 1;
        self.packets = self.packets.max(packets.min(MAX_PACKET_THRESHOLD));
        if let Some(more) = now.saturating_since(late.sent).checked_sub(usual) {
            self.time = self.time.max(more + more / 4).min(usual);
        }
    }

    /// Gives up: the last reduction stands.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
        self.lost.iter_mut().for_each(|lost| lost.counts = false);
        self.unproven = 0;
    }

    /// Forgets everything, for another path.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether no loss is remembered and none can be proved spurious: the usual case.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.lost.is_empty() && !self.armed
    }

    /// Whether every loss turned out to be spurious. True once. Losses of packets sent longer than `memory` ago are
    /// forgotten.
    pub(super) fn take_proof(&mut self, now: Instant, memory: Duration) -> bool {
        while let Some(lost) = self.lost.pop_front_if(|lost| lost.sent + memory < now) {
            if lost.counts {
                self.disarm();
            }
        }
        if self.armed && now > self.deadline {
            self.disarm();
        }
        let proven = self.armed && self.unproven == 0;
        if proven {
            self.armed = false;
        }
        proven
    }

    /// Frees unused memory.
    pub(super) fn trim(&mut self) {
        if !self.armed {
            self.lost = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const MEMORY: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// Losses of packets sent at their number in milliseconds.
    fn lost(numbers: &[u64]) -> Reordering {
        let mut r = Reordering::default();
        r.restart(at(100));
        numbers.iter().for_each(|pn| r.insert(*pn, at(*pn)));
        r
    }

    #[test]
    fn proven_once_all_are_back() {
        let mut r = lost(&[3, 4, 8]);
        assert_eq!(r.lowest(), Some(3));
        assert_eq!(r.on_acked(4..=9).map(|late| (late.pn, late.sent)), Some((4, at(4))));
        assert!(!r.take_proof(at(100), MEMORY));
        assert_eq!(r.on_acked(0..=3).map(|late| late.pn), Some(3));
        assert!(r.take_proof(at(100), MEMORY));
        assert!(!r.take_proof(at(100), MEMORY), "once");
        r.insert(20, at(20));
        assert_eq!(r.lowest(), Some(20), "remembered, as it tells of reordering");
        r.on_acked(20..=20);
        assert!(!r.take_proof(at(100), MEMORY), "no proof before the next reduction");
    }

    #[test]
    fn what_comes_too_late_or_was_forgotten_proves_nothing() {
        let mut r = lost(&[3]);
        r.on_acked(3..=3);
        assert!(!r.take_proof(at(101), MEMORY));
        let mut r = lost(&[1, 3]);
        assert!(!r.take_proof(at(12), 10 * MS));
        assert_eq!(r.lowest(), Some(3), "packet 1 was sent 11 ms ago");
        r.on_acked(0..=u64::MAX);
        assert!(!r.take_proof(at(12), 10 * MS));
        let many: Vec<u64> = (0..=MAX_LOST as u64).collect();
        let mut r = lost(&many);
        r.on_acked(0..=u64::MAX);
        assert!(!r.take_proof(at(0), MEMORY));
        assert!(!Reordering::default().take_proof(at(0), MEMORY));
    }

    #[test]
    fn only_losses_since_the_last_reduction_have_to_be_proved() {
        let mut r = lost(&[1, 2]);
        r.restart(at(200));
        r.insert(5, at(5));
        r.on_acked(5..=5);
        assert!(r.take_proof(at(10), MEMORY));
        assert_eq!(r.lowest(), Some(1));
    }

    #[test]
    fn thresholds_follow_what_is_seen_and_are_bounded() {
        let mut r = Reordering::default();
        assert_eq!((r.packet_threshold(), r.loss_delay(10 * MS)), (3, 10 * MS));
        let late = |sent| Late { pn: 0, sent: at(sent) };
        r.on_late(at(9), late(0), 1, 10 * MS);
        assert_eq!((r.packet_threshold(), r.loss_delay(10 * MS)), (3, 10 * MS));
        r.on_late(at(14), late(0), 40, 10 * MS);
        assert_eq!((r.packet_threshold(), r.loss_delay(10 * MS)), (51, 15 * MS));
        r.on_late(at(12), late(0), 4, 10 * MS);
        assert_eq!((r.packet_threshold(), r.loss_delay(10 * MS)), (51, 15 * MS), "the largest is kept");
        r.on_late(at(1000), late(0), u64::MAX / 2, 10 * MS);
        assert_eq!((r.packet_threshold(), r.loss_delay(10 * MS)), (MAX_PACKET_THRESHOLD, 20 * MS));
        assert_eq!(r.loss_delay(MS), 2 * MS, "a path that has become shorter");
    }

    #[test]
    fn thresholds_are_forgotten_after_losses_without_reordering() {
        let mut r = Reordering::default();
        r.on_late(at(14), Late { pn: 0, sent: at(0) }, 40, 10 * MS);
        for _ in 0..PERSISTENCE {
            r.restart(at(1000));
        }
        assert_eq!(r.packet_threshold(), 51);
        r.on_late(at(12), Late { pn: 0, sent: at(0) }, 1, 10 * MS);
        for _ in 0..PERSISTENCE {
            r.restart(at(1000));
        }
        assert_eq!(r.packet_threshold(), 51, "reordering was seen meanwhile");
        r.restart(at(1000));
        assert_eq!((r.packet_threshold(), r.loss_delay(10 * MS)), (3, 10 * MS));
    }
}
