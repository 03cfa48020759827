//! One packet number space (RFC 9000 §12.3): its keys, received packets and CRYPTO stream.

use core::ops::Range;

use crate::base::range_set::RangeSet;
use crate::base::time::Instant;
use crate::crypto::Keys;
use crate::quic::ack_frequency::AckRule;
use crate::quic::crypto_stream::{CryptoRecv, CryptoSend};
use crate::wire::quic::frame::EcnCounts;

/// Maximum number of ranges reported in an ACK frame, the highest ones (RFC 9000 §13.2.3). Each packet lost within a
/// round trip leaves a gap: 2 % of what is in flight at 1 Gbit/s × 100 ms are 170.
pub(crate) const MAX_ACK_RANGES: usize = 256;

/// Maximum number of runs of missing packets remembered beyond those, for late packets. Their list is allocated once,
/// as every connection has an occasional gap from numbers that the peer skips.
const MAX_GAPS: usize = 64;

/// A packet that is late by more than this many packets counts as a duplicate.
const MAX_LATE: u64 = 1 << 16;

/// Received packets, and when they have to be acknowledged (RFC 9000 §13.2).
///
/// What still has to be reported differs from what has been received: once the peer has seen an ACK frame, the packets
/// in it need not be reported again (RFC 9000 §13.2.4), but a number that was missing from it may still arrive and is
/// then not a duplicate.
#[derive(Debug, Default)]
pub(crate) struct AckTracker {
    /// What ACK frames report: everything received from `cut` on, and late packets below it.
    received: RangeSet,
    /// Below this, everything was received except `missing`.
    cut: u64,
    /// Numbers below `cut` that were not received, at most [`MAX_GAPS`] runs. Only paths with loss or reordering have
    /// any.
    missing: Option<Box<RangeSet>>,
    largest: Option<u64>,
    largest_time: Instant,
    /// Number of ack-eliciting packets since the last ACK was sent.
    eliciting: u32,
    deadline: Option<Instant>,
    /// One more than the largest packet reported by an ACK that was sent; 0 before the first.
    reported: u64,
    /// Number of packets by the ECN codepoint that they arrived with.
    ecn: EcnCounts,
}

impl AckTracker {
    pub(crate) fn is_duplicate(&self, pn: u64) -> bool {
        // Most packets are above the largest.
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

    /// The ECN counts of an ACK frame; none if no packet arrived with a mark (RFC 9000 §13.4.1).
    pub(crate) fn ecn(&self) -> Option<EcnCounts> {
        (self.ecn != EcnCounts::default()).then_some(self.ecn)
    }

    /// Counts the ECN codepoint of a packet that is not a duplicate (RFC 9000 §13.4.1). Codepoints are those of RFC
    /// 3168 §5.
    pub(crate) fn count_ecn(&mut self, codepoint: u8, n: u64) {
        match codepoint {
            0b01 => self.ecn.ect1 += n,
            0b10 => self.ecn.ect0 += n,
            0b11 => self.ecn.ce += n,
            _ => {}
        }
    }

    /// Records a packet, which is acknowledged according to `rule`.
    pub(crate) fn on_packet(&mut self, now: Instant, pn: u64, eliciting: bool, rule: AckRule) {
        let AckRule { delay, every, reordering } = rule;
        // A gap or a late packet is reported at once, as it informs about loss (RFC 9000 §13.2.1).
        let mut in_order = self.largest.map_or(pn == 0 || delay.is_zero(), |largest| pn == largest + 1);
        if pn < self.cut {
            self.found(pn);
        }
        self.report(pn..pn + 1);
        if self.largest.is_none_or(|largest| pn > largest) {
            self.largest = Some(pn);
            self.largest_time = now;
        }
        if reordering != 1 {
            in_order = !self.is_worth_telling(pn, reordering);
        }
        if eliciting {
            self.eliciting += 1;
            self.ack_by(if in_order && self.eliciting < every { now + delay } else { now });
        }
    }

    /// Records ack-eliciting packets that directly follow the largest one, with the same result as
    /// [`AckTracker::on_packet`] for one after another.
    pub(crate) fn on_run(&mut self, now: Instant, pns: Range<u64>, rule: AckRule) {
        let AckRule { delay, every, reordering } = rule;
        debug_assert!(self.largest.is_some_and(|largest| largest + 1 == pns.start) && pns.start >= self.cut);
        self.largest = Some(pns.end - 1);
        self.largest_time = now;
        self.eliciting += (pns.end - pns.start) as u32;
        let last = pns.end - 1;
        self.report(pns);
        let wait = self.eliciting < every && (reordering == 1 || !self.is_worth_telling(last, reordering));
        self.ack_by(if wait { now + delay } else { now });
    }

    /// Whether an acknowledgement at once would tell of reordering by `threshold` packets or more, after packet `pn` was
    /// recorded (draft-ietf-quic-ack-frequency-14 §6.2). The packets that the last ACK has not reported as missing count.
    #[cold]
    fn is_worth_telling(&self, pn: u64, threshold: u32) -> bool {
        // More ranges than fit into an ACK would not be acknowledged at all.
        if self.received.len() > MAX_ACK_RANGES / 2 {
            return true;
        }
        let (Some(largest), threshold) = (self.largest, u64::from(threshold)) else { return false };
        if threshold == 0 {
            return false;
        }
        let told = self.reported.checked_sub(1).and_then(|acked| acked.checked_sub(threshold));
        if told.is_some_and(|told| pn <= told) {
            return true;
        }
        // What was not received below `cut` was reported as missing long ago.
        let from = told.map_or(0, |told| told + 1).max(self.cut);
        let missing = self.received.missing_in(from..largest.max(from)).next();
        missing.is_some_and(|missing| largest - missing.start >= threshold)
    }

    /// Has the next ack-eliciting packet acknowledged at once (draft-ietf-quic-ack-frequency-14 §5).
    pub(crate) fn expedite(&mut self) {
        // More than any rule waits for.
        self.eliciting = self.eliciting.max(u32::MAX / 2);
    }

    /// An ACK has to be sent at `at`, unless one is due earlier.
    #[inline]
    fn ack_by(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
    }

    /// Adds received packets to what is reported.
    #[inline]
    fn report(&mut self, pns: Range<u64>) {
        self.received.insert(pns);
        if self.received.len() > MAX_ACK_RANGES {
            self.stop_reporting_oldest();
        }
    }

    /// When an ACK has to be sent.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether an ACK has to be sent now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|d| d <= now)
    }

    /// Whether an ACK would report anything new if sent along with other frames.
    pub(crate) fn is_pending(&self) -> bool {
        self.eliciting > 0
    }

    pub(crate) fn on_ack_sent(&mut self) {
        self.eliciting = 0;
        self.deadline = None;
        self.reported = self.largest.map_or(0, |largest| largest + 1);
    }

    /// Handles the acknowledgement of an ACK that covered everything up to `largest` (RFC 9000 §13.2.4).
    pub(crate) fn on_ack_acked(&mut self, largest: u64) {
        if largest > self.cut {
            self.move_cut(largest);
            self.received.remove(0..largest);
        }
    }

    /// Stops reporting the oldest range, as there are more than fit into an ACK frame. Packets missing around it may
    /// still arrive.
    #[cold]
    fn stop_reporting_oldest(&mut self) {
        if let Some(oldest) = self.received.first() {
            self.move_cut(oldest.end.max(self.cut));
            self.received.remove(oldest);
        }
    }

    /// Moves the start of what is reported to `to`, and records what is missing below.
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

    /// Forgets the oldest gaps, so that their packets count as duplicates, if there are too many or they are too old.
    fn forget_gaps(&mut self) {
        let Some(missing) = &mut self.missing else { return };
        let old = self.cut.saturating_sub(MAX_LATE);
        while missing.first().is_some_and(|gap| gap.end <= old) || missing.len() > MAX_GAPS {
            missing.pop_first();
        }
    }

    /// Records a late packet.
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
    /// Whether the keys are discarded.
    pub(crate) discarded: bool,
    pub(crate) next_pn: u64,
    pub(crate) acks: AckTracker,
    pub(crate) crypto_tx: CryptoSend,
    pub(crate) crypto_rx: CryptoRecv,
    /// Number of ack-eliciting packets to send regardless of congestion control (RFC 9002 §6.2.4).
    pub(crate) probes: u8,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::time::Duration;
    use proptest::prelude::*;

    const DELAY: Duration = Duration::from_millis(25);
    const RULE: AckRule = AckRule { delay: DELAY, every: 2, reordering: 1 };

    #[test]
    fn acks_every_second_packet_and_gaps_at_once() {
        let mut a = AckTracker::default();
        let t = Instant::from_nanos(1_000);
        a.on_packet(t, 0, true, RULE);
        assert!(!a.is_due(t) && a.deadline() == Some(t + DELAY));
        a.on_packet(t, 1, true, RULE);
        assert!(a.is_due(t));
        a.on_ack_sent();
        a.on_packet(t, 3, true, RULE);
        assert!(a.is_due(t), "gap");
        a.on_ack_sent();
        a.on_packet(t, 2, true, RULE);
        assert!(a.is_due(t), "late");
        a.on_ack_sent();
        a.on_packet(t, 4, false, RULE);
        assert!(a.deadline().is_none(), "not ack-eliciting");
    }

    /// Records `pn`; false if it is a duplicate.
    fn take(a: &mut AckTracker, pn: u64) -> bool {
        let new = !a.is_duplicate(pn);
        if new {
            a.on_packet(Instant::ZERO, pn, true, RULE);
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
        assert!(a.is_duplicate(0) && !a.is_duplicate(1), "packets no longer reported differ from those never received");
        assert!(!a.is_duplicate(MAX_ACK_RANGES as u64 * 2 + 1));
        assert!(take(&mut a, 1) && !take(&mut a, 1));
    }

    /// Until 2026-11, the acknowledgement of an ACK made duplicates of all lower packets that had not arrived yet.
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
        assert!(a.missing.as_ref().is_none_or(|missing| missing.is_empty()), "all are too late by now");
        assert!(a.is_duplicate(19_997));
    }

    proptest! {
        /// Compares with a plain set: exactly those that came before are duplicates, and everything the peer does not know
        /// of is reported. With so few numbers, there are never more runs of missing packets than are remembered.
        #[test]
        fn every_packet_is_taken_once(
            steps in proptest::collection::vec((0..2 * MAX_GAPS as u64, any::<bool>()), 1..400),
        ) {
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

    proptest! {
        /// A run is recorded like its packets one by one.
        #[test]
        fn runs_are_recorded_as_their_packets(
            before in proptest::collection::vec((0u64..40, any::<bool>()), 1..20),
            runs in proptest::collection::vec((1u64..40, 0u64..3, any::<bool>()), 1..10),
            every in 1u32..6,
            reordering in 0u32..4,
            zero in any::<bool>(),
        ) {
            let delay = if zero { Duration::ZERO } else { DELAY };
            let rule = AckRule { delay, every, reordering };
            let mut by_run = AckTracker::default();
            for (pn, eliciting) in before {
                if !by_run.is_duplicate(pn) {
                    by_run.on_packet(Instant::ZERO, pn, eliciting, rule);
                }
            }
            let mut one_by_one = AckTracker { received: by_run.received.clone(), missing: None, ..by_run };
            by_run.missing = None;
            for (i, (n, gap, acked)) in runs.into_iter().enumerate() {
                let now = Instant::from_nanos(1000 * i as u64);
                if gap > 0 {
                    let pn = by_run.largest.unwrap() + gap;
                    for a in [&mut by_run, &mut one_by_one] {
                        a.on_packet(now, pn, true, rule);
                    }
                }
                let first = by_run.largest.unwrap() + 1;
                by_run.on_run(now, first..first + n, rule);
                (first..first + n).for_each(|pn| one_by_one.on_packet(now, pn, true, rule));
                let [a, b] = [&by_run, &one_by_one].map(|a| {
                    (a.largest, a.largest_time, a.eliciting, a.deadline, a.received.iter().collect::<Vec<_>>())
                });
                prop_assert_eq!(a, b);
                if acked {
                    let largest = by_run.largest.unwrap();
                    for a in [&mut by_run, &mut one_by_one] {
                        a.on_ack_sent();
                        a.on_ack_acked(largest);
                    }
                }
            }
        }
    }

    /// Which of these packets, in this order, are acknowledged at once with this reordering threshold.
    fn told(reordering: u32, pns: &[u64]) -> Vec<u64> {
        let mut a = AckTracker::default();
        let rule = AckRule { delay: DELAY, every: 1000, reordering };
        let mut at_once = |pn: &&u64| {
            assert!(!a.is_duplicate(**pn));
            a.on_packet(Instant::ZERO, **pn, true, rule);
            let due = a.is_due(Instant::ZERO);
            if due {
                a.on_ack_sent();
            }
            due
        };
        pns.iter().filter(&mut at_once).copied().collect()
    }

    /// The examples of draft-ietf-quic-ack-frequency-14 §6.2.1, and late packets.
    #[test]
    fn reordering_is_told_from_a_threshold_on() {
        let in_order: Vec<_> = (0..9).collect();
        for threshold in [0, 1, 3] {
            assert_eq!(told(threshold, &in_order), [], "{threshold}");
        }
        assert_eq!(told(3, &[0, 1, 3, 4, 5, 8, 9, 10]), [5, 9, 10]);
        assert_eq!(told(5, &[0, 1, 3, 5, 6, 7, 8, 9]), [7, 9]);
        assert_eq!(told(1, &[0, 1, 3, 4, 2, 5]), [3, 2]);
        assert_eq!(told(0, &[0, 1, 3, 9, 2, 100]), []);
        assert_eq!(told(3, &[0, 1, 3, 4, 5, 2]), [5, 2], "it was considered lost");
    }

    /// draft-ietf-quic-ack-frequency-14 §6: no range is forgotten before it was reported.
    #[test]
    fn scattered_packets_are_reported_before_there_are_too_many_ranges() {
        let pns: Vec<_> = (0..400).map(|n| 2 * n).collect();
        assert!(told(0, &pns).first().is_some_and(|pn| *pn < 2 * MAX_ACK_RANGES as u64));
    }

    #[test]
    fn an_acknowledgement_can_be_expedited() {
        let mut a = AckTracker::default();
        let patient = AckRule { every: 1 << 30, ..RULE };
        a.on_packet(Instant::ZERO, 0, true, patient);
        assert!(!a.is_due(Instant::ZERO));
        a.expedite();
        a.on_packet(Instant::ZERO, 1, true, patient);
        assert!(a.is_due(Instant::ZERO));
        a.on_ack_sent();
        a.on_packet(Instant::ZERO, 2, true, patient);
        assert!(!a.is_due(Instant::ZERO));
    }

    #[test]
    fn ecn_is_reported_once_there_is_something_to_report() {
        let mut a = AckTracker::default();
        a.count_ecn(0, 1);
        assert_eq!(a.ecn(), None);
        for codepoint in [1, 2, 2, 3, 3, 3] {
            a.count_ecn(codepoint, 1);
        }
        assert_eq!(a.ecn(), Some(EcnCounts { ect0: 2, ect1: 1, ce: 3 }));
    }
}
