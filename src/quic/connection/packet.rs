//! Builds one packet in place: header, frame headers, and holes that are encrypted from application memory.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::crypto::{HeaderKey, PacketKey};
use crate::quic::connection::sent::SentFrame;
use crate::quic::stream::Streams;
use crate::wire::quic::frame::Frame;
use crate::wire::quic::varint::Writer;
use crate::wire::quic::{StreamId, header};

/// Length of the AEAD tag in bytes.
pub(super) const TAG_LEN: usize = 16;

/// STREAM frames per packet. More would only be tiny ones.
const MAX_PIECES: usize = 16;

/// A STREAM frame's bytes belong at `at` in the packet.
#[derive(Debug)]
struct Piece {
    at: u16,
    /// Its index in the list of frames.
    frame: u16,
}

/// A packet under construction in `packet`, whose first byte is the packet's first.
pub(super) struct PacketBuilder<'s> {
    packet: &'s mut [u8],
    pn_offset: usize,
    pn_len: usize,
    pos: usize,
    /// Offset of the two-byte Length field of a long header.
    length_at: Option<usize>,
    pieces: ArrayVec<Piece, MAX_PIECES>,
    pub(super) frames: Vec<SentFrame>,
    pub(super) eliciting: bool,
    pub(super) padded: bool,
    /// It has to be in a datagram of at least 1200 bytes.
    pub(super) expand: bool,
}

impl<'s> PacketBuilder<'s> {
    /// The header is already written; frames start behind the packet number. `frames` is an empty list to use.
    pub(super) fn new(
        packet: &'s mut [u8],
        pn_offset: usize,
        pn_len: usize,
        length_at: Option<usize>,
        frames: Vec<SentFrame>,
    ) -> Self {
        Self {
            packet,
            pn_offset,
            pn_len,
            pos: pn_offset + pn_len,
            length_at,
            pieces: ArrayVec::new(),
            frames,
            eliciting: false,
            padded: false,
            expand: false,
        }
    }

    /// Bytes left for frames.
    pub(super) fn room(&self) -> usize {
        (self.packet.len() - TAG_LEN).saturating_sub(self.pos)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pos == self.pn_offset + self.pn_len
    }

    /// Space for a frame that is encoded by `write`, which returns false if it did not fit.
    pub(super) fn write_with(&mut self, write: impl FnOnce(&mut Writer<'_>) -> bool) -> bool {
        let end = self.packet.len() - TAG_LEN;
        let mut writer = Writer::new(&mut self.packet[self.pos..end]);
        let fits = write(&mut writer);
        let n = writer.position();
        if fits {
            self.pos += n;
        }
        fits
    }

    /// Appends a frame if it fits.
    pub(super) fn put(&mut self, frame: &Frame<'_>, sent: Option<SentFrame>) -> bool {
        if frame.encoded_len() > self.room() {
            return false;
        }
        self.write_with(|w| {
            frame.encode(w);
            true
        });
        self.eliciting |= frame.is_ack_eliciting();
        self.frames.extend(sent);
        true
    }

    /// Whether another STREAM frame may be added.
    pub(super) fn takes_stream(&self) -> bool {
        !self.pieces.is_full()
    }

    /// A STREAM frame whose header is written: leaves a hole for its bytes, which
    /// [`PacketBuilder::finish`] encrypts into it.
    pub(super) fn stream(&mut self, id: StreamId, range: &Range<u64>, fin: bool) {
        let n = (range.end - range.start) as usize;
        debug_assert!(n <= self.room());
        if n > 0 {
            self.pieces.push(Piece { at: self.pos as u16, frame: self.frames.len() as u16 });
            self.pos += n;
        }
        self.frames.push(SentFrame::stream(id, range.start, n as u32, fin));
        self.eliciting = true;
    }

    /// Pads so that the finished packet has at least `size` bytes, and enough for the header protection sample.
    pub(super) fn pad_to(&mut self, size: usize) {
        let sample = self.pn_offset + 4;
        let want = size.saturating_sub(TAG_LEN).max(sample).min(self.packet.len() - TAG_LEN);
        if want > self.pos {
            self.packet[self.pos..want].fill(0);
            self.padded = true;
            self.pos = want;
        }
    }

    /// Encrypts frames in place and stream bytes from the application's memory, then protects the header.
    /// Returns the packet's length.
    pub(super) fn finish(&mut self, pn: u64, key: &PacketKey, header: &HeaderKey, streams: &Streams) -> usize {
        if let Some(at) = self.length_at {
            let length = (self.pos + TAG_LEN - self.pn_offset) as u16;
            self.packet[at..at + 2].copy_from_slice(&(0x4000 | length).to_be_bytes());
        }
        let start = self.pn_offset + self.pn_len;
        let packet = &mut self.packet[..self.pos + TAG_LEN];
        let mut sealer = key.seal(pn, packet, start);
        let mut done = start;
        for piece in &self.pieces {
            let (SentFrame::Stream { id, start, len } | SentFrame::StreamFin { id, start, len }) =
                self.frames[usize::from(piece.frame)]
            else {
                continue;
            };
            let at = usize::from(piece.at);
            sealer.in_place(at - done);
            done = at + len as usize;
            let send = streams.get_ref(id).and_then(|s| s.send.as_ref());
            for slice in send.into_iter().flat_map(|send| send.slices(start..start + u64::from(len))) {
                sealer.copy_from(slice);
            }
        }
        sealer.in_place(self.pos - done);
        let (len, sample) = sealer.finish_and_sample(self.pn_offset + 4);
        let mask = header.mask(&sample);
        header::apply_protection(packet, self.pn_offset, self.pn_len, mask);
        len
    }
}
