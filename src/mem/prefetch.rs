//! Cache hints: prefetch memory that will be needed soon while other work is done.

/// Size of a cache line on all relevant CPUs, in bytes.
const LINE: usize = 64;

/// Maximum number of bytes to prefetch at once. A core can only wait for so many lines, and the CPU then detects the
/// access pattern and prefetches by itself.
const MOST: usize = 2048;

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{_MM_HINT_ET0 as WRITE, _MM_HINT_T0 as READ};

/// On other architectures, there are no hints yet.
#[cfg(not(target_arch = "x86_64"))]
const READ: i32 = 0;
#[cfg(not(target_arch = "x86_64"))]
const WRITE: i32 = 0;

/// Prefetches `bytes` for reading from the front.
#[inline]
pub fn prefetch_read(bytes: &[u8]) {
    lines::<READ>(bytes.as_ptr(), bytes.len().min(MOST));
}

/// Prefetches `bytes` for writing from the front.
#[inline]
pub fn prefetch_write(bytes: &mut [u8]) {
    lines::<WRITE>(bytes.as_ptr(), bytes.len().min(MOST));
}

/// Prefetches all of `object`.
#[inline]
pub fn prefetch_object<T: ?Sized>(object: &T) {
    lines::<READ>((&raw const *object).cast(), size_of_val(object));
}

/// Prefetches the cache line that `at` points to, which may be any address.
#[inline]
pub fn prefetch_line<T>(at: *const T) {
    hint::<READ>(at.cast());
}

/// Prefetches the lines of `len` bytes.
#[inline]
fn lines<const HINT: i32>(at: *const u8, len: usize) {
    // Four at a time, as the loop costs as much as a hint.
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

/// Prefetches the line that contains `at`.
#[inline]
fn hint<const HINT: i32>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which never faults. SSE is part of x86-64, and CPUs without the hint for writing ignore it.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<HINT>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
