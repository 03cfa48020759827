//! Memory that peers can pin: what it costs them per byte, and that others are not affected.

use std::net::SocketAddr;
use std::time::Duration;

use gannet::mem::{BufPool, Hugepages, PoolConfig};
use gannet::quic::{DropReason, Event, StreamId, Transmit, TransportConfig};
use gannet::wire::quic::frame::{Frame, StreamHeader};

use super::peer::{DATA, Peer, frames};
use super::world::Host;

/// A server's pool in bytes.
const POOL: usize = 16 << 20;

/// What a connection may hold for free, and per byte received from it.
const AT_ONCE: usize = 64 << 10;
const PER_BYTE: usize = 16;

/// A server with windows as large as the pool, and more streams than fit into one packet.
fn server() -> Host {
    let config = PoolConfig { limit_bytes: POOL, hugepages: Hugepages::Never, numa_node: None };
    let transport = TransportConfig {
        stream_window_bidi_remote: 64 << 20,
        max_streams_bidi: 1000,
        keep_alive: None,
        ..TransportConfig::default()
    };
    Host::server_on(transport, BufPool::new(config).unwrap())
}

/// A client with an address of its own, and what it has sent.
struct Client {
    peer: Peer,
    sent: usize,
}

impl Client {
    fn connect(host: &mut Host, n: u8) -> Self {
        let addr = SocketAddr::from(([198, 51, 100, n], 4000));
        let peer = Peer::client(addr, 100 + u64::from(n), |params| params.to_bytes());
        let mut this = Self { peer, sent: 0 };
        this.talk(host);
        assert!(this.peer.is_connected() && this.peer.handshake_done);
        this
    }

    /// Carries datagrams until neither has anything to send. Datagrams for others are lost.
    fn talk(&mut self, host: &mut Host) {
        for _ in 0..50 {
            let said = std::mem::take(&mut self.peer.out);
            let quiet = said.is_empty();
            said.into_iter().for_each(|datagram| self.send(host, datagram));
            let heard = host.run();
            if quiet && heard.is_empty() {
                return;
            }
            self.read(&heard);
        }
        panic!("they never stop talking");
    }

    fn read(&mut self, heard: &[(Transmit, Vec<u8>)]) {
        let addr = self.peer.addr;
        let ours = heard.iter().filter(|(transmit, _)| transmit.remote == addr);
        ours.for_each(|(_, datagram)| self.peer.receive(datagram));
    }

    fn send(&mut self, host: &mut Host, mut datagram: Vec<u8>) {
        self.sent += datagram.len();
        host.receive_from(self.peer.addr, &mut datagram);
    }

    /// Sends a packet with `payload`; returns whether it was acknowledged.
    fn say(&mut self, host: &mut Host, payload: &[u8]) -> bool {
        let datagram = self.peer.packet(DATA, payload);
        let pn = self.peer.pn[DATA] - 1;
        self.send(host, datagram);
        self.hear(host);
        self.peer.acked.is_some_and(|acked| acked >= pn)
    }

    /// Lets acknowledgements become due.
    fn hear(&mut self, host: &mut Host) {
        let heard = host.wait(Duration::from_millis(30));
        self.read(&heard);
    }
}

/// A STREAM frame with `data` at `offset`.
fn stream(index: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let id = StreamId::new(gannet::base::Side::Client, gannet::quic::Dir::Bidi, index);
    let header = StreamHeader { id, offset, len: Some(data.len() as u64), fin: false };
    let mut bytes = frames(&[Frame::Stream(header)]);
    bytes.extend_from_slice(data);
    bytes
}

/// One byte each at `count` places, at a distance of `apart`.
fn scattered(index: u64, from: u64, apart: u64, count: u64) -> Vec<u8> {
    (0..count).flat_map(|n| stream(index, from + n * apart, &[7])).collect()
}

/// Before 2026-11-26, the first packet of each took all memory up to its highest offset: 4 x 64 MiB, all there was.
#[test]
fn four_who_take_all_they_can_and_one_who_wants_a_byte() {
    let mut host = server();
    let mut attackers: Vec<_> = (1..5).map(|n| Client::connect(&mut host, n)).collect();
    for attacker in &mut attackers {
        attacker.say(&mut host, &scattered(0, 64 << 10, 16 << 10, 90));
        attacker.say(&mut host, &stream(0, 1 << 20, &[1]));
    }
    let sent: usize = attackers.iter().map(|attacker| attacker.sent).sum();
    let pinned = host.endpoint.memory_charged();
    assert!(pinned > 0 && pinned <= 4 * AT_ONCE + PER_BYTE * sent, "{pinned} bytes for {sent}");
    // An honest client's first byte is accepted, and the connection works.
    let mut honest = Client::connect(&mut host, 99);
    assert!(honest.say(&mut host, &stream(0, 0, b"?")));
    for _ in 0..6 {
        for attacker in &mut attackers {
            attacker.say(&mut host, &frames(&[Frame::Ping]));
        }
        host.wait(Duration::from_secs(10));
        assert!(honest.say(&mut host, &frames(&[Frame::Ping])), "it is alive");
    }
    assert!(host.closed().is_none());
    // The same for more than fits into a chunk, in order.
    let before = host.drops(DropReason::NoMemory);
    for at in (1..50_000).step_by(1000) {
        assert!(honest.say(&mut host, &stream(0, at, &[3; 1000])));
    }
    assert_eq!(host.drops(DropReason::NoMemory), before);
}

/// Whatever a peer sends, it pins a bounded number of bytes per byte.
#[test]
fn what_a_byte_of_a_peer_pins() {
    for (name, packet) in [
        ("far bytes of one stream", (|n| scattered(0, (1 + 100 * n) << 8, 1 << 8, 100)) as fn(u64) -> Vec<u8>),
        ("near ones", |n| scattered(0, 2 + 200 * n, 2, 100)),
        ("first bytes of many streams", |n| (0..150).flat_map(|i| stream((150 * n + i) % 1000, 0, b"x")).collect()),
        ("far bytes of many streams", |n| (0..150).flat_map(|i| stream(i, (1 + n) << 8, b"x")).collect()),
        ("whole packets in order", |n| stream(0, 1300 * n, &[9; 1300])),
        ("whole packets far from each other", |n| stream(0, (1 + n) * 40_000, &[9; 1300])),
    ] {
        let mut host = server();
        let mut attacker = Client::connect(&mut host, 1);
        let mut most = 0;
        for n in 0..40 {
            attacker.say(&mut host, &packet(n));
            let pinned = host.endpoint.memory_charged();
            assert!(pinned <= AT_ONCE + PER_BYTE * attacker.sent, "{name}: {pinned} bytes for {}", attacker.sent);
            most = most.max(pinned);
        }
        println!(
            "{name}: {most} bytes of memory for {} sent, {} refused",
            attacker.sent,
            host.drops(DropReason::NoMemory)
        );
        assert!(most > 0, "{name}");
        assert!(host.closed().is_none(), "{name}: {:?}", host.closed());
    }
}

/// A connection that ends returns everything at once.
#[test]
fn what_was_pinned_comes_back() {
    let mut host = server();
    for n in 1..20 {
        let mut attacker = Client::connect(&mut host, n);
        attacker.say(&mut host, &scattered(0, 1 << 16, 1 << 14, 60));
        assert!(host.endpoint.memory_charged() > 0);
        let close = frames(&[Frame::ApplicationClose { code: 0, reason: b"" }]);
        attacker.say(&mut host, &close);
        assert!(host.events.iter().any(|(_, event)| matches!(event, Event::Closed { .. })));
        assert_eq!(host.endpoint.memory_charged(), 0);
    }
    assert_eq!(host.endpoint.pool().in_use(), 0);
}
