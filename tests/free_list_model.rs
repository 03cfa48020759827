//! The pool's free list under a model checker: loom tries every interleaving, and every value that the memory model
//! allows a thread to see, while buffers are taken on one core and returned by others.
//!
//! The source file is that of the library, with loom's atomics in place of the real ones.

mod atomic {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

#[path = "../src/mem/free_list.rs"]
mod free_list;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use atomic::AtomicU32;
use free_list::{FreeList, Links, SlotId};

/// Slots, a free list, and the memory of each slot's block: loom reports unordered accesses of two threads to a block.
struct Pool {
    below: Vec<AtomicU32>,
    free: FreeList,
    blocks: Vec<UnsafeCell<u8>>,
}

impl Links for Vec<AtomicU32> {
    fn below(&self, id: SlotId) -> &AtomicU32 {
        &self[id as usize]
    }
}

impl Pool {
    fn new(slots: u32) -> Arc<Self> {
        let this = Self {
            below: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            free: FreeList::default(),
            blocks: (0..slots).map(|_| UnsafeCell::new(0)).collect(),
        };
        (0..slots).for_each(|id| this.free.push(&this.below, id));
        Arc::new(this)
    }

    fn take(&self) -> Option<SlotId> {
        let id = self.free.pop(&self.below)?;
        // loom detects a write by a thread that is not the only owner.
        self.blocks[id as usize].with_mut(|_| ());
        Some(id)
    }

    fn give_back(&self, id: SlotId) {
        self.blocks[id as usize].with_mut(|_| ());
        self.free.push(&self.below, id);
    }

    /// Checks that nothing is lost and nothing is there twice.
    fn check(&self) {
        let mut left: Vec<_> = std::iter::from_fn(|| self.take()).collect();
        left.sort_unstable();
        assert_eq!(left, (0..self.blocks.len() as u32).collect::<Vec<_>>());
    }
}

/// Explores with at most `preemptions` preemptions (CHESS: two find nearly everything).
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn two_threads_that_take_and_give_back() {
    explore(4, || {
        let pool = Pool::new(2);
        let other = pool.clone();
        let theirs = thread::spawn(move || {
            for _ in 0..2 {
                if let Some(id) = other.take() {
                    other.give_back(id);
                }
            }
        });
        for _ in 0..2 {
            if let Some(id) = pool.take() {
                pool.give_back(id);
            }
        }
        theirs.join().unwrap();
        pool.check();
    });
}

/// A core takes buffers; applications on two other threads drop theirs.
#[test]
fn a_core_takes_what_others_return() {
    explore(3, || {
        let pool = Pool::new(3);
        let held = [pool.take().unwrap(), pool.take().unwrap()];
        let others = held.map(|id| {
            let pool = pool.clone();
            thread::spawn(move || pool.give_back(id))
        });
        let mine: Vec<_> = (0..2).filter_map(|_| pool.take()).collect();
        // One was free from the start, and nobody else takes any.
        assert!(!mine.is_empty(), "the free one");
        assert_ne!(mine.first(), mine.get(1));
        mine.into_iter().for_each(|id| pool.give_back(id));
        others.into_iter().for_each(|t| t.join().unwrap());
        pool.check();
    });
}

/// The case for which the head contains a count: the top slot is removed and returned with another one below it.
#[test]
fn the_same_top_with_another_one_below() {
    explore(4, || {
        let pool = Pool::new(3);
        let other = pool.clone();
        let theirs = thread::spawn(move || {
            let (a, b) = (other.take(), other.take());
            if let Some(a) = a {
                other.give_back(a);
            }
            b
        });
        let mine = pool.take();
        let theirs = theirs.join().unwrap();
        assert!(mine.is_some() && mine != theirs);
        mine.into_iter().chain(theirs).for_each(|id| pool.give_back(id));
        pool.check();
    });
}
