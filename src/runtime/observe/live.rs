//! Counters that another thread may read while a core runs.

use std::sync::{Mutex, PoisonError};

/// A consistent snapshot of one core's counters, at most some 20 ms old.
#[derive(Debug, Default)]
pub struct CoreLive(Mutex<Vec<(&'static str, u64)>>);

impl CoreLive {
    /// Every counter with its name; empty before the core has started to run.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes counters and returns whether it did: it never waits for a reader, and the core tries again in its next
    /// turn.
    pub(in crate::runtime) fn publish(&self, counters: impl Iterator<Item = (&'static str, u64)>) -> bool {
        let Ok(mut latest) = self.0.try_lock() else { return false };
        latest.clear();
        latest.extend(counters);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_is_seen_and_nobody_waits() {
        let live = CoreLive::default();
        assert_eq!(live.snapshot(), []);
        assert!(live.publish([("a", 1), ("b", 2)].into_iter()));
        assert!(live.publish([("a", 3)].into_iter()));
        assert_eq!(live.snapshot(), [("a", 3)]);
        let looking = live.0.lock().unwrap();
        assert!(!live.publish([("a", 4)].into_iter()));
        drop(looking);
        assert_eq!(live.snapshot(), [("a", 3)]);
    }
}
