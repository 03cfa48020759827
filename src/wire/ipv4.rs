//! IPv4 headers (RFC 791). Options are skipped, and fragments only detected.

use std::net::Ipv4Addr;

use crate::wire::be16;
use crate::wire::checksum::Sum;

/// Length of an IPv4 header without options, in bytes.
pub const IPV4_LEN: usize = 20;
/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

const DONT_FRAGMENT: u16 = 0x4000;
/// Mask of "more fragments" and the fragment offset.
const FRAGMENT: u16 = 0x3fff;
const OFFSET: u16 = 0x1fff;

/// Why an IPv4 packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ipv4Error {
    /// The packet ends inside its header.
    #[error("packet of {0} bytes ends inside its IPv4 header")]
    Truncated(usize),
    /// The IP version is not 4.
    #[error("IP version {0} in an IPv4 packet")]
    Version(u8),
    /// The header length is below 20 bytes.
    #[error("IPv4 header length of {0} bytes is below 20")]
    HeaderLength(usize),
    /// The total length is less than the header's, or more than the available bytes.
    #[error("IPv4 total length {0} does not fit the packet")]
    TotalLength(u16),
}

/// The relevant fields of an IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// ECN bits (RFC 3168).
    pub ecn: u8,
    /// Time to live.
    pub ttl: u8,
    /// Header length with options, in bytes.
    pub header_len: usize,
    /// Length of header and payload, in bytes; bytes beyond it are padding.
    pub total_len: usize,
    /// Whether it is a part of a larger packet.
    pub fragment: bool,
    /// Whether it is a fragment other than the first, without an upper-layer header.
    pub later_fragment: bool,
}

impl Ipv4 {
    /// Parses the header of `packet`. The checksum is not verified; see [`Ipv4::checksum_ok`].
    ///
    /// # Errors
    /// [`Ipv4Error`] if lengths do not fit `packet`, or for another version.
    pub fn parse(packet: &[u8]) -> Result<Self, Ipv4Error> {
        let ip = Self::parse_quoted(packet)?;
        if ip.total_len < ip.header_len || ip.total_len > packet.len() {
            return Err(Ipv4Error::TotalLength(ip.total_len as u16));
        }
        Ok(ip)
    }

    /// Parses the header of a packet quoted in an ICMP message, which may be shorter than the total length.
    ///
    /// # Errors
    /// [`Ipv4Error`] if the header is truncated or malformed.
    pub fn parse_quoted(packet: &[u8]) -> Result<Self, Ipv4Error> {
        let Some(h) = packet.first_chunk::<IPV4_LEN>() else {
            return Err(Ipv4Error::Truncated(packet.len()));
        };
        if h[0] >> 4 != 4 {
            return Err(Ipv4Error::Version(h[0] >> 4));
        }
        let header_len = usize::from(h[0] & 0xf) * 4;
        if header_len < IPV4_LEN {
            return Err(Ipv4Error::HeaderLength(header_len));
        }
        if header_len > packet.len() {
            return Err(Ipv4Error::Truncated(packet.len()));
        }
        let fragment = u16::from_be_bytes([h[6], h[7]]);
        Ok(Self {
            src: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
            dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
            protocol: h[9],
            ecn: h[1] & 3,
            ttl: h[8],
            header_len,
            total_len: usize::from(u16::from_be_bytes([h[2], h[3]])),
            fragment: fragment & FRAGMENT != 0,
            later_fragment: fragment & OFFSET != 0,
        })
    }

    /// Whether the header checksum of `packet`, which has this header, is correct.
    pub fn checksum_ok(&self, packet: &[u8]) -> bool {
        packet.get(..self.header_len).is_some_and(|header| Sum::new().bytes(header).is_valid())
    }

    /// Source and destination port of the UDP packet quoted after this header.
    pub fn quoted_ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        if self.protocol != PROTOCOL_UDP || self.later_fragment {
            return None;
        }
        be16(packet, self.header_len).zip(be16(packet, self.header_len + 2))
    }
}

/// Encodes a header without options, with DSCP 0, "don't fragment", and identification 0, which is allowed in such
/// atomic datagrams (RFC 6864 §4.1).
pub fn header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, ttl: u8, ecn: u8, payload_len: usize) -> [u8; IPV4_LEN] {
    let mut h = [0; IPV4_LEN];
    h[0] = 0x45;
    h[1] = ecn & 3;
    h[2..4].copy_from_slice(&((IPV4_LEN + payload_len) as u16).to_be_bytes());
    h[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    h[8] = ttl;
    h[9] = protocol;
    h[12..16].copy_from_slice(&src.octets());
    h[16..20].copy_from_slice(&dst.octets());
    let checksum = Sum::new().bytes(&h).checksum();
    h[10..12].copy_from_slice(&checksum.to_be_bytes());
    h
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A well-known example: 192.168.0.1 to 192.168.0.199, UDP, checksum b861.
    const EXAMPLE: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8,
        0x00, 0xc7,
    ];

    #[test]
    fn reads_and_writes_a_known_header() {
        let mut packet = EXAMPLE.to_vec();
        packet.resize(120, 0);
        let ip = Ipv4::parse(&packet).unwrap();
        assert_eq!((ip.protocol, ip.ttl, ip.header_len, ip.total_len), (PROTOCOL_UDP, 64, 20, 115));
        assert!(ip.checksum_ok(&packet) && !ip.fragment);
        assert_eq!(header(ip.src, ip.dst, ip.protocol, 64, 0, 95), EXAMPLE);
        packet[1] ^= 1;
        assert!(!ip.checksum_ok(&packet));
    }

    #[test]
    fn refuses_lengths_that_lie() {
        let with = |at: usize, value: u8| {
            let mut packet = [0u8; 116];
            packet[..20].copy_from_slice(&EXAMPLE);
            packet[at] = value;
            Ipv4::parse(&packet)
        };
        assert_eq!(with(0, 0x65), Err(Ipv4Error::Version(6)));
        assert_eq!(with(0, 0x44), Err(Ipv4Error::HeaderLength(16)));
        assert_eq!(with(3, 19), Err(Ipv4Error::TotalLength(19)));
        assert_eq!(with(3, 117), Err(Ipv4Error::TotalLength(117)));
        assert_eq!(Ipv4::parse(&EXAMPLE[..19]), Err(Ipv4Error::Truncated(19)));
        assert_eq!(with(0, 0x4f).unwrap().header_len, 60);
        assert!(with(6, 0x20).unwrap().fragment, "more fragments");
        assert!(with(7, 1).unwrap().later_fragment);
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), fix: bool) {
            if fix && let Some(first) = bytes.first_mut() {
                *first = 0x40 | *first & 0xf;
            }
            if let Ok(ip) = Ipv4::parse(&bytes) {
                prop_assert!(ip.header_len <= ip.total_len && ip.total_len <= bytes.len());
                let _ = ip.checksum_ok(&bytes);
            }
            if let Ok(ip) = Ipv4::parse_quoted(&bytes) {
                let _ = ip.quoted_ports(&bytes);
            }
        }
    }
}
