//! A deterministic in-memory Ethernet link: two ports with recycled frames.
//!
//! The ports are `Send`: both may be polled by one thread, which makes every run identical, or each by its own.

#![forbid(unsafe_code)]

mod queues;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::{Burst, Caps, Checksum, Datapath, DatapathStats, Refused, RxFrame, TX_HEADROOM, TxFrame, TxOffload};

pub use queues::SimQueue;

/// Ethernet header and one VLAN tag, in bytes.
const L2_MAX: usize = 18;

/// The configuration of a simulated link, shared by both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// The largest IP packet that the ports report to support, in bytes.
    pub mtu: u16,
    /// The largest IP packet that is delivered, in bytes; larger ones are lost. If below `mtu`, it simulates a path
    /// with a smaller MTU.
    pub path_mtu: u16,
    /// The ports' MAC addresses.
    pub macs: [[u8; 6]; 2],
    /// The maximum number of frames in flight in each direction; at least 1.
    pub ring_size: usize,
    /// The number of frames in each port's pool; at least 1.
    pub frames: usize,
    /// The ports compute checksums as [`TxOffload`] requests.
    pub tx_checksums: bool,
}

impl Default for SimConfig {
    /// An MTU of 1500, rings of 512, pools of 1024 frames, no checksum offload.
    fn default() -> Self {
        Self {
            mtu: 1500,
            path_mtu: u16::MAX,
            macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
            ring_size: 512,
            frames: 1024,
            tx_checksums: false,
        }
    }
}

/// The memory of a frame, which returns to its pool when dropped.
struct Frame {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    pool: Arc<ArrayQueue<Vec<u8>>>,
}

impl Drop for Frame {
    fn drop(&mut self) {
        // The pool has room for all its frames.
        let _ = self.pool.push(std::mem::take(&mut self.bytes));
    }
}

impl Frame {
    fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }
}

/// A frame received from a simulated link.
pub struct SimRx(Frame);

/// A frame to be sent over a simulated link.
pub struct SimTx {
    frame: Frame,
    offload: TxOffload,
}

struct Link {
    /// Frames in flight to port 0 and to port 1.
    towards: [ArrayQueue<Frame>; 2],
    up: AtomicBool,
}

/// A simulated link; see [`SimLink::pair`].
#[derive(Debug)]
pub enum SimLink {}

/// One end of a simulated link.
pub struct SimPort {
    link: Arc<Link>,
    side: usize,
    config: SimConfig,
    pool: Arc<ArrayQueue<Vec<u8>>>,
    stats: DatapathStats,
    refused: Refused,
    vanished: u64,
}

impl SimLink {
    /// Creates a link that is up, and returns its two ends.
    pub fn pair(config: SimConfig) -> (SimPort, SimPort) {
        let ring = || ArrayQueue::new(config.ring_size.max(1));
        let link = Arc::new(Link { towards: [ring(), ring()], up: AtomicBool::new(true) });
        (SimPort::new(link.clone(), 0, config), SimPort::new(link, 1, config))
    }
}

impl SimPort {
    fn new(link: Arc<Link>, side: usize, config: SimConfig) -> Self {
        let pool = ArrayQueue::new(config.frames.max(1));
        while pool.push(vec![0; TX_HEADROOM + L2_MAX + usize::from(config.mtu)]).is_ok() {}
        Self {
            link,
            side,
            config,
            pool: Arc::new(pool),
            stats: DatapathStats::default(),
            refused: Refused::default(),
            vanished: 0,
        }
    }

    /// Takes the link down (nothing is accepted for sending) or up, for both ports.
    pub fn set_link(&self, up: bool) {
        self.link.up.store(up, Ordering::Release);
    }

    /// The number of this port's frames that were larger than the path's MTU.
    pub fn vanished(&self) -> u64 {
        self.vanished
    }

    /// The number of free frames in this port's pool.
    pub fn free_frames(&self) -> usize {
        self.pool.len()
    }

    fn is_up(&self) -> bool {
        self.link.up.load(Ordering::Acquire)
    }

    /// The length of the Ethernet header, including a VLAN tag.
    fn l2_len(frame: &[u8]) -> usize {
        if frame.get(12..14) == Some(&[0x81, 0x00]) { L2_MAX } else { L2_MAX - 4 }
    }
}

impl Drop for SimPort {
    fn drop(&mut self) {
        self.set_link(false);
    }
}

impl Datapath for SimPort {
    type Rx = SimRx;
    type Tx = SimTx;

    fn caps(&self) -> Caps {
        Caps {
            mac: self.config.macs[self.side],
            mtu: self.config.mtu,
            tx_ip_checksum: self.config.tx_checksums,
            tx_udp_checksum: self.config.tx_checksums,
        }
    }

    fn link_up(&mut self) -> bool {
        self.is_up()
    }

    fn rx_burst(&mut self, burst: &mut Burst<SimRx>) -> usize {
        let before = burst.len();
        while !burst.is_full()
            && let Some(frame) = self.link.towards[self.side].pop()
        {
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += frame.data().len() as u64;
            burst.push(SimRx(frame));
        }
        burst.len() - before
    }

    fn tx_alloc(&mut self) -> Option<SimTx> {
        let Some(bytes) = self.pool.pop() else {
            self.stats.tx_no_frame += 1;
            return None;
        };
        let frame = Frame { start: TX_HEADROOM, end: bytes.len(), bytes, pool: self.pool.clone() };
        Some(SimTx { frame, offload: TxOffload::default() })
    }

    fn tx_burst(&mut self, burst: &mut Burst<SimTx>) -> usize {
        let ring = &self.link.towards[1 - self.side];
        // Only this port fills the ring, so free space stays free.
        let room = if self.is_up() { ring.capacity() - ring.len() } else { 0 };
        let taken = room.min(burst.len());
        for SimTx { mut frame, offload } in burst.drain(..taken) {
            self.stats.tx_frames += 1;
            self.stats.tx_bytes += frame.data().len() as u64;
            if self.config.tx_checksums {
                fill_checksums(frame.data_mut(), offload);
            }
            if frame.data().len() > Self::l2_len(frame.data()) + usize::from(self.config.path_mtu) {
                self.vanished += 1;
            } else {
                let _ = ring.push(frame);
            }
        }
        self.stats.tx_full += self.refused.count(taken, burst.len());
        taken
    }

    fn stats(&self) -> DatapathStats {
        self.stats
    }
}

impl RxFrame for SimRx {
    fn data_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }

    fn ip_checksum(&self) -> Checksum {
        Checksum::Unknown
    }

    fn l4_checksum(&self) -> Checksum {
        Checksum::Unknown
    }
}

impl TxFrame for SimTx {
    fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.frame.bytes[TX_HEADROOM..]
    }

    fn set_payload_len(&mut self, len: usize) {
        let most = self.frame.bytes.len() - TX_HEADROOM;
        assert!(len <= most, "payload of {len} bytes in a frame for {most}");
        self.frame.end = TX_HEADROOM + len;
    }

    fn prepend(&mut self, n: usize) -> &mut [u8] {
        let start = self.frame.start;
        assert!(n <= start, "{n} bytes prepended with {start} bytes of headroom left");
        self.frame.start = start - n;
        &mut self.frame.bytes[start - n..start]
    }

    fn data(&self) -> &[u8] {
        self.frame.data()
    }

    fn data_mut(&mut self) -> &mut [u8] {
        self.frame.data_mut()
    }

    fn set_offload(&mut self, offload: TxOffload) {
        self.offload = offload;
    }
}

/// Computes checksums like a device with checksum offload. A frame too short for the request is left unchanged.
fn fill_checksums(frame: &mut [u8], offload: TxOffload) {
    let l3 = usize::from(offload.l2_len);
    let l4 = l3 + usize::from(offload.l3_len);
    if offload.ip_checksum
        && !offload.ipv6
        && let Some(header) = frame.get_mut(l3..l4)
        && header.len() >= 20
    {
        header[10..12].fill(0);
        let sum = !ones_sum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if offload.udp_checksum
        && let Some(datagram) = frame.get_mut(l4..)
        && datagram.len() >= 8
    {
        // Exclude Ethernet padding after the datagram.
        let len = usize::from(u16::from_be_bytes([datagram[4], datagram[5]])).clamp(8, datagram.len());
        // The field holds the pseudo-header's sum; 0 would mean "no checksum" (RFC 768).
        let sum = match !ones_sum(&datagram[..len]) {
            0 => 0xffff,
            sum => sum,
        };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The ones' complement sum of RFC 1071.
fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 =
        bytes.chunks(2).map(|c| u64::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl fmt::Debug for SimRx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimRx({} bytes)", self.0.data().len())
    }
}

impl fmt::Debug for SimTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimTx({} bytes, {:?})", self.data().len(), self.offload)
    }
}

impl fmt::Debug for SimPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimPort({} of {:?}, {:?})", self.side, self.config, self.stats)
    }
}

#[cfg(test)]
pub(super) mod tests;
