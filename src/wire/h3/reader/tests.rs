use super::*;
use crate::wire::quic::varint::Writer;
use proptest::prelude::*;

fn frame(frame: u64, payload: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; 16 + payload.len()];
    let mut w = Writer::new(&mut buf);
    FrameHeader { frame: FrameType(frame), len: payload.len() as u64 }.encode(&mut w);
    w.bytes(payload);
    let n = w.finish().unwrap();
    buf.truncate(n);
    buf
}

fn header(frame: u64, len: u64) -> Vec<u8> {
    let mut buf = vec![0; 16];
    let mut w = Writer::new(&mut buf);
    FrameHeader { frame: FrameType(frame), len }.encode(&mut w);
    let n = w.finish().unwrap();
    buf.truncate(n);
    buf
}

/// What a reader says about `pieces`, with adjacent pieces of a body joined, and how it ends.
fn read<'p>(reader: &mut FrameReader, pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<String>, Result<(), Error>) {
    let mut said: Vec<String> = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(Event::Body(part))) => body.extend_from_slice(part),
                Ok(Some(event)) => {
                    if !body.is_empty() {
                        said.push(format!("{:?}", Event::Body(&std::mem::take(&mut body))));
                    }
                    said.push(format!("{event:?}"));
                }
                Ok(None) => break,
                Err(error) => return (said, Err(error)),
            }
        }
        assert!(piece.is_empty(), "all is taken");
        assert!(reader.held() <= MAX_HEADERS + FrameHeader::MAX_LEN);
    }
    if !body.is_empty() {
        said.push(format!("{:?}", Event::Body(&body)));
    }
    (said, reader.finish())
}

fn code(kind: StreamKind, sender: Side, bytes: &[u8]) -> Option<Code> {
    let (_, end) = read(&mut FrameReader::new(kind, sender, true), [bytes]);
    end.err().map(|error| error.code).filter(|code| *code != Code::H3_CLOSED_CRITICAL_STREAM)
}

fn control(rest: &[u8]) -> Vec<u8> {
    [&frame(4, &[]), rest].concat()
}

fn request_stream() -> Vec<u8> {
    [
        frame(1, b"fields"),
        frame(0x21, b"grease"),
        frame(0, b"body"),
        frame(0, b""),
        frame(0x4000_0000, &[7; 70]),
        frame(0, &[1; 100]),
        frame(1, &[b't'; 80]),
        frame(0x40, b""),
    ]
    .concat()
}

fn control_stream() -> Vec<u8> {
    [
        frame(4, &[6, 0x44, 0, 0x21, 5, 0x33, 1]),
        frame(0x0d, &[0x40, 9]),
        frame(3, &[2]),
        frame(0xf0700, b"\x04u=1, i"),
        frame(0xf0701, b"\x01"),
        frame(0x5f, b"grease"),
        frame(7, &[8]),
    ]
    .concat()
}

#[test]
fn frames_in_order() {
    let bytes = request_stream();
    let (said, end) = read(&mut FrameReader::new(StreamKind::Request, Side::Client, false), [&bytes[..]]);
    let body = [1; 100];
    let expected = [
        Event::Headers(b"fields"),
        Event::Data(4),
        Event::Body(b"body"),
        Event::Data(0),
        Event::Data(100),
        Event::Body(&body),
        Event::Headers(&[b't'; 80]),
    ];
    assert_eq!((said, end), (expected.iter().map(|e| format!("{e:?}")).collect(), Ok(())));

    let bytes = control_stream();
    let (said, end) = read(&mut FrameReader::new(StreamKind::Control, Side::Client, false), [&bytes[..]]);
    let expected = [
        Event::Settings(Settings { max_field_section_size: Some(0x400), h3_datagram: true, ..Settings::DEFAULT }),
        Event::MaxPushId(9),
        Event::CancelPush(2),
        Event::PriorityUpdate { push: false, id: 4, value: b"u=1, i" },
        Event::PriorityUpdate { push: true, id: 1, value: b"" },
        Event::Goaway(8),
    ];
    assert_eq!(said, expected.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>());
    assert_eq!(end.unwrap_err().code, Code::H3_CLOSED_CRITICAL_STREAM);
}

#[test]
fn pieces_make_no_difference() {
    for (kind, bytes) in [(StreamKind::Request, request_stream()), (StreamKind::Control, control_stream())] {
        let new = || FrameReader::new(kind, Side::Client, false);
        let whole = read(&mut new(), [&bytes[..]]);
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(read(&mut new(), [a, b]), whole, "cut at {at}");
        }
        assert_eq!(read(&mut new(), bytes.chunks(1)), whole);
    }
}

#[test]
fn a_stream_that_ends_in_a_frame_is_a_frame_error() {
    let bytes = [frame(1, b"fields"), frame(0x21, b"grease"), frame(0, b"body")].concat();
    let ends = [0, 8, 16, 22];
    for at in 0..=bytes.len() {
        let expected = (!ends.contains(&at)).then_some(Code::H3_FRAME_ERROR);
        assert_eq!(code(StreamKind::Request, Side::Client, &bytes[..at]), expected, "after {at} bytes");
    }
}

#[test]
fn payloads_are_exactly_their_fields() {
    for kind in [3, 7, 0x0d] {
        for bad in [&[][..], &[0x40], &[0x80, 0, 0], &[4, 0], &[0x40, 4, 0], &[0xc0, 0, 0, 0, 0, 0, 0], &[0; 9]] {
            let got = code(StreamKind::Control, Side::Client, &control(&frame(kind, bad)));
            assert_eq!(got, Some(Code::H3_FRAME_ERROR), "frame {kind} with {bad:x?}");
        }
        for good in [&[4][..], &[0x40, 4], &[0xc0, 0, 0, 0, 0, 0, 0, 4]] {
            assert_eq!(code(StreamKind::Control, Side::Client, &control(&frame(kind, good))), None);
        }
    }
    for kind in [0xf0700, 0xf0701] {
        for bad in [&[][..], &[0x40], &[0x80, 1, 2]] {
            let got = code(StreamKind::Control, Side::Client, &control(&frame(kind, bad)));
            assert_eq!(got, Some(Code::H3_FRAME_ERROR), "frame {kind} with {bad:x?}");
        }
    }
    assert_eq!(code(StreamKind::Control, Side::Client, &frame(4, &[6])), Some(Code::H3_FRAME_ERROR));
}

#[test]
fn ids_are_of_the_right_kind() {
    for id in 1..4 {
        let bytes = control(&frame(7, &[id]));
        assert_eq!(code(StreamKind::Control, Side::Server, &bytes), Some(Code::H3_ID_ERROR));
        assert_eq!(code(StreamKind::Control, Side::Client, &bytes), None, "a push ID");
        let bytes = control(&frame(0xf0700, &[id]));
        assert_eq!(code(StreamKind::Control, Side::Client, &bytes), Some(Code::H3_ID_ERROR));
    }
    let promise = frame(5, b"\0fields");
    assert_eq!(code(StreamKind::Request, Side::Server, &promise), Some(Code::H3_ID_ERROR));
    assert_eq!(code(StreamKind::Request, Side::Client, &promise), Some(Code::H3_FRAME_UNEXPECTED));
}

#[test]
fn goaway_only_falls_and_max_push_id_only_rises() {
    let mut limit = Limit::default();
    assert!([12, 12, 4].into_iter().all(|id| limit.goaway(id).is_ok()));
    assert_eq!((limit.goaway(8).unwrap_err().code, limit.get()), (Code::H3_ID_ERROR, Some(4)));
    let mut limit = Limit::default();
    assert!([3, 3, 9].into_iter().all(|id| limit.max_push_id(id).is_ok()));
    assert_eq!((limit.max_push_id(8).unwrap_err().code, limit.get()), (Code::H3_ID_ERROR, Some(9)));
}

/// Every frame type on every stream, as `frame::permit` has it; its own test compares that with the RFC's table.
#[test]
fn readers_permit_what_the_table_permits() {
    let types = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0d, 0x0f, 0x21, 0xf0700, 0xf0701];
    for kind in [StreamKind::Control, StreamKind::Request, StreamKind::Push] {
        for (sender, at) in [Side::Client, Side::Server].into_iter().flat_map(|s| [(s, true), (s, false)]) {
            for id in types {
                let front = match (kind, at) {
                    (_, true) => Vec::new(),
                    (StreamKind::Control, _) => frame(4, &[]),
                    _ => frame(1, &[]),
                };
                let bytes = [front, frame(id, if id == 4 { &[] } else { &[4] })].concat();
                let expected = frame::permit(kind, sender, FrameType(id), at).err().map(|error| error.code);
                // Permitted by the table, but the client never asked for pushes.
                let promised = id == 5 && expected.is_none();
                let expected = if promised { Some(Code::H3_ID_ERROR) } else { expected };
                assert_eq!(code(kind, sender, &bytes), expected, "0x{id:x} from {sender:?} on {kind:?}, first: {at}");
            }
        }
    }
}

/// A frame that never ends, of each type: refused at its header, passed through, or counted off.
#[test]
fn endless_frames_hold_no_memory() {
    let chunk = [0x20; 4096];
    for id in [0, 1, 3, 4, 5, 7, 0x0d, 0x0f, 0x21, 0xf0700, 0xf0701] {
        for kind in [StreamKind::Control, StreamKind::Request] {
            for len in [65, 300, 2000, MAX_HEADERS as u64 + 1, 1 << 40, varint::MAX] {
                let mut reader = FrameReader::new(kind, Side::Client, false);
                let front = if kind == StreamKind::Control && id != 4 { frame(4, &[]) } else { Vec::new() };
                let bytes = [front, header(id, len)].concat();
                let mut piece = &bytes[..];
                while let Ok(Some(_)) = reader.next(&mut piece) {}
                for _ in 0..64 {
                    let mut piece = &chunk[..];
                    while let Ok(Some(_)) = reader.next(&mut piece) {}
                    let limit = match id {
                        1 => MAX_HEADERS,
                        4 => settings::MAX_LEN,
                        0xf0700 | 0xf0701 => MAX_PRIORITY_UPDATE,
                        _ => FrameHeader::MAX_LEN,
                    };
                    // What follows a frame of 65 bytes is frames of its own.
                    assert!(reader.held() <= limit.max(FrameHeader::MAX_LEN), "0x{id:x}: {} bytes", reader.held());
                }
            }
        }
    }
}

#[test]
fn frames_beyond_their_limit_are_refused_at_the_header() {
    let over = |id, len| code(StreamKind::Control, Side::Client, &control(&header(id, len)));
    assert_eq!(over(0xf0700, MAX_PRIORITY_UPDATE as u64 + 1), Some(Code::H3_EXCESSIVE_LOAD));
    let settings = header(4, settings::MAX_LEN as u64 + 1);
    assert_eq!(code(StreamKind::Control, Side::Client, &settings), Some(Code::H3_EXCESSIVE_LOAD));
    let mut reader = FrameReader::new(StreamKind::Request, Side::Client, false);
    let (_, end) = read(&mut reader, [&header(1, MAX_HEADERS as u64 + 1)[..]]);
    assert_eq!(end.unwrap_err(), Error::stream(Code::H3_EXCESSIVE_LOAD, "a HEADERS frame is too long"));
    let (said, end) = read(&mut reader, [&frame(1, b"more")[..]]);
    assert_eq!((said.len(), end), (0, Ok(())), "what follows an error is ignored");
    let fits = frame(1, &vec![b'x'; MAX_HEADERS]);
    let (said, end) = read(&mut FrameReader::new(StreamKind::Request, Side::Client, false), fits.chunks(1000));
    assert_eq!((said.len(), end), (1, Ok(())));
}

#[test]
fn a_body_can_be_taken_without_the_reader() {
    let bytes = [header(0, 1 << 40), frame(1, b"trailers")].concat();
    let mut reader = FrameReader::new(StreamKind::Request, Side::Client, false);
    let mut piece = &bytes[..];
    assert_eq!(reader.next(&mut piece), Ok(Some(Event::Data(1 << 40))));
    assert_eq!(reader.body_left(), 1 << 40);
    reader.pass((1 << 40) - 1);
    assert_eq!(reader.body_left(), 1);
    reader.pass(1);
    assert_eq!(reader.body_left(), 0);
    assert_eq!(reader.next(&mut piece), Ok(Some(Event::Headers(b"trailers"))));
}

#[test]
fn webtransport_streams_begin_with_their_signal() {
    let bytes = b"\x40\x41\x04payload";
    for pieces in [vec![&bytes[..]], bytes.chunks(1).collect()] {
        let (said, end) = read(&mut FrameReader::new(StreamKind::Request, Side::Client, true), pieces);
        let expected = [Event::WebTransport(4), Event::Body(b"payload")];
        assert_eq!((said, end), (expected.iter().map(|e| format!("{e:?}")).collect(), Ok(())));
    }
    let late = [&frame(1, b"fields"), &bytes[..]].concat();
    assert_eq!(code(StreamKind::Request, Side::Client, &late), Some(Code::H3_FRAME_ERROR));
    assert_eq!(code(StreamKind::Control, Side::Client, &control(bytes)), Some(Code::H3_FRAME_ERROR));
    // Without WebTransport it is one of many unknown types.
    let (said, _) = read(&mut FrameReader::new(StreamKind::Request, Side::Client, false), [&frame(0x41, b"abc")[..]]);
    assert_eq!(said.len(), 0);
}

#[test]
fn types_of_streams_arrive_in_pieces() {
    let bytes = b"\x40\x54\x80\0\0\x04rest";
    for size in 1..bytes.len() {
        let (mut prefix, mut read, mut rest) = (Prefix::default(), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            while read.len() < 2 && !piece.is_empty() {
                read.extend(prefix.next(&mut piece));
            }
            rest.extend_from_slice(piece);
        }
        assert_eq!((read, &rest[..]), (vec![0x54, 4], &b"rest"[..]));
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces(
        bytes in proptest::collection::vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 0..300),
        cuts in proptest::collection::vec(1usize..20, 1..40),
        control in any::<bool>(),
    ) {
        let kind = if control { StreamKind::Control } else { StreamKind::Request };
        let new = || FrameReader::new(kind, Side::Client, true);
        let whole = read(&mut new(), [&bytes[..]]);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        pieces.push(rest);
        let cut = read(&mut new(), pieces);
        // A body before an error is told or not, by where the piece ends.
        if whole.1.is_ok() {
            prop_assert_eq!(cut, whole);
        } else {
            prop_assert_eq!(cut.1, whole.1);
        }
    }
}
