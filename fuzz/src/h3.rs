//! HTTP/3: frames, capsules and field sections of strangers, whole and in pieces.

use gannet::base::Side;
use gannet::wire::h3::capsule::{self, CapsuleReader, MAX_DATAGRAM};
use gannet::wire::h3::message::{Limits, RequestCheck, ResponseCheck, TrailersCheck, request};
use gannet::wire::h3::priority::Priority;
use gannet::wire::h3::reader::MAX_HEADERS;
use gannet::wire::h3::{Error, Event, FrameHeader, FrameReader, Settings, StreamKind};
use gannet::wire::quic::varint::Writer;

/// What is said about bytes: events, and how they end.
type Said = (Vec<String>, Result<(), Error>);

/// The first byte is the length of pieces, the second selects the kind of stream and its sender.
pub fn run(data: &[u8]) {
    let [size, choice, data @ ..] = data else { return };
    let size = usize::from(*size).max(1);
    let kind = [StreamKind::Control, StreamKind::Request, StreamKind::Push][usize::from(choice % 3)];
    let sender = if choice & 4 == 0 { Side::Client } else { Side::Server };
    let webtransport = choice & 8 != 0;
    let new = || FrameReader::new(kind, sender, webtransport);
    let whole = frames(new(), [data]);
    let pieces = frames(new(), data.chunks(size));
    assert_eq!(pieces.1, whole.1, "pieces make no difference");
    assert!(pieces.0 == whole.0 || whole.1.is_err(), "{pieces:?} instead of {whole:?}");
    assert_eq!(capsules(data.chunks(size)), capsules([data]), "pieces make no difference");
    if let Ok(settings) = Settings::decode(data, sender) {
        let mut buf = [0; Settings::MAX_FRAME];
        let mut w = Writer::new(&mut buf);
        settings.encode(&mut w, [u64::from(*choice), 0]);
        let n = w.finish().expect("the longest frame fits");
        let (_, front) = FrameHeader::decode(&buf[..n]).expect("a whole header");
        assert_eq!(Settings::decode(&buf[front..n], sender), Ok(settings));
    }
    if let Ok((stream, rest)) = capsule::decode_datagram(data) {
        assert!(stream % 4 == 0 && rest.len() < data.len());
    }
    if let Some(priority) = Priority::parse(data) {
        let (bytes, n) = priority.to_bytes();
        let again = Priority::parse(&bytes[..n]).expect("what was read can be written");
        assert_eq!((again.urgency(), again.incremental()), (priority.urgency(), priority.incremental()));
    }
    sections(data);
}

/// Events of a stream, with adjacent pieces of a body joined.
fn frames<'p>(mut reader: FrameReader, pieces: impl IntoIterator<Item = &'p [u8]>) -> Said {
    let (mut said, mut body) = (Vec::new(), Vec::new());
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
        assert!(piece.is_empty() && reader.held() <= MAX_HEADERS + FrameHeader::MAX_LEN);
    }
    said.push(format!("{:?}", Event::Body(&body)));
    (said, reader.finish())
}

fn capsules<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Said {
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

/// Field sections, a field a line, with an equals sign between name and value.
fn sections(data: &[u8]) {
    let fields = || {
        data.split(|byte| *byte == b'\n').map(|line| {
            let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
            (&line[..at], line.get(at + 1..).unwrap_or_default())
        })
    };
    for extended in [false, true] {
        let mut check = RequestCheck::new(Limits::default(), extended);
        let Ok(head) = fields().try_for_each(|field| check.add(field)).and_then(|()| check.finish()) else { continue };
        // An empty path of a foreign scheme cannot be built.
        if head.path.is_empty() && !head.scheme.is_empty() {
            continue;
        }
        let regular: Vec<_> = fields().filter(|(name, _)| !name.starts_with(b":")).collect();
        let target = [head.scheme, head.authority, head.path];
        match request(head.method, target, head.protocol, regular.into_iter(), None) {
            Ok((again, _)) => assert_eq!(again, head),
            Err(error) => panic!("{head:?} cannot be built: {error}"),
        }
    }
    let mut check = ResponseCheck::new(Limits::default());
    if let Ok(head) = fields().try_for_each(|field| check.add(field)).and_then(|()| check.finish()) {
        assert!((100..=999).contains(&head.status) && head.status != 101);
    }
    let mut check = TrailersCheck::new(Limits::default());
    let _ = fields().try_for_each(|field| check.add(field));
}
