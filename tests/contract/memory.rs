//! Running out of memory closes no connection: packets count as lost, and a correct peer stalls until there is memory
//! again.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::{BufPool, Hugepages, PinnedBuf, PoolConfig};
use gannet::quic::{BufferProvider, Chunk, Dir, DropReason, Event, Notify, SendData, StreamId, TransportConfig};

use super::pair::Pair;
use super::rig::{Kind, Rig, stream_frame};

const CHUNK: usize = 64 << 10;

fn pool(limit_bytes: usize) -> BufPool {
    BufPool::new(PoolConfig { limit_bytes, hugepages: Hugepages::Never, numa_node: None }).unwrap()
}

fn byte(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}

fn dropped(pair: &Pair) -> u64 {
    pair.server.drops(DropReason::NoMemory)
}

#[test]
fn an_empty_pool_stalls_the_peer_and_a_full_one_lets_it_go_on() {
    const LEN: usize = 1 << 20;
    let mut pair = Pair::on(TransportConfig::default(), TransportConfig::default(), pool(16 * CHUNK));
    // After the windows were announced, the application takes nearly all of the memory for itself.
    let own: Vec<_> = (0..12).map(|_| pair.server.endpoint.pool().alloc(CHUNK).unwrap()).collect();
    let ids: Vec<_> = (0..2).map(|_| pair.conn(Side::Client).open(Dir::Uni).unwrap()).collect();
    for id in &ids {
        let data = Bytes::from_iter((0..LEN as u64).map(byte));
        pair.conn(Side::Client).send(*id, SendData::Bytes(data), true).unwrap();
    }
    pair.wait(Duration::from_secs(5));
    assert!(dropped(&pair) > 0);
    assert!(pair.client.closed().is_none() && pair.server.closed().is_none());
    assert!((1..=4 * CHUNK).contains(&pair.server.endpoint.memory_charged()));
    let before = dropped(&pair);
    let names: Vec<_> = pair.server.endpoint.stats().iter().collect();
    assert!(names.contains(&("quic_no_memory", before)));
    // An application that keeps what it gets has the same effect; when it drops it, the transfer continues.
    let mut kept: Vec<Chunk> = Vec::new();
    let mut at = [0; 2];
    for round in 0..2000 {
        for (at, id) in at.iter_mut().zip(&ids) {
            while let Some(chunk) = pair.conn(Side::Server).take(*id) {
                assert_eq!(chunk.offset(), *at);
                assert!((*at..).zip(&chunk[..]).all(|(at, b)| *b == byte(at)));
                *at += chunk.len() as u64;
                kept.push(chunk);
            }
        }
        if at == [LEN as u64; 2] {
            break;
        }
        if round % 10 == 9 {
            kept.clear();
        }
        pair.wait(Duration::from_millis(500));
        let closed = (pair.client.closed(), pair.server.closed());
        assert!(closed == (None, None), "{closed:?} in round {round} at {at:?}");
    }
    assert_eq!(at, [LEN as u64; 2], "all of it arrived");
    assert!(dropped(&pair) > before);
    assert_eq!(pair.server.endpoint.memory_charged() > 0, !kept.is_empty(), "what is on loan is charged");
    kept.clear();
    assert_eq!(pair.server.endpoint.memory_charged(), 0);
    drop(own);
    assert_eq!(pair.server.endpoint.pool().stats().in_use, 0);
}

#[test]
fn a_stream_scattered_too_far_takes_only_what_fits_on() {
    // 60,000 gaps, which would take more than 2 MiB.
    const LEN: u64 = 120_000;
    let mut rig = Rig::with(Side::Server, TransportConfig::default());
    let id = rig.stream(Kind::Peers, Notify::Progress).id;
    let conn = rig.host().conn.unwrap();
    let buf = PinnedBuf::unpinned(LEN as usize);
    rig.host().endpoint.conn(conn).unwrap().provide_receive_buffers(id, vec![buf]).unwrap();
    rig.run();
    // Every other byte, many in a packet.
    for at in (1..LEN).step_by(200) {
        let payload: Vec<u8> =
            (at..at + 200).step_by(2).flat_map(|at| stream_frame(id, at..at + 1, false, 0)).collect();
        rig.say(&payload);
        rig.run();
    }
    let drops = rig.host().drops(DropReason::NoMemory);
    assert!(drops > 100, "{drops}");
    assert!(rig.host().closed().is_none());
    let sent = rig.peer.pn[2];
    rig.host().wait(Duration::from_millis(30));
    // Dropped data is not acknowledged, so a correct peer retransmits it.
    for at in (0..LEN).step_by(1000) {
        rig.say(&stream_frame(id, at..at + 1000, at == LEN - 1000, 0));
        rig.run();
    }
    let host = rig.host();
    assert!(host.events.iter().any(|(_, e)| matches!(e, Event::Finished { size: LEN, .. })));
    assert!(sent > 0 && host.closed().is_none());
}

/// Provides a fixed amount, whatever it has promised.
struct Giver {
    promised: u64,
    gives: Mutex<Vec<usize>>,
}

impl BufferProvider for Giver {
    fn initial_window(&self) -> u64 {
        self.promised
    }

    fn provide(&self, _: StreamId, give: &mut dyn FnMut(PinnedBuf)) {
        self.gives.lock().unwrap().iter().map(|len| PinnedBuf::unpinned(*len)).for_each(give);
    }
}

/// A client that sends 1000 bytes to a server whose provider promises 600 bytes and provides `gives`.
fn provided(gives: &[usize]) -> (Pair, StreamId) {
    let giver = Giver { promised: 600, gives: Mutex::new(gives.to_vec()) };
    let config =
        TransportConfig { provider: Some(Arc::new(giver)), receive_low_water: 50, ..TransportConfig::default() };
    let mut pair = Pair::connected(TransportConfig::default(), config);
    let id = pair.conn(Side::Client).open(Dir::Uni).unwrap();
    let data = Bytes::from_iter((0..1000).map(byte));
    pair.conn(Side::Client).send(id, SendData::Bytes(data), true).unwrap();
    pair.wait(Duration::from_millis(200));
    assert!(pair.client.closed().is_none() && pair.server.closed().is_none());
    (pair, id)
}

fn lows(events: &[Event]) -> Vec<(u64, u64)> {
    let low = |event: &Event| match event {
        Event::ReceiveBufferLow { provided_left, wanted, .. } => Some((*provided_left, *wanted)),
        _ => None,
    };
    events.iter().filter_map(low).collect()
}

fn is_finished(events: &[Event]) -> bool {
    events.iter().any(|e| matches!(e, Event::Finished { size: 1000, .. }))
}

#[test]
fn a_provider_that_keeps_its_word() {
    let (mut pair, id) = provided(&[300, 300]);
    let events = pair.events(Side::Server);
    assert!(!lows(&events).is_empty() && !is_finished(&events));
    assert_eq!(dropped(&pair), 0);
    pair.conn(Side::Server).provide_receive_buffers(id, vec![PinnedBuf::unpinned(500)]).unwrap();
    pair.wait(Duration::from_millis(200));
    assert!(is_finished(&pair.events(Side::Server)));
}

#[test]
fn a_provider_that_gives_more_than_it_promised() {
    let (mut pair, _) = provided(&[300, 300, 600]);
    let events = pair.events(Side::Server);
    assert!(lows(&events).is_empty() && is_finished(&events), "all of it is announced to the peer: {events:?}");
}

#[test]
fn a_provider_that_gives_less_than_it_promised() {
    let (mut pair, id) = provided(&[100]);
    let events = pair.events(Side::Server);
    assert_eq!(lows(&events).first().map(|(_, wanted)| *wanted), Some(500), "{events:?}");
    assert!(dropped(&pair) > 0 && !is_finished(&events));
    assert_eq!(pair.conn(Side::Server).stream_stats(id).unwrap().placement.copied, 0);
    pair.conn(Side::Server).provide_receive_buffers(id, vec![PinnedBuf::unpinned(1000)]).unwrap();
    pair.wait(Duration::from_secs(10));
    let events = pair.events(Side::Server);
    assert!(is_finished(&events), "{events:?}");
    let mut at = 0;
    for event in events {
        if let Event::Buffer { buf, offset, valid, .. } = event {
            assert_eq!(offset, at);
            assert!((at..).zip(&buf[..valid]).all(|(at, b)| *b == byte(at)));
            at += valid as u64;
        }
    }
    assert_eq!(at, 1000);
}

#[test]
fn a_provider_that_has_nothing_left() {
    for gives in [&[][..], &[0, 0]] {
        let (mut pair, id) = provided(gives);
        let readable = pair.events(Side::Server).iter().any(|e| matches!(e, Event::Readable { .. }));
        assert!(readable, "the stream is a pooled one then");
        let mut bytes = Vec::new();
        for _ in 0..10 {
            while let Some(chunk) = pair.conn(Side::Server).take(id) {
                bytes.extend_from_slice(&chunk);
            }
            pair.wait(Duration::from_millis(100));
        }
        assert!(bytes.len() == 1000 && (0..).zip(&bytes).all(|(at, b)| *b == byte(at)));
    }
}

/// The default mark is far above the size of these buffers: the event used to be raised as soon as a buffer was
/// provided, even for messages that fit into it.
#[test]
fn a_message_that_its_buffer_holds_whole_needs_no_warning() {
    let client = TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() };
    for (len, sizes) in
        [(1, vec![1]), (100, vec![4096]), (2000, vec![4096]), (4096, vec![4096]), (9000, vec![4000, 5000])]
    {
        // In one turn, or in two: the first part, then the rest with the end.
        for fin_apart in [false, true] {
            let mut pair = Pair::connected(client.clone(), TransportConfig::default());
            let id = pair.conn(Side::Client).open(Dir::Bidi).unwrap();
            let bufs = sizes.iter().map(|len| PinnedBuf::unpinned(*len)).collect();
            pair.conn(Side::Client).provide_receive_buffers(id, bufs).unwrap();
            pair.conn(Side::Client).send(id, SendData::Static(b"x"), true).unwrap();
            pair.wait(Duration::from_millis(50));
            let first = if fin_apart { len / 2 } else { 0 };
            let data = Bytes::from_iter((0..len as u64).map(byte));
            for (part, fin) in [(data.slice(..first), false), (data.slice(first..), true)] {
                pair.conn(Side::Server).send(id, SendData::Bytes(part), fin).unwrap();
                for (_, datagram) in pair.server.run() {
                    pair.client.receive(datagram);
                }
                pair.client.poll();
                pair.talk();
            }
            let events = pair.events(Side::Client);
            assert_eq!(lows(&events), [], "{len} bytes into {sizes:?}, in two parts: {fin_apart}");
            assert!(events.iter().any(|e| matches!(e, Event::Finished { size, .. } if *size == len as u64)));
        }
    }
}

#[test]
fn a_message_without_an_end_in_sight_is_told_of_at_half() {
    let client = TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() };
    let mut pair = Pair::connected(client, TransportConfig::default());
    let id = pair.conn(Side::Client).open(Dir::Bidi).unwrap();
    pair.conn(Side::Client).provide_receive_buffer(id, PinnedBuf::unpinned(1000)).unwrap();
    pair.conn(Side::Client).send(id, SendData::Static(b"x"), true).unwrap();
    for (more, expected) in [(500, vec![]), (1, vec![(499, (1 << 20) - 499)]), (400, vec![])] {
        pair.wait(Duration::from_millis(50));
        pair.conn(Side::Server).send(id, SendData::Bytes(Bytes::from(vec![0; more])), false).unwrap();
        pair.wait(Duration::from_millis(50));
        assert_eq!(lows(&pair.events(Side::Client)), expected);
    }
}
