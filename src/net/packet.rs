//! Parsed packets, layer by layer.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::wire::checksum::Sum;
use crate::wire::eth::Mac;
use crate::wire::icmp::IcmpVersion;

/// A UDP datagram for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpDatagram {
    /// Our address and port that it was sent to.
    pub local: SocketAddr,
    /// The sender's address and port.
    pub remote: SocketAddr,
    /// Its two ECN bits.
    pub ecn: u8,
    /// The range of its payload in the frame.
    pub payload: Range<usize>,
}

/// A UDP datagram for us that belongs to a known flow. [`Net::flow`](super::Net::flow) returns its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowDatagram {
    /// The flow. The number becomes invalid when a frame that belongs to no known flow is received.
    pub flow: u8,
    /// Its two ECN bits.
    pub ecn: u8,
    /// Where its payload begins and ends in the frame.
    pub payload: [u16; 2],
}

/// A datagram of ours as quoted by an ICMP error. Anybody who knows or guesses addresses and ports can forge one; the
/// quoted part of the payload distinguishes them from those who have seen the datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Our address and port.
    pub local: SocketAddr,
    /// The remote address and port.
    pub remote: SocketAddr,
    /// The length of its payload in bytes; 0 if not quoted.
    pub len: u16,
    /// The range of the quoted part of its payload in the received frame.
    pub payload: Range<usize>,
}

/// The IP layer of a received packet, of either version.
#[derive(Clone, Debug)]
pub(super) struct IpPacket<'a> {
    pub(super) version: IcmpVersion,
    /// The source MAC address of the frame.
    pub(super) src_mac: Mac,
    /// Whether the frame was sent to our MAC address rather than to a group.
    pub(super) to_us: bool,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) ecn: u8,
    pub(super) hop_limit: u8,
    /// Its offset in the frame.
    pub(super) at: usize,
    /// The packet, headers included, without padding.
    pub(super) bytes: &'a [u8],
    /// Length of the IP headers.
    pub(super) header_len: usize,
}

impl<'a> IpPacket<'a> {
    /// The payload of the IP packet.
    pub(super) fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// The pseudo-header checksum for an upper layer of `len` bytes.
    pub(super) fn pseudo(&self, protocol: u8, len: usize) -> Sum {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Sum::new().pseudo_v4(src, dst, protocol, len as u16),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::new().pseudo_v6(src, dst, protocol, len as u32),
            _ => Sum::new(),
        }
    }
}
