//! Reads the frames of an authenticated packet (RFC 9000 §12.4).
//!
//! Frame headers are decrypted into a small scratch buffer, and the data of STREAM and DATAGRAM frames from the packet
//! to its final place.

use crate::crypto::{HEAD_AT, Opened};
use crate::quic::connection::closing::Fault;
use crate::quic::connection::receive::Packet;
use crate::quic::connection::{Connection, Cx};
use crate::quic::recovery::SpaceId;
use crate::wire::quic::TransportError;
use crate::wire::quic::frame::{Frame, FrameError, StreamHeader};

/// Number of bytes decrypted at a time to read frame headers. A multiple of the cipher block.
const WINDOW: usize = 64;

/// Maximum size of payloads that are decrypted at once for reading.
const SMALL: usize = 128;

/// Summary of a packet's frames.
pub(super) struct Read {
    /// What kinds of frames there are.
    kinds: u8,
    /// Whether there was memory for all their data.
    pub(super) complete: bool,
    /// Whether one of them is CRYPTO.
    pub(super) crypto: bool,
}

/// Bits of [`Read::kinds`]: a frame that is ack-eliciting, and one that is not a probing frame.
const ELICITING: u8 = 1;
const NON_PROBING: u8 = 2;

impl Read {
    /// Whether one of the frames is ack-eliciting.
    #[inline(always)]
    pub(super) fn is_eliciting(&self) -> bool {
        self.kinds & ELICITING != 0
    }

    /// Whether one of the frames is not a probing frame (RFC 9000 §9.1).
    #[inline(always)]
    pub(super) fn is_non_probing(&self) -> bool {
        self.kinds & NON_PROBING != 0
    }
}

impl Connection {
    /// Reads all frames. If there is no memory for the data of one, the others still take effect; handling them twice
    /// does no harm.
    // A call with a result in memory would cost about ten instructions per packet.
    #[inline(always)]
    pub(super) fn read_frames(
        &mut self,
        cx: &mut Cx<'_>,
        info: &Packet<'_>,
        opened: &Opened<'_>,
        scratch: &mut [u8],
    ) -> Result<Read, Fault> {
        let len = opened.len();
        if len == 0 {
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, 0, "packet without frames"));
        }
        let mut read = Read { kinds: 0, complete: true, crypto: false };
        let mut pos = 0;
        let window = &mut scratch[HEAD_AT..];
        let mut end = opened.head_len();
        let mut want = if len <= SMALL { len } else { WINDOW };
        while pos < len {
            if end < len && end < pos + want.min(len - pos) {
                let to = len.min((pos + want).next_multiple_of(16));
                let from = end.max(pos);
                opened.decrypt_at(from, &mut window[from..to]);
                end = to;
            }
            want = WINDOW / 2;
            // STREAM frames, the most common kind, are read directly without making a `Frame`.
            if info.space == SpaceId::Data
                && let Some((stream, used)) = StreamHeader::decode(&window[pos..end])
            {
                pos += used;
                let n = stream.len.unwrap_or((len - pos) as u64);
                if n > (len - pos) as u64 {
                    let why = "STREAM frame is longer than its packet";
                    return Err(Fault::new(TransportError::FRAME_ENCODING_ERROR, 0x08, why));
                }
                read.kinds = ELICITING | NON_PROBING;
                read.complete &= self.on_stream(cx, &stream, pos, n as usize, opened)?;
                pos += n as usize;
                if pos >= end {
                    end = pos;
                    want = WINDOW;
                }
                continue;
            }
            match self.read_frame(cx, info, opened, pos, &window[pos..end], &mut read)? {
                None => want = len - pos,
                Some(_) if !self.is_active() => return Ok(read),
                Some(used) => pos += used,
            }
        }
        if read.crypto {
            self.on_crypto(cx, info.space)?;
        }
        Ok(read)
    }

    /// Reads the frame at the front of `bytes`, which are the payload's from `pos` on, and returns its length, or `None`
    /// if there are too few bytes and they are not the last. A separate function, so that the loop over STREAM frames
    /// does not pay for its setup.
    #[inline(never)]
    fn read_frame(
        &mut self,
        cx: &mut Cx<'_>,
        info: &Packet<'_>,
        opened: &Opened<'_>,
        pos: usize,
        bytes: &[u8],
        read: &mut Read,
    ) -> Result<Option<usize>, Fault> {
        let (frame, used) = match Frame::decode(bytes) {
            Ok(decoded) => decoded,
            Err(FrameError::Incomplete) if pos + bytes.len() < opened.len() => return Ok(None),
            Err(error) => return Err(frame_fault(&error)),
        };
        if !frame.allowed_in(info.kind) {
            let why = format!("frame 0x{:x} in a packet of type {:?}", frame.frame_type(), info.kind);
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, frame.frame_type(), why));
        }
        read.kinds |= if frame.is_ack_eliciting() { ELICITING } else { 0 };
        read.kinds |= if frame.is_probing() { 0 } else { NON_PROBING };
        read.crypto |= matches!(frame, Frame::Crypto { .. });
        if let Frame::Datagram { len } = frame {
            let len = self.on_datagram(cx, info.pn, pos + used, used, len, opened)?;
            return Ok(Some(used + len));
        }
        self.on_frame(cx, info.space, info.dcid, &frame)?;
        Ok(Some(used))
    }
}

fn frame_fault(error: &FrameError) -> Fault {
    let code = match error {
        FrameError::NonMinimalType => TransportError::PROTOCOL_VIOLATION,
        _ => TransportError::FRAME_ENCODING_ERROR,
    };
    let frame_type = match error {
        FrameError::Invalid { frame_type, .. } => *frame_type,
        FrameError::Unknown(frame_type) => *frame_type,
        _ => 0,
    };
    Fault::new(code, frame_type, error.to_string())
}
