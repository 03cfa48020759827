//! Making keys without leaving copies of key material on the stack.
//!
//! Everything involved in making a key works on copies: rustls and its HKDF, the key schedules of backends and
//! libraries, and every function that returns a key by value. The copies remain in dead frames until they happen to be
//! overwritten. This cannot be solved within those functions, as most are not ours and compilers spill registers as
//! they like. Keys are therefore made (and one-time keys used) in a frame of their own, and the stack used by it and
//! its callees is overwritten afterwards. The keys themselves are boxed, so that returning one moves a pointer.

use std::cell::Cell;

use zeroize::zeroize_stack;

/// Maximum stack used for making keys, in bytes; it is about 4 KiB in an unoptimised build.
const DEEP: usize = 8 << 10;

thread_local! {
    /// Whether a caller further up overwrites the stack.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Resets `WITHIN`, even on a panic.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        WITHIN.set(false);
    }
}

/// Runs `work`, which makes keys, and overwrites the stack that it used. Nested calls cost nothing.
///
/// The result of `work` must not contain key material except in boxes, as it is moved.
pub fn traceless<T>(work: impl FnOnce() -> T) -> T {
    if WITHIN.replace(true) {
        return work();
    }
    let leave = Leave;
    let done = apart(work);
    zeroize_stack::<DEEP>();
    drop(leave);
    done
}

/// Like [`traceless`], for work with a key that uses less than `N` bytes of stack, such as on one packet.
#[inline]
pub(super) fn traceless_in<const N: usize, T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    zeroize_stack::<N>();
    done
}

/// A frame of its own, which is dead on return.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}
