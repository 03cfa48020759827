//! Keeps the shared memory of a memif port mapped while a queue works in it.
//!
//! DPDK's memif driver unmaps its regions on the interrupt thread as soon as the peer goes, without waiting for the
//! thread that is inside a burst just then: a server crashes when a client leaves at the wrong moment. The driver
//! clears its "connected" flag before, which every burst checks first. So it is enough to let the bursts that have
//! already begun finish before anything is unmapped. [`super::memif`] puts [`unmap`] in the place of `munmap` in the
//! driver's own relocation table, and a queue marks its bursts with a [`Gate`].
//!
//! A burst costs two plain stores. The side that unmaps pays for the ordering, with `membarrier(2)`.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

use libc::size_t;

/// One queue's bursts: odd inside of one, even outside. On a cache line of its own.
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
        // Never freed, since `unmap` may look at it at any time; reused instead.
        let epoch: &'static Epoch = Box::leak(Box::new(Epoch(AtomicU64::new(0))));
        registry.all.push(epoch);
        Self(epoch)
    }

    /// Runs `burst`, which does not unwind.
    #[inline]
    pub(in crate::dpdk) fn inside<T>(&mut self, burst: impl FnOnce() -> T) -> T {
        let now = self.0.0.load(Ordering::Relaxed);
        self.0.0.store(now + 1, Ordering::Relaxed);
        // The processor may still delay the store; `membarrier` on the other side makes up for that.
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

/// `munmap` as the driver sees it: waits for the bursts that have begun.
pub(super) unsafe extern "C" fn unmap(addr: *mut c_void, len: size_t) -> c_int {
    wait();
    // SAFETY: the driver's own request, passed on.
    unsafe { libc::munmap(addr, len) }
}

/// Returns when every burst that had begun at the time of the call is over.
fn wait() {
    barrier();
    let registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    for epoch in &registry.all {
        let seen = epoch.0.load(Ordering::Acquire);
        // On a queue's own thread, outside of its bursts, this is even: it never waits for itself.
        while seen % 2 == 1 && epoch.0.load(Ordering::Acquire) == seen {
            std::thread::yield_now();
        }
    }
}

/// Stores that other threads made before are visible to this one, and the other way round.
fn barrier() {
    // SAFETY: takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) } != 0 {
        // A kernel without it: no store stays in a store buffer for this long.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Before the first gate is used.
pub(super) fn prepare() {
    // SAFETY: takes no pointers. Where it fails, `barrier` has another way.
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
                // The next burst usually begins after, and then nobody waits for it. A waiter that the scheduler
                // kept from starting until now may wait for it rightly: so it ends by itself.
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
        // Outside of all bursts it returns at once.
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
