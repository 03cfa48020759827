//! Wakes a sleeping core when a frame arrives at its queue.
//!
//! | driver | file | enabled by |
//! | --- | --- | --- |
//! | AF_PACKET, AF_XDP | the driver's socket, readable while its ring holds frames | – |
//! | memif | the ring's eventfd ([`Doorbell`]) | a flag in the ring |
//! | virtio-user, vhost | the virtqueue's call or kick eventfd, by `rte_eth_dev_rx_intr_*` | a flag in the virtqueue |
//! | tap | the queue's descriptor, by `rte_eth_dev_rx_intr_ctl_q_get_fd` | – |
//! | PCI | the interrupt's eventfd of VFIO, by `rte_eth_dev_rx_intr_*` | the device's interrupt mask |
//! | ring, null, pcap | none | – |
//!
//! DPDK provides receive interrupts only if they were requested before the port was started
//! ([`PortProfile::interrupts`]).

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::guard::doorbell::{self, Doorbell};
use super::profile::PortProfile;

/// The source of wake-ups.
enum Source {
    Nothing,
    /// A descriptor of the driver that stays readable while there are frames, and is open as long as the port.
    Socket(RawFd),
    Memif {
        path: PathBuf,
        id: u32,
    },
    /// DPDK's receive interrupts.
    Interrupt,
    /// The same, for a driver whose file also delivers the frames.
    Tap,
}

/// A file that becomes readable.
enum Armed {
    Socket(RawFd),
    Bell(Arc<Doorbell>),
    Interrupt(OwnedFd),
    Tap(OwnedFd),
}

/// The wake-ups of one queue.
pub(super) struct Wakeups {
    source: Source,
    port: u16,
    queue: u16,
    armed: Option<Armed>,
}

impl Wakeups {
    /// The wake-ups of queue `queue` of the started port `port`. `socket` is the driver's, for drivers of kernel
    /// interfaces.
    pub(super) fn new(profile: &PortProfile, port: u16, queue: u16, socket: Option<RawFd>) -> Self {
        let source = match profile.driver() {
            "net_memif" => profile.interface().map_or(Source::Nothing, |i| Source::Memif { path: i.path, id: i.id }),
            "net_tap" if profile.wants_interrupts() => Source::Tap,
            _ if profile.wants_interrupts() => Source::Interrupt,
            _ => socket.map_or(Source::Nothing, Source::Socket),
        };
        Self { source, port, queue, armed: None }
    }

    /// Enables wake-ups. Returns whether anything can wake the core now.
    pub(super) fn arm(&mut self) -> bool {
        self.armed = match &self.source {
            Source::Nothing => None,
            Source::Socket(fd) => Some(Armed::Socket(*fd)),
            Source::Memif { path, id } => doorbell::of_queue(path, *id, self.queue).map(|bell| {
                bell.arm();
                Armed::Bell(bell)
            }),
            Source::Interrupt => self.interrupt().map(Armed::Interrupt),
            Source::Tap => self.descriptor().map(Armed::Tap),
        };
        // Wake-ups must be armed before the last look for frames.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.armed.is_some()
    }

    fn interrupt(&self) -> Option<OwnedFd> {
        // SAFETY: the port is started; drivers without receive interrupts, or without a peer, refuse.
        if unsafe { dpdk_sys::rte_eth_dev_rx_intr_enable(self.port, self.queue) } != 0 {
            return None;
        }
        // Check the file, as it is read below: the peer may have gone and its descriptor may have been reused.
        let file = self.descriptor().filter(|file| doorbell::is_eventfd(file.as_raw_fd()));
        if file.is_none() {
            self.mask();
        }
        file
    }

    /// A duplicate of the descriptor of the queue's interrupt.
    fn descriptor(&self) -> Option<OwnedFd> {
        // SAFETY: the port exists.
        let fd = unsafe { dpdk_sys::rte_eth_dev_rx_intr_ctl_q_get_fd(self.port, self.queue) };
        if fd < 0 { None } else { doorbell::copy(fd) }
    }

    fn mask(&self) {
        // SAFETY: the port is started.
        unsafe { dpdk_sys::rte_eth_dev_rx_intr_disable(self.port, self.queue) };
    }

    /// The file that becomes readable while they are enabled.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self.armed.as_ref()? {
            // SAFETY: a socket of the driver's, open until the device is stopped, which this queue keeps from happening.
            Armed::Socket(fd) => Some(unsafe { BorrowedFd::borrow_raw(*fd) }),
            Armed::Bell(bell) => Some(bell.file()),
            Armed::Interrupt(file) | Armed::Tap(file) => Some(file.as_fd()),
        }
    }

    /// Disables wake-ups.
    pub(super) fn disarm(&mut self) {
        match self.armed.take() {
            Some(Armed::Bell(bell)) => bell.disarm(),
            Some(Armed::Interrupt(file)) => {
                let mut count = 0u64;
                // SAFETY: room for the eight bytes of an eventfd's counter.
                unsafe { doorbell::read(file.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
                self.mask();
            }
            Some(Armed::Socket(_) | Armed::Tap(_)) | None => {}
        }
    }
}
