//! Peers that use credit in unusual ways: nothing waits forever, and no connection dies of waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{BufferProvider, CloseReason, Dir, Event, SendData, StreamId, TransportConfig};
use gannet::wire::quic::frame::{Frame, StreamHeader};
use gannet::wire::quic::params::TransportParameters;

use super::memory::held;
use super::peer::{DATA, Peer, Told, frames};
use super::world::{Host, against_client, against_server, client_addr, exchange, small};

/// A unidirectional stream of the peer's.
fn uni(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Uni, index)
}

/// A STREAM frame with `len` bytes.
pub fn stream(id: StreamId, offset: u64, len: u64, fin: bool) -> Vec<u8> {
    let mut bytes = frames(&[Frame::Stream(StreamHeader { id, offset, len: Some(len), fin })]);
    bytes.resize(bytes.len() + len as usize, 7);
    bytes
}

/// The peer sends `payload` in a packet, and receives what the engine sends for a while.
pub fn say(host: &mut Host, peer: &mut Peer, payload: &[u8]) {
    let datagram = peer.packet(DATA, payload);
    host.receive(datagram);
    host.wait(Duration::from_millis(30)).iter().for_each(|(_, d)| peer.receive(d));
}

/// The application reads everything available on a stream.
fn read(host: &mut Host, id: StreamId) -> usize {
    let conn = host.conn.unwrap();
    let mut conn = host.endpoint.conn(conn).unwrap();
    std::iter::from_fn(|| conn.take(id)).map(|chunk| chunk.len()).sum()
}

/// The peer acknowledges everything and receives the answer.
pub fn ack(host: &mut Host, peer: &mut Peer) {
    let ack = peer.ack(DATA);
    say(host, peer, &ack);
}

#[test]
fn streams_that_stay_open_do_not_use_up_the_right_to_open_others() {
    // No STREAMS_BLOCKED comes: waiting for one is not allowed (RFC 9000 §4.6).
    for (limit, stay) in [(3, 2), (100, 49), (100, 50), (100, 51), (100, 99)] {
        let config = TransportConfig { max_streams_uni: limit, ..TransportConfig::default() };
        let (mut host, mut peer) = against_server(config);
        peer.max_streams = [100, limit];
        for index in 0..stay {
            say(&mut host, &mut peer, &stream(uni(index), 0, 1, false));
        }
        for index in stay..stay + 300 {
            assert!(index < peer.max_streams[1], "{stay} of {limit} stay: blocked at stream {index}");
            say(&mut host, &mut peer, &stream(uni(index), 0, 1, true));
            assert_eq!(read(&mut host, uni(index)), 1);
            ack(&mut host, &mut peer);
        }
        assert!(host.closed().is_none());
    }
}

#[test]
fn a_stream_that_nobody_reads_does_not_stop_the_others() {
    for unread in [2000, 2900, 3100, 3900] {
        let (mut host, mut peer) = against_server(small());
        peer.max_data = 6000;
        for at in (0..unread).step_by(1000) {
            say(&mut host, &mut peer, &stream(uni(0), at, (unread - at).min(1000), false));
        }
        let (mut used, mut offset) = (unread, 0);
        for _ in 0..200 {
            let n = (peer.max_data - used).min(500);
            assert!(n > 0, "{unread} bytes are not read: stuck after {offset} others");
            say(&mut host, &mut peer, &stream(uni(1), offset, n, false));
            (used, offset) = (used + n, offset + n);
            assert_eq!(read(&mut host, uni(1)), n as usize);
            ack(&mut host, &mut peer);
        }
        assert!(host.closed().is_none());
    }
}

/// An application that waits for a whole record before it takes any of it: credit for what it took before has to be
/// announced although it was too little then.
#[test]
fn credit_that_was_no_news_is_told_when_the_rest_is_used_up() {
    let config = TransportConfig { stream_window_uni: 1000, ..TransportConfig::default() };
    let (mut host, mut peer) = against_server(config);
    say(&mut host, &mut peer, &stream(uni(0), 0, 400, false));
    assert_eq!(read(&mut host, uni(0)), 400);
    ack(&mut host, &mut peer);
    assert_eq!(peer.stream_limit(uni(0)), 0, "600 of 1000 bytes are left");
    say(&mut host, &mut peer, &stream(uni(0), 400, 600, false));
    assert_eq!(peer.stream_limit(uni(0)), 1400);
}

#[test]
fn who_is_blocked_at_an_old_limit_is_told_the_one_it_has() {
    let (mut host, mut peer) = against_server(small());
    say(&mut host, &mut peer, &stream(uni(0), 0, 1, false));
    let (data, streams) = (peer.max_data, peer.max_streams);
    let blocked = [
        Frame::DataBlocked(10),
        Frame::StreamDataBlocked { id: uni(0), limit: 0 },
        Frame::StreamsBlocked { bidi: true, limit: 1 },
        Frame::StreamsBlocked { bidi: false, limit: 1 },
    ];
    let before = peer.packets;
    say(&mut host, &mut peer, &frames(&blocked));
    assert_eq!((data, streams), (0, [0; 2]), "it was not announced before");
    assert_eq!((peer.max_data, peer.max_streams), (6000, [3; 2]));
    assert_eq!(peer.stream_limit(uni(0)), 4000);
    // However often it reports that, the limit is announced once per packet.
    ack(&mut host, &mut peer);
    for _ in 0..10 {
        say(&mut host, &mut peer, &frames(&blocked).repeat(50));
    }
    assert!(peer.packets - before <= 30, "{} packets", peer.packets - before);
    assert!(host.closed().is_none());
}

#[test]
fn one_frame_opens_many_streams_for_the_price_of_one() {
    /// Counts the streams that ask for buffers; it has none.
    #[derive(Default)]
    struct Asked(AtomicU64);
    impl BufferProvider for Asked {
        fn initial_window(&self) -> u64 {
            1000
        }
        fn provide(&self, _: StreamId, _: &mut dyn FnMut(PinnedBuf)) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    const LIMIT: u64 = 1 << 17;
    let asked = Arc::new(Asked::default());
    let config =
        TransportConfig { max_streams_uni: LIMIT, provider: Some(asked.clone()), ..TransportConfig::default() };
    let (mut host, mut peer) = against_server(config);
    let opened = |host: &Host| host.events.iter().filter(|(_, e)| matches!(e, Event::StreamOpened { .. })).count();
    let before = held();
    say(&mut host, &mut peer, &stream(uni(LIMIT - 1), 0, 1, false));
    let conn = host.conn.unwrap();
    assert_eq!(host.endpoint.conn(conn).unwrap().stream_count(), 1);
    assert_eq!((opened(&host), asked.0.load(Ordering::Relaxed)), (1, 1));
    let grown = held() - before;
    assert!(grown < 100_000, "131,072 streams: {grown} bytes");
    // Lower streams are created when a frame refers to them, and are reported then, once.
    for index in [5, 3, 5, 3, LIMIT - 2] {
        say(&mut host, &mut peer, &stream(uni(index), 0, 1, false));
    }
    assert_eq!(host.endpoint.conn(conn).unwrap().stream_count(), 4);
    assert_eq!((opened(&host), asked.0.load(Ordering::Relaxed)), (4, 4));
    assert!(host.closed().is_none());
}

/// A client that expects `provided` bytes on a stream whose window opens with the buffers, from an untrusted server.
fn client_with_buffers(provided: &[usize]) -> (Host, Peer, StreamId) {
    let config = TransportConfig { stream_window_bidi_local: 0, receive_low_water: 0, ..TransportConfig::default() };
    let (mut host, mut peer) = against_client(config);
    ack(&mut host, &mut peer);
    let conn = host.conn.unwrap();
    let mut conn = host.endpoint.conn(conn).unwrap();
    let id = conn.open(Dir::Bidi).unwrap();
    conn.provide_receive_buffers(id, provided.iter().map(|n| PinnedBuf::unpinned(*n)).collect()).unwrap();
    (host, peer, id)
}

/// Frames about the stream `id` that the peer received, in order, with the number of the packet.
fn told_of(peer: &Peer, id: StreamId) -> Vec<(u64, Told)> {
    let of = |told: &Told| match told {
        Told::Stream(of, ..)
        | Told::MaxStreamData(of, _)
        | Told::StopSending(of, _)
        | Told::StreamDataBlocked(of, _) => *of == id,
        _ => false,
    };
    peer.told.iter().filter(|(_, told)| of(told)).copied().collect()
}

/// The limit of the stream `id` for a peer that ignores frames before the first STREAM frame.
fn limit_heard(told: &[(u64, Told)]) -> u64 {
    let known = told.iter().skip_while(|(_, told)| !matches!(told, Told::Stream(..)));
    let limit = |(_, told): &(u64, Told)| if let Told::MaxStreamData(_, max) = told { Some(*max) } else { None };
    known.filter_map(limit).max().unwrap_or(0)
}

#[test]
fn a_stream_frame_comes_before_all_else_that_is_said_of_a_stream() {
    for request in [&b""[..], b"GET /\r\n", &[7; 5000]] {
        let (mut host, mut peer, id) = client_with_buffers(&[5000]);
        let conn = host.conn.unwrap();
        if !request.is_empty() {
            host.endpoint.conn(conn).unwrap().send(id, SendData::Static(request), true).unwrap();
        }
        host.run().iter().for_each(|(_, d)| peer.receive(d));
        let told = told_of(&peer, id);
        assert!(matches!(told[0].1, Told::Stream(..)), "{told:?}");
        assert_eq!(limit_heard(&told), 5001, "{told:?}");
        assert!(
            told.iter().any(|(packet, t)| *packet == told[0].0 && matches!(t, Told::MaxStreamData(..))),
            "{told:?}"
        );
        // The same for frames that end it.
        let other = host.endpoint.conn(conn).unwrap().open(Dir::Bidi).unwrap();
        host.endpoint.conn(conn).unwrap().stop_sending(other, 3).unwrap();
        host.run().iter().for_each(|(_, d)| peer.receive(d));
        let told = told_of(&peer, other);
        assert!(matches!(told[..], [(_, Told::Stream(_, 0, 0, false)), (_, Told::StopSending(_, 3))]), "{told:?}");
    }
}

#[test]
fn what_was_said_of_a_stream_goes_along_when_its_first_frame_has_to_come_again() {
    for request in [&b""[..], b"GET /\r\n"] {
        let (mut host, mut peer, id) = client_with_buffers(&[5000]);
        let conn = host.conn.unwrap();
        if !request.is_empty() {
            host.endpoint.conn(conn).unwrap().send(id, SendData::Static(request), true).unwrap();
        }
        // The first packet is lost; the second arrives at a peer that does not know the stream, and is acknowledged.
        assert_eq!(host.run().len(), 1);
        host.endpoint.conn(conn).unwrap().provide_receive_buffer(id, PinnedBuf::unpinned(1000)).unwrap();
        host.run().iter().for_each(|(_, d)| peer.receive(d));
        assert!(matches!(told_of(&peer, id)[..], [(_, Told::MaxStreamData(..))]), "{:?}", peer.told);
        // All but the packet before the last one.
        let ack = peer.ack(DATA);
        let Ok((Frame::Ack(ack), _)) = Frame::decode(&ack) else { panic!("no ACK frame") };
        let mut but_one = vec![0x02, 0x40 | (ack.largest >> 8) as u8, ack.largest as u8, 0, 1, 0, 0];
        but_one.extend([0x40 | ((ack.largest - 2) >> 8) as u8, (ack.largest - 2) as u8]);
        say(&mut host, &mut peer, &but_one);
        host.wait(Duration::from_secs(2)).iter().for_each(|(_, d)| peer.receive(d));
        assert_eq!(limit_heard(&told_of(&peer, id)), 6001, "{:?}", peer.told);
    }
}

#[test]
fn what_overtook_the_first_frame_of_a_stream_is_said_again() {
    let (mut host, mut peer, id) = client_with_buffers(&[5000]);
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(b"GET /\r\n"), true).unwrap();
    let first = host.run();
    host.endpoint.conn(conn).unwrap().provide_receive_buffer(id, PinnedBuf::unpinned(1000)).unwrap();
    let second = host.run();
    second.iter().chain(&first).for_each(|(_, d)| peer.receive(d));
    assert_eq!(limit_heard(&told_of(&peer, id)), 5001);
    ack(&mut host, &mut peer);
    assert_eq!(limit_heard(&told_of(&peer, id)), 6001, "{:?}", peer.told);
    let count = peer.told.len();
    for _ in 0..5 {
        ack(&mut host, &mut peer);
    }
    assert!(peer.told[count..].iter().all(|(_, told)| *told == Told::Ping), "once: {:?}", peer.told);
}

/// A server that asks its application for more data, and thus learns that there is no more, only while it has credit:
/// it cannot send the end of an answer that uses all of it.
#[test]
fn an_answer_of_exactly_the_size_of_its_buffers_comes_to_its_end() {
    for (window, buffers) in [(0, vec![3000]), (0, vec![1000; 3]), (3000, vec![3000]), (3000, vec![1, 2999])] {
        let config =
            TransportConfig { stream_window_bidi_local: window, receive_low_water: 0, ..TransportConfig::default() };
        let (mut host, mut peer) = against_client(config);
        let conn = host.conn.unwrap();
        let mut conn = host.endpoint.conn(conn).unwrap();
        let id = conn.open(Dir::Bidi).unwrap();
        conn.provide_receive_buffers(id, buffers.into_iter().map(PinnedBuf::unpinned).collect()).unwrap();
        conn.send(id, SendData::Static(b"GET /\r\n"), true).unwrap();
        ack(&mut host, &mut peer);
        let (mut sent, mut ended) = (0, false);
        for _ in 0..20 {
            let credit = limit_heard(&told_of(&peer, id)).max(window) - sent;
            let n = credit.min(700).min(3000 - sent);
            // It learns of the end by asking, for which it needs credit.
            ended = credit > 0 && n == 0;
            say(&mut host, &mut peer, &stream(id, sent, n, ended));
            ack(&mut host, &mut peer);
            sent += n;
            if ended {
                break;
            }
        }
        assert!(ended && sent == 3000, "{sent} bytes, and no end: {:?}", told_of(&peer, id));
        assert!(host.events.iter().any(|(_, e)| matches!(e, Event::Finished { size: 3000, .. })));
        let low = |e: &Event| matches!(e, Event::ReceiveBufferLow { .. });
        assert!(!host.events.iter().any(|(_, e)| low(e)), "the application never has to know");
    }
}

/// Time passes, and the peer acknowledges what it receives.
fn live(host: &mut Host, peer: &mut Peer, time: Duration) {
    let until = host.now + time;
    while host.now < until && host.closed().is_none() {
        let heard = host.wait(Duration::from_millis(20));
        heard.iter().for_each(|(_, d)| peer.receive(d));
        if !heard.is_empty() {
            let ack = peer.ack(DATA);
            let datagram = peer.packet(DATA, &ack);
            host.receive(datagram);
        }
    }
}

/// Number of frames that match.
fn count(peer: &Peer, what: impl Fn(&Told) -> bool) -> usize {
    peer.told.iter().filter(|(_, told)| what(told)).count()
}

#[test]
fn who_has_data_and_no_credit_says_so_again_and_lives() {
    for by_connection in [true, false] {
        let idle = Duration::from_secs(10);
        let mut host = Host::server(TransportConfig { max_idle_timeout: idle, ..small() });
        let mut peer = Peer::client(client_addr(), 1, |params| {
            let (data, stream) = if by_connection { (10, 1000) } else { (1000, 10) };
            let params = TransportParameters { initial_max_data: data, ..params };
            TransportParameters { initial_max_stream_data_bidi_remote: stream, ..params }.to_bytes()
        });
        exchange(&mut host, &mut peer);
        let conn = host.conn.unwrap();
        let id = host.endpoint.conn(conn).unwrap().open(Dir::Bidi).unwrap();
        host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&[1; 100]), false).unwrap();
        live(&mut host, &mut peer, 12 * idle);
        assert_eq!(host.closed(), None);
        let blocked = count(&peer, |told| matches!(told, Told::DataBlocked(10) | Told::StreamDataBlocked(_, 10)));
        assert!((40..=60).contains(&blocked), "{blocked} in 120 s");
        // When the credit arrives at last, so does the rest.
        let credit = [Frame::MaxData(1000), Frame::MaxStreamData { id, max: 1000 }];
        say(&mut host, &mut peer, &frames(&credit));
        assert_eq!(peer.stream_bytes, 100);
        // If the peer is gone, that is detected.
        host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&[1; 2000]), false).unwrap();
        host.wait(2 * idle);
        assert_eq!(host.closed(), Some(&CloseReason::IdleTimeout));
    }
}

#[test]
fn who_owes_credit_pings_and_lives() {
    for by_connection in [true, false] {
        let (mut host, mut peer) = against_server(small());
        // It does not report that it is blocked.
        say(&mut host, &mut peer, &stream(uni(0), 0, 4000, false));
        if by_connection {
            say(&mut host, &mut peer, &stream(uni(1), 0, 2000, false));
        }
        live(&mut host, &mut peer, Duration::from_secs(300));
        assert_eq!(host.closed(), None);
        let pings = count(&peer, |told| *told == Told::Ping);
        assert!((35..=45).contains(&pings), "{pings} in 300 s");
        assert_eq!(read(&mut host, uni(0)), 4000);
        live(&mut host, &mut peer, Duration::from_secs(1));
        assert_eq!(peer.stream_limit(uni(0)), 8000);
    }
}

#[test]
fn who_owes_nothing_and_waits_for_nothing_times_out() {
    let (mut host, mut peer) = against_server(small());
    say(&mut host, &mut peer, &stream(uni(0), 0, 3999, false));
    // The path's probes are answered first.
    live(&mut host, &mut peer, Duration::from_secs(5));
    let pings = count(&peer, |told| *told == Told::Ping);
    live(&mut host, &mut peer, Duration::from_secs(30));
    assert_eq!(host.closed(), Some(&CloseReason::IdleTimeout));
    assert_eq!(count(&peer, |told| *told == Told::Ping), pings);
}

#[test]
fn a_server_that_is_gone_is_noticed_by_keep_alive_and_idle_timeout() {
    let (keep_alive, idle) = (Duration::from_millis(2500), Duration::from_secs(10));
    let config = TransportConfig { keep_alive: Some(keep_alive), max_idle_timeout: idle, ..small() };
    let (mut host, mut peer) = against_client(config);
    say(&mut host, &mut peer, &frames(&[Frame::HandshakeDone]));
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Bidi).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(b"GET /\r\n"), true).unwrap();
    // It takes its time, but it arrives.
    live(&mut host, &mut peer, 10 * idle);
    assert_eq!(host.closed(), None);
    say(&mut host, &mut peer, &stream(id, 0, 1000, false));
    let second = Duration::from_secs(1);
    host.wait(idle - second);
    assert_eq!(host.closed(), None);
    // The first PING may restart the idle timeout (RFC 9000 §10.1).
    host.wait(keep_alive + second);
    assert_eq!(host.closed(), Some(&CloseReason::IdleTimeout));
}

/// RFC 9000 §19.14: STREAMS_BLOCKED when a stream cannot be opened, once for each limit, and again if it is lost.
#[test]
fn who_wants_a_stream_and_may_not_open_it_says_so() {
    for dir in [Dir::Bidi, Dir::Uni] {
        let mut host = Host::server(TransportConfig::default());
        let limits = |params| TransportParameters { initial_max_streams_bidi: 2, initial_max_streams_uni: 2, ..params };
        let mut peer = Peer::client(client_addr(), 1, |params| limits(params).to_bytes());
        exchange(&mut host, &mut peer);
        let conn = host.conn.unwrap();
        let opened = |host: &mut Host| (0..5).filter(|_| host.endpoint.conn(conn).unwrap().open(dir).is_ok()).count();
        let blocked = |peer: &Peer| {
            let says = |told: &&(u64, Told)| matches!(told.1, Told::StreamsBlocked(..));
            peer.told.iter().filter(says).map(|told| told.1).collect::<Vec<_>>()
        };
        assert_eq!(opened(&mut host), 2);
        say(&mut host, &mut peer, &frames(&[Frame::Ping]));
        let bidi = dir == Dir::Bidi;
        assert_eq!(blocked(&peer), [Told::StreamsBlocked(bidi, 2)]);
        say(&mut host, &mut peer, &frames(&[Frame::MaxStreams { bidi, max: 1 }, Frame::MaxStreams { bidi, max: 2 }]));
        assert_eq!(opened(&mut host), 0, "these limits are no higher");
        say(&mut host, &mut peer, &frames(&[Frame::MaxStreams { bidi, max: 3 }, Frame::MaxStreams { bidi, max: 1 }]));
        assert_eq!(opened(&mut host), 1, "the lower limit is outdated (§19.11)");
        say(&mut host, &mut peer, &frames(&[Frame::Ping]));
        assert_eq!(blocked(&peer).last(), Some(&Told::StreamsBlocked(bidi, 3)));
    }
}
