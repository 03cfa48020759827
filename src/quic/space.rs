//! One packet number space (RFC 9000 §12.3): its keys, what was received in it and its CRYPTO stream.

use crate::base::range_set::RangeSet;
use crate::base::time::{Duration, Instant};
use crate::crypto::Keys;
use crate::quic::crypto_stream::{CryptoRecv, CryptoSend};
use crate::wire::quic::frame::EcnCounts;

/// Received ranges that are reported, the highest ones (RFC 9000 §13.2.3).
pub(crate) const MAX_ACK_RANGES: usize = 64;

/// Runs of missing packets that are remembered beyond those, for packets that are only late. The list of them is
/// allocated once: numbers that the peer leaves out on purpose make a gap now and then on every connection.
const MAX_GAPS: usize = 64;

/// A packet that comes later than so many others counts as seen, whatever became of it.
const MAX_LATE: u64 = 1 << 16;

/// What was received and when it has to be acknowledged (RFC 9000 §13.2).
///
/// What is still to be reported and what has arrived at all are two things: the peer knows of the former once it has seen
/// an ACK frame (RFC 9000 §13.2.4), but a number that was missing then may still come, and is no duplicate when it does.
#[derive(Debug, Default)]
pub(crate) struct AckTracker {
    /// What ACK frames report: everything received from `cut` on, and what came late below it.
    received: RangeSet,
    /// Below it, all was received but what `missing` holds.
    cut: u64,
    /// Numbers below `cut` that have not come, [`MAX_GAPS`] runs of them at the most. Only paths that lose or reorder have
    /// any.
    missing: Option<Box<RangeSet>>,
    largest: Option<u64>,
    largest_time: Instant,
    /// Ack-eliciting packets since the last ACK was sent.
    eliciting: u32,
    deadline: Option<Instant>,
    /// Packets by the ECN codepoint that they arrived with.
    ecn: EcnCounts,
}

impl AckTracker {
    pub(crate) fn is_duplicate(&self, pn: u64) -> bool {
        // Above the largest is where most are.
        self.largest.is_some_and(|largest| pn <= largest) && self.has(pn)
    }

    fn has(&self, pn: u64) -> bool {
        if pn >= self.cut {
            return self.received.contains(pn);
        }
        !self.missing.as_ref().is_some_and(|missing| missing.contains(pn))
    }

    pub(crate) fn largest(&self) -> Option<u64> {
        self.largest
    }

    pub(crate) fn received(&self) -> &RangeSet {
        &self.received
    }

    /// When the largest packet number arrived.
    pub(crate) fn largest_time(&self) -> Instant {
        self.largest_time
    }

    /// What an ACK frame says of ECN: nothing, if no packet came with a mark (RFC 9000 §13.4.1).
    pub(crate) fn ecn(&self) -> Option<EcnCounts> {
        (self.ecn != EcnCounts::default()).then_some(self.ecn)
    }

    /// Counts the ECN codepoint of a packet that is no duplicate (RFC 9000 §13.4.1); the codepoints are those of RFC 3168
    /// §5.
    pub(crate) fn count_ecn(&mut self, codepoint: u8) {
        match codepoint {
            0b01 => self.ecn.ect1 += 1,
            0b10 => self.ecn.ect0 += 1,
            0b11 => self.ecn.ce += 1,
            _ => {}
        }
    }

    /// Records a packet. `delay` is how long its acknowledgement may wait, `every` after how many it may not.
    pub(crate) fn on_packet(&mut self, now: Instant, pn: u64, eliciting: bool, delay: Duration, every: u32) {
        // A gap or a late packet is news about loss: tell at once (RFC 9000 §13.2.1).
        let in_order = self.largest.map_or(pn == 0 || delay.is_zero(), |largest| pn == largest + 1);
        self.received.insert(pn..pn + 1);
        if pn < self.cut {
            self.found(pn);
        }
        if self.received.len() > MAX_ACK_RANGES {
            self.stop_reporting_oldest();
        }
        if self.largest.is_none_or(|largest| pn > largest) {
            self.largest = Some(pn);
            self.largest_time = now;
        }
        if eliciting {
            self.eliciting += 1;
            let at = if in_order && self.eliciting < every { now + delay } else { now };
            self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
        }
    }

    /// When an ACK has to go out.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether an ACK has to go out now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|d| d <= now)
    }

    /// Whether an ACK that goes out with other frames would tell anything new.
    pub(crate) fn is_pending(&self) -> bool {
        self.eliciting > 0
    }

    pub(crate) fn on_ack_sent(&mut self) {
        self.eliciting = 0;
        self.deadline = None;
    }

    /// The peer has seen an ACK of everything up to `largest` (RFC 9000 §13.2.4).
    pub(crate) fn on_ack_acked(&mut self, largest: u64) {
        if largest > self.cut {
            self.move_cut(largest);
            self.received.remove(0..largest);
        }
    }

    /// There are more ranges than go into an ACK frame: the oldest goes, and packets missing around it may still come.
    #[cold]
    fn stop_reporting_oldest(&mut self) {
        if let Some(oldest) = self.received.first() {
            self.move_cut(oldest.end.max(self.cut));
            self.received.remove(oldest);
        }
    }

    /// Keeps in mind what is missing below `to`, which is where what is reported begins.
    fn move_cut(&mut self, to: u64) {
        let all_there = self.received.first().is_some_and(|first| first.start <= self.cut && to <= first.end);
        if !all_there {
            let mut gaps = self.received.missing_in(self.cut..to).peekable();
            if gaps.peek().is_some() {
                let missing = self.missing.get_or_insert_with(|| Box::new(RangeSet::with_capacity(MAX_GAPS + 1)));
                for gap in gaps {
                    missing.insert(gap);
                    if missing.len() > MAX_GAPS {
                        missing.pop_first();
                    }
                }
            }
        }
        self.cut = to;
        if self.missing.is_some() {
            self.forget_gaps();
        }
    }

    /// Takes the oldest gaps for seen, if there are too many of them or they are too old.
    fn forget_gaps(&mut self) {
        let Some(missing) = &mut self.missing else { return };
        let old = self.cut.saturating_sub(MAX_LATE);
        while missing.first().is_some_and(|gap| gap.end <= old) || missing.len() > MAX_GAPS {
            missing.pop_first();
        }
    }

    /// A packet came late.
    #[cold]
    fn found(&mut self, pn: u64) {
        if let Some(missing) = &mut self.missing {
            missing.remove(pn..pn + 1);
        }
        self.forget_gaps();
    }
}

/// One packet number space.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Initial and Handshake keys; 1-RTT keys live in `OneRtt`.
    pub(crate) keys: Option<Box<Keys>>,
    /// Keys are gone for good.
    pub(crate) discarded: bool,
    pub(crate) next_pn: u64,
    pub(crate) acks: AckTracker,
    pub(crate) crypto_tx: CryptoSend,
    pub(crate) crypto_rx: CryptoRecv,
    /// Ack-eliciting packets to be sent regardless of congestion (RFC 9002 §6.2.4).
    pub(crate) probes: u8,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    const DELAY: Duration = Duration::from_millis(25);

    #[test]
    fn acks_every_second_packet_and_gaps_at_once() {
        let mut a = AckTracker::default();
        let t = Instant::from_nanos(1_000);
        a.on_packet(t, 0, true, DELAY, 2);
        assert!(!a.is_due(t) && a.deadline() == Some(t + DELAY));
        a.on_packet(t, 1, true, DELAY, 2);
        assert!(a.is_due(t));
        a.on_ack_sent();
        a.on_packet(t, 3, true, DELAY, 2);
        assert!(a.is_due(t), "gap");
        a.on_ack_sent();
        a.on_packet(t, 2, true, DELAY, 2);
        assert!(a.is_due(t), "late");
        a.on_ack_sent();
        a.on_packet(t, 4, false, DELAY, 2);
        assert!(a.deadline().is_none(), "not ack-eliciting");
    }

    /// Records `pn`, unless it is a duplicate: false then.
    fn take(a: &mut AckTracker, pn: u64) -> bool {
        let new = !a.is_duplicate(pn);
        if new {
            a.on_packet(Instant::ZERO, pn, true, DELAY, 2);
        }
        new
    }

    #[test]
    fn a_gap_beyond_what_is_reported_is_no_duplicate() {
        let mut a = AckTracker::default();
        for i in 0..(MAX_ACK_RANGES as u64 + 10) {
            assert!(take(&mut a, i * 2));
        }
        assert_eq!(a.received().len(), MAX_ACK_RANGES);
        assert!(a.is_duplicate(0) && !a.is_duplicate(1), "what is no more reported is told from what never came");
        assert!(!a.is_duplicate(MAX_ACK_RANGES as u64 * 2 + 1));
        assert!(take(&mut a, 1) && !take(&mut a, 1));
    }

    /// Until 2026-11, an acknowledged ACK made duplicates of all packets below it that had not come yet.
    #[test]
    fn late_packets_are_told_from_duplicates_after_their_ack_was_acknowledged() {
        let mut a = AckTracker::default();
        for pn in (0..100).filter(|pn| ![0, 7, 8, 9, 50].contains(pn)) {
            assert!(take(&mut a, pn));
        }
        a.on_ack_acked(99);
        assert_eq!((a.received().first(), a.received().len()), (Some(99..100), 1));
        for pn in [8, 0, 50] {
            assert!(take(&mut a, pn) && !take(&mut a, pn), "{pn}");
        }
        assert_eq!(a.received().iter().collect::<Vec<_>>(), [0..1, 8..9, 50..51, 99..100], "late ones are reported");
        assert!(take(&mut a, 100));
        a.on_ack_acked(100);
        assert!([0, 8, 50, 99].iter().all(|pn| a.is_duplicate(*pn)));
        assert!(take(&mut a, 7) && take(&mut a, 9));
        assert!(a.missing.as_ref().is_none_or(|missing| missing.is_empty()), "nothing is kept for a path in order");
    }

    #[test]
    fn what_is_remembered_of_gaps_is_bounded() {
        let mut a = AckTracker::default();
        for pn in (0..20_000).step_by(2) {
            assert!(take(&mut a, pn));
            a.on_ack_acked(pn);
        }
        assert_eq!(a.missing.as_ref().map(|missing| missing.len()), Some(MAX_GAPS));
        assert!(a.is_duplicate(1) && !a.is_duplicate(19_999 - 2 * MAX_GAPS as u64 + 4));
        for pn in 20_000..20_000 + MAX_LATE + 2 {
            assert!(take(&mut a, pn));
            a.on_ack_acked(pn);
        }
        assert!(a.missing.as_ref().is_none_or(|missing| missing.is_empty()), "all too late by now");
        assert!(a.is_duplicate(19_997));
    }

    proptest! {
        /// Against a plain set: as long as few are missing, exactly what came before is a duplicate, and all that the peer
        /// was not told of is reported.
        #[test]
        fn every_packet_is_taken_once(steps in proptest::collection::vec((0u64..200, any::<bool>()), 1..400)) {
            let mut a = AckTracker::default();
            let (mut came, mut told) = (BTreeSet::new(), BTreeSet::new());
            for (pn, acked) in steps {
                prop_assert_eq!(take(&mut a, pn), came.insert(pn));
                let reported: BTreeSet<u64> = a.received().iter().flatten().collect();
                prop_assert!(reported.is_subset(&came));
                if a.received().len() < MAX_ACK_RANGES {
                    prop_assert!(came.difference(&told).all(|pn| reported.contains(pn)));
                }
                if acked && let Some(largest) = a.largest() {
                    a.on_ack_acked(largest);
                    told.extend(reported);
                }
            }
        }
    }

    #[test]
    fn ecn_is_reported_once_there_is_something_to_report() {
        let mut a = AckTracker::default();
        a.count_ecn(0);
        assert_eq!(a.ecn(), None);
        for codepoint in [1, 2, 2, 3, 3, 3] {
            a.count_ecn(codepoint);
        }
        assert_eq!(a.ecn(), Some(EcnCounts { ect0: 2, ect1: 1, ce: 3 }));
    }
}
