//! What the server does with streams that our client never sends: driven by hand.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use gannet::mem::BufPool;
use gannet::quic::{CloseReason, Conn, ConnId, Dir, Event, SendData, StreamId, TransportConfig};
use gannet::runtime::{App, Context};

use crate::world::{REMOTE, World, client_config, shared_tls};

/// What a hand-driven client does on each stream, once it is connected.
type Step = Box<dyn FnMut(&mut Conn<'_>)>;

/// A client that reads whatever comes from pooled chunks and keeps count.
#[derive(Default)]
struct Raw {
    config: TransportConfig,
    conn: Option<ConnId>,
    connected: bool,
    steps: VecDeque<Step>,
    /// Bytes received on each stream, and whether its end has come.
    got: BTreeMap<u64, (u64, bool)>,
    resets: Vec<u64>,
    /// Streams that are stopped when this many bytes have come.
    stop_at: Option<u64>,
    closed: Option<CloseReason>,
}

impl App for Raw {
    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.connected = true,
            Event::Readable { id: stream, .. } => {
                let Some(mut conn) = cx.conn(id) else { return };
                let (count, end) = self.got.entry(stream.0).or_default();
                while let Some(n) = conn.peek(stream).map(<[u8]>::len).filter(|n| *n > 0) {
                    conn.consume(stream, n);
                    *count += n as u64;
                }
                conn.consume(stream, 0);
                *end = conn.is_finished(stream);
                if self.stop_at.is_some_and(|at| *count >= at) {
                    self.stop_at = None;
                    conn.stop_sending(stream, 7).expect("still receiving");
                }
            }
            Event::Reset { id, .. } => self.resets.push(id.0),
            Event::Closed { reason } => self.closed = Some(reason),
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.conn.is_none() {
            let config = client_config(self.config.clone());
            self.conn = Some(cx.connect(&config, "perf.test", REMOTE).expect("there is an address"));
        }
        if self.connected
            && let Some(mut conn) = self.conn.and_then(|id| cx.conn(id))
            && let Some(mut step) = self.steps.pop_front()
        {
            step(&mut conn);
        }
    }
}

fn raw(config: TransportConfig, steps: Vec<Step>) -> World<Raw> {
    let pool = BufPool::heap();
    let client = Raw { config, steps: steps.into(), ..Raw::default() };
    World::new(client, pool, BufPool::heap(), shared_tls(), TransportConfig::default())
}

fn request(dir: Dir, bytes: &'static [u8], fin: bool) -> Step {
    Box::new(move |conn| {
        let id = conn.open(dir).expect("streams are allowed");
        conn.send(id, SendData::Static(bytes), fin).expect("an open stream");
    })
}

fn sized(dir: Dir, size: u64, rest: usize) -> Step {
    Box::new(move |conn| {
        let id = conn.open(dir).expect("streams are allowed");
        let bytes = [&size.to_be_bytes()[..], &vec![1; rest]].concat();
        conn.send(id, SendData::Bytes(Bytes::from(bytes)), true).expect("an open stream");
    })
}

/// The `index`th stream that `server` or else the client opened, as a number.
fn stream(server: bool, dir: Dir, index: u64) -> u64 {
    index << 2 | u64::from(dir == Dir::Uni) << 1 | u64::from(server)
}

#[test]
fn unidirectional_requests_are_answered_on_streams_of_the_server() {
    let mut world = raw(
        TransportConfig::default(),
        vec![sized(Dir::Uni, 100_000, 10), sized(Dir::Uni, 0, 5), sized(Dir::Uni, 7, 0), sized(Dir::Bidi, 9, 0)],
    );
    world.until(|world| world.client.app.got.values().filter(|(_, end)| *end).count() == 3);
    let mut answers: Vec<_> = world.client.app.got.iter().map(|(id, got)| (*id, got.0)).collect();
    answers.sort_unstable_by_key(|(id, _)| *id);
    let uni = |index| stream(true, Dir::Uni, index);
    let mut want = vec![(stream(false, Dir::Bidi, 0), 9), (uni(0), 100_000), (uni(1), 7)];
    want.sort_unstable();
    assert_eq!(answers, want);
    world.until(|world| world.server.app.stats().requests == 4);
}

#[test]
fn answers_wait_until_the_client_allows_streams() {
    let config = TransportConfig { max_streams_uni: 2, ..TransportConfig::default() };
    let steps = (0..20).map(|n| sized(Dir::Uni, 1000 + n, 0)).collect();
    let mut world = raw(config, steps);
    world.until(|world| world.client.app.got.values().filter(|(_, end)| *end).count() == 20);
    let mut sizes: Vec<u64> = world.client.app.got.values().map(|got| got.0).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, (1000..1020).collect::<Vec<_>>());
}

#[test]
fn a_client_that_allows_no_answers_is_turned_away() {
    let config = TransportConfig { max_streams_uni: 0, ..TransportConfig::default() };
    // As many as may be open; streams are allowed anew as earlier ones end.
    let burst = || -> Step {
        Box::new(|conn: &mut Conn<'_>| {
            while let Ok(id) = conn.open(Dir::Uni) {
                let bytes = Bytes::copy_from_slice(&1u64.to_be_bytes());
                conn.send(id, SendData::Bytes(bytes), true).expect("an open stream");
            }
        })
    };
    let mut world = raw(config, (0..100_000).map(|_| burst()).collect());
    world.until(|world| world.client.app.closed.is_some());
    let closed = world.client.app.closed.take();
    assert!(matches!(closed, Some(CloseReason::Application { code: 1, .. })), "{closed:?}");
    world.until(|world| world.server.app.live().snapshot().connections == 0 && world.server_pool.stats().in_use == 0);
    assert_eq!(world.server.app.live().snapshot().in_flight, 0);
}

#[test]
fn streams_that_end_early_are_ignored_and_ended() {
    let mut world = raw(
        TransportConfig::default(),
        vec![
            request(Dir::Bidi, b"", true),
            request(Dir::Bidi, b"\0\0\0\0\0\0\x01", true),
            request(Dir::Uni, b"abc", true),
            Box::new(|conn| {
                let id = conn.open(Dir::Bidi).unwrap();
                conn.send(id, SendData::Static(b"\0\0\0\0"), false).unwrap();
            }),
            // Given up after the server has seen a part of it.
            Box::new(|conn| conn.reset(StreamId(stream(false, Dir::Bidi, 2)), 3).unwrap()),
        ],
    );
    world.until(|world| world.client.app.got.values().filter(|(_, end)| *end).count() == 3);
    for index in 0..3 {
        assert_eq!(world.client.app.got[&stream(false, Dir::Bidi, index)], (0, true));
    }
    world.until(|world| world.server.app.stats().ignored == 4);
    assert_eq!(world.server.app.stats().requests, 0);
    assert_eq!(world.client.app.resets, [0; 0]);
    world.until(|world| world.server_pool.stats().in_use == 0);
}

#[test]
fn the_size_may_come_in_pieces() {
    let piece = |bytes: &'static [u8], fin| -> Step {
        Box::new(move |conn: &mut Conn<'_>| {
            conn.send(StreamId(0), SendData::Static(bytes), fin).expect("an open stream");
        })
    };
    let mut steps: Vec<Step> = vec![request(Dir::Bidi, b"\0\0\0", false)];
    // Empty turns in between, so that the pieces travel apart.
    steps.extend((0..50).map(|_| Box::new(|_: &mut Conn<'_>| {}) as Step));
    steps.push(piece(b"\0\0\0\x30", false));
    steps.extend((0..50).map(|_| Box::new(|_: &mut Conn<'_>| {}) as Step));
    steps.push(piece(b"\x39", true));
    let mut world = raw(TransportConfig::default(), steps);
    world.until(|world| world.client.app.got.get(&0).is_some_and(|(_, end)| *end));
    assert_eq!(world.client.app.got[&0].0, 0x3039);
}

#[test]
fn an_answer_without_end_goes_on_until_it_is_stopped() {
    let mut world = raw(TransportConfig::default(), vec![sized(Dir::Bidi, u64::MAX, 0)]);
    world.client.app.stop_at = Some(20 << 20);
    world.until(|world| world.server.app.stats().stopped == 1);
    assert!(world.client.app.got[&0].0 >= 20 << 20 && !world.client.app.got[&0].1);
    world.until(|world| world.server.app.live().snapshot().in_flight == 0 && world.server_pool.stats().in_use == 0);
    // The connection lives on.
    world.client.app.steps.push_back(sized(Dir::Bidi, 5, 0));
    world.until(|world| world.client.app.got.get(&4) == Some(&(5, true)));
}

#[test]
fn a_request_is_read_from_chunks_when_there_is_no_buffer_for_it() {
    use gannet::mem::{Hugepages, PoolConfig};
    let tiny = PoolConfig { limit_bytes: 4096, hugepages: Hugepages::Never, numa_node: None };
    let (tiny, pool) = (BufPool::new(tiny).unwrap(), BufPool::heap());
    let steps = vec![sized(Dir::Bidi, 1234, 300_000), request(Dir::Bidi, b"abc", true)];
    let client = Raw { steps: steps.into(), ..Raw::default() };
    let mut world =
        World::with_provider(client, BufPool::heap(), pool, &tiny, shared_tls(), TransportConfig::default());
    world.until(|world| world.client.app.got.values().filter(|(_, end)| *end).count() == 2);
    assert_eq!((world.client.app.got[&0].0, world.client.app.got[&4].0), (1234, 0));
    let s = world.server.app.stats();
    assert_eq!((s.requests, s.ignored, s.bytes_received, s.pooled_streams), (1, 1, 300_011, 2));
    world.until(|world| world.server_pool.stats().in_use == 0);
}
