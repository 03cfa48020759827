//! How other threads wake a core that sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a core that sleeps ([`Idle::Sleep`](super::Idle::Sleep)) because of something that its application finds in
/// [`App::on_turn`](super::App::on_turn): a command in a ring, an answer of another thread. Clones wake the same core;
/// the application names it in [`App::waker`](super::App::waker).
///
/// A core that does not sleep costs whoever calls [`Waker::wake`] a load and a branch.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The core sleeps, or is about to and will look once more.
    asleep: AtomicBool,
    /// Made by the first core that may sleep.
    file: OnceLock<OwnedFd>,
}

impl Waker {
    /// A waker of no core yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the core's sleep. To be called after what the core shall find is where it looks.
    #[inline]
    pub fn wake(&self) {
        if let Some(file) = self.0.file.get() {
            // What was made known before is visible to a core that is not seen asleep here: `fall_asleep` has the other
            // half.
            fence(Ordering::SeqCst);
            if self.0.asleep.load(Ordering::Relaxed) {
                self.ring(file);
            }
        }
    }

    #[cold]
    fn ring(&self, file: &OwnedFd) {
        // One of many is enough.
        if self.0.asleep.swap(false, Ordering::Relaxed) {
            // It fails only when its counter is full, and then the core is awake.
            let _ = rustix::io::write(file, &1u64.to_ne_bytes());
        }
    }

    /// A core uses it from now on. Without a file (too many are open), the core looks by itself now and then.
    pub(super) fn prepare(&self) {
        if self.0.file.get().is_none()
            && let Ok(file) = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
        {
            let _ = self.0.file.set(file);
        }
    }

    /// From now on the core is woken up; it looks once more before it sleeps.
    pub(super) fn fall_asleep(&self) {
        self.0.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The core is awake.
    pub(super) fn awake(&self) {
        self.0.asleep.store(false, Ordering::Relaxed);
    }

    /// Readable once the core was woken up.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.0.file.get().map(AsFd::as_fd)
    }

    /// Makes the file unreadable again.
    pub(super) fn drain(&self) {
        if let Some(file) = self.0.file.get() {
            let _ = rustix::io::read(file, &mut [0u8; 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn rung(waker: &Waker) -> bool {
        let file = waker.file().unwrap();
        let rung = poll(&mut [PollFd::from_borrowed_fd(file, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0;
        waker.drain();
        rung
    }

    #[test]
    fn only_a_core_that_sleeps_is_woken_and_once() {
        let waker = Waker::new();
        waker.wake();
        assert!(waker.file().is_none(), "cores that never sleep need no file");
        waker.prepare();
        waker.wake();
        assert!(!rung(&waker));
        waker.fall_asleep();
        waker.clone().wake();
        waker.wake();
        assert!(rung(&waker) && !rung(&waker));
        waker.fall_asleep();
        waker.awake();
        waker.wake();
        assert!(!rung(&waker));
    }
}
