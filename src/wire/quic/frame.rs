//! Frames (RFC 9000 §19, RFC 9221 §4, draft-ietf-quic-reliable-stream-reset-11 §4, draft-ietf-quic-ack-frequency-14
//! §4, §5).
//!
//! A STREAM or DATAGRAM frame is decoded without its data: the header describes where the data is, and the engine
//! decrypts it from the packet to its final place.

use core::ops::RangeInclusive;

use thiserror::Error;

use crate::base::range_set::RangeSet;
use crate::wire::quic::header::PacketType;
use crate::wire::quic::varint::{self, Reader, Writer};
use crate::wire::quic::{ConnectionId, StreamId};

const ACK: u64 = 0x02;
const STREAM: u64 = 0x08;
const STREAM_FIN: u64 = 0x01;
const STREAM_LEN: u64 = 0x02;
const STREAM_OFF: u64 = 0x04;
const DATAGRAM: u64 = 0x30;
const ACK_FREQUENCY: u64 = 0xaf;

/// Maximum number of streams of one kind (RFC 9000 §4.6).
pub const MAX_STREAMS: u64 = 1 << 60;

/// Why a frame could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes end within the frame.
    #[error("frame is truncated")]
    Incomplete,
    /// The frame type is not in its shortest encoding (RFC 9000 §12.4).
    #[error("frame type is not encoded in its shortest form")]
    NonMinimalType,
    /// A field has an invalid value.
    #[error("frame 0x{frame_type:x}: invalid {field}")]
    Invalid {
        /// The frame's type.
        frame_type: u64,
        /// The field.
        field: &'static str,
    },
    /// The frame type is unknown or was not negotiated.
    #[error("unknown frame type 0x{0:x}")]
    Unknown(u64),
}

/// ECN counts of an ACK frame (RFC 9000 §19.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// Packets with ECT(0).
    pub ect0: u64,
    /// Packets with ECT(1).
    pub ect1: u64,
    /// Packets with CE.
    pub ce: u64,
}

/// An ACK frame (RFC 9000 §19.3). Decoding has validated its ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckFrame<'a> {
    /// Largest packet number acknowledged.
    pub largest: u64,
    /// The ACK Delay field, in units given by the peer's exponent.
    pub delay: u64,
    /// ECN counts, if the frame is of type 0x03.
    pub ecn: Option<EcnCounts>,
    /// The first range's length and everything up to the ECN counts.
    ranges: &'a [u8],
}

impl<'a> AckFrame<'a> {
    /// The acknowledged packet numbers, highest range first.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + use<'a> {
        let mut r = Reader::new(self.ranges);
        let mut top = Some(self.largest);
        core::iter::from_fn(move || {
            let high = top?;
            let low = high - r.varint()?;
            // The encoded gap and length are one less than what they stand for.
            top = r.varint().map(|gap| low - gap - 2);
            Some(low..=high)
        })
    }
}

/// Header of a STREAM frame (RFC 9000 §19.8); the data follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The stream.
    pub id: StreamId,
    /// Offset of the first byte.
    pub offset: u64,
    /// Length of the data; `None` if it extends to the end of the packet.
    pub len: Option<u64>,
    /// Whether the data ends the stream.
    pub fin: bool,
}

impl StreamHeader {
    /// Decodes the header of a STREAM frame at the front of `data`, with the same result as [`Frame::decode`], and its
    /// encoded length. `None` for everything else, including errors, which [`Frame::decode`] reports.
    #[inline]
    pub fn decode(data: &[u8]) -> Option<(Self, usize)> {
        let frame_type = u64::from(*data.first()?);
        if frame_type & !(STREAM_OFF | STREAM_LEN | STREAM_FIN) != STREAM {
            return None;
        }
        let mut r = Reader::new(data);
        r.bytes(1)?;
        let header = stream_header(frame_type, &mut r)?;
        (header.offset + header.len.unwrap_or(0) <= varint::MAX).then_some((header, r.position()))
    }

    /// Length of the encoded header in bytes.
    pub fn encoded_len(&self) -> usize {
        let offset = if self.offset > 0 { varint::size(self.offset) } else { 0 };
        1 + varint::size(self.id.0) + offset + self.len.map_or(0, varint::size)
    }

    /// Encodes the header; the writer records whether it fits.
    #[inline(always)]
    pub fn encode(&self, w: &mut Writer<'_>) {
        let mut bits = STREAM | if self.fin { STREAM_FIN } else { 0 };
        if self.offset > 0 {
            bits |= STREAM_OFF;
        }
        if self.len.is_some() {
            bits |= STREAM_LEN;
        }
        w.u8(bits as u8);
        w.varint(self.id.0);
        if self.offset > 0 {
            w.varint(self.offset);
        }
        if let Some(len) = self.len {
            w.varint(len);
        }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Frame<'a> {
    /// A number of consecutive PADDING frames (RFC 9000 §19.1).
    Padding(usize),
    Ping,
    Ack(AckFrame<'a>),
    ResetStream {
        id: StreamId,
        code: u64,
        final_size: u64,
    },
    StopSending {
        id: StreamId,
        code: u64,
    },
    Crypto {
        offset: u64,
        data: &'a [u8],
    },
    NewToken {
        token: &'a [u8],
    },
    Stream(StreamHeader),
    MaxData(u64),
    MaxStreamData {
        id: StreamId,
        max: u64,
    },
    MaxStreams {
        bidi: bool,
        max: u64,
    },
    DataBlocked(u64),
    StreamDataBlocked {
        id: StreamId,
        limit: u64,
    },
    StreamsBlocked {
        bidi: bool,
        limit: u64,
    },
    NewConnectionId {
        seq: u64,
        retire_prior_to: u64,
        cid: ConnectionId,
        reset_token: [u8; 16],
    },
    RetireConnectionId {
        seq: u64,
    },
    PathChallenge([u8; 8]),
    PathResponse([u8; 8]),
    ConnectionClose {
        code: u64,
        frame_type: u64,
        reason: &'a [u8],
    },
    ApplicationClose {
        code: u64,
        reason: &'a [u8],
    },
    HandshakeDone,
    /// Header of a DATAGRAM frame (RFC 9221 §4); the data follows it, up to the end of the packet if `len` is `None`.
    Datagram {
        len: Option<u64>,
    },
    /// Abandons a stream but for its first bytes (draft-ietf-quic-reliable-stream-reset-11 §4).
    ResetStreamAt {
        id: StreamId,
        code: u64,
        final_size: u64,
        reliable_size: u64,
    },
    /// Asks the receiver to change when it acknowledges (draft-ietf-quic-ack-frequency-14 §4). The delay is in
    /// microseconds.
    AckFrequency {
        seq: u64,
        threshold: u64,
        max_delay: u64,
        reordering: u64,
    },
    /// Asks for an acknowledgement at once (draft-ietf-quic-ack-frequency-14 §5).
    ImmediateAck,
}

impl<'a> Frame<'a> {
    /// Decodes the frame at the front of `data`; also returns its length (without the data of STREAM and DATAGRAM
    /// frames).
    ///
    /// # Errors
    /// [`FrameError`]; only `Incomplete` may be resolved by more bytes.
    pub fn decode(data: &'a [u8]) -> Result<(Self, usize), FrameError> {
        let mut r = Reader::new(data);
        let frame_type = r.varint().ok_or(FrameError::Incomplete)?;
        if r.position() != varint::size(frame_type) {
            return Err(FrameError::NonMinimalType);
        }
        let frame = match frame_type {
            0x00 => {
                let run = zeros(data);
                return Ok((Self::Padding(run), run));
            }
            0x08..=0x0f => Self::Stream(stream_header(frame_type, &mut r).ok_or(FrameError::Incomplete)?),
            ACK | 0x03 => Self::Ack(ack(frame_type, &mut r)?),
            DATAGRAM => Self::Datagram { len: None },
            0x31 => Self::Datagram { len: Some(r.varint().ok_or(FrameError::Incomplete)?) },
            _ => body(frame_type, &mut r).ok_or(FrameError::Incomplete)?.ok_or(FrameError::Unknown(frame_type))?,
        };
        frame.check()?;
        Ok((frame, r.position()))
    }

    /// Checks limits of fields that are not part of their encoding.
    fn check(&self) -> Result<(), FrameError> {
        let bad = |field| Err(FrameError::Invalid { frame_type: self.frame_type(), field });
        match self {
            Self::Stream(s) if s.offset + s.len.unwrap_or(0) > varint::MAX => bad("end offset"),
            Self::Crypto { offset, data } if offset + data.len() as u64 > varint::MAX => bad("end offset"),
            Self::MaxStreams { max: n, .. } | Self::StreamsBlocked { limit: n, .. } if *n > MAX_STREAMS => {
                bad("stream count")
            }
            Self::ResetStreamAt { final_size, reliable_size, .. } if reliable_size > final_size => bad("Reliable Size"),
            Self::NewToken { token: [] } => bad("token length"),
            Self::NewConnectionId { cid, .. } if cid.is_empty() => bad("connection ID length"),
            Self::NewConnectionId { seq, retire_prior_to, .. } if retire_prior_to > seq => bad("Retire Prior To"),
            _ => Ok(()),
        }
    }

    /// The frame's type.
    pub fn frame_type(&self) -> u64 {
        match self {
            Self::Padding(_) => 0x00,
            Self::Ping => 0x01,
            Self::Ack(ack) => ACK | u64::from(ack.ecn.is_some()),
            Self::ResetStream { .. } => 0x04,
            Self::StopSending { .. } => 0x05,
            Self::Crypto { .. } => 0x06,
            Self::NewToken { .. } => 0x07,
            Self::Stream(_) => STREAM,
            Self::MaxData(_) => 0x10,
            Self::MaxStreamData { .. } => 0x11,
            Self::MaxStreams { bidi, .. } => 0x12 | u64::from(!bidi),
            Self::DataBlocked(_) => 0x14,
            Self::StreamDataBlocked { .. } => 0x15,
            Self::StreamsBlocked { bidi, .. } => 0x16 | u64::from(!bidi),
            Self::NewConnectionId { .. } => 0x18,
            Self::RetireConnectionId { .. } => 0x19,
            Self::PathChallenge(_) => 0x1a,
            Self::PathResponse(_) => 0x1b,
            Self::ConnectionClose { .. } => 0x1c,
            Self::ApplicationClose { .. } => 0x1d,
            Self::HandshakeDone => 0x1e,
            Self::Datagram { len } => DATAGRAM | u64::from(len.is_some()),
            Self::ResetStreamAt { .. } => 0x24,
            Self::AckFrequency { .. } => ACK_FREQUENCY,
            Self::ImmediateAck => 0x1f,
        }
    }

    /// Whether packets with it are ack-eliciting (RFC 9000 §13.2).
    pub fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Padding(_) | Self::Ack(_) | Self::ConnectionClose { .. } | Self::ApplicationClose { .. })
    }

    /// Whether it is a probing frame (RFC 9000 §9.1): packets that contain no others do not mean that their sender has
    /// moved.
    pub fn is_probing(&self) -> bool {
        matches!(self, Self::PathChallenge(_) | Self::PathResponse(_) | Self::NewConnectionId { .. } | Self::Padding(_))
    }

    /// Whether it is allowed in packets of this type (RFC 9000 §12.4, Table 3).
    pub fn allowed_in(&self, kind: PacketType) -> bool {
        match kind {
            PacketType::Short => true,
            PacketType::Initial | PacketType::Handshake => matches!(
                self,
                Self::Padding(_) | Self::Ping | Self::Ack(_) | Self::Crypto { .. } | Self::ConnectionClose { .. }
            ),
            PacketType::ZeroRtt => !matches!(
                self,
                Self::Ack(_)
                    | Self::Crypto { .. }
                    | Self::HandshakeDone
                    | Self::NewToken { .. }
                    | Self::PathResponse(_)
                    | Self::RetireConnectionId { .. }
                    | Self::AckFrequency { .. }
                    | Self::ImmediateAck
            ),
            PacketType::Retry | PacketType::VersionNegotiation => false,
        }
    }

    /// Length of the encoded frame in bytes (without the data of STREAM and DATAGRAM frames).
    pub fn encoded_len(&self) -> usize {
        let v = varint::size;
        1 + match self {
            Self::Padding(n) => return *n,
            Self::Ping | Self::HandshakeDone | Self::ImmediateAck => 0,
            Self::Ack(ack) => {
                let count = ack.ranges().count() as u64 - 1;
                let ecn = ack.ecn.map_or(0, |e| v(e.ect0) + v(e.ect1) + v(e.ce));
                v(ack.largest) + v(ack.delay) + v(count) + ack.ranges.len() + ecn
            }
            Self::ResetStream { id, code, final_size } => v(id.0) + v(*code) + v(*final_size),
            Self::StopSending { id, code } => v(id.0) + v(*code),
            Self::Crypto { offset, data } => v(*offset) + v(data.len() as u64) + data.len(),
            Self::NewToken { token } => v(token.len() as u64) + token.len(),
            Self::Stream(header) => header.encoded_len() - 1,
            Self::MaxData(n) | Self::DataBlocked(n) => v(*n),
            Self::MaxStreamData { id, max: n } | Self::StreamDataBlocked { id, limit: n } => v(id.0) + v(*n),
            Self::MaxStreams { max: n, .. } | Self::StreamsBlocked { limit: n, .. } => v(*n),
            Self::NewConnectionId { seq, retire_prior_to, cid, .. } => {
                v(*seq) + v(*retire_prior_to) + 1 + cid.len() + 16
            }
            Self::RetireConnectionId { seq } => v(*seq),
            Self::PathChallenge(_) | Self::PathResponse(_) => 8,
            Self::ConnectionClose { code, frame_type, reason } => {
                v(*code) + v(*frame_type) + v(reason.len() as u64) + reason.len()
            }
            Self::ApplicationClose { code, reason } => v(*code) + v(reason.len() as u64) + reason.len(),
            Self::Datagram { len } => len.map_or(0, v),
            Self::ResetStreamAt { id, code, final_size, reliable_size } => {
                v(id.0) + v(*code) + v(*final_size) + v(*reliable_size)
            }
            // Its type has two bytes.
            Self::AckFrequency { seq, threshold, max_delay, reordering } => {
                1 + v(*seq) + v(*threshold) + v(*max_delay) + v(*reordering)
            }
        }
    }

    /// Encodes the frame; the writer records whether it fits.
    pub fn encode(&self, w: &mut Writer<'_>) {
        match self {
            Self::Stream(header) => return header.encode(w),
            Self::Padding(n) => return w.zeros(*n),
            _ => w.varint(self.frame_type()),
        }
        match self {
            Self::Ping | Self::HandshakeDone | Self::ImmediateAck | Self::Stream(_) | Self::Padding(_) => {}
            Self::Ack(ack) => {
                w.varint(ack.largest);
                w.varint(ack.delay);
                w.varint(ack.ranges().count() as u64 - 1);
                w.bytes(ack.ranges);
                ecn_counts(w, ack.ecn);
            }
            Self::ResetStream { id, code, final_size } => varints(w, [id.0, *code, *final_size]),
            Self::StopSending { id, code } => varints(w, [id.0, *code]),
            Self::Crypto { offset, data } => {
                w.varint(*offset);
                w.prefixed(data);
            }
            Self::NewToken { token } => w.prefixed(token),
            Self::MaxData(n) | Self::DataBlocked(n) => w.varint(*n),
            Self::MaxStreamData { id, max: n } | Self::StreamDataBlocked { id, limit: n } => varints(w, [id.0, *n]),
            Self::MaxStreams { max: n, .. } | Self::StreamsBlocked { limit: n, .. } => w.varint(*n),
            Self::NewConnectionId { seq, retire_prior_to, cid, reset_token } => {
                w.varint(*seq);
                w.varint(*retire_prior_to);
                w.short(cid);
                w.bytes(reset_token);
            }
            Self::RetireConnectionId { seq } => w.varint(*seq),
            Self::PathChallenge(data) | Self::PathResponse(data) => w.bytes(data),
            Self::ConnectionClose { code, frame_type, reason } => {
                w.varint(*code);
                w.varint(*frame_type);
                w.prefixed(reason);
            }
            Self::ApplicationClose { code, reason } => {
                w.varint(*code);
                w.prefixed(reason);
            }
            Self::Datagram { len } => {
                if let Some(n) = len {
                    w.varint(*n);
                }
            }
            Self::ResetStreamAt { id, code, final_size, reliable_size } => {
                varints(w, [id.0, *code, *final_size, *reliable_size]);
            }
            Self::AckFrequency { seq, threshold, max_delay, reordering } => {
                varints(w, [*seq, *threshold, *max_delay, *reordering]);
            }
        }
    }
}

/// Number of zeros at the start of `data`.
fn zeros(data: &[u8]) -> usize {
    // Handshake datagrams have about a thousand of them.
    let blocks = data.as_chunks::<16>().0.iter().take_while(|block| u128::from_ne_bytes(**block) == 0).count();
    let from = 16 * blocks;
    from + data[from..].iter().take_while(|b| **b == 0).count()
}

#[inline]
fn stream_header(frame_type: u64, r: &mut Reader<'_>) -> Option<StreamHeader> {
    let id = StreamId(r.varint()?);
    let offset = if frame_type & STREAM_OFF != 0 { r.varint()? } else { 0 };
    let len = if frame_type & STREAM_LEN != 0 { Some(r.varint()?) } else { None };
    Some(StreamHeader { id, offset, len, fin: frame_type & STREAM_FIN != 0 })
}

fn ack<'a>(frame_type: u64, r: &mut Reader<'a>) -> Result<AckFrame<'a>, FrameError> {
    let cut = FrameError::Incomplete;
    let bad = FrameError::Invalid { frame_type, field: "acknowledged range" };
    let largest = r.varint().ok_or(cut)?;
    let delay = r.varint().ok_or(cut)?;
    let count = r.varint().ok_or(cut)?;
    let mut all = *r;
    let start = r.position();
    let mut low = largest.checked_sub(r.varint().ok_or(cut)?).ok_or(bad)?;
    for _ in 0..count {
        let gap = r.varint().ok_or(cut)?;
        let len = r.varint().ok_or(cut)?;
        low = low.checked_sub(gap + 2).and_then(|high| high.checked_sub(len)).ok_or(bad)?;
    }
    let ranges = all.bytes(r.position() - start).ok_or(cut)?;
    let mut ecn = None;
    if frame_type != ACK {
        let mut next = || r.varint().ok_or(cut);
        ecn = Some(EcnCounts { ect0: next()?, ect1: next()?, ce: next()? });
    }
    Ok(AckFrame { largest, delay, ecn, ranges })
}

/// Decodes frames that are a plain sequence of fields. The inner `None` means that there is no such type.
fn body<'a>(frame_type: u64, r: &mut Reader<'a>) -> Option<Option<Frame<'a>>> {
    let id = |r: &mut Reader<'a>| r.varint().map(StreamId);
    Some(Some(match frame_type {
        0x01 => Frame::Ping,
        0x04 => Frame::ResetStream { id: id(r)?, code: r.varint()?, final_size: r.varint()? },
        0x05 => Frame::StopSending { id: id(r)?, code: r.varint()? },
        0x06 => Frame::Crypto { offset: r.varint()?, data: r.prefixed()? },
        0x07 => Frame::NewToken { token: r.prefixed()? },
        0x10 => Frame::MaxData(r.varint()?),
        0x11 => Frame::MaxStreamData { id: id(r)?, max: r.varint()? },
        0x12 | 0x13 => Frame::MaxStreams { bidi: frame_type == 0x12, max: r.varint()? },
        0x14 => Frame::DataBlocked(r.varint()?),
        0x15 => Frame::StreamDataBlocked { id: id(r)?, limit: r.varint()? },
        0x16 | 0x17 => Frame::StreamsBlocked { bidi: frame_type == 0x16, limit: r.varint()? },
        0x18 => {
            let (seq, retire_prior_to) = (r.varint()?, r.varint()?);
            let len = r.u8()?;
            if usize::from(len) > ConnectionId::MAX {
                // The check that follows refuses an empty ID.
                return Some(Some(Frame::NewConnectionId {
                    seq,
                    retire_prior_to,
                    cid: ConnectionId::default(),
                    reset_token: [0; 16],
                }));
            }
            let cid = r.bytes(usize::from(len)).and_then(ConnectionId::new)?;
            Frame::NewConnectionId { seq, retire_prior_to, cid, reset_token: r.array()? }
        }
        0x19 => Frame::RetireConnectionId { seq: r.varint()? },
        0x1a => Frame::PathChallenge(r.array()?),
        0x1b => Frame::PathResponse(r.array()?),
        0x1c => Frame::ConnectionClose { code: r.varint()?, frame_type: r.varint()?, reason: r.prefixed()? },
        0x1d => Frame::ApplicationClose { code: r.varint()?, reason: r.prefixed()? },
        0x1e => Frame::HandshakeDone,
        0x1f => Frame::ImmediateAck,
        0x24 => {
            Frame::ResetStreamAt { id: id(r)?, code: r.varint()?, final_size: r.varint()?, reliable_size: r.varint()? }
        }
        ACK_FREQUENCY => Frame::AckFrequency {
            seq: r.varint()?,
            threshold: r.varint()?,
            max_delay: r.varint()?,
            reordering: r.varint()?,
        },
        _ => return Some(None),
    }))
}

fn varints<const N: usize>(w: &mut Writer<'_>, values: [u64; N]) {
    values.into_iter().for_each(|n| w.varint(n));
}

fn ecn_counts(w: &mut Writer<'_>, ecn: Option<EcnCounts>) {
    if let Some(ecn) = ecn {
        varints(w, [ecn.ect0, ecn.ect1, ecn.ce]);
    }
}

/// Encodes an ACK frame with the highest `max_ranges` ranges of `received`, or fewer if there is not enough room.
/// Returns the number of ranges; 0 if nothing was written.
pub fn encode_ack(
    w: &mut Writer<'_>,
    received: &RangeSet,
    delay: u64,
    ecn: Option<EcnCounts>,
    max_ranges: usize,
) -> usize {
    encode_ack_with::<false>(w, received, delay, ecn, max_ranges)
}

/// Like [`encode_ack`], with the largest number, the delay and the first range in their longest form: at least 26 bytes
/// in all.
pub fn encode_long_ack(
    w: &mut Writer<'_>,
    received: &RangeSet,
    delay: u64,
    ecn: Option<EcnCounts>,
    max_ranges: usize,
) -> usize {
    encode_ack_with::<true>(w, received, delay, ecn, max_ranges)
}

fn encode_ack_with<const LONG: bool>(
    w: &mut Writer<'_>,
    received: &RangeSet,
    delay: u64,
    ecn: Option<EcnCounts>,
    max_ranges: usize,
) -> usize {
    let size_of = |value| if LONG { 8 } else { varint::size(value) };
    let put = |w: &mut Writer<'_>, value| if LONG { w.long_varint(value) } else { w.varint(value) };
    let mut ranges = received.iter().rev();
    let Some(first) = ranges.next() else { return 0 };
    let largest = first.end - 1;
    let tail = ecn.map_or(0, |e| varint::size(e.ect0) + varint::size(e.ect1) + varint::size(e.ce));
    // The count takes one byte for up to 63 further ranges, which is the most that is ever kept.
    let max_ranges = max_ranges.min(64);
    let first_len = largest - first.start;
    let mut size = 1 + size_of(largest) + size_of(delay) + 1 + size_of(first_len) + tail;
    if size > w.remaining() {
        return 0;
    }
    let mut count = 1;
    let mut low = first.start;
    for range in ranges.clone().take(max_ranges - 1) {
        let more = varint::size(low - range.end - 1) + varint::size(range.end - 1 - range.start);
        if size + more > w.remaining() {
            break;
        }
        size += more;
        count += 1;
        low = range.start;
    }
    w.u8((ACK | u64::from(ecn.is_some())) as u8);
    put(w, largest);
    put(w, delay);
    w.varint(count as u64 - 1);
    put(w, first_len);
    let mut low = first.start;
    for range in ranges.take(count - 1) {
        w.varint(low - range.end - 1);
        w.varint(range.end - 1 - range.start);
        low = range.start;
    }
    ecn_counts(w, ecn);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(frame: &Frame<'_>) {
        let mut buf = [0; 256];
        let mut w = Writer::new(&mut buf);
        frame.encode(&mut w);
        let n = w.finish().unwrap();
        assert_eq!(n, frame.encoded_len(), "{frame:?}");
        for room in 0..n {
            let mut w = Writer::new(&mut buf[..room]);
            frame.encode(&mut w);
            assert_eq!(w.finish(), None, "{frame:?} in {room} bytes");
        }
        let mut w = Writer::new(&mut buf);
        frame.encode(&mut w);
        assert_eq!(Frame::decode(&buf[..n]), Ok((frame.clone(), n)));
        for cut in 0..n {
            let got = Frame::decode(&buf[..cut]);
            let padding = matches!(frame, Frame::Padding(_)) && cut > 0;
            assert!(padding || got == Err(FrameError::Incomplete), "{frame:?} cut to {cut}: {got:?}");
        }
    }

    #[test]
    fn every_frame_round_trips_and_tells_when_it_is_cut() {
        let id = StreamId(0x1234);
        let cid = ConnectionId::new(&[5; 8]).unwrap();
        let frames = [
            Frame::Padding(3),
            Frame::Ping,
            Frame::ResetStream { id, code: 1 << 40, final_size: 77 },
            Frame::StopSending { id, code: 3 },
            Frame::Crypto { offset: 700, data: b"hello" },
            Frame::NewToken { token: b"tok" },
            Frame::Stream(StreamHeader { id, offset: 0, len: Some(9), fin: false }),
            Frame::Stream(StreamHeader { id, offset: 1 << 33, len: None, fin: true }),
            Frame::MaxData(1 << 20),
            Frame::MaxStreamData { id, max: 5 },
            Frame::MaxStreams { bidi: true, max: MAX_STREAMS },
            Frame::MaxStreams { bidi: false, max: 1 },
            Frame::DataBlocked(9),
            Frame::StreamDataBlocked { id, limit: 9 },
            Frame::StreamsBlocked { bidi: false, limit: 9 },
            Frame::NewConnectionId { seq: 4, retire_prior_to: 2, cid, reset_token: [7; 16] },
            Frame::RetireConnectionId { seq: 4 },
            Frame::PathChallenge([1; 8]),
            Frame::PathResponse([2; 8]),
            Frame::ConnectionClose { code: 0x10a, frame_type: 6, reason: b"why" },
            Frame::ApplicationClose { code: 0, reason: b"" },
            Frame::HandshakeDone,
            Frame::Datagram { len: Some(500) },
            Frame::ResetStreamAt { id, code: 9, final_size: 1 << 20, reliable_size: 1 << 20 },
            Frame::AckFrequency { seq: 70, threshold: 1 << 20, max_delay: 25_000, reordering: 0 },
            Frame::ImmediateAck,
        ];
        frames.iter().for_each(round_trip);
    }

    #[test]
    fn bad_fields_are_named() {
        let invalid = |bytes: &[u8]| match Frame::decode(bytes) {
            Err(FrameError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(invalid(&[0x02, 3, 0, 0, 4]), "acknowledged range");
        assert_eq!(invalid(&[0x02, 3, 0, 1, 1, 1, 0]), "acknowledged range");
        assert_eq!(invalid(&[0x07, 0]), "token length");
        assert_eq!(invalid(&[0x24, 0, 0, 5, 6]), "Reliable Size");
        assert_eq!(invalid(&[0x18, 1, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "Retire Prior To");
        assert_eq!(invalid(&[0x18, 1, 0, 21]), "connection ID length");
        assert_eq!(invalid(&[0x12, 0xd0, 0, 0, 0, 0, 0, 0, 1]), "stream count");
        let max = [0xff; 8];
        assert_eq!(invalid(&[&[0x0e, 0][..], &max, &[1]].concat()), "end offset");
        assert_eq!(Frame::decode(&[0x40, 0x01]), Err(FrameError::NonMinimalType));
        assert_eq!(Frame::decode(&[0x21]), Err(FrameError::Unknown(0x21)));
    }

    #[test]
    fn frames_keep_to_their_packets() {
        use PacketType::*;
        let crypto = Frame::Crypto { offset: 0, data: b"x" };
        let allowed = |f: &Frame<'_>| [Initial, ZeroRtt, Handshake, Short].map(|k| f.allowed_in(k));
        assert_eq!(allowed(&crypto), [true, false, true, true]);
        assert_eq!(allowed(&Frame::MaxData(1)), [false, true, false, true]);
        assert_eq!(allowed(&Frame::HandshakeDone), [false, false, false, true]);
        assert_eq!(allowed(&Frame::Datagram { len: None }), [false, true, false, true]);
        assert_eq!(allowed(&Frame::ImmediateAck), [false, false, false, true]);
        assert_eq!(allowed(&Frame::ApplicationClose { code: 0, reason: b"" }), [false, true, false, true]);
    }

    proptest! {
        #[test]
        fn ack_says_what_was_received(
            seen in proptest::collection::btree_set(0u64..3000, 1..200),
            delay in 0u64..1 << 20,
            room in 0usize..200,
            ecn in proptest::option::of((0u64..100, 0u64..100, 0u64..100)),
        ) {
            let mut set = RangeSet::default();
            seen.iter().for_each(|n| { set.insert(*n..n + 1); });
            let ecn = ecn.map(|(ect0, ect1, ce)| EcnCounts { ect0, ect1, ce });
            for long in [false, true] {
                let encode = if long { encode_long_ack } else { encode_ack };
                let mut buf = vec![0; room];
                let mut w = Writer::new(&mut buf);
                let count = encode(&mut w, &set, delay, ecn, 40);
                let n = w.position();
                prop_assert!(count <= 40 && (count > 0) == (n > 0) && w.finish().is_some());
                if count > 0 {
                    let (frame, used) = Frame::decode(&buf[..n]).unwrap();
                    prop_assert_eq!(used, n);
                    let fits = if long { n >= 26 } else { n == frame.encoded_len() };
                    prop_assert!(fits);
                    let Frame::Ack(ack) = frame else { panic!() };
                    prop_assert_eq!((ack.delay, ack.ecn), (delay, ecn));
                    let want: Vec<_> = set.iter().rev().take(count).map(|r| r.start..=r.end - 1).collect();
                    prop_assert_eq!(ack.ranges().collect::<Vec<_>>(), want);
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok((frame, used)) = Frame::decode(&bytes) {
                prop_assert!(used > 0 && used <= bytes.len());
                if let Frame::Ack(ack) = frame {
                    prop_assert!(ack.ranges().count() >= 1);
                }
            }
        }
    }
}
