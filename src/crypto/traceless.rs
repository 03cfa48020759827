//! Key material that leaves no copies on the stack.
//!
//! Whatever makes a key works on copies of it: rustls and its HKDF, the key schedules of the backends and of the libraries
//! behind them, and every function that returns a key by value. They lie in frames that are dead, until something happens
//! to write over them. No care inside these functions helps, as most are not ours and compilers spill as they like. So keys
//! are made (and one-time keys used) in a frame of their own, and what that frame and those below it have used is
//! overwritten afterwards. The keys themselves live in boxes: to return one moves a pointer.

use std::cell::Cell;

use zeroize::zeroize_stack;

/// Stack that making keys takes at the most, in bytes: about 4 KiB in an unoptimised build.
const DEEP: usize = 8 << 10;

thread_local! {
    /// Somebody further up will clean up.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Makes `WITHIN` false again, also if a panic comes by.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        WITHIN.set(false);
    }
}

/// Does `work`, which makes keys, and overwrites the stack that it used. One within another costs nothing.
///
/// What `work` returns must not hold key material itself, but in boxes: it is moved.
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

/// As [`traceless`], for work with a key that takes less than `N` bytes of stack, such as on one packet.
#[inline]
pub(super) fn traceless_in<const N: usize, T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    zeroize_stack::<N>();
    done
}

/// In a frame of its own, which is dead on return.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}
