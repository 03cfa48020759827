//! The common start of several clients.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Lets the clients of several cores start their load at the same time, so that their results are of the same time.
#[derive(Debug)]
pub(super) struct StartLine {
    /// Clients that are not ready yet.
    missing: AtomicUsize,
}

impl StartLine {
    pub(super) fn new(clients: usize) -> Self {
        Self { missing: AtomicUsize::new(clients) }
    }

    /// One client is ready. Each calls this once.
    pub(super) fn arrive(&self) {
        self.missing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Returns whether all clients are ready.
    pub(super) fn is_open(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }
}
