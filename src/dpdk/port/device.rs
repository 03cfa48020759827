//! The life of an ethdev: created or found, closed and removed.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::check;
use super::rings::Rings;
use crate::dpdk::drivers;
use crate::dpdk::eal::{Eal, EalInner};
use crate::dpdk::error::{PortError, text};
use crate::dpdk::guard;
use crate::dpdk::interrupts::Parked;
use crate::dpdk::log::Capture;
use crate::dpdk::profile::{Bus, PortProfile};

/// An ethdev that this process owns. Dropping it stops, closes and removes it.
pub(super) struct Device {
    id: u16,
    name: String,
    bus: Bus,
    driver: &'static str,
    queues: u16,
    pub(super) started: bool,
    /// The socket it listens on.
    listening: Option<PathBuf>,
    /// Who may be at the other end of it.
    interface: Option<guard::Registered>,
    /// What it sends to and receives from, when it is one of a pair.
    _rings: Option<Arc<Rings>>,
    /// Devices go before EAL does.
    _eal: Option<Arc<EalInner>>,
}

impl Device {
    /// The device of `profile`, not yet configured.
    pub(super) fn create(eal: &Eal, profile: &PortProfile, capture: &Capture) -> Result<Self, PortError> {
        let mut device = match profile.bus() {
            Bus::Vdev => {
                if profile.driver() == "net_memif" {
                    // A memif server never takes its listener off the interrupt thread's list, which that thread
                    // goes through when EAL is cleaned up.
                    eal.0.in_use.store(true, Ordering::Release);
                }
                Self::create_vdev(profile, capture)?
            }
            Bus::Pci => Self::find_pci(profile)?,
        };
        device.queues = profile.queues;
        device._eal = Some(eal.0.clone());
        Ok(device)
    }

    /// An ethdev that exists already.
    pub(super) fn adopt(id: u16, name: String, profile: &PortProfile, rings: Arc<Rings>) -> Self {
        Self {
            id,
            name,
            bus: Bus::Vdev,
            driver: "net_ring",
            queues: profile.queues,
            started: false,
            listening: None,
            interface: None,
            _rings: Some(rings),
            _eal: None,
        }
    }

    fn create_vdev(profile: &PortProfile, capture: &Capture) -> Result<Self, PortError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let driver = profile.driver();
        let listening = check::before(profile)?;
        if !guard::install(driver) {
            // A driver that is linked in another way. It works as in any other DPDK application.
            eprintln!("dpdk: {driver} of this DPDK cannot be guarded: a peer that misbehaves can end this process");
        }
        let interface = profile.interface().map(guard::Registered::new);
        let name = format!("{driver}{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let devargs = profile.vdev_arguments();
        let fail =
            |reason: String| PortError::Create { driver, devargs: devargs.clone(), reason, detail: capture.summary() };
        let (c_name, c_args) = match (CString::new(name.clone()), CString::new(devargs.clone())) {
            (Ok(name), Ok(args)) => (name, args),
            _ => return Err(fail("NUL byte in the arguments".to_owned())),
        };
        // SAFETY: EAL is up, and all three are NUL-terminated.
        let result = unsafe { dpdk_sys::rte_eal_hotplug_add(c"vdev".as_ptr(), c_name.as_ptr(), c_args.as_ptr()) };
        if result < 0 {
            check::listen_end(listening.as_deref());
            return Err(no_driver(profile).unwrap_or_else(|| fail(text(result))));
        }
        let mut device = Self {
            id: u16::MAX,
            name: name.clone(),
            bus: Bus::Vdev,
            driver,
            queues: 0,
            started: false,
            listening,
            interface,
            _rings: None,
            _eal: None,
        };
        device.id = find(&name).ok_or_else(|| fail("no ethdev of that name appeared".to_owned()))?;
        Ok(device)
    }

    fn find_pci(profile: &PortProfile) -> Result<Self, PortError> {
        let id = find(&profile.device).ok_or_else(|| match no_driver(profile) {
            Some(error) => error,
            None => PortError::Pci {
                device: profile.device.clone(),
                driver: profile.driver(),
                reason: check::pci_reason(&profile.device),
            },
        })?;
        Ok(Self {
            id,
            name: profile.device.clone(),
            bus: Bus::Pci,
            driver: profile.driver(),
            queues: 0,
            started: false,
            listening: None,
            interface: None,
            _rings: None,
            _eal: None,
        })
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its NUMA node, -1 for any.
    pub(super) fn socket(&self) -> i32 {
        // SAFETY: the port exists for as long as `self`.
        unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }
    }

    pub(super) fn link(&self) -> bool {
        // SAFETY: the port exists for as long as `self`.
        unsafe { dpdk_sys::gannet_link_up(self.id) == 1 }
    }

    /// Turns a DPDK return code into an error that names the device and the step.
    pub(super) fn step(&self, step: &'static str, code: i32, capture: &Capture) -> Result<(), PortError> {
        if code >= 0 {
            return Ok(());
        }
        Err(PortError::Step { port: self.name.clone(), step, reason: text(code), detail: capture.summary() })
    }

    /// Takes out what a loopback still holds: the driver would free its rings with the frames in them.
    fn drain(&self) {
        for queue in 0..self.queues {
            let mut frames = [std::ptr::null_mut(); 32];
            // SAFETY: the port is started, no queue object is left, and `frames` has room for 32.
            unsafe {
                loop {
                    let got = dpdk_sys::rte_eth_rx_burst(self.id, queue, frames.as_mut_ptr(), 32);
                    if got == 0 {
                        break;
                    }
                    dpdk_sys::rte_pktmbuf_free_bulk(frames.as_mut_ptr(), u32::from(got));
                }
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _quiet = Capture::start();
        // For memif, whose peer may leave at this very moment.
        let _parked = (self.driver == "net_memif").then(Parked::new);
        if self.id != u16::MAX {
            // SAFETY: the port exists, and no queue object is left that could poll it (they hold its owner).
            unsafe {
                if self.started {
                    if self.driver == "net_ring" && self._rings.is_none() {
                        self.drain();
                    }
                    dpdk_sys::rte_eth_dev_stop(self.id);
                }
                dpdk_sys::rte_eth_dev_close(self.id);
            }
        }
        if let (Bus::Vdev, Ok(name)) = (self.bus, CString::new(self.name.clone())) {
            // SAFETY: EAL is up, and both are NUL-terminated.
            unsafe { dpdk_sys::rte_eal_hotplug_remove(c"vdev".as_ptr(), name.as_ptr()) };
        }
        self.interface = None;
        check::listen_end(self.listening.as_deref());
    }
}

/// The number of the ethdev called `name`.
pub(super) fn find(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut id = u16::MAX;
    // SAFETY: EAL is up, and the name is NUL-terminated.
    (unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) } == 0).then_some(id)
}

fn no_driver(profile: &PortProfile) -> Option<PortError> {
    let dir = drivers::plugin_dir();
    let installed = drivers::installed(dir);
    // Without any plugin the drivers may be linked in, and the reason is another one.
    if installed.is_empty() || installed.iter().any(|(name, _)| name == profile.driver.library) {
        return None;
    }
    Some(PortError::NoDriver {
        driver: profile.driver(),
        dir: dir.display().to_string(),
        available: installed.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
    })
}
