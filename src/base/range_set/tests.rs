use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Keys that count their comparisons, and moves of list entries.
pub(super) mod counted {
    use std::cell::Cell;
    use std::cmp::Ordering;

    thread_local!(static COST: Cell<usize> = const { Cell::new(0) });

    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(in super::super) struct Key(u64);

    impl Ord for Key {
        fn cmp(&self, other: &Self) -> Ordering {
            cost::moved(1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Key {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    pub(in super::super) fn key(n: u64) -> Key {
        Key(n)
    }

    pub(in super::super) fn from_key(key: Key) -> u64 {
        key.0
    }

    pub(in super::super) mod cost {
        use super::COST;

        pub(in super::super::super) fn moved(n: usize) {
            COST.set(COST.get() + n);
        }
    }

    /// Number of steps since the last call.
    pub(super) fn take_cost() -> usize {
        COST.take()
    }
}

fn check(set: &RangeSet, want: &BTreeSet<u64>) -> Result<(), TestCaseError> {
    let all: BTreeSet<u64> = set.iter().flatten().collect();
    prop_assert_eq!(&all, want);
    let ranges: Vec<_> = set.iter().collect();
    prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "disjoint, not adjacent");
    prop_assert!(ranges.iter().all(|r| !r.is_empty()));
    prop_assert!(set.iter().rev().eq(ranges.iter().rev().cloned()));
    prop_assert_eq!((set.len(), set.is_empty()), (ranges.len(), ranges.is_empty()));
    prop_assert_eq!((set.first(), set.last()), (ranges.first().cloned(), ranges.last().cloned()));
    let form = match &set.0 {
        Ranges::Inline(..) => 0..=2,
        Ranges::Listed(list) => 0..=LISTED.min(list.capacity()),
        Ranges::Tree(_) => RELISTED + 1..=usize::MAX,
    };
    prop_assert!(form.contains(&set.len()), "{} ranges", set.len());
    Ok(())
}

/// Random operations compared with a plain set, on numbers below `space`.
fn plays(ops: Vec<(u8, u64, u64)>, space: u64) -> Result<(), TestCaseError> {
    let mut set = RangeSet::default();
    let mut want = BTreeSet::new();
    for (what, start, len) in ops {
        let range = start % space..start % space + len;
        let absent: Vec<u64> = range.clone().filter(|n| !want.contains(n)).collect();
        let missing: Vec<u64> = set.missing_in(range.clone()).flatten().collect();
        prop_assert_eq!(&missing, &absent);
        match what {
            0 => {
                set.remove(range.clone());
                want.retain(|n| !range.contains(n));
            }
            1 => {
                let first = set.pop_first();
                prop_assert_eq!(first.as_ref().map(|r| r.start), want.first().copied());
                want.retain(|n| !first.as_ref().is_some_and(|r| r.contains(n)));
            }
            _ => {
                let (apart, before) = (!range.is_empty() && set.is_apart(&range), set.len());
                prop_assert_eq!(set.insert(range.clone()), absent.len() as u64);
                prop_assert_eq!(apart, set.len() > before);
                want.extend(range);
            }
        }
        check(&set, &want)?;
        for n in start % space..start % space + 20 {
            prop_assert_eq!(set.contains(n), want.contains(&n));
        }
    }
    set.clear();
    check(&set, &BTreeSet::new())
}

proptest! {
    #[test]
    fn behaves_like_a_set(ops in proptest::collection::vec((0..5u8, any::<u64>(), 0u64..12), 0..80)) {
        plays(ops, 60)?;
    }

    /// Many ranges, so that lists become trees and trees lists. Removals are long, so that sets shrink as well.
    #[test]
    fn behaves_like_a_set_when_scattered(
        mut ops in proptest::collection::vec((0..60u8, any::<u64>(), 0u64..4), 0..600),
        more in proptest::collection::vec((0..8u8, any::<u64>(), 0u64..60), 0..100),
    ) {
        ops.extend(more);
        plays(ops, 1500)?;
    }
}

#[test]
fn works_at_the_ends_of_the_numbers() {
    let mut set = RangeSet::default();
    for shift in 0..200 {
        set.insert(u64::MAX - 2 * shift - 1..u64::MAX - 2 * shift);
    }
    assert_eq!((set.len(), set.contains(u64::MAX - 1), set.contains(u64::MAX)), (200, true, false));
    assert_eq!(set.insert(0..u64::MAX), u64::MAX - 200);
    assert_eq!((set.len(), set.missing_in(0..u64::MAX).next()), (1, None));
    set.remove(1..u64::MAX - 1);
    assert_eq!(set.iter().collect::<Vec<_>>(), [0..1, u64::MAX - 1..u64::MAX]);
    #[expect(clippy::reversed_empty_ranges, reason = "an empty range is empty wherever it ends")]
    let backwards = 9..3;
    assert_eq!((set.insert(backwards.clone()), set.missing_in(backwards).next()), (0, None));
}

/// A sorted list would move half of its entries for an insertion in the middle: 800 kB for 50,000 entries.
#[test]
fn no_operation_costs_more_than_some_steps_however_many_ranges_there_are() {
    const RANGES: u64 = 100_000;
    let mut set = RangeSet::default();
    let mut worst = 0;
    let mut total = 0;
    // In an order that is neither ascending nor descending: odd steps modulo a power of two.
    let mut count = |set: &mut RangeSet, work: &mut dyn FnMut(&mut RangeSet)| {
        counted::take_cost();
        work(set);
        let cost = counted::take_cost();
        worst = worst.max(cost);
        total += cost;
    };
    let scatter = |i: u64| (i * 77_777) % (1 << 17);
    for i in 0..RANGES {
        let at = 10 * scatter(i);
        count(&mut set, &mut |set| assert_eq!(set.insert(at..at + 3), 3));
    }
    assert_eq!(set.len() as u64, RANGES);
    assert!(set.heap_bytes() <= 48 * RANGES as usize);
    for i in 0..RANGES {
        let at = 10 * scatter(i);
        count(&mut set, &mut |set| assert!(set.contains(at + 2) && !set.contains(at + 3)));
        count(&mut set, &mut |set| assert_eq!(set.missing_in(at..at + 4).next(), Some(at + 3..at + 4)));
        count(&mut set, &mut |set| set.remove(at + 1..at + 2));
        count(&mut set, &mut |set| set.remove(at + 2..at + 3));
        count(&mut set, &mut |set| set.remove(at..at + 1));
    }
    assert!(set.is_empty());
    // Five levels of up to eleven entries, searched a few times.
    assert!(worst <= 400, "{worst} steps for one operation");
    assert!(total / (6 * RANGES as usize) <= 120, "{total} steps in all");
}

#[test]
fn a_set_that_keeps_its_size_keeps_its_memory() {
    let mut set = RangeSet::default();
    let fill = |set: &mut RangeSet, n: u64| (0..n).for_each(|i| assert_eq!(set.insert(2 * i..2 * i + 1), 1));
    fill(&mut set, 2);
    assert_eq!(set.heap_bytes(), 0, "two ranges need no memory");
    set.clear();
    fill(&mut set, LISTED as u64);
    let list = set.heap_bytes();
    assert!(matches!(set.0, Ranges::Listed(_)));
    set.clear();
    assert_eq!(set.heap_bytes(), list, "lists are kept");
    fill(&mut set, LISTED as u64 + 1);
    assert!(matches!(set.0, Ranges::Tree(_)));
    set.insert(0..2 * (LISTED - RELISTED + 1) as u64 + 1);
    assert!(matches!(set.0, Ranges::Listed(_)));
    set.insert(0..1000);
    assert_eq!(set.len(), 1);
}
