//! Tells AddressSanitizer which blocks of a pool are free, so that it detects accesses to them.
//!
//! For the sanitizer, a pool's regions are in use from being mapped to being unmapped; it cannot see that a buffer was
//! returned to its pool. `cargo xtask sanitize` builds with `--cfg gannet_asan`; in other builds, this module does
//! nothing.

use std::ptr::NonNull;

/// Whether this build runs under the sanitizer.
pub(super) const ON: bool = cfg!(gannet_asan);

#[cfg(gannet_asan)]
mod runtime {
    use std::ffi::c_void;

    // From the sanitizer's runtime (compiler-rt, sanitizer/asan_interface.h).
    unsafe extern "C" {
        pub(super) fn __asan_poison_memory_region(at: *const c_void, len: usize);
        pub(super) fn __asan_unpoison_memory_region(at: *const c_void, len: usize);
    }
}

/// Forbids access to these bytes until [`allow`].
pub(super) fn forbid(at: NonNull<u8>, len: usize) {
    #[cfg(gannet_asan)]
    // SAFETY: only marks the bytes in the sanitizer's shadow memory, without accessing them.
    unsafe {
        runtime::__asan_poison_memory_region(at.as_ptr().cast(), len);
    }
    let _ = (at, len);
}

/// Allows access to these bytes, which have an owner or no longer belong to the pool.
pub(super) fn allow(at: NonNull<u8>, len: usize) {
    #[cfg(gannet_asan)]
    // SAFETY: as above.
    unsafe {
        runtime::__asan_unpoison_memory_region(at.as_ptr().cast(), len);
    }
    let _ = (at, len);
}

/// Proof that `cargo xtask sanitize` detects errors: each test makes one in a process of its own, which must die of it.
#[cfg(all(test, gannet_asan))]
mod tests {
    use std::process::Command;

    use crate::mem::{BufPool, PinnedBuf};

    const VICTIM: &str = "GANNET_POISON_VICTIM";

    /// Runs `wrong` in a process of its own, that of the test `name`, and checks that it dies with `words` in its
    /// output.
    fn dies(name: &str, words: &str, wrong: impl FnOnce()) {
        if std::env::var_os(VICTIM).is_some() {
            return wrong();
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        let test = format!("mem::poison::tests::{name}");
        let out = child.args(["--exact", "--nocapture", &test]).env(VICTIM, "1").output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(words), "{name} went unnoticed: {said}");
    }

    /// Reads a byte, whoever owns it.
    fn peek(at: *const u8) {
        // SAFETY: none, on purpose.
        std::hint::black_box(unsafe { at.read_volatile() });
    }

    #[test]
    fn a_buffer_that_went_home() {
        dies("a_buffer_that_went_home", "use-after-poison", || {
            let pool = BufPool::heap();
            let gone = pool.alloc(5000).unwrap().as_ptr();
            peek(gone.wrapping_add(4999));
        });
    }

    #[test]
    fn a_neighbour_that_nobody_owns() {
        dies("a_neighbour_that_nobody_owns", "use-after-poison", || {
            let buf = BufPool::heap().alloc(4096).unwrap();
            peek(buf.as_ptr().wrapping_add(4096));
        });
    }

    #[test]
    fn freed_memory() {
        dies("freed_memory", "heap-use-after-free", || {
            let gone = PinnedBuf::unpinned(100).as_ptr();
            peek(gone);
        });
    }

    #[test]
    fn memory_that_nobody_gives_back() {
        dies("memory_that_nobody_gives_back", "detected memory leaks", || {
            std::mem::forget(PinnedBuf::unpinned(100_000));
        });
    }
}
