//! Tracks which entries of one connection are in the timer wheel.
//!
//! The wheel neither moves nor removes entries. Without this record, an entry that fires although nothing is due would
//! be armed again beside the entries that are still in the wheel, and their number would grow without limit.

use arrayvec::ArrayVec;

use crate::base::time::Instant;

/// Maximum number of entries tracked. Deadlines are of few scales: acknowledgement, loss, idle.
const MAX: usize = 4;

/// Times at which the connection's entries fire, the earliest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Armed(ArrayVec<Instant, MAX>);

impl Armed {
    /// Whether an entry for `at` has to be added to the wheel because none fires before it.
    #[must_use]
    pub(crate) fn needs(&mut self, at: Instant) -> bool {
        if at == Instant::MAX || self.0.last().is_some_and(|earliest| *earliest <= at) {
            return false;
        }
        if self.0.is_full() {
            // This entry is no longer tracked; an earlier one arms it again in time.
            self.0.remove(0);
        }
        self.0.push(at);
        true
    }

    /// Handles an entry for `at` that fires. False if it is not tracked.
    #[must_use]
    pub(crate) fn fired(&mut self, at: Instant) -> bool {
        let index = self.0.iter().rposition(|armed| *armed == at);
        index.map(|index| self.0.remove(index)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_later_deadline_waits_for_the_entry_that_is_there() {
        let [a, b, c] = [10, 20, 30].map(Instant::from_nanos);
        let mut armed = Armed::default();
        assert!(armed.needs(b));
        assert!(!armed.needs(c) && !armed.needs(b));
        assert!(armed.needs(a));
        assert!(armed.fired(a) && !armed.fired(a));
        assert!(!armed.needs(b), "still in the wheel");
        assert!(armed.fired(b));
        assert!(armed.needs(c) && !armed.needs(Instant::MAX));
    }

    proptest! {
        /// Compares with a wheel that is a list: every deadline is met, and entries do not accumulate.
        #[test]
        fn deadlines_are_met_and_entries_do_not_pile_up(delays in proptest::collection::vec(1u64..1000, 1..500)) {
            let mut armed = Armed::default();
            let mut wheel: Vec<Instant> = Vec::new();
            let mut now = Instant::ZERO;
            for (i, delay) in delays.iter().enumerate() {
                let deadline = now + core::time::Duration::from_nanos(*delay);
                if armed.needs(deadline) {
                    wheel.push(deadline);
                }
                prop_assert!(wheel.iter().any(|at| *at <= deadline));
                // Some deadlines move before they are reached.
                if i % 3 == 0 {
                    now += core::time::Duration::from_nanos(delay / 2);
                } else {
                    now = deadline;
                }
                wheel.retain(|at| *at > now || { let _ = armed.fired(*at); false });
                prop_assert!(armed.0.is_sorted_by(|a, b| a > b));
            }
            // Each time is in the wheel at most once.
            wheel.sort();
            prop_assert!(wheel.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
