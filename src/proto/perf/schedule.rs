//! The schedule of requests, and which of them are measured.

use crate::base::time::{Duration, Instant};
use crate::proto::perf::plan::PerfPlan;

/// The timing of a load, and its progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    /// The end of the warm-up: requests due from here on are measured.
    measure_from: Instant,
    /// No requests are due from here on.
    deadline: Instant,
    /// Nanoseconds between requests; `None` if they are due as soon as a connection has room.
    interval: Option<f64>,
    limit: u64,
    issued: u64,
    measured: u64,
}

impl Schedule {
    /// Creates the schedule of `plan`, starting at `now`.
    pub(super) fn new(plan: &PerfPlan, now: Instant) -> Self {
        let measure_from = now + plan.warmup;
        Self {
            start: now,
            measure_from,
            deadline: plan.duration.map_or(Instant::MAX, |duration| measure_from + duration),
            interval: plan.rate.map(|rate| 1e9 / rate),
            limit: plan.requests.unwrap_or(u64::MAX),
            issued: 0,
            measured: 0,
        }
    }

    /// The due time of request `index`, in an open loop.
    fn due(&self, index: u64, interval: f64) -> Instant {
        self.start + Duration::from_nanos((index as f64 * interval) as u64)
    }

    /// The due time of the next request, if not after `now`.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        if self.is_exhausted() {
            return None;
        }
        let at = self.interval.map_or(now, |interval| self.due(self.issued, interval));
        (at <= now && at < self.deadline).then_some(at)
    }

    /// The due time of the next request in an open loop, or the end of the load.
    pub(super) fn next_due(&self) -> Instant {
        match self.interval.filter(|_| !self.is_exhausted()) {
            Some(interval) => self.due(self.issued, interval).min(self.deadline),
            None => self.deadline,
        }
    }

    /// The end of the load.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Notes that the request due at `at` has been started.
    pub(super) fn issue(&mut self, at: Instant) {
        self.issued += 1;
        self.measured += u64::from(self.counts(at));
    }

    /// Returns whether a request due at `at` is measured.
    pub(super) fn counts(&self, at: Instant) -> bool {
        at >= self.measure_from
    }

    /// Returns whether events at `now` are measured: after the warm-up and before the end.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.measure_from <= now && now <= self.deadline
    }

    /// Returns whether the requested number of requests has been started.
    pub(super) fn is_exhausted(&self) -> bool {
        self.measured >= self.limit
    }

    /// Returns whether no request starts from `now` on.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// The number of requests due but not started; 0 in a closed loop.
    pub(super) fn backlog(&self, now: Instant) -> u64 {
        let Some(interval) = self.interval.filter(|_| !self.is_exhausted()) else { return 0 };
        // The last time at which a request can be due.
        let until = now.min(self.deadline - Duration::from_nanos(1));
        let elapsed = until.saturating_since(self.start).as_nanos() as f64;
        // Rounded like `due`: exact to one request.
        let due = ((elapsed / interval) as u64).saturating_add(1);
        due.saturating_sub(self.issued).min(self.limit - self.measured)
    }

    /// The measured time if it ended at `end`.
    pub(super) fn measured_for(&self, end: Instant) -> Duration {
        end.min(self.deadline).saturating_since(self.measure_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::tls::{TlsOptions, insecure_client_config};
    use crate::quic::{ClientConfig, TransportConfig};
    use std::net::SocketAddr;

    const T0: Instant = Instant::from_nanos(1_000_000_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn schedule(change: impl Fn(&mut PerfPlan)) -> Schedule {
        let tls = insecure_client_config(&TlsOptions { alpn: vec![b"x".to_vec()], ..TlsOptions::default() }).unwrap();
        let config = ClientConfig::new(tls, TransportConfig::default()).unwrap();
        let mut plan = PerfPlan::new(SocketAddr::from(([10, 0, 0, 1], 443)), "x", config);
        plan.requests = None;
        change(&mut plan);
        Schedule::new(&plan, T0)
    }

    fn issue_all(s: &mut Schedule, now: Instant) -> Vec<Instant> {
        std::iter::from_fn(|| s.next(now).inspect(|at| s.issue(*at))).collect()
    }

    #[test]
    fn an_open_loop_keeps_its_times_however_late_it_is() {
        let mut s = schedule(|p| (p.rate, p.duration) = (Some(1000.0), Some(ms(10))));
        assert_eq!(issue_all(&mut s, T0), [T0], "the first is due at once");
        assert_eq!(s.next(T0 + ms(1) - Duration::from_nanos(1)), None);
        assert_eq!(s.next_due(), T0 + ms(1));
        assert_eq!(s.backlog(T0 + ms(4)), 4);
        // Far behind: each request keeps its due time, and none is due after the end.
        let late: Vec<_> = (1..10).map(|n| T0 + ms(n)).collect();
        assert_eq!(s.backlog(T0 + ms(500)), 9);
        assert_eq!(issue_all(&mut s, T0 + ms(500)), late);
        assert_eq!(s.backlog(T0 + ms(500)), 0);
        assert_eq!((s.next_due(), s.deadline()), (T0 + ms(10), T0 + ms(10)));
        assert_eq!(s.measured_for(T0 + ms(500)), ms(10));
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let mut s = schedule(|p| (p.rate, p.duration) = (Some(7.0), Some(Duration::from_secs(3600))));
        let hour = T0 + Duration::from_secs(3600);
        assert_eq!(issue_all(&mut s, hour).len(), 7 * 3600);
    }

    #[test]
    fn the_limit_counts_what_is_measured() {
        let mut s = schedule(|p| (p.rate, p.requests, p.warmup) = (Some(1000.0), Some(5), ms(3)));
        let all = issue_all(&mut s, T0 + ms(100));
        assert_eq!(all.len(), 3 + 5);
        assert_eq!(all.iter().filter(|at| s.counts(**at)).count(), 5);
        assert!(s.is_exhausted() && s.backlog(T0 + ms(200)) == 0);
    }

    #[test]
    fn a_closed_loop_is_always_due_until_it_ends() {
        let mut s = schedule(|p| (p.duration, p.warmup) = (Some(ms(10)), ms(2)));
        for n in [0, 5, 11] {
            assert_eq!(s.next(T0 + ms(n)), Some(T0 + ms(n)));
            s.issue(T0 + ms(n));
        }
        assert_eq!(s.next(T0 + ms(12)), None);
        assert_eq!(s.measured, 2);
        assert!(s.is_over(T0 + ms(12)) && !s.is_open(T0 + ms(1)) && s.is_open(T0 + ms(12)));
    }
}
