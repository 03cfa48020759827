//! Retry on the server side (RFC 9000 §8.1.2): when it is sent, what tokens are worth, and what strangers get from it.

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{CloseReason, DropReason, EndpointConfig, Event, RetryPolicy, TransportConfig};
use gannet::wire::quic::header::{self, PacketType};
use gannet::wire::quic::{ConnectionId, TransportError};

use super::flood::{initial, spoofed};
use super::memory::held;
use super::peer::{DATA, INITIAL, Peer, Shape};
use super::world::{Host, client_addr, endpoint_config, exchange, small};

pub type Datagrams = Vec<Vec<u8>>;

/// What happens between a Retry and the datagrams that answer it.
type Change = fn(&mut Host, &mut Datagrams);

fn config(retry: RetryPolicy) -> EndpointConfig {
    EndpointConfig { retry, ..endpoint_config(Side::Server) }
}

fn server(retry: RetryPolicy) -> Host {
    Host::server_with(config(retry), TransportConfig::default())
}

pub fn said(host: &mut Host) -> Datagrams {
    host.run().into_iter().map(|(_, datagram)| datagram).collect()
}

pub fn hear(host: &mut Host, datagrams: &Datagrams) {
    datagrams.iter().for_each(|datagram| host.receive(datagram.clone()));
}

/// Lets two engines talk until both are silent; returns the number of turns.
pub fn talk(client: &mut Host, server: &mut Host) -> usize {
    for turn in 0..50 {
        let (there, back) = (said(client), said(server));
        if there.is_empty() && back.is_empty() {
            return turn;
        }
        hear(server, &there);
        hear(client, &back);
    }
    panic!("they never stop talking");
}

fn is_connected(host: &Host) -> bool {
    host.events.iter().any(|(_, event)| matches!(event, Event::Connected { .. }))
}

fn kind(datagram: &[u8]) -> PacketType {
    header::parse_greased(datagram, 8).unwrap().kind
}

/// A client, what it sent first, and what it sends with the token from `server`.
fn asked(server: &mut Host) -> (Host, Datagrams, Datagrams) {
    asked_by(Host::client(TransportConfig::default()), server)
}

fn asked_by(mut client: Host, server: &mut Host) -> (Host, Datagrams, Datagrams) {
    client.now = server.now;
    let first = said(&mut client);
    hear(server, &first);
    let retry = said(server);
    assert_eq!(retry.iter().map(|datagram| kind(datagram)).collect::<Vec<_>>(), vec![PacketType::Retry; first.len()]);
    hear(&mut client, &retry);
    let second = said(&mut client);
    assert!(!second.is_empty());
    (client, first, second)
}

#[test]
fn a_client_that_comes_again_with_its_token_gets_in() {
    let mut server = server(RetryPolicy::Always);
    let (mut client, first, second) = asked(&mut server);
    assert_eq!((server.endpoint.connection_count(), server.endpoint.stats().retries_sent), (0, 1));
    // The server's ID differs from the client's choice, and the Retry is far smaller than what it answers.
    let dcids = [&first, &second].map(|datagrams| header::parse(&datagrams[0], 8).unwrap().dcid);
    assert_ne!(dcids[0], dcids[1]);

    hear(&mut server, &second);
    // Another copy belongs to the same connection.
    hear(&mut server, &second);
    assert_eq!((server.endpoint.connection_count(), server.endpoint.stats().tokens_accepted), (1, 1));
    // The client itself checks that the server knows both IDs (RFC 9000 §7.3).
    talk(&mut client, &mut server);
    assert!(is_connected(&client) && is_connected(&server) && client.closed().is_none());
    // Late copies of the first packets get a Retry, or go to the connection; both are harmless.
    hear(&mut server, &[first, second].concat());
    talk(&mut client, &mut server);
    assert_eq!((server.endpoint.connection_count(), client.closed()), (1, None));
}

/// A client whose path fails during the handshake comes late, with a probe: the last one within half a minute is still
/// accepted. It could not follow another Retry.
#[test]
fn a_token_is_good_for_a_client_that_comes_late() {
    let mut server = server(RetryPolicy::Always);
    let patience = Duration::from_secs(60);
    let patient =
        TransportConfig { handshake_timeout: patience, max_idle_timeout: patience, ..TransportConfig::default() };
    let (mut client, _, _) = asked_by(Host::client(patient), &mut server);
    let (late, asked_at) = (Duration::from_secs(20), server.now);
    // What it sends in the meantime is lost.
    client.wait(late);
    let _ = server.wait(late);
    let (second, at) = loop {
        let next = client.endpoint.next_timeout().expect("probes");
        client.now = client.now.max(next);
        client.poll();
        let sent = said(&mut client);
        if !sent.is_empty() {
            break (sent, client.now);
        }
    };
    server.now = at;
    hear(&mut server, &second);
    assert!(at >= asked_at + late);
    assert_eq!((server.endpoint.stats().tokens_accepted, server.drops(DropReason::BadToken)), (1, 0), "at {at:?}");
    talk(&mut client, &mut server);
    assert!(is_connected(&client) && is_connected(&server) && client.closed().is_none());
}

/// As the address is validated, a lost flight is retransmitted as often as necessary, whatever its size.
#[test]
fn a_token_lifts_the_limit_on_what_is_sent() {
    let sent = |retry| {
        let mut server = server(retry);
        let mut client = Host::client(TransportConfig::default());
        client.now = server.now;
        hear(&mut server, &said(&mut client));
        let answer = server.run();
        if kind(&answer[0].1) == PacketType::Retry {
            assert!(answer[0].1.len() < 150, "{} bytes", answer[0].1.len());
            hear(&mut client, &vec![answer[0].1.clone()]);
            hear(&mut server, &said(&mut client));
        }
        let later = server.wait(Duration::from_secs(9));
        later.iter().chain(&answer).map(|(_, datagram)| datagram.len()).sum::<usize>()
    };
    let received = 1200;
    assert!(sent(RetryPolicy::Never) <= 3 * received);
    assert!(sent(RetryPolicy::Always) > 4 * received);
}

/// Expired, from elsewhere, to another ID, or changed: the client will not follow another Retry, so it is informed at
/// once.
#[test]
fn a_client_with_a_bad_token_is_told() {
    let cases: [(&str, Change); 3] = [
        ("late", |server, _| drop(server.wait(Duration::from_millis(60_001)))),
        ("very late", |server, _| drop(server.wait(Duration::from_secs(10_000)))),
        ("another secret", |server, _| {
            let secret = EndpointConfig { address_key: [0; 32].into(), ..config(RetryPolicy::Always) };
            let now = server.now;
            *server = Host::server_with(secret, TransportConfig::default());
            server.now = now;
        }),
    ];
    for (why, change) in cases {
        let mut server = server(RetryPolicy::Always);
        let (mut client, _, mut second) = asked(&mut server);
        change(&mut server, &mut second);
        hear(&mut server, &second);
        assert_eq!((server.endpoint.connection_count(), server.drops(DropReason::BadToken)), (0, 1), "{why}");
        let answer = said(&mut server);
        assert_eq!(answer.iter().map(|datagram| kind(datagram)).collect::<Vec<_>>(), [PacketType::Initial], "{why}");
        assert!(answer[0].len() < 100);
        hear(&mut client, &answer);
        client.poll();
        let code = TransportError::INVALID_TOKEN.0;
        assert!(matches!(client.closed(), Some(CloseReason::PeerTransport { code: c, .. }) if *c == code), "{why}");
    }
    // From another port, where the answer goes.
    let mut server = server(RetryPolicy::Always);
    let (_, _, second) = asked(&mut server);
    server.receive_from(spoofed(1), &mut second[0].clone());
    let answer = server.run();
    assert_eq!((answer.len(), answer[0].0.remote, server.drops(DropReason::BadToken)), (1, spoofed(1), 1));
}

/// A token of another kind proves nothing and is ignored (RFC 9000 §8.1.3).
#[test]
fn foreign_tokens_count_as_none() {
    let with_token =
        |peer: &mut Peer| peer.shaped(INITIAL, &[1], Shape { token: b"from another life", ..Shape::default() });
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    let mut host = server(RetryPolicy::Always);
    let datagram = with_token(&mut peer);
    host.receive(datagram);
    assert_eq!(said(&mut host).iter().map(|datagram| kind(datagram)).collect::<Vec<_>>(), [PacketType::Retry]);
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    let mut host = server(RetryPolicy::Never);
    let datagram = with_token(&mut peer);
    host.receive(datagram);
    assert_eq!(host.endpoint.connection_count(), 1);
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected());
}

/// Forged tokens cost a bounded number of key derivations per second, and get as many answers.
#[test]
fn forged_tokens_get_few_answers() {
    let mut host = server(RetryPolicy::Always);
    let (_, _, second) = asked(&mut host);
    let parsed = header::parse(&second[0], 8).unwrap();
    let mut answers = 0;
    let before = held();
    for n in 0..5000 {
        let mut forged = second[0].clone();
        forged[parsed.token.end - 1] ^= 1 + n as u8 % 200;
        host.receive_from(spoofed(n), &mut forged);
        answers += host.run().len();
    }
    assert_eq!((host.drops(DropReason::BadToken), host.endpoint.connection_count()), (5000, 0));
    // The tag of these packets covers the token: they are not authentic, so there are no answers.
    assert_eq!(answers, 0);
    for n in 0..5000 {
        host.receive_from(spoofed(n), &mut second[0].clone());
        answers += host.run().len();
    }
    let limit = config(RetryPolicy::Always).reset_rate as usize;
    assert!(answers <= limit, "{answers}");
    host.now += Duration::from_secs(2);
    host.receive_from(spoofed(1), &mut second[0].clone());
    assert_eq!(host.run().len(), 1, "later, there is an answer again");
    assert!(held() - before < 10_000, "{} bytes", held() - before);
}

/// Accepting a token requires only the shared secret and time, not the core or process that issued it.
#[test]
fn another_core_takes_the_token() {
    let hour = Duration::from_secs(3600);
    let with = |core, seed: u8, base| EndpointConfig {
        core,
        seed: [seed; 32],
        time_base: base,
        ..config(RetryPolicy::Always)
    };
    let mut one = Host::server_with(with(1, 1, hour), TransportConfig::default());
    let mut two = Host::server_with(with(2, 2, hour - Duration::from_secs(5)), TransportConfig::default());
    two.now = one.now + Duration::from_secs(5);
    let (mut client, _, second) = asked(&mut one);
    hear(&mut two, &second);
    talk(&mut client, &mut two);
    assert!(is_connected(&client) && is_connected(&two));
    assert_eq!((one.endpoint.connection_count(), two.endpoint.stats().tokens_accepted), (0, 1));
}

/// Clients without a token get at most half of the places; the others are for those with one.
#[test]
fn places_are_kept_for_clients_with_tokens() {
    let mut host = server(RetryPolicy::default());
    let limit = config(RetryPolicy::default()).max_handshakes;
    let mut clients: Vec<_> = (0..limit as u64).map(|n| (spoofed(n), initial(n))).collect();
    for (from, first) in &mut clients {
        host.receive_from(*from, first);
        host.run();
    }
    assert_eq!(host.endpoint.connection_count(), limit / 2);
    assert_eq!(host.endpoint.stats().retries_sent as usize, limit / 2);
    let mut validated = 0;
    for n in 0..limit {
        let mut client = Host::client(small());
        client.now = host.now;
        let from = spoofed(1000 + n as u64);
        let carry = |client: &mut Host, host: &mut Host| {
            said(client).iter_mut().for_each(|datagram| host.receive_from(from, datagram));
            let back = host.run();
            back.iter().filter(|(to, _)| to.remote == from).for_each(|(_, datagram)| client.receive(datagram.clone()));
        };
        carry(&mut client, &mut host);
        carry(&mut client, &mut host);
        validated += usize::from(host.endpoint.stats().tokens_accepted as usize > validated);
    }
    assert_eq!((validated, host.endpoint.connection_count()), (limit / 2, limit));
    assert_eq!(host.drops(DropReason::Overload) as usize, limit / 2);
    // All of them free their places.
    host.wait(Duration::from_secs(60));
    assert_eq!(host.endpoint.connection_count(), 0);
    let (mut client, mut first) = (Host::client(small()), Vec::new());
    client.now = host.now;
    first.append(&mut said(&mut client));
    hear(&mut host, &first);
    assert_ne!(kind(&said(&mut host)[0]), PacketType::Retry, "no Retry is needed any more");
}

/// While answers wait, connections send every second datagram; while other answers wait, Retries do.
#[test]
fn neither_answers_nor_connections_starve() {
    let mut host = server(RetryPolicy::Always);
    let (mut client, _, second) = asked(&mut host);
    hear(&mut host, &second);
    talk(&mut client, &mut host);
    let id = host.conn.unwrap();
    let now = host.now;
    let mut conn = host.endpoint.conn(id).unwrap();
    let stream = conn.open(gannet::quic::Dir::Uni).unwrap();
    conn.send(stream, gannet::quic::SendData::Static(&[7; 100_000]), true).unwrap();
    let mut first = initial(1);
    let mut foreign = first.clone();
    foreign[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
    for n in 0..300 {
        host.receive_from(spoofed(n), &mut first);
        host.receive_from(spoofed(n), &mut foreign);
    }
    // 100 Version Negotiation packets are allowed in a second.
    assert_eq!(host.drops(DropReason::Overload), 100 - 64 + 300 - 256, "queues are bounded, each its own");
    let mut slot = [0; 1500];
    let mut order = String::new();
    for _ in 0..24 {
        let transmit = host.endpoint.poll_transmit(now, &mut slot).unwrap();
        order.push(match transmit.conn {
            Some(_) => 'c',
            None if kind(&slot[..transmit.len]) == PacketType::Retry => 'r',
            None => 'v',
        });
    }
    // The connection may send ten datagrams (RFC 9002 §7.2); then the others get all turns.
    let fair = order.trim_start_matches('c');
    assert!(fair.starts_with("vcrcvcrcvcrc") || fair.starts_with("rcvcrcvcrcvc"), "{order}");
    let answers = std::iter::from_fn(|| host.endpoint.poll_transmit(now, &mut slot)).filter(|t| t.conn.is_none());
    assert_eq!(answers.count() + order.matches(['r', 'v']).count(), 64 + 256);
}

/// First packets of an existing connection, in a datagram that no server may accept: no Retry either (RFC 9000 §14.1).
#[test]
fn short_first_packets_get_no_retry() {
    let mut host = server(RetryPolicy::Always);
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    let short = peer.shaped(INITIAL, &[1; 1000], Shape { unpadded: true, ..Shape::default() });
    assert!(short.len() < 1200);
    host.receive(short);
    let small_id = Shape { dcid: ConnectionId::new(&[1; 7]), ..Shape::default() };
    let short_id = peer.shaped(INITIAL, &[1], small_id);
    host.receive(short_id);
    assert!(host.run().is_empty());
    assert_eq!(host.drops(DropReason::ShortInitial), 2);
    assert!(!peer.is_connected() && peer.pn[DATA] == 0);
}
