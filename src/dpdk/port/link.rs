//! The link state that the queues of a port share, and whether its device is still there.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::dpdk::profile::Bus;

/// The state of the link, as the device reported it last.
///
/// Drivers do not expect several threads to query a device. So one queue does, and the others read its result; which one
/// is not fixed, so a core that is stalled or gone does not matter.
#[derive(Debug, Default)]
pub(super) struct Link {
    up: AtomicBool,
    /// The device was found to be gone when it was queried.
    gone: AtomicBool,
    queries: AtomicU32,
    asking: AtomicBool,
}

/// What a query of the device finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Down,
    /// For good.
    Gone,
}

impl Link {
    /// Returns whether the link is up. Queries the device by `ask` if no queue has done so since this queue, which
    /// remembers that in `seen`, looked last.
    pub(super) fn look(&self, seen: &mut u32, ask: impl FnOnce() -> State) -> bool {
        let queries = self.queries.load(Ordering::Relaxed);
        if *seen == queries {
            self.query(ask);
        }
        *seen = self.queries.load(Ordering::Relaxed);
        self.up.load(Ordering::Relaxed)
    }

    /// Queries the device, unless another thread is about to. Returns whether the link is up.
    pub(super) fn query(&self, ask: impl FnOnce() -> State) -> bool {
        if !self.asking.swap(true, Ordering::Acquire) {
            let state = if self.is_gone() { State::Gone } else { ask() };
            self.up.store(state == State::Up, Ordering::Relaxed);
            self.gone.fetch_or(state == State::Gone, Ordering::Relaxed);
            self.queries.fetch_add(1, Ordering::Relaxed);
            self.asking.store(false, Ordering::Release);
        }
        self.up.load(Ordering::Relaxed)
    }

    /// Whether the device was found to be gone.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// The number of looks of a queue between two queries of the device.
const REFRESH: u32 = 1024;

/// One queue's knowledge of the link.
#[derive(Debug, Default)]
pub(super) struct View {
    up: bool,
    /// Looks left until the next one at the shared state.
    age: u32,
    seen: u32,
}

impl View {
    /// Returns whether the link is up, as far as is known.
    #[inline]
    pub(super) fn is_up(&mut self, link: &Link, ask: impl FnOnce() -> State) -> bool {
        if self.age == 0 {
            self.up = link.look(&mut self.seen, ask);
            // A link that is down is queried more often, as someone is waiting for it.
            self.age = if self.up { REFRESH } else { REFRESH / 16 };
        }
        self.age -= 1;
        self.up
    }

    /// Makes the next look read the shared state.
    pub(super) fn refresh(&mut self) {
        self.age = 0;
    }
}

/// What DPDK has reported about the device, on its interrupt thread.
#[derive(Debug, Default)]
struct Said {
    /// It is being removed: its driver, the kernel or the host of a virtual machine wants it back.
    removed: AtomicBool,
    /// The port no longer exists, and another port may have its number.
    destroyed: AtomicBool,
}

/// Listens to DPDK's events about a device until dropped.
pub(super) struct Watch {
    id: u16,
    /// The device's name on its bus, if events of the bus are listened to.
    device: Option<CString>,
    /// DPDK has a pointer to it.
    said: Box<Said>,
}

const PORT_EVENTS: [dpdk_sys::rte_eth_event_type; 2] =
    [dpdk_sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_RMV, dpdk_sys::rte_eth_event_type_RTE_ETH_EVENT_DESTROY];

/// `RTE_ETH_ALL`.
const ALL_PORTS: u16 = u16::MAX;

impl Watch {
    /// Listens to events about port `id`, whose device is called `name`. Failures to register are ignored.
    pub(super) fn new(id: u16, name: &str, bus: Bus) -> Self {
        let mut watch = Self { id, device: None, said: Box::default() };
        let said = watch.argument();
        for event in PORT_EVENTS {
            // SAFETY: the port exists, and `said` lives until the callback is unregistered.
            unsafe { dpdk_sys::rte_eth_dev_callback_register(id, event, Some(on_port), said) };
        }
        // Requests to give back a PCI device arrive this way (`pci_vfio_req_handler`).
        watch.device = (bus == Bus::Pci).then(|| CString::new(name).ok()).flatten();
        if let Some(device) = &watch.device {
            // SAFETY: a NUL-terminated name, of which DPDK makes a copy; `said` as above.
            unsafe { dpdk_sys::rte_dev_event_callback_register(device.as_ptr(), Some(on_device), said) };
        }
        watch
    }

    fn argument(&self) -> *mut c_void {
        (&raw const *self.said).cast_mut().cast()
    }

    /// Whether the device is gone, or has to be given back.
    pub(super) fn is_removed(&self) -> bool {
        self.said.removed.load(Ordering::Acquire)
    }

    /// Whether the port no longer exists.
    pub(super) fn is_destroyed(&self) -> bool {
        self.said.destroyed.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let said = self.argument();
        // DPDK keeps the callbacks of a port that no longer exists for the next port with its number, and removes them
        // only when asked for all ports.
        let (id, mut silent) = if self.is_destroyed() { (ALL_PORTS, false) } else { (self.id, true) };
        for event in PORT_EVENTS {
            // SAFETY: as registered.
            silent &=
                until_idle(|| unsafe { dpdk_sys::rte_eth_dev_callback_unregister(id, event, Some(on_port), said) });
        }
        if let Some(device) = &self.device {
            // SAFETY: as registered.
            silent &= until_idle(|| unsafe {
                dpdk_sys::rte_dev_event_callback_unregister(device.as_ptr(), Some(on_device), said)
            });
        }
        if !silent {
            // The callback may be running, and write there. When asked for all ports, DPDK does not report whether it
            // is.
            Box::leak(std::mem::take(&mut self.said));
        }
    }
}

/// Tries for up to a second, until a callback is no longer running. Returns whether that worked.
fn until_idle(mut unregister: impl FnMut() -> c_int) -> bool {
    for _ in 0..1000 {
        if unregister() != -libc::EAGAIN {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

unsafe extern "C" fn on_port(_: u16, event: dpdk_sys::rte_eth_event_type, said: *mut c_void, _: *mut c_void) -> c_int {
    // SAFETY: the argument that it was registered with, which lives as long as the registration.
    let said = unsafe { &*said.cast_const().cast::<Said>() };
    if event == dpdk_sys::rte_eth_event_type_RTE_ETH_EVENT_DESTROY {
        said.destroyed.store(true, Ordering::Release);
    }
    said.removed.store(true, Ordering::Release);
    0
}

unsafe extern "C" fn on_device(_: *const c_char, event: dpdk_sys::rte_dev_event_type, said: *mut c_void) {
    if event == dpdk_sys::rte_dev_event_type_RTE_DEV_EVENT_REMOVE {
        // SAFETY: as above.
        unsafe { &*said.cast_const().cast::<Said>() }.removed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_queue_asks_and_the_others_read() {
        let (link, mut seen) = (Link::default(), [0; 3]);
        let mut queries = 0;
        // In turn, as cores with the same period do.
        for round in 0..10 {
            for queue in &mut seen {
                let up = link.look(queue, || {
                    queries += 1;
                    State::Up
                });
                assert!(up, "round {round}");
            }
        }
        assert_eq!(queries, 10);
        // The one that has asked is stalled: another takes over.
        let [_, second, third] = &mut seen;
        for _ in 0..4 {
            link.look(second, || {
                queries += 1;
                State::Down
            });
            assert!(!link.look(third, || panic!("two ask")));
        }
        assert_eq!(queries, 14);
    }

    #[test]
    fn nobody_waits_for_a_query() {
        let (link, mut seen) = (Link::default(), 0);
        let up = link.look(&mut seen, || {
            // Meanwhile another thread looks.
            assert!(!link.look(&mut 0, || panic!("two at a time")));
            assert!(!link.query(|| panic!("two at a time")));
            State::Up
        });
        assert!(up && !link.is_gone());
        link.query(|| State::Gone);
        assert!(!link.query(|| panic!("it does not come back")) && link.is_gone());
    }
}
