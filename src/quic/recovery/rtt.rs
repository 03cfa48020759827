//! Round-trip time estimation (RFC 9002 §5).

use crate::base::time::{Duration, Instant};

/// Timer granularity (RFC 9002 §6.1.2), the minimum for time-based decisions.
pub(super) const GRANULARITY_NS: u64 = 1_000_000;

/// Smoothed round-trip time and its variation, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct RttEstimator {
    smoothed: u64,
    var: u64,
    min: u64,
    latest: u64,
    /// [`Instant::MAX`] if there is none yet.
    first_sample: Instant,
    last_sample: Instant,
    /// Packets sent before may have been held back on this host.
    fit_from: Instant,
}

impl RttEstimator {
    /// An estimator that assumes `initial` until the first sample (RFC 9002 §5.3).
    pub fn new(initial: Duration) -> Self {
        let initial = nanos(initial);
        Self {
            smoothed: initial,
            var: initial / 2,
            min: 0,
            latest: 0,
            first_sample: Instant::MAX,
            last_sample: Instant::ZERO,
            fit_from: Instant::ZERO,
        }
    }

    /// Distrusts packets that were sent until `now`: they wait on this host, which says nothing about the path (RFC 9002
    /// §5.1).
    pub(super) fn distrust_until(&mut self, now: Instant) {
        self.fit_from = now + Duration::from_nanos(1);
    }

    /// Whether a packet that was sent at `sent` can give a sample at `now`. One that has waited can if even so, it takes no
    /// more than the round-trip time known or assumed.
    #[inline]
    pub(super) fn trusts(&self, now: Instant, sent: Instant) -> bool {
        sent >= self.fit_from || now.saturating_since(sent) <= self.smoothed()
    }

    /// Takes a sample at `now`. `delay` is how long the peer reports to have delayed the acknowledgement, already
    /// limited to its announced maximum (RFC 9002 §5.3).
    pub fn update(&mut self, now: Instant, latest: Duration, delay: Duration) {
        let (latest, delay) = (nanos(latest), nanos(delay));
        self.latest = latest;
        self.last_sample = now;
        if self.first_sample == Instant::MAX {
            self.first_sample = now;
            (self.smoothed, self.var, self.min) = (latest, latest / 2, latest);
            return;
        }
        self.min = self.min.min(latest);
        // A delay that would put the sample below the minimum is not plausible.
        let plausible = latest >= self.min.saturating_add(delay);
        let adjusted = if plausible { latest - delay } else { latest };
        self.var = (3 * self.var + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (7 * self.smoothed + adjusted) / 8;
    }

    /// Restarts the minimum from the latest sample, as the path may have changed after persistent congestion (RFC 9002
    /// §5.2).
    pub(super) fn restart_min(&mut self) {
        self.min = self.latest;
    }

    /// The smoothed round-trip time; before the first sample, the assumed one.
    pub fn smoothed(&self) -> Duration {
        Duration::from_nanos(self.smoothed)
    }

    /// Whether `micros` microseconds are longer than the smoothed round-trip time.
    #[inline]
    pub(crate) fn is_exceeded(&self, micros: u64) -> bool {
        micros.saturating_mul(1000) > self.smoothed
    }

    /// The mean deviation of the round-trip time.
    pub fn var(&self) -> Duration {
        Duration::from_nanos(self.var)
    }

    /// The smallest sample; zero before the first.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.min)
    }

    /// The latest sample; zero before the first.
    pub fn latest(&self) -> Duration {
        Duration::from_nanos(self.latest)
    }

    /// When the first sample was taken.
    pub fn first_sample(&self) -> Option<Instant> {
        (self.first_sample != Instant::MAX).then_some(self.first_sample)
    }

    /// When the latest sample was taken, that is, when the path last worked in both directions.
    pub fn last_sample(&self) -> Option<Instant> {
        self.first_sample().map(|_| self.last_sample)
    }

    /// Probe timeout without the peer's delay and without backoff (RFC 9002 §6.2.1).
    pub(super) fn pto_base(&self) -> Duration {
        Duration::from_nanos(self.smoothed + (4 * self.var).max(GRANULARITY_NS))
    }

    /// The time after sending at which a packet is lost, once a later one is acknowledged (RFC 9002 §6.1.2).
    pub(super) fn loss_delay(&self) -> Duration {
        let rtt = self.smoothed.max(self.latest);
        Duration::from_nanos((rtt + rtt / 8).max(GRANULARITY_NS))
    }
}

/// `d` in nanoseconds, limited to about 36 years so that small multiples do not overflow.
fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).min(1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_sample_replaces_the_assumption() {
        let mut rtt = RttEstimator::new(333 * MS);
        assert_eq!(
            (rtt.smoothed(), rtt.var(), rtt.min()),
            (333 * MS, 166_500 * Duration::from_micros(1), Duration::ZERO)
        );
        assert_eq!(rtt.pto_base(), 999 * MS);
        rtt.update(Instant::ZERO, 100 * MS, 50 * MS);
        assert_eq!((rtt.smoothed(), rtt.var(), rtt.min(), rtt.latest()), (100 * MS, 50 * MS, 100 * MS, 100 * MS));
    }

    #[test]
    fn the_minimum_can_start_again() {
        let mut rtt = RttEstimator::new(333 * MS);
        rtt.update(Instant::ZERO, 10 * MS, Duration::ZERO);
        rtt.update(Instant::ZERO, 80 * MS, Duration::ZERO);
        assert_eq!(rtt.min(), 10 * MS);
        rtt.restart_min();
        assert_eq!(rtt.min(), 80 * MS);
    }

    #[test]
    fn later_samples_are_smoothed_and_adjusted() {
        let mut rtt = RttEstimator::new(333 * MS);
        rtt.update(Instant::ZERO, 100 * MS, Duration::ZERO);
        rtt.update(Instant::ZERO, 200 * MS, 20 * MS);
        // 7/8 × 100 + 1/8 × 180 and 3/4 × 50 + 1/4 × 80.
        assert_eq!(rtt.smoothed(), 110 * MS);
        assert_eq!(rtt.var(), Duration::from_micros(57_500));
        assert_eq!(rtt.min(), 100 * MS);
    }

    #[test]
    fn an_implausible_delay_is_ignored() {
        let mut rtt = RttEstimator::new(333 * MS);
        rtt.update(Instant::ZERO, 100 * MS, Duration::ZERO);
        rtt.update(Instant::ZERO, 108 * MS, 20 * MS);
        assert_eq!(rtt.smoothed(), 101 * MS);
    }

    #[test]
    fn the_granularity_is_a_floor_of_timers_and_not_of_samples() {
        let us = Duration::from_micros(1);
        let mut rtt = RttEstimator::new(333 * MS);
        rtt.update(Instant::ZERO, 10 * us, Duration::ZERO);
        assert_eq!(rtt.smoothed(), 10 * us);
        assert_eq!(rtt.loss_delay(), MS);
        assert_eq!(rtt.pto_base(), MS + 10 * us);
        let mut rtt = RttEstimator::new(333 * MS);
        rtt.update(Instant::ZERO, 80 * MS, Duration::ZERO);
        assert_eq!(rtt.loss_delay(), 90 * MS);
    }

    proptest! {
        #[test]
        fn smoothed_stays_within_the_samples(
            samples in proptest::collection::vec((1u64..1_000_000_000, 0u64..2_000_000_000), 1..50),
        ) {
            let mut rtt = RttEstimator::new(333 * MS);
            for (sample, delay) in &samples {
                rtt.update(Instant::ZERO, Duration::from_nanos(*sample), Duration::from_nanos(*delay));
            }
            let min = samples.iter().map(|s| s.0).min().unwrap();
            let max = samples.iter().map(|s| s.0).max().unwrap();
            prop_assert_eq!(rtt.min(), Duration::from_nanos(min));
            // Delays are never taken below the minimum; integer division rounds down.
            prop_assert!(rtt.smoothed() >= Duration::from_nanos(min.saturating_sub(8)));
            prop_assert!(rtt.smoothed() <= Duration::from_nanos(max));
        }
    }
}
