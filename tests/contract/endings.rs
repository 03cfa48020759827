//! The end of a connection: received data is not lost, and all memory is returned.

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{CloseReason, Dir, Event, SendData, StreamId, TransportConfig};

use super::pair::Pair;
use super::world::Host;

fn sent(len: usize) -> SendData {
    SendData::Bytes(Bytes::from_iter((0..len).map(|i| i as u8)))
}

fn pair() -> Pair {
    Pair::connected(TransportConfig::default(), TransportConfig::default())
}

/// The client has received `len` bytes of a stream that the server opened, which the application does not know yet.
fn unread(pair: &mut Pair, len: usize, fin: bool) -> StreamId {
    let id = pair.conn(Side::Server).open(Dir::Uni).unwrap();
    pair.conn(Side::Server).send(id, sent(len), fin).unwrap();
    while pair.conn(Side::Server).stream_stats(id).is_some_and(|s| s.sent < len as u64) {
        pair.talk();
    }
    pair.client.events.clear();
    id
}

/// Polls all events of the client one by one, reading on `Readable`, and once more after `Closed`.
fn read(pair: &mut Pair) -> (Vec<u8>, Option<CloseReason>, u32) {
    let (mut bytes, mut closed, mut told) = (Vec::new(), None, 0);
    let client = &mut pair.client;
    while let Some((conn, event)) = client.endpoint.poll_event() {
        assert!(closed.is_none(), "after Closed: {event:?}");
        match event {
            Event::Readable { id, .. } => {
                told += 1;
                let mut conn = client.endpoint.conn(conn).unwrap();
                while let Some(chunk) = conn.take(id) {
                    assert_eq!(chunk.offset(), bytes.len() as u64);
                    bytes.extend_from_slice(&chunk);
                }
            }
            Event::Closed { reason } => closed = Some(reason),
            Event::StreamOpened { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    (bytes, closed, told)
}

fn is_right(bytes: &[u8], len: usize) -> bool {
    bytes.len() == len && bytes.iter().enumerate().all(|(i, b)| *b == i as u8)
}

#[test]
fn a_response_and_a_close_in_one_burst() {
    for fin in [false, true] {
        let mut pair = pair();
        let id = pair.conn(Side::Server).open(Dir::Uni).unwrap();
        pair.conn(Side::Server).send(id, sent(5000), fin).unwrap();
        let mut burst = pair.server.run();
        pair.conn(Side::Server).close(5, "that is all");
        burst.extend(pair.server.run());
        // All of it arrives before the application is called.
        burst.into_iter().for_each(|(_, datagram)| pair.client.receive(datagram));
        let (bytes, closed, told) = read(&mut pair);
        assert!(is_right(&bytes, 5000), "{} bytes", bytes.len());
        assert_eq!(closed, Some(CloseReason::Application { code: 5, reason: "that is all".into() }));
        assert_eq!(told, 1);
    }
}

#[test]
fn bytes_that_were_told_of_and_left_there_are_told_of_again() {
    let mut pair = pair();
    let id = unread(&mut pair, 5000, true);
    pair.conn(Side::Client).consume(id, 1);
    pair.conn(Side::Server).close(5, "");
    pair.server.run().into_iter().for_each(|(_, datagram)| pair.client.receive(datagram));
    // They can be read as long as the application handles its last event.
    let conn = pair.client.conn.unwrap();
    assert!(matches!(pair.client.endpoint.poll_event(), Some((_, Event::Readable { id: told, .. })) if told == id));
    assert!(pair.conn(Side::Client).peek(id).is_some_and(|bytes| bytes.len() > 1000));
    assert!(matches!(pair.client.endpoint.poll_event(), Some((_, Event::Closed { .. }))));
    let chunks: Vec<_> = std::iter::from_fn(|| pair.conn(Side::Client).take(id)).collect();
    assert!(chunks.first().is_some_and(|chunk| chunk.offset() == 1));
    assert!(chunks.last().is_some_and(|chunk| chunk.range().end == 5000 && chunk.is_last()));
    assert_eq!(chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), 4999);
    assert!(pair.client.endpoint.poll_event().is_none());
    assert_eq!(pair.client.endpoint.conn(conn).map(|c| c.stream_count()), Some(0));
}

#[test]
fn unread_bytes_go_home_when_the_end_is_known() {
    let mut pair = pair();
    let id = unread(&mut pair, 200_000, false);
    assert!(pair.client.endpoint.pool().stats().in_use >= 200_000);
    pair.conn(Side::Server).close(5, "");
    pair.talk();
    assert!(pair.client.closed().is_some());
    assert_eq!(pair.client.endpoint.pool().stats().in_use, 0);
    assert!(pair.conn(Side::Client).take(id).is_none());
}

#[test]
fn other_sudden_ends_leave_bytes_to_be_read_too() {
    // The peer goes silent.
    let mut pair = pair();
    unread(&mut pair, 100, false);
    pair.client.now += Duration::from_secs(40);
    while pair.client.endpoint.next_timeout().is_some_and(|at| at <= pair.client.now) {
        pair.client.endpoint.handle_timeout(pair.client.now);
    }
    let (bytes, closed, _) = read(&mut pair);
    assert!(is_right(&bytes, 100) && closed == Some(CloseReason::IdleTimeout), "{closed:?}");
    // The core shuts down.
    let mut pair = self::pair();
    unread(&mut pair, 100, false);
    pair.client.endpoint.abandon_all();
    let (bytes, closed, _) = read(&mut pair);
    assert!(is_right(&bytes, 100) && closed == Some(CloseReason::Shutdown), "{closed:?}");
}

#[test]
fn who_closes_reads_no_more() {
    let mut pair = pair();
    let id = unread(&mut pair, 100_000, true);
    pair.conn(Side::Client).close(0, "");
    assert!(pair.conn(Side::Client).take(id).is_none());
    assert_eq!(pair.client.endpoint.pool().stats().in_use, 0);
}

/// The client closes as soon as it is connected, before it has sent the end of its handshake.
fn closed_at_once(data: Option<SendData>) -> (Host, Host) {
    let mut client = Host::client(TransportConfig::default());
    let mut server = Host::server(TransportConfig::default());
    while !client.events.iter().any(|(_, e)| matches!(e, Event::Connected { .. })) {
        for (_, datagram) in client.run() {
            server.receive(datagram);
        }
        for (_, datagram) in server.run() {
            client.receive(datagram);
        }
        client.poll();
    }
    let mut conn = client.endpoint.conn(client.conn.unwrap()).unwrap();
    if let Some(data) = data {
        let id = conn.open(Dir::Uni).unwrap();
        conn.send(id, data, true).unwrap();
    }
    conn.close(42, "changed my mind");
    (client, server)
}

#[test]
fn a_client_that_closes_at_once_still_completes_the_servers_handshake() {
    let (mut client, mut server) = closed_at_once(None);
    for (_, datagram) in client.run() {
        server.receive(datagram);
    }
    server.run();
    let connected = server.events.iter().position(|(_, e)| matches!(e, Event::Connected { .. }));
    assert!(connected.is_some(), "{:?}", server.events);
    assert_eq!(server.closed(), Some(&CloseReason::Application { code: 42, reason: "changed my mind".into() }));
    assert_eq!(server.endpoint.stats().handshakes, 1);
}

#[test]
fn also_when_the_first_close_is_lost() {
    let (mut client, mut server) = closed_at_once(Some(sent(10)));
    assert!(!client.run().is_empty(), "lost");
    let mut count = 0;
    while server.closed().is_none() {
        count += 1;
        assert!(count < 10);
        // The server misses an answer and retransmits, which is answered by the close. The client's clock stands still:
        // with a round trip of zero, it would otherwise be gone immediately.
        for (_, datagram) in server.wait(Duration::from_millis(1500)) {
            client.receive(datagram);
        }
        client.run().into_iter().for_each(|(_, datagram)| server.receive(datagram));
        server.poll();
    }
    assert!(server.events.iter().any(|(_, e)| matches!(e, Event::Connected { .. })));
    assert_eq!(server.closed(), Some(&CloseReason::Application { code: 42, reason: "changed my mind".into() }));
}

#[test]
fn an_engine_that_is_taken_apart_gives_everything_back() {
    let config = TransportConfig { stream_window_bidi_local: 0, stream_window_uni: 0, ..TransportConfig::default() };
    let mut pair = Pair::connected(config.clone(), config);
    let mut conn = pair.conn(Side::Client);
    let id = conn.open(Dir::Bidi).unwrap();
    let bufs = vec![PinnedBuf::unpinned(100), PinnedBuf::unpinned(100), PinnedBuf::unpinned(100)];
    let addrs: Vec<_> = bufs.iter().map(|b| b.as_ptr()).collect();
    conn.provide_receive_buffers(id, bufs).unwrap();
    conn.send_vectored(id, [sent(3000), sent(2000)], false).unwrap();
    pair.talk();
    pair.conn(Side::Server).send(id, sent(150), false).unwrap();
    pair.wait(Duration::from_millis(100));
    // The last piece is in flight and not acknowledged.
    pair.conn(Side::Client).send(id, sent(1000), true).unwrap();
    pair.client.run();
    let mut kinds = Vec::new();
    let mut acked = 0;
    let told = pair.client.events.drain(..).map(|(_, e)| e).collect::<Vec<_>>();
    for event in told.into_iter().chain(pair.client.endpoint.into_events().map(|(_, event)| event)) {
        match event {
            Event::Buffer { buf, offset, valid, .. } => {
                assert_eq!(buf.as_ptr(), addrs[offset as usize / 100]);
                kinds.push((offset, valid));
            }
            Event::SendDone { data, acked: n, .. } => {
                assert!(n == data.len() || (n, data.len()) == (0, 1000));
                acked += n;
            }
            Event::Closed { reason } => assert_eq!(reason, CloseReason::Shutdown),
            Event::Progress { .. } | Event::ReceiveBufferLow { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((kinds, acked), (vec![(0, 100), (100, 50), (200, 0)], 5000));
}
