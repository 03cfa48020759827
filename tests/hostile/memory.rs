//! Counts the bytes held by the current thread, which floods must not increase.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn add(n: isize) {
    // A terminating thread has no thread-locals any more.
    let _ = HELD.try_with(|held| held.set(held.get() + n));
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + u64::from(n > 0)));
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting only touches a plain cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as isize - layout.size() as isize);
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated and not freed by this thread.
pub fn held() -> isize {
    HELD.with(Cell::get)
}

/// Number of allocations and growing reallocations by this thread.
#[allow(dead_code, reason = "others include this file and count bytes only")]
pub fn allocations() -> u64 {
    CALLS.with(Cell::get)
}
