//! A table of numbered slots: the addresses of blocks, and the links of the free lists that contain them.
//!
//! Links are stored in a table, not in the blocks: a thread that has lost the race for a block may still read its link
//! while the winner already writes to the block.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

use super::free_list::{Links, SlotId};
use super::pages::Backing;

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

    /// Describes a block. Only the caller knows `id` at this time.
    pub(super) fn set(&self, id: SlotId, at: NonNull<u8>, backing: Backing) {
        let slot = self.get(id);
        slot.at.store(at.as_ptr(), Ordering::Relaxed);
        slot.backing.store(backing as u8, Ordering::Relaxed);
    }

    /// The block, as last described.
    pub(super) fn block(&self, id: SlotId) -> (NonNull<u8>, Backing) {
        let slot = self.get(id);
        let at = NonNull::new(slot.at.load(Ordering::Relaxed)).expect("slots are described before they are used");
        (at, Backing::ALL[usize::from(slot.backing.load(Ordering::Relaxed))])
    }
}

impl Links for Slots {
    fn below(&self, id: SlotId) -> &AtomicU32 {
        &self.get(id).next
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
}
