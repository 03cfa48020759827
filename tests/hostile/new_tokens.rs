//! Tokens of NEW_TOKEN frames (RFC 9000 §8.1.3): what they are worth, for how long, to whom, and how often.

use std::sync::Arc;
use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{
    ClientConfig, DropReason, EndpointConfig, Event, MemoryTokens, NewTokens, RetryPolicy, TokenScope, TokenStore,
    TransportConfig,
};
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::header;
use gannet::wire::quic::{TransportError, Version};

use super::flood::spoofed;
use super::memory::held;
use super::peer::{DATA, Peer, frames};
use super::retry_server::{Datagrams, hear, said, talk};
use super::world::{CLIENT_TLS, Host, against_client, against_server, client_addr, endpoint_config, exchange};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn config() -> EndpointConfig {
    EndpointConfig { retry: RetryPolicy::Always, ..endpoint_config(Side::Server) }
}

fn server(config: EndpointConfig) -> Host {
    Host::server_with(config, TransportConfig::default())
}

fn scope() -> TokenScope<'static> {
    TokenScope { server_name: "sim", local: client_addr().ip(), version: Version::V1 }
}

/// A client with a store.
struct Client {
    host: Host,
    store: Arc<MemoryTokens>,
}

impl Client {
    fn new() -> Self {
        Self { host: Host::idle_client(), store: Arc::default() }
    }

    /// A client that has been connected to `server` once, and has a token.
    fn of(server: &mut Host) -> Self {
        let mut this = Self::new();
        this.connect(server);
        this.close(server);
        assert_eq!(this.store.len(), 1);
        this
    }

    /// Starts a connection; returns what it sends first.
    fn begin(&mut self) -> Datagrams {
        let config = ClientConfig::new(CLIENT_TLS.clone(), TransportConfig::default()).unwrap();
        self.host.connect_with(config.with_tokens(self.store.clone()));
        said(&mut self.host)
    }

    /// Connects; returns the number of Retry packets that this took.
    fn connect(&mut self, server: &mut Host) -> u64 {
        self.host.now = server.now;
        let before = server.endpoint.stats().retries_sent;
        self.host.events.clear();
        hear(server, &self.begin());
        talk(&mut self.host, server);
        assert!(self.host.events.iter().any(|(_, event)| matches!(event, Event::Connected { .. })));
        server.endpoint.stats().retries_sent - before
    }

    fn close(&mut self, server: &mut Host) {
        self.host.endpoint.conn(self.host.conn.unwrap()).unwrap().close(0, "");
        talk(&mut self.host, server);
    }
}

/// The token of a datagram's first packet.
fn token_of(datagram: &[u8]) -> Vec<u8> {
    datagram[header::parse(datagram, 8).unwrap().token].to_vec()
}

#[test]
fn a_client_that_returns_with_a_token_needs_no_retry() {
    let mut server = server(config());
    let mut client = Client::new();
    let retries: Vec<u64> = (0..4)
        .map(|_| {
            let retries = client.connect(&mut server);
            client.close(&mut server);
            retries
        })
        .collect();
    assert_eq!(retries, [1, 0, 0, 0]);
    let stats = server.endpoint.stats();
    assert_eq!((stats.tokens_accepted, stats.new_tokens_sent, client.store.len()), (4, 4, 1));
}

/// Every Initial packet of a connection contains the token (RFC 9000 §17.2.2), and no two connections have the same.
#[test]
fn a_token_is_used_for_one_connection() {
    let mut server = server(EndpointConfig { new_tokens: NewTokens { count: 3, ..NewTokens::default() }, ..config() });
    let mut client = Client::new();
    client.connect(&mut server);
    client.close(&mut server);
    assert_eq!(client.store.len(), 3);
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let mut first = client.begin();
        first.extend(client.host.wait(Duration::from_secs(2)).into_iter().map(|(_, datagram)| datagram));
        let token = token_of(&first[0]);
        assert!(first.len() > 1 && first.iter().all(|datagram| token_of(datagram) == token));
        tokens.push(token);
        client.host.endpoint.abandon_all();
    }
    assert!(tokens[3].is_empty() && !tokens[2].is_empty(), "all tokens are used");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 4);
}

/// Whoever has seen a token gains nothing by it: it is ignored, as if there were none (RFC 9000 §8.1.3, §8.1.4).
#[test]
fn tokens_that_prove_nothing_are_ignored() {
    type Change = fn(&mut Host, &mut Client);
    let cases: [(Change, u64, &str); 6] = [
        (|_, _| {}, 0, "valid"),
        (|server, _| server.now = server.now + DAY + Duration::from_secs(1), 1, "expired"),
        (|server, _| server.now = server.now + DAY - Duration::from_secs(1), 0, "old"),
        (
            |_, client| {
                let mut token = client.store.take(scope()).unwrap();
                token[30] ^= 1;
                client.store.insert(scope(), &token);
            },
            1,
            "forged",
        ),
        (
            |_, client| {
                let _ = client.store.take(scope());
                client.store.insert(scope(), b"of another server");
            },
            1,
            "unknown",
        ),
        (
            |server, client| {
                let token = client.store.take(scope()).unwrap();
                client.store.insert(scope(), &token);
                client.connect(server);
                client.close(server);
                let _ = client.store.take(scope());
                client.store.insert(scope(), &token);
            },
            1,
            "used before",
        ),
    ];
    for (change, retries, what) in cases {
        let mut server = server(config());
        let mut client = Client::of(&mut server);
        change(&mut server, &mut client);
        assert_eq!(client.connect(&mut server), retries, "{what}");
        assert_eq!(server.drops(DropReason::BadToken), 0, "{what}");
    }
}

/// Cores, and a server that starts again, accept tokens of each other if they share the secret.
#[test]
fn a_token_outlives_the_server_that_made_it() {
    let mut first = server(config());
    let mut client = Client::of(&mut first);
    let mut second = server(EndpointConfig { core: 9, seed: [77; 32], ..config() });
    second.now = first.now;
    assert_eq!(client.connect(&mut second), 0);
    client.close(&mut second);
    let mut other = server(EndpointConfig { address_key: [3; 32].into(), ..config() });
    other.now = second.now;
    assert_eq!(client.connect(&mut other), 1);
}

#[test]
fn a_server_can_do_without_tokens() {
    for new_tokens in [NewTokens { count: 0, ..NewTokens::default() }, NewTokens { lifetime: Duration::ZERO, count: 1 }]
    {
        let mut server = server(EndpointConfig { new_tokens, ..config() });
        let mut client = Client::new();
        client.connect(&mut server);
        assert_eq!((client.store.len(), server.endpoint.stats().new_tokens_sent), (0, 0));
    }
}

/// A token from one address is worth nothing at another, and a copy of a first packet is worth nothing at all: floods
/// of both are answered with Retry packets, which are smaller, and nothing is kept.
#[test]
fn a_flood_of_replayed_tokens_costs_no_memory() {
    let mut server = server(config());
    let mut client = Client::of(&mut server);
    let first = client.begin();
    assert!(!token_of(&first[0]).is_empty());
    hear(&mut server, &first);
    talk(&mut client.host, &mut server);
    let before = (server.endpoint.connection_count(), server.endpoint.stats().clone());
    assert_eq!(before.1.tokens_accepted, 2);
    let memory = held();
    let (mut bytes_in, mut bytes_out) = (0, 0);
    for n in 0..20_000u64 {
        let mut datagram = first[0].clone();
        bytes_in += datagram.len();
        server.receive_from(spoofed(n), &mut datagram);
        bytes_out += server.run().iter().map(|(_, datagram)| datagram.len()).sum::<usize>();
        let mut datagram = first[0].clone();
        bytes_in += datagram.len();
        // Another port of the client itself.
        server.receive_from((client_addr().ip(), 1024 + (n % 40_000) as u16).into(), &mut datagram);
        bytes_out += server.run().iter().map(|(_, datagram)| datagram.len()).sum::<usize>();
    }
    let stats = server.endpoint.stats();
    assert_eq!((server.endpoint.connection_count(), stats.tokens_accepted), (before.0, 2));
    assert_eq!(stats.retries_sent - before.1.retries_sent, 40_000);
    assert!(bytes_out * 8 < bytes_in, "{bytes_out} for {bytes_in}");
    let grown = held() - memory;
    assert!(grown < 64 << 10, "{grown} bytes");
}

/// A NEW_TOKEN frame that is lost is sent again (RFC 9000 §13.3).
#[test]
fn a_lost_token_is_replaced() {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    let before = peer.new_tokens.len();
    assert_eq!(before, 1);
    // Nothing of it was acknowledged.
    for (_, datagram) in host.wait(Duration::from_secs(5)) {
        peer.receive(&datagram);
    }
    assert!(peer.new_tokens.len() > 1);
    host.receive(peer.packet(DATA, &peer.ack(DATA)));
    let after = peer.new_tokens.len();
    for (_, datagram) in host.wait(Duration::from_secs(5)) {
        peer.receive(&datagram);
    }
    assert_eq!(peer.new_tokens.len(), after, "it is not sent again once acknowledged");
}

/// A server that sends very many tokens fills no memory; an empty one is an error, as is one from a client (RFC 9000
/// §19.7).
#[test]
fn tokens_of_a_hostile_server_are_bounded() {
    let mut client = Client::new();
    let first = client.begin();
    let mut peer = Peer::server(super::world::server_addr(), &first[0], |params| params.to_bytes());
    first.iter().for_each(|datagram| peer.receive(datagram));
    exchange(&mut client.host, &mut peer);
    for n in 0..1000u32 {
        let payload = frames(&[Frame::NewToken { token: &n.to_be_bytes() }, Frame::NewToken { token: &[7; 1000] }]);
        let datagram = peer.packet(DATA, &payload);
        client.host.receive(datagram);
        client.host.run();
    }
    assert_eq!((client.store.len(), client.host.closed()), (4, None));
    assert_eq!(client.store.take(scope()), Some(999u32.to_be_bytes().to_vec()));

    let (mut host, mut peer) = against_client(TransportConfig::default());
    host.receive(peer.packet(DATA, &[0x07, 0]));
    host.run();
    assert_eq!(host.error(), Some(TransportError::FRAME_ENCODING_ERROR));
    let (mut host, mut peer) = against_server(TransportConfig::default());
    host.receive(peer.packet(DATA, &frames(&[Frame::NewToken { token: b"mine" }])));
    host.run();
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
}
