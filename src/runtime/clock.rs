//! The source of the engine's time.

use std::time::SystemTime;

use crate::base::time::{Duration, Instant};

/// The system's monotonic clock, in nanoseconds since the value was created.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
    /// Where it has been stopped, so that tests do not depend on how long something takes.
    #[cfg(test)]
    stopped: Option<Instant>,
}

impl Clock {
    /// Creates a clock that starts at 1 s rather than 0, which leaves room for times before its start.
    pub fn new() -> Self {
        Self {
            origin: std::time::Instant::now(),
            #[cfg(test)]
            stopped: None,
        }
    }

    /// Stops the clock: it shows the same time from now on.
    #[cfg(test)]
    pub(super) fn stop(&mut self) {
        self.stopped = Some(self.now());
    }

    /// The current time.
    #[inline]
    pub fn now(&self) -> Instant {
        #[cfg(test)]
        if let Some(at) = self.stopped {
            return at;
        }
        Instant::from_nanos(1_000_000_000 + self.origin.elapsed().as_nanos() as u64)
    }

    /// The wall-clock time that corresponds to [`Instant::ZERO`], as time since 1970: the value for
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
        // After 2020, and within a day of each other even if somebody sets the clock in between.
        assert!(wall(&one) > Duration::from_secs(50 * 365 * 86_400));
        assert!(wall(&one).abs_diff(wall(&two)) < Duration::from_secs(86_400));
    }
}
