//! The model of the path and what changes it (§5.5).

use crate::base::time::{Duration, Instant};
use crate::quic::congestion::bbr::{BETA, Bbr, HEADROOM, LOSS_THRESH, State};

/// The round trips of Cruise in which packets sent in Down are acknowledged, or are the interval of a sample.
const AFTER_DOWN_ROUNDS: u64 = 2;

/// BBR.ExtraAckedFilterLen in round trips (§2.12).
const EXTRA_ACKED_FILTER_LEN: u64 = 10;

/// BBR.max_bw_filter over this and the previous cycle of probes (§5.5.3, §5.5.6), in bytes per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxBw([f64; 2]);

impl MaxBw {
    /// BBR.max_bw.
    pub(super) fn get(&self) -> f64 {
        self.0[0].max(self.0[1])
    }

    fn update(&mut self, rate: f64) {
        self.0[0] = self.0[0].max(rate);
    }

    /// AdvanceMaxBwFilter: a cycle ends.
    pub(super) fn advance(&mut self) {
        // A cycle without a sample says nothing.
        if self.0[0] > 0.0 {
            self.0 = [0.0, self.0[0]];
        }
    }
}

/// A maximum over a window of round trips, by three samples, each the best since the one before (§5.5.5).
#[derive(Clone, Copy, Debug, Default)]
struct WindowedMax([(u64, u64); 3]);

impl WindowedMax {
    /// Adds `value` at `round`; returns the maximum of the last `window` round trips.
    fn update(&mut self, window: u64, round: u64, value: u64) -> u64 {
        let new = (round, value);
        let best = &mut self.0;
        if value >= best[0].1 || round - best[2].0 > window {
            *best = [new; 3];
            return value;
        }
        if value >= best[1].1 {
            (best[1], best[2]) = (new, new);
        } else if value >= best[2].1 {
            best[2] = new;
        }
        let age = round - best[0].0;
        if age > window {
            *best = [best[1], best[2], new];
            if round - best[0].0 > window {
                *best = [best[1], best[2], new];
            }
        } else if best[1].0 == best[0].0 && age > window / 4 {
            (best[1], best[2]) = (new, new);
        } else if best[2].0 == best[1].0 && age > window / 2 {
            best[2] = new;
        }
        best[0].1
    }
}

/// BBR.extra_acked: the degree of aggregation in the path (§5.5.9).
#[derive(Clone, Copy, Debug)]
pub(super) struct Aggregation {
    interval_start: Instant,
    delivered: u64,
    filter: WindowedMax,
    /// In bytes.
    pub(super) extra_acked: u64,
}

impl Aggregation {
    pub(super) fn new(now: Instant) -> Self {
        Self { interval_start: now, delivered: 0, filter: WindowedMax::default(), extra_acked: 0 }
    }

    /// Starts another interval.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.interval_start, self.delivered) = (now, 0);
    }
}

impl Bbr {
    /// UpdateLatestDeliverySignals (§5.5.10.3).
    pub(super) fn update_latest_delivery_signals(&mut self) {
        self.loss_round_start = false;
        self.bw_latest = self.bw_latest.max(self.rs.rate);
        self.inflight_latest = self.inflight_latest.max(self.rs.delivered);
        if self.rs.prior_delivered.is_some_and(|prior| prior >= self.loss_round_delivered) {
            self.loss_round_delivered = self.sampler.delivered();
            self.loss_round_start = true;
        }
    }

    /// AdvanceLatestDeliverySignals (§5.5.10.3).
    pub(super) fn advance_latest_delivery_signals(&mut self) {
        if self.loss_round_start {
            self.bw_latest = self.rs.rate;
            self.inflight_latest = self.rs.delivered;
            self.ambient.start_round();
        }
    }

    /// ResetCongestionSignals (§5.5.10.3).
    pub(super) fn reset_congestion_signals(&mut self) {
        self.is_loss_in_round = false;
        self.bw_latest = 0.0;
        self.inflight_latest = 0;
        self.ambient.start_round();
    }

    /// UpdateCongestionSignals (§5.5.10.3).
    pub(super) fn update_congestion_signals(&mut self) {
        self.update_max_bw();
        self.lossy_round = self.loss_round_start && self.is_loss_in_round;
        if self.loss_round_start {
            self.adapt_lower_bounds_from_congestion();
            self.is_loss_in_round = false;
        }
    }

    /// UpdateMaxBw (§5.5.5).
    fn update_max_bw(&mut self) {
        self.update_round();
        if self.rs.rate > 0.0 && (self.rs.rate >= self.max_bw.get() || !self.rs.app_limited) {
            self.max_bw.update(self.rs.rate);
        }
    }

    /// UpdateRound (§5.5.1).
    fn update_round(&mut self) {
        if let Some(rtt) = self.rs.rtt {
            self.others.on_rtt(rtt);
        }
        self.round_start = self.rs.prior_delivered.is_some_and(|prior| prior >= self.next_round_delivered);
        if self.round_start {
            self.start_round();
            self.round_count += 1;
            self.rounds_since_probe_up += 1;
            self.cwnd_limited = [false, self.cwnd_limited[0]];
            let cruising = (self.state == State::Cruise).then(|| self.round_count - self.cruise_start_round);
            self.others.end_round(cruising, self.min_rtt);
        }
    }

    /// StartRound (§5.5.1).
    pub(super) fn start_round(&mut self) {
        self.next_round_delivered = self.sampler.delivered();
    }

    /// AdaptLowerBoundsFromCongestion, InitLowerBounds and LossLowerBounds (§5.5.10.3).
    fn adapt_lower_bounds_from_congestion(&mut self) {
        if self.state.accelerates() || !self.is_loss_in_round || self.ambient.explains_round(self.mtu) {
            return;
        }
        if self.bw_shortterm == f64::INFINITY {
            self.bw_shortterm = self.max_bw.get();
        }
        if self.inflight_shortterm == u64::MAX {
            self.inflight_shortterm = self.cwnd;
        }
        self.bw_shortterm = self.bw_at_loss().max(BETA * self.bw_shortterm);
        self.inflight_shortterm = self.inflight_latest.max((BETA * self.inflight_shortterm as f64) as u64);
    }

    /// BBR.bw_latest, as far as losses lower the bandwidth to it.
    ///
    /// A departure from the draft (§5.5.10.3): what is sent in Down arrives no faster than it was sent, which says
    /// nothing about the path. Otherwise, a single loss in Down makes the whole Cruise as slow as that. While others
    /// fill the queue, they get that part.
    pub(super) fn bw_at_loss(&self) -> f64 {
        let after_down = self.round_count <= self.cruise_start_round + AFTER_DOWN_ROUNDS;
        if !self.others.present() && (self.state == State::Down || after_down) {
            return self.bw_latest / State::Down.pacing_gain();
        }
        self.bw_latest
    }

    /// ResetShortTermModel (§5.5.10.3).
    pub(super) fn reset_short_term_model(&mut self) {
        self.bw_shortterm = f64::INFINITY;
        self.inflight_shortterm = u64::MAX;
    }

    /// BoundBWForModel (§5.5.10.3).
    pub(super) fn bound_bw_for_model(&mut self) {
        self.bw = self.max_bw.get().min(self.bw_shortterm);
    }

    /// UpdateACKAggregation (§5.5.9).
    pub(super) fn update_ack_aggregation(&mut self, now: Instant) {
        let interval = now.saturating_since(self.aggregation.interval_start);
        let mut expected = (self.bw * interval.as_nanos() as u64 as f64 / 1e9) as u64;
        if self.aggregation.delivered <= expected {
            self.aggregation.restart(now);
            expected = 0;
        }
        self.aggregation.delivered += self.rs.acked;
        let extra = (self.aggregation.delivered - expected).min(self.cwnd);
        let window = if self.full_bw_reached { EXTRA_ACKED_FILTER_LEN } else { 1 };
        self.aggregation.extra_acked = self.aggregation.filter.update(window, self.round_count, extra);
    }

    /// IsInflightTooHigh (§5.5.10.2): whether more was lost than the path loses anyway, and what is tolerated.
    pub(super) fn is_inflight_too_high(&self) -> bool {
        self.ambient.exceeds(self.rs.lost, self.rs.in_flight, LOSS_THRESH, self.mtu)
    }

    /// HandleInflightTooHigh (§5.5.10.2).
    pub(super) fn on_inflight_too_high(&mut self, now: Instant) {
        self.prev_probe_too_high = true;
        self.is_bw_probe_sample = false;
        if !self.rs.app_limited {
            let least = (self.target_inflight() as f64 * BETA) as u64;
            self.inflight_longterm = self.yielding(self.rs.in_flight).max(least);
        }
        if self.state == State::Up {
            self.undo.state = Some(State::Up);
            self.start_probe_bw_down(now);
        }
    }

    /// What remains of `in_flight`, at which too much was lost: a departure from the draft (§5.5.10.2).
    ///
    /// The draft keeps all of it. But flows often probe at the same time, and the queue overflows for all of them at
    /// once, whatever the share of each: shares stay as they are. A decrease by a factor, and growth that is the same for
    /// all (§5.3.3.5), make them more equal. What fills the path without a queue, and the headroom on top of it, is not
    /// given up, so that a flow alone loses next to nothing by this.
    fn yielding(&self, in_flight: u64) -> u64 {
        let alone = self.bdp_multiple(self.max_bw.get(), 1.0 / (1.0 - HEADROOM));
        in_flight.min(alone.max((in_flight as f64 * BETA) as u64))
    }

    /// NoteLoss (§5.5.10.2).
    pub(super) fn note_loss(&mut self) {
        if !self.is_loss_in_round {
            self.loss_round_delivered = self.sampler.delivered();
            self.save_state_upon_loss();
        }
        self.is_loss_in_round = true;
    }

    /// SaveStateUponLoss (§5.5.11.1).
    pub(super) fn save_state_upon_loss(&mut self) {
        self.save_cwnd();
        self.undo.state = None;
        self.undo.bw_shortterm = self.bw_shortterm;
        self.undo.inflight_shortterm = self.inflight_shortterm;
        self.undo.inflight_longterm = self.inflight_longterm;
    }

    /// HandleLostPacket (§5.5.10.2): packet `pn` of `len` bytes, sent at `sent`, is lost.
    pub(in crate::quic::congestion) fn on_lost(&mut self, now: Instant, pn: u64, sent: Instant, len: u64) {
        self.sampler.on_lost(len);
        self.ambient.on_lost(len);
        self.note_loss();
        self.loss_events += u32::from(pn != self.latest_lost.wrapping_add(1));
        self.latest_lost = pn;
        if !self.is_bw_probe_sample {
            return;
        }
        let Some(snapshot) = self.sampler.at(sent) else { return };
        self.rs.in_flight = snapshot.in_flight;
        self.rs.lost = self.sampler.lost() - snapshot.lost;
        self.rs.app_limited = snapshot.app_limited;
        if self.is_inflight_too_high() {
            self.rs.in_flight = self.inflight_at_loss(len);
            self.on_inflight_too_high(now);
        }
    }

    /// InflightAtLoss (§5.5.10.2): what was in flight when losses crossed the threshold.
    fn inflight_at_loss(&self, len: u64) -> u64 {
        let inflight_prev = self.rs.in_flight.saturating_sub(len) as f64;
        let lost_prev = self.rs.lost.saturating_sub(len) as f64;
        let lost_prefix = (LOSS_THRESH * inflight_prev - lost_prev) / (1.0 - LOSS_THRESH);
        (inflight_prev + lost_prefix).max(0.0) as u64
    }

    /// Tells what losses are compared with whether there is a queue now.
    pub(super) fn update_ambient(&mut self) {
        self.ambient.on_ack(self.rs.acked, self.rs.rtt, self.min_rtt, self.mtu);
    }

    /// The bandwidth-delay product (§5.6.4.2, BDPMultiple) at `bw`.
    pub(super) fn bdp_multiple(&self, bw: f64, gain: f64) -> u64 {
        if self.min_rtt == Duration::MAX {
            return self.initial;
        }
        (gain * bw * (self.min_rtt.as_nanos() as u64 as f64 / 1e9)) as u64
    }

    /// TargetInflight (§5.3.3.8.3).
    pub(super) fn target_inflight(&self) -> u64 {
        self.bdp_multiple(self.bw, 1.0).min(self.cwnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_of_a_window_is_at_most_that_of_all_and_at_least_that_of_its_last_quarter() {
        let (mut filter, mut values, mut x) = (WindowedMax::default(), Vec::new(), 7_u64);
        for round in 0..400 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            values.push(x >> 40);
            let max = filter.update(10, round, x >> 40);
            let last = |n: usize| *values[values.len().saturating_sub(n)..].iter().max().unwrap();
            assert!((last(3)..=last(11)).contains(&max), "{max} after {round} rounds");
        }
    }

    #[test]
    fn bandwidth_is_forgotten_after_two_cycles() {
        let mut bw = MaxBw::default();
        bw.update(5.0);
        bw.update(3.0);
        bw.advance();
        assert_eq!(bw.get(), 5.0);
        bw.advance();
        assert_eq!(bw.get(), 5.0, "a cycle without a sample");
        bw.update(2.0);
        assert_eq!(bw.get(), 5.0);
        bw.advance();
        assert_eq!(bw.get(), 2.0);
    }
}
