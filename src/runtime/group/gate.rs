//! Where the cores of a group wait for each other.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::base::time::Duration;

/// How often those who wait look whether they still should.
const LOOK: Duration = Duration::from_millis(50);

/// Opens when as many as there are cores have come, or when it is opened.
#[derive(Debug)]
pub(super) struct Gate {
    missing: Mutex<u8>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn new(cores: u8) -> Self {
        Self { missing: Mutex::new(cores), opened: Condvar::new() }
    }

    /// Waits until all have come, the gate is opened, or `over`. True for the last one to come.
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
