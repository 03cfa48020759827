//! Where the cores of a group wait for each other.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::base::time::Duration;

/// How often waiting threads check whether they still have to wait.
const LOOK: Duration = Duration::from_millis(50);

/// Opens by itself when all cores have arrived, or when it is opened.
#[derive(Debug)]
pub(super) struct Gate {
    missing: Mutex<u8>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn new(cores: u8) -> Self {
        Self { missing: Mutex::new(cores), opened: Condvar::new() }
    }

    /// Waits until all cores have arrived, the gate is opened, or `over` returns true. Returns true for the last one to
    /// arrive.
    pub(super) fn pass(&self, over: impl Fn() -> bool) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if *missing <= 1 {
            let last = *missing == 1;
            *missing = 0;
            self.opened.notify_all();
            return last;
        }
        *missing -= 1;
        while *missing > 0 && !over() {
            let waited = self.opened.wait_timeout(missing, LOOK);
            missing = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Lets everyone pass.
    pub(super) fn open(&self) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        self.opened.notify_all();
    }
}
