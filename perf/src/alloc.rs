//! The allocator of this program: the system's, with counters.
//!
//! Allocations are counted in the current account, to tell the two ends of an in-process connection apart. Benchmarks
//! run on one thread; other threads (quinn's) use whatever account is current.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The owner of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Everything else.
    Other = 0,
    /// The sending or requesting end.
    Left = 1,
    /// The receiving or serving end.
    Right = 2,
}

const ACCOUNTS: usize = 3;

static OPEN: AtomicUsize = AtomicUsize::new(0);
static CALLS: [AtomicU64; ACCOUNTS] = [const { AtomicU64::new(0) }; ACCOUNTS];
static BYTES: [AtomicI64; ACCOUNTS] = [const { AtomicI64::new(0) }; ACCOUNTS];

/// Selects an account; returns the previous one.
pub fn open(account: Account) -> Account {
    match OPEN.swap(account as usize, Relaxed) {
        1 => Account::Left,
        2 => Account::Right,
        _ => Account::Other,
    }
}

/// Runs `work` with `account` selected.
pub fn on<T>(account: Account, work: impl FnOnce() -> T) -> T {
    let before = open(account);
    let done = work();
    open(before);
    done
}

/// The number of allocations (new and grown) so far.
pub fn calls(account: Account) -> u64 {
    CALLS[account as usize].load(Relaxed)
}

/// Bytes allocated and not freed, including the allocator's overhead. Memory allocated in one account and freed in
/// another moves between them.
pub fn bytes(account: Account) -> i64 {
    BYTES[account as usize].load(Relaxed)
}

/// The system's allocator with counters.
#[derive(Debug)]
pub struct Counting;

/// The size of a block: the usable bytes, and the preceding word in which the allocator stores its size.
fn footprint(block: *mut u8) -> i64 {
    // SAFETY: `block` is a live block of the system's allocator, as both callers make sure.
    let usable = unsafe { libc::malloc_usable_size(block.cast()) };
    (usable + size_of::<usize>()) as i64
}

fn taken(block: *mut u8) -> *mut u8 {
    if !block.is_null() {
        let account = OPEN.load(Relaxed);
        CALLS[account].fetch_add(1, Relaxed);
        BYTES[account].fetch_add(footprint(block), Relaxed);
    }
    block
}

// SAFETY: every call goes to the system's allocator unchanged; the counters touch no memory of the blocks.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract.
        taken(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc::alloc_zeroed`'s contract.
        taken(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BYTES[OPEN.load(Relaxed)].fetch_sub(footprint(block), Relaxed);
        // SAFETY: the caller keeps `GlobalAlloc::dealloc`'s contract.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let before = footprint(block);
        // SAFETY: the caller keeps `GlobalAlloc::realloc`'s contract.
        let new = taken(unsafe { System.realloc(block, layout, new_size) });
        if !new.is_null() {
            BYTES[OPEN.load(Relaxed)].fetch_sub(before, Relaxed);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_where_they_belong() {
        // Other tests allocate at the same time in the same accounts, so counts are lower bounds.
        let calls_before = calls(Account::Left);
        let held = on(Account::Left, || vec![7u8; 10 << 20]);
        assert!(calls(Account::Left) > calls_before);
        assert!(bytes(Account::Left) >= 10 << 20);
        on(Account::Left, || drop(held));
        assert!(bytes(Account::Left) < 10 << 20);
    }
}
