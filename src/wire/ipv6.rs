//! IPv6 headers (RFC 8200). Extension headers are skipped, and fragments only detected.

use std::net::Ipv6Addr;

use crate::wire::be16;

/// Length of an IPv6 header without extensions, in bytes.
pub const IPV6_LEN: usize = 40;
/// Minimum MTU of IPv6 links, in bytes (RFC 8200 §5).
pub const IPV6_MIN_MTU: u16 = 1280;
/// Next-header number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// The all-nodes multicast address of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// Padding options.
const PAD_1: u8 = 0;
const PAD_N: u8 = 1;
/// Maximum number of options in all headers of a packet, not counting padding (RFC 8504 §5.3).
const MAX_OPTIONS: usize = 8;
/// Maximum number of consecutive bytes of padding, as more would cross an 8-byte boundary (RFC 8504 §5.3).
const MAX_PADDING: usize = 7;

/// Why an IPv6 packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ipv6Error {
    /// The packet ends inside a header.
    #[error("packet of {0} bytes ends inside an IPv6 header")]
    Truncated(usize),
    /// The IP version is not 6.
    #[error("IP version {0} in an IPv6 packet")]
    Version(u8),
    /// The payload length is more than the available bytes.
    #[error("IPv6 payload length {0} does not fit the packet")]
    PayloadLength(u16),
    /// An extension header out of place or repeated, an unknown option that must not be ignored, or excessive options
    /// or padding.
    #[error("IPv6 extension header {0} cannot be skipped")]
    Extension(u8),
}

/// The relevant fields of an IPv6 header and its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Protocol of the payload, after all extensions.
    pub protocol: u8,
    /// ECN bits (RFC 3168).
    pub ecn: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Length of all headers, in bytes.
    pub header_len: usize,
    /// Length of headers and payload, in bytes; bytes beyond it are padding.
    pub total_len: usize,
    /// Whether it is a part of a larger packet. `protocol` and `header_len` then describe the fragment header.
    pub fragment: bool,
}

impl Ipv6 {
    /// Parses the headers of `packet`.
    ///
    /// # Errors
    /// [`Ipv6Error`] if lengths do not fit `packet`, for another version, or for extensions that forbid processing.
    pub fn parse(packet: &[u8]) -> Result<Self, Ipv6Error> {
        let mut ip = Self::parse_quoted(packet)?;
        let Some(packet) = packet.get(..ip.total_len) else {
            return Err(Ipv6Error::PayloadLength((ip.total_len - IPV6_LEN) as u16));
        };
        if matches!(ip.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            ip.skip_extensions(packet)?;
        }
        Ok(ip)
    }

    /// Parses only the fixed header, of a packet quoted in an ICMPv6 message.
    ///
    /// # Errors
    /// [`Ipv6Error`] if the header is truncated, or for another version.
    pub fn parse_quoted(packet: &[u8]) -> Result<Self, Ipv6Error> {
        let Some(h) = packet.first_chunk::<IPV6_LEN>() else {
            return Err(Ipv6Error::Truncated(packet.len()));
        };
        if h[0] >> 4 != 6 {
            return Err(Ipv6Error::Version(h[0] >> 4));
        }
        let address = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| h[at + i]));
        Ok(Self {
            src: address(8),
            dst: address(24),
            protocol: h[6],
            ecn: (h[1] >> 4) & 3,
            hop_limit: h[7],
            header_len: IPV6_LEN,
            total_len: IPV6_LEN + usize::from(u16::from_be_bytes([h[4], h[5]])),
            fragment: false,
        })
    }

    /// Skips extension headers: each kind once, and destination options twice (RFC 8200 §4.1).
    fn skip_extensions(&mut self, packet: &[u8]) -> Result<(), Ipv6Error> {
        let mut options = MAX_OPTIONS;
        let (mut routings, mut fragments, mut destinations) = (0, 0, 0);
        let mut first = true;
        loop {
            let kind = self.protocol;
            if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
                return Ok(());
            }
            let Some(&[next, words, _, third, ..]) = packet[self.header_len..].first_chunk::<8>() else {
                return Err(Ipv6Error::Truncated(packet.len()));
            };
            let len = if kind == FRAGMENT { 8 } else { 8 + usize::from(words) * 8 };
            let Some(extension) = packet.get(self.header_len..self.header_len + len) else {
                return Err(Ipv6Error::Truncated(packet.len()));
            };
            match kind {
                // An atomic fragment is a complete packet (RFC 6946 §4).
                FRAGMENT if be16(extension, 2).is_some_and(|field| field & 0xfff9 != 0) => {
                    self.fragment = true;
                    return Ok(());
                }
                FRAGMENT => fragments += 1,
                // Hop-by-hop options must come first (RFC 8200 §4.1).
                HOP_BY_HOP if !first => return Err(Ipv6Error::Extension(kind)),
                // We do not forward, so no segments may be left (RFC 8200 §4.4).
                ROUTING if third != 0 => return Err(Ipv6Error::Extension(kind)),
                ROUTING => routings += 1,
                _ => {
                    destinations += usize::from(kind == DESTINATION);
                    options = skip_options(&extension[2..], options).ok_or(Ipv6Error::Extension(kind))?;
                }
            }
            if routings > 1 || fragments > 1 || destinations > 2 {
                return Err(Ipv6Error::Extension(kind));
            }
            self.protocol = next;
            self.header_len += len;
            first = false;
        }
    }

    /// Source and destination port of the UDP packet quoted after this header.
    pub fn quoted_ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        if self.protocol != crate::wire::ipv4::PROTOCOL_UDP || self.fragment {
            return None;
        }
        be16(packet, self.header_len).zip(be16(packet, self.header_len + 2))
    }
}

/// Skips options if all are well-formed and may be ignored if unknown (RFC 8200 §4.2). At most `max` of them are
/// allowed, not counting padding; returns how many more there could have been. This bounds the cost independently of
/// the number of bytes sent.
fn skip_options(mut options: &[u8], mut max: usize) -> Option<usize> {
    let mut padding = 0;
    while let [kind, rest @ ..] = options {
        // Pad1 is a single byte; all others have a length (RFC 8200 §4.2).
        let len = if *kind == PAD_1 { 1 } else { 2 + usize::from(*rest.first()?) };
        if matches!(*kind, PAD_1 | PAD_N) {
            padding += len;
        } else {
            padding = 0;
            max = max.checked_sub(1)?;
        }
        if padding > MAX_PADDING || kind >> 6 != 0 {
            return None;
        }
        options = options.get(len..)?;
    }
    Some(max)
}

/// Encodes a header without extensions, with DSCP 0. The lowest 20 bits of `flow` are the flow label (RFC 6437).
pub fn header(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    protocol: u8,
    hop_limit: u8,
    ecn: u8,
    flow: u32,
    payload_len: usize,
) -> [u8; IPV6_LEN] {
    let mut h = [0; IPV6_LEN];
    let first = 6 << 28 | u32::from(ecn & 3) << 20 | flow & 0xf_ffff;
    h[..4].copy_from_slice(&first.to_be_bytes());
    h[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    h[6] = protocol;
    h[7] = hop_limit;
    h[8..24].copy_from_slice(&src.octets());
    h[24..].copy_from_slice(&dst.octets());
    h
}

/// The solicited-node multicast group of `address` (RFC 4291 §2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | o[13] as u16, u16::from_be_bytes([o[14], o[15]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::PROTOCOL_UDP;
    use proptest::prelude::*;

    fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (src, dst) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        [&header(src, dst, protocol, 64, 2, 0xabcde, payload.len())[..], payload].concat()
    }

    #[test]
    fn reads_and_writes_the_fixed_header() {
        let bytes = packet(PROTOCOL_UDP, &[1, 2, 3, 4]);
        assert_eq!(bytes[..8], [0x60, 0x2a, 0xbc, 0xde, 0, 4, 17, 64]);
        let ip = Ipv6::parse(&bytes).unwrap();
        assert_eq!((ip.protocol, ip.ecn, ip.hop_limit, ip.header_len, ip.total_len), (17, 2, 64, 40, 44));
        assert_eq!(Ipv6::parse(&bytes[..43]), Err(Ipv6Error::PayloadLength(4)));
        assert_eq!(Ipv6::parse(&bytes[..39]), Err(Ipv6Error::Truncated(39)));
        assert_eq!(ip.quoted_ports(&bytes), Some((0x0102, 0x0304)));
    }

    #[test]
    fn steps_over_extensions() {
        let hop = [DESTINATION, 0, 5, 2, 0, 0, 1, 0];
        let dest = [PROTOCOL_UDP, 1, 1, 4, 0, 0, 0, 0, 0x1e, 6, 0, 0, 0, 0, 0, 0];
        let ip = Ipv6::parse(&packet(HOP_BY_HOP, &[&hop[..], &dest, &[0; 8]].concat())).unwrap();
        assert_eq!((ip.protocol, ip.header_len, ip.fragment), (PROTOCOL_UDP, 64, false));
        let atomic = [PROTOCOL_UDP, 0, 0, 0, 1, 2, 3, 4];
        assert!(!Ipv6::parse(&packet(FRAGMENT, &atomic)).unwrap().fragment);
        assert!(Ipv6::parse(&packet(FRAGMENT, &[PROTOCOL_UDP, 0, 0, 1, 1, 2, 3, 4])).unwrap().fragment);
        assert!(Ipv6::parse(&packet(FRAGMENT, &[PROTOCOL_UDP, 0, 0, 8, 1, 2, 3, 4])).unwrap().fragment);
        let routed = [PROTOCOL_UDP, 0, 4, 0, 0, 0, 0, 0];
        assert_eq!(Ipv6::parse(&packet(ROUTING, &routed)).unwrap().protocol, PROTOCOL_UDP);
    }

    #[test]
    fn refuses_what_must_not_be_stepped_over() {
        let left = [PROTOCOL_UDP, 0, 4, 1, 0, 0, 0, 0];
        assert_eq!(Ipv6::parse(&packet(ROUTING, &left)), Err(Ipv6Error::Extension(ROUTING)));
        let jumbo = [PROTOCOL_UDP, 0, 0xc2, 4, 0, 1, 0, 0];
        assert_eq!(Ipv6::parse(&packet(HOP_BY_HOP, &jumbo)), Err(Ipv6Error::Extension(HOP_BY_HOP)));
        let overrun = [PROTOCOL_UDP, 0, 1, 5, 0, 0, 0, 0];
        assert_eq!(Ipv6::parse(&packet(DESTINATION, &overrun)), Err(Ipv6Error::Extension(DESTINATION)));
        let late = [[HOP_BY_HOP, 0, 1, 4, 0, 0, 0, 0], [PROTOCOL_UDP, 0, 1, 4, 0, 0, 0, 0]].concat();
        assert_eq!(Ipv6::parse(&packet(DESTINATION, &late)), Err(Ipv6Error::Extension(HOP_BY_HOP)));
        let endless = [DESTINATION, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        assert_eq!(Ipv6::parse(&packet(DESTINATION, &endless)), Err(Ipv6Error::Extension(DESTINATION)));
        assert_eq!(Ipv6::parse(&packet(DESTINATION, &[17, 1, 1, 4, 0, 0, 0, 0])), Err(Ipv6Error::Truncated(48)));
    }

    /// Until 2026-11, each byte of padding was a step: 1,400 of them took 2.1 µs.
    #[test]
    fn what_options_cost_does_not_depend_on_the_bytes_spent() {
        let options = |options: &[u8]| {
            let mut extension = [&[PROTOCOL_UDP, 0][..], options].concat();
            extension.resize(extension.len().next_multiple_of(8), 0);
            extension[1] = (extension.len() / 8 - 1) as u8;
            Ipv6::parse(&packet(DESTINATION, &extension)).map(|ip| ip.header_len)
        };
        let refused = Err(Ipv6Error::Extension(DESTINATION));
        let unknown = [0x1e, 6, 0, 0, 0, 0, 0, 0];
        assert_eq!(options(&[0; 6]), Ok(48));
        assert_eq!(options(&[1, 5, 0, 0, 0, 0, 0, 0x1e, 5, 0, 0, 0, 0, 0]), Ok(56), "PadN of seven bytes");
        assert_eq!(options(&[0; 14]), refused, "padding across a boundary");
        assert_eq!(options(&[0; 1400]), refused);
        assert_eq!(options(&[1, 0].repeat(700)), refused);
        assert_eq!(options(&[&[1, 200][..], &[0; 200]].concat()), refused);
        assert_eq!(options(&unknown.repeat(8)[..62]), Err(Ipv6Error::Extension(DESTINATION)), "cut off");
        assert_eq!(options(&[&unknown.repeat(8)[..], &[0; 6]].concat()), Ok(40 + 72));
        assert_eq!(options(&[&unknown.repeat(9)[..], &[0; 6]].concat()), refused);
        let long = [&[0x1e, 248][..], &[0; 248]].concat();
        assert_eq!(options(&[&long.repeat(8)[..], &[0; 6]].concat()), Ok(40 + 2008), "bytes that are not read");
        // The same with several headers.
        let header = |next: u8| [&[next, 4][..], &unknown.repeat(4), &[0, 0, 0, 0, 0, 0]].concat();
        let twice = [header(DESTINATION), header(PROTOCOL_UDP)].concat();
        assert_eq!(Ipv6::parse(&packet(DESTINATION, &twice)).map(|ip| ip.header_len), Ok(120));
        let more = [header(DESTINATION), header(DESTINATION), header(PROTOCOL_UDP)].concat();
        assert_eq!(Ipv6::parse(&packet(DESTINATION, &more)).map(|ip| ip.header_len), refused);
        let routing = [ROUTING, 0, 4, 0, 0, 0, 0, 0];
        let repeated = [routing, routing].concat();
        assert_eq!(Ipv6::parse(&packet(ROUTING, &repeated)), Err(Ipv6Error::Extension(ROUTING)));
    }

    #[test]
    fn solicited_node_group() {
        // RFC 4291 §2.7.1: 4037::01:800:200E:8C6C gives FF02::1:FF0E:8C6C.
        let group = solicited_node("4037::1:800:200e:8c6c".parse().unwrap());
        assert_eq!(group, "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
    }

    proptest! {
        #[test]
        fn any_bytes(
            protocol in prop_oneof![Just(0u8), Just(43), Just(44), Just(60), any::<u8>()],
            mut payload in proptest::collection::vec(prop_oneof![0u8..3, Just(60u8), any::<u8>()], 0..120),
            cut in 0usize..160,
        ) {
            let bytes = packet(protocol, &payload);
            if let Ok(ip) = Ipv6::parse(&bytes) {
                prop_assert!(ip.header_len <= ip.total_len && ip.total_len <= bytes.len());
            }
            let _ = Ipv6::parse(&bytes[..cut.min(bytes.len())]);
            payload.truncate(cut);
            let _ = Ipv6::parse(&payload);
        }
    }
}
