//! Keeps the shared memory of a memif port mapped while a queue works in it.
//!
//! When a peer leaves, DPDK's memif driver unmaps its regions on the interrupt thread at once, without waiting for a
//! burst that is in progress on another thread: a server crashes if a client leaves at the wrong moment. But the driver
//! first clears its "connected" flag, which every burst checks at its start. So it is enough to delay unmapping until
//! the bursts that have already started are over. [`super::memif`] replaces `munmap` by [`unmap`] in the driver's own
//! relocation table, and each queue marks its bursts with a [`Gate`].
//!
//! A burst costs two plain stores. The unmapping side pays for the ordering, with `membarrier(2)`.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

use libc::size_t;

/// The state of one queue, on a cache line of its own: odd inside a burst, even outside.
#[repr(align(64))]
struct Epoch(AtomicU64);

struct Registry {
    all: Vec<&'static Epoch>,
    free: Vec<&'static Epoch>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { all: Vec::new(), free: Vec::new() });

/// Marks the bursts of one queue.
pub(in crate::dpdk) struct Gate(&'static Epoch);

impl Gate {
    pub(in crate::dpdk) fn new() -> Self {
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(epoch) = registry.free.pop() {
            return Self(epoch);
        }
        // Never freed, since `unmap` may read it at any time, but reused.
        let epoch: &'static Epoch = Box::leak(Box::new(Epoch(AtomicU64::new(0))));
        registry.all.push(epoch);
        Self(epoch)
    }

    /// Runs `burst`, which must not unwind.
    #[inline]
    pub(in crate::dpdk) fn inside<T>(&mut self, burst: impl FnOnce() -> T) -> T {
        let now = self.0.0.load(Ordering::Relaxed);
        self.0.0.store(now + 1, Ordering::Relaxed);
        // The CPU may still delay the store; `membarrier` on the other side compensates for that.
        compiler_fence(Ordering::SeqCst);
        let result = burst();
        self.0.0.store(now + 2, Ordering::Release);
        result
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        REGISTRY.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.0);
    }
}

/// Replaces the driver's `munmap`: waits for the bursts that have started.
pub(super) unsafe extern "C" fn unmap(addr: *mut c_void, len: size_t) -> c_int {
    wait();
    // SAFETY: the driver's own request, passed on.
    unsafe { libc::munmap(addr, len) }
}

/// Waits until every burst that had started at the time of the call is over.
fn wait() {
    barrier();
    let registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    for epoch in &registry.all {
        let seen = epoch.0.load(Ordering::Acquire);
        // On a queue's own thread, outside its bursts, this is even, so a thread never waits for itself.
        while seen % 2 == 1 && epoch.0.load(Ordering::Acquire) == seen {
            std::thread::yield_now();
        }
    }
}

/// Orders the stores of all threads before against those after, in both directions.
fn barrier() {
    // SAFETY: takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) } != 0 {
        // The kernel lacks it: no store stays in a store buffer for this long.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// To be called before the first gate is used.
pub(super) fn prepare() {
    // SAFETY: takes no pointers. If it fails, `barrier` has a fallback.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn waits_for_bursts_that_have_begun_and_for_no_others() {
        let (inside, release, passed) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut gate = Gate::new();
                gate.inside(|| {
                    inside.store(true, Ordering::SeqCst);
                    while !release.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                    assert!(!passed.load(Ordering::SeqCst), "unmapped under a running burst");
                });
                // The next burst usually begins later, and nobody waits for it. A waiter that the scheduler delayed
                // until now may rightly wait for it, so it ends by itself.
                gate.inside(|| {
                    for _ in 0..100_000 {
                        if passed.load(Ordering::SeqCst) {
                            break;
                        }
                        std::thread::yield_now();
                    }
                });
            });
            while !inside.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                wait();
                passed.store(true, Ordering::SeqCst);
            });
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            release.store(true, Ordering::SeqCst);
        });
        // Outside all bursts it returns at once.
        let _idle = Gate::new();
        wait();
    }

    #[test]
    fn gates_are_reused() {
        let address = |g: &Gate| std::ptr::from_ref(g.0);
        let first = Gate::new();
        let (at, second) = (address(&first), Gate::new());
        assert_ne!(at, address(&second));
        drop(first);
        let held: Vec<Gate> = (0..8).map(|_| Gate::new()).collect();
        assert!(held.iter().any(|g| address(g) == at));
    }
}
