//! Windows that follow the path: a download over a link with a rate, a delay and a queue, in virtual time.

use gannet::base::Side;
use gannet::base::time::{Duration, Instant};
use gannet::mem::{BufPool, PinnedBuf};
use gannet::quic::{Dir, Endpoint, Event, SendData, StreamId, StreamStats, TransportConfig};
use gannet::sim::forwarder::InFlight;

use super::world::{Host, endpoint_config};

/// The path's rate in bytes per millisecond (200 Mbit/s), and its round-trip time without a queue.
const RATE: u64 = 25_000;
const RTT: Duration = Duration::from_millis(100);
const BDP: u64 = RATE * 100;

/// What is sent again and again.
static BLOCK: [u8; 1 << 16] = [7; 1 << 16];

/// A download: the server sends without end.
struct Download {
    client: Host,
    server: Host,
    flying: InFlight<(Side, Vec<u8>)>,
    /// When the link to the client has sent what is in its queue.
    free: Instant,
    stream: StreamId,
    /// Bytes taken, or in returned buffers.
    got: u64,
    reads: bool,
    /// Space left and bytes wanted, for each time that more was asked for.
    asked: Vec<(Instant, u64, u64)>,
    /// The most that was provided, or promised, beyond what had come or was taken.
    most: u64,
}

impl Download {
    fn new(transport: TransportConfig, pool: BufPool) -> Self {
        let server = Host::server(TransportConfig::default());
        let mut client = Host::new(Side::Client, Endpoint::new(endpoint_config(Side::Client), None, pool));
        client.connect(transport);
        let stream = StreamId::new(Side::Client, Dir::Bidi, 0);
        let (flying, free) = (InFlight::default(), client.now);
        Self { client, server, flying, free, stream, got: 0, reads: true, asked: Vec::new(), most: 0 }
    }

    fn now(&self) -> Instant {
        self.client.now
    }

    /// Lets `time` pass.
    fn run(&mut self, time: Duration) {
        let until = self.now() + time;
        self.turn();
        loop {
            let timeouts = [&self.client, &self.server].map(|host| host.endpoint.next_timeout());
            let next = timeouts.into_iter().chain([self.flying.next()]).flatten().min();
            let Some(now) = next.map(|at| at.max(self.now())).filter(|now| *now <= until) else { break };
            (self.client.now, self.server.now) = (now, now);
            while self.flying.next().is_some_and(|at| at <= now)
                && let Some((_, (to, datagram))) = self.flying.pop()
            {
                if to == Side::Client { self.client.receive(datagram) } else { self.server.receive(datagram) }
            }
            self.turn();
        }
        (self.client.now, self.server.now) = (until, until);
    }

    /// Both do what they can do now.
    fn turn(&mut self) {
        let now = self.now();
        for side in [Side::Client, Side::Server] {
            loop {
                let out = if side == Side::Client { self.client.run() } else { self.server.run() };
                for (_, datagram) in out {
                    if side == Side::Client {
                        self.flying.push(now + RTT / 2, (Side::Server, datagram));
                        continue;
                    }
                    let sent = self.free.max(now) + Duration::from_nanos(datagram.len() as u64 * 1_000_000 / RATE);
                    // The queue has room for as much as is in flight.
                    if sent <= now + RTT {
                        self.free = sent;
                        self.flying.push(sent + RTT / 2, (Side::Client, datagram));
                    }
                }
                let acted = if side == Side::Client { self.receive() } else { self.send() };
                if !acted {
                    break;
                }
            }
        }
        let Some(stats) = self.stats() else { return };
        let beyond = match stats.provided {
            0 => stats.announced.saturating_sub(stats.consumed),
            provided => provided.saturating_sub(stats.contiguous),
        };
        self.most = self.most.max(beyond);
    }

    fn stats(&mut self) -> Option<StreamStats> {
        let conn = self.client.conn?;
        self.client.endpoint.conn(conn)?.stream_stats(self.stream)
    }

    /// The server's application. True if it did anything.
    fn send(&mut self) -> bool {
        let events: Vec<_> = self.server.events.drain(..).collect();
        let Some(conn) = events.last().map(|(conn, _)| *conn) else { return false };
        let Some(mut conn) = self.server.endpoint.conn(conn) else { return false };
        while conn.send(self.stream, SendData::Static(&BLOCK), false).is_ok() {}
        true
    }

    /// The client's application. True if it did anything.
    fn receive(&mut self) -> bool {
        let (now, events) = (self.now(), std::mem::take(&mut self.client.events));
        let acted = !events.is_empty();
        for (id, event) in events {
            let Some(mut conn) = self.client.endpoint.conn(id) else { continue };
            match event {
                Event::Connected { .. } => {
                    assert_eq!(conn.open(Dir::Bidi).unwrap(), self.stream);
                    conn.send(self.stream, SendData::Static(b"x"), true).unwrap();
                    if conn.stream_stats(self.stream).unwrap().announced == 0 {
                        let bufs = (0..16).map(|_| PinnedBuf::unpinned(1 << 16)).collect();
                        conn.provide_receive_buffers(self.stream, bufs).unwrap();
                    }
                }
                Event::Readable { id, .. } if self.reads => {
                    while let Some(chunk) = conn.take(id) {
                        self.got += chunk.len() as u64;
                    }
                }
                Event::Buffer { valid, .. } => self.got += valid as u64,
                Event::ReceiveBufferLow { id, provided_left, wanted } => {
                    self.asked.push((now, provided_left, wanted));
                    let bufs = (0..wanted.div_ceil(1 << 16)).map(|_| PinnedBuf::unpinned(1 << 16)).collect();
                    conn.provide_receive_buffers(id, bufs).unwrap();
                }
                Event::Closed { reason } => panic!("{reason:?}"),
                _ => {}
            }
        }
        acted
    }

    /// The share of the rate that arrives within `time`.
    fn fraction(&mut self, time: Duration) -> f64 {
        let before = self.got;
        self.run(time);
        (self.got - before) as f64 / (time.as_secs_f64() * 1000.0 * RATE as f64)
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn windows_grow_until_a_long_path_is_full() {
    let mut fixed = Download::new(TransportConfig { max_window: 0, ..TransportConfig::default() }, BufPool::heap());
    fixed.run(3 * SECOND);
    let fraction = fixed.fraction(2 * SECOND);
    assert!(fraction < 0.5 && fixed.most <= 1 << 20, "{fraction}: a window of 1 MiB is the limit");

    let mut download = Download::new(TransportConfig::default(), BufPool::heap());
    download.run(3 * SECOND);
    let fraction = download.fraction(2 * SECOND);
    assert!(fraction > 0.93, "{fraction}");
    assert!((2 * BDP..8 * BDP).contains(&download.most), "{} is promised, {BDP} are in flight", download.most);
}

#[test]
fn windows_stay_small_for_those_who_do_not_read() {
    let mut download = Download::new(TransportConfig::default(), BufPool::heap());
    download.reads = false;
    download.run(5 * SECOND);
    assert!(download.most <= 1 << 20, "{} bytes", download.most);
}

/// Who sets a budget of memory has set the windows.
#[test]
fn windows_grow_as_far_as_memory_allows() {
    const MIB: usize = 1 << 20;
    let mut download = Download::new(TransportConfig::default(), BufPool::heap().part(32 * MIB));
    download.run(5 * SECOND);
    // Half of the connection's share, and two thirds of that for a stream.
    assert!((2 << 20..=4 << 20).contains(&download.most), "{} bytes", download.most);
}

#[test]
fn space_is_asked_for_before_a_long_path_runs_dry() {
    let provided = TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() };
    let mut download = Download::new(provided, BufPool::heap());
    download.run(3 * SECOND);
    let begin = download.now();
    let fraction = download.fraction(2 * SECOND);
    assert!(fraction > 0.93, "{fraction}");
    let asked: Vec<_> = download.asked.iter().filter(|(at, ..)| *at > begin).collect();
    let dry = asked.iter().find(|(_, left, _)| *left < 5 * BDP / 2);
    assert!(dry.is_none(), "{dry:?}");
    assert!(download.most <= 8 * BDP, "{} bytes are provided beyond what came in order", download.most);
    // About as often as a third of the space is used.
    assert!(asked.len() <= 4 * 20, "{} times in 20 round trips", asked.len());
}
