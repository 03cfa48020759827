//! No allocations per packet: after a warm-up, the engine, the network layer and the core use the memory that they
//! have.

mod counting;
mod world;

use std::time::Duration;

use gannet::mem::PinnedBuf;
use gannet::quic::{ConnId, Dir, EndpointStats, Event, SendData, StreamId, TransportConfig};
use gannet::runtime::{App, Context};

use world::{Link, REMOTE, World, client_config};

/// Packets before counting begins, until windows are open and tables have their size.
const WARM_UP: u64 = 40_000;

/// Number of packets counted.
const STEADY: u64 = 20_000;

/// A table may have to double once more when a window grows, but only rarely: in one of this many rounds of [`STEADY`]
/// packets, nothing must be allocated.
const ROUNDS: usize = 10;

fn transport() -> TransportConfig {
    TransportConfig { max_udp_payload: 8972, stream_window_bidi_local: 0, ..TransportConfig::default() }
}

/// The memory that the client receives into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    /// A number of buffers of this size, provided again when they are returned.
    Provided(usize, usize),
    /// The pool's chunks, read in place.
    Pooled,
    /// The pool's chunks, taken and dropped.
    Taken,
}

/// Requests an endless file and receives it.
struct Download {
    transport: TransportConfig,
    receive: Receive,
    connecting: bool,
    bytes: u64,
}

impl Download {
    fn new(receive: Receive) -> Self {
        let window = if receive == Receive::Pooled || receive == Receive::Taken { 2 << 20 } else { 0 };
        let transport = TransportConfig { stream_window_bidi_local: window, ..transport() };
        Self { transport, receive, connecting: false, bytes: 0 }
    }
}

impl App for Download {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        let Some(mut conn) = cx.conn(conn) else { return };
        match event {
            Event::Connected { .. } => {
                let id = conn.open(Dir::Bidi).unwrap();
                if let Receive::Provided(count, size) = self.receive {
                    let bufs = (0..count).map(|_| PinnedBuf::unpinned(size)).collect();
                    conn.provide_receive_buffers(id, bufs).unwrap();
                }
                conn.send(id, SendData::Static(b"get"), true).unwrap();
            }
            Event::Buffer { id, buf, valid, .. } => {
                assert_eq!(valid, buf.len());
                self.bytes += valid as u64;
                conn.provide_receive_buffer(id, buf).unwrap();
            }
            Event::Readable { id, .. } if self.receive == Receive::Taken => {
                while let Some(chunk) = conn.take(id) {
                    self.bytes += chunk.len() as u64;
                }
            }
            Event::Readable { id, .. } => {
                while let Some(n) = conn.peek(id).map(<[u8]>::len).filter(|n| *n > 0) {
                    self.bytes += n as u64;
                    conn.consume(id, n);
                }
            }
            Event::Closed { reason } => panic!("{reason}"),
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.connecting, true) {
            cx.connect(&client_config(self.transport.clone()), "sim", REMOTE).unwrap();
        }
    }
}

/// Sends one pinned buffer again and again.
struct Endless;

impl App for Endless {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        let Some(mut conn) = cx.conn(conn) else { return };
        match event {
            Event::StreamOpened { id } => {
                for _ in 0..2 {
                    let buf = PinnedBuf::unpinned(2 << 20);
                    conn.send(id, SendData::Pinned(buf, 2 << 20), false).unwrap();
                }
            }
            Event::SendDone { id, data, acked } => {
                assert_eq!(acked, data.len());
                conn.send(id, data, false).unwrap();
            }
            Event::Readable { id, .. } => {
                let n = conn.peek(id).map_or(0, <[u8]>::len);
                conn.consume(id, n);
            }
            Event::Closed { reason } => panic!("{reason}"),
            _ => {}
        }
    }
}

/// Checks that data was placed in memory as it should be.
fn check_placement(stats: &EndpointStats, bytes: u64) {
    let placed = stats.placement;
    assert_eq!(placed.copied, 0);
    let arrived = placed.direct + placed.staged;
    assert!(bytes <= arrived && arrived <= bytes + (8 << 20), "{arrived} placed, {bytes} seen");
    assert!(placed.direct > 9 * placed.staged, "{placed:?}");
}

fn download(link: Link, receive: Receive) -> [u64; 2] {
    let mut world = World::new(link, transport(), Download::new(receive), Endless);
    world.run(WARM_UP);
    let (before, sent) = (world.client.app.bytes, world.server.endpoint_stats().tx_bytes);
    let allocated = world.steady(ROUNDS, STEADY);
    let (bytes, sent) = (world.client.app.bytes - before, world.server.endpoint_stats().tx_bytes - sent);
    assert!(bytes > STEADY / 2 * 1000 && sent > bytes, "{bytes} bytes in {STEADY} packets");
    check_placement(world.client.endpoint_stats(), world.client.app.bytes);
    if link.lost > 0 {
        assert!(world.server.endpoint_stats().lost_packets > 100, "the link was not rough");
    }
    allocated
}

#[test]
fn into_provided_buffers() {
    for mtu in [1500, 9000] {
        assert_eq!(download(Link::smooth(mtu), Receive::Provided(16, 128 << 10)), [0, 0], "MTU {mtu}");
    }
}

#[test]
fn into_small_provided_buffers() {
    assert_eq!(download(Link::smooth(1500), Receive::Provided(300, 1000)), [0, 0]);
}

#[test]
fn from_pooled_chunks() {
    assert_eq!(download(Link::smooth(1500), Receive::Pooled), [0, 0]);
}

/// A chunk that is taken before it is full is split, and its parts share a reference count: an allocation for each
/// chunk of 64 KiB, not for each packet.
#[test]
fn from_chunks_that_are_taken() {
    let mut world = World::new(Link::smooth(1500), transport(), Download::new(Receive::Taken), Endless);
    world.run(WARM_UP);
    let before = world.client.app.bytes;
    let [client, server] = world.run(STEADY);
    let chunks = (world.client.app.bytes - before) / (64 << 10);
    assert!(client <= chunks + 10 && server <= 10, "{client} and {server} allocations for {chunks} chunks");
}

#[test]
fn with_loss_and_reordering() {
    for mtu in [1500, 9000] {
        assert_eq!(download(Link::rough(mtu), Receive::Provided(16, 128 << 10)), [0, 0], "MTU {mtu}");
    }
    assert_eq!(download(Link::rough(1500), Receive::Pooled), [0, 0]);
}

/// A new stream for every request, a number of them at a time.
struct Requests {
    transport: TransportConfig,
    at_a_time: usize,
    connecting: bool,
    done: u64,
}

static REQUEST: [u8; 64] = [1; 64];
static RESPONSE: [u8; 300] = [2; 300];

impl Requests {
    fn request(conn: &mut gannet::quic::Conn<'_>) -> bool {
        let Ok(id) = conn.open(Dir::Bidi) else { return false };
        conn.send(id, SendData::Static(&REQUEST), true).unwrap();
        true
    }
}

/// Reads what is available; true at the end of the stream.
fn read(conn: &mut gannet::quic::Conn<'_>, id: StreamId) -> bool {
    while let Some(n) = conn.peek(id).map(<[u8]>::len).filter(|n| *n > 0) {
        conn.consume(id, n);
    }
    conn.consume(id, 0);
    conn.is_finished(id)
}

impl App for Requests {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        let Some(mut conn) = cx.conn(conn) else { return };
        match event {
            Event::Connected { .. } => (0..self.at_a_time).for_each(|_| assert!(Self::request(&mut conn))),
            Event::Readable { id, .. } if read(&mut conn, id) => {
                self.done += 1;
                Self::request(&mut conn);
            }
            Event::StreamsAvailable { .. } => while conn.stream_count() < self.at_a_time && Self::request(&mut conn) {},
            Event::Closed { reason } => panic!("{reason}"),
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.connecting, true) {
            cx.connect(&client_config(self.transport.clone()), "sim", REMOTE).unwrap();
        }
    }
}

struct Answers;

impl App for Answers {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        let Some(mut conn) = cx.conn(conn) else { return };
        if let Event::Readable { id, .. } = event
            && read(&mut conn, id)
        {
            conn.send(id, SendData::Static(&RESPONSE), true).unwrap();
        }
    }
}

fn requests(link: Link, at_a_time: usize) -> [u64; 2] {
    let transport = TransportConfig { max_streams_bidi: 200, ..TransportConfig::default() };
    let client = Requests { transport: transport.clone(), at_a_time, connecting: false, done: 0 };
    let mut world = World::new(link, transport, client, Answers);
    world.run(WARM_UP);
    let before = world.client.app.done;
    let allocated = world.steady(ROUNDS, STEADY);
    let done = world.client.app.done - before;
    assert!(done > STEADY / 10, "{done} requests in {STEADY} packets");
    allocated
}

#[test]
fn a_new_stream_for_every_request() {
    for at_a_time in [1, 8, 100] {
        assert_eq!(requests(Link::smooth(1500), at_a_time), [0, 0], "{at_a_time} at a time");
    }
}

#[test]
fn a_new_stream_for_every_request_with_loss() {
    assert_eq!(requests(Link::rough(1500), 50), [0, 0]);
}

/// A connection that is used now and then, for minutes. The client has a keep-alive timer; on the server,
/// acknowledgements become due repeatedly while the idle timeout is far away.
#[test]
fn timers_do_not_pile_up() {
    let transport = TransportConfig::default();
    let keep_alive = Some(Duration::from_millis(100));
    let config = TransportConfig { keep_alive, ..transport.clone() };
    let client = Requests { transport: config, at_a_time: 1, connecting: false, done: 0 };
    let mut world = World::new(Link::smooth(1500), transport, client, Silent);
    world.run(10);
    // If entries accumulated, the table of timers would double now and then, so the run is long.
    let mut allocated = [0; 2];
    for n in 0..150_000 {
        let now = world.skip(Duration::from_millis(5));
        // The first gaps in the peer's packet numbers that are reported together allocate their list, once.
        if n > 75_000 {
            (0..2).for_each(|i| allocated[i] += now[i]);
        }
    }
    assert_eq!(allocated, [0, 0]);
    assert!(world.packets() > 4000, "{} packets", world.packets());
}

struct Silent;

impl App for Silent {
    fn on_event(&mut self, _: &mut Context<'_>, _: ConnId, _: Event) {}
}
