//! Packet keys that measure their time, for the stage timers of the AEAD.
//!
//! A timed key is a cipher that wraps another one. Code that uses keys is thus the same with and without measurement,
//! and has no cost without. The time is accumulated per thread, which corresponds to a core; [`take_spent`] returns it.

use std::cell::Cell;

use crate::mem::cycles;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static SPENT: Cell<Spent> = const { Cell::new(Spent { verify: 0, place: 0, seal: 0 }) };
}

/// Time stamp counter cycles spent by the timed keys of this thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Verifying tags.
    pub verify: u64,
    /// Decrypting frame headers and stream data to their destination.
    pub place: u64,
    /// Encrypting and computing tags.
    pub seal: u64,
}

/// Sets whether packet keys that this thread makes from now on are timed.
pub fn time_keys(on: bool) {
    ON.set(on);
}

/// Returns the time of this thread's timed keys since the last call.
pub fn take_spent() -> Spent {
    SPENT.take()
}

/// Whether this thread's keys are to be timed.
pub(super) fn is_wanted() -> bool {
    ON.get()
}

/// Runs `work` and adds its time to the counter selected by `part`.
#[inline]
fn count<T>(part: impl FnOnce(&mut Spent) -> &mut u64, work: impl FnOnce() -> T) -> T {
    let start = cycles();
    let done = work();
    let took = cycles().wrapping_sub(start);
    let mut spent = SPENT.get();
    *part(&mut spent) += took;
    SPENT.set(spent);
    done
}

pub(super) fn verifying<T>(work: impl FnOnce() -> T) -> T {
    count(|spent| &mut spent.verify, work)
}

pub(super) fn placing<T>(work: impl FnOnce() -> T) -> T {
    count(|spent| &mut spent.place, work)
}

pub(super) fn sealing<T>(work: impl FnOnce() -> T) -> T {
    count(|spent| &mut spent.seal, work)
}
