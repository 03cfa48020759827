//! Free blocks: a lock-free last-in-first-out list over numbered slots.
//!
//! Last in, first out, because the block returned last is the one still in a cache. `tests/free_list_model.rs` compiles
//! this very file against the atomics of a model checker and tries every interleaving; that is why it names no other
//! module than `super::atomic`.

use super::atomic::{AtomicU32, AtomicU64, Ordering};

/// Number of a slot. A slot describes one block, in use or free.
pub(super) type SlotId = u32;

/// What holds the links.
pub(super) trait Links {
    /// The slot below `id` in the free list that it is in, plus one.
    fn below(&self, id: SlotId) -> &AtomicU32;
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
    pub(super) fn push(&self, links: &impl Links, id: SlotId) {
        let below = links.below(id);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            below.store(head as u32, Ordering::Relaxed);
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
