//! Layer `datapath`: the seam between frames and everything above them.
//!
//! One [`Datapath`] is one RX/TX queue pair, owned by one core. Implementations: a DPDK port queue,
//! an in-memory simulated link, and decorators (fault injection, packet capture).
#![forbid(unsafe_code)]

pub mod faults;
pub mod pcap;
pub mod sim;

use std::os::fd::BorrowedFd;

use arrayvec::ArrayVec;

/// Frames handled per turn and direction.
pub const BURST: usize = 32;

/// Bytes that every [`TxFrame`] keeps free in front of its payload for [`TxFrame::prepend`].
pub const TX_HEADROOM: usize = 128;

/// A burst of frames. Frames that `tx_burst` does not take stay at its front.
pub type Burst<F> = ArrayVec<F, BURST>;

/// What the receiver hardware said about a frame's checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Not looked at: software has to verify.
    #[default]
    Unknown,
    /// Verified by the device.
    Good,
    /// Found wrong by the device.
    Bad,
}

/// A received Ethernet frame, contiguous, uniquely owned; dropping it frees it.
pub trait RxFrame {
    /// The whole frame from the destination MAC on.
    fn data_mut(&mut self) -> &mut [u8];
    /// The device's verdict on the IPv4 header checksum.
    fn ip_checksum(&self) -> Checksum;
    /// The device's verdict on the UDP/ICMP checksum.
    fn l4_checksum(&self) -> Checksum;
    /// Starts loading the frame into the cache, as far as that makes sense: it is the next one to be looked at.
    #[inline]
    fn prefetch(&self) {}
}

/// Checksum work that a device does for an outgoing frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxOffload {
    /// Length of Ethernet (and VLAN) header in bytes.
    pub l2_len: u8,
    /// Length of the IP header in bytes.
    pub l3_len: u8,
    /// IPv6 rather than IPv4.
    pub ipv6: bool,
    /// The device fills in the IPv4 header checksum.
    pub ip_checksum: bool,
    /// The device fills in the UDP checksum; the field holds the pseudo-header sum.
    pub udp_checksum: bool,
}

/// A frame to be sent: payload first, then headers prepended in front of it.
pub trait TxFrame {
    /// The whole payload area, [`TX_HEADROOM`] bytes behind the start of the frame's memory.
    /// Only valid before the first [`TxFrame::prepend`].
    fn payload_mut(&mut self) -> &mut [u8];
    /// Fixes the payload's length. `len` is at most `payload_mut().len()`.
    fn set_payload_len(&mut self, len: usize);
    /// Grows the frame by `n` bytes in front and returns them.
    ///
    /// # Panics
    /// If more than [`TX_HEADROOM`] bytes are prepended in all.
    fn prepend(&mut self, n: usize) -> &mut [u8];
    /// The frame as it will be sent: everything prepended plus the payload.
    fn data(&self) -> &[u8];
    /// The same, to patch a header that is already there.
    fn data_mut(&mut self) -> &mut [u8];
    /// Asks the device for checksum work that [`Caps`] says it can do.
    fn set_offload(&mut self, offload: TxOffload);
}

/// What a queue pair's device can do and is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The device's MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes (1500, 9000).
    pub mtu: u16,
    /// The device fills in IPv4 header checksums on request.
    pub tx_ip_checksum: bool,
    /// The device fills in UDP checksums on request.
    pub tx_udp_checksum: bool,
}

/// Counters of one queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatapathStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames the device took for sending.
    pub tx_frames: u64,
    /// Bytes the device took for sending.
    pub tx_bytes: u64,
    /// Frames that the device did not take when it was first asked to, because its ring was full or nobody is at the
    /// other end. Each counts once, however often it is tried.
    pub tx_full: u64,
    /// `tx_alloc` calls that found no free frame.
    pub tx_no_frame: u64,
    /// Bytes of chained frames that had to be joined into one piece.
    pub rx_linearized_bytes: u64,
    /// Frames dropped because they were too large to be joined.
    pub rx_oversize: u64,
    /// Frames dropped because the device (or the process at the other end) gave them lengths beyond their buffers.
    pub rx_out_of_bounds: u64,
    /// Bytes of frames that were copied out of memory that others can write to.
    pub rx_copied_bytes: u64,
    /// Frames dropped because no buffer was free to copy them to.
    pub rx_no_frame: u64,
    /// Frames recorded in a capture ([`pcap`]).
    pub captured: u64,
    /// Frames that a capture is missing, because it could not be written (fast enough).
    pub capture_missed: u64,
}

impl DatapathStats {
    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("port_rx_frames", self.rx_frames),
            ("port_rx_bytes", self.rx_bytes),
            ("port_tx_frames", self.tx_frames),
            ("port_tx_bytes", self.tx_bytes),
            ("port_tx_full", self.tx_full),
            ("port_tx_no_frame", self.tx_no_frame),
            ("port_rx_linearized_bytes", self.rx_linearized_bytes),
            ("port_rx_oversize", self.rx_oversize),
            ("port_rx_out_of_bounds", self.rx_out_of_bounds),
            ("port_rx_copied_bytes", self.rx_copied_bytes),
            ("port_rx_no_frame", self.rx_no_frame),
            ("port_captured", self.captured),
            ("port_capture_missed", self.capture_missed),
        ]
        .into_iter()
    }
}

/// Frames at the front of a burst that a device refused, and that are counted already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused(usize);

impl Refused {
    /// Whether there are any.
    #[inline]
    pub fn any(self) -> bool {
        self.0 > 0
    }

    /// The device has taken `sent` frames of a burst, and left `left`. How many of these it refuses for the first time.
    #[cold]
    pub fn count(&mut self, sent: usize, left: usize) -> u64 {
        let known = self.0.saturating_sub(sent);
        self.0 = left;
        left.saturating_sub(known) as u64
    }
}

/// One RX/TX queue pair, polled by one core.
pub trait Datapath {
    /// A received frame.
    type Rx: RxFrame;
    /// A frame to be sent.
    type Tx: TxFrame;

    /// What the device can do.
    fn caps(&self) -> Caps;
    /// Whether the link (or the peer process) is there.
    fn link_up(&mut self) -> bool;
    /// Why the link is down and what to do about it, if that is known. For messages; takes its time.
    fn link_problem(&self) -> Option<String> {
        None
    }
    /// Lets in frames for these multicast addresses, and no longer, where the device can tell them apart, for those of
    /// before. Not for the middle of traffic: takes its time.
    fn set_multicast(&mut self, _groups: &[[u8; 6]]) {}
    /// Asks for a wake-up with the next frame: [`Datapath::wake_file`] becomes readable with the first that arrives from
    /// now on. Frames that are there already may not count, so a core looks once more before it sleeps. `false` if
    /// nothing can wake it up.
    fn arm(&mut self) -> bool {
        false
    }
    /// What becomes readable with a frame, between [`Datapath::arm`] and [`Datapath::disarm`].
    fn wake_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// No wake-ups any more; they cost whoever sends.
    fn disarm(&mut self) {}
    /// Appends received frames to `burst` until it is full or none is left; returns how many.
    fn rx_burst(&mut self, burst: &mut Burst<Self::Rx>) -> usize;
    /// Frees a burst of received frames.
    #[inline]
    fn release(&mut self, burst: &mut Burst<Self::Rx>) {
        burst.clear();
    }
    /// An empty frame, or `None` when the pool is exhausted for now.
    fn tx_alloc(&mut self) -> Option<Self::Tx>;
    /// Sends from the front of `burst`; what the ring does not take stays in it. Returns how many were taken.
    fn tx_burst(&mut self, burst: &mut Burst<Self::Tx>) -> usize;
    /// Counters since start.
    fn stats(&self) -> DatapathStats;
}
