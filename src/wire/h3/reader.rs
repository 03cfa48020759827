//! Frames from the pieces of a stream (RFC 9114 §7).

use crate::base::Side;
use crate::wire::h3::collect::{Head, Payload, take};
use crate::wire::h3::error::{Code, Error};
use crate::wire::h3::frame::{self, FrameHeader, FrameType, StreamKind};
use crate::wire::h3::settings::{self, Settings};
use crate::wire::quic::varint::{self, Reader};

/// Maximum length of a HEADERS payload, in bytes.
pub const MAX_HEADERS: usize = 64 << 10;

/// Maximum length of a PRIORITY_UPDATE payload, in bytes.
pub const MAX_PRIORITY_UPDATE: usize = 256;

/// What a piece of a stream contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A DATA frame with a payload of this many bytes begins. They follow as [`Event::Body`].
    Data(u64),
    /// Bytes of the payload of a DATA frame, or of a WebTransport stream. Never empty.
    Body(&'a [u8]),
    /// A whole HEADERS frame: an encoded field section.
    Headers(&'a [u8]),
    /// The peer's SETTINGS.
    Settings(Settings),
    /// CANCEL_PUSH with its push ID.
    CancelPush(u64),
    /// GOAWAY: a client's push ID, or a server's ID of a request stream.
    Goaway(u64),
    /// MAX_PUSH_ID with its push ID.
    MaxPushId(u64),
    /// PRIORITY_UPDATE (RFC 9218 §7.2).
    PriorityUpdate {
        /// Whether it is about a push instead of a request.
        push: bool,
        /// The push ID, or the ID of the request stream.
        id: u64,
        /// The Priority Field Value.
        value: &'a [u8],
    },
    /// The stream is not a request but a bidirectional stream of the WebTransport session with this ID
    /// (draft-ietf-webtrans-http3-16 §4.3). All else on it is [`Event::Body`].
    WebTransport(u64),
}

/// Where in a frame the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a header.
    Header,
    /// In the payload of a DATA frame, of which this many bytes are left.
    Data(u64),
    /// In a payload of this many bytes that is collected.
    Collect(FrameType, usize),
    /// In a payload that nobody wants, of which this many bytes are left.
    Skip(u64),
    /// In a WebTransport stream, which is not divided into frames.
    Raw,
    /// Behind an error.
    Failed,
}

/// Divides what one end sends on a stream into frames, whatever the pieces it arrives in.
///
/// A payload that is wanted whole is borrowed from the piece if it lies in one; otherwise it is collected, up to
/// [`MAX_HEADERS`] bytes. DATA is passed through, and frames of unknown types are counted off: neither costs memory.
#[derive(Debug)]
pub struct FrameReader {
    kind: StreamKind,
    sender: Side,
    /// Whether WT_STREAM may begin the stream.
    webtransport: bool,
    /// Nothing but the header at hand was read yet.
    first: bool,
    state: State,
    head: Head,
    payload: Payload,
}

impl FrameReader {
    /// A reader at the front of what `sender` sends on a stream of this kind. `webtransport`: WebTransport was
    /// negotiated, so that WT_STREAM can begin a request stream.
    pub const fn new(kind: StreamKind, sender: Side, webtransport: bool) -> Self {
        Self {
            kind,
            sender,
            webtransport,
            first: true,
            state: State::Header,
            head: Head::new(),
            payload: Payload::new(),
        }
    }

    /// Takes bytes from the front of `piece` until there is an event; `None` if it is used up. After an error the
    /// rest of the stream is ignored.
    pub fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8]) -> Result<Option<Event<'a>>, Error> {
        self.payload.recycle();
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = self.head.next(piece) else { return Ok(None) };
                    match self.begin(header) {
                        Ok(Some(event)) => return Ok(Some(event)),
                        Ok(None) => {}
                        Err(error) => {
                            self.state = State::Failed;
                            return Err(error);
                        }
                    }
                }
                State::Data(left) => {
                    let body = take(piece, left);
                    if body.is_empty() {
                        return Ok(None);
                    }
                    self.pass(body.len() as u64);
                    return Ok(Some(Event::Body(body)));
                }
                State::Skip(left) => {
                    let skipped = take(piece, left).len() as u64;
                    if skipped < left {
                        self.state = State::Skip(left - skipped);
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Collect(frame, len) => {
                    let Some(payload) = self.payload.next(piece, len) else { return Ok(None) };
                    let event = whole(frame, payload, self.sender);
                    self.state = if event.is_ok() { State::Header } else { State::Failed };
                    return event.map(Some);
                }
                State::Raw => {
                    let body = core::mem::take(piece);
                    return Ok(if body.is_empty() { None } else { Some(Event::Body(body)) });
                }
                State::Failed => {
                    *piece = &[];
                    return Ok(None);
                }
            }
        }
    }

    /// The payload bytes of a DATA frame that come next on the stream. They may be read without the reader:
    /// [`Self::pass`].
    pub const fn body_left(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            State::Raw => u64::MAX,
            _ => 0,
        }
    }

    /// Notes that `n` payload bytes of the DATA frame were taken from the stream without the reader. At most
    /// [`Self::body_left`] count.
    pub const fn pass(&mut self, n: u64) {
        if let State::Data(left) = self.state {
            self.state = if n < left { State::Data(left - n) } else { State::Header };
        }
    }

    /// Memory that is held for a frame that is not complete, in bytes.
    pub const fn held(&self) -> usize {
        self.payload.held() + self.head.held()
    }

    /// What it means that the stream ends here. Control streams must not end at all (RFC 9114 §6.2.1); a frame must
    /// not be cut off (§7.1).
    pub fn finish(&self) -> Result<(), Error> {
        if self.kind == StreamKind::Control {
            return Err(Error::connection(Code::H3_CLOSED_CRITICAL_STREAM, "the control stream was closed"));
        }
        match self.state {
            State::Header if self.head.is_empty() => Ok(()),
            State::Raw | State::Failed => Ok(()),
            _ => Err(Error::connection(Code::H3_FRAME_ERROR, "the stream ends within a frame")),
        }
    }

    /// Decides about a frame by its header.
    fn begin<'a>(&mut self, header: FrameHeader) -> Result<Option<Event<'a>>, Error> {
        let FrameHeader { frame, len } = header;
        let first = core::mem::replace(&mut self.first, false);
        if frame == FrameType::WT_STREAM && self.webtransport {
            if !first || self.kind != StreamKind::Request {
                return Err(Error::connection(Code::H3_FRAME_ERROR, "WT_STREAM not at the front of a request stream"));
            }
            self.state = State::Raw;
            return Ok(Some(Event::WebTransport(len)));
        }
        frame::permit(self.kind, self.sender, frame, first)?;
        let limit = match frame {
            FrameType::DATA => {
                self.state = if len == 0 { State::Header } else { State::Data(len) };
                return Ok(Some(Event::Data(len)));
            }
            FrameType::HEADERS => MAX_HEADERS,
            FrameType::SETTINGS => settings::MAX_LEN,
            FrameType::PRIORITY_UPDATE | FrameType::PRIORITY_UPDATE_PUSH => MAX_PRIORITY_UPDATE,
            FrameType::GOAWAY | FrameType::MAX_PUSH_ID | FrameType::CANCEL_PUSH if len > 8 => {
                return Err(Error::connection(Code::H3_FRAME_ERROR, "a frame is longer than its integer"));
            }
            FrameType::GOAWAY | FrameType::MAX_PUSH_ID | FrameType::CANCEL_PUSH => 8,
            // No client here sends MAX_PUSH_ID, so that every push ID is too large (RFC 9114 §7.2.5).
            FrameType::PUSH_PROMISE => {
                return Err(Error::connection(Code::H3_ID_ERROR, "PUSH_PROMISE that was not allowed"));
            }
            _ => {
                self.state = State::Skip(len);
                return Ok(None);
            }
        };
        match usize::try_from(len) {
            Ok(len) if len <= limit => self.state = State::Collect(frame, len),
            // The section could be for one request only (RFC 9114 §4.2.2); the rest is for the connection.
            _ if frame == FrameType::HEADERS => {
                return Err(Error::stream(Code::H3_EXCESSIVE_LOAD, "a HEADERS frame is too long"));
            }
            _ => return Err(Error::connection(Code::H3_EXCESSIVE_LOAD, "a frame is too long")),
        }
        Ok(None)
    }
}

/// The meaning of a payload that is there as a whole.
fn whole(frame: FrameType, payload: &[u8], sender: Side) -> Result<Event<'_>, Error> {
    const SHORT: Error = Error::connection(Code::H3_FRAME_ERROR, "a frame ends within a field");
    let mut r = Reader::new(payload);
    if frame == FrameType::HEADERS {
        return Ok(Event::Headers(payload));
    }
    if frame == FrameType::SETTINGS {
        return Settings::decode(payload, sender).map(Event::Settings);
    }
    let id = r.varint().ok_or(SHORT)?;
    let bad_id = |reason| Err(Error::connection(Code::H3_ID_ERROR, reason));
    // The IDs of client-initiated bidirectional streams (RFC 9000 §2.1).
    let is_request = id & 3 == 0;
    if frame == FrameType::PRIORITY_UPDATE || frame == FrameType::PRIORITY_UPDATE_PUSH {
        let push = frame == FrameType::PRIORITY_UPDATE_PUSH;
        if !push && !is_request {
            return bad_id("PRIORITY_UPDATE for what is no request stream");
        }
        return Ok(Event::PriorityUpdate { push, id, value: r.rest() });
    }
    if !r.is_empty() {
        return Err(Error::connection(Code::H3_FRAME_ERROR, "a frame is longer than its integer"));
    }
    match frame {
        FrameType::GOAWAY if sender == Side::Server && !is_request => bad_id("GOAWAY of what is no request stream"),
        FrameType::GOAWAY => Ok(Event::Goaway(id)),
        FrameType::MAX_PUSH_ID => Ok(Event::MaxPushId(id)),
        _ => Ok(Event::CancelPush(id)),
    }
}

/// An ID of GOAWAY or MAX_PUSH_ID that may only move one way (RFC 9114 §5.2, §7.2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit(Option<u64>);

impl Limit {
    /// The latest ID.
    pub const fn get(self) -> Option<u64> {
        self.0
    }

    /// Takes the ID of a GOAWAY frame. It must not be larger than the one before.
    pub fn goaway(&mut self, id: u64) -> Result<(), Error> {
        if self.0.is_some_and(|before| id > before) {
            return Err(Error::connection(Code::H3_ID_ERROR, "GOAWAY with a larger ID than before"));
        }
        self.0 = Some(id);
        Ok(())
    }

    /// Takes the ID of a MAX_PUSH_ID frame. It must not be smaller than the one before.
    pub fn max_push_id(&mut self, id: u64) -> Result<(), Error> {
        if self.0.is_some_and(|before| id < before) {
            return Err(Error::connection(Code::H3_ID_ERROR, "MAX_PUSH_ID with a smaller ID than before"));
        }
        self.0 = Some(id);
        Ok(())
    }
}

/// The type at the front of a unidirectional stream, from pieces (RFC 9114 §6.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefix {
    bytes: [u8; 8],
    len: u8,
}

impl Prefix {
    /// Takes bytes from the front of `piece` until the integer is complete; `None` if more are needed. An integer that
    /// follows, such as a session ID, is read by the same object.
    pub fn next(&mut self, piece: &mut &[u8]) -> Option<u64> {
        while let Some((byte, rest)) = piece.split_first() {
            *piece = rest;
            self.bytes[usize::from(self.len)] = *byte;
            self.len += 1;
            if let Some(value) = Reader::new(&self.bytes[..usize::from(self.len)]).varint() {
                debug_assert!(value <= varint::MAX);
                self.len = 0;
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
