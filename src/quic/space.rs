//! One packet number space (RFC 9000 §12.3): its keys, what was received in it and its CRYPTO stream.

use crate::base::range_set::RangeSet;
use crate::base::time::{Duration, Instant};
use crate::crypto::Keys;
use crate::quic::crypto_stream::{CryptoRecv, CryptoSend};

/// Received ranges that are remembered; older ones count as seen (RFC 9000 §13.2.3).
pub(crate) const MAX_ACK_RANGES: usize = 64;

/// What was received and when it has to be acknowledged (RFC 9000 §13.2).
#[derive(Debug, Default)]
pub(crate) struct AckTracker {
    received: RangeSet,
    /// Everything below counts as received.
    floor: u64,
    largest: Option<u64>,
    largest_time: Instant,
    /// Ack-eliciting packets since the last ACK was sent.
    eliciting: u32,
    deadline: Option<Instant>,
    /// ECN codepoints counted: ECT(0), ECT(1), CE.
    pub(crate) ecn: [u64; 3],
}

impl AckTracker {
    pub(crate) fn is_duplicate(&self, pn: u64) -> bool {
        // Above the largest is where most are.
        self.largest.is_some_and(|largest| pn <= largest) && (pn < self.floor || self.received.contains(pn))
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

    /// Records a packet. `delay` is how long its acknowledgement may wait, `every` after how many it may not.
    pub(crate) fn on_packet(&mut self, now: Instant, pn: u64, eliciting: bool, delay: Duration, every: u32) {
        // A gap or a late packet is news about loss: tell at once (RFC 9000 §13.2.1).
        let in_order = self.largest.map_or(pn == 0 || delay.is_zero(), |largest| pn == largest + 1);
        self.received.insert(pn..pn + 1);
        if self.received.len() > MAX_ACK_RANGES
            && let Some(oldest) = self.received.pop_first()
        {
            self.floor = self.floor.max(oldest.end);
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
        if largest > self.floor {
            self.received.remove(0..largest);
            self.floor = largest;
        }
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
    use super::*;

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

    #[test]
    fn remembers_duplicates_beyond_forgotten_ranges() {
        let mut a = AckTracker::default();
        for i in 0..(MAX_ACK_RANGES as u64 + 10) {
            a.on_packet(Instant::ZERO, i * 2, true, DELAY, 2);
        }
        assert_eq!(a.received().len(), MAX_ACK_RANGES);
        assert!(a.is_duplicate(0) && a.is_duplicate(1), "below the floor");
        assert!(!a.is_duplicate(MAX_ACK_RANGES as u64 * 2 + 1));
        let largest = a.largest().unwrap();
        a.on_ack_acked(largest);
        assert_eq!(a.received().len(), 1);
        assert!(a.is_duplicate(largest) && !a.is_duplicate(largest + 1));
    }
}
