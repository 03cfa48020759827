//! Packet headers (RFC 8999, RFC 9000 §17, RFC 9369 §3), packet numbers and header protection.

use core::ops::Range;

use thiserror::Error;

use crate::wire::quic::varint::{Reader, Writer};
use crate::wire::quic::{ConnectionId, Version};

/// Maximum length of a token accepted from a Retry packet, in bytes. Every Initial packet of the connection has to
/// contain it (RFC 9000 §17.2.5.3): in a datagram of 1200 bytes with connection IDs of 20 bytes, it leaves 129 bytes
/// for frames.
pub const MAX_TOKEN: usize = 1000;

const _: () = assert!(1 + 4 + 2 * (1 + ConnectionId::MAX) + 2 + MAX_TOKEN + 2 + 4 + 16 + 129 == 1200);

/// Packet types (RFC 9000 §17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketType {
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
    /// 1-RTT, with a short header.
    Short,
}

/// What is added to the packet types of version 1, modulo 4 (RFC 9369 §3.2).
const fn type_shift(version: Version) -> u8 {
    match version {
        Version::V1 => 0,
        Version::V2 => 1,
    }
}

/// The Type field of a long header (RFC 9000 §17.2); `None` for other packets.
const fn type_bits(version: Version, kind: PacketType) -> Option<u8> {
    let bits = match kind {
        PacketType::Initial => 0,
        PacketType::ZeroRtt => 1,
        PacketType::Handshake => 2,
        PacketType::Retry => 3,
        PacketType::VersionNegotiation | PacketType::Short => return None,
    };
    Some((bits + type_shift(version)) & 3)
}

/// The type of a packet whose long header has these bits in its Type field.
const fn packet_type(version: Version, bits: u8) -> PacketType {
    match bits.wrapping_sub(type_shift(version)) & 3 {
        0 => PacketType::Initial,
        1 => PacketType::ZeroRtt,
        2 => PacketType::Handshake,
        _ => PacketType::Retry,
    }
}

/// Why a header could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The datagram ends inside the header, or before the end of the packet.
    #[error("packet is truncated")]
    Truncated,
    /// The fixed bit is zero (RFC 9000 §17.2, §17.3).
    #[error("fixed bit is zero")]
    FixedBit,
    /// A connection ID in a version that we know has more than 20 bytes.
    #[error("connection ID of {0} bytes")]
    ConnectionIdLength(u8),
}

/// The unprotected part of a header. Offsets are from the start of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Packet type. Long headers of unknown versions count as [`PacketType::Initial`].
    pub kind: PacketType,
    /// Version of a long header; 0 for short headers.
    pub version: u32,
    /// Destination Connection ID; in unknown versions, its first 20 bytes.
    pub dcid: ConnectionId,
    /// Source Connection ID; empty for short headers.
    pub scid: ConnectionId,
    /// Range of the token of an Initial or Retry packet.
    pub token: Range<usize>,
    /// Offset of the packet number.
    pub pn_offset: usize,
    /// Length of the whole packet; another one may follow in the datagram.
    pub packet_len: usize,
}

impl Parsed {
    /// The version of a long header, if we know it.
    pub fn known_version(&self) -> Option<Version> {
        Version::of(self.version)
    }
}

/// The bit of the first byte that is 1 in all versions that we know, unless the receiver accepts any value (RFC 9287).
pub const FIXED_BIT: u8 = 0x40;

/// Decodes the header of the first packet in `datagram`. Short headers have a connection ID of `cid_len` bytes. The
/// fixed bit must be 1.
///
/// # Errors
/// [`HeaderError`]; the datagram must be dropped.
pub fn parse(datagram: &[u8], cid_len: usize) -> Result<Parsed, HeaderError> {
    let parsed = parse_greased(datagram, cid_len)?;
    // Other versions have no such bit.
    let free = parsed.kind != PacketType::Short && parsed.known_version().is_none();
    if free || datagram[0] & FIXED_BIT != 0 { Ok(parsed) } else { Err(HeaderError::FixedBit) }
}

/// Like [`parse`], for receivers that accept any value of the fixed bit (RFC 9287 §3).
///
/// # Errors
/// [`HeaderError`]; the datagram must be dropped.
pub fn parse_greased(datagram: &[u8], cid_len: usize) -> Result<Parsed, HeaderError> {
    let mut r = Reader::new(datagram);
    let first = r.u8().ok_or(HeaderError::Truncated)?;
    if first & 0x80 != 0 {
        return parse_long(first, r, datagram.len());
    }
    let dcid = r.bytes(cid_len).and_then(ConnectionId::new).ok_or(HeaderError::Truncated)?;
    Ok(Parsed {
        kind: PacketType::Short,
        version: 0,
        dcid,
        scid: ConnectionId::default(),
        token: 0..0,
        pn_offset: r.position(),
        packet_len: datagram.len(),
    })
}

fn parse_long(first: u8, mut r: Reader<'_>, len: usize) -> Result<Parsed, HeaderError> {
    let cut = HeaderError::Truncated;
    let version = r.u32().ok_or(cut)?;
    let known = Version::of(version);
    let dcid = cid(&mut r, known)?;
    let scid = cid(&mut r, known)?;
    let mut parsed = Parsed {
        kind: PacketType::Initial,
        version,
        dcid,
        scid,
        token: 0..0,
        pn_offset: r.position(),
        packet_len: len,
    };
    if version == 0 {
        // Without a complete version, it is invalid (RFC 8999 §6).
        let versions = len - parsed.pn_offset;
        if versions == 0 || !versions.is_multiple_of(4) {
            return Err(HeaderError::Truncated);
        }
        parsed.kind = PacketType::VersionNegotiation;
        return Ok(parsed);
    }
    let Some(known) = known else { return Ok(parsed) };
    parsed.kind = packet_type(known, first >> 4 & 3);
    if parsed.kind == PacketType::Retry {
        let tag = len.checked_sub(16).filter(|at| *at >= r.position()).ok_or(cut)?;
        parsed.token = r.position()..tag;
        return Ok(parsed);
    }
    if parsed.kind == PacketType::Initial {
        let token = r.prefixed().ok_or(cut)?;
        parsed.token = r.position() - token.len()..r.position();
    }
    let length = r.varint().and_then(|n| usize::try_from(n).ok()).ok_or(cut)?;
    if length > r.remaining() {
        return Err(cut);
    }
    parsed.pn_offset = r.position();
    parsed.packet_len = r.position() + length;
    Ok(parsed)
}

fn cid(r: &mut Reader<'_>, version: Option<Version>) -> Result<ConnectionId, HeaderError> {
    let len = r.u8().ok_or(HeaderError::Truncated)?;
    if version.is_some() && usize::from(len) > ConnectionId::MAX {
        return Err(HeaderError::ConnectionIdLength(len));
    }
    let bytes = r.bytes(usize::from(len)).ok_or(HeaderError::Truncated)?;
    Ok(ConnectionId::new(&bytes[..bytes.len().min(ConnectionId::MAX)]).expect("at most 20 bytes"))
}

/// The Version field of a long header; `None` for a short one.
pub fn raw_version(datagram: &[u8]) -> Option<u32> {
    let (first, rest) = datagram.split_first()?;
    rest.first_chunk().filter(|_| first & 0x80 != 0).map(|version| u32::from_be_bytes(*version))
}

/// The Destination Connection ID of a long header, whatever follows it (RFC 8999 §5.1).
pub fn raw_dcid(datagram: &[u8]) -> Option<&[u8]> {
    let (len, id) = datagram.get(5..)?.split_first()?;
    id.get(..usize::from(*len))
}

/// The complete Destination and Source Connection IDs of a long header of any version (RFC 8999 §5.1).
pub fn raw_cids(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let dcid = raw_dcid(datagram)?;
    let mut r = Reader::new(&datagram[6 + dcid.len()..]);
    let scid_len = r.u8()?;
    let scid = r.bytes(usize::from(scid_len))?;
    Some((dcid, scid))
}

/// The versions listed in a Version Negotiation packet (RFC 9000 §17.2.1).
pub fn versions(datagram: &[u8]) -> impl Iterator<Item = u32> + Clone + '_ {
    let skip = raw_cids(datagram).map_or(datagram.len(), |(dcid, scid)| 7 + dcid.len() + scid.len());
    datagram[skip..].chunks_exact(4).map(|v| u32::from_be_bytes([v[0], v[1], v[2], v[3]]))
}

/// Offsets of the variable parts of an encoded long header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongOffsets {
    /// Offset of the two-byte Length field, to be filled in when the length is known.
    pub length_offset: usize,
    /// Offset of the packet number.
    pub pn_offset: usize,
}

/// Encodes a long header with a two-byte Length field of zero and a packet number of `pn_len` (1 to 4) bytes. `None` if
/// `out` is too short, or `kind` is not Initial, 0-RTT or Handshake.
// It is the header's fields.
#[allow(clippy::too_many_arguments)]
pub fn encode_long(
    out: &mut [u8],
    version: Version,
    kind: PacketType,
    dcid: &[u8],
    scid: &[u8],
    token: &[u8],
    pn: u64,
    pn_len: usize,
) -> Option<LongOffsets> {
    let bits = type_bits(version, kind).filter(|_| kind != PacketType::Retry)?;
    let mut w = Writer::new(out);
    w.u8(0xc0 | bits << 4 | pn_bits(pn_len));
    w.u32(version.number());
    w.short(dcid);
    w.short(scid);
    if kind == PacketType::Initial {
        w.prefixed(token);
    }
    let length_offset = w.position();
    w.u16(0x4000);
    let pn_offset = w.position();
    packet_number(&mut w, pn, pn_len);
    w.finish()?;
    Some(LongOffsets { length_offset, pn_offset })
}

/// The bits of the first byte that encode the packet number's length.
const fn pn_bits(pn_len: usize) -> u8 {
    debug_assert!(pn_len >= 1 && pn_len <= 4);
    pn_len.wrapping_sub(1) as u8 & 3
}

/// The last `pn_len` bytes of a packet number, 1 to 4.
#[inline(always)]
fn packet_number(w: &mut Writer<'_>, pn: u64, pn_len: usize) {
    match pn_len {
        1 => w.u8(pn as u8),
        2 => w.u16(pn as u16),
        3 => w.bytes(&[(pn >> 16) as u8, (pn >> 8) as u8, pn as u8]),
        _ => w.u32(pn as u32),
    }
}

/// The Key Phase bit of a short header, at its place in the first byte.
pub const fn key_phase(phase: bool) -> u8 {
    (phase as u8) << 2
}

/// Encodes a short header with a packet number of `pn_len` (1 to 4) bytes; returns the packet number's offset. `bits`
/// are the fixed bit, the spin bit and the key phase at their places in the first byte. `None` if `out` is too short.
/// Bytes after the header may change as well.
#[inline]
pub fn encode_short(out: &mut [u8], bits: u8, dcid: &ConnectionId, pn: u64, pn_len: usize) -> Option<usize> {
    let first = bits | pn_bits(pn_len);
    let pn_offset = 1 + dcid.len();
    // Copies of constant length take only a few moves. Excess bytes are overwritten.
    if let Some(out) = out.first_chunk_mut::<{ 1 + ConnectionId::MAX + 4 }>() {
        out[0] = first;
        out[1..=ConnectionId::MAX].copy_from_slice(&dcid.bytes);
        let number = (pn as u32) << (8 * (4 - pn_len) as u32);
        out[pn_offset..pn_offset + 4].copy_from_slice(&number.to_be_bytes());
        return Some(pn_offset);
    }
    let mut w = Writer::new(out);
    w.u8(first);
    w.bytes(dcid);
    packet_number(&mut w, pn, pn_len);
    w.finish().map(|_| pn_offset)
}

/// Encodes a Version Negotiation packet (RFC 9000 §17.2.1); returns its length. `unused` fills the unused bits. `None`
/// if `out` is too short, or an ID has more than 255 bytes.
pub fn encode_version_negotiation(
    out: &mut [u8],
    unused: u8,
    dcid: &[u8],
    scid: &[u8],
    versions: &[u32],
) -> Option<usize> {
    let mut w = Writer::new(out);
    // The bit at the place of the fixed bit is set, for those who use it to distinguish QUIC from other protocols.
    w.u8(0xc0 | unused & 0x3f);
    w.u32(0);
    w.short(dcid);
    w.short(scid);
    for version in versions {
        w.u32(*version);
    }
    w.finish()
}

/// Encodes a Retry packet without its integrity tag (RFC 9000 §17.2.5); returns its length so far. `None` if `out` is
/// too short.
pub fn encode_retry(out: &mut [u8], version: Version, dcid: &[u8], scid: &[u8], token: &[u8]) -> Option<usize> {
    let mut w = Writer::new(out);
    w.u8(0xc0 | type_bits(version, PacketType::Retry)? << 4);
    w.u32(version.number());
    w.short(dcid);
    w.short(scid);
    w.bytes(token);
    w.finish()
}

/// The bits of the first byte that header protection covers (RFC 9001 §5.4.1).
const fn protected_bits(first: u8) -> u8 {
    if first & 0x80 != 0 { 0x0f } else { 0x1f }
}

/// Removes header protection; returns the first byte, the packet number's length and its truncated value.
///
/// # Panics
/// If `packet` has less than four bytes from `pn_offset` on.
pub fn remove_protection(packet: &mut [u8], pn_offset: usize, mask: [u8; 5]) -> (u8, usize, u64) {
    packet[0] ^= mask[0] & protected_bits(packet[0]);
    let first = packet[0];
    let pn_len = usize::from(first & 3) + 1;
    let mut pn = 0;
    for (byte, mask) in packet[pn_offset..pn_offset + pn_len].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
        pn = pn << 8 | u64::from(*byte);
    }
    (first, pn_len, pn)
}

/// A short header without protection; bytes after the packet number are unspecified.
pub type ShortHeader = [u8; 32];

/// Removes the protection of a short header without changing the packet: returns the header's bytes, its first byte,
/// the packet number's length and its truncated value.
///
/// The bytes are assembled in registers if the packet number ends within the first 16. Writing them to the packet and
/// reading them back for authentication would have to wait for all pending stores of the CPU, such as the contents of
/// the previous packet.
///
/// # Panics
/// If the packet number does not begin within the first 21 bytes, or `packet` has less than 16 bytes after the four
/// that begin with it.
#[inline(always)]
pub fn unprotected_short(packet: &[u8], pn_offset: usize, mask: [u8; 5]) -> (ShortHeader, u8, usize, u64) {
    let mut bytes = [0; 32];
    if pn_offset > 12 {
        bytes[..pn_offset + 4].copy_from_slice(&packet[..pn_offset + 4]);
        let (first, pn_len, pn) = remove_protection(&mut bytes, pn_offset, mask);
        return (bytes, first, pn_len, pn);
    }
    let header = u128::from_le_bytes(*packet.first_chunk().expect("a sample fits"));
    let first = header as u8 ^ mask[0] & 0x1f;
    let pn_len = usize::from(first & 3) + 1;
    let [_, pn_mask @ ..] = mask;
    let kept = u32::from_le_bytes(pn_mask) & (u32::MAX >> (32 - 8 * pn_len));
    let plain = header ^ u128::from(mask[0] & 0x1f) ^ u128::from(kept) << (8 * pn_offset);
    let pn = ((plain >> (8 * pn_offset)) as u32).swap_bytes() >> (32 - 8 * pn_len);
    bytes[..16].copy_from_slice(&plain.to_le_bytes());
    (bytes, first, pn_len, u64::from(pn))
}

/// Applies header protection (RFC 9001 §5.4.1).
///
/// # Panics
/// If `packet` is shorter than its packet number field.
pub fn apply_protection(packet: &mut [u8], pn_offset: usize, pn_len: usize, mask: [u8; 5]) {
    packet[0] ^= mask[0] & protected_bits(packet[0]);
    for (byte, mask) in packet[pn_offset..pn_offset + pn_len].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

/// Number of bytes needed for `pn` if the peer has acknowledged up to `largest_acked` (RFC 9000 §A.2).
pub fn pn_len(pn: u64, largest_acked: Option<u64>) -> usize {
    let unacked = largest_acked.map_or(pn + 1, |acked| pn - acked);
    match unacked {
        0..0x80 => 1,
        0x80..0x8000 => 2,
        0x8000..0x80_0000 => 3,
        _ => 4,
    }
}

/// Decodes the packet number closest to the next expected one (RFC 9000 §A.3).
pub fn decode_pn(largest: Option<u64>, truncated: u64, len: usize) -> u64 {
    let expected = largest.map_or(0, |n| n + 1);
    let window = 1 << (8 * len);
    let candidate = expected & !(window - 1) | truncated;
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packet_numbers_of_rfc_9000_appendix_a() {
        assert_eq!(pn_len(0xac5c02, Some(0xabe8b3)), 2);
        assert_eq!(pn_len(0xace8fe, Some(0xabe8b3)), 3);
        assert_eq!(decode_pn(Some(0xa82f30ea), 0x9b32, 2), 0xa82f9b32);
        assert_eq!(decode_pn(None, 0, 1), 0);
    }

    /// RFC 9000 §17.1.
    #[test]
    fn packet_numbers_are_sent_whole_until_one_is_acknowledged_and_leave_room_for_twice_the_distance() {
        for pn in (0..70_000).chain((1 << 22)..(1 << 22) + 100).chain((1 << 23) - 50..(1 << 23) + 50) {
            assert!(pn < 1 << (8 * pn_len(pn, None)), "{pn} is cut");
            for acked in [pn / 2, pn.saturating_sub(1), pn.saturating_sub(127), pn.saturating_sub(128)] {
                let len = pn_len(pn, Some(acked));
                assert!(1 << (8 * len) > 2 * (pn - acked), "{len} bytes for {pn} after {acked}");
            }
        }
    }

    proptest! {
        #[test]
        fn short_headers_lose_their_protection_in_registers_as_in_place(
            packet in proptest::collection::vec(any::<u8>(), 41), mask: [u8; 5], pn_offset in 1..=21usize,
        ) {
            let mut packet = packet;
            packet[0] &= 0x7f;
            let (bytes, first, pn_len, pn) = unprotected_short(&packet, pn_offset, mask);
            prop_assert_eq!(remove_protection(&mut packet, pn_offset, mask), (first, pn_len, pn));
            prop_assert_eq!(&bytes[..pn_offset + pn_len], &packet[..pn_offset + pn_len]);
        }
    }

    #[test]
    fn long_headers_have_the_types_of_their_version() {
        use PacketType::{Handshake, Initial, Retry, Short, VersionNegotiation, ZeroRtt};
        // RFC 9000 table 5, RFC 9369 §3.2.
        for (version, types) in
            [(Version::V1, [Initial, ZeroRtt, Handshake, Retry]), (Version::V2, [Retry, Initial, ZeroRtt, Handshake])]
        {
            for (bits, kind) in types.into_iter().enumerate() {
                assert_eq!(packet_type(version, bits as u8), kind);
                assert_eq!(type_bits(version, kind), Some(bits as u8));
            }
            assert_eq!((type_bits(version, Short), type_bits(version, VersionNegotiation)), (None, None));
        }
    }

    #[test]
    fn long_header_round_trip_and_coalescing() {
        let mut out = [0; 100];
        for version in Version::ALL {
            let at = encode_long(&mut out, version, PacketType::Initial, &[1; 8], &[2; 5], b"token", 0x1234, 2);
            let at = at.unwrap();
            let end = at.pn_offset + 30;
            out[at.length_offset..at.length_offset + 2].copy_from_slice(&(0x4000 | 30u16).to_be_bytes());
            let parsed = parse(&out, 8).unwrap();
            assert_eq!((parsed.kind, parsed.known_version()), (PacketType::Initial, Some(version)));
            assert_eq!((&*parsed.dcid, &*parsed.scid), (&[1; 8][..], &[2; 5][..]));
            assert_eq!(&out[parsed.token], b"token");
            assert_eq!((parsed.pn_offset, parsed.packet_len), (at.pn_offset, end));
            assert_eq!(parse(&out[..end - 1], 8), Err(HeaderError::Truncated));
        }
    }

    #[test]
    fn version_negotiation_round_trip() {
        let mut out = [0; 64];
        let len = encode_version_negotiation(&mut out, 0x15, &[1; 3], &[2; 4], &[7, 9]).unwrap();
        let parsed = parse(&out[..len], 8).unwrap();
        assert_eq!(parsed.kind, PacketType::VersionNegotiation);
        assert_eq!(versions(&out[..len]).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(raw_cids(&out[..len]).unwrap(), (&[1; 3][..], &[2; 4][..]));
        // At least one version, and no partial one.
        for cut in [1, 2, 3, 5, 6, 7, 8] {
            assert_eq!(parse(&out[..len - cut], 8), Err(HeaderError::Truncated), "{cut}");
        }
    }

    #[test]
    fn retry_token_ends_before_the_tag() {
        let mut out = [0; 64];
        for version in Version::ALL {
            let len = encode_retry(&mut out, version, &[1; 8], &[2; 8], b"tok").unwrap();
            let parsed = parse(&out[..len + 16], 8).unwrap();
            assert_eq!((parsed.kind, &out[parsed.token]), (PacketType::Retry, &b"tok"[..]));
        }
    }

    #[test]
    fn bad_headers_are_told_apart() {
        assert_eq!(parse(&[], 8), Err(HeaderError::Truncated));
        assert_eq!(parse(&[0; 20], 8), Err(HeaderError::FixedBit));
        assert_eq!(parse(&[0x40, 1, 2], 8), Err(HeaderError::Truncated));
        assert_eq!(parse(&[0xc0, 0, 0, 0, 1, 21], 8), Err(HeaderError::ConnectionIdLength(21)));
        assert_eq!(parse(&[0xc0, 0x6b, 0x33, 0x43, 0xcf, 21], 8), Err(HeaderError::ConnectionIdLength(21)));
        assert_eq!(parse(&[0xc0, 0, 0, 0, 1, 0, 21], 8), Err(HeaderError::ConnectionIdLength(21)));
        let long = |first: u8| [&[first, 0, 0, 0, 1, 1, 7, 1, 8, 0, 0x14][..], &[0; 20]].concat();
        assert_eq!(parse(&long(0x80), 8), Err(HeaderError::FixedBit));
        assert!(parse(&long(0xc0), 8).is_ok());
    }

    /// RFC 9287 §3: those who say so accept both values. Other versions do not have the bit (RFC 8999 §5.1).
    #[test]
    fn the_fixed_bit_matters_where_it_is_not_greased() {
        let long = |first: u8, version: u32| [&[first][..], &version.to_be_bytes(), &[0; 30]].concat();
        for (packet, known) in
            [(vec![0x3f; 30], true), (long(0xbf, 1), true), (long(0x80, 0x6b33_43cf), true), (long(0x80, 7), false)]
        {
            assert_eq!(parse(&packet, 8).err(), known.then_some(HeaderError::FixedBit), "{packet:x?}");
            assert!(parse_greased(&packet, 8).is_ok(), "{packet:x?}");
        }
    }

    /// Headers that fit exactly are written; with a byte less, they are refused.
    #[test]
    fn headers_that_do_not_fit_are_refused() {
        type Encoder<'a> = &'a dyn Fn(&mut [u8]) -> Option<usize>;
        let encoders: [Encoder<'_>; 5] = [
            &|out| {
                let at = encode_long(out, Version::V1, PacketType::Initial, &[1; 20], &[2; 20], &[3; 70], 9, 4);
                at.map(|at| at.pn_offset + 4)
            },
            &|out| {
                let at = encode_long(out, Version::V2, PacketType::Handshake, &[1; 20], &[2; 20], &[3; 70], 9, 3);
                at.map(|at| at.pn_offset + 3)
            },
            &|out| encode_short(out, 0x44, &ConnectionId::new(&[1; 20]).unwrap(), 1 << 40, 4).map(|at| at + 4),
            &|out| encode_version_negotiation(out, 0, &[1; 255], &[2; 255], &[1, 2]),
            &|out| encode_retry(out, Version::V1, &[1; 20], &[2; 20], &[3; 1500]),
        ];
        for (n, encode) in encoders.iter().enumerate() {
            let mut out = [0; 2000];
            let len = encode(&mut out).unwrap();
            for room in 0..len {
                assert_eq!(encode(&mut out[..room]), None, "encoder {n} with {room} of {len} bytes");
            }
            assert_eq!(encode(&mut out[..len]), Some(len));
        }
        let mut out = [0; 2000];
        assert_eq!(encode_long(&mut out, Version::V1, PacketType::Retry, &[], &[], &[], 0, 1), None);
        assert_eq!(encode_version_negotiation(&mut out, 0, &[0; 256], &[], &[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(parsed) = parse(&bytes, 8) {
                prop_assert!(parsed.packet_len <= bytes.len() && parsed.pn_offset <= parsed.packet_len);
                prop_assert!(parsed.token.end <= bytes.len());
            }
            let _ = versions(&bytes).count();
        }

        #[test]
        fn truncation_is_undone(acked in 0u64..1 << 61, ahead in (1u32..30).prop_flat_map(|n| 1..1u64 << n), part: f64) {
            // The receiver has seen packets up to some number after the acknowledged one, or even later ones.
            let pn = acked + ahead;
            let len = pn_len(pn, Some(acked));
            let truncated = pn & ((1 << (8 * len)) - 1);
            let seen = (ahead as f64 * part.fract().abs()) as u64;
            prop_assert_eq!(decode_pn(Some(acked + seen), truncated, len), pn);
            prop_assert_eq!(decode_pn(Some(pn + seen), truncated, len), pn, "it is late");
        }

        #[test]
        fn protection_round_trip(mask: [u8; 5], pn_len in 1usize..5, pn in 0u64..1 << 32) {
            let mut packet = [0u8; 40];
            let pn = pn & ((1 << (8 * pn_len)) - 1);
            let dcid = ConnectionId::new(&[9; 8]).unwrap();
            let at = encode_short(&mut packet, 0x44, &dcid, pn, pn_len).unwrap();
            let plain = packet;
            apply_protection(&mut packet, at, pn_len, mask);
            let (first, len, got) = remove_protection(&mut packet, at, mask);
            prop_assert_eq!((first, len, got), (plain[0], pn_len, pn));
            prop_assert_eq!(packet, plain);
        }
    }
}
