//! Headers of frames and types of streams, and which frame may be where (RFC 9114 §6, §7).

use crate::base::Side;
use crate::wire::h3::error::{Code, Error};
use crate::wire::quic::varint::{self, Reader, Writer};

/// The type of a unidirectional stream (RFC 9114 §6.2, RFC 9204 §4.2, draft-ietf-webtrans-http3-16 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamType(pub u64);

#[allow(missing_docs)]
impl StreamType {
    pub const CONTROL: Self = Self(0x00);
    pub const PUSH: Self = Self(0x01);
    pub const QPACK_ENCODER: Self = Self(0x02);
    pub const QPACK_DECODER: Self = Self(0x03);
    pub const WEBTRANSPORT: Self = Self(0x54);
}

/// The type of a frame (RFC 9114 §7.2, RFC 9218 §7.2, draft-ietf-webtrans-http3-16 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameType(pub u64);

#[allow(missing_docs)]
impl FrameType {
    pub const DATA: Self = Self(0x00);
    pub const HEADERS: Self = Self(0x01);
    pub const CANCEL_PUSH: Self = Self(0x03);
    pub const SETTINGS: Self = Self(0x04);
    pub const PUSH_PROMISE: Self = Self(0x05);
    pub const GOAWAY: Self = Self(0x07);
    pub const MAX_PUSH_ID: Self = Self(0x0d);
    pub const WT_STREAM: Self = Self(0x41);
    pub const PRIORITY_UPDATE: Self = Self(0xf0700);
    pub const PRIORITY_UPDATE_PUSH: Self = Self(0xf0701);
}

impl FrameType {
    /// Whether HTTP/2 uses it for a frame that HTTP/3 does without (RFC 9114 §11.2.1): PRIORITY, PING, WINDOW_UPDATE
    /// and CONTINUATION.
    pub const fn is_of_http2(self) -> bool {
        matches!(self.0, 0x02 | 0x06 | 0x08 | 0x09)
    }
}

/// What a stream that carries frames is for (RFC 9114 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// A control stream.
    Control,
    /// A client-initiated bidirectional stream.
    Request,
    /// A push stream.
    Push,
}

/// Whether `sender` may send a frame of this type on a stream of this kind (RFC 9114 §7.2, RFC 9218 §7.2). `first`:
/// nothing precedes it on the stream. Unknown types are permitted everywhere but first on a control stream.
///
/// The sequence of HEADERS and DATA is the business of [`Sequence`](super::message::Sequence).
pub const fn permit(kind: StreamKind, sender: Side, frame: FrameType, first: bool) -> Result<(), Error> {
    const fn unexpected(reason: &'static str) -> Result<(), Error> {
        Err(Error::connection(Code::H3_FRAME_UNEXPECTED, reason))
    }
    let control = matches!(kind, StreamKind::Control);
    let settings = frame.0 == FrameType::SETTINGS.0;
    // RFC 9114 §6.2.1: any other frame, whatever is wrong with it.
    if control && first && !settings {
        return Err(Error::connection(
            Code::H3_MISSING_SETTINGS,
            "the first frame of a control stream is not SETTINGS",
        ));
    }
    match frame {
        FrameType::DATA | FrameType::HEADERS if control => unexpected("a frame of a message on a control stream"),
        FrameType::SETTINGS if control && !first => unexpected("second SETTINGS frame"),
        FrameType::SETTINGS | FrameType::CANCEL_PUSH | FrameType::GOAWAY if !control => {
            unexpected("a frame of control streams on another stream")
        }
        FrameType::MAX_PUSH_ID | FrameType::PRIORITY_UPDATE | FrameType::PRIORITY_UPDATE_PUSH => {
            match (control, sender) {
                (true, Side::Client) => Ok(()),
                (true, Side::Server) => unexpected("a frame that servers must not send"),
                (false, _) => unexpected("a frame of control streams on another stream"),
            }
        }
        FrameType::PUSH_PROMISE => match (kind, sender) {
            (StreamKind::Request, Side::Server) => Ok(()),
            (_, Side::Client) => unexpected("PUSH_PROMISE from a client"),
            _ => unexpected("PUSH_PROMISE outside of a request stream"),
        },
        _ if frame.is_of_http2() => unexpected("a frame of HTTP/2"),
        _ => Ok(()),
    }
}

/// The front of a frame (RFC 9114 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The frame's type.
    pub frame: FrameType,
    /// Length of the payload in bytes.
    pub len: u64,
}

impl FrameHeader {
    /// Maximum encoded length in bytes.
    pub const MAX_LEN: usize = 16;

    /// Reads a header and tells its length; `None` if more bytes are needed.
    #[inline]
    pub fn decode(data: &[u8]) -> Option<(Self, usize)> {
        let mut r = Reader::new(data);
        let header = Self { frame: FrameType(r.varint()?), len: r.varint()? };
        Some((header, r.position()))
    }

    /// Encoded length in bytes.
    pub const fn encoded_len(self) -> usize {
        varint::size(self.frame.0) + varint::size(self.len)
    }

    /// Appends it.
    #[inline]
    pub fn encode(self, w: &mut Writer<'_>) {
        w.varint(self.frame.0);
        w.varint(self.len);
    }
}

/// Appends a frame whose payload is one integer: GOAWAY, CANCEL_PUSH or MAX_PUSH_ID.
pub fn encode_id(w: &mut Writer<'_>, frame: FrameType, id: u64) {
    FrameHeader { frame, len: varint::size(id) as u64 }.encode(w);
    w.varint(id);
}

/// Appends a PRIORITY_UPDATE frame for a request stream (RFC 9218 §7.2).
pub fn encode_priority_update(w: &mut Writer<'_>, stream: u64, value: &[u8]) {
    let len = varint::size(stream) + value.len();
    FrameHeader { frame: FrameType::PRIORITY_UPDATE, len: len as u64 }.encode(w);
    w.varint(stream);
    w.bytes(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNEXPECTED: Option<Code> = Some(Code::H3_FRAME_UNEXPECTED);
    const MISSING: Option<Code> = Some(Code::H3_MISSING_SETTINGS);
    const OK: Option<Code> = None;

    /// RFC 9114, table 1, with the senders of §7.2.5, §7.2.7 and RFC 9218 §7.2: type; on a control stream from a
    /// client, from a server; on a request stream from a client, from a server; on a push stream.
    const TABLE: [(u64, [Option<Code>; 5]); 17] = [
        (0x00, [UNEXPECTED, UNEXPECTED, OK, OK, OK]),
        (0x01, [UNEXPECTED, UNEXPECTED, OK, OK, OK]),
        (0x02, [UNEXPECTED; 5]),
        (0x03, [OK, OK, UNEXPECTED, UNEXPECTED, UNEXPECTED]),
        (0x04, [UNEXPECTED; 5]),
        (0x05, [UNEXPECTED, UNEXPECTED, UNEXPECTED, OK, UNEXPECTED]),
        (0x06, [UNEXPECTED; 5]),
        (0x07, [OK, OK, UNEXPECTED, UNEXPECTED, UNEXPECTED]),
        (0x08, [UNEXPECTED; 5]),
        (0x09, [UNEXPECTED; 5]),
        (0x0d, [OK, UNEXPECTED, UNEXPECTED, UNEXPECTED, UNEXPECTED]),
        (0xf0700, [OK, UNEXPECTED, UNEXPECTED, UNEXPECTED, UNEXPECTED]),
        (0xf0701, [OK, UNEXPECTED, UNEXPECTED, UNEXPECTED, UNEXPECTED]),
        (0x21, [OK; 5]),
        (0x40, [OK; 5]),
        (0x0f, [OK; 5]),
        (0x3fff_ffff_ffff_ffff, [OK; 5]),
    ];

    #[test]
    fn every_frame_on_every_stream() {
        use {Side::*, StreamKind::*};
        let places = [(Control, Client), (Control, Server), (Request, Client), (Request, Server), (Push, Server)];
        for (frame, expected) in TABLE {
            for ((kind, sender), expected) in places.into_iter().zip(expected) {
                for first in [false, true] {
                    let expected = match (kind, first) {
                        (Control, true) if frame == 4 => OK,
                        (Control, true) => MISSING,
                        _ => expected,
                    };
                    let got = permit(kind, sender, FrameType(frame), first).err().map(|e| e.code);
                    assert_eq!(got, expected, "frame 0x{frame:x} from {sender:?} on {kind:?}, first: {first}");
                }
            }
        }
    }

    #[test]
    fn frames_of_one_integer() {
        let mut buf = [0; 20];
        let mut w = Writer::new(&mut buf);
        encode_id(&mut w, FrameType::GOAWAY, 0x1234);
        encode_priority_update(&mut w, 4, b"u=1");
        assert_eq!(w.finish(), Some(4 + 9));
        assert_eq!(&buf[..13], b"\x07\x02\x52\x34\x80\x0f\x07\x00\x04\x04u=1");
    }

    proptest! {
        #[test]
        fn round_trip(frame in 0..=varint::MAX, len in 0..=varint::MAX) {
            let header = FrameHeader { frame: FrameType(frame), len };
            let mut buf = [0; FrameHeader::MAX_LEN];
            let mut w = Writer::new(&mut buf);
            header.encode(&mut w);
            let n = w.finish().unwrap();
            prop_assert_eq!(n, header.encoded_len());
            prop_assert_eq!(FrameHeader::decode(&buf[..n]), Some((header, n)));
            for short in 0..n {
                prop_assert_eq!(FrameHeader::decode(&buf[..short]), None);
            }
        }
    }
}
