//! The results of a load.

use crate::base::time::Duration;
use crate::proto::perf::failure::PerfFailure;
use crate::report::Latency;

/// The maximum number of different failures kept; others are only counted.
const MAX_FAILURES: usize = 32;

/// The results of a client. Only requests due after the warm-up are included.
#[derive(Clone, Debug, Default)]
pub struct PerfResults {
    /// Requests completed within the measured time.
    pub requests: u64,
    /// Requests that failed, including those of lost connections.
    pub errors: u64,
    /// Requests that were due in time but unanswered at the end of the run.
    pub unfinished: u64,
    /// Stream bytes of requests acknowledged within the measured time, including the 8 of each size field.
    pub bytes_up: u64,
    /// Stream bytes of answers received within the measured time.
    pub bytes_down: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// The time from each request's due time to the end of its answer, in nanoseconds. Includes requests that were due
    /// in time and completed during the grace period, so that slow ones are not omitted.
    pub latency: Latency,
    /// The time from the first packet to the completed handshake, in nanoseconds.
    pub handshake: Latency,
    /// Connections that completed their handshake or failed.
    pub connections: u64,
    /// Handshakes completed; in `handshakes` mode within the measured time.
    pub handshakes: u64,
    /// Connections that ended before we closed them, or were never established.
    pub connections_lost: u64,
    /// The maximum number of requests that were due but could not start.
    pub max_waiting: u64,
    /// Each different failure and its count, in order of first occurrence.
    pub failures: Vec<(PerfFailure, u64)>,
    /// Failures beyond those kept in `failures`.
    pub other_failures: u64,
}

impl PerfResults {
    /// Counts a failure.
    pub(super) fn fail(&mut self, failure: PerfFailure) {
        self.fail_times(failure, 1);
    }

    fn fail_times(&mut self, failure: PerfFailure, times: u64) {
        if let Some((_, n)) = self.failures.iter_mut().find(|(known, _)| *known == failure) {
            *n += times;
        } else if self.failures.len() < MAX_FAILURES {
            self.failures.push((failure, times));
        } else {
            self.other_failures += times;
        }
    }

    /// Adds the results of another core for the same time.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.unfinished += other.unfinished;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency.merge(&other.latency);
        self.handshake.merge(&other.handshake);
        self.connections += other.connections;
        self.handshakes += other.handshakes;
        self.connections_lost += other.connections_lost;
        self.max_waiting += other.max_waiting;
        self.other_failures += other.other_failures;
        for (failure, n) in &other.failures {
            self.fail_times(failure.clone(), *n);
        }
    }

    /// Returns whether everything succeeded.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.other_failures == 0 && self.errors == 0
    }

    fn per_second(&self, n: f64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { n / seconds } else { 0.0 }
    }

    /// Requests per second; 0 if no time was measured.
    pub fn request_rate(&self) -> f64 {
        self.per_second(self.requests as f64)
    }

    /// Handshakes per second; 0 if no time was measured. Meaningful only in `handshakes` mode.
    pub fn handshake_rate(&self) -> f64 {
        self.per_second(self.handshakes as f64)
    }

    /// Bits of stream data per second (up, down); 0 if no time was measured.
    pub fn bit_rates(&self) -> (f64, f64) {
        (self.per_second(self.bytes_up as f64 * 8.0), self.per_second(self.bytes_down as f64 * 8.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_and_keeps_kinds_apart() {
        let mut a = PerfResults { requests: 3, elapsed: Duration::from_secs(2), ..PerfResults::default() };
        a.fail(PerfFailure::IdleTimeout);
        a.fail(PerfFailure::IdleTimeout);
        let mut b = PerfResults { requests: 5, elapsed: Duration::from_secs(1), ..PerfResults::default() };
        b.fail(PerfFailure::Version);
        b.fail(PerfFailure::IdleTimeout);
        b.latency.record(1000);
        a.merge(&b);
        assert_eq!(a.failures, [(PerfFailure::IdleTimeout, 3), (PerfFailure::Version, 1)]);
        assert_eq!((a.requests, a.latency.count()), (8, 1));
        assert_eq!(a.request_rate(), 4.0);
        assert!(!a.is_clean() && PerfResults::default().is_clean());
    }

    #[test]
    fn kinds_of_failures_are_bounded() {
        let mut r = PerfResults::default();
        for code in 0..100 {
            r.fail(PerfFailure::Reset { code });
        }
        assert_eq!((r.failures.len(), r.other_failures), (MAX_FAILURES, 100 - MAX_FAILURES as u64));
    }
}
