//! Port profiles: what to open and how, from TOML.
//!
//! ```toml
//! driver = "net_memif"
//! mtu = 1500
//!
//! [devargs]
//! role = "server"
//! socket = "/run/gannet/memif.sock"
//! ```
//! Profiles of this repository (`dpdk-config/*.toml`) are part of the executable and go by name; a value
//! with a `/` or ending in `.toml` is a file.

mod load;
mod schema;
mod text;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use schema::Bus;
pub(crate) use schema::{DRIVERS, Driver, Kind};

use super::error::{PortError, ProfileError};
use super::guard::Interface;
use super::host::{self, Claim};
use super::hugepages::Hugepages;
use crate::datapath::{BURST, TX_HEADROOM};

/// Whether checksums are left to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// Where it can.
    #[default]
    Auto,
    /// Never: software makes and checks them.
    Off,
    /// Nobody makes or checks them. For shared memory between two ends that both say so: such a wire does not
    /// corrupt, and QUIC authenticates every byte.
    None,
}

/// Who can write to the packet buffers of a port while it uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Only this process, and a device until it hands a buffer over. The driver copies, or the other end is hardware or
    /// a kernel.
    Private,
    /// The process at the other end too: all memory of DPDK's in this process is mapped there.
    Shared,
}

/// Ethernet header, one VLAN tag and the frame check sequence, in bytes.
pub(crate) const FRAME_OVERHEAD: u32 = 14 + 4 + 4;

/// What a memif buffer has more than a receive buffer, in bytes. Also keeps buffers from lying at powers of two, where
/// they would compete for the same cache sets.
const MEMIF_MARGIN: u32 = 256;

/// log2 of memif's ring size, unless the profile says otherwise (the driver's own default).
const MEMIF_RSIZE: u32 = 10;

/// Everything needed to open a port.
#[derive(Clone, Debug)]
pub struct PortProfile {
    /// What it was loaded as.
    pub name: String,
    pub(crate) driver: &'static Driver,
    /// PCI address, `0000:01:00.0`; empty for virtual devices.
    pub device: String,
    /// Largest IP packet in bytes, 1280 to 9702.
    pub mtu: u16,
    /// MAC address instead of the device's own.
    pub mac: Option<[u8; 6]>,
    /// Receive descriptors of each queue.
    pub rx_desc: u16,
    /// Transmit descriptors of each queue.
    pub tx_desc: u16,
    /// RX/TX queue pairs.
    pub queues: u16,
    /// Packet buffers of each queue; 0 for as many as the descriptors and bursts can hold.
    pub mbufs: u32,
    /// Data bytes of each receive buffer; 0 for as many as the largest frame has.
    pub mbuf_size: u16,
    /// Where memory comes from.
    pub hugepages: Hugepages,
    /// Checksums.
    pub offloads: Offloads,
    /// Receive frames for any MAC address.
    pub promiscuous: bool,
    /// Ask the driver for receive interrupts, which wake up a core that sleeps. Devices can refuse them, and some are
    /// slower with them even if nobody sleeps. Ports that need none for that are not changed by it.
    pub interrupts: bool,
    /// A user whose processes may be at the other end of the port's socket, besides our own and root's.
    pub peer_uid: Option<u32>,
    /// The process at the other end of shared memory is trusted like this one: its frames are used where they lie.
    /// Otherwise they are copied first ([`PortProfile::copies_frames`]).
    pub peer_trusted: bool,
    /// The kernel may have the port's addresses as well: something else keeps it from answering for them.
    pub kernel_address: bool,
    /// The VLAN whose frames the port has to receive, which devices with a filter are told. Not a key of profiles: the
    /// network layer's settings name it.
    pub vlan: Option<u16>,
    /// Device arguments by DPDK's names, values as the driver writes them.
    pub(crate) devargs: BTreeMap<String, String>,
}

impl PortProfile {
    /// Whether `cores` cores, each of which polls one queue, poll all queues of the port. A device spreads what it receives
    /// over all of them, so what arrives at one that nobody polls is lost.
    ///
    /// # Errors
    /// [`ProfileError::Queues`].
    pub fn for_cores(self, cores: u16) -> Result<Self, ProfileError> {
        if self.queues == cores {
            return Ok(self);
        }
        Err(ProfileError::Queues { profile: self.name, queues: self.queues, cores })
    }

    /// The kernel interface that the port uses, or, for a tap, makes.
    pub fn kernel_interface(&self) -> Option<&str> {
        match self.driver.name {
            "net_tap" => Some(self.devarg("iface").unwrap_or("dtap0")),
            _ => self.driver.keys.iter().filter(|key| key.kind == Kind::Iface).find_map(|key| self.devarg(key.name)),
        }
    }

    /// The kernel interface whose frames the port and the kernel share.
    pub(crate) fn shared_interface(&self) -> Option<&str> {
        matches!(self.driver.name, "net_af_packet" | "net_af_xdp").then(|| self.devarg("iface"))?
    }

    /// The kernel interface whose receive queues the port takes over, and the first of them.
    pub(crate) fn queues_of_interface(&self) -> Option<(&str, u32)> {
        let first = self.devarg("start_queue").and_then(|queue| queue.parse().ok()).unwrap_or(0);
        (self.driver.name == "net_af_xdp").then(|| self.devarg("iface"))?.map(|iface| (iface, first))
    }

    /// Takes `addrs` for a port of this profile until what is returned is dropped: nobody else on this machine may answer
    /// for them. The kernel must not have them, since it gets what arrives at its interfaces as well; nor must another
    /// process of Gannet on the same interface. Ports that do not use a kernel interface have their addresses for
    /// themselves.
    ///
    /// # Errors
    /// [`PortError::KernelHasAddress`], which [`PortProfile::kernel_address`] allows; [`PortError::AddressInUse`].
    pub fn claim(&self, addrs: &[IpAddr]) -> Result<Claim, PortError> {
        host::claim(self.kernel_interface(), !self.kernel_address, addrs)
    }

    /// DPDK's name of the driver.
    pub fn driver(&self) -> &'static str {
        self.driver.name
    }

    /// Where its device comes from.
    pub fn bus(&self) -> Bus {
        self.driver.bus
    }

    /// Whether bursts have to be protected from the driver's own interrupt thread.
    pub(crate) fn needs_gate(&self) -> bool {
        self.driver.name == "net_memif"
    }

    /// Whether receive interrupts are asked for, and its driver has them, as far as is known before it is asked.
    pub(crate) fn wants_interrupts(&self) -> bool {
        let known = matches!(self.driver.name, "net_virtio_user" | "net_vhost" | "net_tap");
        self.interrupts && (self.bus() == Bus::Pci || known)
    }

    /// Whether the port's packet buffers can be written to by the process at the other end. So it is with virtio-user,
    /// whose host maps the guest's memory, and with a memif client that has `zero-copy`. A memif port without, vhost and
    /// the kernel's interfaces copy frames in the driver; both ends of a ring are this process; what a virtual machine's
    /// host or a device could do, software does not prevent.
    pub fn memory(&self) -> Memory {
        let zero_copy = self.devarg("zero-copy") == Some("yes") && self.devarg("role") == Some("client");
        match self.driver.name {
            "net_virtio_user" => Memory::Shared,
            "net_memif" if zero_copy => Memory::Shared,
            _ => Memory::Private,
        }
    }

    /// Whether frames are copied out of, and built outside of, the shared memory, so that what is authenticated cannot
    /// change before it is decrypted, nor what is sealed while it is.
    pub fn copies_frames(&self) -> bool {
        self.memory() == Memory::Shared && !self.peer_trusted
    }

    /// Its socket, and who may be at the other end.
    pub(in crate::dpdk) fn interface(&self) -> Option<Interface> {
        let key = self.driver.keys.iter().find(|k| k.socket)?;
        let path = self.devarg(key.name)?.into();
        let id = self.devarg("id").and_then(|id| id.parse().ok()).unwrap_or(0);
        Some(Interface { path, id, queues: self.queues, user: self.peer_uid })
    }

    /// One device argument, as the driver gets it.
    pub fn devarg(&self, key: &str) -> Option<&str> {
        self.devargs.get(key).map(String::as_str)
    }

    /// Data bytes of a buffer that holds any frame of this MTU.
    pub(crate) fn frame_size(&self) -> u32 {
        (u32::from(self.mtu) + FRAME_OVERHEAD).next_multiple_of(2048)
    }

    /// Data bytes of a receive buffer.
    pub(crate) fn rx_buffer(&self) -> u32 {
        match self.mbuf_size {
            0 => self.frame_size(),
            size => u32::from(size),
        }
    }

    /// Bytes of a memif buffer. More than a receive buffer has, or the drivers of DPDK 24.11 and 25.11 take a way that
    /// copies what a descriptor says without a look at the room for it (`eth_memif_rx`: `pkt_buffer_size <= mbuf_size`).
    pub(crate) fn memif_buffer(&self) -> u32 {
        let own = self.devarg("bsize").and_then(|size| size.parse().ok());
        own.unwrap_or_else(|| self.frame_size().max(self.rx_buffer()) + MEMIF_MARGIN)
    }

    /// Buffers of each queue's pool.
    pub(crate) fn pool_size(&self) -> u32 {
        if self.mbufs != 0 {
            return self.mbufs;
        }
        // With zero-copy, a memif ring in shared memory is filled with our buffers.
        let log2 = self.devarg("rsize").and_then(|r| r.parse().ok()).unwrap_or(MEMIF_RSIZE);
        let ring = if self.devarg("zero-copy") == Some("yes") { 2 << log2.min(14) } else { 0 };
        // Full descriptor rings, the caches of a few threads, and what is on its way between them.
        u32::from(self.rx_desc) + u32::from(self.tx_desc) + ring + 1024 + 8 * BURST as u32
    }

    /// What its pools take, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let one = |room: u32| u64::from(self.pool_size()) * u64::from(room + TX_HEADROOM as u32 + 192);
        let second = if self.rx_buffer() < self.frame_size() { one(self.frame_size()) } else { 0 };
        u64::from(self.queues) * (one(self.rx_buffer()) + second)
    }

    /// What EAL has to be told about a PCI device when it starts.
    pub(crate) fn pci_argument(&self) -> Option<String> {
        (self.driver.bus == Bus::Pci).then(|| {
            let mut text = self.device.clone();
            for (key, value) in &self.devargs {
                text.push_str(&format!(",{key}={value}"));
            }
            text
        })
    }

    /// The argument string of a virtual device.
    pub(crate) fn vdev_arguments(&self) -> String {
        let mut parts: Vec<String> = self
            .devargs
            .iter()
            .map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key}={value}") })
            .collect();
        if let Some(key) = self.driver.queues_key {
            parts.push(format!("{key}={}", self.queues));
        }
        if let Some(mac) = self.mac.filter(|_| self.driver.mac_key) {
            parts.push(format!("mac={}", mac_text(mac)));
        }
        self.sizes(&mut parts);
        parts.join(",")
    }

    /// Buffer sizes that follow from the MTU unless the profile says otherwise.
    fn sizes(&self, parts: &mut Vec<String>) {
        match self.driver.name {
            "net_memif" if !self.devargs.contains_key("bsize") => {
                parts.push(format!("bsize={}", self.memif_buffer()));
            }
            "net_af_packet" if !self.devargs.contains_key("framesz") => {
                // A slot holds the frame behind the kernel's header, and blocks are made of whole pages.
                let slot = self.frame_size();
                parts.push(format!("framesz={slot}"));
                if !self.devargs.contains_key("blocksz") {
                    parts.push(format!("blocksz={}", if slot.is_multiple_of(4096) { slot } else { 2 * slot }));
                }
            }
            _ => {}
        }
    }
}

/// `02:00:00:00:00:01`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}
