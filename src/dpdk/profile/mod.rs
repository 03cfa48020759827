//! Port profiles: descriptions of ports in TOML.
//!
//! ```toml
//! driver = "net_memif"
//! mtu = 1500
//!
//! [devargs]
//! role = "server"
//! socket = "/run/gannet/memif.sock"
//! ```
//! The profiles in this repository (`dpdk-config/*.toml`) are embedded in the executable and selected by name; a value
//! that contains a `/` or ends in `.toml` is the path of a file.

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
use super::room;
use crate::datapath::{BURST, TX_HEADROOM};

/// Whether the device computes and verifies checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// If it can.
    #[default]
    Auto,
    /// Never: software does.
    Off,
    /// Nobody computes or verifies them. For shared memory between two ends with this setting, where frames cannot be
    /// corrupted and QUIC authenticates every byte.
    None,
}

/// Who can write to a port's packet buffers while it uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Only this process, and a device until it delivers a buffer: the driver copies frames, or the other end is
    /// hardware or a kernel.
    Private,
    /// The peer process too: all of this process's DPDK memory is mapped there.
    Shared,
}

/// Ethernet header, one VLAN tag and the frame check sequence, in bytes.
pub(crate) const FRAME_OVERHEAD: u32 = 14 + 4 + 4;

/// How much larger memif buffers are than receive buffers, in bytes. Also avoids buffers at powers of two, which would
/// compete for the same cache sets.
const MEMIF_MARGIN: u32 = 256;

/// The default log2 of memif's ring size (the driver's own default).
const MEMIF_RSIZE: u32 = 10;

/// The settings of a port.
#[derive(Clone, Debug)]
pub struct PortProfile {
    /// The name or path it was loaded from.
    pub name: String,
    pub(crate) driver: &'static Driver,
    /// PCI address, `0000:01:00.0`; empty for virtual devices.
    pub device: String,
    /// Largest IP packet in bytes, 1280 to 9702.
    pub mtu: u16,
    /// MAC address to use instead of the device's own.
    pub mac: Option<[u8; 6]>,
    /// Receive descriptors of each queue.
    pub rx_desc: u16,
    /// Transmit descriptors of each queue.
    pub tx_desc: u16,
    /// RX/TX queue pairs.
    pub queues: u16,
    /// Packet buffers of each queue; 0 for as many as the descriptors and bursts can hold.
    pub mbufs: u32,
    /// Data bytes of each receive buffer; 0 for the size of the largest frame.
    pub mbuf_size: u16,
    /// Whether memory comes from hugepages.
    pub hugepages: Hugepages,
    /// Checksum offloads.
    pub offloads: Offloads,
    /// Receive frames for any MAC address.
    pub promiscuous: bool,
    /// Request receive interrupts from the driver, which wake a sleeping core. Devices may refuse them, and some are
    /// slower with them even if no core sleeps. No effect on ports that are woken by other means.
    pub interrupts: bool,
    /// A user whose processes may be at the other end of the port's socket, besides our own and root's.
    pub peer_uid: Option<u32>,
    /// The peer process of a shared-memory port is trusted like this one, and its frames are used in place. Otherwise
    /// they are copied first ([`PortProfile::copies_frames`]).
    pub peer_trusted: bool,
    /// The kernel may have the port's addresses too: something else keeps it from answering for them.
    pub kernel_address: bool,
    /// The VLAN to receive, for devices with a VLAN filter. Not a key of profiles: it comes from the network layer's
    /// settings.
    pub vlan: Option<u16>,
    /// The cores among which the port's frames move: each of its queues is polled by one of them. Not a key of profiles:
    /// see [`PortProfile::for_cores`] and [`PortProfile::spread_over`].
    pub(crate) cores: u16,
    /// Device arguments by DPDK's names, with values in the driver's notation.
    pub(crate) devargs: BTreeMap<String, String>,
}

impl PortProfile {
    /// The profile for `cores` cores, each of which polls one queue: checks that these are all. A device spreads received
    /// frames over all queues, so frames in queues that nobody polls are lost.
    ///
    /// # Errors
    /// [`ProfileError::Queues`].
    pub fn for_cores(self, cores: u16) -> Result<Self, ProfileError> {
        if self.queues == cores {
            return Ok(Self { cores, ..self });
        }
        Err(ProfileError::Queues { profile: self.name, queues: self.queues, cores })
    }

    /// The profile for `cores` cores that share one queue: one of them polls it, and spreads what it receives over all
    /// ([`crate::dpdk::Port::take_spread`]).
    ///
    /// # Errors
    /// [`ProfileError::Spread`] if the profile has more queues.
    pub fn spread_over(self, cores: u16) -> Result<Self, ProfileError> {
        if self.queues == 1 {
            return Ok(Self { cores: cores.max(1), ..self });
        }
        Err(ProfileError::Spread { profile: self.name, queues: self.queues })
    }

    /// The kernel interface that the port uses, or, for a tap, creates.
    pub fn kernel_interface(&self) -> Option<&str> {
        match self.driver.name {
            "net_tap" => Some(self.devarg("iface").unwrap_or("dtap0")),
            _ => self.driver.keys.iter().filter(|key| key.kind == Kind::Iface).find_map(|key| self.devarg(key.name)),
        }
    }

    /// The kernel interface that the port shares with the kernel.
    pub(crate) fn shared_interface(&self) -> Option<&str> {
        matches!(self.driver.name, "net_af_packet" | "net_af_xdp").then(|| self.devarg("iface"))?
    }

    /// The kernel interface whose receive queues the port takes over, and the first of these queues.
    pub(crate) fn queues_of_interface(&self) -> Option<(&str, u32)> {
        let first = self.devarg("start_queue").and_then(|queue| queue.parse().ok()).unwrap_or(0);
        (self.driver.name == "net_af_xdp").then(|| self.devarg("iface"))?.map(|iface| (iface, first))
    }

    /// Claims `addrs` for a port of this profile until the result is dropped. Nobody else on this machine may answer
    /// for them: the kernel must not have them, since it also receives what arrives at its interfaces, nor may another
    /// Gannet process on the same interface. Ports that use no kernel interface need no claim.
    ///
    /// # Errors
    /// [`PortError::KernelHasAddress`], which [`PortProfile::kernel_address`] allows; [`PortError::AddressInUse`].
    pub fn claim(&self, addrs: &[IpAddr]) -> Result<Claim, PortError> {
        host::claim(self.kernel_interface(), !self.kernel_address, addrs)
    }

    /// DPDK's name for the driver.
    pub fn driver(&self) -> &'static str {
        self.driver.name
    }

    /// The bus of its device.
    pub fn bus(&self) -> Bus {
        self.driver.bus
    }

    /// Returns whether bursts must be protected from the driver's interrupt thread.
    pub(crate) fn needs_gate(&self) -> bool {
        self.driver.name == "net_memif"
    }

    /// Returns whether receive interrupts are requested and the driver is expected to have them.
    pub(crate) fn wants_interrupts(&self) -> bool {
        let known = matches!(self.driver.name, "net_virtio_user" | "net_vhost" | "net_tap");
        self.interrupts && (self.bus() == Bus::Pci || known)
    }

    /// Who can write to the port's packet buffers. They are shared with the peer process for virtio-user, whose host
    /// maps the guest's memory, and for a memif client with `zero-copy`. The drivers of other memif ports, of vhost and
    /// of kernel interfaces copy frames, and both ends of a ring are in this process. Software cannot protect them from
    /// a device or the host of a virtual machine.
    pub fn memory(&self) -> Memory {
        let zero_copy = self.devarg("zero-copy") == Some("yes") && self.devarg("role") == Some("client");
        match self.driver.name {
            "net_virtio_user" => Memory::Shared,
            "net_memif" if zero_copy => Memory::Shared,
            _ => Memory::Private,
        }
    }

    /// Returns whether frames are copied out of the shared memory, and built outside it, so that data cannot change
    /// between authentication and decryption, or while it is sealed.
    pub fn copies_frames(&self) -> bool {
        self.memory() == Memory::Shared && !self.peer_trusted
    }

    /// The port's socket and allowed peers.
    pub(in crate::dpdk) fn interface(&self) -> Option<Interface> {
        let key = self.driver.keys.iter().find(|k| k.socket)?;
        let path = self.devarg(key.name)?.into();
        let id = self.devarg("id").and_then(|id| id.parse().ok()).unwrap_or(0);
        Some(Interface { path, id, queues: self.queues, user: self.peer_uid })
    }

    /// A device argument in the driver's notation.
    pub fn devarg(&self, key: &str) -> Option<&str> {
        self.devargs.get(key).map(String::as_str)
    }

    /// The size of a buffer that holds any frame of this MTU, in bytes.
    pub(crate) fn frame_size(&self) -> u32 {
        (u32::from(self.mtu) + FRAME_OVERHEAD).next_multiple_of(2048)
    }

    /// The data size of a receive buffer, in bytes.
    pub(crate) fn rx_buffer(&self) -> u32 {
        match self.mbuf_size {
            0 => self.frame_size(),
            size => u32::from(size),
        }
    }

    /// The size of a memif buffer, in bytes. Larger than a receive buffer: otherwise the drivers of DPDK 24.11 and
    /// 25.11 take a path that copies as much as a descriptor says without checking for room (`eth_memif_rx`:
    /// `pkt_buffer_size <= mbuf_size`).
    pub(crate) fn memif_buffer(&self) -> u32 {
        let own = self.devarg("bsize").and_then(|size| size.parse().ok());
        own.unwrap_or_else(|| self.frame_size().max(self.rx_buffer()) + MEMIF_MARGIN)
    }

    /// The number of buffers in each queue's pool.
    pub(crate) fn pool_size(&self) -> u32 {
        let own = || {
            // With zero-copy, a memif ring in shared memory is filled with our buffers.
            let log2 = self.devarg("rsize").and_then(|r| r.parse().ok()).unwrap_or(MEMIF_RSIZE);
            let ring = if self.devarg("zero-copy") == Some("yes") { 2 << log2.min(14) } else { 0 };
            // Full descriptor rings, the caches of a few threads, and frames in transit between them.
            u32::from(self.rx_desc) + u32::from(self.tx_desc) + ring + 1024 + 8 * BURST as u32
        };
        self.elsewhere() + if self.mbufs == 0 { own() } else { self.mbufs }
    }

    /// The buffers of a pool that other cores may hold: in their caches, and in the rings to them. A core that is stalled
    /// does not take those that the others need.
    pub(crate) fn elsewhere(&self) -> u32 {
        u32::from(self.cores.saturating_sub(1)) * room::CACHE_LIMIT + room::in_flight(self.cores)
    }

    /// The number of buffers of a core without a queue, which sends only: what the device's ring, that of another core and
    /// caches can hold.
    pub(crate) fn guest_pool_size(&self) -> u32 {
        u32::from(self.tx_desc) + self.elsewhere() + 1024
    }

    /// Cores without a queue.
    pub(crate) fn guests(&self) -> u16 {
        self.cores.saturating_sub(self.queues)
    }

    /// The size of its pools, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let some = |buffers: u32, room: u32| u64::from(buffers) * u64::from(room + TX_HEADROOM as u32 + 192);
        let second = if self.rx_buffer() < self.frame_size() { some(self.pool_size(), self.frame_size()) } else { 0 };
        u64::from(self.queues) * (some(self.pool_size(), self.rx_buffer()) + second)
            + u64::from(self.guests()) * some(self.guest_pool_size(), self.frame_size())
    }

    /// The argument for a PCI device at EAL's start.
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

    /// Adds buffer sizes that follow from the MTU, unless the profile sets them.
    fn sizes(&self, parts: &mut Vec<String>) {
        match self.driver.name {
            "net_memif" if !self.devargs.contains_key("bsize") => {
                parts.push(format!("bsize={}", self.memif_buffer()));
            }
            "net_af_packet" if !self.devargs.contains_key("framesz") => {
                // A slot holds the frame after the kernel's header, and blocks consist of whole pages.
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
