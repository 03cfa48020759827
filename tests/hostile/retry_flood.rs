//! 200,000 first packets per second from forged addresses, in simulated time, and clients that connect in the meantime.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use gannet::base::Side;
use gannet::base::rng::Rng;
use gannet::base::time::Instant;
use gannet::mem::BufPool;
use gannet::quic::{ClientConfig, ConnId, DropReason, Endpoint, EndpointConfig, Event, RxMeta, TransportConfig};

use super::flood::{initial, spoofed};
use super::memory::held;
use super::world::{CLIENT_TLS, Host, endpoint_config, server_addr};

/// Spoofed datagrams per millisecond.
const RATE: u64 = 200;

/// Duration in milliseconds.
const LENGTH: u64 = 3000;

/// Time in which only strangers come, in milliseconds.
const ALONE: u64 = 1000;

/// One-way delay between clients and server.
const ONE_WAY: Duration = Duration::from_millis(10);

/// Datagrams that a core receives, and sends, per turn.
const BURST: usize = 32;

/// Honest clients on one engine, and datagrams in flight.
struct Clients {
    endpoint: Endpoint,
    config: ClientConfig,
    started: Vec<(ConnId, Instant)>,
    /// Duration of each handshake.
    took: Vec<Duration>,
    closed: usize,
    to_server: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    to_clients: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
}

impl Clients {
    fn new() -> Self {
        let config = EndpointConfig { max_connections: 1000, ..endpoint_config(Side::Client) };
        Self {
            endpoint: Endpoint::new(config, None, BufPool::heap()),
            config: ClientConfig::new(CLIENT_TLS.clone(), TransportConfig::default()).unwrap(),
            started: Vec::new(),
            took: Vec::new(),
            closed: 0,
            to_server: VecDeque::new(),
            to_clients: VecDeque::new(),
        }
    }

    fn connect(&mut self, now: Instant) {
        let from = SocketAddr::from(([192, 0, 2, 1], 20_000 + self.started.len() as u16));
        let id = self.endpoint.connect(now, &self.config, "sim", from, server_addr()).unwrap();
        self.started.push((id, now));
    }

    fn turn(&mut self, now: Instant) {
        while let Some((_, to, mut data)) = self.to_clients.pop_front_if(|(at, ..)| *at <= now) {
            let meta = RxMeta { local: to, remote: server_addr(), ecn: 0 };
            self.endpoint.handle_datagram(now, &meta, &mut data);
        }
        if self.endpoint.next_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        while let Some((id, event)) = self.endpoint.poll_event() {
            match event {
                Event::Connected { .. } => {
                    let (_, start) = self.started.iter().find(|(conn, _)| *conn == id).unwrap();
                    self.took.push(now.saturating_since(*start));
                    self.endpoint.conn(id).unwrap().close(0, "");
                }
                Event::Closed { .. } => self.closed += 1,
                _ => {}
            }
        }
        let mut slot = [0; 1500];
        while let Some(transmit) = self.endpoint.poll_transmit(now, &mut slot) {
            self.to_server.push_back((now + ONE_WAY, transmit.local, slot[..transmit.len].to_vec()));
        }
    }
}

/// The sources and contents of forged packets: most are first packets of different connections, one in sixteen has a
/// forged token, and one in sixteen is a valid first packet, chosen from a few.
struct Flood {
    rng: Rng,
    stock: Vec<Vec<u8>>,
    packet: Vec<u8>,
}

impl Flood {
    fn next(&mut self) -> (SocketAddr, &mut [u8]) {
        let n = self.rng.next_u64();
        let true_ones = self.stock.len() as u64;
        let (from, template) = match n % 16 {
            0 => (spoofed(n), &self.stock[(n >> 8) as usize % self.stock.len()]),
            _ => (spoofed(n), &self.stock[0]),
        };
        self.packet.clear();
        self.packet.extend_from_slice(template);
        if !n.is_multiple_of(16) {
            self.packet[6..14].copy_from_slice(&n.wrapping_mul(true_ones | 1).to_be_bytes());
        }
        if n % 16 == 1 {
            // A token of the length and kind of ours, after both IDs of eight bytes.
            let token = 5 + 9 + 9;
            self.packet[token] = 59;
            self.packet[token + 1] = 1;
            self.packet[token + 1 + 59..][..2].copy_from_slice(&[0x44, 0x00]);
        }
        (from, &mut self.packet)
    }
}

/// Before, the first few thousand of them locked everyone else out for as long as the flood lasted.
#[test]
fn a_flood_keeps_nobody_out() {
    let config = EndpointConfig { core: 7, ..EndpointConfig::from_seed([7; 32]) };
    let mut server = Host::server_with(config, TransportConfig::default());
    let mut flood =
        Flood { rng: Rng::from_u64(11), stock: (0..100).map(initial).collect(), packet: Vec::with_capacity(1500) };
    let mut clients = Clients::new();
    // All places for strangers are taken by valid handshakes that nobody continues.
    for n in 0..1500 {
        server.receive_from(spoofed(1 << 22 | n), &mut initial(1000 + n));
        server.run();
    }
    assert_eq!(server.endpoint.connection_count(), 1000);
    let mut slot = [0; 1500];
    let mut level = 0;
    let mut sent = 0;
    for ms in 0..LENGTH {
        server.now += Duration::from_millis(1);
        let now = server.now;
        if ms % 30 == 10 && (ALONE..LENGTH - 500).contains(&ms) {
            clients.connect(now);
        }
        clients.turn(now);
        let mut left = RATE;
        while left > 0 {
            for _ in 0..left.min(BURST as u64) {
                let (from, data) = flood.next();
                server.receive_from(from, data);
            }
            left = left.saturating_sub(BURST as u64);
            if let Some((_, from, mut data)) = clients.to_server.pop_front_if(|(at, ..)| *at <= now) {
                server.receive_from(from, &mut data);
            }
            // Turns of a core, which has many more of them than bursts to receive: timers, events, one burst out.
            if server.endpoint.next_timeout().is_some_and(|at| at <= now) {
                server.endpoint.handle_timeout(now);
            }
            server.poll();
            for _ in 0..4 * BURST {
                let Some(transmit) = server.endpoint.poll_transmit(now, &mut slot) else { break };
                sent += 1;
                if transmit.remote.ip() == SocketAddr::from(([192, 0, 2, 1], 0)).ip() {
                    let data = slot[..transmit.len].to_vec();
                    clients.to_clients.push_back((now + ONE_WAY, transmit.remote, data));
                }
            }
        }
        server.events.clear();
        if ms == ALONE / 2 {
            level = held();
        }
        if ms == ALONE {
            // The thousand handshakes keep what they retransmit; for everyone else, nothing is kept.
            let grown = held() - level;
            assert!(grown < 100_000, "{grown} bytes for {} strangers", RATE * ALONE / 2);
        }
    }
    let grown = held() - level;
    let stats = server.endpoint.stats();
    assert_eq!((clients.took.len(), clients.closed), (clients.started.len(), clients.started.len()));
    assert!(clients.took.len() >= 50);
    // One round trip for the token, one for the handshake; time advances by a millisecond here.
    let worst = clients.took.iter().max().unwrap();
    assert!(*worst <= 4 * ONE_WAY + Duration::from_millis(4), "{worst:?}");
    // Memory holds the clients' connections until they are removed, on both sides; strangers got no more places.
    let honest = clients.took.len();
    assert!(grown < 10_000 * honest as isize, "{grown} bytes for {honest} clients");
    assert!(server.endpoint.connection_count() <= 1000 + honest, "{}", server.endpoint.connection_count());
    assert_eq!(stats.tokens_accepted as usize, clients.took.len());
    let total = RATE * LENGTH;
    assert!(stats.retries_sent > total * 9 / 10 && stats.retries_sent < total, "{}", stats.retries_sent);
    assert!(stats.drops[DropReason::BadToken as usize] > total / 20);
    assert!(sent < total + 100_000, "{sent} datagrams for {total}");
}
