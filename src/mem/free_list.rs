//! Free blocks: a lock-free LIFO list of numbered slots.
//!
//! LIFO, because the block returned last is the most likely to be in a cache. `tests/free_list_model.rs` compiles this
//! file against the atomics of a model checker, which tries all interleavings; it therefore refers to no other module
//! than `super::atomic`.

use super::atomic::{AtomicU32, AtomicU64, Ordering};

/// Number of a slot, which describes one block, in use or free.
pub(super) type SlotId = u32;

/// Storage of the links.
pub(super) trait Links {
    /// The slot below `id` in its free list, plus one.
    fn below(&self, id: SlotId) -> &AtomicU32;
}

/// A free list of slots.
#[derive(Debug, Default)]
pub(super) struct FreeList {
    /// The top slot plus one (0 if empty) in the low half, and a count of changes in the high half. The count makes an
    /// exchange fail if the same slot is on top again with another one below.
    head: AtomicU64,
}

impl FreeList {
    fn changed(head: u64, top: u32) -> u64 {
        (head >> 32).wrapping_add(1) << 32 | u64::from(top)
    }

    /// Pushes a slot, which the caller owns.
    pub(super) fn push(&self, links: &impl Links, id: SlotId) {
        let below = links.below(id);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            below.store(head as u32, Ordering::Relaxed);
            // Release: whoever pops the slot sees everything written to its block and link.
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

    /// Pops the top slot, which the caller then owns.
    pub(super) fn pop(&self, links: &impl Links) -> Option<SlotId> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let id = (head as u32).checked_sub(1)?;
            let next = links.below(id).load(Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, Self::changed(head, next), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(id),
                Err(now) => head = now,
            }
        }
    }
}
