//! Threads that run until they are told to stop.

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells threads to stop when it is dropped: also if what they run beside panics, as their scope would otherwise wait for
/// them forever.
#[derive(Debug)]
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
