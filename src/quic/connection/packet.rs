//! Builds a packet in place: header, frame headers, and holes into which application data is encrypted.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::crypto::{HeaderKey, PacketKey};
use crate::quic::connection::sent::SentFrame;
use crate::quic::datagram::Datagrams;
use crate::quic::stream::Streams;
use crate::wire::quic::frame::{Frame, StreamHeader};
use crate::wire::quic::header::{self, FIXED_BIT, PacketType};
use crate::wire::quic::varint::{self, Writer};
use crate::wire::quic::{ConnectionId, StreamId, Version};

/// Length of the AEAD tag in bytes.
pub(super) const TAG_LEN: usize = 16;

/// The packet number that is never used: a connection that reaches it ends without another packet (RFC 9000 §12.3).
pub(super) const LAST_PN: u64 = varint::MAX;

/// Maximum number of STREAM and DATAGRAM frames per packet. More would only be tiny ones.
const MAX_PIECES: usize = 16;

/// Data of a STREAM or DATAGRAM frame that belongs at `at` in the packet.
#[derive(Debug)]
struct Piece {
    at: u16,
    /// Index of the frame in the list of frames.
    frame: u16,
}

/// The header of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head<'a> {
    /// Long header of an Initial or Handshake packet; only the former has a token.
    Long { fixed_bit: u8, version: Version, kind: PacketType, dcid: &'a [u8], scid: &'a [u8], token: &'a [u8] },
    /// Short header of a 1-RTT packet, with these bits in its first byte.
    Short { bits: u8, dcid: &'a ConnectionId },
}

/// Minimum room for frames in a packet. A PING always fits, and the sample for header protection lies within the packet
/// (RFC 9001 §5.4.2).
const MIN_ROOM: usize = 4;

/// Maximum value of the two-byte Length field of a long header.
const MAX_LENGTH: usize = 0x3fff;

/// A packet under construction at the start of `packet`. Whatever lengths the peer chose, what does not fit is refused.
pub(super) struct PacketBuilder<'s> {
    packet: &'s mut [u8],
    pn_offset: usize,
    pn_len: usize,
    pos: usize,
    /// Maximum end of the frames, which leaves room for the tag.
    end: usize,
    /// Offset of the two-byte Length field of a long header.
    length_at: Option<usize>,
    pieces: ArrayVec<Piece, MAX_PIECES>,
    pub(super) frames: Vec<SentFrame>,
    pub(super) eliciting: bool,
    pub(super) padded: bool,
}

/// Offsets in a packet whose header is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    pn_offset: usize,
    pn_len: usize,
    /// Offset of the two-byte Length field of a long header.
    length_at: Option<usize>,
    /// Maximum end of the frames.
    end: usize,
}

impl Outline {
    /// Writes the header; frames start after the packet number. `None` if `packet` has no room for the header, a small
    /// frame and the tag.
    #[inline]
    pub(super) fn new(packet: &mut [u8], head: Head<'_>, pn: u64, pn_len: usize) -> Option<Self> {
        let (pn_offset, length_at) = match head {
            Head::Long { fixed_bit, version, kind, dcid, scid, token } => {
                let at = header::encode_long(packet, version, kind, dcid, scid, token, pn, pn_len)?;
                packet[0] &= !FIXED_BIT | fixed_bit;
                (at.pn_offset, Some(at.length_offset))
            }
            Head::Short { bits, dcid } => (header::encode_short(packet, bits, dcid, pn, pn_len)?, None),
        };
        let most = if length_at.is_some() { packet.len().min(pn_offset + MAX_LENGTH) } else { packet.len() };
        let end = most.checked_sub(TAG_LEN)?;
        (pn_offset + pn_len + MIN_ROOM <= end).then_some(Self { pn_offset, pn_len, length_at, end })
    }
}

impl<'s> PacketBuilder<'s> {
    /// Builds on a `packet` whose header is written. `frames` is an empty list to use.
    // All checks that can fail are in [`Outline::new`], as a builder is too large to be moved out of an `Option` for
    // each packet.
    #[inline]
    pub(super) fn new(packet: &'s mut [u8], outline: Outline, frames: &mut Vec<SentFrame>) -> Self {
        let Outline { pn_offset, pn_len, length_at, end } = outline;
        Self {
            packet,
            pn_offset,
            pn_len,
            pos: pn_offset + pn_len,
            end,
            length_at,
            pieces: ArrayVec::new(),
            frames: std::mem::take(frames),
            eliciting: false,
            padded: false,
        }
    }

    /// The header without protection, and the frames before encryption, in which data of streams and datagrams is yet to
    /// be written.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        self.packet[..self.pos].split_at(self.pn_offset + self.pn_len)
    }

    /// Number of bytes left for frames.
    pub(super) fn room(&self) -> usize {
        self.end - self.pos
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pos == self.pn_offset + self.pn_len
    }

    /// Whether the packet is shorter than `size` bytes.
    pub(super) fn is_below(&self, size: usize) -> bool {
        self.pos + TAG_LEN < size
    }

    /// Removes the frames, so that they can be encoded in another way. They remain recorded.
    pub(super) fn rewrite(&mut self) {
        self.pos = self.pn_offset + self.pn_len;
    }

    /// Appends a frame that `write` encodes; `write` returns false if there is not enough room. False if it did not
    /// fit.
    #[inline]
    pub(super) fn write_with(&mut self, write: impl FnOnce(&mut Writer<'_>) -> bool) -> bool {
        let mut writer = Writer::new(&mut self.packet[self.pos..self.end]);
        let wanted = write(&mut writer);
        match writer.finish().filter(|_| wanted) {
            Some(n) => {
                self.pos += n;
                true
            }
            None => false,
        }
    }

    /// Appends a frame if it fits.
    pub(super) fn put(&mut self, frame: &Frame<'_>, sent: Option<SentFrame>) -> bool {
        let fits = self.write_with(|w| {
            frame.encode(w);
            true
        });
        if fits {
            self.eliciting |= frame.is_ack_eliciting();
            self.frames.extend(sent);
        }
        fits
    }

    /// Whether another STREAM or DATAGRAM frame may be appended.
    pub(super) fn takes_stream(&self) -> bool {
        !self.pieces.is_full()
    }

    /// Appends a STREAM frame for `range` if it fits: its header, and a hole that [`PacketBuilder::finish`] fills with
    /// encrypted data.
    #[inline(always)]
    pub(super) fn put_stream(&mut self, id: StreamId, range: &Range<u64>, fin: bool) -> bool {
        let start = self.pos;
        let len = range.end - range.start;
        let header = StreamHeader { id, offset: range.start, len: Some(len), fin };
        let written = self.write_with(|w| {
            header.encode(w);
            true
        });
        if !written || len > self.room() as u64 || !self.takes_stream() {
            self.pos = start;
            return false;
        }
        if len > 0 {
            self.pieces.push(Piece { at: self.pos as u16, frame: self.frames.len() as u16 });
            self.pos += len as usize;
        }
        self.frames.push(SentFrame::stream(id, range.start, len as u32, fin));
        self.eliciting = true;
        true
    }

    /// Appends a DATAGRAM frame for `len` bytes if it fits: its header, and a hole like that of a STREAM frame.
    pub(super) fn put_datagram(&mut self, id: u64, len: usize) -> bool {
        let start = self.pos;
        let header = Frame::Datagram { len: Some(len as u64) };
        let written = self.write_with(|w| {
            header.encode(w);
            true
        });
        if !written || len > self.room() || !self.takes_stream() {
            self.pos = start;
            return false;
        }
        if len > 0 {
            self.pieces.push(Piece { at: self.pos as u16, frame: self.frames.len() as u16 });
            self.pos += len;
        }
        self.frames.push(SentFrame::Datagram { len: len as u32, id });
        self.eliciting = true;
        true
    }

    /// Pads the packet to at least `size` bytes when finished, as far as there is room, and to the minimum for the
    /// header protection sample.
    pub(super) fn pad_to(&mut self, size: usize) {
        let sample = self.pn_offset + 4;
        let want = size.saturating_sub(TAG_LEN).max(sample).min(self.end);
        if want > self.pos {
            self.packet[self.pos..want].fill(0);
            self.padded = true;
            self.pos = want;
        }
    }

    /// Encrypts frames in place and data of streams and datagrams from the application's memory, then protects the
    /// header. Returns the packet's length.
    pub(super) fn finish(
        &mut self,
        pn: u64,
        key: &PacketKey,
        header: &HeaderKey,
        streams: &Streams,
        datagrams: Option<&Datagrams>,
    ) -> usize {
        if let Some(at) = self.length_at {
            let length = (self.pos + TAG_LEN - self.pn_offset) as u16;
            self.packet[at..at + 2].copy_from_slice(&(0x4000 | length).to_be_bytes());
        }
        let start = self.pn_offset + self.pn_len;
        let packet = &mut self.packet[..self.pos + TAG_LEN];
        let mut sealer = key.seal(pn, packet, start);
        let mut done = start;
        for piece in &self.pieces {
            let at = usize::from(piece.at);
            sealer.in_place(at - done);
            match self.frames[usize::from(piece.frame)] {
                SentFrame::Stream { id, start, len } | SentFrame::StreamFin { id, start, len } => {
                    done = at + len as usize;
                    let send = streams.get_ref(id).and_then(|s| s.send.as_ref());
                    for slice in send.into_iter().flat_map(|send| send.slices(start..start + u64::from(len))) {
                        sealer.copy_from(slice);
                    }
                }
                SentFrame::Datagram { len, id } => {
                    done = at + len as usize;
                    sealer.copy_from(datagrams.map_or(&[], |datagrams| datagrams.send.memory(id)));
                }
                _ => done = at,
            }
        }
        sealer.in_place(self.pos - done);
        let (len, sample) = sealer.finish_and_sample(self.pn_offset + 4);
        let mask = header.mask(&sample);
        header::apply_protection(packet, self.pn_offset, self.pn_len, mask);
        len
    }
}

#[cfg(test)]
mod tests;
