//! What a received packet is, layer by layer.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::wire::checksum::Sum;
use crate::wire::eth::Mac;
use crate::wire::icmp::IcmpVersion;

/// A UDP datagram for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpDatagram {
    /// The address and port of ours that it was sent to.
    pub local: SocketAddr,
    /// Who sent it.
    pub remote: SocketAddr,
    /// Its two ECN bits.
    pub ecn: u8,
    /// Where in the frame its payload is.
    pub payload: Range<usize>,
}

/// A datagram of ours that the network tells of in an ICMP error, as far as the error quotes it. Whoever knows or guesses
/// addresses and ports can make one up; what is quoted of the payload tells strangers from those who have seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Our end.
    pub local: SocketAddr,
    /// The far end.
    pub remote: SocketAddr,
    /// Length of its payload in bytes; 0 if that is not quoted.
    pub len: u16,
    /// Where in the received frame its payload is, as much as is quoted.
    pub payload: Range<usize>,
}

/// The IP layer of a received packet, whichever version.
#[derive(Clone, Debug)]
pub(super) struct IpPacket<'a> {
    pub(super) version: IcmpVersion,
    /// Who sent the frame.
    pub(super) src_mac: Mac,
    /// Whether the frame was for our MAC address rather than a group.
    pub(super) to_us: bool,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) ecn: u8,
    pub(super) hop_limit: u8,
    /// Where it begins in its frame.
    pub(super) at: usize,
    /// The packet, headers included, without padding.
    pub(super) bytes: &'a [u8],
    /// Length of the IP headers.
    pub(super) header_len: usize,
}

impl<'a> IpPacket<'a> {
    /// What the IP headers carry.
    pub(super) fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// The pseudo-header's sum for an upper layer of `len` bytes.
    pub(super) fn pseudo(&self, protocol: u8, len: usize) -> Sum {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Sum::new().pseudo_v4(src, dst, protocol, len as u16),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::new().pseudo_v6(src, dst, protocol, len as u32),
            _ => Sum::new(),
        }
    }
}
