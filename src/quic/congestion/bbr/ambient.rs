//! Losses that are not congestion: a departure from draft-ietf-ccwg-bbr-06 (§5.5.10).
//!
//! The draft tolerates no loss while it cruises, and 2 % while it probes: on a path that loses packets at random, it
//! slows down by what is lost in each round trip, and half of its probes are cut short at a loss of 2 %. But a queue that
//! overflows is full, so that the packets that arrive around those that were dropped have waited. Losses among packets
//! that have not waited say nothing about how much the path can take. The share of these, up to [`MAX_SHARE`], is what
//! the path loses anyway, and only what is lost beyond that counts.

use crate::base::time::Duration;

/// The largest share of bytes that may be lost without being congestion. More than that may be a policer, whose losses
/// come without a queue.
const MAX_SHARE: f64 = 0.03;
/// A packet has not waited if its round-trip time exceeds the minimum by at most this part of it, ...
const QUIET_PART: u32 = 8;
/// ... or by this.
const QUIET_TIME: Duration = Duration::from_micros(100);
/// The number of packets over which the share is measured: at least these, ...
const LEAST_PACKETS: u64 = 50;
/// ... and about twice these.
const PACKETS: u64 = 2000;
/// Losses may exceed what is expected by this many standard deviations before they count, squared.
const DEVIATIONS_SQUARED: f64 = 9.0;

/// Measures what the path loses without a queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ambient {
    /// Bytes lost, and bytes acknowledged or lost, while there was no queue. Older ones count less.
    quiet_lost: u64,
    quiet_total: u64,
    /// Bytes acknowledged in this round trip of losses, and bytes lost without and with a queue.
    round_acked: u64,
    round_lost: [u64; 2],
    /// Bytes lost since the last acknowledgement was handled.
    pending: u64,
    /// Whether there was a queue when the last acknowledgement was sent.
    queue: bool,
    /// Whether the network has marked packets in this round trip.
    marked: bool,
}

/// Whether `lost` of `total` bytes is more than what chance makes of a loss of `share`, for packets of `mtu` bytes.
fn exceeds(lost: u64, total: u64, share: f64, mtu: u64) -> bool {
    let expected = share * total as f64;
    let excess = lost as f64 - expected;
    excess > 0.0 && excess * excess > DEVIATIONS_SQUARED * expected * mtu as f64
}

impl Ambient {
    /// A packet of `len` bytes is lost.
    pub(super) fn on_lost(&mut self, len: u64) {
        self.pending += len;
    }

    /// The network has marked packets, so there is a queue.
    pub(super) fn on_marks(&mut self) {
        self.marked = true;
    }

    /// Whether the network has marked packets in this round trip of losses.
    pub(super) fn marked(&self) -> bool {
        self.marked
    }

    /// `acked` bytes are acknowledged, after a round-trip time of `rtt` if it was measured, when the minimum was `min`.
    pub(super) fn on_ack(&mut self, acked: u64, rtt: Option<Duration>, min: Duration, mtu: u64) {
        if let Some(rtt) = rtt {
            self.queue = rtt > min.saturating_add(QUIET_TIME.max(min / QUIET_PART));
        }
        let lost = std::mem::take(&mut self.pending);
        self.round_acked += acked;
        self.round_lost[usize::from(self.queue)] += lost;
        if !self.queue {
            self.quiet_lost += lost;
            self.quiet_total += lost + acked;
            if self.quiet_total > 2 * PACKETS * mtu {
                (self.quiet_lost, self.quiet_total) = (self.quiet_lost / 2, self.quiet_total / 2);
            }
        }
    }

    /// A round trip of losses begins.
    pub(super) fn start_round(&mut self) {
        (self.round_acked, self.round_lost, self.marked) = (0, [0; 2], false);
    }

    /// The share of bytes that the path loses anyway.
    pub(super) fn share(&self, mtu: u64) -> f64 {
        if self.quiet_total < LEAST_PACKETS * mtu {
            return 0.0;
        }
        (self.quiet_lost as f64 / self.quiet_total as f64).min(MAX_SHARE)
    }

    /// Whether losses of the round trip that ends are what the path loses anyway.
    pub(super) fn explains_round(&self, mtu: u64) -> bool {
        let [quiet, loud] = self.round_lost;
        let share = if loud == 0 { MAX_SHARE } else { self.share(mtu) };
        !self.marked && !exceeds(quiet + loud, self.round_acked + quiet + loud, share, mtu)
    }

    /// Whether `lost` of `total` bytes is more than the share `tolerated` beyond what the path loses anyway.
    pub(super) fn exceeds(&self, lost: u64, total: u64, tolerated: f64, mtu: u64) -> bool {
        let share = if self.queue { self.share(mtu) } else { MAX_SHARE };
        lost as f64 > (share + tolerated) * total as f64 && exceeds(lost, total, share, mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1000;
    const MIN: Duration = Duration::from_millis(20);
    const FULL: Duration = Duration::from_millis(30);

    /// Of `packets`, one in `every` is lost, at this round-trip time.
    fn pass(a: &mut Ambient, packets: u64, every: u64, rtt: Duration) {
        for n in 1..=packets {
            if n % every == 0 {
                a.on_lost(MTU);
            } else {
                a.on_ack(MTU, Some(rtt), MIN, MTU);
            }
        }
        a.on_ack(0, None, MIN, MTU);
    }

    #[test]
    fn losses_without_a_queue_are_what_the_path_loses_anyway() {
        let mut a = Ambient::default();
        pass(&mut a, 1000, 50, MIN);
        assert!(a.explains_round(MTU));
        a.start_round();
        pass(&mut a, 1000, 10, MIN);
        assert!(!a.explains_round(MTU), "a tenth is a policer");
        a.start_round();
        a.on_marks();
        assert!(!a.explains_round(MTU), "a mark is from a queue");
    }

    #[test]
    fn losses_with_a_queue_count_beyond_that() {
        let mut a = Ambient::default();
        pass(&mut a, 200, 200, FULL);
        assert!(!a.explains_round(MTU), "a single packet, if none was lost before");
        assert!(a.exceeds(21 * MTU, 1000 * MTU, 0.02, MTU) && !a.exceeds(20 * MTU, 1000 * MTU, 0.02, MTU));
        pass(&mut a, 1000, 50, MIN);
        a.start_round();
        pass(&mut a, 1000, 50, FULL);
        assert!(a.explains_round(MTU), "as much as without a queue");
        assert!(!a.exceeds(39 * MTU, 1000 * MTU, 0.02, MTU) && a.exceeds(41 * MTU, 1000 * MTU, 0.02, MTU));
        pass(&mut a, 1000, 20, FULL);
        assert!(!a.explains_round(MTU));
    }

    #[test]
    fn chance_is_allowed_for() {
        // Of 100 packets, 2 are expected; 6 may be lost by chance.
        assert!(!exceeds(6 * MTU, 100 * MTU, 0.02, MTU) && exceeds(7 * MTU, 100 * MTU, 0.02, MTU));
        assert!(exceeds(1, 1, 0.0, MTU) && !exceeds(0, 1, 0.0, MTU));
    }
}
