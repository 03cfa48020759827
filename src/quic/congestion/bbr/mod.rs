//! BBRv3 (draft-ietf-ccwg-bbr-06): a model of the path, its delivery rate and round-trip time, says how fast to send and
//! how much may be in flight.
//!
//! Names are those of the draft. Rates are in bytes per second, volumes in bytes. Where the draft says nothing or was
//! departed from:
//! - Loss without a queue is not congestion, within limits ([`ambient`]), and is made up for (§5.6.2).
//! - Who is alone on a path leaves no room to others: no pacing margin (§2.5), and no ProbeRTT as long as the queue is
//!   empty anyway (§5.3.4.3) ([`others`]).
//! - A rate that is low because Down is slow is not the path's (§5.5.10.3).
//! - A probe that loses too much gives up a part of what was in flight, so that shares become equal (§5.5.10.2).
//! - ECN (§3.7): a mark is a loss of no bytes: it slows down as a loss does, and ends a probe for bandwidth.
//! - Persistent congestion (RFC 9002 §7.6) is the draft's retransmission timeout (§5.6.4.4); probe timeouts are not.
//! - The burst of the pacer is at least what the rate allows in two ticks of the timer wheel (§5.6.3).
#![forbid(unsafe_code)]

mod ambient;
mod control;
mod model;
mod others;
mod probe_bw;
mod probe_rtt;
mod rate;
mod startup;
#[cfg(test)]
mod tests;

use crate::base::time::{Duration, Instant};
use crate::quic::congestion::{Acked, initial_window, least_window, minimum_window};
use ambient::Ambient;
use model::{Aggregation, MaxBw};
use others::Others;
use rate::{Sample, Sampler};

/// BBR.LossThresh: the share of bytes lost in a round trip that is tolerated when probing for bandwidth (§2.8).
const LOSS_THRESH: f64 = 0.02;
/// BBR.Beta: the multiplicative decrease on a round trip with losses (§2.8).
const BETA: f64 = 0.7;
/// BBR.Headroom: the share of BBR.inflight_longterm that is left to others (§2.8).
const HEADROOM: f64 = 0.15;
/// BBR.MinPipeCwnd in packets (§2.8).
const MIN_PIPE_PACKETS: u64 = 4;

/// BBR.state (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

impl State {
    /// BBR.pacing_gain (§5.6.1).
    fn pacing_gain(self) -> f64 {
        match self {
            Self::Startup => 2.77,
            Self::Drain => 0.5,
            Self::Down => 0.9,
            Self::Up => 1.25,
            Self::Cruise | Self::Refill | Self::ProbeRtt => 1.0,
        }
    }

    /// BBR.cwnd_gain (§5.6.1).
    fn cwnd_gain(self) -> f64 {
        match self {
            Self::Up => 2.25,
            Self::ProbeRtt => 0.5,
            _ => 2.0,
        }
    }

    /// IsInAProbeBWState (§5.3.3.9).
    fn probes_bw(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }

    /// IsProbingBW (§5.3.3.9): whether it accelerates.
    fn accelerates(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }
}

/// BBR.ack_phase: what acknowledgements mean with respect to the latest probe for bandwidth (§2.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// What a loss that turns out to be spurious restores (§2.15).
#[derive(Clone, Copy, Debug)]
struct Undo {
    /// The state that the loss ended: `Startup` or `Up`.
    state: Option<State>,
    bw_shortterm: f64,
    inflight_shortterm: u64,
    inflight_longterm: u64,
}

/// BBRv3.
#[derive(Clone, Debug)]
pub struct Bbr {
    /// C.SMSS.
    mtu: u64,
    /// C.InitialCwnd.
    initial: u64,
    /// BBR.MinPipeCwnd.
    min_pipe: u64,
    /// C.cwnd.
    cwnd: u64,
    /// C.pacing_rate.
    pacing_rate: f64,
    /// C.send_quantum.
    quantum: u64,
    state: State,
    sampler: Sampler,
    /// RS: the latest sample.
    rs: Sample,
    /// State of the generator of random numbers.
    random: u64,

    round_count: u64,
    round_start: bool,
    next_round_delivered: u64,
    /// Whether the window was full in this round trip, and in the one before: C.is_cwnd_limited.
    cwnd_limited: [bool; 2],
    idle_restart: bool,

    max_bw: MaxBw,
    /// Infinite if there is no bound.
    bw_shortterm: f64,
    bw: f64,
    bw_latest: f64,
    inflight_latest: u64,
    /// `u64::MAX` if there is no bound.
    inflight_longterm: u64,
    /// `u64::MAX` if there is no bound.
    inflight_shortterm: u64,
    aggregation: Aggregation,
    ambient: Ambient,
    others: Others,

    full_bw_reached: bool,
    full_bw_now: bool,
    full_bw: f64,
    full_bw_count: u32,
    drain_start_round: u64,

    is_loss_in_round: bool,
    loss_round_start: bool,
    loss_round_delivered: u64,
    /// Whether there was a loss in the round trip of losses that has just ended.
    lossy_round: bool,
    /// The number of runs of consecutive packets lost in this round trip, and the latest lost packet.
    loss_events: u32,
    latest_lost: u64,
    /// Whether a recovery period has begun and no packet sent since has been acknowledged.
    in_recovery: bool,
    prior_cwnd: u64,
    undo: Undo,

    ack_phase: AckPhase,
    is_bw_probe_sample: bool,
    bw_probe_up_acked: u64,
    probe_up_acked_per_inc: u64,
    bw_probe_up_rounds: u32,
    rounds_since_probe_up: u64,
    bw_probe_wait: Duration,
    cycle_stamp: Instant,
    /// The round trip in which Cruise began.
    cruise_start_round: u64,
    prev_probe_too_high: bool,
    prev_probe_precautionary: bool,

    /// [`Duration::MAX`] before the first sample.
    min_rtt: Duration,
    min_rtt_stamp: Instant,
    probe_rtt_min_delay: Duration,
    probe_rtt_min_stamp: Instant,
    probe_rtt_expired: bool,
    probe_rtt_done_stamp: Option<Instant>,
    probe_rtt_round_done: bool,
}

impl Bbr {
    /// A controller for a new path with datagrams of `mtu` bytes (§5.2.1). `seed` determines when it probes.
    pub fn new(mtu: u64, seed: u64, now: Instant) -> Self {
        let initial = initial_window(mtu);
        let mut bbr = Self {
            mtu,
            initial,
            min_pipe: MIN_PIPE_PACKETS * mtu,
            cwnd: initial,
            pacing_rate: 0.0,
            quantum: 0,
            state: State::Startup,
            sampler: Sampler::new(now),
            rs: Sample::default(),
            random: seed,
            round_count: 0,
            round_start: false,
            next_round_delivered: 0,
            cwnd_limited: [false; 2],
            idle_restart: false,
            max_bw: MaxBw::default(),
            bw_shortterm: f64::INFINITY,
            bw: 0.0,
            bw_latest: 0.0,
            inflight_latest: 0,
            inflight_longterm: u64::MAX,
            inflight_shortterm: u64::MAX,
            aggregation: Aggregation::new(now),
            ambient: Ambient::default(),
            others: Others::default(),
            full_bw_reached: false,
            full_bw_now: false,
            full_bw: 0.0,
            full_bw_count: 0,
            drain_start_round: 0,
            is_loss_in_round: false,
            loss_round_start: false,
            loss_round_delivered: 0,
            lossy_round: false,
            loss_events: 0,
            latest_lost: u64::MAX,
            in_recovery: false,
            prior_cwnd: 0,
            undo: Undo { state: None, bw_shortterm: 0.0, inflight_shortterm: 0, inflight_longterm: 0 },
            ack_phase: AckPhase::Init,
            is_bw_probe_sample: false,
            bw_probe_up_acked: 0,
            probe_up_acked_per_inc: u64::MAX,
            bw_probe_up_rounds: 0,
            rounds_since_probe_up: 0,
            bw_probe_wait: Duration::ZERO,
            cycle_stamp: Instant::ZERO,
            cruise_start_round: 0,
            prev_probe_too_high: false,
            prev_probe_precautionary: false,
            min_rtt: Duration::MAX,
            min_rtt_stamp: now,
            probe_rtt_min_delay: Duration::MAX,
            probe_rtt_min_stamp: now,
            probe_rtt_expired: false,
            probe_rtt_done_stamp: None,
            probe_rtt_round_done: false,
        };
        bbr.init_pacing_rate(Duration::from_millis(1));
        bbr
    }

    /// The congestion window in bytes.
    pub fn window(&self) -> u64 {
        self.cwnd
    }

    /// Whether it searches for the bandwidth of the path for the first time.
    pub fn in_slow_start(&self) -> bool {
        self.state == State::Startup
    }

    /// The pacing rate in bytes per second.
    pub fn pacing_rate(&self) -> f64 {
        self.pacing_rate
    }

    /// The number of bytes that may be sent at once, as long as the pacing rate is kept on average.
    pub fn send_quantum(&self) -> u64 {
        self.quantum
    }

    /// Whether Startup has never ended.
    pub(super) fn is_fresh(&self) -> bool {
        !self.full_bw_reached && self.sampler.lost() == 0
    }

    /// A random number below `n`.
    fn random(&mut self, n: u64) -> u64 {
        self.next_seed() % n
    }

    /// A random number: SplitMix64, which is good enough for moments to probe at.
    pub(super) fn next_seed(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Packets were sent at `now`: `before` bytes were in flight before that, and `after` are now (§5.2.2, §4.1.2.2).
    /// True if the pacing rate has changed.
    pub(super) fn on_sent(&mut self, now: Instant, before: u64, after: u64) -> bool {
        let restarts = before == 0 && self.sampler.is_app_limited();
        if restarts {
            self.on_restart_from_idle(now);
        }
        self.sampler.on_sent(now, before, after);
        self.cwnd_limited[0] |= after + self.mtu > self.cwnd;
        restarts
    }

    /// HandleRestartFromIdle (§5.4.1).
    fn on_restart_from_idle(&mut self, now: Instant) {
        self.idle_restart = true;
        self.aggregation.restart(now);
        if self.state.probes_bw() {
            self.set_pacing_rate_with_gain(1.0);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    /// There is nothing to send although the window has room (§4.1.2.4).
    pub(super) fn on_app_limited(&mut self, in_flight: u64) {
        self.sampler.mark_app_limited(in_flight);
    }

    /// `bytes` are acknowledged at `now`. Losses that this shows, and [`Bbr::on_ack`], follow.
    pub(super) fn on_delivered(&mut self, now: Instant, bytes: u64) {
        self.sampler.on_delivered(now, bytes);
    }

    /// Handles an acknowledgement after which `in_flight` bytes are in flight (§5.2.3). `recovered`: its newest packet was
    /// sent after the latest recovery period began.
    pub(super) fn on_ack(&mut self, ack: &Acked, in_flight: u64, recovered: bool) {
        let now = ack.now;
        self.rs = self.sampler.sample(now, ack.sent, ack.sample);
        if self.min_rtt == Duration::MAX
            && let Some(rtt) = ack.sample
        {
            self.init_pacing_rate(rtt);
        }
        self.update_ambient();
        // UpdateModelAndState().
        self.update_latest_delivery_signals();
        self.update_congestion_signals();
        self.update_ack_aggregation(now);
        self.check_full_bw_reached();
        self.check_startup_done(now, in_flight);
        self.check_drain_done(now, in_flight);
        self.update_probe_bw_cycle_phase(now, in_flight);
        self.update_min_rtt(now);
        self.check_probe_rtt(now, in_flight);
        self.advance_latest_delivery_signals();
        self.bound_bw_for_model();
        if self.in_recovery && recovered {
            self.in_recovery = false;
            self.restore_cwnd();
        }
        // UpdateControlParameters().
        self.set_pacing_rate();
        self.set_send_quantum();
        self.set_cwnd();
    }

    /// Forgets packets sent before `oldest`: none of them is in flight any more.
    pub(super) fn forget_before(&mut self, oldest: Instant) {
        self.sampler.forget_before(oldest);
    }

    /// A recovery period begins (§5.6.4.4, OnEnterFastRecovery). State was saved when the loss was noted.
    pub(super) fn on_enter_recovery(&mut self) {
        self.save_cwnd();
        self.in_recovery = true;
    }

    /// The network has marked packets (§3.7), the newest of them sent at `sent`.
    pub(super) fn on_marks(&mut self, now: Instant, sent: Instant) {
        self.note_loss();
        self.ambient.on_marks();
        if self.is_bw_probe_sample
            && let Some(snapshot) = self.sampler.at(sent)
        {
            (self.rs.in_flight, self.rs.app_limited) = (snapshot.in_flight, snapshot.app_limited);
            self.on_inflight_too_high(now);
        }
    }

    /// Everything sent over a long period was lost (RFC 9002 §7.6.2): OnEnterRTO (§5.6.4.4).
    pub(super) fn on_persistent_congestion(&mut self, in_flight: u64) {
        self.save_cwnd();
        self.save_state_upon_loss();
        self.in_recovery = true;
        self.cwnd = (in_flight + 1).max(minimum_window(self.mtu)).min(self.cwnd);
    }

    /// HandleSpuriousLossDetection (§5.5.11.2).
    pub(super) fn undo(&mut self) {
        self.in_recovery = false;
        self.restore_cwnd();
        self.is_loss_in_round = false;
        self.reset_full_bw();
        self.bw_shortterm = self.bw_shortterm.max(self.undo.bw_shortterm);
        self.inflight_shortterm = self.inflight_shortterm.max(self.undo.inflight_shortterm);
        self.inflight_longterm = self.inflight_longterm.max(self.undo.inflight_longterm);
        match self.undo.state.take() {
            Some(State::Startup) if self.state != State::Startup => {
                self.full_bw_reached = false;
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::Up) if !matches!(self.state, State::Up | State::ProbeRtt) => self.start_probe_bw_refill(),
            _ => {}
        }
        self.bound_bw_for_model();
        self.set_pacing_rate();
    }

    /// Changes the datagram size. The window must not grow by that (RFC 8899 §3): neither does its minimum, unless the
    /// window is that large already.
    pub(super) fn set_mtu(&mut self, mtu: u64) {
        self.mtu = mtu;
        let fresh = self.is_fresh();
        self.cwnd = self.cwnd.max(least_window(mtu, fresh));
        self.initial = initial_window(mtu);
        self.min_pipe = (MIN_PIPE_PACKETS * mtu).min(self.cwnd);
        self.set_send_quantum();
    }

    /// Nothing is in flight any more on this path.
    pub(super) fn clear_flight(&mut self, now: Instant) {
        self.sampler.forget_before(now + Duration::from_nanos(1));
    }
}
