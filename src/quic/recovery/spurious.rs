//! Detects losses that were only reordering (rfc8312bis §4.9).
//!
//! The numbers lost since the last reduction of the window are recorded. Once all of them are acknowledged, there was
//! no congestion.

use core::ops::RangeInclusive;

use crate::base::range_set::RangeSet;
use crate::base::time::Instant;

/// Maximum number of ranges; losses more scattered are not reordering.
const MAX_RANGES: usize = 4;

#[derive(Clone, Debug, Default)]
pub(super) struct LostNumbers {
    numbers: RangeSet,
    /// Proof that comes later does not count.
    deadline: Instant,
    /// Whether there is a number in the set, or was one that was acknowledged late.
    armed: bool,
}

impl LostNumbers {
    /// Starts a new record, before the window is reduced.
    pub(super) fn restart(&mut self, deadline: Instant) {
        self.numbers.clear();
        self.deadline = deadline;
        self.armed = true;
    }

    /// Records the loss of packet `pn`.
    pub(super) fn insert(&mut self, pn: u64) {
        if self.armed {
            self.numbers.insert(pn..pn + 1);
            self.limit();
        }
    }

    /// The lowest recorded number.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.numbers.first().map(|range| range.start)
    }

    /// Removes `range`, which is acknowledged.
    pub(super) fn on_acked(&mut self, range: RangeInclusive<u64>) {
        self.numbers.remove(*range.start()..range.end().saturating_add(1));
        self.limit();
    }

    /// Gives up: nothing can be proved any more.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
        self.numbers.clear();
    }

    /// Whether every loss turned out to be spurious. True once.
    pub(super) fn take_proof(&mut self, now: Instant) -> bool {
        if self.armed && now > self.deadline {
            self.disarm();
        }
        let proven = self.armed && self.numbers.is_empty();
        if proven {
            self.armed = false;
        }
        proven
    }

    fn limit(&mut self) {
        if self.numbers.len() > MAX_RANGES {
            self.disarm();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(numbers: &[u64]) -> LostNumbers {
        let mut l = LostNumbers::default();
        l.restart(Instant::from_nanos(100));
        numbers.iter().for_each(|pn| l.insert(*pn));
        l
    }

    #[test]
    fn proven_once_all_are_back() {
        let now = Instant::from_nanos(100);
        let mut l = lost(&[3, 4, 8]);
        assert_eq!(l.lowest(), Some(3));
        l.on_acked(4..=9);
        assert!(!l.take_proof(now));
        l.on_acked(0..=3);
        assert!(l.take_proof(now));
        assert!(!l.take_proof(now), "once");
        l.insert(20);
        assert_eq!(l.lowest(), None, "not before the next reduction");
    }

    #[test]
    fn too_late_or_too_scattered_proves_nothing() {
        let mut l = lost(&[3]);
        l.on_acked(3..=3);
        assert!(!l.take_proof(Instant::from_nanos(101)));
        let mut l = lost(&[1, 3, 5, 7, 9]);
        l.on_acked(0..=u64::MAX);
        assert!(!l.take_proof(Instant::ZERO));
        assert!(!LostNumbers::default().take_proof(Instant::ZERO));
    }
}
