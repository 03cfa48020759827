//! CUBIC (RFC 9438) in bytes, with HyStart++ in its first slow start.
//!
//! Only IEEE additions, multiplications and divisions are used, so that all machines compute the same windows.

use crate::base::time::Instant;
use crate::quic::congestion::hystart::HyStart;
use crate::quic::congestion::{Acked, initial_window, least_window, minimum_window};

/// Aggressiveness, in segments per second³ (§5.1).
const C: f64 = 0.4;
/// Multiplicative decrease factor (§4.6).
const BETA: f64 = 0.7;
/// Additive increase that makes AIMD with [`BETA`] as fast as standard TCP (§4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// An epoch of congestion avoidance.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds until the window is back at `origin`.
    k: f64,
    /// Where the cubic function is flat, in bytes.
    origin: f64,
    /// The window of standard TCP, in bytes.
    w_est: f64,
}

impl Epoch {
    /// W_cubic in bytes, `t` seconds into the epoch (Figure 1).
    fn cubic(&self, t: f64, mtu: f64) -> f64 {
        let d = t - self.k;
        C * mtu * d * d * d + self.origin
    }
}

/// CUBIC with fast convergence and the TCP-friendly region.
#[derive(Clone, Debug)]
pub struct Cubic {
    mtu: u64,
    window: u64,
    ssthresh: u64,
    /// Growth of less than a byte that is carried over.
    fraction: f64,
    /// The window before the last reduction, in bytes; zero if there was none.
    w_max: f64,
    epoch: Option<Epoch>,
    /// Since when the window has not been the limit.
    limited_since: Option<Instant>,
    hystart: HyStart,
}

impl Cubic {
    /// A controller for a new path with datagrams of `mtu` bytes.
    pub fn new(mtu: u64) -> Self {
        Self {
            mtu,
            window: initial_window(mtu),
            ssthresh: u64::MAX,
            fraction: 0.0,
            w_max: 0.0,
            epoch: None,
            limited_since: None,
            hystart: HyStart::new(),
        }
    }

    /// The congestion window in bytes.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The slow start threshold in bytes; `u64::MAX` before the first reduction.
    pub fn threshold(&self) -> u64 {
        self.ssthresh
    }

    /// Whether the window is below the slow start threshold (§4.10).
    pub fn in_slow_start(&self) -> bool {
        self.window < self.ssthresh
    }

    pub(super) fn on_ack(&mut self, ack: &Acked) {
        self.resume(ack.now);
        if self.in_slow_start() {
            self.slow_start(ack);
        } else {
            self.congestion_avoidance(ack);
        }
    }

    /// Handles an acknowledgement while the window was not fully used: it does not grow, and the epoch is suspended
    /// (RFC 9002 §7.8).
    pub(super) fn on_ack_limited(&mut self, now: Instant) {
        self.limited_since.get_or_insert(now);
    }

    /// Excludes the suspended time from the epoch.
    fn resume(&mut self, now: Instant) {
        if let Some(since) = self.limited_since.take()
            && let Some(epoch) = &mut self.epoch
        {
            epoch.start += now.saturating_since(since);
        }
    }

    fn slow_start(&mut self, ack: &Acked) {
        // Only the first slow start is not limited by a threshold (RFC 9406 §4.3).
        if !self.is_fresh() {
            self.window = self.ssthresh.min(self.window + ack.bytes);
            return;
        }
        let grown = self.hystart.on_ack(ack, self.window, initial_window(self.mtu));
        self.window = grown.window;
        if grown.over {
            self.ssthresh = grown.window;
        }
    }

    fn congestion_avoidance(&mut self, ack: &Acked) {
        let (mtu, window) = (self.mtu as f64, self.window as f64);
        let bytes = (ack.bytes as f64).min(window);
        let epoch = self.epoch.get_or_insert_with(|| Epoch::begin(ack.now, window, self.w_max, mtu));
        let alpha = if epoch.w_est >= epoch.origin { 1.0 } else { ALPHA };
        epoch.w_est += alpha * mtu * bytes / window;

        let t = ack.now.saturating_since(epoch.start).as_secs_f64();
        let grow = if epoch.cubic(t, mtu) < epoch.w_est {
            (epoch.w_est - window).max(0.0)
        } else {
            let target = epoch.cubic(t + ack.srtt.as_secs_f64(), mtu).clamp(window, 1.5 * window);
            (target - window) * bytes / window
        };
        let grow = grow + self.fraction;
        self.window += grow as u64;
        self.fraction = grow - (grow as u64) as f64;
    }

    pub(super) fn on_congestion_event(&mut self) {
        let window = self.window as f64;
        // Fast convergence: a flow that did not reach its old maximum releases bandwidth (§4.7).
        self.w_max = if window < self.w_max { window * (1.0 + BETA) / 2.0 } else { window };
        self.ssthresh = ((window * BETA) as u64).max(minimum_window(self.mtu));
        self.window = self.ssthresh;
        self.end_epoch();
    }

    pub(super) fn on_persistent_congestion(&mut self) {
        self.window = minimum_window(self.mtu);
        // The next epoch starts where slow start ends (§4.8).
        self.w_max = 0.0;
        self.end_epoch();
    }

    fn end_epoch(&mut self) {
        self.epoch = None;
        self.fraction = 0.0;
        self.limited_since = None;
    }

    /// Whether slow start has never ended.
    pub(super) fn is_fresh(&self) -> bool {
        self.ssthresh == u64::MAX
    }

    pub(super) fn set_mtu(&mut self, mtu: u64) {
        self.mtu = mtu;
        self.window = self.window.max(least_window(mtu, self.is_fresh()));
        // The curve is in segments, so a new epoch has to begin.
        self.epoch = None;
    }
}

impl Epoch {
    /// An epoch that begins with a window of `window` bytes; `w_max` is the maximum to return to.
    fn begin(start: Instant, window: f64, w_max: f64, mtu: f64) -> Self {
        let k = if w_max > window { cube_root((w_max - window) / (C * mtu)) } else { 0.0 };
        Self { start, k, origin: w_max.max(window), w_est: window }
    }
}

/// The cube root of `x` ≥ 0 by Newton's method. Unlike the C library's, it gives the same result on every machine.
fn cube_root(x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    // A third of the exponent is close enough for fast convergence.
    let exponent = ((x.to_bits() >> 52) as i64 - 1023) / 3;
    let mut root = f64::from_bits(((exponent + 1023) as u64) << 52);
    for _ in 0..8 {
        root = (2.0 * root + x / (root * root)) / 3.0;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Duration;

    const MTU: u64 = 1200;
    const RTT: Duration = Duration::from_millis(100);

    fn ack(now: Instant, bytes: u64) -> Acked {
        Acked { now, bytes, sent: now - RTT, prior_in_flight: u64::MAX / 2, srtt: RTT, sample: None }
    }

    fn after_loss(window: u64) -> Cubic {
        let mut c = Cubic::new(MTU);
        c.on_ack(&ack(Instant::ZERO + RTT, window - c.window()));
        assert_eq!(c.window(), window);
        c.on_congestion_event();
        c
    }

    #[test]
    fn cube_root_is_exact_enough() {
        for x in [1e-9, 0.001, 0.5, 1.0, 2.0, 8.0, 27.0, 1e6, 123_456_789.0, 1e15] {
            let root = cube_root(x);
            assert!((root * root * root / x - 1.0).abs() < 1e-12, "{x} {root}");
        }
        assert_eq!(cube_root(0.0), 0.0);
    }

    #[test]
    fn loss_takes_three_tenths() {
        let c = after_loss(1_200_000);
        assert_eq!(c.window(), 840_000);
        assert!(!c.in_slow_start());
        let mut c = Cubic::new(MTU);
        for _ in 0..20 {
            c.on_congestion_event();
        }
        assert_eq!(c.window(), 2 * MTU);
    }

    /// With 1000 segments, the cubic function governs and not the TCP-friendly region.
    #[test]
    fn the_window_follows_the_curve() {
        let w_max = 1_200_000.0;
        let mut c = after_loss(1_200_000);
        let start = Instant::ZERO + Duration::from_secs(10);
        let k = (w_max * (1.0 - BETA) / MTU as f64 / C).cbrt();
        let mut now = start;
        while now < start + Duration::from_secs(16) {
            // A whole window is acknowledged per round trip, in ten parts.
            let part = c.window() / 10;
            for _ in 0..10 {
                c.on_ack(&ack(now, part));
                now += RTT / 10;
            }
            let t = now.saturating_since(start).as_secs_f64();
            let want = C * MTU as f64 * (t - k).powi(3) + w_max;
            let friendly = w_max * BETA + ALPHA * MTU as f64 * t / 0.1;
            if want > friendly + 10.0 * MTU as f64 {
                let off = (c.window() as f64 - want).abs() / want;
                assert!(off < 0.02, "t {t} window {} want {want}", c.window());
            }
        }
        assert!(c.window() > 1_300_000, "probing beyond the old maximum: {}", c.window());
    }

    #[test]
    fn on_short_paths_it_is_as_fast_as_standard_tcp() {
        let rtt = Duration::from_micros(10);
        let mut c = after_loss(120_000);
        let mut now = Instant::ZERO + Duration::from_secs(1);
        for _ in 0..20 {
            now += rtt;
            let bytes = c.window();
            c.on_ack(&Acked { now, bytes, sent: now - rtt, prior_in_flight: bytes, srtt: rtt, sample: Some(rtt) });
        }
        let grown = (c.window() - 84_000) as f64 / MTU as f64;
        assert!((grown / (20.0 * ALPHA) - 1.0).abs() < 0.02, "{grown}");
    }

    #[test]
    fn fast_convergence_lowers_the_maximum() {
        let mut c = after_loss(1_200_000);
        assert_eq!(c.w_max, 1_200_000.0);
        c.on_congestion_event();
        assert_eq!(c.w_max, 840_000.0 * 0.85);
    }

    #[test]
    fn unused_time_does_not_count() {
        let mut c = after_loss(1_200_000);
        let t0 = Instant::ZERO + Duration::from_secs(10);
        c.on_ack(&ack(t0, 1200));
        c.on_ack_limited(t0);
        let before = c.window();
        c.on_ack(&ack(t0 + Duration::from_secs(1000), 1200));
        assert!(c.window() - before < 2 * MTU, "{} {before}", c.window());
        let mut without = after_loss(1_200_000);
        without.on_ack(&ack(t0, 1200));
        without.on_ack(&ack(t0 + Duration::from_secs(1000), 840_000));
        assert!((1_255_000..1_262_000).contains(&without.window()), "1.5 windows are the most: {}", without.window());
    }

    #[test]
    fn after_persistent_congestion_slow_start_leads_to_a_fresh_curve() {
        let mut c = after_loss(1_200_000);
        c.on_persistent_congestion();
        assert_eq!(c.window(), 2 * MTU);
        assert!(c.in_slow_start());
        let t0 = Instant::ZERO + Duration::from_secs(10);
        c.on_ack(&ack(t0, 2_000_000));
        assert_eq!(c.window(), 840_000, "the old threshold ends slow start");
        c.on_ack(&ack(t0, 1200));
        let epoch = c.epoch.unwrap();
        assert_eq!((epoch.k, epoch.origin), (0.0, 840_000.0));
    }
}
