//! Packet keys that tell how long they work: the stage timers of the AEAD.
//!
//! A timed key is one more kind of cipher, around one of the others. So the code that uses keys is the same whether
//! they are timed or not, and costs nothing when they are not. The time goes to the thread that uses the key, which is
//! the one of its core; [`take_spent`] fetches it.

use std::cell::Cell;

use crate::mem::cycles;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static SPENT: Cell<Spent> = const { Cell::new(Spent { verify: 0, place: 0, seal: 0 }) };
}

/// Time stamp counter cycles that timed keys of this thread took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Verifying tags.
    pub verify: u64,
    /// Decrypting frame headers and stream bytes to where they belong.
    pub place: u64,
    /// Encrypting and laying tags.
    pub seal: u64,
}

/// Whether packet keys that this thread makes from now on are timed.
pub fn time_keys(on: bool) {
    ON.set(on);
}

/// What timed keys took on this thread since the last call.
pub fn take_spent() -> Spent {
    SPENT.take()
}

/// Whether this thread wants its keys timed.
pub(super) fn is_wanted() -> bool {
    ON.get()
}

/// Does `work` and adds the time that it takes where `part` says.
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
