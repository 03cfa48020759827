//! Startup and Drain (§5.3.1, §5.3.2).

use crate::base::time::Instant;
use crate::quic::congestion::bbr::{Bbr, State};

/// The growth of the delivery rate in a round trip below which the pipe may be full (§5.3.1.2).
const FULL_BW_GROWTH: f64 = 1.25;
/// The number of round trips without that growth after which it is (§5.3.1.2).
const FULL_BW_ROUNDS: u32 = 3;
/// BBRStartupFullLossCnt (§5.3.1.3).
const FULL_LOSS_COUNT: u32 = 6;
/// The number of round trips after which Drain ends in any case (§5.3.2).
const DRAIN_ROUNDS: u64 = 3;

impl Bbr {
    /// ResetFullBW (§5.3.1.2).
    pub(super) fn reset_full_bw(&mut self) {
        self.full_bw = 0.0;
        self.full_bw_count = 0;
        self.full_bw_now = false;
    }

    /// CheckFullBWReached (§5.3.1.2).
    pub(super) fn check_full_bw_reached(&mut self) {
        if self.full_bw_now || !self.round_start || self.rs.app_limited {
            return;
        }
        if self.rs.rate >= self.full_bw * FULL_BW_GROWTH {
            self.reset_full_bw();
            self.full_bw = self.rs.rate;
            return;
        }
        self.full_bw_count += 1;
        self.full_bw_now = self.full_bw_count >= FULL_BW_ROUNDS;
        self.full_bw_reached |= self.full_bw_now;
    }

    /// CheckStartupDone (§5.3.1.1).
    pub(super) fn check_startup_done(&mut self, now: Instant, in_flight: u64) {
        self.check_startup_high_loss();
        if self.state == State::Startup && self.full_bw_reached {
            // EnterDrain (§5.3.2).
            self.state = State::Drain;
            self.drain_start_round = self.round_count;
            self.check_drain_done(now, in_flight);
        }
    }

    /// CheckStartupHighLoss (§5.3.1.3): losses of a whole round trip show that the pipe is full.
    fn check_startup_high_loss(&mut self) {
        if self.state == State::Startup
            && self.lossy_round
            && self.loss_events >= FULL_LOSS_COUNT
            && self.is_inflight_too_high()
        {
            self.undo.state = Some(State::Startup);
            (self.full_bw_now, self.full_bw_reached) = (true, true);
            self.inflight_longterm = self.bdp_multiple(self.bw, 1.0).max(self.inflight_latest);
        }
        if self.loss_round_start {
            self.loss_events = 0;
        }
    }

    /// CheckDrainDone (§5.3.2).
    pub(super) fn check_drain_done(&mut self, now: Instant, in_flight: u64) {
        let late = self.round_count > self.drain_start_round + DRAIN_ROUNDS;
        if self.state == State::Drain && (late || in_flight <= self.inflight(self.bw, 1.0)) {
            self.start_probe_bw_down(now);
        }
    }
}
