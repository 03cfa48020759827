//! Slow applications: both ends stay connected, and continue where they were.

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{Dir, Event, OutOfSpace, SendData, StreamId, TransportConfig};

use super::pair::Pair;

fn bytes(n: usize) -> SendData {
    SendData::Bytes(Bytes::from(vec![7; n]))
}

/// Takes everything available on the client's stream and provides the buffers again.
fn read(pair: &mut Pair, id: StreamId) -> usize {
    let mut got = 0;
    for event in pair.events(Side::Client) {
        if let Event::Buffer { buf, valid, .. } = event {
            got += valid;
            // Refused if the stream has ended.
            let _ = pair.conn(Side::Client).provide_receive_buffer(id, buf);
        }
    }
    while let Some(chunk) = pair.conn(Side::Client).take(id) {
        got += chunk.len();
    }
    got
}

#[test]
fn an_application_that_pauses_for_minutes_loses_nothing() {
    const LEN: usize = 1_000_000;
    for (provided, max_data) in [(true, 64 << 20), (false, 64 << 20), (false, 50_000)] {
        let window = if provided { 0 } else { 64 << 10 };
        let client = TransportConfig {
            stream_window_bidi_local: window,
            max_data,
            max_window: 0,
            receive_low_water: 1,
            ..TransportConfig::default()
        };
        let mut pair = Pair::connected(client, TransportConfig::default());
        let id = pair.conn(Side::Client).open(Dir::Bidi).unwrap();
        if provided {
            pair.conn(Side::Client).provide_receive_buffer(id, PinnedBuf::unpinned(64 << 10)).unwrap();
        }
        pair.conn(Side::Client).send(id, SendData::Static(b"x"), true).unwrap();
        pair.wait(Duration::from_millis(50));
        pair.conn(Side::Server).send(id, bytes(LEN), true).unwrap();
        let mut got = 0;
        while got < LEN {
            pair.wait(Duration::from_secs(200));
            assert!(pair.client.closed().is_none() && pair.server.closed().is_none(), "after {got} bytes");
            // It reads everything it has, and what arrives at once; then it is busy elsewhere.
            for _ in 0..2 {
                got += read(&mut pair, id);
                pair.wait(Duration::from_millis(100));
            }
            got += read(&mut pair, id);
            if LEN - got <= 64 << 10 {
                // The rest fits, so neither side waits for the other.
                pair.wait(Duration::from_millis(100));
                got += read(&mut pair, id);
            }
        }
        assert_eq!(got, LEN);
    }
}

/// A stream with `given` provided bytes that must not wait, on which the server sends `sent` bytes. Returns the number
/// of returned buffers and valid bytes, the sizes in `OutOfSpace` and `Finished`, and the code with which the server
/// was stopped.
fn must_not_wait(given: &[usize], sent: usize, fin: bool) -> (usize, usize, [Option<u64>; 2], Option<u64>) {
    let client = TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() };
    let mut pair = Pair::connected(client, TransportConfig::default());
    let id = pair.conn(Side::Client).open(Dir::Bidi).unwrap();
    let bufs = given.iter().map(|len| PinnedBuf::unpinned(*len)).collect();
    pair.conn(Side::Client).provide_receive_buffers(id, bufs).unwrap();
    pair.conn(Side::Client).set_out_of_space(id, OutOfSpace::Stop(77)).unwrap();
    pair.conn(Side::Client).send(id, SendData::Static(b"x"), true).unwrap();
    pair.wait(Duration::from_millis(50));
    pair.conn(Side::Server).send(id, bytes(sent), fin).unwrap();
    pair.wait(Duration::from_secs(1));
    let (mut buffers, mut valid_bytes, mut ends) = (0, 0, [None; 2]);
    for event in pair.events(Side::Client) {
        match event {
            Event::Buffer { valid, .. } => {
                assert_eq!(ends, [None; 2], "buffers come first");
                (buffers, valid_bytes) = (buffers + 1, valid_bytes + valid);
            }
            Event::OutOfSpace { provided, .. } => ends[0] = Some(provided),
            Event::Finished { size, .. } => ends[1] = Some(size),
            _ => {}
        }
    }
    let stopped = pair.events(Side::Server).into_iter().find_map(|event| match event {
        Event::Stopped { code, .. } => Some(code),
        _ => None,
    });
    // The connection survives, and nothing of the stream is left.
    if stopped.is_some() || fin {
        assert_eq!(pair.conn(Side::Client).stream_count(), 0);
    }
    let next = pair.conn(Side::Client).open(Dir::Bidi).unwrap();
    pair.conn(Side::Client).send(next, SendData::Static(b"y"), true).unwrap();
    pair.wait(Duration::from_millis(50));
    assert!(pair.events(Side::Server).iter().any(|e| matches!(e, Event::Readable { id, .. } if *id == next)));
    (buffers, valid_bytes, ends, stopped)
}

#[test]
fn a_stream_that_must_not_wait_is_stopped_when_the_peer_has_more() {
    for given in [&[10_000][..], &[4000, 5000, 1000]] {
        let n = given.len();
        // It fits, so nothing happens.
        assert_eq!(must_not_wait(given, 10_000, true), (n, 10_000, [None, Some(10_000)], None));
        assert_eq!(must_not_wait(given, 9000, true), (n, 9000, [None, Some(9000)], None));
        let stays = must_not_wait(given, 10_000, false);
        assert_eq!((stays.1, stays.2, stays.3), (10_000, [None, None], None), "more may come, or not");
        // It does not fit.
        for (sent, fin) in [(10_001, true), (10_001, false), (10_002, true), (500_000, false)] {
            assert_eq!(
                must_not_wait(given, sent, fin),
                (n, 10_000, [Some(10_000), None], stopped(sent, fin)),
                "{sent}"
            );
        }
    }
}

/// A server that has sent everything has nothing left to be stopped.
fn stopped(sent: usize, fin: bool) -> Option<u64> {
    (sent > 10_001 || !fin).then_some(77)
}
