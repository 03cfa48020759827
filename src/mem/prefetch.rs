//! Hints to the cache: memory that is wanted soon starts to come while other work is done.

/// A cache line of every CPU that matters, in bytes.
const LINE: usize = 64;

/// More lines than that are not asked for at once: a core can wait for so many only, and by then the CPU has seen where
/// the reads or writes go, and prefetches by itself.
const MOST: usize = 2048;

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{_MM_HINT_ET0 as WRITE, _MM_HINT_T0 as READ};

/// Other CPUs get no hints yet.
#[cfg(not(target_arch = "x86_64"))]
const READ: i32 = 0;
#[cfg(not(target_arch = "x86_64"))]
const WRITE: i32 = 0;

/// `bytes` will be read soon, from the front.
#[inline]
pub fn prefetch_read(bytes: &[u8]) {
    lines::<READ>(bytes.as_ptr(), bytes.len().min(MOST));
}

/// `bytes` will be written soon, from the front.
#[inline]
pub fn prefetch_write(bytes: &mut [u8]) {
    lines::<WRITE>(bytes.as_ptr(), bytes.len().min(MOST));
}

/// `object` will be used soon, all of it.
#[inline]
pub fn prefetch_object<T: ?Sized>(object: &T) {
    lines::<READ>((&raw const *object).cast(), size_of_val(object));
}

/// What `at` points to will be used soon: one line of it. It may point anywhere.
#[inline]
pub fn prefetch_line<T>(at: *const T) {
    hint::<READ>(at.cast());
}

/// Asks for the lines of `len` bytes.
#[inline]
fn lines<const HINT: i32>(at: *const u8, len: usize) {
    // Four at a time: the loop costs as much as a hint.
    let mut line = 0;
    while line + 3 * LINE < len {
        hint::<HINT>(at.wrapping_add(line));
        hint::<HINT>(at.wrapping_add(line + LINE));
        hint::<HINT>(at.wrapping_add(line + 2 * LINE));
        hint::<HINT>(at.wrapping_add(line + 3 * LINE));
        line += 4 * LINE;
    }
    while line < len {
        hint::<HINT>(at.wrapping_add(line));
        line += LINE;
    }
}

/// Asks for the line that `at` is in.
#[inline]
fn hint<const HINT: i32>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which never faults; SSE is part of x86-64, and CPUs without the hint to write take it for none.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<HINT>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
