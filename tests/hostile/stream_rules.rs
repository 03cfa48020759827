//! What an engine may say of a stream, and when (RFC 9000 §3, §4).

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::quic::{Dir, Event, OpenError, SendData, StreamId, TransportConfig};
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::params::TransportParameters;

use super::credit::{ack, say, stream};
use super::peer::{Peer, Told, frames};
use super::world::{Host, against_server, client_addr, exchange, small};

static BYTES: [u8; 10_000] = [7; 10_000];

fn hear(host: &mut Host, peer: &mut Peer, time: Duration) {
    host.wait(time).iter().for_each(|(_, datagram)| peer.receive(datagram));
}

/// A server and a client that grants it these limits.
fn limited(change: fn(TransportParameters) -> TransportParameters) -> (Host, Peer) {
    let mut host = Host::server(TransportConfig::default());
    let mut peer = Peer::client(client_addr(), 1, |params| change(params).to_bytes());
    exchange(&mut host, &mut peer);
    ack(&mut host, &mut peer);
    (host, peer)
}

fn open(host: &mut Host, dir: Dir) -> StreamId {
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().open(dir).unwrap()
}

fn send(host: &mut Host, id: StreamId, len: usize, fin: bool) {
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&BYTES[..len]), fin).unwrap();
}

/// The highest offset received on a stream.
fn high(peer: &Peer, id: StreamId) -> u64 {
    let end = |(_, told): &(u64, Told)| match *told {
        Told::Stream(of, at, len, _) if of == id => Some(at + len),
        _ => None,
    };
    peer.told.iter().filter_map(end).max().unwrap_or(0)
}

/// Frames about a stream.
fn count(peer: &Peer, id: StreamId) -> usize {
    let of = |(_, told): &&(u64, Told)| match *told {
        Told::Stream(of, ..)
        | Told::MaxStreamData(of, _)
        | Told::StopSending(of, _)
        | Told::StreamDataBlocked(of, _) => of == id,
        _ => false,
    };
    peer.told.iter().filter(of).count() + peer.resets.iter().filter(|(of, _)| *of == id).count()
}

/// "Senders MUST NOT send data in excess of either limit", in many packets, with losses, and with limits that rise and
/// seem to fall.
#[test]
fn sending_stays_within_both_limits() {
    let (mut host, mut peer) =
        limited(|params| TransportParameters { initial_max_data: 3000, initial_max_stream_data_uni: 2000, ..params });
    let ids = [open(&mut host, Dir::Uni), open(&mut host, Dir::Uni), open(&mut host, Dir::Uni)];
    ids.iter().for_each(|id| send(&mut host, *id, 10_000, true));
    let (mut all, mut each) = (3000, [2000; 3]);
    for round in 0..60u64 {
        // Every third round, nothing arrives.
        if round % 3 == 2 {
            host.wait(Duration::from_millis(30));
        } else {
            hear(&mut host, &mut peer, Duration::from_millis(30));
            ack(&mut host, &mut peer);
        }
        let high = ids.map(|id| high(&peer, id));
        assert!(high.iter().sum::<u64>() <= all, "{high:?} of {all}");
        assert!(high.iter().zip(each).all(|(high, limit)| *high <= limit), "{high:?} of {each:?}");
        all += 700;
        each[round as usize % 3] += 400;
        let news = [Frame::MaxData(all), Frame::MaxData(10)];
        let id = ids[round as usize % 3];
        let stream = [Frame::MaxStreamData { id, max: each[round as usize % 3] }, Frame::MaxStreamData { id, max: 10 }];
        say(&mut host, &mut peer, &frames(&[&news[..], &stream].concat()));
    }
    hear(&mut host, &mut peer, Duration::from_secs(2));
    let high = ids.map(|id| high(&peer, id));
    assert_eq!(high.iter().zip(each).map(|(high, limit)| limit.min(10_000) - high).sum::<u64>(), 0, "{high:?}");
    assert!(host.closed().is_none());
}

/// After RESET_STREAM, nothing but its repetition is sent, and nothing at all once it is acknowledged (RFC 9000 §3.3).
#[test]
fn nothing_follows_a_reset_but_its_repetition() {
    let (mut host, mut peer) = limited(|params| TransportParameters { initial_max_stream_data_uni: 3000, ..params });
    let id = open(&mut host, Dir::Uni);
    send(&mut host, id, 10_000, false);
    // The peer never hears of the data, nor that the stream is blocked, nor of the first RESET_STREAM.
    let lost = host.wait(Duration::from_millis(1));
    assert!(lost.len() >= 3);
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().reset(id, 9).unwrap();
    assert_eq!(host.run().len(), 1);
    for _ in 0..5 {
        hear(&mut host, &mut peer, Duration::from_secs(1));
        ack(&mut host, &mut peer);
    }
    assert!(!peer.resets.is_empty(), "it is repeated");
    assert_eq!(count(&peer, id), peer.resets.len(), "{:?}", peer.told);
    assert!(peer.resets.iter().all(|reset| *reset == (id, 9)));
    assert!(peer.final_sizes.iter().all(|size| *size == (id, 3000)), "{:?}", peer.final_sizes);
    // It has arrived, and is not acknowledged yet, when older packets turn out to be lost.
    let (mut other, mut reader) = limited(|params| TransportParameters { initial_max_stream_data_uni: 3000, ..params });
    let again = open(&mut other, Dir::Uni);
    send(&mut other, again, 10_000, false);
    assert!(other.wait(Duration::from_millis(200)).len() >= 3, "lost");
    let conn = other.conn.unwrap();
    other.endpoint.conn(conn).unwrap().reset(again, 9).unwrap();
    let first = other.run();
    let next = open(&mut other, Dir::Uni);
    send(&mut other, next, 1, false);
    let second = other.run();
    second.iter().chain(&first).for_each(|(_, datagram)| reader.receive(datagram));
    reader.refuse();
    ack(&mut other, &mut reader);
    assert!(other.endpoint.stats().lost_packets >= 3);
    assert_eq!(count(&reader, again), reader.resets.len(), "{:?}", reader.told);
    let resets = peer.resets.len();
    let credit = [Frame::MaxStreamData { id, max: 20_000 }, Frame::StopSending { id, code: 3 }];
    say(&mut host, &mut peer, &frames(&credit));
    hear(&mut host, &mut peer, Duration::from_secs(5));
    assert_eq!((count(&peer, id), peer.resets.len()), (resets, resets), "the reset has arrived");
    assert!(host.closed().is_none());
}

/// "An endpoint that receives a STOP_SENDING frame MUST send a RESET_STREAM frame if the stream is in the 'Ready' or
/// 'Send' state", with its code; data that is lost is not retransmitted.
#[test]
fn who_is_asked_to_stop_resets_with_the_same_code() {
    // Nothing sent, some of it, all of it but unacknowledged.
    for (sent, fin) in [(0, false), (2000, false), (2000, true)] {
        for (n, lost) in [false, true].into_iter().enumerate() {
            let (mut host, mut peer) = against_server(small());
            ack(&mut host, &mut peer);
            let id = open(&mut host, Dir::Bidi);
            if sent > 0 {
                send(&mut host, id, sent, fin);
                let flight = host.run();
                flight.iter().filter(|_| !lost).for_each(|(_, datagram)| peer.receive(datagram));
            }
            let code = 40 + n as u64;
            say(&mut host, &mut peer, &frames(&[Frame::StopSending { id, code }]));
            hear(&mut host, &mut peer, Duration::from_secs(3));
            assert!(!peer.resets.is_empty() && peer.resets.iter().all(|reset| *reset == (id, code)), "{sent}");
            assert!(peer.final_sizes.iter().all(|size| size.1 == sent as u64));
            assert_eq!(peer.stream_bytes, if lost { 0 } else { sent as u64 });
            assert!(host.events.iter().any(|(_, e)| matches!(e, Event::Stopped { code: c, .. } if *c == code)));
        }
    }
}

/// "STOP_SENDING SHOULD only be sent for a stream that has not been reset by the peer." The same if all of it is here.
#[test]
fn what_has_ended_is_not_asked_to_stop() {
    for reset in [true, false] {
        let (mut host, mut peer) = against_server(small());
        let id = StreamId::new(Side::Client, Dir::Bidi, 0);
        say(&mut host, &mut peer, &stream(id, 0, 10, !reset));
        let conn = host.conn.unwrap();
        if reset {
            // The application stops it; the frame is lost, and the reset arrives meanwhile.
            host.endpoint.conn(conn).unwrap().stop_sending(id, 5).unwrap();
            assert!(!host.run().is_empty());
            say(&mut host, &mut peer, &frames(&[Frame::ResetStream { id, code: 1, final_size: 20 }]));
        }
        let _ = host.endpoint.conn(conn).unwrap().stop_sending(id, 5);
        for _ in 0..5 {
            hear(&mut host, &mut peer, Duration::from_secs(1));
            ack(&mut host, &mut peer);
        }
        let stops = peer.told.iter().filter(|(_, told)| matches!(told, Told::StopSending(..))).count();
        assert_eq!(stops, 0, "reset: {reset}");
    }
    // While the peer may still send, it is asked, until it has heard of it.
    let (mut host, mut peer) = against_server(small());
    let id = StreamId::new(Side::Client, Dir::Bidi, 0);
    say(&mut host, &mut peer, &stream(id, 0, 10, false));
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().stop_sending(id, 5).unwrap();
    assert!(!host.run().is_empty(), "lost");
    for _ in 0..5 {
        hear(&mut host, &mut peer, Duration::from_secs(1));
        ack(&mut host, &mut peer);
    }
    assert!(peer.told.iter().any(|(_, told)| *told == Told::StopSending(id, 5)));
}

/// "Both endpoints MUST maintain flow control state for the stream in the unterminated direction until that direction
/// enters a terminal state."
#[test]
fn one_direction_of_a_stream_outlives_the_other() {
    let (mut host, mut peer) =
        limited(|params| TransportParameters { initial_max_stream_data_bidi_local: 1000, ..params });
    // The peer resets its direction; ours still obeys the limit, and its rise.
    let id = StreamId::new(Side::Client, Dir::Bidi, 0);
    say(
        &mut host,
        &mut peer,
        &[stream(id, 0, 10, false), frames(&[Frame::ResetStream { id, code: 1, final_size: 10 }])].concat(),
    );
    send(&mut host, id, 3000, true);
    hear(&mut host, &mut peer, Duration::from_millis(100));
    assert_eq!(high(&peer, id), 1000);
    say(&mut host, &mut peer, &frames(&[Frame::MaxStreamData { id, max: 3000 }]));
    assert_eq!(high(&peer, id), 3000);
    // We reset ours; the peer's goes on, and gets credit for what is read.
    let (mut host, mut peer) = against_server(small());
    let other = open(&mut host, Dir::Bidi);
    send(&mut host, other, 10, false);
    hear(&mut host, &mut peer, Duration::from_millis(30));
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().reset(other, 1).unwrap();
    hear(&mut host, &mut peer, Duration::from_millis(30));
    ack(&mut host, &mut peer);
    let mut sent = 0;
    for _ in 0..8 {
        say(&mut host, &mut peer, &stream(other, sent, 1000, false));
        sent += 1000;
        let mut conn = host.endpoint.conn(conn).unwrap();
        assert_eq!(std::iter::from_fn(|| conn.take(other)).map(|chunk| chunk.len()).sum::<usize>(), 1000);
        ack(&mut host, &mut peer);
        assert!(peer.stream_limit(other).max(4000) >= sent + 1000, "no credit after {sent} bytes");
    }
    assert!(host.closed().is_none());
}

/// "The receiver MUST use the final size of the stream to account for all bytes sent on the stream in its connection-level
/// flow controller", whether they have arrived or not. As nothing of them is kept, the credit comes back.
#[test]
fn a_reset_counts_whole_and_gives_its_credit_back() {
    let (mut host, mut peer) = against_server(TransportConfig { max_streams_uni: 100, ..small() });
    peer.max_data = 6000;
    let mut used = 0;
    for index in 0..20 {
        let id = StreamId::new(Side::Client, Dir::Uni, index);
        assert!(peer.max_data >= used + 2000, "{used} of {}", peer.max_data);
        say(&mut host, &mut peer, &frames(&[Frame::ResetStream { id, code: 1, final_size: 2000 }]));
        used += 2000;
        ack(&mut host, &mut peer);
        assert!(peer.max_data <= used + 6000, "{used} bytes were sent, and {} may be", peer.max_data);
    }
    assert!(host.closed().is_none());
}

/// "An endpoint that is unable to open a new stream due to the peer's limits SHOULD send a STREAMS_BLOCKED frame";
/// "MAX_STREAMS frames that do not increase the stream limit MUST be ignored."
#[test]
fn who_cannot_open_a_stream_says_so_and_only_a_higher_limit_helps() {
    let (mut host, mut peer) =
        limited(|params| TransportParameters { initial_max_streams_bidi: 2, initial_max_streams_uni: 0, ..params });
    let conn = host.conn.unwrap();
    let mut opened = Vec::new();
    let mut open_all = |host: &mut Host, dir| {
        let mut conn = host.endpoint.conn(conn).unwrap();
        let before = opened.len();
        loop {
            match conn.open(dir) {
                Ok(id) => opened.push(id),
                Err(error) => break assert_eq!(error, OpenError::StreamsExhausted),
            }
        }
        let new = opened.len() - before;
        let mut ids = opened.clone();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), opened.len(), "no stream ID is used twice");
        new
    };
    assert_eq!((open_all(&mut host, Dir::Bidi), open_all(&mut host, Dir::Uni)), (2, 0));
    hear(&mut host, &mut peer, Duration::from_millis(30));
    let blocked = |peer: &Peer, bidi, limit| peer.told.iter().any(|(_, t)| *t == Told::StreamsBlocked(bidi, limit));
    assert!(blocked(&peer, true, 2) && blocked(&peer, false, 0), "{:?}", peer.told);
    for (limits, more) in [(&[5][..], 3), (&[4, 0], 0), (&[5], 0), (&[6], 1), (&[9, 7, 0], 3)] {
        for max in limits {
            say(&mut host, &mut peer, &frames(&[Frame::MaxStreams { bidi: true, max: *max }]));
        }
        assert_eq!(open_all(&mut host, Dir::Bidi), more, "limits {limits:?}");
    }
    assert_eq!(open_all(&mut host, Dir::Uni), 0);
}
