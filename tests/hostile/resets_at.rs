//! RESET_STREAM_AT frames (draft-ietf-quic-reliable-stream-reset-11): every violation, and what is delivered.

use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{Dir, Event, SendData, StreamError, StreamId, TransportConfig};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::{Frame, StreamHeader};
use gannet::wire::quic::params::TransportParameters;

use super::peer::{DATA, HANDSHAKE, Peer, Told, frames};
use super::world::{Host, against_server, client_addr, exchange, small, waiting_client};

/// The peer's first unidirectional stream.
const ID: StreamId = StreamId(2);

fn reset(code: u64, final_size: u64, reliable_size: u64) -> Vec<u8> {
    frames(&[Frame::ResetStreamAt { id: ID, code, final_size, reliable_size }])
}

fn stream(offset: u64, data: &[u8], fin: bool) -> Vec<u8> {
    let header = StreamHeader { id: ID, offset, len: Some(data.len() as u64), fin };
    [&frames(&[Frame::Stream(header)])[..], data].concat()
}

/// A server that has received these payloads, and its peer.
fn after(payloads: &[Vec<u8>]) -> (Host, Peer) {
    let (mut host, mut peer) = against_server(small());
    for payload in payloads {
        host.receive(peer.packet(DATA, payload));
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
    (host, peer)
}

/// Takes what can be read.
fn read(host: &mut Host) -> Vec<u8> {
    let id = host.conn.unwrap();
    let mut conn = host.endpoint.conn(id).unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = conn.take(ID) {
        assert!(!chunk.is_last(), "a reset stream has no last chunk");
        all.extend_from_slice(&chunk);
    }
    host.poll();
    all
}

/// Code and size of the resets reported.
fn resets(host: &Host) -> Vec<(u64, u64)> {
    let reset = |event: &Event| match event {
        Event::Reset { code, size, .. } => Some((*code, *size)),
        _ => None,
    };
    host.events.iter().filter_map(|(_, event)| reset(event)).collect()
}

/// §3, §4, §5.2.
#[test]
fn violations_end_the_connection() {
    let local = frames(&[Frame::ResetStreamAt { id: StreamId(3), code: 0, final_size: 0, reliable_size: 0 }]);
    let beyond = frames(&[Frame::ResetStreamAt { id: StreamId(2 + 4 * 9), code: 0, final_size: 0, reliable_size: 0 }]);
    let full = |code, final_size| frames(&[Frame::ResetStream { id: ID, code, final_size }]);
    let cases = [
        (vec![reset(1, 5, 6)], TransportError::FRAME_ENCODING_ERROR),
        (vec![reset(1, 4001, 5)], TransportError::FLOW_CONTROL_ERROR),
        (vec![local], TransportError::STREAM_STATE_ERROR),
        (vec![beyond], TransportError::STREAM_LIMIT_ERROR),
        (vec![stream(0, b"12345678", false), reset(1, 7, 0)], TransportError::FINAL_SIZE_ERROR),
        (vec![stream(4, b"5678", true), reset(1, 9, 9)], TransportError::FINAL_SIZE_ERROR),
        (vec![reset(1, 8, 8), stream(4, b"56789", false)], TransportError::FINAL_SIZE_ERROR),
        (vec![reset(1, 8, 8), stream(4, b"567", true)], TransportError::FINAL_SIZE_ERROR),
        (vec![reset(1, 8, 8), reset(1, 9, 8)], TransportError::FINAL_SIZE_ERROR),
        (vec![reset(1, 8, 8), full(1, 9)], TransportError::FINAL_SIZE_ERROR),
        (vec![reset(1, 8, 8), reset(2, 8, 8)], TransportError::STREAM_STATE_ERROR),
        (vec![reset(1, 8, 8), full(2, 8)], TransportError::STREAM_STATE_ERROR),
    ];
    for (i, (payloads, error)) in cases.into_iter().enumerate() {
        let (host, peer) = after(&payloads);
        assert_eq!(host.error(), Some(error), "case {i}");
        assert_eq!(peer.close.map(|close| close.code), Some(error), "case {i}");
    }
    // The limits of all streams together.
    let (mut host, mut peer) = against_server(small());
    for n in 0..2 {
        let frame = Frame::ResetStreamAt { id: StreamId(2 + 4 * n), code: 0, final_size: 3500, reliable_size: 3500 };
        host.receive(peer.packet(DATA, &frames(&[frame])));
        host.run();
    }
    assert_eq!(host.error(), Some(TransportError::FLOW_CONTROL_ERROR));
}

/// §3, §4: a frame that was not negotiated is unknown, and belongs in 1-RTT packets.
#[test]
fn frames_that_were_not_negotiated_end_the_connection() {
    let config = TransportConfig { reset_stream_at: false, ..TransportConfig::default() };
    let (mut host, mut peer) = against_server(config);
    host.receive(peer.packet(DATA, &reset(1, 0, 0)));
    host.run();
    assert_eq!(host.error(), Some(TransportError::FRAME_ENCODING_ERROR));
    let (mut host, mut peer) = waiting_client(TransportConfig::default());
    host.receive(peer.packet(HANDSHAKE, &reset(1, 0, 0)));
    exchange(&mut host, &mut peer);
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
    // The parameter has no value.
    let mut host = Host::server(TransportConfig::default());
    let with_value = |params: TransportParameters| [params.to_bytes(), vec![0x1d, 1, 0]].concat();
    let mut peer = Peer::client(client_addr(), 1, with_value);
    exchange(&mut host, &mut peer);
    assert_eq!(peer.close.map(|close| close.code), Some(TransportError::TRANSPORT_PARAMETER_ERROR));
}

/// §5, §5.3: the reliable bytes are delivered, whatever the order, and then the reset.
#[test]
fn reliable_bytes_come_before_the_reset() {
    let (mut host, mut peer) = after(&[stream(0, b"abc", false), reset(7, 3800, 5)]);
    assert_eq!((read(&mut host), resets(&host)), (b"abc".to_vec(), vec![]));
    host.receive(peer.packet(DATA, &stream(3, b"defg", false)));
    host.run();
    assert_eq!(resets(&host), [], "the application has to read first");
    assert_eq!((read(&mut host), resets(&host)), (b"de".to_vec(), vec![(7, 3800)]));
    assert_eq!(host.endpoint.memory_charged(), 0);
    let id = host.conn.unwrap();
    assert_eq!(host.endpoint.conn(id).unwrap().stream_count(), 0);
    // All of the final size is credit again.
    let datagrams = host.wait(Duration::from_millis(100));
    datagrams.iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.max_data, 6000 + 3800);
    // Later frames of the stream change nothing.
    host.receive(peer.packet(DATA, &[reset(9, 3800, 5), stream(0, b"abc", false)].concat()));
    host.run();
    assert_eq!((host.error(), resets(&host).len()), (None, 1));
}

/// §5.2: the smallest reliable size counts, in whatever order they come; RESET_STREAM is 0.
#[test]
fn the_smallest_reliable_size_counts() {
    let (mut host, mut peer) = after(&[stream(0, b"abc", false), reset(7, 10, 4)]);
    read(&mut host);
    host.receive(peer.packet(DATA, &reset(7, 10, 9)));
    host.run();
    assert_eq!(resets(&host), []);
    host.receive(peer.packet(DATA, &reset(7, 10, 2)));
    host.run();
    assert_eq!(resets(&host), [(7, 10)]);
    let (mut host, mut peer) = after(&[reset(7, 10, 4)]);
    host.receive(peer.packet(DATA, &frames(&[Frame::ResetStream { id: ID, code: 7, final_size: 10 }])));
    host.run();
    assert_eq!((resets(&host), host.error()), (vec![(7, 10)], None));
}

/// RFC 9000 §3.2: a stream that has arrived completely is not reset any more.
#[test]
fn a_reset_after_everything_came_changes_nothing() {
    let (mut host, _) = after(&[stream(0, b"abc", true), reset(7, 3, 1)]);
    let id = host.conn.unwrap();
    let chunk = host.endpoint.conn(id).unwrap().take(ID).unwrap();
    assert_eq!((&chunk[..], chunk.is_last(), resets(&host)), (&b"abc"[..], true, vec![]));
}

/// Provided buffers come back with the reliable bytes, before the reset.
#[test]
fn provided_buffers_come_back_before_the_reset() {
    let config = TransportConfig { stream_window_uni: 0, ..small() };
    let (mut host, mut peer) = against_server(config);
    let conn = host.conn.unwrap();
    host.receive(peer.packet(DATA, &stream(0, b"", false)));
    host.run();
    let bufs = (0..3).map(|_| PinnedBuf::unpinned(4)).collect();
    host.endpoint.conn(conn).unwrap().provide_receive_buffers(ID, bufs).unwrap();
    host.run();
    host.receive(peer.packet(DATA, &reset(7, 12, 6)));
    host.run();
    host.events.clear();
    host.receive(peer.packet(DATA, &stream(0, b"abcdefgh", false)));
    host.run();
    let told: Vec<_> = host
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Buffer { offset, valid, .. } => Some((*offset, *valid)),
            Event::Reset { size, .. } => Some((*size, usize::MAX)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(0, 4), (4, 2), (8, 0), (12, usize::MAX)]);
}

/// A server that has sent `len` bytes of a stream to a peer that supports resets at some size.
fn sending(len: usize, window: u64) -> (Host, Peer, StreamId) {
    let mut host = Host::server(TransportConfig::default());
    let params = |params: TransportParameters| TransportParameters {
        reset_stream_at: true,
        initial_max_stream_data_uni: window,
        ..params
    };
    let mut peer = Peer::client(client_addr(), 1, |usual| params(usual).to_bytes());
    exchange(&mut host, &mut peer);
    let conn = host.conn.unwrap();
    let mut conn = host.endpoint.conn(conn).unwrap();
    let id = conn.open(Dir::Uni).unwrap();
    conn.send(id, SendData::Bytes(vec![7; len].into()), false).unwrap();
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    (host, peer, id)
}

fn reset_at(host: &mut Host, id: StreamId, code: u64, reliable: u64) -> Result<(), StreamError> {
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().reset_at(id, code, reliable)
}

/// §4: flow control applies to the final size, so the frame waits for credit.
#[test]
fn the_frame_waits_for_credit() {
    let (mut host, mut peer, id) = sending(1000, 300);
    assert_eq!(reset_at(&mut host, id, 7, 1001), Err(StreamError::TooFar));
    assert_eq!(reset_at(&mut host, id, 7, 500), Ok(()));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(peer.resets_at.is_empty(), "{:?}", peer.resets_at);
    host.receive(peer.packet(DATA, &frames(&[Frame::MaxStreamData { id, max: 2000 }])));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.resets_at, [(id, 7, 500, 500)]);
    let sent = peer.told.iter().filter_map(|(_, told)| match told {
        Told::Stream(of, offset, len, _) if *of == id => Some(offset + len),
        _ => None,
    });
    assert_eq!(sent.max(), Some(500), "nothing behind it is sent any more");
}

/// §5.2, §5.4: sent again when lost; reduced, never raised; the code stays; STOP_SENDING is answered with a full reset.
#[test]
fn resets_are_reduced_and_sent_again() {
    let (mut host, mut peer, id) = sending(500, 1 << 20);
    assert_eq!(reset_at(&mut host, id, 7, 300), Ok(()));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(reset_at(&mut host, id, 8, 200), Ok(()));
    assert_eq!(reset_at(&mut host, id, 8, 400), Ok(()), "without effect");
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(std::mem::take(&mut peer.resets_at), [(id, 7, 500, 300), (id, 7, 500, 200)]);
    // Only probes are acknowledged: data and the latest reset are sent again.
    let before = peer.got[DATA].last().unwrap().end;
    peer.told.clear();
    host.wait(Duration::from_secs(3)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let mut probes = peer.got[DATA].clone();
    probes.remove(0..before);
    host.receive(peer.packet(DATA, &Peer::ack_of(&probes, None)));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(peer.resets_at.iter().all(|reset| *reset == (id, 7, 500, 200)), "{:?}", peer.resets_at);
    assert!(!peer.resets_at.is_empty());
    let again = peer.told.iter().filter_map(|(_, told)| match told {
        Told::Stream(_, offset, len, fin) => Some((offset + len, *fin)),
        _ => None,
    });
    assert_eq!(again.max(), Some((200, false)));
    host.receive(peer.packet(DATA, &frames(&[Frame::StopSending { id, code: 5 }])));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.resets, [(id, 7)]);
    assert!(host.events.iter().any(|(_, event)| matches!(event, Event::Stopped { code: 5, .. })));
    let ack = peer.ack(DATA);
    host.receive(peer.packet(DATA, &ack));
    host.run();
    let conn = host.conn.unwrap();
    assert_eq!(host.endpoint.conn(conn).unwrap().stream_count(), 0);
    let back = host.events.iter().filter(|(_, event)| matches!(event, Event::SendDone { .. })).count();
    assert_eq!(back, 1);
}

/// §3: peers that do not announce it are never sent the frame.
#[test]
fn peers_without_support_get_ordinary_resets() {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(b"abc"), false).unwrap();
    assert_eq!(reset_at(&mut host, id, 7, 1), Err(StreamError::Unsupported));
    assert_eq!(reset_at(&mut host, id, 7, 0), Ok(()));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!((peer.resets, peer.resets_at), (vec![(id, 7)], vec![]));
}
