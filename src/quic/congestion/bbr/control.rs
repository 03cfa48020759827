//! What the model controls: pacing rate, send quantum, congestion window (§5.6).

use crate::base::time::Duration;
use crate::quic::congestion::bbr::{Bbr, MIN_PIPE_PACKETS, State};

/// BBR.PacingMarginPercent (§2.5) while others fill the queue, or the network marks packets. A departure from the draft:
/// otherwise there is no margin, as each Down drains the queue.
const PACING_MARGIN_PERCENT: f64 = 1.0;
/// The time whose bytes at the pacing rate may leave at once, in seconds, and the most bytes (§5.6.3).
const QUANTUM_TIME: f64 = 1e-3;
const MAX_QUANTUM: f64 = 65536.0;
/// Two ticks of the timer wheel, in seconds: timers fire as late, and the rate has to be kept all the same.
const LATENESS: f64 = 131e-6;

impl Bbr {
    /// InitPacingRate (§5.6.2), with `rtt` as C.srtt.
    pub(super) fn init_pacing_rate(&mut self, rtt: Duration) {
        let nominal = self.cwnd as f64 * 1e9 / (rtt.as_nanos() as u64).max(1) as f64;
        self.pacing_rate = State::Startup.pacing_gain() * nominal;
        self.set_send_quantum();
    }

    /// SetPacingRateWithGain (§5.6.2).
    ///
    /// A departure from the draft: what the path loses without a queue is sent on top of the bandwidth, which is that of
    /// what arrives. Otherwise, a path that loses 2 % would not be filled by as much.
    pub(super) fn set_pacing_rate_with_gain(&mut self, gain: f64) {
        let congested = self.others.present() || self.ambient.marked();
        let margin = if congested { PACING_MARGIN_PERCENT / 100.0 } else { 0.0 };
        let rate = gain * self.bw * (1.0 - margin) / (1.0 - self.ambient.share(self.mtu));
        if rate > 0.0 && (self.full_bw_reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    /// SetPacingRate (§5.6.2).
    pub(super) fn set_pacing_rate(&mut self) {
        self.set_pacing_rate_with_gain(self.state.pacing_gain());
    }

    /// SetSendQuantum (§5.6.3).
    pub(super) fn set_send_quantum(&mut self) {
        let quantum = (self.pacing_rate * QUANTUM_TIME).min(MAX_QUANTUM).max(self.pacing_rate * LATENESS);
        self.quantum = (quantum as u64).max(2 * self.mtu);
    }

    /// QuantizationBudget (§5.6.4.2), with the offload budget of QUIC (§5.5.8.2).
    fn quantization_budget(&self, inflight_cap: u64) -> u64 {
        let cap = inflight_cap.max(self.quantum).max(self.min_pipe);
        if self.state == State::Up { cap + 2 * self.mtu } else { cap }
    }

    /// Inflight (§5.6.4.2) at `bw`.
    pub(super) fn inflight(&self, bw: f64, gain: f64) -> u64 {
        self.quantization_budget(self.bdp_multiple(bw, gain))
    }

    /// UpdateMaxInflight (§5.6.4.2).
    fn max_inflight(&self) -> u64 {
        let cap = self.bdp_multiple(self.bw, self.state.cwnd_gain());
        self.quantization_budget(cap + self.aggregation.extra_acked)
    }

    /// SaveCwnd (§5.6.4.4).
    pub(super) fn save_cwnd(&mut self) {
        let keeps = self.in_recovery || self.state == State::ProbeRtt;
        self.prior_cwnd = if keeps { self.prior_cwnd.max(self.cwnd) } else { self.cwnd };
    }

    /// RestoreCwnd (§5.6.4.4).
    pub(super) fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }

    /// ProbeRTTCwnd (§5.6.4.5).
    pub(super) fn probe_rtt_cwnd(&self) -> u64 {
        self.bdp_multiple(self.bw, State::ProbeRtt.cwnd_gain()).max(self.min_pipe)
    }

    /// SetCwnd (§5.6.4.6).
    pub(super) fn set_cwnd(&mut self) {
        let max_inflight = self.max_inflight();
        if self.full_bw_reached {
            self.cwnd = (self.cwnd + self.rs.acked).min(max_inflight);
        } else if self.cwnd < max_inflight || self.sampler.delivered() < self.initial {
            self.cwnd += self.rs.acked;
        }
        self.cwnd = self.cwnd.max(self.min_pipe);
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        self.bound_cwnd_for_model();
        // A minimum that a larger datagram size has not raised is raised once the window is that large.
        self.min_pipe = self.min_pipe.max((MIN_PIPE_PACKETS * self.mtu).min(self.cwnd));
    }

    /// BoundCwndForModel (§5.6.4.7).
    fn bound_cwnd_for_model(&mut self) {
        let cap = match self.state {
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
            State::Down | State::Refill | State::Up => self.inflight_longterm,
            State::Startup | State::Drain => u64::MAX,
        };
        let cap = cap.min(self.inflight_shortterm).max(self.min_pipe);
        self.cwnd = self.cwnd.min(cap);
    }
}
