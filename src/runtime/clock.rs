//! Where the engine's time comes from.

use crate::base::time::Instant;

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
}
