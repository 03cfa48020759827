//! Paths that are slow, narrow, interrupted for a while, or lose an important packet: how two engines cope with them.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::{Duration, Instant};
use gannet::quic::{CloseReason, Dir, DropReason, Event, SendData, StreamId, TransportConfig};

use super::pair::Pair;
use super::world::Host;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn zeros(len: usize) -> SendData {
    SendData::Bytes(Bytes::from(vec![0; len]))
}

/// The fate of a datagram: by how much it is delayed, if it arrives.
type Fate = Option<Duration>;

/// A datagram in flight: when it arrives, its order among those that arrive then, whether it goes to the server, and
/// its bytes.
type Flying = Reverse<(Instant, u64, bool, Vec<u8>)>;

/// Two hosts and a path with a delay.
struct Way {
    pair: Pair,
    delay: Duration,
    flying: BinaryHeap<Flying>,
    seq: u64,
}

impl Way {
    fn new(pair: Pair, delay: Duration) -> Self {
        Self { pair, delay, flying: BinaryHeap::new(), seq: 0 }
    }

    /// Hosts that have yet to connect.
    fn fresh(delay: Duration) -> Self {
        let config = TransportConfig { max_idle_timeout: secs(120), ..TransportConfig::default() };
        Self::new(Pair { client: Host::client(config.clone()), server: Host::server(config) }, delay)
    }

    /// Hosts that are connected and have probed the path.
    fn connected(delay: Duration) -> Self {
        let mut this = Self::fresh(delay);
        this.run(secs(2), |_, _, _| Some(Duration::ZERO), |_| false);
        assert_eq!((this.mtu(Side::Client), this.mtu(Side::Server)), (1472, 1472));
        this
    }

    fn mtu(&mut self, side: Side) -> u16 {
        self.pair.conn(side).stats().mtu
    }

    fn now(&self) -> Instant {
        self.pair.client.now
    }

    /// Reads everything available on `side`; returns the number of bytes and of streams that ended.
    fn read(&mut self, side: Side) -> (usize, usize) {
        let readable: Vec<StreamId> = self
            .pair
            .events(side)
            .iter()
            .filter_map(|event| match event {
                Event::Readable { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        let (mut bytes, mut ends) = (0, 0);
        for id in readable {
            while let Some(chunk) = self.pair.conn(side).take(id) {
                bytes += chunk.len();
                ends += usize::from(chunk.is_last());
            }
        }
        (bytes, ends)
    }

    /// Lets `time` pass, or less if `app`, which is called whenever something has happened, returns true.
    fn run(
        &mut self,
        time: Duration,
        mut fate: impl FnMut(Instant, Side, &[u8]) -> Fate,
        mut app: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let until = self.now() + time;
        loop {
            for side in [Side::Client, Side::Server] {
                let now = self.now();
                for (_, datagram) in self.pair.host(side).run() {
                    if let Some(late) = fate(now, side.peer(), &datagram) {
                        self.seq += 1;
                        let to_server = side == Side::Client;
                        self.flying.push(Reverse((now + self.delay + late, self.seq, to_server, datagram)));
                    }
                }
            }
            if app(self) {
                return true;
            }
            let hosts = [&self.pair.client, &self.pair.server];
            let timers = hosts.into_iter().filter_map(|host| host.endpoint.next_timeout());
            let arrival = self.flying.peek().map(|Reverse((at, ..))| *at);
            let next = timers.chain(arrival).min().filter(|next| *next <= until);
            let now = next.unwrap_or(until).max(self.now());
            (self.pair.client.now, self.pair.server.now) = (now, now);
            if next.is_none() {
                return false;
            }
            while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= now)
                && let Some(Reverse((_, _, to_server, datagram))) = self.flying.pop()
            {
                let to = if to_server { Side::Server } else { Side::Client };
                self.pair.host(to).receive(datagram);
            }
        }
    }
}

/// The client's window and what limits it, and the datagram size.
fn client(way: &mut Way) -> gannet::quic::ConnStats {
    way.pair.conn(Side::Client).stats()
}

const ON_TIME: Fate = Some(Duration::ZERO);

/// RFC 8899. Until 2026-11, each outage reduced the datagram size permanently; and the window after it was 0.7 of its
/// size before (RFC 9002 §7.6).
#[test]
fn outages_leave_the_datagram_size_as_it_was_and_the_window_small() {
    let mut way = Way::connected(ms(5));
    let id = way.pair.conn(Side::Client).open(Dir::Uni).unwrap();
    for n in 0..11 {
        // A flight is under way when the outage of three seconds begins, in both directions.
        way.pair.conn(Side::Client).send(id, zeros(200_000), false).unwrap();
        way.run(ms(3 + n), |_, _, _| ON_TIME, |way| way.read(Side::Server).0 == usize::MAX);
        let before = client(&mut way);
        let start = way.now();
        way.pair.conn(Side::Client).send(id, zeros(300_000), false).unwrap();
        way.run(secs(3), |_, _, _| None, |_| false);
        let mut smallest = u64::MAX;
        way.run(
            secs(30),
            |_, _, _| ON_TIME,
            |way| {
                smallest = smallest.min(client(way).cwnd);
                way.read(Side::Server);
                false
            },
        );
        let after = client(&mut way);
        assert!(before.bytes_in_flight > 0 && way.now().saturating_since(start) == secs(33));
        assert_eq!((after.bytes_in_flight, after.mtu), (0, 1472), "outage {n}");
        assert!(smallest <= 4 * 1472, "outage {n}: {smallest} of {}", before.cwnd);
    }
}

/// A path that becomes narrow: the client's datagrams above `path` bytes are lost. Returns how long a megabyte takes,
/// and the final size; with `chatter`, the server sends all the time, so that small datagrams of the client always get
/// through.
fn narrow(path: usize, chatter: bool) -> (Duration, u16) {
    let mut way = Way::connected(ms(5));
    let id = way.pair.conn(Side::Client).open(Dir::Bidi).unwrap();
    way.pair.conn(Side::Client).send(id, zeros(1000), false).unwrap();
    way.run(secs(1), |_, _, _| ON_TIME, |way| way.read(Side::Server).0 > 0);
    way.pair.conn(Side::Client).send(id, zeros(1_000_000), true).unwrap();
    let start = way.now();
    let mut said = start;
    let done = way.run(
        secs(60),
        |_, to, datagram| if to == Side::Server && datagram.len() > path { None } else { ON_TIME },
        |way| {
            way.read(Side::Client);
            if chatter && way.now() >= said + ms(2) {
                said = way.now();
                let _ = way.pair.conn(Side::Server).send(id, zeros(4000), false);
            }
            way.read(Side::Server).1 > 0
        },
    );
    assert!(done, "{path}: it never arrives");
    (way.now().saturating_since(start), way.mtu(Side::Client))
}

/// Until 2026-11, nothing was detected as long as small datagrams were acknowledged.
#[test]
fn large_datagrams_that_vanish_are_noticed_whether_small_ones_pass_or_not() {
    for path in [1471, 1350, 1300, 1200] {
        for chatter in [false, true] {
            let (time, mtu) = narrow(path, chatter);
            assert!(time < secs(3), "{path}, {chatter}: {time:?}");
            assert!(usize::from(mtu) <= path && path - usize::from(mtu) < 400, "{path}, {chatter}: {mtu}");
        }
    }
}

/// RFC 8899 §5.1.1: ten minutes after a search that ended below the goal.
#[test]
fn the_datagram_size_comes_back_when_the_path_does() {
    let mut way = Way::connected(ms(5));
    let id = way.pair.conn(Side::Client).open(Dir::Uni).unwrap();
    let send = |way: &mut Way, time, path: usize| {
        way.pair.conn(Side::Client).send(id, zeros(50_000), false).unwrap();
        let fate = |_: Instant, to, datagram: &[u8]| match to {
            Side::Server if datagram.len() > path => None,
            _ => ON_TIME,
        };
        way.run(time, fate, |way| way.read(Side::Server).0 == usize::MAX);
        way.mtu(Side::Client)
    };
    for _ in 0..3 {
        send(&mut way, secs(10), 1300);
    }
    let narrow = way.mtu(Side::Client);
    assert!((1268..=1300).contains(&narrow), "{narrow}");
    assert_eq!(send(&mut way, secs(100), 1500), narrow, "not at once");
    for _ in 0..6 {
        send(&mut way, secs(100), 1500);
    }
    assert_eq!(way.mtu(Side::Client), 1472);
}

/// RFC 9000 §13.2.3. Until 2026-11, an acknowledged ACK made duplicates of everything that came later: 439 of 35,000.
#[test]
fn packets_that_are_only_late_are_never_taken_for_duplicates() {
    let mut way = Way::connected(ms(5));
    let id = way.pair.conn(Side::Client).open(Dir::Uni).unwrap();
    let (mut n, mut got, mut sent) = (0u64, 0, 0);
    way.run(
        secs(600),
        |_, _, _| {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // One in a hundred is up to 30 ms late.
            Some(if (n >> 33) % 100 == 0 { Duration::from_micros((n >> 40) % 30_000) } else { Duration::ZERO })
        },
        |way| {
            while sent < 20 << 20 && way.pair.conn(Side::Client).send(id, zeros(1 << 20), false).is_ok() {
                sent += 1 << 20;
            }
            got += way.read(Side::Server).0;
            got == 20 << 20
        },
    );
    assert_eq!(got, 20 << 20);
    for host in [&way.pair.client, &way.pair.server] {
        assert_eq!(host.drops(DropReason::Duplicate), 0);
    }
}

/// RFC 9002 §7.4: the server's first datagram is lost, and with it the keys for the others. Until 2026-11, these
/// counted as lost for congestion control, which ended slow start immediately: 8.5 s instead of 1.2.
#[test]
fn a_lost_first_datagram_does_not_cost_the_slow_start() {
    for lost in [None, Some(0), Some(1)] {
        let mut way = Way::fresh(ms(50));
        let (mut n, mut got) = (0, 0);
        let mut sent = false;
        let start = way.now();
        let done = way.run(
            secs(60),
            |_, to, _| {
                n += i32::from(to == Side::Client);
                if to == Side::Client && lost.is_some_and(|lost| n == lost + 1) { None } else { ON_TIME }
            },
            |way| {
                if !sent && way.pair.server.conn.is_some() {
                    let connected = way.pair.server.events.iter().any(|(_, e)| matches!(e, Event::Connected { .. }));
                    if connected {
                        sent = true;
                        let id = way.pair.conn(Side::Server).open(Dir::Uni).unwrap();
                        way.pair.conn(Side::Server).send(id, zeros(5_000_000), true).unwrap();
                    }
                }
                if way.pair.client.conn.is_some() {
                    got += way.read(Side::Client).0;
                }
                got == 5_000_000
            },
        );
        let time = way.now().saturating_since(start);
        assert!(done && time < ms(3000), "datagram {lost:?} lost: {got} bytes after {time:?}");
    }
}

/// The link goes down after `passed` datagrams and is up again after two seconds of the client's clock; the server's
/// clock runs `rate` times as fast. Returns why the client's connection ended within the next ten seconds, if it did.
fn flap_in_a_handshake(passed: u32, rate: u32) -> Option<CloseReason> {
    const OUTAGE: Duration = Duration::from_secs(2);
    let idle = |max_idle_timeout| TransportConfig { max_idle_timeout, ..TransportConfig::default() };
    let keep_alive = Some(Duration::from_millis(2500));
    let client = TransportConfig { keep_alive, ..idle(secs(10)) };
    let mut pair = Pair { client: Host::client(client), server: Host::server(idle(secs(30))) };
    let mut left = passed;
    let mut asked = false;
    let mut ask = |pair: &mut Pair| {
        let connected = pair.client.events.iter().any(|(_, event)| matches!(event, Event::Connected { .. }));
        if connected && pair.client.closed().is_none() && !std::mem::replace(&mut asked, true) {
            let id = pair.conn(Side::Client).open(Dir::Bidi).unwrap();
            pair.conn(Side::Client).send(id, zeros(500), true).unwrap();
        }
    };
    pair.talk_with(|pair, _| {
        ask(pair);
        let arrives = left > 0;
        left = left.saturating_sub(1);
        arrives
    });
    // What is sent meanwhile is lost.
    for (host, time) in [(&mut pair.client, OUTAGE), (&mut pair.server, OUTAGE * rate)] {
        host.wait(time);
    }
    for _ in 0..1000 {
        ask(&mut pair);
        for from in [Side::Client, Side::Server] {
            for (_, datagram) in pair.host(from).wait(ms(10)) {
                pair.host(from.peer()).receive(datagram);
                pair.host(from.peer()).poll();
            }
        }
    }
    pair.client.closed().cloned()
}

/// RFC 9000 §10.1 and §10.3: a server whose timeouts expire during an outage forgets the connection. It answers the
/// client's next 1-RTT packet with a stateless reset. In a test with two emulated machines, whose clocks were wrong by up
/// to a factor of five, this looked like a restart.
#[test]
fn a_link_flap_in_the_handshake_ends_no_connection_unless_the_clocks_differ() {
    for passed in 0..16 {
        assert_eq!(flap_in_a_handshake(passed, 1), None, "after {passed} datagrams");
    }
    let ends: Vec<_> = (0..16).map(|passed| flap_in_a_handshake(passed, 5)).collect();
    // The client has heard nothing of the first attempt. Until 2026-11, the server took later Initial packets for
    // copies of the first.
    assert_eq!(ends[..2], [None, None], "{ends:?}");
    // The client has half of a handshake that the server has forgotten, so no reset is possible.
    let half = ends.iter().filter(|end| **end == Some(CloseReason::IdleTimeout)).count();
    assert!(half > 0 && ends[2..2 + half].iter().all(|end| *end == Some(CloseReason::IdleTimeout)), "{ends:?}");
    assert!(ends[2 + half..].iter().all(|end| *end == Some(CloseReason::StatelessReset)), "{ends:?}");
}

/// RFC 8899 §3: "An update to the PLPMTU (or MPS) MUST NOT increase the congestion window measured in bytes". Until
/// 2026-11, a larger datagram size raised a small window to two datagrams.
#[test]
fn the_window_does_not_grow_because_datagrams_do() {
    let config = TransportConfig { max_udp_payload: 2048, max_idle_timeout: secs(120), ..TransportConfig::default() };
    let mut way = Way::new(Pair { client: Host::client(config.clone()), server: Host::server(config) }, ms(5));
    let narrow = |_: Instant, _, datagram: &[u8]| if datagram.len() > 1200 { None } else { ON_TIME };
    way.run(ms(100), narrow, |_| false);
    let id = way.pair.conn(Side::Client).open(Dir::Uni).unwrap();
    way.pair.conn(Side::Client).send(id, zeros(300_000), false).unwrap();
    way.run(ms(30), narrow, |way| way.read(Side::Server).0 == usize::MAX);
    way.run(secs(3), |_, _, _| None, |_| false);
    let (mut smallest, mut probes, probe) = (u64::MAX, 0, Cell::new(0));
    way.run(
        secs(30),
        |_, to, datagram| {
            if to == Side::Server {
                probe.set(datagram.len().max(probe.get()));
            }
            ON_TIME
        },
        |way| {
            let now = client(way);
            smallest = smallest.min(now.cwnd);
            // What was sent just now, before anything else arrives.
            let size = probe.take() as u64;
            if size > u64::from(now.mtu) {
                probes += 1;
                assert!(now.cwnd >= 2 * size, "a probe of {size} bytes with a window of {}", now.cwnd);
            }
            way.read(Side::Server);
            false
        },
    );
    let mtu = way.mtu(Side::Client);
    assert!(smallest < 4096 && probes > 0 && mtu > 1200, "{smallest} bytes, {probes} probes, {mtu}");
}

/// RFC 9000 §14: "QUIC MUST NOT be used if the network path cannot support a maximum datagram size of at least 1200
/// bytes." The handshake tells.
#[test]
fn a_path_that_is_too_narrow_for_quic_carries_no_connection() {
    for (to, ends) in [(Side::Server, [true, false]), (Side::Client, [true, true])] {
        let mut way = Way::fresh(ms(5));
        let narrow = |_: Instant, at, datagram: &[u8]| if at == to && datagram.len() >= 1200 { None } else { ON_TIME };
        way.run(secs(60), narrow, |_| false);
        for (host, began) in [&way.pair.client, &way.pair.server].into_iter().zip(ends) {
            assert!(!host.events.iter().any(|(_, event)| matches!(event, Event::Connected { .. })));
            assert_eq!(host.closed(), began.then_some(&CloseReason::HandshakeTimeout), "{to:?}");
            assert_eq!(host.endpoint.connection_count(), 0);
        }
    }
}
