//! The minimum round-trip time, and ProbeRTT, which drains the queue to measure it (§5.3.4, §5.5.7).

use crate::base::time::{Duration, Instant};
use crate::quic::congestion::bbr::{AckPhase, Bbr, State};

/// BBR.MinRTTFilterLen (§2.16.1).
const MIN_RTT_FILTER_LEN: Duration = Duration::from_secs(10);
/// BBR.ProbeRTTInterval (§2.16.2).
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
/// A round-trip time confirms the minimum if it exceeds it by at most this part of it, ...
const NEAR_PART: u32 = 16;
/// ... or by this.
const NEAR_TIME: Duration = Duration::from_micros(100);
/// BBR.ProbeRTTDuration (§2.16.2).
const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);

impl Bbr {
    /// UpdateMinRTT (§5.3.4.3).
    ///
    /// A departure from the draft: samples close to the minimum confirm it. As long as there are some, there is nothing
    /// to be learnt from ProbeRTT, unless others fill the queue: they see how long the path is when all drain it
    /// together. The minimum itself stays as it is, so that it does not creep upwards. A path that has become longer by
    /// more than that confirms nothing: ProbeRTT follows within five seconds, the longer minimum within ten.
    pub(super) fn update_min_rtt(&mut self, now: Instant) {
        let near = self.min_rtt.saturating_add(NEAR_TIME.max(self.min_rtt / NEAR_PART));
        if self.rs.rtt.is_some_and(|rtt| rtt <= near) {
            self.min_rtt_stamp = now;
        }
        let confirmed = now <= self.min_rtt_stamp + PROBE_RTT_INTERVAL && !self.others.present();
        self.probe_rtt_expired = now > self.probe_rtt_min_stamp + PROBE_RTT_INTERVAL && !confirmed;
        if let Some(rtt) = self.rs.rtt
            && (rtt < self.probe_rtt_min_delay || self.probe_rtt_expired)
        {
            (self.probe_rtt_min_delay, self.probe_rtt_min_stamp) = (rtt, now);
        }
        let min_rtt_expired = now > self.min_rtt_stamp + MIN_RTT_FILTER_LEN;
        if self.probe_rtt_min_delay < self.min_rtt || min_rtt_expired {
            (self.min_rtt, self.min_rtt_stamp) = (self.probe_rtt_min_delay, self.probe_rtt_min_stamp);
        }
    }

    /// CheckProbeRTT (§5.3.4.3).
    pub(super) fn check_probe_rtt(&mut self, now: Instant, in_flight: u64) {
        if self.state != State::ProbeRtt && self.probe_rtt_expired && !self.idle_restart {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.probe_rtt_done_stamp = None;
            self.ack_phase = AckPhase::ProbeStopping;
            self.start_round();
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(now, in_flight);
        }
        if self.rs.delivered > 0 {
            self.idle_restart = false;
        }
    }

    /// HandleProbeRTT (§5.3.4.3).
    fn handle_probe_rtt(&mut self, now: Instant, in_flight: u64) {
        // Low rates meanwhile say nothing.
        self.sampler.mark_app_limited(in_flight);
        if self.probe_rtt_done_stamp.is_none() && in_flight <= self.probe_rtt_cwnd() {
            self.probe_rtt_done_stamp = Some(now + PROBE_RTT_DURATION);
            self.probe_rtt_round_done = false;
            self.start_round();
        } else if self.probe_rtt_done_stamp.is_some() {
            self.probe_rtt_round_done |= self.round_start;
            if self.probe_rtt_round_done {
                self.check_probe_rtt_done(now);
            }
        }
    }

    /// CheckProbeRTTDone (§5.3.4.3).
    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.probe_rtt_done_stamp.is_some_and(|done| now > done) {
            self.probe_rtt_min_stamp = now;
            self.restore_cwnd();
            self.exit_probe_rtt(now);
        }
    }

    /// ExitProbeRTT (§5.3.4.4).
    fn exit_probe_rtt(&mut self, now: Instant) {
        self.reset_short_term_model();
        if self.full_bw_reached {
            self.start_probe_bw_down(now);
            self.start_probe_bw_cruise();
        } else {
            self.state = State::Startup;
        }
    }
}
