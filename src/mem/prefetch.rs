//! Hints to the cache: memory that is wanted soon starts to come while other work is done.

/// A cache line of every CPU that matters, in bytes.
const LINE: usize = 64;

/// More lines than that are not asked for at once: a core can wait for so many only, and by then the CPU has seen where
/// the reads or writes go, and prefetches by itself.
const MOST: usize = 2048;

/// `bytes` will be read soon, from the front.
#[inline]
pub fn prefetch_read(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes.len().min(MOST)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which never faults; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// `bytes` will be written soon, from the front.
#[inline]
pub fn prefetch_write(bytes: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes.len().min(MOST)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint, which never faults; CPUs without it take it for a hint to read or for nothing.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(bytes.as_ptr().wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// `object` will be used soon, all of it.
#[inline]
pub fn prefetch_object<T: ?Sized>(object: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(object)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which never faults; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *object).cast::<i8>().wrapping_add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}
