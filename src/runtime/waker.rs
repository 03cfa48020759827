//! Waking a sleeping core from other threads.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a core that sleeps ([`Idle::Sleep`](super::Idle::Sleep)) when there is work for
/// [`App::on_turn`](super::App::on_turn), for example a command in a ring or an answer from another thread. Clones wake
/// the same core. The application names its waker in [`App::waker`](super::App::waker).
///
/// While the core is awake, [`Waker::wake`] costs a load and a branch.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The core sleeps, or is about to after one more poll.
    asleep: AtomicBool,
    /// Created by the first core that may sleep.
    file: OnceLock<OwnedFd>,
}

impl Waker {
    /// Creates a waker that belongs to no core yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the core if it sleeps. Call this after the work has become visible to the core.
    #[inline]
    pub fn wake(&self) {
        if let Some(file) = self.0.file.get() {
            // If the core is not seen asleep here, it sees what was stored before this call. `fall_asleep` has the
            // matching fence.
            fence(Ordering::SeqCst);
            if self.0.asleep.load(Ordering::Relaxed) {
                self.ring(file);
            }
        }
    }

    #[cold]
    fn ring(&self, file: &OwnedFd) {
        // One write is enough for many calls.
        if self.0.asleep.swap(false, Ordering::Relaxed) {
            // This fails only if the counter is full, and then the core is awake.
            let _ = rustix::io::write(file, &1u64.to_ne_bytes());
        }
    }

    /// Prepares the waker for use by a core. If the file cannot be created (too many are open), the core polls from
    /// time to time.
    pub(crate) fn prepare(&self) {
        if self.0.file.get().is_none()
            && let Ok(file) = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
        {
            let _ = self.0.file.set(file);
        }
    }

    /// Enables wake-ups; the core must poll once more before it sleeps.
    pub(crate) fn fall_asleep(&self) {
        self.0.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Disables wake-ups: the core is awake.
    pub(super) fn awake(&self) {
        self.0.asleep.store(false, Ordering::Relaxed);
    }

    /// The file that becomes readable when the core is woken.
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

/// Whether the core was woken up since the last time.
#[cfg(test)]
pub(crate) fn is_rung(waker: &Waker) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let file = waker.file().expect("prepared");
    let mut files = [PollFd::from_borrowed_fd(file, PollFlags::IN)];
    let rung = poll(&mut files, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
    waker.drain();
    rung
}

#[cfg(test)]
mod tests {
    use super::{is_rung as rung, *};

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
