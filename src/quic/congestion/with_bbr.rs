//! The choice of the algorithm, and what BBR is told in addition to what other algorithms are.

use crate::base::time::{Duration, Instant};
use crate::quic::config::CongestionAlgorithm;
use crate::quic::congestion::{Congestion, Controller};

impl Congestion {
    /// The algorithm in use.
    pub fn algorithm(&self) -> CongestionAlgorithm {
        match self.controller {
            Controller::NewReno(_) => CongestionAlgorithm::NewReno,
            Controller::Cubic(_) => CongestionAlgorithm::Cubic,
            Controller::Bbr(_) => CongestionAlgorithm::Bbr,
        }
    }

    /// Uses another algorithm, which begins with the initial window.
    pub(crate) fn set_algorithm(&mut self, now: Instant, algorithm: CongestionAlgorithm, seed: u64, srtt: Duration) {
        if algorithm != self.algorithm() {
            self.controller = Controller::new(algorithm, self.mtu, seed, now);
            (self.undoable, self.recovery_start) = (false, None);
            self.update_pace(now, srtt);
        }
    }

    /// `bytes` have just been sent.
    #[inline]
    pub(super) fn tell_sent(&mut self, now: Instant, bytes: u64) {
        if let Controller::Bbr(bbr) = &mut self.controller
            && bbr.on_sent(now, self.in_flight - bytes, self.in_flight)
        {
            self.pacer.set_exactly(now, bbr.pacing_rate(), bbr.send_quantum());
        }
    }

    /// Records that what is acknowledged was removed, before losses that this shows are. `prior_in_flight` were the bytes
    /// in flight before that.
    #[inline]
    pub(crate) fn on_delivered(&mut self, now: Instant, prior_in_flight: u64) {
        if let Controller::Bbr(bbr) = &mut self.controller {
            bbr.on_delivered(now, prior_in_flight - self.in_flight);
        }
    }

    /// Records the loss of packet `pn` of `len` bytes, which was sent at `sent`. A congestion event follows.
    pub(crate) fn on_lost(&mut self, now: Instant, pn: u64, sent: Instant, len: u16) {
        if let Controller::Bbr(bbr) = &mut self.controller {
            bbr.on_lost(now, pn, sent, len.into());
        }
    }

    /// Handles marks of the network (RFC 9002 §7.1), the newest on a packet sent at `sent` or before.
    pub(crate) fn on_marks(&mut self, now: Instant, sent: Instant, srtt: Duration) {
        if let Controller::Bbr(bbr) = &mut self.controller {
            bbr.on_marks(now, sent);
        }
        self.on_congestion_event(now, sent, srtt);
    }

    /// Whether it keeps a record of when packets were sent, so that [`Congestion::forget_before`] is needed.
    #[inline]
    pub(crate) fn keeps_record(&self) -> bool {
        matches!(self.controller, Controller::Bbr(_))
    }

    /// Forgets packets sent before `oldest`: none of them is in flight any more.
    pub(crate) fn forget_before(&mut self, oldest: Instant) {
        if let Controller::Bbr(bbr) = &mut self.controller {
            bbr.forget_before(oldest);
        }
    }

    /// A seed for another path; it is of no importance to algorithms without random numbers.
    pub(crate) fn next_seed(&mut self) -> u64 {
        match &mut self.controller {
            Controller::Bbr(bbr) => bbr.next_seed(),
            _ => 0,
        }
    }
}
