//! Latency histograms: three significant digits from 1 ns to 1 h.

use hdrhistogram::Histogram;

/// The longest time distinguished from longer ones, in nanoseconds: 1 h.
pub const MAX_NS: u64 = 3_600_000_000_000;
/// The number of significant decimal digits.
const DIGITS: u8 = 3;

/// A histogram of latencies. Recording takes a few nanoseconds and does not allocate.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_NS, DIGITS).expect("constant bounds are valid"))
    }
}

impl Latency {
    /// Creates an empty histogram of about 300 KB.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a latency of `ns` nanoseconds; values above [`MAX_NS`] count as [`MAX_NS`].
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.min(MAX_NS));
    }

    /// Records a latency, and those that a load generator would have seen had the reply not delayed it ("coordinated
    /// omission"): `ns` - `interval`, `ns` - 2 `interval` ... down to `interval`, all in nanoseconds. Only for loads
    /// that wait for the reply. An open-loop load measures from the time at which the request was *due* and uses
    /// [`Latency::record`].
    pub fn record_corrected(&mut self, ns: u64, interval: u64) {
        let ns = ns.min(MAX_NS);
        self.record(ns);
        if interval == 0 {
            return;
        }
        // A long stall has millions of missing values, but they fall into few buckets: one step per bucket.
        let mut value = ns.saturating_sub(interval);
        while value >= interval {
            let floor = self.0.lowest_equivalent(value).max(interval);
            let n = (value - floor) / interval + 1;
            self.0.saturating_record_n(value, n);
            value = value.saturating_sub(n.saturating_mul(interval));
        }
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.merge_histogram(&other.0);
    }

    /// Adds a histogram with any bounds; values beyond ours saturate.
    pub(crate) fn merge_histogram(&mut self, other: &Histogram<u64>) {
        if self.0.add(other).is_err() {
            for v in other.iter_recorded() {
                self.0.saturating_record_n(v.value_iterated_to().min(MAX_NS), v.count_at_value());
            }
        }
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The number of recorded latencies.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in nanoseconds that a share `q` (0 to 1) of the values does not exceed; 0 if there are none.
    pub fn quantile(&self, q: f64) -> u64 {
        self.0.value_at_quantile(q)
    }

    /// The latency in nanoseconds that all but one in `n` values do not exceed. `None` if there are fewer than `n`
    /// values, when it would just be the maximum.
    pub fn all_but_one_in(&self, n: u64) -> Option<u64> {
        (self.count() >= n).then(|| self.quantile(1.0 - 1.0 / n as f64))
    }

    /// The figures that reports show.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.0.len(),
            min: self.0.min(),
            mean: self.0.mean(),
            p50: self.all_but_one_in(2),
            p90: self.all_but_one_in(10),
            p99: self.all_but_one_in(100),
            p999: self.all_but_one_in(1000),
            p9999: self.all_but_one_in(10_000),
            max: self.0.max(),
        }
    }

    /// The histogram itself.
    #[cfg(feature = "report")]
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

/// Summary figures of a histogram. Times are in nanoseconds, and zero if there are no values. Percentiles that the
/// number of values does not support are `None` ([`Latency::all_but_one_in`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "report", derive(serde::Serialize))]
pub struct Summary {
    /// The number of latencies.
    pub count: u64,
    /// The minimum.
    pub min: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: Option<u64>,
    /// The 90th percentile.
    pub p90: Option<u64>,
    /// The 99th percentile.
    pub p99: Option<u64>,
    /// The 99.9th percentile.
    pub p999: Option<u64>,
    /// The 99.99th percentile.
    pub p9999: Option<u64>,
    /// The maximum.
    pub max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether `got` is `want` to three significant digits.
    fn close(got: u64, want: u64) -> bool {
        got.abs_diff(want) as f64 <= want as f64 * 1e-3 + 1.0
    }

    #[test]
    fn summary_of_a_known_spread() {
        let mut l = Latency::new();
        (1..=100_000u64).for_each(|us| l.record(us * 1000));
        let s = l.summary();
        assert_eq!(s.count, 100_000);
        for (got, want) in [(s.p50, 50_000_000), (s.p90, 90_000_000), (s.p99, 99_000_000)] {
            assert!(close(got.unwrap(), want), "{got:?} is not {want}");
        }
        for (got, want) in [(s.p999, 99_900_000), (s.p9999, 99_990_000)] {
            assert!(close(got.unwrap(), want), "{got:?} is not {want}");
        }
        assert!(close(s.min, 1000) && close(s.max, 100_000_000), "{s:?}");
        assert!(close(s.mean as u64, 50_000_500));
        assert_eq!(Latency::new().summary(), Summary::default());
    }

    #[test]
    fn few_latencies_support_few_percentiles() {
        for (n, want) in
            [(1, 0), (2, 1), (9, 1), (10, 2), (99, 2), (100, 3), (999, 3), (1000, 4), (9999, 4), (10_000, 5)]
        {
            let mut l = Latency::new();
            (1..=n).for_each(|ns| l.record(ns));
            let s = l.summary();
            let known = [s.p50, s.p90, s.p99, s.p999, s.p9999].map(|p| p.is_some());
            assert_eq!(known, std::array::from_fn(|i| i < want), "{n} latencies");
        }
    }

    #[test]
    fn values_out_of_range_saturate() {
        let mut l = Latency::new();
        l.record(0);
        l.record(u64::MAX);
        l.record_corrected(u64::MAX, u64::MAX);
        assert_eq!(l.count(), 3);
        assert!(close(l.summary().max, MAX_NS));
        l.clear();
        assert_eq!(l, Latency::new());
    }

    #[test]
    fn a_stall_counts_what_it_hid() {
        let mut l = Latency::new();
        l.record_corrected(100_000, 10_000);
        assert_eq!(l.count(), 10, "100, 90, ... 10 us");
        assert!(close(l.summary().min, 10_000) && close(l.summary().max, 100_000));
        // An hour at 1 ns: 3.6e12 values in one call.
        let mut l = Latency::new();
        l.record_corrected(MAX_NS, 1);
        assert_eq!(l.count(), MAX_NS);
        assert!(close(l.quantile(0.5), MAX_NS / 2));
    }

    proptest! {
        #[test]
        fn correction_is_that_of_the_crate(ns in 0u64..2_000_000, interval in 0u64..50_000) {
            let interval = if interval < 100 { 0 } else { interval };
            let (mut got, mut want) = (Latency::new(), Latency::new());
            got.record_corrected(ns, interval);
            want.0.record_correct(ns, interval).unwrap();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn merged_is_as_if_recorded_together(a in proptest::collection::vec(any::<u64>(), 0..50),
                                             b in proptest::collection::vec(any::<u64>(), 0..50)) {
            let (mut x, mut y, mut both) = (Latency::new(), Latency::new(), Latency::new());
            a.iter().for_each(|n| { x.record(*n); both.record(*n) });
            b.iter().for_each(|n| { y.record(*n); both.record(*n) });
            x.merge(&y);
            prop_assert_eq!(x, both);
        }
    }

    #[test]
    fn merging_wider_bounds_saturates() {
        let mut wide = Histogram::<u64>::new_with_bounds(1, u64::MAX / 4, 2).unwrap();
        wide.record_n(5000, 3).unwrap();
        wide.record(u64::MAX / 8).unwrap();
        let mut l = Latency::new();
        l.merge_histogram(&wide);
        assert_eq!(l.count(), 4);
        assert!(close(l.summary().max, MAX_NS));
    }
}
