//! The common start of several clients.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::runtime::Waker;

/// Lets the clients of several cores start their load at the same time, so that their results are of the same time.
#[derive(Debug)]
pub(super) struct StartLine {
    /// The number of clients that are not ready yet.
    missing: AtomicUsize,
    /// Wakes the cores of all clients.
    wakers: Box<[Waker]>,
}

impl StartLine {
    pub(super) fn new(clients: usize) -> Self {
        Self { missing: AtomicUsize::new(clients), wakers: (0..clients).map(|_| Waker::new()).collect() }
    }

    /// The waker of a client's core.
    pub(super) fn waker(&self, client: usize) -> &Waker {
        &self.wakers[client]
    }

    /// One client is ready. Each calls this once; the last one wakes the others.
    pub(super) fn arrive(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wakers.iter().for_each(Waker::wake);
        }
    }

    /// Returns whether all clients are ready.
    pub(super) fn is_open(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::waker::is_rung;

    /// Those that were ready used to poll without a pause until the last one was.
    #[test]
    fn the_last_to_arrive_wakes_the_others() {
        let start = StartLine::new(3);
        let asleep = |client| {
            start.waker(client).prepare();
            start.waker(client).fall_asleep();
        };
        (0..3).for_each(asleep);
        for _ in 0..2 {
            start.arrive();
            assert!(!start.is_open() && (0..3).all(|client| !is_rung(start.waker(client))));
        }
        start.arrive();
        assert!(start.is_open() && (0..3).all(|client| is_rung(start.waker(client))));
    }
}
