//! Whether the window was used: one that was not must not grow (RFC 9002 §7.8, RFC 7661 §4).

use crate::base::time::{Duration, Instant};

/// How much was in flight in the current and in the last round trip, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Maximum number of bytes in flight in the current round.
    peak: u64,
    /// The same for the round before.
    last: u64,
    /// When the next round begins.
    until: Instant,
}

impl Usage {
    pub(super) fn new() -> Self {
        Self { peak: 0, last: 0, until: Instant::ZERO }
    }

    /// Packets were sent, so that `in_flight` bytes are in flight.
    #[inline]
    pub(super) fn on_sent(&mut self, in_flight: u64) {
        self.peak = self.peak.max(in_flight);
    }

    /// Handles an acknowledgement that leaves `in_flight` bytes in flight. Rounds are as long as the round-trip time,
    /// `srtt`. Whether half of the window was used in this round or the last (RFC 7661 §4.3): whoever sends less, say
    /// because its CPU is busy, has not probed the path for more.
    #[inline]
    pub(super) fn on_ack(&mut self, now: Instant, srtt: Duration, window: u64, in_flight: u64) -> bool {
        let used = 2 * self.peak.max(self.last) >= window;
        if now >= self.until {
            (self.last, self.peak, self.until) = (self.peak, in_flight, now + srtt);
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    #[test]
    fn half_of_the_window_in_one_of_two_rounds_is_enough() {
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let mut usage = Usage::new();
        usage.on_sent(499);
        assert!(!usage.on_ack(at(0), RTT, 1000, 0));
        usage.on_sent(500);
        assert!(usage.on_ack(at(5), RTT, 1000, 400), "in the same round");
        usage.on_sent(100);
        assert!(usage.on_ack(at(10), RTT, 1000, 0), "the round ends here");
        usage.on_sent(100);
        assert!(usage.on_ack(at(20), RTT, 1000, 0), "in the last round");
        assert!(!usage.on_ack(at(30), RTT, 1000, 0));
    }

    #[test]
    fn what_stays_in_flight_counts_for_the_next_round() {
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let mut usage = Usage::new();
        usage.on_sent(900);
        for ms in [0, 10, 20, 30] {
            assert!(usage.on_ack(at(ms), RTT, 1000, 900));
        }
    }
}
