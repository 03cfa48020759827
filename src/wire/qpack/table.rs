//! The dynamic table of a decoder (RFC 9204 §3.2).

use std::collections::VecDeque;

use crate::wire::qpack::section::OVERHEAD;

/// An entry's place. Positions count all octets that were ever inserted.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    name_len: usize,
    value_len: usize,
}

impl Entry {
    /// Size in bytes (RFC 9204 §3.2.1).
    const fn size(&self) -> usize {
        self.name_len + self.value_len + OVERHEAD
    }
}

/// A dynamic table. It takes no memory until the first insertion, and then at most about twice its capacity.
#[derive(Clone, Debug, Default)]
pub struct DynamicTable {
    /// Octets of the entries, oldest first, behind those of evicted ones.
    octets: Vec<u8>,
    /// Position of the first of `octets`.
    origin: u64,
    entries: VecDeque<Entry>,
    /// Number of entries evicted so far: the absolute index of the oldest one.
    dropped: u64,
    /// Sum of the entries' sizes in bytes.
    size: usize,
    capacity: usize,
}

impl DynamicTable {
    /// Number of entries inserted so far (the Insert Count).
    pub fn inserted(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    /// The current capacity in bytes.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sum of the entries' sizes in bytes.
    #[cfg(test)]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Memory for octets, in bytes.
    #[cfg(test)]
    pub const fn memory(&self) -> usize {
        self.octets.capacity()
    }

    /// Name and value of the entry with this absolute index (RFC 9204 §3.2.4).
    pub fn get(&self, absolute: u64) -> Option<(&[u8], &[u8])> {
        let index = usize::try_from(absolute.checked_sub(self.dropped)?).ok()?;
        let entry = self.entries.get(index)?;
        let octets = self.octets.get((entry.start - self.origin) as usize..)?;
        let (name, rest) = octets.split_at_checked(entry.name_len)?;
        Some((name, rest.get(..entry.value_len)?))
    }

    /// Changes the capacity and evicts what is above it (RFC 9204 §3.2.2).
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.evict(capacity);
    }

    /// Evicts the oldest entries until the size is at most `size`.
    fn evict(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else { return };
            self.size -= entry.size();
            self.dropped += 1;
        }
    }

    /// Inserts an entry with the name `octets[..name_len]` and the value that follows. The octets are not the table's,
    /// as entries are evicted first. `false` if the entry is larger than the table.
    pub fn insert(&mut self, octets: &[u8], name_len: usize) -> bool {
        let size = octets.len() + OVERHEAD;
        let Some(room) = self.capacity.checked_sub(size) else { return false };
        self.evict(room);
        // Octets of evicted entries go when they are as many as the table may have: each is moved once on average.
        let end = self.origin + self.octets.len() as u64;
        let dead = (self.entries.front().map_or(end, |entry| entry.start) - self.origin) as usize;
        if dead >= self.capacity || dead == self.octets.len() {
            self.octets.drain(..dead);
            self.origin += dead as u64;
        }
        self.octets.extend_from_slice(octets);
        self.entries.push_back(Entry { start: end, name_len, value_len: octets.len() - name_len });
        self.size += size;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn insert(table: &mut DynamicTable, name: &[u8], value: &[u8]) -> bool {
        table.insert(&[name, value].concat(), name.len())
    }

    #[test]
    fn the_oldest_make_room() {
        let mut table = DynamicTable::default();
        assert!(!insert(&mut table, b"", b""), "a capacity of 0");
        table.set_capacity(100);
        assert!(insert(&mut table, b"a", b"1") && insert(&mut table, b"b", b"2"));
        assert!(!insert(&mut table, &[0; 50], &[0; 19]), "larger than the table");
        assert_eq!((table.inserted(), table.size()), (2, 68), "a refused entry evicts nothing");
        assert!(insert(&mut table, b"c", b"3"));
        assert_eq!((table.get(0), table.get(1), table.get(3)), (None, Some((&b"b"[..], &b"2"[..])), None));
        table.set_capacity(34);
        assert_eq!((table.get(1), table.get(2)), (None, Some((&b"c"[..], &b"3"[..]))));
        table.set_capacity(0);
        assert_eq!((table.inserted(), table.size(), table.get(2)), (3, 0, None));
    }

    proptest! {
        /// Against a list of pairs.
        #[test]
        fn entries_are_as_in_a_list(steps in proptest::collection::vec((0..40usize, 0..80usize, 0..12u8), 0..200)) {
            let mut table = DynamicTable::default();
            let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            let (mut dropped, mut capacity) = (0, 0);
            for (i, (name, value, kind)) in steps.into_iter().enumerate() {
                let (name, value) = (vec![i as u8; name], vec![i as u8 ^ 0xff; value]);
                if kind == 0 {
                    capacity = value.len() * 6;
                    table.set_capacity(capacity);
                } else {
                    let fits = name.len() + value.len() + 32 <= capacity;
                    prop_assert_eq!(insert(&mut table, &name, &value), fits);
                    if fits {
                        list.push((name, value));
                    }
                }
                let size = |list: &[(Vec<u8>, Vec<u8>)]| list.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>();
                while size(&list[dropped..]) > capacity {
                    dropped += 1;
                }
                prop_assert_eq!((table.size(), table.inserted()), (size(&list[dropped..]), list.len() as u64));
                for (index, (name, value)) in list.iter().enumerate() {
                    let expected = (index >= dropped).then_some((&name[..], &value[..]));
                    prop_assert_eq!(table.get(index as u64), expected);
                }
                prop_assert!(table.octets.len() <= 2 * 474 + 120, "memory is bounded");
            }
        }
    }
}
