//! Which wheel entries of one connection are still to fire.
//!
//! The wheel neither moves nor removes entries. Without a note of what is in it, an entry that fires
//! late for nothing would be armed anew each time, beside the ones that already wait: their number would
//! only ever grow.

use arrayvec::ArrayVec;

use crate::base::time::Instant;

/// Entries that are kept track of. Deadlines come in a few scales: acknowledgement, loss, idle.
const MAX: usize = 4;

/// Times at which entries of one connection will fire, the earliest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Armed(ArrayVec<Instant, MAX>);

impl Armed {
    /// Whether an entry for `at` has to be put into the wheel: none fires before it.
    #[must_use]
    pub(crate) fn needs(&mut self, at: Instant) -> bool {
        if at == Instant::MAX || self.0.last().is_some_and(|earliest| *earliest <= at) {
            return false;
        }
        if self.0.is_full() {
            // Its entry becomes one that nobody knows; an earlier one arms anew in time.
            self.0.remove(0);
        }
        self.0.push(at);
        true
    }

    /// An entry for `at` fires. False: it is none that counts.
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
        /// Against a wheel that is a list: every deadline is met, and entries do not pile up.
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
            // Each of the times is in the wheel at most once.
            wheel.sort();
            prop_assert!(wheel.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
