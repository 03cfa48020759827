//! The life cycle of an ethdev: created or found, closed and removed.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::check;
use super::link::{State, Watch};
use crate::dpdk::drivers;
use crate::dpdk::eal::{Eal, EalInner};
use crate::dpdk::error::{PortError, text};
use crate::dpdk::guard;
use crate::dpdk::host::{self, Claim, Interface};
use crate::dpdk::interrupts::Parked;
use crate::dpdk::log::Capture;
use crate::dpdk::numa;
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
    /// The kernel interface that it uses, for settings that the driver would change permanently, and for state that the
    /// driver does not report.
    host: Option<Interface>,
    /// The claim on its receive queues, on a kernel interface where two sockets cannot share one.
    _claim: Option<Claim>,
    /// The driver's packet sockets, and the number of frames that their rings dropped.
    packet_sockets: Vec<RawFd>,
    packet_drops: AtomicU64,
    /// The kernel interface that the driver created.
    tap: Option<Interface>,
    /// Listens to what DPDK says of the device, once it is there.
    watch: Option<Watch>,
    /// The registration of its socket, with the peers that are allowed.
    interface: Option<guard::Registered>,
    /// Resources that must outlive it, such as the rings of a pair.
    outlives: Option<Arc<dyn Send + Sync>>,
    /// Keeps EAL running until the device is gone.
    _eal: Option<Arc<EalInner>>,
}

impl Device {
    /// Creates or finds the device of `profile`, not yet configured.
    pub(super) fn create(eal: &Eal, profile: &PortProfile, capture: &Capture) -> Result<Self, PortError> {
        // EAL would only report that there is no such device, or no memory.
        if let Some(error) = no_driver(profile) {
            return Err(error);
        }
        let mut device = match profile.bus() {
            Bus::Vdev => {
                if profile.driver() == "net_memif" {
                    // A memif server never removes its listener from the interrupt thread's list, which that thread
                    // walks when EAL is cleaned up.
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

    /// Wraps an existing ethdev that uses `outlives`.
    pub(super) fn adopt(id: u16, name: String, profile: &PortProfile, outlives: Arc<dyn Send + Sync>) -> Self {
        let mut device = Self::new(id, name, Bus::Vdev, "net_ring");
        device.queues = profile.queues;
        device.outlives = Some(outlives);
        device
    }

    fn new(id: u16, name: String, bus: Bus, driver: &'static str) -> Self {
        Self {
            id,
            name,
            bus,
            driver,
            queues: 0,
            started: false,
            listening: None,
            host: None,
            _claim: None,
            packet_sockets: Vec::new(),
            packet_drops: AtomicU64::new(0),
            tap: None,
            watch: None,
            interface: None,
            outlives: None,
            _eal: None,
        }
    }

    fn create_vdev(profile: &PortProfile, capture: &Capture) -> Result<Self, PortError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let driver = profile.driver();
        let claim =
            profile.queues_of_interface().map(|(iface, first)| host::claim_queues(iface, first, profile.queues));
        let claim = claim.transpose()?;
        let listening = check::before(profile)?;
        if !guard::install(driver) {
            // The driver is linked in another way. It works as in any other DPDK application.
            tracing::warn!(
                driver,
                "this build of the DPDK driver cannot be guarded: a misbehaving peer can crash this process"
            );
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
        // Discard the sockets of an earlier device that failed.
        guard::packet_sockets();
        // Not by `rte_eal_hotplug_add`, which since 24.11 takes 127 bytes of arguments: a path alone may have 107.
        // SAFETY: EAL is up, and both are NUL-terminated.
        let result = unsafe { dpdk_sys::rte_vdev_init(c_name.as_ptr(), c_args.as_ptr()) };
        if result != 0 {
            check::listen_end(listening.as_deref());
            return Err(check::after(profile).unwrap_or_else(|| fail(text(result))));
        }
        // Created before anything can fail, as dropping it releases everything.
        let mut device = Self::new(u16::MAX, name.clone(), Bus::Vdev, driver);
        device.listening = listening;
        device._claim = claim;
        device.packet_sockets = guard::packet_sockets();
        let tap = profile.kernel_interface().filter(|_| driver == "net_tap");
        device.tap = tap.and_then(|name| Interface::open(name).ok());
        device.interface = interface;
        device.id = find(&name).ok_or_else(|| fail("no ethdev of that name appeared".to_owned()))?;
        device.watch = Some(Watch::new(device.id, &name, Bus::Vdev));
        if let Some(iface) = profile.shared_interface() {
            let host = Interface::open(iface).map_err(|e| fail(format!("interface {iface}: {e}")))?;
            device.host = Some(host);
        }
        Ok(device)
    }

    fn find_pci(profile: &PortProfile) -> Result<Self, PortError> {
        let id = find(&profile.device).ok_or_else(|| PortError::Pci {
            device: profile.device.clone(),
            driver: profile.driver(),
            reason: check::pci_reason(&profile.device),
        })?;
        let mut device = Self::new(id, profile.device.clone(), Bus::Pci, profile.driver());
        device.watch = Some(Watch::new(id, &profile.device, Bus::Pci));
        Ok(device)
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What its driver reports of it, and DPDK's return code.
    pub(super) fn info(&self) -> (dpdk_sys::rte_eth_dev_info, i32) {
        // SAFETY: plain data, for which zero is valid.
        let mut info: dpdk_sys::rte_eth_dev_info = unsafe { std::mem::zeroed() };
        // SAFETY: the port exists for as long as `self`.
        let code = unsafe { dpdk_sys::rte_eth_dev_info_get(self.id, &mut info) };
        (info, code)
    }

    /// Its NUMA node, -1 for any.
    pub(super) fn socket(&self) -> i32 {
        // SAFETY: the port exists for as long as `self`.
        unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }
    }

    /// The NUMA node that it is on, if that is known.
    pub(super) fn node(&self) -> Option<u16> {
        match self.bus {
            Bus::Pci => u16::try_from(self.socket()).ok(),
            Bus::Vdev => numa::node_of_interface(Path::new("/sys"), self.host.as_ref()?.name()),
        }
    }

    /// The kernel interface that it uses.
    pub(super) fn host(&self) -> Option<&Interface> {
        self.host.as_ref()
    }

    /// Frames that the kernel dropped before the driver saw them, which no counter of the driver includes.
    pub(super) fn kernel_drops(&self) -> u64 {
        let new = self.packet_sockets.iter().map(|&socket| guard::packet_drops(socket)).sum();
        let all = self.packet_drops.fetch_add(new, Ordering::Relaxed) + new;
        match &self.tap {
            Some(tap) => all + host::dropped_on_the_way_out(tap.name()),
            None => all,
        }
    }

    /// Returns whether the driver counts an error each time its ring is full, whatever happens to the frames. The two
    /// such drivers count nothing else.
    pub(super) fn counts_refusals(&self) -> bool {
        matches!(self.driver, "net_af_xdp" | "net_tap")
    }

    /// The state of the link. Drivers of kernel interfaces always report theirs as up.
    pub(super) fn link(&self) -> State {
        if self.is_removed() {
            return State::Gone;
        }
        // Drivers do not notice that their interface is gone, nor that one of the same name is another.
        if self.kernel_interface().is_some_and(Interface::is_gone) {
            return State::Gone;
        }
        let kernel = self.host.as_ref().is_none_or(Interface::link);
        // SAFETY: the port exists for as long as `self`.
        let driver = kernel && unsafe { dpdk_sys::gannet_link_up(self.id) == 1 };
        if driver { State::Up } else { State::Down }
    }

    fn is_removed(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_removed)
    }

    /// The kernel interface behind it.
    fn kernel_interface(&self) -> Option<&Interface> {
        self.host.as_ref().or(self.tap.as_ref())
    }

    /// The reason why a device that is gone is gone.
    pub(super) fn removal(&self) -> String {
        let name = &self.name;
        match self.kernel_interface() {
            _ if self.is_removed() => format!("{name} was unplugged, or its driver or host wants it back"),
            Some(interface) => format!("interface {} was deleted", interface.name()),
            None => format!("{name} is not there any more"),
        }
    }

    /// The reason why the link is down, if known.
    pub(super) fn link_problem(&self) -> Option<String> {
        if let Some(host) = self.host.as_ref().filter(|host| !host.link()) {
            return Some(host.link_problem());
        }
        let socket = self.interface.as_ref().filter(|_| self.driver == "net_memif")?;
        guard::last_words(socket.path()).map(|words| sent_away(&words))
    }

    /// The sockets of the driver's queues, if it has any.
    pub(super) fn kernel_sockets(&self) -> Vec<RawFd> {
        if self.driver == "net_af_xdp" { guard::xdp_sockets(self.id) } else { self.packet_sockets.clone() }
    }

    /// Converts a DPDK return code into an error that names the device and the step.
    pub(super) fn step(&self, step: &'static str, code: i32, capture: &Capture) -> Result<(), PortError> {
        if code >= 0 {
            return Ok(());
        }
        Err(PortError::Step { port: self.name.clone(), step, reason: text(code), detail: capture.summary() })
    }

    /// Like `step`, for an error of the kernel.
    pub(super) fn refused(&self, step: &'static str, error: &io::Error) -> PortError {
        let (port, reason) = (self.name.clone(), error.to_string());
        PortError::Step { port, step, reason, detail: String::new() }
    }

    /// The device's bus.
    pub(super) fn bus(&self) -> Bus {
        self.bus
    }

    /// Frees the frames that a loopback still holds: the driver would free its rings without them.
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
        // For memif, whose peer may leave at this moment.
        let _parked = (self.driver == "net_memif").then(Parked::new);
        let destroyed = self.watch.as_ref().is_some_and(Watch::is_destroyed);
        let wanted_back = self.bus == Bus::Pci && self.is_removed();
        // Not to hear what follows.
        self.watch = None;
        if self.id != u16::MAX && !destroyed {
            // SAFETY: the port exists, and no queue object is left that could poll it (they hold its owner).
            unsafe {
                if self.started {
                    if self.driver == "net_ring" && self.outlives.is_none() {
                        self.drain();
                    }
                    dpdk_sys::rte_eth_dev_stop(self.id);
                }
                dpdk_sys::rte_eth_dev_close(self.id);
            }
        }
        // Whoever wants a PCI device back waits until nobody has it open.
        let leaves = self.bus == Bus::Vdev || wanted_back;
        if let Some(name) = CString::new(self.name.clone()).ok().filter(|_| leaves) {
            // SAFETY: EAL is up, and the names are NUL-terminated.
            unsafe {
                match self.bus {
                    Bus::Vdev => dpdk_sys::rte_vdev_uninit(name.as_ptr()),
                    Bus::Pci => dpdk_sys::rte_eal_hotplug_remove(c"pci".as_ptr(), name.as_ptr()),
                }
            };
        }
        guard::closed(self.driver);
        self.interface = None;
        check::listen_end(self.listening.as_deref());
    }
}

/// Explains a message of the driver at the other end of a memif socket.
fn sent_away(words: &str) -> String {
    match words {
        "Already connected" => {
            "the server's interface already has another client; stop that one, or use another socket, or \
                                another `--set id=N` at both ends"
                .to_owned()
        }
        "ID not found" => {
            "the server has no interface with this id; `--set id=N` must be the same at both ends".to_owned()
        }
        "Secret required" | "Incorrect secret" => "devargs.secret must be the same at both ends".to_owned(),
        "" => "the server hung up".to_owned(),
        other => format!("the server refused us: {other}"),
    }
}

/// The number of the ethdev called `name`.
pub(super) fn find(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut id = u16::MAX;
    // SAFETY: EAL is up, and the name is NUL-terminated.
    (unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) } == 0).then_some(id)
}

/// Reports the first part that `profile` needs and that is not installed.
fn no_driver(profile: &PortProfile) -> Option<PortError> {
    let dir = drivers::plugin_dir();
    let (part, package) = drivers::missing_part(dir, profile.driver.library, profile.bus())?;
    let available: Vec<String> = drivers::installed(dir).into_iter().map(|(name, _)| name).collect();
    Some(PortError::NoDriver {
        driver: profile.driver(),
        part,
        package,
        dir: dir.display().to_string(),
        available: available.join(", "),
    })
}
