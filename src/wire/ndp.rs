//! Neighbour discovery for IPv6 (RFC 4861), and the listener report without which switches may not forward its
//! multicasts (RFC 3810).

use std::net::Ipv6Addr;

use arrayvec::ArrayVec;

use crate::base::time::Duration;
use crate::wire::checksum::Sum;
use crate::wire::eth::Mac;
use crate::wire::ipv6::{PROTOCOL_ICMPV6, solicited_node};
use crate::wire::{be16, be32};

/// Length of a solicitation or advertisement with one link-layer address option, in bytes.
pub const NEIGHBOR_LEN: usize = 32;
/// Length of a solicitation without options, in bytes.
pub const QUERY_LEN: usize = 24;
/// The hop limit that proves that a message was not forwarded (RFC 4861 §3.1).
pub const HOP_LIMIT: u8 = 255;

const ROUTER_SOLICIT: u8 = 133;
const ROUTER_ADVERT: u8 = 134;
const NEIGHBOR_SOLICIT: u8 = 135;
const NEIGHBOR_ADVERT: u8 = 136;

/// Maximum number of options in a message. Router advertisements have the most: a few prefixes, routes and name
/// servers.
const MAX_OPTIONS: usize = 32;

const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// Flag bits of an advertisement.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Why a message must be discarded (RFC 4861 §6.1, §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NdpError {
    /// The message ends inside its fields or an option.
    #[error("neighbour discovery message of {0} bytes ends inside its fields or options")]
    Truncated(usize),
    /// An option has length zero.
    #[error("neighbour discovery option of length zero")]
    EmptyOption,
    /// The message has more options than any legitimate one.
    #[error("neighbour discovery message with more than {MAX_OPTIONS} options")]
    TooManyOptions,
    /// The target is a multicast group.
    #[error("neighbour discovery target {0} is a multicast group")]
    Target(Ipv6Addr),
    /// The code is not zero.
    #[error("neighbour discovery message with code {0}")]
    Code(u8),
    /// The type is not supported here.
    #[error("ICMPv6 type {0} is not a supported neighbour discovery message")]
    Kind(u8),
}

/// An on-link or autoconfiguration prefix (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Network address.
    pub address: Ipv6Addr,
    /// Number of significant bits of `address`.
    pub len: u8,
    /// Whether its addresses are on this link.
    pub on_link: bool,
    /// Whether it may be used for autoconfiguration.
    pub autonomous: bool,
    /// Seconds for which it is valid.
    pub valid_secs: u32,
}

/// The supported options. If one is repeated, the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Source link-layer address.
    pub source: Option<Mac>,
    /// Target link-layer address.
    pub target: Option<Mac>,
    /// MTU of the link in bytes.
    pub mtu: Option<u32>,
    /// Prefix information.
    pub prefix: Option<Prefix>,
}

impl Options {
    fn parse(mut bytes: &[u8]) -> Result<Self, NdpError> {
        let mut options = Self::default();
        let mut count = 0;
        while let [kind, words, ..] = *bytes {
            count += 1;
            if count > MAX_OPTIONS {
                return Err(NdpError::TooManyOptions);
            }
            let len = usize::from(words) * 8;
            if len == 0 {
                return Err(NdpError::EmptyOption);
            }
            let Some((option, rest)) = bytes.split_at_checked(len) else {
                return Err(NdpError::Truncated(bytes.len()));
            };
            let mac = option[2..].first_chunk().map(|mac| Mac(*mac));
            match kind {
                SOURCE_ADDRESS => options.source = mac,
                TARGET_ADDRESS => options.target = mac,
                3 => options.prefix = Self::prefix(option),
                5 => options.mtu = be32(option, 4),
                _ => {}
            }
            bytes = rest;
        }
        if bytes.is_empty() { Ok(options) } else { Err(NdpError::Truncated(bytes.len())) }
    }

    fn prefix(option: &[u8]) -> Option<Prefix> {
        let option = option.first_chunk::<32>()?;
        Some(Prefix {
            address: Ipv6Addr::from(*option[16..].first_chunk::<16>()?),
            len: option[2].min(128),
            on_link: option[3] & 0x80 != 0,
            autonomous: option[3] & 0x40 != 0,
            valid_secs: be32(option, 4)?,
        })
    }
}

/// A neighbour discovery message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ndp {
    /// Router solicitation.
    RouterSolicit {
        /// Options.
        options: Options,
    },
    /// Router advertisement.
    RouterAdvert {
        /// Hop limit to use; 0 is unspecified.
        hop_limit: u8,
        /// Lifetime as a default router in seconds; 0 if it is not one.
        lifetime_secs: u16,
        /// Options.
        options: Options,
    },
    /// Neighbour solicitation: asks for the link-layer address of `target`.
    NeighborSolicit {
        /// The requested address.
        target: Ipv6Addr,
        /// Options.
        options: Options,
    },
    /// Neighbour advertisement: `target` has the link-layer address in the options.
    NeighborAdvert {
        /// The advertised address.
        target: Ipv6Addr,
        /// Whether the sender is a router.
        router: bool,
        /// Whether it answers a solicitation.
        solicited: bool,
        /// Whether it overrides a cached address.
        replace: bool,
        /// Options.
        options: Options,
    },
}

impl Ndp {
    /// Parses an ICMPv6 message. The caller has to check hop limit and checksum.
    ///
    /// # Errors
    /// [`NdpError`] if the message must be discarded, or for another type.
    pub fn parse(message: &[u8]) -> Result<Self, NdpError> {
        let &[kind, code, ..] = message else {
            return Err(NdpError::Truncated(message.len()));
        };
        if code != 0 {
            return Err(NdpError::Code(code));
        }
        let fixed = match kind {
            ROUTER_SOLICIT => 8,
            ROUTER_ADVERT => 16,
            NEIGHBOR_SOLICIT | NEIGHBOR_ADVERT => 24,
            _ => return Err(NdpError::Kind(kind)),
        };
        let Some((fields, options)) = message.split_at_checked(fixed) else {
            return Err(NdpError::Truncated(message.len()));
        };
        let options = Options::parse(options)?;
        match kind {
            ROUTER_SOLICIT => return Ok(Self::RouterSolicit { options }),
            ROUTER_ADVERT => {
                let lifetime_secs = be16(fields, 6).unwrap_or(0);
                return Ok(Self::RouterAdvert { hop_limit: fields[4], lifetime_secs, options });
            }
            _ => {}
        }
        let target = Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| fields[8 + i]));
        if target.is_multicast() {
            return Err(NdpError::Target(target));
        }
        if kind == NEIGHBOR_SOLICIT {
            return Ok(Self::NeighborSolicit { target, options });
        }
        let flag = |bit: u8| fields[4] & bit != 0;
        let (router, solicited, replace) = (flag(ROUTER), flag(SOLICITED), flag(OVERRIDE));
        Ok(Self::NeighborAdvert { target, router, solicited, replace, options })
    }
}

/// Encodes a neighbour solicitation from `src` at `mac` for `target`, sent to `dst`.
pub fn neighbor_solicit(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> [u8; NEIGHBOR_LEN] {
    neighbor([NEIGHBOR_SOLICIT, 0], src, dst, target, [SOURCE_ADDRESS, 1], mac)
}

/// Encodes a neighbour solicitation without a link-layer address option. From the unspecified address, it asks whether
/// anyone uses `target` (duplicate address detection, RFC 4862 §5.4.2).
pub fn neighbor_query(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr) -> [u8; QUERY_LEN] {
    let mut out = [0; QUERY_LEN];
    out[0] = NEIGHBOR_SOLICIT;
    out[8..].copy_from_slice(&target.octets());
    let sum = Sum::new().pseudo_v6(src, dst, PROTOCOL_ICMPV6, QUERY_LEN as u32).bytes(&out);
    out[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    out
}

/// Encodes a neighbour advertisement from `src` to `dst`: `target` is at `mac`, which may `replace` a cached address.
pub fn neighbor_advert(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    mac: Mac,
    solicited: bool,
    replace: bool,
) -> [u8; NEIGHBOR_LEN] {
    let flags = if solicited { SOLICITED } else { 0 } | if replace { OVERRIDE } else { 0 };
    neighbor([NEIGHBOR_ADVERT, flags], src, dst, target, [TARGET_ADDRESS, 1], mac)
}

fn neighbor(
    [kind, flags]: [u8; 2],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    option: [u8; 2],
    mac: Mac,
) -> [u8; NEIGHBOR_LEN] {
    let mut out = [0; NEIGHBOR_LEN];
    out[0] = kind;
    out[4] = flags;
    out[8..24].copy_from_slice(&target.octets());
    out[24..26].copy_from_slice(&option);
    out[26..].copy_from_slice(&mac.0);
    let sum = Sum::new().pseudo_v6(src, dst, PROTOCOL_ICMPV6, NEIGHBOR_LEN as u32).bytes(&out);
    out[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    out
}

/// A multicast listener query of either version (RFC 2710 §3, RFC 3810 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerQuery {
    /// The queried group; unspecified for all groups.
    pub group: Ipv6Addr,
    /// Maximum delay of the answer.
    pub max_delay: Duration,
}

impl ListenerQuery {
    /// Its type.
    pub(crate) const KIND: u8 = 130;

    /// Parses an ICMPv6 message of this type; `None` for lengths that neither version has (RFC 3810 §8.1).
    pub fn parse(message: &[u8]) -> Option<Self> {
        let code = u32::from(be16(message, 4)?);
        let delay_ms = match message.len() {
            24 => code,
            28.. if code < 0x8000 => code,
            // A floating-point number with an exponent of three bits (RFC 3810 §5.1.3).
            28.. => (code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3),
            _ => return None,
        };
        let group = Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?);
        Some(Self { group, max_delay: Duration::from_millis(delay_ms.into()) })
    }
}

/// Destination of listener reports (RFC 3810 §5.2.14).
pub const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// The hop-by-hop header of a report: router alert (RFC 2711), padded.
pub const ROUTER_ALERT: [u8; 8] = [PROTOCOL_ICMPV6, 0, 5, 2, 0, 0, 1, 0];
/// Length of a report about one group, in bytes.
pub const REPORT_LEN: usize = 28;

/// Encodes a version 2 listener report from `src`: it listens to the solicited-node group of `address`, from any sender
/// (RFC 3810 §5.2). Without it, switches with multicast snooping do not deliver solicitations.
pub fn listener_report(src: Ipv6Addr, address: Ipv6Addr) -> [u8; REPORT_LEN] {
    let mut out: ArrayVec<u8, REPORT_LEN> = ArrayVec::new();
    // One record, "mode is exclude", no sources.
    out.extend([143, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0]);
    out.extend(solicited_node(address).octets());
    let sum = Sum::new().pseudo_v6(src, ALL_MLDV2_ROUTERS, PROTOCOL_ICMPV6, REPORT_LEN as u32).bytes(&out);
    let mut bytes = [0; REPORT_LEN];
    bytes.copy_from_slice(&out);
    bytes[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_both_ways() {
        let (a, b) = (address("fe80::1"), address("fe80::2"));
        let bytes = neighbor_solicit(a, solicited_node(b), b, MAC);
        let sum = Sum::new().pseudo_v6(a, solicited_node(b), PROTOCOL_ICMPV6, 32);
        assert!(sum.bytes(&bytes).is_valid());
        let options = Options { source: Some(MAC), ..Options::default() };
        assert_eq!(Ndp::parse(&bytes), Ok(Ndp::NeighborSolicit { target: b, options }));
        let bytes = neighbor_query(Ipv6Addr::UNSPECIFIED, solicited_node(b), b);
        let sum = Sum::new().pseudo_v6(Ipv6Addr::UNSPECIFIED, solicited_node(b), PROTOCOL_ICMPV6, 24);
        assert!(sum.bytes(&bytes).is_valid());
        assert_eq!(Ndp::parse(&bytes), Ok(Ndp::NeighborSolicit { target: b, options: Options::default() }));
        assert_eq!(neighbor_advert(b, a, b, MAC, false, false)[4], 0);
        let bytes = neighbor_advert(b, a, b, MAC, true, true);
        assert_eq!(bytes[4], 0x60);
        let options = Options { target: Some(MAC), ..Options::default() };
        let want = Ndp::NeighborAdvert { target: b, router: false, solicited: true, replace: true, options };
        assert_eq!(Ndp::parse(&bytes), Ok(want));
        assert_eq!(Ndp::parse(&bytes[..31]), Err(NdpError::Truncated(7)));
        assert_eq!(Ndp::parse(&bytes[..23]), Err(NdpError::Truncated(23)));
        let mut bad = bytes;
        bad[25] = 0;
        assert_eq!(Ndp::parse(&bad), Err(NdpError::EmptyOption));
        bad = bytes;
        bad[8] = 0xff;
        assert!(matches!(Ndp::parse(&bad), Err(NdpError::Target(_))));
        bad = bytes;
        bad[1] = 1;
        assert_eq!(Ndp::parse(&bad), Err(NdpError::Code(1)));
    }

    #[test]
    fn router_advertisement_with_every_option() {
        let mut bytes = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([1, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        bytes.extend([5, 1, 0, 0, 0, 0, 0x05, 0xdc]);
        bytes.extend([3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0]);
        bytes.extend(address("2001:db8:1::").octets());
        bytes.extend([25, 1, 0, 0, 0, 0, 0, 0]);
        let prefix =
            Prefix { address: address("2001:db8:1::"), len: 64, on_link: true, autonomous: true, valid_secs: 86400 };
        let options = Options { source: Some(MAC), target: None, mtu: Some(1500), prefix: Some(prefix) };
        assert_eq!(Ndp::parse(&bytes), Ok(Ndp::RouterAdvert { hop_limit: 64, lifetime_secs: 1800, options }));
        let with = |options: usize| [&bytes[..16], &[25, 1, 0, 0, 0, 0, 0, 0].repeat(options)[..]].concat();
        assert!(Ndp::parse(&with(32)).is_ok());
        assert_eq!(Ndp::parse(&with(33)), Err(NdpError::TooManyOptions));
        assert_eq!(Ndp::parse(&[133, 0, 0, 0, 0, 0, 0, 0]), Ok(Ndp::RouterSolicit { options: Options::default() }));
        assert_eq!(Ndp::parse(&[137, 0, 0, 0]), Err(NdpError::Kind(137)));
    }

    #[test]
    fn listener_queries_of_both_versions() {
        let query = |len: usize, code: u16| {
            let mut message = vec![0; len.max(24)];
            message[0] = 130;
            message[4..6].copy_from_slice(&code.to_be_bytes());
            message[8..24].copy_from_slice(&address("ff02::1:ff00:7").octets());
            message.truncate(len);
            ListenerQuery::parse(&message).map(|query| (query.group, query.max_delay.as_millis()))
        };
        let group = address("ff02::1:ff00:7");
        assert_eq!(query(24, 10_000), Some((group, 10_000)));
        assert_eq!(query(24, 0xffff), Some((group, 65_535)));
        assert_eq!(query(28, 0x7fff), Some((group, 32_767)));
        assert_eq!(query(44, 0x8000), Some((group, 32_768)));
        assert_eq!(query(28, 0xffff), Some((group, 8_387_584)));
        for len in [0, 5, 8, 23, 25, 26, 27] {
            assert_eq!(query(len, 0), None, "{len}");
        }
    }

    #[test]
    fn listener_report_is_intact() {
        let src = address("fe80::1");
        let bytes = listener_report(src, address("2001:db8::5678:1"));
        assert!(Sum::new().pseudo_v6(src, ALL_MLDV2_ROUTERS, PROTOCOL_ICMPV6, 28).bytes(&bytes).is_valid());
        assert_eq!(bytes[12..], address("ff02::1:ff78:1").octets());
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes in proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..120), kind in 133u8..138) {
            let _ = Ndp::parse(&bytes);
            if bytes.len() >= 2 {
                bytes[0] = kind;
                bytes[1] = 0;
                let _ = Ndp::parse(&bytes);
            }
        }
    }
}
