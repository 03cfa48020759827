//! Capsules (RFC 9297 §3, draft-ietf-webtrans-http3-16 §5, §6) and HTTP datagrams in DATAGRAM frames (RFC 9297 §2.1).

use crate::wire::h3::collect::{Head, Payload, take};
use crate::wire::h3::error::{Code, Error};
use crate::wire::h3::frame::{FrameHeader, FrameType};
use crate::wire::h3::grease;
use crate::wire::quic::varint::{self, Reader, Writer};

const DATAGRAM: u64 = 0x00;
const WT_CLOSE_SESSION: u64 = 0x2843;
const WT_DRAIN_SESSION: u64 = 0x78ae;
const WT_MAX_DATA: u64 = 0x190b_4d3d;
const WT_MAX_STREAMS_BIDI: u64 = 0x190b_4d3f;
const WT_MAX_STREAMS_UNI: u64 = 0x190b_4d40;
const WT_DATA_BLOCKED: u64 = 0x190b_4d41;
const WT_STREAMS_BLOCKED_BIDI: u64 = 0x190b_4d43;
const WT_STREAMS_BLOCKED_UNI: u64 = 0x190b_4d44;

/// Maximum length of the message of WT_CLOSE_SESSION, in bytes (draft-ietf-webtrans-http3-16 §6).
pub const MAX_MESSAGE: usize = 1024;

/// Maximum length of a DATAGRAM capsule that is read, in bytes. Longer ones are dropped (RFC 9297 §3.5).
pub const MAX_DATAGRAM: usize = 64 << 10;

/// The largest quarter stream ID (RFC 9297 §2.1).
const MAX_QUARTER: u64 = (1 << 60) - 1;

const CUT: Error = Error::stream(Code::H3_MESSAGE_ERROR, "a capsule of invalid length");

/// A capsule whose type is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capsule<'a> {
    /// DATAGRAM: an HTTP datagram.
    Datagram(&'a [u8]),
    /// WT_CLOSE_SESSION.
    Close {
        /// The application's error code.
        code: u32,
        /// The application's message, up to [`MAX_MESSAGE`] bytes.
        message: &'a str,
    },
    /// WT_DRAIN_SESSION.
    Drain,
    /// WT_MAX_DATA: bytes.
    MaxData(u64),
    /// WT_MAX_STREAMS: streams, and whether they are unidirectional. The session checks the limit of 2^60.
    MaxStreams(bool, u64),
    /// WT_DATA_BLOCKED: the limit in bytes.
    DataBlocked(u64),
    /// WT_STREAMS_BLOCKED: the limit in streams, and whether they are unidirectional.
    StreamsBlocked(bool, u64),
}

impl<'a> Capsule<'a> {
    fn decode(kind: u64, value: &'a [u8]) -> Result<Self, Error> {
        let mut r = Reader::new(value);
        let mut int = || r.varint().ok_or(CUT);
        let capsule = match kind {
            DATAGRAM => return Ok(Self::Datagram(value)),
            WT_CLOSE_SESSION => {
                let code = r.u32().ok_or(CUT)?;
                let message = core::str::from_utf8(r.rest())
                    .map_err(|_| Error::stream(Code::H3_MESSAGE_ERROR, "a message that is not UTF-8"))?;
                return Ok(Self::Close { code, message });
            }
            WT_DRAIN_SESSION => Self::Drain,
            WT_MAX_DATA => Self::MaxData(int()?),
            WT_MAX_STREAMS_BIDI => Self::MaxStreams(false, int()?),
            WT_MAX_STREAMS_UNI => Self::MaxStreams(true, int()?),
            WT_DATA_BLOCKED => Self::DataBlocked(int()?),
            WT_STREAMS_BLOCKED_BIDI => Self::StreamsBlocked(false, int()?),
            _ => Self::StreamsBlocked(true, int()?),
        };
        if r.is_empty() { Ok(capsule) } else { Err(CUT) }
    }

    /// Appends it.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let mut int = |kind: u64, value: u64| {
            w.varint(kind);
            w.varint(varint::size(value) as u64);
            w.varint(value);
        };
        match *self {
            Self::Datagram(data) => {
                w.varint(DATAGRAM);
                w.prefixed(data);
            }
            Self::Close { code, message } => {
                w.varint(WT_CLOSE_SESSION);
                w.varint(4 + message.len() as u64);
                w.u32(code);
                w.bytes(message.as_bytes());
            }
            Self::Drain => {
                w.varint(WT_DRAIN_SESSION);
                w.varint(0);
            }
            Self::MaxData(limit) => int(WT_MAX_DATA, limit),
            Self::MaxStreams(false, limit) => int(WT_MAX_STREAMS_BIDI, limit),
            Self::MaxStreams(true, limit) => int(WT_MAX_STREAMS_UNI, limit),
            Self::DataBlocked(limit) => int(WT_DATA_BLOCKED, limit),
            Self::StreamsBlocked(false, limit) => int(WT_STREAMS_BLOCKED_BIDI, limit),
            Self::StreamsBlocked(true, limit) => int(WT_STREAMS_BLOCKED_UNI, limit),
        }
    }
}

/// The longest value of a type that is accepted, in bytes; `None` for unknown types.
const fn limit(kind: u64) -> Option<usize> {
    match kind {
        DATAGRAM => Some(MAX_DATAGRAM),
        WT_CLOSE_SESSION => Some(4 + MAX_MESSAGE),
        WT_DRAIN_SESSION => Some(0),
        WT_MAX_DATA | WT_MAX_STREAMS_BIDI | WT_MAX_STREAMS_UNI => Some(8),
        WT_DATA_BLOCKED | WT_STREAMS_BLOCKED_BIDI | WT_STREAMS_BLOCKED_UNI => Some(8),
        _ => None,
    }
}

/// The reserved capsule type that `random` selects (RFC 9297 §5.4).
pub const fn reserved(random: u64) -> u64 {
    grease::select(random, 0x29, 0x17)
}

/// Where in a capsule the next byte belongs.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Header,
    Collect(u64, usize),
    Skip(u64),
    Failed,
}

/// Divides, from its front, the content of a message that uses the Capsule Protocol into capsules, whatever the pieces
/// it arrives in. Unknown types are skipped and cost no memory (RFC 9297 §3.2).
#[derive(Debug, Default)]
pub struct CapsuleReader {
    state: State,
    head: Head,
    value: Payload,
}

impl CapsuleReader {
    /// Takes bytes from the front of `piece` until there is a capsule; `None` if it is used up. After an error the rest
    /// is ignored.
    pub fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8]) -> Result<Option<Capsule<'a>>, Error> {
        self.value.recycle();
        loop {
            match self.state {
                State::Header => {
                    let Some(FrameHeader { frame: FrameType(kind), len }) = self.head.next(piece) else {
                        return Ok(None);
                    };
                    self.state = match (limit(kind), usize::try_from(len)) {
                        (None, _) => State::Skip(len),
                        (Some(limit), Ok(len)) if len <= limit => State::Collect(kind, len),
                        (Some(MAX_DATAGRAM), _) => State::Skip(len),
                        _ => {
                            self.state = State::Failed;
                            return Err(CUT);
                        }
                    };
                }
                State::Skip(left) => {
                    let skipped = take(piece, left).len() as u64;
                    if skipped < left {
                        self.state = State::Skip(left - skipped);
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Collect(kind, len) => {
                    let Some(value) = self.value.next(piece, len) else { return Ok(None) };
                    let capsule = Capsule::decode(kind, value);
                    self.state = if capsule.is_ok() { State::Header } else { State::Failed };
                    return capsule.map(Some);
                }
                State::Failed => {
                    *piece = &[];
                    return Ok(None);
                }
            }
        }
    }

    /// Memory that is held for a capsule that is not complete, in bytes.
    pub const fn held(&self) -> usize {
        self.value.held() + self.head.held()
    }

    /// What it means that the content ends here: a capsule must not be cut off (RFC 9297 §3.3).
    pub fn finish(&self) -> Result<(), Error> {
        match self.state {
            State::Header if self.head.is_empty() => Ok(()),
            State::Failed => Ok(()),
            _ => Err(Error::stream(Code::H3_MESSAGE_ERROR, "the stream ends within a capsule")),
        }
    }
}

/// The request stream's ID and the HTTP datagram in the data of a DATAGRAM frame (RFC 9297 §2.1).
pub fn decode_datagram(data: &[u8]) -> Result<(u64, &[u8]), Error> {
    let mut r = Reader::new(data);
    match r.varint() {
        Some(quarter @ 0..=MAX_QUARTER) => Ok((quarter * 4, r.rest())),
        Some(_) => Err(Error::connection(Code::H3_DATAGRAM_ERROR, "a datagram for a stream that cannot exist")),
        None => Err(Error::connection(Code::H3_DATAGRAM_ERROR, "a datagram without a stream")),
    }
}

/// Appends what precedes the HTTP datagram in the data of a DATAGRAM frame. `stream` is a request stream's ID.
pub fn encode_datagram_prefix(w: &mut Writer<'_>, stream: u64) {
    debug_assert_eq!(stream & 3, 0, "not a request stream");
    w.varint(stream / 4);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Capsule<'_>; 10] = [
        Capsule::Datagram(b"datagram"),
        Capsule::Datagram(b""),
        Capsule::Close { code: 0xdead_beef, message: "bye, \u{e9}" },
        Capsule::Drain,
        Capsule::MaxData(1 << 40),
        Capsule::MaxStreams(false, 100),
        Capsule::MaxStreams(true, 3),
        Capsule::DataBlocked(0),
        Capsule::StreamsBlocked(false, 1 << 20),
        Capsule::StreamsBlocked(true, 63),
    ];

    fn encoded(capsules: &[Capsule<'_>]) -> Vec<u8> {
        let mut buf = vec![0; 4096];
        let mut w = Writer::new(&mut buf);
        capsules.iter().for_each(|capsule| capsule.encode(&mut w));
        let n = w.finish().unwrap();
        buf.truncate(n);
        buf
    }

    fn raw(kind: u64, value: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; 16 + value.len()];
        let mut w = Writer::new(&mut buf);
        w.varint(kind);
        w.prefixed(value);
        let n = w.finish().unwrap();
        buf.truncate(n);
        buf
    }

    fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<String>, Result<(), Error>) {
        let (mut reader, mut said) = (CapsuleReader::default(), Vec::new());
        for mut piece in pieces {
            loop {
                match reader.next(&mut piece) {
                    Ok(Some(capsule)) => said.push(format!("{capsule:?}")),
                    Ok(None) => break,
                    Err(error) => return (said, Err(error)),
                }
            }
            assert!(piece.is_empty() && reader.held() <= MAX_DATAGRAM + FrameHeader::MAX_LEN);
        }
        (said, reader.finish())
    }

    fn code(bytes: &[u8]) -> Option<Code> {
        read([bytes]).1.err().map(|error| error.code)
    }

    #[test]
    fn capsules_round_trip_in_any_pieces() {
        let unknown = raw(reserved(7), &[9; 70]);
        let bytes = [&unknown, &encoded(&ALL)[..], &unknown].concat();
        let said: Vec<_> = ALL.iter().map(|capsule| format!("{capsule:?}")).collect();
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(read([a, b]), (said.clone(), Ok(())), "cut at {at}");
        }
        assert_eq!(read(bytes.chunks(1)), (said, Ok(())));
    }

    #[test]
    fn capsules_that_are_cut_off_are_malformed() {
        let bytes = encoded(&ALL[2..5]);
        let mut ends = vec![0];
        ends.extend((1..=3).map(|n| encoded(&ALL[2..2 + n]).len()));
        for at in 0..=bytes.len() {
            let expected = (!ends.contains(&at)).then_some(Code::H3_MESSAGE_ERROR);
            assert_eq!(code(&bytes[..at]), expected, "after {at} bytes");
        }
    }

    #[test]
    fn values_are_exactly_their_fields() {
        let message = |n| [&[0; 4][..], &vec![b'm'; n]].concat();
        let bad = [
            raw(WT_DRAIN_SESSION, b"x"),
            raw(WT_MAX_DATA, b""),
            raw(WT_MAX_DATA, &[0x40]),
            raw(WT_MAX_DATA, &[1, 2]),
            raw(WT_MAX_STREAMS_BIDI, &[0; 9]),
            raw(WT_STREAMS_BLOCKED_UNI, &[0x80, 0]),
            raw(WT_CLOSE_SESSION, &[0; 3]),
            raw(WT_CLOSE_SESSION, b"\0\0\0\0\xff"),
            raw(WT_CLOSE_SESSION, &message(MAX_MESSAGE + 1)),
        ];
        for bytes in bad {
            assert_eq!(code(&bytes), Some(Code::H3_MESSAGE_ERROR), "{bytes:x?}");
        }
        assert_eq!(code(&raw(WT_CLOSE_SESSION, &message(MAX_MESSAGE))), None);
    }

    #[test]
    fn what_nobody_can_use_is_skipped_without_memory() {
        for kind in [DATAGRAM, 0x17, 0x1234_5678] {
            let mut bytes = vec![0; 16];
            let mut w = Writer::new(&mut bytes);
            w.varint(kind);
            w.varint(1 << 50);
            let n = w.finish().unwrap();
            let mut reader = CapsuleReader::default();
            assert_eq!(reader.next(&mut &bytes[..n]), Ok(None));
            for _ in 0..100 {
                assert_eq!(reader.next(&mut &[0; 4096][..]), Ok(None));
                assert_eq!(reader.held(), 0);
            }
        }
    }

    #[test]
    fn datagrams_name_a_request_stream() {
        assert_eq!(decode_datagram(b"\x01rest"), Ok((4, &b"rest"[..])));
        let largest = [&[0xcf; 1][..], &[0xff; 7]].concat();
        assert_eq!(decode_datagram(&largest), Ok(((1 << 62) - 4, &[][..])));
        let over = [0xd0, 0, 0, 0, 0, 0, 0, 0];
        for bad in [&[][..], &[0x40], &[0xff; 8], &over] {
            let error = decode_datagram(bad).unwrap_err();
            assert_eq!(error, Error::connection(Code::H3_DATAGRAM_ERROR, error.reason), "{bad:x?}");
        }
        let mut buf = [0; 8];
        let mut w = Writer::new(&mut buf);
        encode_datagram_prefix(&mut w, 400);
        let n = w.finish().unwrap();
        assert_eq!(decode_datagram(&buf[..n]), Ok((400, &[][..])));
    }

    #[test]
    fn reserved_types_have_an_encoding() {
        assert_eq!((reserved(0), reserved(1)), (0x17, 0x40));
        assert!((0..64).all(|shift| reserved(u64::MAX >> shift) <= varint::MAX && limit(reserved(shift)).is_none()));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0x40), any::<u8>()], 0..200),
            size in 1usize..20,
        ) {
            prop_assert_eq!(read(bytes.chunks(size)), read([&bytes[..]]));
        }
    }
}
