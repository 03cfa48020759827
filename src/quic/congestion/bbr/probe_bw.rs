//! ProbeBW: probing for bandwidth, yielding it, and cruising in between (§5.3.3).

use crate::base::time::{Duration, Instant};
use crate::quic::congestion::bbr::{AckPhase, Bbr, HEADROOM, State};

/// The least time between probes, by the clock (§5.3.3.8.3). A random time of up to [`WAIT_SPREAD`] is added.
const WAIT: Duration = Duration::from_secs(2);
const WAIT_SPREAD: Duration = Duration::from_secs(1);
/// The most round trips between probes, for coexistence with Reno (§5.3.3.8.3).
const RENO_ROUNDS: u64 = 63;
/// The most doublings of the growth of BBR.inflight_longterm (§5.3.3.9).
const MAX_UP_ROUNDS: u32 = 30;

impl Bbr {
    /// StartProbeBW_DOWN (§5.3.3.9).
    pub(super) fn start_probe_bw_down(&mut self, now: Instant) {
        self.reset_congestion_signals();
        self.probe_up_acked_per_inc = u64::MAX;
        // PickProbeWait (§5.3.3.8.3).
        self.rounds_since_probe_up = self.random(2);
        self.bw_probe_wait = WAIT + Duration::from_nanos(self.random(WAIT_SPREAD.as_nanos() as u64));
        self.cycle_stamp = now;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round();
        self.state = State::Down;
    }

    /// StartProbeBW_CRUISE (§5.3.3.9).
    pub(super) fn start_probe_bw_cruise(&mut self) {
        self.cruise_start_round = self.round_count;
        self.state = State::Cruise;
    }

    /// StartProbeBW_REFILL (§5.3.3.9).
    pub(super) fn start_probe_bw_refill(&mut self) {
        self.reset_short_term_model();
        self.bw_probe_up_rounds = 0;
        self.bw_probe_up_acked = 0;
        self.prev_probe_precautionary = false;
        self.ack_phase = AckPhase::Refilling;
        self.start_round();
        self.state = State::Refill;
    }

    /// StartProbeBW_UP (§5.3.3.9).
    fn start_probe_bw_up(&mut self) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round();
        self.reset_full_bw();
        self.full_bw = self.rs.rate;
        self.state = State::Up;
        self.raise_inflight_longterm_slope();
    }

    /// UpdateProbeBWCyclePhase (§5.3.3.9).
    pub(super) fn update_probe_bw_cycle_phase(&mut self, now: Instant, in_flight: u64) {
        if !self.full_bw_reached || self.adapt_long_term_model() {
            return;
        }
        let state = self.state;
        match state {
            State::Down if self.is_time_to_probe_bw(now) => self.start_probe_bw_refill(),
            State::Down if self.is_time_to_cruise(in_flight) => self.start_probe_bw_cruise(),
            State::Cruise if self.is_time_to_probe_bw(now) => self.start_probe_bw_refill(),
            State::Refill if self.round_start => {
                self.is_bw_probe_sample = true;
                self.start_probe_bw_up();
            }
            State::Up if self.is_time_to_go_down(in_flight) => {
                self.prev_probe_too_high = false;
                self.start_probe_bw_down(now);
            }
            _ => {}
        }
    }

    /// IsTimeToProbeBW (§5.3.3.8.3).
    fn is_time_to_probe_bw(&self, now: Instant) -> bool {
        let reno_rounds = (self.target_inflight() / self.mtu).min(RENO_ROUNDS);
        now > self.cycle_stamp + self.bw_probe_wait || self.rounds_since_probe_up >= reno_rounds
    }

    /// IsTimeToCruise (§5.3.3.9).
    fn is_time_to_cruise(&self, in_flight: u64) -> bool {
        in_flight <= self.inflight_with_headroom() && in_flight <= self.inflight(self.max_bw.get(), 1.0)
    }

    /// IsTimeToGoDown (§5.3.3.9).
    fn is_time_to_go_down(&mut self, in_flight: u64) -> bool {
        // What was in flight before this acknowledgement, up to a packet that does not fit any more.
        let most = in_flight + self.rs.acked + self.mtu;
        if self.prev_probe_too_high && most > self.inflight_longterm {
            self.prev_probe_precautionary = true;
            return true;
        }
        if self.is_cwnd_limited() && self.cwnd >= self.inflight_longterm {
            self.reset_full_bw();
            self.full_bw = self.rs.rate;
            return false;
        }
        self.full_bw_now
    }

    /// C.is_cwnd_limited (§2.2).
    fn is_cwnd_limited(&self) -> bool {
        self.cwnd_limited[0] || self.cwnd_limited[1]
    }

    /// InflightWithHeadroom (§5.3.3.9).
    pub(super) fn inflight_with_headroom(&self) -> u64 {
        if self.inflight_longterm == u64::MAX {
            return u64::MAX;
        }
        let headroom = self.mtu.max((HEADROOM * self.inflight_longterm as f64) as u64);
        self.inflight_longterm.saturating_sub(headroom).max(self.min_pipe)
    }

    /// RaiseInflightLongtermSlope (§5.3.3.9).
    fn raise_inflight_longterm_slope(&mut self) {
        let growth_this_round = 1 << self.bw_probe_up_rounds;
        self.bw_probe_up_rounds = (self.bw_probe_up_rounds + 1).min(MAX_UP_ROUNDS);
        self.probe_up_acked_per_inc = (self.cwnd / growth_this_round).max(self.mtu);
    }

    /// ProbeInflightLongtermUpward (§5.3.3.9).
    fn probe_inflight_longterm_upward(&mut self) {
        if !self.is_cwnd_limited() || self.cwnd < self.inflight_longterm {
            return;
        }
        self.bw_probe_up_acked += self.rs.acked;
        if self.bw_probe_up_acked >= self.probe_up_acked_per_inc {
            let delta = self.bw_probe_up_acked / self.probe_up_acked_per_inc;
            self.bw_probe_up_acked -= delta * self.probe_up_acked_per_inc;
            self.inflight_longterm += delta * self.mtu;
        }
        if self.round_start {
            self.raise_inflight_longterm_slope();
        }
    }

    /// AdaptLongTermModel (§5.3.3.9). True if it decided a transition.
    fn adapt_long_term_model(&mut self) -> bool {
        if self.ack_phase == AckPhase::ProbeStarting && self.round_start {
            self.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.ack_phase == AckPhase::ProbeStopping && self.round_start {
            self.is_bw_probe_sample = false;
            self.ack_phase = AckPhase::Init;
            if self.state.probes_bw() {
                if !self.rs.app_limited {
                    self.max_bw.advance();
                }
                if self.prev_probe_precautionary && !self.prev_probe_too_high {
                    self.start_probe_bw_refill();
                    return true;
                }
            }
        }
        if self.inflight_longterm != u64::MAX && !self.is_inflight_too_high() {
            self.inflight_longterm = self.inflight_longterm.max(self.rs.in_flight);
            if self.state == State::Up {
                self.probe_inflight_longterm_upward();
            }
        }
        false
    }
}
