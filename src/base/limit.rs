//! A token bucket, for work that anyone can cause.

use crate::base::time::Instant;

const NANOS: u64 = 1_000_000_000;

/// Limits a number of events per second, which is also the maximum burst.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    per_second: u64,
    /// Tokens in units of 1/10^9.
    level: u64,
    at: Instant,
}

impl Limit {
    /// A limit of `per_second` events. All of them may come at once at `now`.
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, level: per_second * NANOS, at: now }
    }

    /// Takes one token. False if there is none.
    #[must_use = "false means that the limit is reached"]
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.as_nanos().saturating_sub(self.at.as_nanos());
        self.at = self.at.max(now);
        self.level = passed.saturating_mul(self.per_second).saturating_add(self.level).min(self.per_second * NANOS);
        let ok = self.level >= NANOS;
        if ok {
            self.level -= NANOS;
        }
        ok
    }
}

/// A limit for log lines that anyone can cause. It counts the lines that were suppressed.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    per_second: u32,
    limit: Option<Limit>,
    left_out: u64,
}

impl Lines {
    /// Allows `per_second` lines per second, all of which may come at once.
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, limit: None, left_out: 0 }
    }

    /// Whether another line may be written. If so, returns how many were suppressed since the last one.
    #[must_use = "`None` means that the limit is reached"]
    pub fn take(&mut self, now: Instant) -> Option<LeftOut> {
        if self.limit.get_or_insert_with(|| Limit::new(self.per_second, now)).take(now) {
            Some(LeftOut(std::mem::take(&mut self.left_out)))
        } else {
            self.left_out += 1;
            None
        }
    }
}

/// Number of lines suppressed before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u64);

impl LeftOut {
    /// The number for a field of the line; `None` if it is 0.
    pub fn count(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Duration;

    #[test]
    fn lines_are_limited_and_the_rest_is_counted() {
        let mut lines = Lines::new(3);
        let mut now = Instant::ZERO + Duration::from_secs(9);
        let written: Vec<_> = (0..10).filter_map(|_| lines.take(now)).map(LeftOut::count).collect();
        assert_eq!(written, [None; 3]);
        now += Duration::from_secs(1);
        assert_eq!(lines.take(now).map(LeftOut::count), Some(Some(7)));
        assert_eq!(lines.take(now).map(LeftOut::count), Some(None), "told once");
    }

    #[test]
    fn refills_at_its_rate_and_no_higher_than_a_second() {
        let mut now = Instant::ZERO;
        let mut limit = Limit::new(10, now);
        let burst = |limit: &mut Limit, now| (0..100).filter(|_| limit.take(now)).count();
        assert_eq!(burst(&mut limit, now), 10);
        now += Duration::from_millis(250);
        assert_eq!(burst(&mut limit, now), 2);
        now += Duration::from_millis(50);
        assert_eq!(burst(&mut limit, now), 1, "fractions are kept");
        now += Duration::from_secs(1000);
        assert_eq!(burst(&mut limit, now), 10);
        assert_eq!(burst(&mut limit, Instant::ZERO), 0, "time going back gives nothing");
        assert_eq!(burst(&mut Limit::new(0, now), now), 0);
    }
}
