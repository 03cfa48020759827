//! What an observer on the wire sees of QUIC: versions, packet types, connection IDs, addresses, ECN marks, sizes.
//! Nothing is decrypted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

/// QUIC version 1.
pub const V1: u32 = 1;

/// QUIC version 2 (RFC 9369 §3.1).
pub const V2: u32 = 0x6b33_43cf;

/// A server may send this many times the bytes that it has received from an address that it has not validated
/// (RFC 9000 §8.1).
const AMPLIFICATION: u64 = 3;

/// Types of packets that can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Initial.
    Initial,
    /// 0-RTT.
    ZeroRtt,
    /// Handshake.
    Handshake,
    /// Retry.
    Retry,
    /// Version Negotiation.
    VersionNegotiation,
    /// With a short header.
    Short,
    /// A long header of another version.
    Unknown,
}

/// A packet within a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet<'a> {
    kind: Kind,
    version: u32,
    dcid: &'a [u8],
    scid: &'a [u8],
    token: bool,
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let len = 1 << (first >> 6);
    let (value, rest) = bytes.split_at_checked(len)?;
    let value = value.iter().skip(1).fold(u64::from(first & 0x3f), |sum, b| sum << 8 | u64::from(*b));
    Some((value, rest))
}

fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// The first packet of a datagram, and what follows it.
fn packet(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let first = *bytes.first()?;
    if first & 0x80 == 0 {
        let short = Packet { kind: Kind::Short, version: 0, dcid: &bytes[1..], scid: &[], token: false };
        return Some((short, &[]));
    }
    let version = u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?);
    let (dcid, rest) = prefixed(bytes.get(5..)?)?;
    let (scid, rest) = prefixed(rest)?;
    let place = first >> 4 & 3;
    let kind = match version {
        0 => Kind::VersionNegotiation,
        V1 => [Kind::Initial, Kind::ZeroRtt, Kind::Handshake, Kind::Retry][usize::from(place)],
        V2 => [Kind::Retry, Kind::Initial, Kind::ZeroRtt, Kind::Handshake][usize::from(place)],
        _ => Kind::Unknown,
    };
    let mut seen = Packet { kind, version, dcid, scid, token: false };
    if matches!(kind, Kind::VersionNegotiation | Kind::Retry | Kind::Unknown) {
        return Some((seen, &[]));
    }
    let mut rest = rest;
    if kind == Kind::Initial {
        let (len, after) = varint(rest)?;
        let (token, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
        seen.token = !token.is_empty();
        rest = after;
    }
    let (len, after) = varint(rest)?;
    let (_, next) = after.split_at_checked(usize::try_from(len).ok()?)?;
    Some((seen, next))
}

/// What one side has sent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Bytes of the longest UDP payload.
    pub longest: usize,
    /// Datagrams by ECN codepoint.
    pub ecn: [u64; 4],
    /// Packets by type.
    pub kinds: BTreeMap<Kind, u64>,
    /// Versions of long headers other than those of Version Negotiation packets.
    pub versions: BTreeSet<u32>,
    /// Versions of Handshake packets.
    pub handshake_versions: BTreeSet<u32>,
    /// Initial packets with a token.
    pub with_token: u64,
    /// Smallest datagram with an Initial packet.
    pub smallest_initial: Option<usize>,
    /// Source connection IDs of its Handshake packets: one for each connection that comes so far.
    #[serde(skip)]
    handshakes: BTreeSet<Vec<u8>>,
}

impl Sent {
    /// Packets of a type.
    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }

    /// Connections of which there are Handshake packets.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    fn datagram(&mut self, ecn: u8, payload: &[u8]) {
        self.datagrams += 1;
        self.bytes += payload.len() as u64;
        self.longest = self.longest.max(payload.len());
        self.ecn[usize::from(ecn & 3)] += 1;
        let mut rest = payload;
        while let Some((packet, next)) = packet(rest) {
            *self.kinds.entry(packet.kind).or_default() += 1;
            if !matches!(packet.kind, Kind::Short | Kind::VersionNegotiation) {
                self.versions.insert(packet.version);
            }
            if packet.kind == Kind::Handshake {
                self.handshakes.insert(packet.scid.to_vec());
                self.handshake_versions.insert(packet.version);
            }
            if packet.kind == Kind::Initial {
                self.with_token += u64::from(packet.token);
                let smallest = self.smallest_initial.map_or(payload.len(), |least| least.min(payload.len()));
                self.smallest_initial = Some(smallest);
            }
            rest = next;
        }
    }
}

/// An address of a client, as the server sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// The address.
    pub address: SocketAddr,
    /// Bytes that the server has received from it.
    pub received: u64,
    /// Bytes that the server has sent to it.
    pub sent: u64,
    /// Whether the client has shown that it is there.
    validated: bool,
    /// Most bytes that the server has sent before that, and bytes received by then.
    pub before_validation: (u64, u64),
    /// Destination connection IDs of short headers, of the length that the server uses.
    #[serde(skip)]
    ids: BTreeSet<Vec<u8>>,
}

impl Source {
    /// Destination connection IDs of packets from here that were also used from `other`.
    pub fn shared_ids(&self, other: &Self) -> usize {
        self.ids.intersection(&other.ids).count()
    }

    /// Whether the server kept to the limit before the address was validated.
    pub fn kept_limit(&self) -> bool {
        self.before_validation.0 <= AMPLIFICATION * self.before_validation.1
    }
}

/// What is seen on the wire.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sight {
    /// What the client sent, before the link.
    pub client: Sent,
    /// What the server sent, before the link.
    pub server: Sent,
    /// The client's addresses as the server sees them, in the order of their appearance.
    pub sources: Vec<Source>,
    /// Length of the server's connection IDs.
    id_len: usize,
}

impl Sight {
    /// The client has sent a datagram.
    pub fn client_sent(&mut self, ecn: u8, payload: &[u8]) {
        self.client.datagram(ecn, payload);
    }

    /// A datagram arrives at the server.
    pub fn reaches_server(&mut self, from: SocketAddr, payload: &[u8]) {
        let len = self.id_len;
        let at = self.sources.iter().position(|s| s.address == from).unwrap_or_else(|| {
            self.sources.push(Source {
                address: from,
                received: 0,
                sent: 0,
                validated: false,
                before_validation: (0, 0),
                ids: BTreeSet::new(),
            });
            self.sources.len() - 1
        });
        let first = at == 0;
        let source = &mut self.sources[at];
        // Who has been sent something to another address, and goes on there, has probably answered a challenge.
        source.validated |= !first && source.sent > 0;
        source.received += payload.len() as u64;
        let mut rest = payload;
        while let Some((packet, next)) = packet(rest) {
            source.validated |= packet.kind == Kind::Handshake || packet.kind == Kind::Initial && packet.token;
            if packet.kind == Kind::Short && len > 0 {
                source.ids.extend(packet.dcid.get(..len).map(<[u8]>::to_vec));
            }
            rest = next;
        }
        if !source.validated {
            source.before_validation.1 = source.received;
        }
    }

    /// The server has sent a datagram.
    pub fn server_sent(&mut self, to: SocketAddr, ecn: u8, payload: &[u8]) {
        self.server.datagram(ecn, payload);
        if let Some((packet, _)) = packet(payload)
            && packet.kind == Kind::Handshake
        {
            self.id_len = packet.scid.len();
        }
        if let Some(source) = self.sources.iter_mut().find(|s| s.address == to) {
            source.sent += payload.len() as u64;
            if !source.validated {
                source.before_validation.0 = source.sent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long header with IDs of 2 and 3 bytes and a body of `len` bytes.
    fn long(first: u8, version: u32, token: Option<&[u8]>, len: u8) -> Vec<u8> {
        let mut out = vec![first];
        out.extend(version.to_be_bytes());
        out.extend([2, 1, 1, 3, 2, 2, 2]);
        if let Some(token) = token {
            out.push(token.len() as u8);
            out.extend(token);
        }
        out.push(len);
        out.extend(std::iter::repeat_n(0, len.into()));
        out
    }

    #[test]
    fn coalesced_packets_of_both_versions_are_told_apart() {
        let mut datagram = long(0xc0, V1, Some(b""), 20);
        datagram.extend(long(0xe0, V1, None, 10));
        datagram.extend([0x40; 30]);
        let mut sent = Sent::default();
        sent.datagram(2, &datagram);
        assert_eq!([Kind::Initial, Kind::Handshake, Kind::Short].map(|k| sent.count(k)), [1, 1, 1]);
        sent.datagram(3, &long(0xd0, V2, Some(b"token"), 20));
        sent.datagram(3, &long(0xf0, V2, None, 20));
        assert_eq!([Kind::Initial, Kind::Handshake].map(|k| sent.count(k)), [2, 2]);
        assert_eq!((sent.with_token, sent.handshakes(), sent.ecn), (1, 1, [0, 0, 1, 2]));
        assert_eq!(sent.versions.into_iter().collect::<Vec<_>>(), [V1, V2]);
        let mut garbage = Sent::default();
        (0..datagram.len()).for_each(|len| garbage.datagram(0, &datagram[..len]));
    }

    #[test]
    fn the_limit_before_validation_is_watched() {
        let mut sight = Sight::default();
        let (first, second) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap());
        sight.reaches_server(first, &long(0xc0, V1, Some(b""), 20));
        let received = sight.sources[0].received;
        for _ in 0..3 {
            sight.server_sent(first, 0, &vec![0xff; received as usize]);
        }
        assert!(sight.sources[0].kept_limit());
        sight.server_sent(first, 0, &[0xff]);
        assert!(!sight.sources[0].kept_limit());
        // Bytes that are sent after validation do not count.
        sight.reaches_server(second, &[0x40; 100]);
        sight.server_sent(second, 0, &[0x40; 300]);
        sight.reaches_server(second, &[0x40; 1]);
        sight.server_sent(second, 0, &[0x40; 1000]);
        assert!(sight.sources[1].kept_limit());
    }

    #[test]
    fn ids_that_two_addresses_share_are_seen() {
        let mut sight = Sight::default();
        let (first, second) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap());
        sight.server_sent(first, 0, &long(0xe0, V1, None, 20));
        sight.reaches_server(first, &[0x40, 1, 2, 3, 9]);
        sight.reaches_server(second, &[0x40, 1, 2, 3, 8]);
        assert_eq!(sight.sources[0].shared_ids(&sight.sources[1]), 1);
        sight.sources.pop();
        sight.reaches_server(second, &[0x40, 1, 2, 4, 8]);
        assert_eq!(sight.sources[0].shared_ids(&sight.sources[1]), 0);
    }
}
