//! Sets of integers that form few runs: received packet numbers, received and lost stream bytes.
//!
//! Peers determine how scattered these sets are, so each operation costs O(log n) for n ranges, plus O(log n) for each
//! range that it merges or returns, which was paid for when it was added. Up to 72 ranges, which is nearly always the
//! case, are kept in a short sorted list; more in a B-tree.

use core::ops::Range;
use std::collections::{BTreeMap, btree_map};

/// Maximum number of ranges in the sorted list. All ranges that a packet number space remembers fit, so its set
/// allocates once.
const LISTED: usize = 72;

/// Number of ranges at which a shrinking B-tree becomes a list again. It is far below [`LISTED`], so that a set of
/// constant size does not alternate.
const RELISTED: usize = 16;

/// Maximum size of a range in the B-tree, in bytes. `std`'s nodes have room for 11 entries and are at least 5/11 full:
/// 35 ranges lie in at most six leaves of 192 bytes and an inner node of 288, and the nodes above add a sixth of the
/// latter.
const TREE_BYTES: usize = 48;

/// Disjoint, non-adjacent, ascending ranges. Up to two need no heap memory, as every idle connection has several of
/// these sets, and only paths with loss need more.
#[derive(Clone)]
pub struct RangeSet(Ranges);

#[derive(Clone)]
enum Ranges {
    /// The number of ranges in use, and the ranges.
    Inline(u8, [Range<u64>; 2]),
    Listed(Vec<Range<u64>>),
    /// Ends by start.
    Tree(BTreeMap<Key, u64>),
}

// Streams have three of these, packet number spaces another one.
const _: () = assert!(size_of::<RangeSet>() <= 40);

impl Default for RangeSet {
    fn default() -> Self {
        Self(Ranges::Inline(0, [0..0, 0..0]))
    }
}

impl RangeSet {
    /// An empty set with a list for `ranges` ranges.
    pub fn with_capacity(ranges: usize) -> Self {
        Self(Ranges::Listed(Vec::with_capacity(ranges)))
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        match &self.0 {
            Ranges::Inline(len, _) => usize::from(*len),
            Ranges::Listed(list) => list.len(),
            Ranges::Tree(tree) => tree.len(),
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the set's heap memory in bytes; an upper bound for a tree.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Ranges::Inline(..) => 0,
            Ranges::Listed(list) => list.capacity() * size_of::<Range<u64>>(),
            Ranges::Tree(tree) => tree.len() * TREE_BYTES,
        }
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u64>> {
        match self.parts() {
            Parts::List(list) => list.first().cloned(),
            Parts::Tree(tree) => tree.first_key_value().map(from_entry),
        }
    }

    /// The highest range.
    pub fn last(&self) -> Option<Range<u64>> {
        match self.parts() {
            Parts::List(list) => list.last().cloned(),
            Parts::Tree(tree) => tree.last_key_value().map(from_entry),
        }
    }

    /// Removes and returns the lowest range.
    pub fn pop_first(&mut self) -> Option<Range<u64>> {
        let first = self.first()?;
        self.remove(first.clone());
        Some(first)
    }

    /// Empties the set. A list keeps its memory.
    pub fn clear(&mut self) {
        match &mut self.0 {
            Ranges::Listed(list) => list.clear(),
            _ => *self = Self::default(),
        }
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + Clone + '_ {
        match self.parts() {
            Parts::List(list) => Iter::List(list.iter()),
            Parts::Tree(tree) => Iter::Tree(tree.range(..)),
        }
    }

    /// Whether `n` is in the set.
    pub fn contains(&self, n: u64) -> bool {
        match self.parts() {
            Parts::List(list) => list.get(list.partition_point(|r| r.end <= n)).is_some_and(|r| r.start <= n),
            Parts::Tree(tree) => tree.range(..=key(n)).next_back().is_some_and(|(_, end)| n < *end),
        }
    }

    /// Whether the non-empty `range` would add a range because it neither overlaps nor touches any.
    pub fn is_apart(&self, range: &Range<u64>) -> bool {
        let around = range.start.saturating_sub(1)..range.end.saturating_add(1);
        self.missing_in(around.clone()).next() == Some(around)
    }

    /// Adds `range`; returns how many numbers were not in the set before.
    #[inline]
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        // Data in order extends the last range.
        let last = match &mut self.0 {
            Ranges::Inline(len, ranges) => ranges[..usize::from(*len).min(2)].last_mut(),
            Ranges::Listed(list) => list.last_mut(),
            Ranges::Tree(_) => None,
        };
        if let Some(last) = last
            && last.end == range.start
            && range.start < range.end
        {
            last.end = range.end;
            return range.end - range.start;
        }
        self.insert_anywhere(range)
    }

    #[inline(never)]
    fn insert_anywhere(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        if let Some(end) = self.last_end()
            && *end == range.start
        {
            *end = range.end;
            return range.end - range.start;
        }
        if let Ranges::Tree(tree) = &mut self.0 {
            let known = insert_into_tree(tree, &range);
            self.relist();
            return range.end - range.start - known;
        }
        let list = self.list_mut();
        let from = list.partition_point(|r| r.end < range.start);
        let mut to = from;
        let mut merged = range.clone();
        let mut known = 0;
        while let Some(r) = list.get(to).filter(|r| r.start <= range.end) {
            known += overlap(r, &range);
            merged = merged.start.min(r.start)..merged.end.max(r.end);
            to += 1;
        }
        if from == to {
            self.add_at(from, merged);
        } else {
            list[from] = merged;
            self.drop_at(from + 1..to);
        }
        range.end - range.start - known
    }

    /// Removes `range`.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Ranges::Tree(tree) = &mut self.0 {
            remove_from_tree(tree, &range);
            self.relist();
            return;
        }
        let list = self.list_mut();
        // `range` covers `from..to`; the ranges before and after them may lose a part.
        let from = list.partition_point(|r| r.start < range.start);
        let to = from + list[from..].partition_point(|r| r.end <= range.end);
        if let Some(behind) = list.get_mut(to) {
            behind.start = behind.start.max(range.end);
        }
        let mut tail = None;
        if let Some(before) = list[..from].last_mut() {
            tail = (before.end > range.end).then_some(range.end..before.end);
            before.end = before.end.min(range.start);
        }
        match tail {
            Some(tail) => self.add_at(from, tail),
            None => self.drop_at(from..to),
        }
    }

    /// The parts of `range` that are not in the set, ascending.
    pub fn missing_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut rest = match self.parts() {
            Parts::List(list) => Iter::List(list[list.partition_point(|r| r.end <= range.start)..].iter()),
            Parts::Tree(tree) => {
                let before = tree.range(..key(range.start)).next_back().filter(|(_, end)| **end > range.start);
                Iter::Tree(tree.range(before.map_or(key(range.start), |(start, _)| *start)..))
            }
        };
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

    #[inline]
    fn parts(&self) -> Parts<'_> {
        match &self.0 {
            Ranges::Inline(len, ranges) => Parts::List(&ranges[..usize::from(*len)]),
            Ranges::Listed(list) => Parts::List(list),
            Ranges::Tree(tree) => Parts::Tree(tree),
        }
    }

    /// The ranges of a set that is not a tree.
    #[inline]
    fn list_mut(&mut self) -> &mut [Range<u64>] {
        match &mut self.0 {
            Ranges::Inline(len, ranges) => &mut ranges[..usize::from(*len)],
            Ranges::Listed(list) => list,
            Ranges::Tree(_) => &mut [],
        }
    }

    /// End of the highest range.
    #[inline]
    fn last_end(&mut self) -> Option<&mut u64> {
        match &mut self.0 {
            Ranges::Tree(tree) => tree.range_mut(..).next_back().map(|(_, end)| end),
            Ranges::Inline(len, ranges) => ranges[..usize::from(*len)].last_mut().map(|r| &mut r.end),
            Ranges::Listed(list) => list.last_mut().map(|r| &mut r.end),
        }
    }

    /// Inserts `range`, which touches no other, before the `i`th range of the list.
    fn add_at(&mut self, i: usize, range: Range<u64>) {
        match &mut self.0 {
            Ranges::Inline(len @ ..2, ranges) => {
                if i == 0 {
                    ranges.swap(0, 1);
                }
                ranges[i] = range;
                *len += 1;
            }
            Ranges::Inline(_, ranges) => {
                let mut list = Vec::with_capacity(4);
                list.extend(ranges.iter_mut().map(|r| core::mem::replace(r, 0..0)));
                list.insert(i, range);
                self.0 = Ranges::Listed(list);
            }
            Ranges::Listed(list) if list.len() < LISTED => {
                cost::moved(list.len() - i);
                list.insert(i, range);
            }
            Ranges::Listed(list) => {
                let all = list.drain(..).chain([range]);
                self.0 = Ranges::Tree(all.map(|r| (key(r.start), r.end)).collect());
            }
            Ranges::Tree(tree) => {
                tree.insert(key(range.start), range.end);
            }
        }
    }

    /// Removes whole ranges from a list.
    #[inline]
    fn drop_at(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        match &mut self.0 {
            Ranges::Inline(len, ranges) => {
                if range == (0..1) {
                    ranges.swap(0, 1);
                }
                *len -= range.len() as u8;
            }
            Ranges::Listed(list) => {
                cost::moved(list.len() - range.end);
                list.drain(range);
            }
            Ranges::Tree(_) => {}
        }
    }

    /// Converts a small tree back into a list.
    fn relist(&mut self) {
        if let Ranges::Tree(tree) = &self.0
            && tree.len() <= RELISTED
        {
            self.0 = Ranges::Listed(self.iter().collect());
        }
    }
}

/// Adds `range` to a tree; returns how many of its numbers were already there.
fn insert_into_tree(tree: &mut BTreeMap<Key, u64>, range: &Range<u64>) -> u64 {
    let mut merged = range.clone();
    let mut known = 0;
    if let Some((start, end)) = tree.range_mut(..=key(range.start)).next_back()
        && *end >= range.start
    {
        if *end >= range.end {
            return range.end - range.start;
        }
        known += *end - range.start;
        merged.start = from_key(*start);
    }
    while let Some(r) = tree.range(key(range.start + 1)..=key(range.end)).next().map(from_entry) {
        known += overlap(&r, range);
        merged.end = merged.end.max(r.end);
        tree.remove(&key(r.start));
    }
    tree.insert(key(merged.start), merged.end);
    known
}

fn remove_from_tree(tree: &mut BTreeMap<Key, u64>, range: &Range<u64>) {
    if let Some((_, end)) = tree.range_mut(..key(range.start)).next_back()
        && *end > range.start
    {
        let tail = range.end..*end;
        *end = range.start;
        if !tail.is_empty() {
            tree.insert(key(tail.start), tail.end);
            return;
        }
    }
    while let Some(r) = tree.range(key(range.start)..key(range.end)).next().map(from_entry) {
        tree.remove(&key(r.start));
        if r.end > range.end {
            tree.insert(key(range.end), r.end);
        }
    }
}

/// How many numbers two ranges have in common.
fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for RangeSet {}

impl core::fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

enum Parts<'a> {
    List(&'a [Range<u64>]),
    Tree(&'a BTreeMap<Key, u64>),
}

#[derive(Clone)]
enum Iter<'a> {
    List(core::slice::Iter<'a, Range<u64>>),
    Tree(btree_map::Range<'a, Key, u64>),
}

impl Iterator for Iter<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        match self {
            Self::List(list) => list.next().cloned(),
            Self::Tree(tree) => tree.next().map(from_entry),
        }
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Range<u64>> {
        match self {
            Self::List(list) => list.next_back().cloned(),
            Self::Tree(tree) => tree.next_back().map(from_entry),
        }
    }
}

fn from_entry((start, end): (&Key, &u64)) -> Range<u64> {
    from_key(*start)..*end
}

#[cfg(not(test))]
use plain::{Key, cost, from_key, key};
#[cfg(test)]
use tests::counted::{Key, cost, from_key, key};

/// Replaces what tests use to count operations.
#[cfg(not(test))]
mod plain {
    pub(super) type Key = u64;

    pub(super) fn key(n: u64) -> Key {
        n
    }

    pub(super) fn from_key(key: Key) -> u64 {
        key
    }

    pub(super) mod cost {
        pub(in super::super) fn moved(_: usize) {}
    }
}

#[cfg(test)]
mod tests;
