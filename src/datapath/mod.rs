//! Layer `datapath`: the interface between frames and the layers above.
//!
//! A [`Datapath`] is one RX/TX queue pair, owned by one core. Implementations: a DPDK port queue, an in-memory
//! simulated link, and decorators (fault injection, packet capture).
#![forbid(unsafe_code)]

pub mod exchange;
pub mod faults;
mod flow;
pub mod pcap;
pub mod sim;
pub mod spread;
pub mod steering;

use std::os::fd::BorrowedFd;

use arrayvec::ArrayVec;

/// The maximum number of frames handled per turn and direction.
pub const BURST: usize = 32;

/// The space that every [`TxFrame`] keeps in front of its payload for [`TxFrame::prepend`], in bytes.
pub const TX_HEADROOM: usize = 128;

/// A burst of frames. Frames that `tx_burst` does not accept stay at its front.
pub type Burst<F> = ArrayVec<F, BURST>;

/// The device's verdict on a checksum of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Not checked: software has to verify it.
    #[default]
    Unknown,
    /// Verified by the device.
    Good,
    /// Found wrong by the device.
    Bad,
}

/// A received Ethernet frame: contiguous and uniquely owned. Dropping it frees it.
pub trait RxFrame {
    /// The whole frame, starting with the destination MAC address.
    fn data_mut(&mut self) -> &mut [u8];
    /// The device's verdict on the IPv4 header checksum.
    fn ip_checksum(&self) -> Checksum;
    /// The device's verdict on the UDP/ICMP checksum.
    fn l4_checksum(&self) -> Checksum;
    /// Prefetches the frame if that is useful, as it is about to be processed.
    #[inline]
    fn prefetch(&self) {}
}

/// The checksums that a device computes for an outgoing frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxOffload {
    /// The length of the Ethernet header, including a VLAN tag, in bytes.
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

/// A frame to be sent: the payload is written first, then headers are prepended.
pub trait TxFrame {
    /// The whole payload area, which starts [`TX_HEADROOM`] bytes after the start of the frame's memory. Only valid
    /// before the first [`TxFrame::prepend`].
    fn payload_mut(&mut self) -> &mut [u8];
    /// Sets the payload's length. `len` is at most `payload_mut().len()`.
    fn set_payload_len(&mut self, len: usize);
    /// Extends the frame by `n` bytes at the front and returns them.
    ///
    /// # Panics
    /// If more than [`TX_HEADROOM`] bytes are prepended in total.
    fn prepend(&mut self, n: usize) -> &mut [u8];
    /// The frame as it will be sent: prepended headers and payload.
    fn data(&self) -> &[u8];
    /// The same, mutably, to modify headers.
    fn data_mut(&mut self) -> &mut [u8];
    /// Requests checksum offload that the device supports according to [`Caps`].
    fn set_offload(&mut self, offload: TxOffload);
}

/// The capabilities and properties of a queue pair's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The device's MAC address.
    pub mac: [u8; 6],
    /// The largest IP packet in bytes, for example 1500 or 9000.
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
    /// Frames that the device accepted for sending.
    pub tx_frames: u64,
    /// Bytes that the device accepted for sending.
    pub tx_bytes: u64,
    /// Frames that the device did not accept at the first attempt, because its ring was full or there is no peer. Each
    /// is counted once, however often it is retried.
    pub tx_full: u64,
    /// `tx_alloc` calls that found no free frame.
    pub tx_no_frame: u64,
    /// Bytes of chained frames that had to be linearised.
    pub rx_linearized_bytes: u64,
    /// Frames dropped because they were too large to linearise.
    pub rx_oversize: u64,
    /// Frames dropped because the device (or the peer process) gave them lengths beyond their buffers.
    pub rx_out_of_bounds: u64,
    /// Bytes of frames copied out of memory that others can write to.
    pub rx_copied_bytes: u64,
    /// Frames dropped because no buffer was free to copy them to.
    pub rx_no_frame: u64,
    /// Received frames dropped because the core they were spread to ([`spread`]) has not kept up.
    pub spread_full: u64,
    /// Frames recorded in a capture ([`pcap`]).
    pub captured: u64,
    /// Frames missing in a capture, because it could not be written, or not fast enough.
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
            ("port_spread_full", self.spread_full),
            ("port_captured", self.captured),
            ("port_capture_missed", self.capture_missed),
        ]
        .into_iter()
    }
}

/// The number of frames at the front of a burst that a device refused and that are already counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused(usize);

impl Refused {
    /// Returns whether there are any.
    #[inline]
    pub fn any(self) -> bool {
        self.0 > 0
    }

    /// Notes that the device accepted `sent` frames of a burst and left `left`. Returns how many of these it refused
    /// for the first time.
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

    /// The device's capabilities.
    fn caps(&self) -> Caps;
    /// Returns whether the link is up (or the peer process is connected).
    fn link_up(&mut self) -> bool;
    /// The reason why the link is down and a remedy, if known. For messages; may be slow.
    fn link_problem(&self) -> Option<String> {
        None
    }
    /// The reason why the device is gone for good (unplugged, deleted), if it is. Only asked while the link is down; may be
    /// slow.
    fn removed(&self) -> Option<String> {
        None
    }
    /// Accepts frames for these multicast addresses and, if the device can filter, no longer for the previous ones. May
    /// be slow.
    fn set_multicast(&mut self, _groups: &[[u8; 6]]) {}
    /// Enables wake-ups: [`Datapath::wake_file`] becomes readable with the first frame that arrives from now on. Frames
    /// that have already arrived may not count, so a core polls once more before it sleeps. Returns `false` if nothing
    /// can wake it.
    fn arm(&mut self) -> bool {
        false
    }
    /// The file that becomes readable with a frame, between [`Datapath::arm`] and [`Datapath::disarm`].
    fn wake_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Disables wake-ups, which cost the sender.
    fn disarm(&mut self) {}
    /// Returns whether a core may sleep until something wakes it. Asked after the last poll before it sleeps. `armed` is
    /// what [`Datapath::arm`] returned; `called` tells whether the other cores wake this one for what they pass to it
    /// ([`Datapath::passed_on`]).
    fn wakes(&self, armed: bool, called: bool) -> bool {
        let _ = called;
        armed
    }
    /// Returns whether a core that ends must still poll this queue pair, because of frames that other cores send through
    /// it. `ended` tells whether the other cores had ended before the last poll.
    fn is_needed(&self, ended: bool) -> bool {
        let _ = ended;
        false
    }
    /// Calls `wake` for each core to which frames were passed since the last time, as these cores may sleep. Returns
    /// whether there was work for other cores. Only for queue pairs that cores share ([`spread`]).
    #[inline]
    fn passed_on(&mut self, wake: impl FnMut(u8)) -> bool {
        let _ = wake;
        false
    }
    /// Appends received frames to `burst` until it is full or none is left; returns their number.
    fn rx_burst(&mut self, burst: &mut Burst<Self::Rx>) -> usize;
    /// Frees a burst of received frames.
    #[inline]
    fn release(&mut self, burst: &mut Burst<Self::Rx>) {
        burst.clear();
    }
    /// Allocates an empty frame; `None` if the pool is exhausted for now.
    fn tx_alloc(&mut self) -> Option<Self::Tx>;
    /// Sends frames from the front of `burst`; frames that the ring does not accept stay in it. Returns the number of
    /// frames sent.
    fn tx_burst(&mut self, burst: &mut Burst<Self::Tx>) -> usize;
    /// Counters since start.
    fn stats(&self) -> DatapathStats;
}
