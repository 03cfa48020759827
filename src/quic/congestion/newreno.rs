//! NewReno, the controller of RFC 9002 §7, with HyStart++ in its first slow start.

use crate::quic::congestion::hystart::HyStart;
use crate::quic::congestion::{Acked, initial_window, least_window, minimum_window};

/// NewReno: doubles the window per round trip until a queue grows or a packet is lost; then adds a datagram per round
/// trip and halves the window on loss.
#[derive(Clone, Debug)]
pub struct NewReno {
    mtu: u64,
    window: u64,
    ssthresh: u64,
    /// Bytes acknowledged in congestion avoidance since the window last grew.
    acked: u64,
    hystart: HyStart,
}

impl NewReno {
    /// A controller for a new path with datagrams of `mtu` bytes.
    pub fn new(mtu: u64) -> Self {
        Self { mtu, window: initial_window(mtu), ssthresh: u64::MAX, acked: 0, hystart: HyStart::new() }
    }

    /// The congestion window in bytes.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The slow start threshold in bytes; `u64::MAX` before the first reduction.
    pub fn threshold(&self) -> u64 {
        self.ssthresh
    }

    /// Whether the window is below the slow start threshold (RFC 9002 §7.3.1).
    pub fn in_slow_start(&self) -> bool {
        self.window < self.ssthresh
    }

    /// Handles an acknowledgement of packets sent outside recovery.
    pub(super) fn on_ack(&mut self, ack: &Acked) {
        if self.is_fresh() {
            let grown = self.hystart.on_ack(ack, self.window, initial_window(self.mtu));
            self.window = grown.window;
            if grown.over {
                self.ssthresh = grown.window;
            }
            return;
        }
        let mut bytes = ack.bytes;
        if self.in_slow_start() {
            let grow = bytes.min(self.ssthresh - self.window);
            self.window += grow;
            bytes -= grow;
        }
        // One datagram per acknowledged window (RFC 9002 §7.3.3).
        self.acked += bytes;
        while self.acked >= self.window {
            self.acked -= self.window;
            self.window += self.mtu;
        }
    }

    pub(super) fn on_congestion_event(&mut self) {
        self.ssthresh = (self.window / 2).max(minimum_window(self.mtu));
        self.window = self.ssthresh;
        self.acked = 0;
    }

    pub(super) fn on_persistent_congestion(&mut self) {
        self.window = minimum_window(self.mtu);
        self.acked = 0;
    }

    /// Whether slow start has never ended.
    pub(super) fn is_fresh(&self) -> bool {
        self.ssthresh == u64::MAX
    }

    pub(super) fn set_mtu(&mut self, mtu: u64) {
        self.mtu = mtu;
        self.window = self.window.max(least_window(mtu, self.is_fresh()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{Duration, Instant};

    fn acked(bytes: u64) -> Acked {
        let (now, srtt) = (Instant::ZERO, Duration::from_millis(100));
        Acked { now, bytes, sent: now, prior_in_flight: bytes, srtt, sample: None }
    }

    /// RFC 9002 §7.2: ten datagrams, at most the larger of 14,720 bytes and two datagrams.
    #[test]
    fn the_initial_window_is_that_of_the_rfc() {
        let windows = [1200, 1472, 1473, 4000, 7360, 9000].map(|mtu| NewReno::new(mtu).window());
        assert_eq!(windows, [12_000, 14_720, 14_720, 14_720, 14_720, 18_000]);
    }

    #[test]
    fn slow_start_grows_by_what_is_acknowledged() {
        let mut c = NewReno::new(1200);
        assert_eq!(c.window(), 12_000);
        c.on_ack(&acked(12_000));
        assert_eq!(c.window(), 24_000);
        assert!(c.in_slow_start());
    }

    #[test]
    fn congestion_avoidance_grows_by_one_datagram_a_window() {
        let mut c = NewReno::new(1200);
        c.on_ack(&acked(88_000));
        c.on_congestion_event();
        assert_eq!(c.window(), 50_000);
        assert!(!c.in_slow_start());
        for _ in 0..49 {
            c.on_ack(&acked(1000));
        }
        assert_eq!(c.window(), 50_000);
        c.on_ack(&acked(1000));
        assert_eq!(c.window(), 51_200);
    }

    #[test]
    fn never_below_the_minimum_and_slow_start_ends_at_the_threshold() {
        let mut c = NewReno::new(1200);
        for _ in 0..10 {
            c.on_congestion_event();
        }
        assert_eq!(c.window(), 2400);
        let mut c = NewReno::new(1200);
        c.on_ack(&acked(28_000));
        c.on_congestion_event();
        c.on_persistent_congestion();
        assert_eq!(c.window(), 2400);
        assert!(c.in_slow_start());
        c.on_ack(&acked(20_000));
        assert_eq!(c.window(), 20_000, "2400 were left for congestion avoidance, less than a window");
        assert!(!c.in_slow_start());
    }

    #[test]
    fn a_larger_datagram_size_raises_a_fresh_window() {
        let mut c = NewReno::new(1200);
        c.set_mtu(8972);
        assert_eq!(c.window(), 17_944);
        c.on_congestion_event();
        c.set_mtu(1200);
        assert_eq!(c.window(), 17_944);
    }
}
