//! Counts allocations of the current thread while enabled.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static TRACE: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn note() {
    // A terminating thread has no thread-locals any more.
    let on = ON.try_with(Cell::get).unwrap_or(false);
    if on {
        COUNT.with(|count| count.set(count.get() + 1));
        if TRACE.with(Cell::get) {
            ON.with(|on| on.set(false));
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
            ON.with(|on| on.set(true));
        }
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting only touches plain cells.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f` and counts its allocations.
pub fn counted<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNT.with(Cell::get);
    ON.with(|on| on.set(true));
    let result = f();
    ON.with(|on| on.set(false));
    (result, COUNT.with(Cell::get) - before)
}

/// Prints the origin of counted allocations from now on, if GANNET_TRACE_ALLOCATIONS is set.
pub fn trace() {
    TRACE.with(|trace| trace.set(std::env::var_os("GANNET_TRACE_ALLOCATIONS").is_some()));
}
