//! Free blocks: lock-free last-in-first-out lists over numbered slots.
//!
//! Last in, first out, because the block returned last is the one still in a cache. Links live in a table beside the
//! blocks, not in them: a thread that lost the race for a block may still look at its link while the winner
//! already writes the block.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::Backing;

/// Number of a slot. A slot describes one block, in use or free.
pub(super) type SlotId = u32;

const FIRST_SHIFT: u32 = 6;
const SEGMENTS: usize = (u32::BITS - FIRST_SHIFT) as usize;

#[derive(Debug, Default)]
struct Slot {
    /// The slot below in its free list, plus one.
    next: AtomicU32,
    at: AtomicPtr<u8>,
    backing: AtomicU8,
}

/// A table of slots that grows without moving. Segment `i` holds `64 << i` slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    segments: [OnceLock<Box<[Slot]>>; SEGMENTS],
}

impl Slots {
    fn get(&self, id: SlotId) -> &Slot {
        let n = u64::from(id) + (1 << FIRST_SHIFT);
        let segment = n.ilog2() - FIRST_SHIFT;
        let slots = self.segments[segment as usize].get_or_init(|| {
            let count = 1usize << (FIRST_SHIFT + segment);
            std::iter::repeat_with(Slot::default).take(count).collect()
        });
        &slots[(n - (1 << (FIRST_SHIFT + segment))) as usize]
    }

    /// Describes a block. The caller alone knows `id` at this moment.
    pub(super) fn set(&self, id: SlotId, at: NonNull<u8>, backing: Backing) {
        let slot = self.get(id);
        slot.at.store(at.as_ptr(), Ordering::Relaxed);
        slot.backing.store(backing as u8, Ordering::Relaxed);
    }

    /// The block, as described last.
    pub(super) fn block(&self, id: SlotId) -> (NonNull<u8>, Backing) {
        let slot = self.get(id);
        let at = NonNull::new(slot.at.load(Ordering::Relaxed)).expect("slots are described before they are used");
        (at, Backing::ALL[usize::from(slot.backing.load(Ordering::Relaxed))])
    }
}

/// A free list of slots.
#[derive(Debug, Default)]
pub(super) struct FreeList {
    /// Top slot plus one (0: empty) in the low half, a count of changes in the high half. The count
    /// makes a swap fail when the same slot came back to the top with another one below it.
    head: AtomicU64,
}

impl FreeList {
    fn changed(head: u64, top: u32) -> u64 {
        (head >> 32).wrapping_add(1) << 32 | u64::from(top)
    }

    /// Puts a slot on top. The caller owns it.
    pub(super) fn push(&self, slots: &Slots, id: SlotId) {
        let slot = slots.get(id);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            slot.next.store(head as u32, Ordering::Relaxed);
            // Release: whoever pops the slot sees all that was written to its block and link.
            match self.head.compare_exchange_weak(
                head,
                Self::changed(head, id + 1),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes the top slot, which is the caller's then.
    pub(super) fn pop(&self, slots: &Slots) -> Option<SlotId> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let id = (head as u32).checked_sub(1)?;
            let next = slots.get(id).next.load(Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, Self::changed(head, next), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(id),
                Err(now) => head = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_number_once() {
        let slots = Slots::default();
        for id in [0, 1, 62, 63, 64, 191, 192, 5000] {
            slots.set(id, NonNull::dangling(), Backing::Locked);
            slots.get(id).next.store(id + 7, Ordering::Relaxed);
        }
        for id in [0, 1, 62, 63, 64, 191, 192, 5000] {
            assert_eq!(slots.get(id).next.load(Ordering::Relaxed), id + 7);
            assert_eq!(slots.block(id), (NonNull::dangling(), Backing::Locked));
        }
    }

    #[test]
    fn last_in_first_out() {
        let (slots, list) = (Slots::default(), FreeList::default());
        assert_eq!(list.pop(&slots), None);
        for id in [3, 0, 100] {
            list.push(&slots, id);
        }
        assert_eq!([list.pop(&slots), list.pop(&slots)], [Some(100), Some(0)]);
        list.push(&slots, 100);
        assert_eq!([list.pop(&slots), list.pop(&slots), list.pop(&slots)], [Some(100), Some(3), None]);
    }

    #[test]
    fn threads_never_own_the_same_slot() {
        const COUNT: u32 = 8;
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let (slots, list) = (Slots::default(), FreeList::default());
        let owned: Vec<AtomicU8> = (0..COUNT).map(|_| AtomicU8::new(0)).collect();
        (0..COUNT).for_each(|id| list.push(&slots, id));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let held: Vec<_> = std::iter::from_fn(|| list.pop(&slots)).take(3).collect();
                        for id in held {
                            assert_eq!(owned[id as usize].fetch_add(1, Ordering::Relaxed), 0, "slot {id}");
                            owned[id as usize].fetch_sub(1, Ordering::Relaxed);
                            list.push(&slots, id);
                        }
                    }
                });
            }
        });
        let mut left: Vec<_> = std::iter::from_fn(|| list.pop(&slots)).collect();
        left.sort();
        assert_eq!(left, (0..COUNT).collect::<Vec<_>>());
    }
}
