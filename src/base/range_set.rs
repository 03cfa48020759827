//! Sets of integers that come in runs: received packet numbers, received and lost stream bytes.

use core::ops::Range;

use smallvec::SmallVec;

/// Disjoint, non-adjacent, ascending ranges. Up to two need no heap memory: more is for paths that lose much, and every
/// idle connection has several of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: SmallVec<[Range<u64>; 2]>,
}

impl RangeSet {
    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.first().cloned()
    }

    /// The highest range.
    pub fn last(&self) -> Option<Range<u64>> {
        self.ranges.last().cloned()
    }

    /// Removes and returns the lowest range.
    pub fn pop_first(&mut self) -> Option<Range<u64>> {
        (!self.is_empty()).then(|| self.ranges.remove(0))
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + Clone + '_ {
        self.ranges.iter().cloned()
    }

    /// Index of the first range that ends at or behind `n`.
    fn at(&self, n: u64) -> usize {
        self.ranges.partition_point(|r| r.end < n)
    }

    /// Whether `n` is in the set.
    pub fn contains(&self, n: u64) -> bool {
        self.ranges.get(self.at(n + 1)).is_some_and(|r| r.contains(&n))
    }

    /// Adds `range`; returns how many numbers were not in the set before.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        // Growing the last range is what data in order does.
        if let Some(last) = self.ranges.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return range.end - range.start;
        }
        let from = self.at(range.start);
        let mut to = from;
        let mut merged = range.clone();
        let mut known = 0;
        while let Some(r) = self.ranges.get(to).filter(|r| r.start <= range.end) {
            known += r.end.min(range.end).saturating_sub(r.start.max(range.start));
            merged = merged.start.min(r.start)..merged.end.max(r.end);
            to += 1;
        }
        if from == to {
            self.ranges.insert(from, merged);
        } else {
            self.ranges[from] = merged;
            self.ranges.drain(from + 1..to);
        }
        range.end - range.start - known
    }

    /// Takes `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut i = self.ranges.partition_point(|r| r.end <= range.start);
        while let Some(r) = self.ranges.get_mut(i).filter(|r| r.start < range.end) {
            match (r.start < range.start, r.end > range.end) {
                (false, false) => {
                    self.ranges.remove(i);
                }
                (false, true) => {
                    r.start = range.end;
                    return;
                }
                (true, false) => {
                    r.end = range.start;
                    i += 1;
                }
                (true, true) => {
                    let tail = range.end..r.end;
                    r.end = range.start;
                    self.ranges.insert(i + 1, tail);
                    return;
                }
            }
        }
    }

    /// The parts of `range` that are not in the set, ascending.
    pub fn missing_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        let mut rest = self.ranges[first..].iter();
        let mut at = range.start;
        core::iter::from_fn(move || {
            while at < range.end {
                let start = at;
                match rest.next().filter(|r| r.start < range.end) {
                    None => {
                        at = range.end;
                        return Some(start..range.end);
                    }
                    Some(r) => {
                        at = r.end;
                        if start < r.start {
                            return Some(start..r.start);
                        }
                    }
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn model(set: &RangeSet) -> BTreeSet<u64> {
        set.iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..80)) {
            let mut set = RangeSet::default();
            let mut want = BTreeSet::new();
            for (add, start, len) in ops {
                let range = start..start + len;
                let missing: Vec<u64> = set.missing_in(range.clone()).flatten().collect();
                let absent: Vec<u64> = range.clone().filter(|n| !want.contains(n)).collect();
                prop_assert_eq!(&missing, &absent);
                if add {
                    prop_assert_eq!(set.insert(range.clone()), absent.len() as u64);
                    want.extend(range);
                } else {
                    set.remove(range.clone());
                    want.retain(|n| !range.contains(n));
                }
                prop_assert_eq!(model(&set), want.clone());
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "disjoint, not adjacent");
                for n in 0..75 {
                    prop_assert_eq!(set.contains(n), want.contains(&n));
                }
            }
        }
    }
}
