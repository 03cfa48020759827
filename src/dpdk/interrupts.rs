//! Stops DPDK's interrupt thread for a moment.
//!
//! The memif driver tears a connection down on the interrupt thread when the peer goes, and on the closing thread
//! when its port is closed, with nothing between the two: when both happen at once, memory is freed twice. Alarms
//! run on the interrupt thread as well, so one that waits keeps all other handlers out while a port is closed.

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longer than any handler takes. After it the port is closed anyway.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Parked,
    Released,
}

struct Baton {
    state: Mutex<State>,
    changed: Condvar,
}

impl Baton {
    fn set(&self, from: State, to: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == from {
            *state = to;
        }
        self.changed.notify_all();
    }

    /// Until the interrupt thread has parked, or for [`PATIENCE`].
    fn parked(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.changed.wait_timeout_while(state, PATIENCE, |s| *s == State::Asked);
        drop(result.unwrap_or_else(PoisonError::into_inner));
    }

    /// Until the other thread lets go.
    fn released(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |s| *s == State::Parked).unwrap_or_else(PoisonError::into_inner));
    }
}

/// The interrupt thread stands still until this is dropped. To be held by a thread other than that one, for a
/// short time, and not while waiting for anything that happens on it.
pub(super) struct Parked(Arc<Baton>);

impl Parked {
    pub(super) fn new() -> Self {
        let baton = Arc::new(Baton { state: Mutex::new(State::Asked), changed: Condvar::new() });
        let argument = Arc::into_raw(baton.clone());
        // SAFETY: EAL is up. `park` takes over the reference that `argument` stands for, once.
        if unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(park), argument.cast_mut().cast()) } != 0 {
            // SAFETY: the alarm was refused, so the reference is still ours.
            drop(unsafe { Arc::from_raw(argument) });
            return Self(baton);
        }
        baton.parked();
        Self(baton)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.set(State::Parked, State::Released);
        // Never parked: it must not do so later.
        self.0.set(State::Asked, State::Released);
    }
}

/// On the interrupt thread.
unsafe extern "C" fn park(argument: *mut c_void) {
    // SAFETY: the reference that `Parked::new` gave away.
    let baton = unsafe { Arc::from_raw(argument.cast_const().cast::<Baton>()) };
    baton.set(State::Asked, State::Parked);
    baton.released();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baton() -> Arc<Baton> {
        Arc::new(Baton { state: Mutex::new(State::Asked), changed: Condvar::new() })
    }

    #[test]
    fn parks_until_released() {
        let baton = baton();
        let argument = Arc::into_raw(baton.clone()) as usize;
        // SAFETY: the reference above, given away once.
        let thread = std::thread::spawn(move || unsafe { park(argument as *mut c_void) });
        baton.parked();
        assert_eq!(*baton.state.lock().unwrap(), State::Parked);
        assert!(!thread.is_finished());
        drop(Parked(baton.clone()));
        thread.join().unwrap();
        assert_eq!(Arc::strong_count(&baton), 1);
    }

    #[test]
    fn does_not_park_after_the_release() {
        let baton = baton();
        drop(Parked(baton.clone()));
        // SAFETY: a reference of its own.
        unsafe { park(Arc::into_raw(baton.clone()).cast_mut().cast()) };
        assert_eq!(*baton.state.lock().unwrap(), State::Released);
    }
}
