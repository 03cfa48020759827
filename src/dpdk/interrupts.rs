//! Pauses DPDK's interrupt thread.
//!
//! The memif driver tears down a connection on the interrupt thread if the peer leaves, and on the closing thread if
//! its port is closed, without synchronisation: if both happen at once, memory is freed twice. Alarms run on the
//! interrupt thread too, so an alarm that waits keeps all other handlers from running while a port is closed.

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longer than any handler takes. Afterwards the port is closed anyway.
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
    /// Parks the thread, unless it has been released already.
    fn park(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Asked {
            *state = State::Parked;
        }
        self.changed.notify_all();
    }

    /// Releases the thread, in one step and from any state: an alarm before or after it finds either a thread to wake
    /// or nothing to park for.
    fn release(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Released;
        self.changed.notify_all();
    }

    /// Waits until the interrupt thread is parked, for at most [`PATIENCE`].
    fn parked(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.changed.wait_timeout_while(state, PATIENCE, |s| *s == State::Asked);
        drop(result.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for the release.
    fn released(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |s| *s == State::Parked).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Keeps the interrupt thread paused until dropped. To be held by another thread, for a short time, and not while
/// waiting for anything that happens on the interrupt thread.
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
        self.0.release();
    }
}

/// Runs on the interrupt thread.
unsafe extern "C" fn park(argument: *mut c_void) {
    // SAFETY: the reference that `Parked::new` gave away.
    let baton = unsafe { Arc::from_raw(argument.cast_const().cast::<Baton>()) };
    baton.park();
    baton.released();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    /// The alarm and the release at the same time, many times. A release in two steps (from `Parked`, then from
    /// `Asked`) lost against an alarm in between, and the thread stayed parked for ever.
    #[test]
    fn an_alarm_during_the_release_does_not_park_for_ever() {
        const TRIES: usize = 50_000;
        let batons: Vec<_> = (0..TRIES).map(|_| baton()).collect();
        let (turn, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (i, baton) in batons.iter().enumerate() {
                    while turn.load(Ordering::Acquire) <= i {
                        std::hint::spin_loop();
                    }
                    // SAFETY: a reference of its own.
                    unsafe { park(Arc::into_raw(baton.clone()).cast_mut().cast()) };
                    done.store(i + 1, Ordering::Release);
                }
            });
            for (i, baton) in batons.iter().enumerate() {
                let parked = Parked(baton.clone());
                turn.store(i + 1, Ordering::Release);
                drop(parked);
                let mut looks = 0u64;
                while done.load(Ordering::Acquire) <= i {
                    std::thread::yield_now();
                    looks += 1;
                    if looks > 10_000_000 {
                        // Frees the thread, so that the failure can be reported.
                        baton.release();
                        panic!("still parked after its release, try {i}");
                    }
                }
            }
        });
    }
}
