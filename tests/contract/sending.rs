//! Sending: vectored sends, and the order of streams.

use std::collections::BTreeMap;

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{Dir, Event, Priority, SendData, SendError, SendErrorKind, StreamError, StreamId, TransportConfig};

use super::pair::Pair;

fn pinned(bytes: &[u8]) -> SendData {
    let mut buf = PinnedBuf::unpinned(bytes.len());
    buf.copy_from_slice(bytes);
    SendData::Pinned(buf, bytes.len())
}

fn bytes(len: usize, value: u8) -> SendData {
    SendData::Bytes(Bytes::from(vec![value; len]))
}

fn pair() -> Pair {
    Pair::connected(TransportConfig::default(), TransportConfig::default())
}

#[test]
fn many_pieces_are_one_and_come_back_one_by_one() {
    let mut pair = pair();
    let id = pair.conn(Side::Client).open(Dir::Uni).unwrap();
    let pieces = [pinned(b"one "), SendData::Static(b"two "), pinned(b""), bytes(3000, b'x'), pinned(b" end")];
    pair.conn(Side::Client).send_vectored(id, pieces, true).unwrap();
    assert_eq!(pair.conn(Side::Client).stream_stats(id).unwrap().queued, 3012);
    pair.wait(Duration::from_millis(50));
    let back: Vec<_> = pair
        .events(Side::Client)
        .into_iter()
        .filter_map(|event| match event {
            Event::SendDone { data, acked, .. } => Some((data.len(), acked)),
            Event::SendFinished { .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(back, [(0, 0), (4, 4), (4, 4), (3000, 3000), (4, 4)], "the empty one at once, the others in order");
    let mut got = Vec::new();
    while let Some(chunk) = pair.conn(Side::Server).take(id) {
        got.extend_from_slice(&chunk);
    }
    assert_eq!(got, [&b"one two "[..], &[b'x'; 3000], b" end"].concat());
}

#[test]
fn all_pieces_or_none() {
    let config = TransportConfig { send_budget: 10, max_send_budget: 0, ..TransportConfig::default() };
    let mut pair = Pair::connected(config, TransportConfig::default());
    let mut conn = pair.conn(Side::Client);
    let id = conn.open(Dir::Bidi).unwrap();
    // Below the budget, a list is accepted as a whole, however long.
    conn.send_vectored(id, [bytes(8, 1), bytes(8, 2)], false).unwrap();
    let SendError { kind, data } = conn.send_vectored(id, [pinned(b"ab"), pinned(b"c")], true).unwrap_err();
    assert_eq!(kind, SendErrorKind::Blocked);
    assert_eq!(data.iter().map(SendData::as_slice).collect::<Vec<_>>(), [&b"ab"[..], b"c"]);
    assert_eq!(conn.stream_stats(id).unwrap().queued, 16);
    pair.wait(Duration::from_millis(50));
    assert!(pair.events(Side::Client).iter().any(|e| matches!(e, Event::Writable { .. })));
    let mut conn = pair.conn(Side::Client);
    conn.send_vectored(id, data, true).unwrap();
    let refused = conn.send_vectored(id, [pinned(b"d")], false).unwrap_err();
    assert_eq!((refused.kind, refused.data.len()), (SendErrorKind::NoStream, 1));
    // An empty list is allowed too, and may end a stream.
    let id = conn.open(Dir::Uni).unwrap();
    conn.send_vectored(id, [], true).unwrap();
    pair.wait(Duration::from_millis(50));
    let conn = pair.conn(Side::Server);
    assert_eq!(conn.stream_stats(id).map(|s| s.size), Some(Some(0)));
    pair.conn(Side::Client).close(0, "");
    let refused = pair.conn(Side::Client).send_vectored(id, [pinned(b"e")], false).unwrap_err();
    assert_eq!((refused.kind, refused.data.len()), (SendErrorKind::Closed, 1));
}

/// Client and streams with (priority, bytes).
fn streams(pair: &mut Pair, list: &[(Priority, usize)]) -> Vec<StreamId> {
    let mut conn = pair.conn(Side::Client);
    let ids: Vec<_> = list.iter().map(|_| conn.open(Dir::Uni).unwrap()).collect();
    for (id, (priority, len)) in ids.iter().zip(list) {
        conn.set_priority(*id, *priority).unwrap();
        conn.send(*id, bytes(*len, 1), true).unwrap();
    }
    ids
}

/// Carries all datagrams that `pass` lets through; returns the index of the stream of which each brought new bytes to
/// the server.
fn order(pair: &mut Pair, ids: &[StreamId], mut pass: impl FnMut(usize) -> bool) -> Vec<usize> {
    let mut seen: BTreeMap<StreamId, u64> = BTreeMap::new();
    let mut order = Vec::new();
    let mut count = 0;
    let mut look = |pair: &mut Pair| {
        let mut grown: Vec<usize> = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let now = pair.conn(Side::Server).stream_stats(*id).map_or(0, |s| s.placement.direct + s.placement.staged);
            if now > seen.insert(*id, now).unwrap_or(0) {
                grown.push(i);
            }
        }
        // A datagram may bring the last bytes of one stream and the first of another.
        grown.sort_by_key(|i| Some(i) != order.last());
        order.extend(grown);
    };
    for _ in 0..100 {
        pair.talk_with(|pair, to| {
            look(pair);
            count += usize::from(to == Side::Server);
            to == Side::Client || pass(count - 1)
        });
        look(pair);
        let before = pair.client.now;
        let next = [&pair.client, &pair.server].into_iter().filter_map(|h| h.endpoint.next_timeout()).min();
        match next.filter(|at| at.saturating_since(before) < Duration::from_secs(5)) {
            Some(at) => (pair.client.now, pair.server.now) = (at.max(before), at.max(before)),
            None => break,
        }
    }
    order
}

fn urgency(urgency: u8) -> Priority {
    Priority { urgency, ..Priority::default() }
}

fn incremental(urgency: u8) -> Priority {
    Priority { urgency, incremental: true }
}

/// Without repetitions next to each other.
fn runs(mut order: Vec<usize>) -> Vec<usize> {
    order.dedup();
    order
}

#[test]
fn urgent_streams_go_first_and_equal_ones_by_id() {
    let mut pair = pair();
    let list = [(urgency(3), 9000), (urgency(7), 9000), (urgency(0), 9000), (urgency(3), 9000), (urgency(9), 2000)];
    let ids = streams(&mut pair, &list);
    assert_eq!(runs(order(&mut pair, &ids, |_| true)), [2, 0, 3, 1, 4]);
    for id in ids {
        assert_eq!(pair.conn(Side::Server).take(id).map(|c| c.offset()), Some(0));
    }
}

#[test]
fn incremental_streams_take_turns_packet_by_packet() {
    let mut pair = pair();
    let list = [(incremental(3), 14_000), (incremental(3), 14_000), (incremental(3), 14_000), (urgency(3), 5000)];
    let ids = streams(&mut pair, &list);
    let order = order(&mut pair, &ids, |_| true);
    let first = order.iter().position(|i| *i != 3).unwrap();
    assert!(order[first..first + 9].chunks(3).all(|turn| turn == [0, 1, 2]), "{order:?}");
    assert!(!order[first..].contains(&3), "{order:?}");
}

#[test]
fn what_was_lost_waits_for_more_urgent_data() {
    let mut pair = pair();
    // The first five datagrams are lost; before the loss is detected, something more urgent is sent.
    let list = [(urgency(5), 6000)];
    let mut ids = streams(&mut pair, &list);
    pair.client.run().truncate(0);
    let mut conn = pair.conn(Side::Client);
    let urgent = conn.open(Dir::Uni).unwrap();
    conn.set_priority(urgent, urgency(1)).unwrap();
    conn.send(urgent, bytes(30_000, 2), true).unwrap();
    ids.push(urgent);
    let order = order(&mut pair, &ids, |_| true);
    let (late, urgent): (Vec<_>, Vec<_>) = order.iter().enumerate().partition(|(_, i)| **i == 0);
    // A probe may repeat the oldest packet whatever its priority (RFC 9002 §6.2.4), and the window has to open first.
    let behind = late.iter().filter(|(at, _)| *at > urgent.last().unwrap().0).count();
    assert!(behind + 2 >= late.len() && behind > 0, "{order:?}");
}

#[test]
fn priorities_can_change_on_the_way() {
    let mut pair = pair();
    let list = [(urgency(2), 60_000), (urgency(4), 60_000)];
    let ids = streams(&mut pair, &list);
    let first = pair.client.run();
    first.into_iter().take(5).for_each(|(_, datagram)| pair.server.receive(datagram));
    assert!(pair.conn(Side::Server).stream_stats(ids[0]).unwrap().contiguous > 5000);
    assert!(pair.conn(Side::Server).stream_stats(ids[1]).is_none());
    let mut conn = pair.conn(Side::Client);
    conn.set_priority(ids[1], incremental(0)).unwrap();
    conn.set_priority(ids[1], urgency(1)).unwrap();
    let rest = order(&mut pair, &ids, |_| true);
    let first = rest.iter().position(|i| *i == 1).unwrap();
    let end = rest.iter().rposition(|i| *i == 1).unwrap();
    assert!(first <= 1 && rest[first..end].iter().filter(|i| **i == 0).count() <= 2, "{rest:?}");
    let none = StreamId::new(Side::Client, Dir::Uni, 99);
    assert_eq!(pair.conn(Side::Client).set_priority(none, urgency(1)), Err(StreamError::NoStream));
    assert_eq!(pair.conn(Side::Server).set_priority(ids[0], urgency(1)), Err(StreamError::NoStream));
}

#[test]
fn connection_credit_goes_to_the_most_urgent() {
    let server = TransportConfig { max_data: 4000, ..TransportConfig::default() };
    let mut pair = Pair::connected(TransportConfig::default(), server);
    let list = [(urgency(6), 9000), (incremental(3), 9000), (urgency(0), 9000), (incremental(3), 9000)];
    let ids = streams(&mut pair, &list);
    let mut runs = Vec::new();
    for _ in 0..40 {
        runs.extend(order(&mut pair, &ids, |_| true));
        for id in &ids {
            while pair.conn(Side::Server).take(*id).is_some() {}
        }
        pair.wait(Duration::from_millis(30));
    }
    runs.dedup();
    assert_eq!((runs.first(), runs.last()), (Some(&2), Some(&0)), "{runs:?}");
    // One datagram contains the last bytes of one stream and the first of the next; which of them comes first is not
    // recorded.
    assert!(runs.iter().filter(|i| **i == 2).count() <= 2, "{runs:?}");
    assert!(runs.iter().filter(|i| **i == 1).count() > 2, "they share what there is: {runs:?}");
    assert_eq!(pair.conn(Side::Server).stream_count(), 0, "all have come to their end");
}

/// A core asks a connection for as many datagrams as its port accepts, so a connection that always has more to send
/// never finishes. Its deadlines must be met nevertheless: here, dropping replaced keys, without which they cannot be
/// replaced again (RFC 9001 §6.1, §6.5).
#[test]
fn who_never_stops_sending_has_deadlines_all_the_same() {
    let transport =
        || TransportConfig { pacing: false, max_data: 1 << 40, stream_window_uni: 1 << 40, ..Default::default() };
    let mut pair = Pair::connected(transport(), transport());
    let id = pair.conn(Side::Client).open(Dir::Uni).unwrap();
    let mut slot = vec![0; 2048];
    let mut updates = 0;
    for step in 0..400 {
        while pair.conn(Side::Client).send(id, bytes(64 << 10, 1), false).is_ok() {}
        for _ in 0..4 {
            let now = pair.client.now;
            let sent = pair.client.endpoint.poll_transmit(now, &mut slot).expect("there is always more");
            pair.server.receive(slot[..sent.len].to_vec());
        }
        for (_, datagram) in pair.server.run() {
            pair.client.receive(datagram);
        }
        for side in [Side::Client, Side::Server] {
            let host = pair.host(side);
            host.poll();
            host.events.clear();
            host.now += Duration::from_millis(5);
            if host.endpoint.next_timeout().is_some_and(|at| at <= host.now) {
                host.endpoint.handle_timeout(host.now);
            }
        }
        let received = pair.conn(Side::Server).peek(id).map_or(0, <[u8]>::len);
        pair.conn(Side::Server).consume(id, received);
        if step % 100 == 50 {
            updates += usize::from(pair.conn(Side::Client).update_keys());
        }
    }
    assert_eq!(updates, 4);
}
