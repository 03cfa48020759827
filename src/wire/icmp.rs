//! ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443): echo and errors. Neighbour discovery is in [`super::ndp`].

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::wire::checksum::Sum;
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::ndp::ListenerQuery;
use crate::wire::udp::UDP_LEN;
use crate::wire::{be16, be32};

/// Length of an ICMP header with the four bytes that follow it in every type, in bytes.
pub const ICMP_LEN: usize = 8;

/// The ICMP version; the two number their types differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpVersion {
    /// ICMP, for IPv4.
    V4,
    /// ICMPv6.
    V6,
}

impl IcmpVersion {
    const fn echo_request(self) -> u8 {
        if matches!(self, Self::V4) { 8 } else { 128 }
    }

    const fn echo_reply(self) -> u8 {
        if matches!(self, Self::V4) { 0 } else { 129 }
    }

    /// Type and code of "port unreachable".
    const fn port_unreachable(self) -> [u8; 2] {
        if matches!(self, Self::V4) { [3, 3] } else { [1, 4] }
    }
}

/// An ICMP message that ends inside its header, with its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ICMP message of {0} bytes ends inside its header")]
pub struct IcmpTruncated(pub usize);

/// An ICMP or ICMPv6 message. `quoted` starts with the IP header of the packet that an error refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp<'a> {
    /// Echo request. `rest` is identifier, sequence number and data, to be returned in the reply.
    EchoRequest {
        /// Everything after the checksum.
        rest: &'a [u8],
    },
    /// Echo reply.
    EchoReply,
    /// A packet was too big for a link ahead (RFC 1191 §4, RFC 4443 §3.2).
    PacketTooBig {
        /// MTU of that link in bytes; 0 if the router does not report it.
        mtu: u32,
        /// The packet, possibly truncated.
        quoted: &'a [u8],
    },
    /// The port is closed.
    PortUnreachable {
        /// The packet, possibly truncated.
        quoted: &'a [u8],
    },
    /// The network or host cannot be reached, or the packet is not allowed to (RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1,
    /// RFC 4443 §3.1).
    HostUnreachable {
        /// The packet, possibly truncated.
        quoted: &'a [u8],
    },
    /// Another error.
    OtherError {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The packet, possibly truncated.
        quoted: &'a [u8],
    },
    /// Neighbour discovery, types 133 to 137: the complete message, for [`super::ndp::Ndp::parse`].
    Ndp(&'a [u8]),
    /// Multicast listener query, type 130.
    ListenerQuery(ListenerQuery),
    /// Anything else.
    Other {
        /// Type.
        kind: u8,
    },
}

impl<'a> Icmp<'a> {
    /// Parses a message. The caller, or the device, verifies the checksum.
    ///
    /// # Errors
    /// If the message ends inside its header.
    pub fn parse(version: IcmpVersion, message: &'a [u8]) -> Result<Self, IcmpTruncated> {
        let Some((&[kind, code, ..], quoted)) = message.split_first_chunk::<ICMP_LEN>() else {
            return Err(IcmpTruncated(message.len()));
        };
        let rest = &message[4..];
        Ok(match (version, kind, code) {
            (IcmpVersion::V4, 8, 0) | (IcmpVersion::V6, 128, 0) => Self::EchoRequest { rest },
            (IcmpVersion::V4, 0, 0) | (IcmpVersion::V6, 129, 0) => Self::EchoReply,
            (IcmpVersion::V4, 3, 4) => Self::PacketTooBig { mtu: be16(message, 6).unwrap_or(0).into(), quoted },
            (IcmpVersion::V6, 2, _) => Self::PacketTooBig { mtu: be32(message, 4).unwrap_or(0), quoted },
            (IcmpVersion::V4, 3, 3) | (IcmpVersion::V6, 1, 4) => Self::PortUnreachable { quoted },
            (IcmpVersion::V4, 3, 0 | 1 | 6..=13) | (IcmpVersion::V6, 1, 0..=3 | 5 | 6) => {
                Self::HostUnreachable { quoted }
            }
            (IcmpVersion::V4, 3 | 4 | 11 | 12, _) | (IcmpVersion::V6, 0..=127, _) => {
                Self::OtherError { kind, code, quoted }
            }
            (IcmpVersion::V6, 133..=137, _) => Self::Ndp(message),
            (IcmpVersion::V6, ListenerQuery::KIND, _) => {
                ListenerQuery::parse(message).map_or(Self::Other { kind }, Self::ListenerQuery)
            }
            _ => Self::Other { kind },
        })
    }
}

/// A UDP packet quoted in an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedUdp {
    /// Source of the packet.
    pub src: SocketAddr,
    /// Destination of the packet.
    pub dst: SocketAddr,
    /// Length of its payload in bytes; 0 if not even its UDP header is quoted.
    pub len: u16,
    /// Range of the payload within the quote, as far as it is quoted.
    pub payload: Range<usize>,
}

impl QuotedUdp {
    /// Parses a quote, which begins with an IP header. `None` for protocols other than UDP, and if the ports are cut
    /// off.
    pub fn parse(version: IcmpVersion, quoted: &[u8]) -> Option<Self> {
        let (src, dst, ports, header_len): (IpAddr, IpAddr, _, _) = match version {
            IcmpVersion::V4 => {
                let ip = Ipv4::parse_quoted(quoted).ok()?;
                (ip.src.into(), ip.dst.into(), ip.quoted_ports(quoted)?, ip.header_len)
            }
            IcmpVersion::V6 => {
                let ip = Ipv6::parse_quoted(quoted).ok()?;
                (ip.src.into(), ip.dst.into(), ip.quoted_ports(quoted)?, ip.header_len)
            }
        };
        let start = header_len + UDP_LEN;
        let len = if quoted.len() < start { None } else { be16(quoted, header_len + 4)?.checked_sub(UDP_LEN as u16) };
        let payload = len.map_or(0..0, |len| start..quoted.len().min(start + usize::from(len)));
        let (src, dst) = (SocketAddr::new(src, ports.0), SocketAddr::new(dst, ports.1));
        Some(Self { src, dst, len: len.unwrap_or(0), payload })
    }
}

/// Type, code and checksum of the reply to an echo request, to be followed by `rest` as in [`Icmp::EchoRequest`].
/// `pseudo` is the sum of the pseudo-header for ICMPv6, and empty for ICMP.
pub fn echo_reply(version: IcmpVersion, pseudo: Sum, rest: &[u8]) -> [u8; 4] {
    first_word([version.echo_reply(), 0], pseudo, rest)
}

/// Type, code and checksum of an echo request; see [`echo_reply`].
pub fn echo_request(version: IcmpVersion, pseudo: Sum, rest: &[u8]) -> [u8; 4] {
    first_word([version.echo_request(), 0], pseudo, rest)
}

/// The eight bytes before the quoted packet in a "port unreachable".
pub fn port_unreachable(version: IcmpVersion, pseudo: Sum, quoted: &[u8]) -> [u8; ICMP_LEN] {
    let [a, b, c, d] = first_word(version.port_unreachable(), pseudo, quoted);
    [a, b, c, d, 0, 0, 0, 0]
}

fn first_word([kind, code]: [u8; 2], pseudo: Sum, rest: &[u8]) -> [u8; 4] {
    let [a, b] = pseudo.bytes(&[kind, code]).bytes(rest).checksum().to_be_bytes();
    [kind, code, a, b]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::{self, PROTOCOL_UDP};
    use crate::wire::ipv6;
    use proptest::prelude::*;

    /// Identifier 1, sequence 0x1f, and the 32 bytes that Windows sends; a request has checksum 4d3c.
    const PING: &[u8] = b"\x00\x01\x00\x1fabcdefghijklmnopqrstuvwabcdefghi";

    #[test]
    fn echo_both_ways() {
        assert_eq!(echo_request(IcmpVersion::V4, Sum::new(), PING), [8, 0, 0x4d, 0x3c]);
        assert_eq!(echo_reply(IcmpVersion::V4, Sum::new(), PING), [0, 0, 0x55, 0x3c]);
        let message = [&[8, 0, 0x4d, 0x3c], PING].concat();
        assert!(Sum::new().bytes(&message).is_valid());
        assert_eq!(Icmp::parse(IcmpVersion::V4, &message), Ok(Icmp::EchoRequest { rest: PING }));
        let (src, dst) = ("fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
        let pseudo = Sum::new().pseudo_v6(src, dst, ipv6::PROTOCOL_ICMPV6, 4 + PING.len() as u32);
        let message = [&echo_reply(IcmpVersion::V6, pseudo, PING), PING].concat();
        assert!(pseudo.bytes(&message).is_valid());
        assert_eq!(Icmp::parse(IcmpVersion::V6, &message), Ok(Icmp::EchoReply));
    }

    #[test]
    fn errors_name_the_quoted_flow() {
        let (a, b): (SocketAddr, SocketAddr) = ("10.0.0.1:4433".parse().unwrap(), "10.9.0.2:50000".parse().unwrap());
        let ip = ipv4::header([10, 0, 0, 1].into(), [10, 9, 0, 2].into(), PROTOCOL_UDP, 60, 0, 1400);
        let ports = [0x11, 0x51, 0xc3, 0x50, 0, 0, 0, 0];
        let message = [&[3, 4, 0, 0, 0, 0, 0x05, 0x14][..], &ip, &ports].concat();
        let Ok(Icmp::PacketTooBig { mtu: 1300, quoted }) = Icmp::parse(IcmpVersion::V4, &message) else {
            panic!("not taken for a packet too big");
        };
        let quote = |quoted: &[u8]| {
            let udp = QuotedUdp::parse(IcmpVersion::V4, quoted)?;
            Some((udp.src, udp.dst, udp.len, quoted[udp.payload].to_vec()))
        };
        let of = |len: u16, payload: &[u8]| Some((a, b, len, payload.to_vec()));
        assert_eq!(quote(&quoted[..24]), of(0, b""), "a UDP header says how long it is");
        assert_eq!(quote(&quoted[..23]), None, "ports cut off");
        let whole = [&ip[..], &[0x11, 0x51, 0xc3, 0x50, 0x05, 0x78, 0, 0], b"payload"].concat();
        assert_eq!(quote(&whole), of(1392, b"payload"));
        assert_eq!(quote(&whole[..28]), of(1392, b""));
        assert_eq!(quote(&whole[..27]), of(0, b""));
        let short = [&ip[..], &[0x11, 0x51, 0xc3, 0x50, 0, 10, 0, 0], b"payload"].concat();
        assert_eq!(quote(&short), of(2, b"pa"), "padding of the quote");
        let lie = [&ip[..], &[0x11, 0x51, 0xc3, 0x50, 0, 7, 0, 0], b"payload"].concat();
        assert_eq!(quote(&lie), of(0, b""));
        let (src, dst) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let ip = ipv6::header(src, dst, PROTOCOL_UDP, 60, 0, 0, 1400);
        let message = [&[2, 0, 0, 0, 0, 0, 0x05, 0x14][..], &ip, &ports].concat();
        let Ok(Icmp::PacketTooBig { mtu: 1300, quoted }) = Icmp::parse(IcmpVersion::V6, &message) else {
            panic!("not taken for a packet too big");
        };
        let udp = QuotedUdp::parse(IcmpVersion::V6, quoted).unwrap();
        assert_eq!((udp.src, udp.dst), (SocketAddr::new(src.into(), 4433), SocketAddr::new(dst.into(), 50000)));
        let unreachable = port_unreachable(IcmpVersion::V4, Sum::new(), quoted);
        assert!(Sum::new().bytes(&unreachable).bytes(quoted).is_valid());
        assert_eq!(
            Icmp::parse(IcmpVersion::V4, &[&unreachable, quoted].concat()),
            Ok(Icmp::PortUnreachable { quoted })
        );
    }

    #[test]
    fn unreachable_has_kinds() {
        let quoted = &[][..];
        for code in 0..16u8 {
            let message = |kind| [kind, code, 0, 0, 0, 0, 0, 0];
            let v4 = match code {
                2 | 5 | 14 | 15 => Icmp::OtherError { kind: 3, code, quoted },
                3 => Icmp::PortUnreachable { quoted },
                4 => Icmp::PacketTooBig { mtu: 0, quoted },
                _ => Icmp::HostUnreachable { quoted },
            };
            assert_eq!(Icmp::parse(IcmpVersion::V4, &message(3)), Ok(v4));
            let v6 = match code {
                4 => Icmp::PortUnreachable { quoted },
                0..=6 => Icmp::HostUnreachable { quoted },
                _ => Icmp::OtherError { kind: 1, code, quoted },
            };
            assert_eq!(Icmp::parse(IcmpVersion::V6, &message(1)), Ok(v6));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0u8..140) {
            for version in [IcmpVersion::V4, IcmpVersion::V6] {
                let mut bytes = bytes.clone();
                prop_assert_eq!(Icmp::parse(version, &bytes).is_err(), bytes.len() < ICMP_LEN);
                if let Some(udp) = QuotedUdp::parse(version, &bytes) {
                    prop_assert!(bytes.get(udp.payload).is_some());
                }
                if let Some(first) = bytes.first_mut() {
                    *first = kind;
                }
                let _ = Icmp::parse(version, &bytes);
            }
        }
    }
}
