//! Datagrams (RFC 9221) between two engines: memory of both applications, order, and fairness to streams.

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{
    DatagramConfig, DatagramErrorKind, DatagramId, DatagramOptions, DatagramOrder, DatagramOutcome, Dir, DropPolicy,
    DropReason, Event, ProvideErrorKind, SendData, TransportConfig,
};

use super::pair::Pair;

fn config(datagrams: DatagramConfig) -> TransportConfig {
    TransportConfig { datagrams: Some(datagrams), ..TransportConfig::default() }
}

fn pair() -> Pair {
    Pair::connected(config(DatagramConfig::default()), config(DatagramConfig::default()))
}

fn bytes(len: usize, value: u8) -> SendData {
    SendData::Bytes(Bytes::from(vec![value; len]))
}

fn send(pair: &mut Pair, data: SendData) -> DatagramId {
    pair.conn(Side::Client).send_datagram(data, DatagramOptions::default()).unwrap()
}

/// First byte and length of the datagrams that the server's application can take.
fn taken(pair: &mut Pair) -> Vec<(u8, usize)> {
    let mut conn = pair.conn(Side::Server);
    std::iter::from_fn(|| conn.take_datagram()).map(|d| (d.first().copied().unwrap_or(0), d.len())).collect()
}

/// Outcomes of the client's datagrams.
fn outcomes(pair: &mut Pair) -> Vec<(u64, DatagramOutcome)> {
    let done = |event| match event {
        Event::DatagramDone { id, outcome, .. } => Some((id.0, outcome)),
        _ => None,
    };
    pair.events(Side::Client).into_iter().filter_map(done).collect()
}

#[test]
fn datagrams_are_decrypted_to_the_buffers_provided_and_sent_from_memory_that_comes_back() {
    let mut pair = pair();
    let bufs: Vec<_> = (0..3).map(|_| PinnedBuf::unpinned(1500)).collect();
    let at: Vec<_> = bufs.iter().map(|buf| buf.as_ptr()).collect();
    pair.conn(Side::Server).provide_datagram_buffers(bufs).unwrap();
    let mut data = PinnedBuf::unpinned(1200);
    data.fill(9);
    let from = data.as_ptr();
    let ids = [send(&mut pair, SendData::Pinned(data, 1200)), send(&mut pair, SendData::Static(b""))];
    pair.wait(Duration::from_millis(50));
    let mut events = pair.events(Side::Client).into_iter();
    match events.next() {
        Some(Event::DatagramDone { id, data: SendData::Pinned(buf, 1200), outcome: DatagramOutcome::Sent }) => {
            assert_eq!((id, buf.as_ptr()), (ids[0], from));
        }
        other => panic!("{other:?}"),
    }
    let rest = events.map(|event| match event {
        Event::DatagramDone { id, outcome: DatagramOutcome::Sent, .. } => (id, "sent"),
        Event::DatagramAcked { id } => (id, "acked"),
        other => panic!("{other:?}"),
    });
    assert_eq!(rest.collect::<Vec<_>>(), [(ids[1], "sent"), (ids[0], "acked"), (ids[1], "acked")]);
    let mut came = Vec::new();
    for event in pair.events(Side::Server) {
        match event {
            Event::DatagramBuffer { buf, received: Some(len), .. } => {
                assert!(buf[..len].iter().all(|b| *b == 9));
                came.push((buf.as_ptr(), len));
            }
            Event::DatagramSpaceLow { left: 1 } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, [(at[0], 1200), (at[1], 0)]);
    assert_eq!(pair.server.endpoint.memory_charged(), 0, "nothing of the pool was used");
    let placed = pair.server.endpoint.stats().placement;
    assert_eq!((placed.direct + placed.staged, placed.copied), (1200, 0));
    // The unused buffer comes back when the connection ends, and the end is the last event.
    pair.conn(Side::Server).close(0, "");
    pair.talk();
    let events = pair.events(Side::Server);
    assert!(matches!(&events[..], [Event::DatagramBuffer { received: None, .. }, Event::Closed { .. }]), "{events:?}");
}

#[test]
fn without_buffers_datagrams_are_lent_from_the_pool() {
    let mut pair = pair();
    (0..5).for_each(|n| {
        send(&mut pair, bytes(700, n));
    });
    pair.wait(Duration::from_millis(50));
    assert!(pair.events(Side::Server).iter().all(|event| matches!(event, Event::DatagramsReadable)));
    assert_eq!(pair.server.endpoint.memory_charged(), 5 << 10);
    let first = pair.conn(Side::Server).take_datagram().unwrap();
    assert_eq!(&first[..], [0; 700]);
    assert_eq!(pair.server.endpoint.memory_charged(), 5 << 10, "lent memory is charged");
    drop(first);
    assert_eq!(taken(&mut pair), [(1, 700), (2, 700), (3, 700), (4, 700)]);
    assert_eq!(pair.server.endpoint.memory_charged(), 0);
    // What was not taken can be taken after the peer has closed.
    send(&mut pair, bytes(10, 6));
    pair.talk();
    pair.conn(Side::Client).close(0, "");
    pair.client.run().into_iter().for_each(|(_, datagram)| pair.server.receive(datagram));
    let id = pair.server.conn.unwrap();
    let mut late = Vec::new();
    while let Some((_, event)) = pair.server.endpoint.poll_event() {
        if let Event::Closed { .. } = event {
            late.extend(pair.server.endpoint.conn(id).unwrap().take_datagram().map(|d| d.to_vec()));
        }
    }
    assert_eq!(late, [[6; 10]]);
    assert_eq!(pair.server.endpoint.memory_charged(), 0);
}

#[test]
fn lengths_follow_the_path_and_the_peer() {
    let mut pair = Pair::connected(config(DatagramConfig::default()), TransportConfig::default());
    assert_eq!(pair.conn(Side::Client).max_datagram_len(), None, "the server accepts none");
    assert_eq!(pair.conn(Side::Server).max_datagram_len(), None, "the server has none in its settings");
    let refused = pair.conn(Side::Server).provide_datagram_buffer(PinnedBuf::unpinned(9)).unwrap_err();
    assert_eq!((refused.kind, refused.bufs.len()), (ProvideErrorKind::NoDatagrams, 1));

    let small = DatagramConfig { max_frame_size: 500, ..DatagramConfig::default() };
    let mut pair = Pair::connected(config(DatagramConfig::default()), config(small));
    assert_eq!(pair.conn(Side::Client).max_datagram_len(), Some(497), "type and length take three bytes");
    let mut pair = self::pair();
    // The search for the MTU is over.
    let mtu = usize::from(pair.conn(Side::Client).stats().mtu);
    assert_eq!(mtu, 1472);
    let longest = mtu - 1 - 10 - 4 - 16 - 3;
    assert_eq!(pair.conn(Side::Client).max_datagram_len(), Some(longest));
    let refused = pair.conn(Side::Client).send_datagram(bytes(longest + 1, 0), DatagramOptions::default()).unwrap_err();
    assert_eq!((refused.kind, refused.data.len()), (DatagramErrorKind::TooLarge { max: longest }, longest + 1));
    send(&mut pair, bytes(longest, 3));
    pair.talk();
    assert_eq!(taken(&mut pair), [(3, longest)]);
}

/// Small datagrams share packets.
#[test]
fn small_datagrams_share_a_packet() {
    let mut pair = pair();
    let before = pair.client.endpoint.stats().tx_datagrams;
    (0..12).for_each(|n| {
        send(&mut pair, bytes(50, n));
    });
    let sent = pair.client.run();
    assert_eq!((sent.len(), pair.client.endpoint.stats().tx_datagrams - before), (1, 1));
    sent.into_iter().for_each(|(_, datagram)| pair.server.receive(datagram));
    pair.server.poll();
    assert_eq!(taken(&mut pair).iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
}

/// RFC 9221 §5.1, §5.4: urgent ones go first, and those that are not sent in time are dropped without waiting for the
/// congestion window.
#[test]
fn urgency_and_deadlines_are_heeded() {
    let mut pair = pair();
    let now = pair.client.now;
    for (urgency, deadline) in [(1, None), (0, None), (1, Some(now)), (0, Some(now + Duration::from_secs(1)))] {
        pair.conn(Side::Client).send_datagram(bytes(10, urgency), DatagramOptions { urgency, deadline }).unwrap();
    }
    pair.talk();
    use DatagramOutcome::{Expired, Sent};
    assert_eq!(outcomes(&mut pair), [(2, Expired), (1, Sent), (3, Sent), (0, Sent)]);

    // More than the window allows, and no acknowledgements.
    let deadline = Some(now + Duration::from_millis(5));
    for n in 0..200 {
        let options = DatagramOptions { urgency: 0, deadline };
        pair.conn(Side::Client).send_datagram(bytes(1400, n), options).unwrap();
    }
    let sent = pair.client.run().len();
    assert!((5..100).contains(&sent), "{sent}");
    assert_eq!(outcomes(&mut pair).len(), sent);
    pair.client.wait(Duration::from_millis(8));
    let late = outcomes(&mut pair);
    let expired = late.iter().filter(|(_, outcome)| *outcome == Expired).count();
    assert!(expired > 0 && late.len() == 200 - sent, "{late:?}");
    assert_eq!(pair.conn(Side::Client).datagrams_queued(), 0);
}

#[test]
fn full_queues_refuse_or_drop() {
    let short = |send_drop| DatagramConfig { send_queue: 2, send_drop, ..DatagramConfig::default() };
    let mut pair = Pair::connected(config(short(DropPolicy::Newest)), config(DatagramConfig::default()));
    (0..2).for_each(|n| {
        send(&mut pair, bytes(1, n));
    });
    let refused = pair.conn(Side::Client).send_datagram(bytes(1, 2), DatagramOptions::default()).unwrap_err();
    assert_eq!((refused.kind, refused.data.len()), (DatagramErrorKind::Full, 1));
    pair.talk();
    let room = pair.events(Side::Client).iter().filter(|event| matches!(event, Event::DatagramsWritable)).count();
    assert_eq!(room, 1);
    let mut pair = Pair::connected(config(short(DropPolicy::Oldest)), config(DatagramConfig::default()));
    (0..3).for_each(|n| {
        send(&mut pair, bytes(1, n));
    });
    pair.talk();
    use DatagramOutcome::{Overflow, Sent};
    assert_eq!(outcomes(&mut pair), [(0, Overflow), (1, Sent), (2, Sent)]);
    assert_eq!(taken(&mut pair), [(1, 1), (2, 1)]);
}

/// RFC 9221 §5.1: datagrams come before or after streams, and neither keeps the other from being sent.
#[test]
fn datagrams_and_streams_share_the_connection() {
    for order in [DatagramOrder::BeforeStreams, DatagramOrder::AfterStreams] {
        let ours = DatagramConfig { order, send_queue: 1000, ..DatagramConfig::default() };
        let theirs = DatagramConfig { receive_queue: 1000, ..DatagramConfig::default() };
        let mut pair = Pair::connected(config(ours), config(theirs));
        let id = pair.conn(Side::Client).open(Dir::Uni).unwrap();
        pair.conn(Side::Client).send(id, bytes(1 << 20, 1), false).unwrap();
        (0..400).for_each(|_| {
            send(&mut pair, bytes(1430, 2));
        });
        // As much as a few windows carry.
        pair.talk_with(|pair, _| pair.client.endpoint.stats().tx_bytes < 400_000);
        let streams = pair.conn(Side::Client).stream_stats(id).unwrap().sent as usize / 1430;
        let datagrams = pair.conn(Side::Client).datagram_stats().sent as usize;
        let (first, second) =
            if order == DatagramOrder::BeforeStreams { (datagrams, streams) } else { (streams, datagrams) };
        assert!(second > 10 && first > 4 * second, "{order:?}: {datagrams} datagrams, {streams} packets of streams");
    }
}

/// Everything that was handed over comes back exactly once when the connection ends in the middle.
#[test]
fn all_memory_comes_back_when_the_connection_ends() {
    for by in [Side::Client, Side::Server] {
        let mut pair = pair();
        pair.conn(Side::Client).provide_datagram_buffers((0..4).map(|_| PinnedBuf::unpinned(100)).collect()).unwrap();
        (0..100).for_each(|n| {
            send(&mut pair, bytes(1200, n));
        });
        let out = pair.client.run();
        pair.conn(by).close(1, "enough");
        out.into_iter().for_each(|(_, datagram)| pair.server.receive(datagram));
        pair.talk();
        let events = pair.events(Side::Client);
        let count = |what: fn(&Event) -> bool| events.iter().filter(|event| what(event)).count();
        assert_eq!(count(|event| matches!(event, Event::DatagramDone { .. })), 100);
        assert_eq!(count(|event| matches!(event, Event::DatagramBuffer { received: None, .. })), 4);
        assert!(matches!(events.last(), Some(Event::Closed { .. })));
        let gone =
            pair.client.conn.and_then(|id| pair.client.endpoint.conn(id)).map(|mut conn| {
                conn.send_datagram(SendData::Static(b"x"), DatagramOptions::default()).unwrap_err().kind
            });
        assert!(gone.is_none_or(|kind| kind == DatagramErrorKind::Closed));
        assert_eq!(pair.server.endpoint.memory_charged(), 0);
    }
}

#[test]
fn datagrams_without_a_buffer_are_dropped_and_counted() {
    let mut pair = pair();
    pair.conn(Side::Server).provide_datagram_buffers(vec![PinnedBuf::unpinned(10)]).unwrap();
    (0..3).for_each(|n| {
        send(&mut pair, bytes(10 + usize::from(n), n));
    });
    pair.talk();
    assert_eq!(pair.server.drops(DropReason::DatagramNoBuffer), 2);
    let came: Vec<_> = pair.events(Side::Server);
    assert!(
        matches!(&came[..], [Event::DatagramBuffer { received: Some(10), .. }, Event::DatagramSpaceLow { left: 0 }]),
        "{came:?}"
    );
    assert!(pair.conn(Side::Server).take_datagram().is_none(), "nothing goes to the pool once buffers were provided");
    let stats = pair.conn(Side::Server).datagram_stats();
    assert_eq!((stats.received, stats.dropped), (3, 2));
    let wrong = pair.conn(Side::Server).provide_datagram_buffers(vec![]).unwrap_err().kind;
    assert_eq!(wrong, ProvideErrorKind::Empty);
    let wrong = pair.conn(Side::Server).provide_datagram_buffers(vec![PinnedBuf::unpinned(0)]).unwrap_err();
    assert_eq!((wrong.kind, wrong.bufs.len()), (ProvideErrorKind::EmptyBuffer, 1));
}
