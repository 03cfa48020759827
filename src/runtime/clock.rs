//! Where the engine's time comes from.

use std::time::SystemTime;

use crate::base::time::{Duration, Instant};

/// The system's monotonic clock, as nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts at one second, so that "a while ago" can be told from "never".
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// The time now.
    #[inline]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(1_000_000_000 + self.origin.elapsed().as_nanos() as u64)
    }

    /// Wall-clock time since 1970 at [`Instant::ZERO`], as the system sees it now: what is told to
    /// [`EndpointConfig::time_base`](crate::quic::EndpointConfig::time_base).
    pub fn wall_base(&self) -> Duration {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        wall.saturating_sub(Duration::from_nanos(self.now().as_nanos()))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back() {
        let clock = Clock::new();
        let times: Vec<_> = (0..1000).map(|_| clock.now()).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn clocks_made_at_different_times_agree_on_the_wall() {
        let (one, two) = (Clock::new(), Clock::new());
        let wall = |clock: &Clock| clock.wall_base() + Duration::from_nanos(clock.now().as_nanos());
        // Since 2020, and within a day of each other, whoever sets the clock meanwhile.
        assert!(wall(&one) > Duration::from_secs(50 * 365 * 86_400));
        assert!(wall(&one).abs_diff(wall(&two)) < Duration::from_secs(86_400));
    }
}
