//! Ethernet II frames (RFC 894, RFC 2464) with at most one 802.1Q tag.

use std::fmt;
use std::net::Ipv6Addr;

use arrayvec::ArrayVec;

use crate::wire::be16;

/// Length of an Ethernet header without a tag, in bytes.
pub const ETH_LEN: usize = 14;
/// Length of a VLAN tag, in bytes.
pub const VLAN_LEN: usize = 4;
/// Minimum length of a frame without its frame check sequence, in bytes.
pub const MIN_FRAME: usize = 60;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Tag protocol of an 802.1Q tag.
const TPID_VLAN: u16 = 0x8100;
/// Tag protocols of an outer tag.
const TPID_OUTER: [u16; 2] = [0x88a8, 0x9100];
/// Below this value, the field is a length, not a type.
const MIN_ETHERTYPE: u16 = 0x0600;

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros, which is not an address.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit is set: multicast or broadcast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this can be the address of a station.
    pub fn is_station(self) -> bool {
        !self.is_group() && self != Self::ZERO
    }

    /// The destination of multicasts to `group` (RFC 2464 §7).
    pub const fn for_multicast(group: Ipv6Addr) -> Self {
        let o = group.octets();
        Self([0x33, 0x33, o[12], o[13], o[14], o[15]])
    }

    /// The link-local address derived by modified EUI-64 (RFC 2464 §4, §5).
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let hi = u16::from_be_bytes([a ^ 2, b]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, hi, (c as u16) << 8 | 0xff, 0xfe00 | d as u16, u16::from_be_bytes([e, f]))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Why a frame cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EthError {
    /// The frame ends inside its header.
    #[error("frame of {0} bytes ends inside its Ethernet header")]
    Truncated(usize),
    /// The frame has more than one VLAN tag.
    #[error("frame has more than one VLAN tag: strip the outer one before it reaches this port")]
    DoubleTagged,
    /// The frame has an 802.3 length instead of a type.
    #[error("802.3 frame with length field {0}: only Ethernet II is supported")]
    Not2(u16),
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthHeader {
    /// Destination address.
    pub dst: Mac,
    /// Source address.
    pub src: Mac,
    /// VLAN identifier, 1 to 4095; `None` also for a priority tag (identifier 0).
    pub vlan: Option<u16>,
    /// Type of the payload.
    pub ethertype: u16,
}

impl EthHeader {
    /// Parses the header; also returns its length.
    ///
    /// # Errors
    /// [`EthError`] if the frame is not Ethernet II with at most one tag.
    pub fn parse(frame: &[u8]) -> Result<(Self, usize), EthError> {
        let Some(header) = frame.first_chunk::<ETH_LEN>() else {
            return Err(EthError::Truncated(frame.len()));
        };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let mut eth = Self {
            dst: Mac([d0, d1, d2, d3, d4, d5]),
            src: Mac([s0, s1, s2, s3, s4, s5]),
            vlan: None,
            ethertype: u16::from_be_bytes([t0, t1]),
        };
        let mut len = ETH_LEN;
        if eth.ethertype == TPID_VLAN {
            let (Some(tag), Some(inner)) = (be16(frame, ETH_LEN), be16(frame, ETH_LEN + 2)) else {
                return Err(EthError::Truncated(frame.len()));
            };
            eth.vlan = Some(tag & 0x0fff).filter(|id| *id != 0);
            eth.ethertype = inner;
            len += VLAN_LEN;
        }
        match eth.ethertype {
            TPID_VLAN => Err(EthError::DoubleTagged),
            t if TPID_OUTER.contains(&t) => Err(EthError::DoubleTagged),
            t if t < MIN_ETHERTYPE => Err(EthError::Not2(t)),
            _ => Ok((eth, len)),
        }
    }

    /// Length of the encoded header in bytes.
    pub const fn wire_len(&self) -> usize {
        if self.vlan.is_some() { ETH_LEN + VLAN_LEN } else { ETH_LEN }
    }

    /// The encoded header.
    pub fn to_bytes(&self) -> ArrayVec<u8, { ETH_LEN + VLAN_LEN }> {
        let mut out = ArrayVec::new();
        out.extend(self.dst.0);
        out.extend(self.src.0);
        if let Some(id) = self.vlan {
            out.extend(TPID_VLAN.to_be_bytes());
            out.extend((id & 0x0fff).to_be_bytes());
        }
        out.extend(self.ethertype.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNTAGGED: [u8; 14] = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 9, 0x08, 0x00];

    #[test]
    fn reads_tags() {
        let (eth, len) = EthHeader::parse(&UNTAGGED).unwrap();
        assert_eq!((eth.vlan, eth.ethertype, len), (None, ETHERTYPE_IPV4, 14));
        assert_eq!(eth.dst.to_string(), "52:54:00:12:34:56");
        let tagged = |tag: [u8; 6]| [&UNTAGGED[..12], &tag].concat();
        let (eth, len) = EthHeader::parse(&tagged([0x81, 0, 0x60, 0x2a, 0x86, 0xdd])).unwrap();
        assert_eq!((eth.vlan, eth.ethertype, len), (Some(42), ETHERTYPE_IPV6, 18));
        let (eth, _) = EthHeader::parse(&tagged([0x81, 0, 0xe0, 0, 0x08, 0x06])).unwrap();
        assert_eq!((eth.vlan, eth.ethertype), (None, ETHERTYPE_ARP), "a priority tag is no VLAN");
        assert_eq!(EthHeader::parse(&tagged([0x81, 0, 0, 1, 0x81, 0])), Err(EthError::DoubleTagged));
        assert_eq!(EthHeader::parse(&tagged([0x88, 0xa8, 0, 1, 0x81, 0])), Err(EthError::DoubleTagged));
        assert_eq!(EthHeader::parse(&tagged([0x81, 0, 0, 1, 0x00, 0x40])), Err(EthError::Not2(0x40)));
        assert_eq!(EthHeader::parse(&tagged([0x81, 0, 0, 1, 0, 0])[..17]), Err(EthError::Truncated(17)));
        assert_eq!(EthHeader::parse(&UNTAGGED[..13]), Err(EthError::Truncated(13)));
    }

    #[test]
    fn addresses_made_from_others() {
        // RFC 2464 §4: 34-56-78-9A-BC-DE gives 36-56-78-FF-FE-9A-BC-DE.
        let mac = Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        assert_eq!(mac.link_local(), "fe80::3656:78ff:fe9a:bcde".parse::<Ipv6Addr>().unwrap());
        assert_eq!(Mac::for_multicast("ff02::1:ff28:9c5a".parse().unwrap()), Mac([0x33, 0x33, 0xff, 0x28, 0x9c, 0x5a]));
        assert!(mac.is_station() && !Mac::BROADCAST.is_station() && !Mac::ZERO.is_station());
    }

    proptest! {
        #[test]
        fn any_bytes_and_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..40), vlan in 0u16..4096) {
            let _ = EthHeader::parse(&bytes);
            let eth = EthHeader {
                dst: Mac([1, 2, 3, 4, 5, 6]), src: Mac([7; 6]), vlan: Some(vlan).filter(|v| *v != 0), ethertype: ETHERTYPE_ARP,
            };
            let out = eth.to_bytes();
            prop_assert_eq!(EthHeader::parse(&out), Ok((eth, eth.wire_len())));
        }
    }
}
