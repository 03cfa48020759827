//! 0-RTT on detours: packets that overtake others, a HelloRetryRequest, other versions, and servers that break its rules.

use std::time::Duration;

use gannet::base::Side;
use gannet::base::range_set::RangeSet;
use gannet::quic::tls::{self, Group, TlsOptions};
use gannet::quic::{
    ClientConfig, DatagramConfig, DatagramOptions, Dir, DropReason, EarlyData, EarlyDataRequest, EndpointConfig, Event,
    RetryPolicy, SendData, ServerConfig, StreamId, TransportConfig,
};
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::params::TransportParameters;
use gannet::wire::quic::version::{Version, Versions};
use gannet::wire::quic::{TransportError, header};
use std::sync::Arc;

use super::early_data::{REQUEST, accepting, acquainted, ask, early_events, is_connected, known, read};
use super::flood::spoofed;
use super::memory::held;
use super::peer::{DATA, Peer, Shape, frames};
use super::resumption::{client, client_config, server, visit};
use super::retry_server::{Datagrams, hear, said, talk};
use super::world::{CLIENT_TLS, Host, SERVER_TLS, against_client, certificate, endpoint_config, exchange, server_addr};

fn allowing(transport: TransportConfig) -> ServerConfig {
    let config = ServerConfig::new(SERVER_TLS.clone(), transport).unwrap();
    config.with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| true))
}

/// A server with the same secret as `old`, which others have visited before the client.
fn successor(old: &Host, client: &mut Host, endpoint: EndpointConfig, config: ServerConfig) -> Host {
    let mut new = known(server(endpoint, config), &client_config());
    (new.now, client.now) = (old.now, old.now);
    new
}

/// RFC 9000 §5.2.2, RFC 9001 §5.7: 0-RTT packets that overtake the first Initial packet are not lost.
#[test]
fn packets_that_overtake_the_first_one_wait_for_it() {
    let (mut client, mut server, config) = acquainted();
    let (id, first) = ask(&mut client, &config);
    assert!(first.len() > 1);
    // The same from elsewhere is somebody else.
    for datagram in &first[1..] {
        server.receive_from(spoofed(1), &mut datagram.clone());
        server.receive(datagram.clone());
    }
    assert_eq!(server.endpoint.connection_count(), 0);
    hear(&mut server, &vec![first[0].clone()]);
    server.poll();
    assert_eq!(early_events(&server), [EarlyData::Accepted]);
    assert_eq!(read(&mut server, id), REQUEST);
    talk(&mut client, &mut server);
    assert!(is_connected(&client));
    assert_eq!(client.endpoint.stats().bytes_resent, 0);
}

/// What is kept is little, however much arrives, and nothing is kept where 0-RTT is off.
#[test]
fn a_flood_of_packets_without_a_client_is_bounded() {
    for early in [true, false] {
        let config = if early { accepting() } else { super::resumption::server_config() };
        let mut server = server(endpoint_config(Side::Server), config);
        let before = held();
        for n in 0..10_000_u64 {
            let mut packet = vec![0; 1200];
            let dcid = n.to_be_bytes();
            header::encode_long(&mut packet, Version::V1, header::PacketType::ZeroRtt, &dcid, &dcid, &[], 0, 4)
                .unwrap();
            // The length of what follows.
            let at = 1 + 4 + 1 + 8 + 1 + 8;
            packet[at..at + 2].copy_from_slice(&(0x4000 | (1200 - at as u16 - 2)).to_be_bytes());
            server.receive_from(spoofed(n), &mut packet);
            assert!(server.run().is_empty(), "nobody is answered");
        }
        let grown = held() - before;
        assert!(grown < if early { 100 << 10 } else { 20 << 10 }, "{grown} bytes");
        let dropped = server.drops(DropReason::UnknownConnection);
        assert!(if early { (9_900..10_000).contains(&dropped) } else { dropped == 10_000 }, "{dropped}");
        assert_eq!(server.endpoint.connection_count(), 0);
    }
}

/// RFC 9001 §4.6.2: a HelloRetryRequest rejects 0-RTT. The client sends no more of it, and all of the data again.
#[test]
fn a_hello_retry_request_rejects() {
    let options = |groups: &[Group]| TlsOptions {
        alpn: vec![b"hostile".to_vec()],
        groups: groups.to_vec(),
        ..TlsOptions::default()
    };
    let mut tls = (*tls::insecure_client_config(&options(&[Group::X25519, Group::Secp256r1])).unwrap()).clone();
    tls.resumption = rustls::client::Resumption::disabled();
    let config = ClientConfig::new(Arc::new(tls), TransportConfig::default()).unwrap();
    let config = config.with_sessions(8).with_early_data(true);
    let mut client = Host::idle_client();
    let mut old = server(endpoint_config(Side::Server), accepting());
    visit(&mut client, &config, &mut old);

    let (chain, key) = certificate();
    let other = tls::server_config(chain, key, &options(&[Group::Secp256r1])).unwrap();
    let other = ServerConfig::new(other, TransportConfig::default()).unwrap();
    let other = other.with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| true));
    let mut server = known(server(endpoint_config(Side::Server), other), &config.clone().with_sessions(0));
    (server.now, client.now) = (old.now, old.now);
    let (id, first) = ask(&mut client, &config);
    hear(&mut server, &first);
    hear(&mut client, &said(&mut server));
    // More data, now that 0-RTT is over.
    let mut conn = client.endpoint.conn(client.conn.unwrap()).unwrap();
    let second = conn.open(Dir::Bidi).unwrap();
    conn.send(second, SendData::Static(b"second"), true).unwrap();
    for datagram in said(&mut client) {
        assert!(packets(&datagram).iter().all(|(kind, _)| *kind != header::PacketType::ZeroRtt));
        server.receive(datagram);
    }
    talk(&mut client, &mut server);
    assert_eq!(early_events(&client), [EarlyData::Possible, EarlyData::Rejected]);
    assert_eq!((early_events(&server), server.endpoint.stats().early_packets), (vec![], 0));
    assert!(is_connected(&client) && is_connected(&server));
    assert_eq!((read(&mut server, id), read(&mut server, second)), (REQUEST.to_vec(), b"second".to_vec()));
    let group = server.events.iter().find_map(|(_, event)| match event {
        Event::Connected { tls, .. } => tls.group(),
        _ => None,
    });
    assert_eq!(group, Some(Group::Secp256r1));
}

/// RFC 9368 §2.1: the server speaks none of the client's first version, and has not read the 0-RTT packets. With and
/// without a Retry after that.
#[test]
fn version_negotiation_rejects() {
    for retry in [RetryPolicy::Never, RetryPolicy::Always] {
        let (mut client, old, config) = acquainted();
        let only_v2 =
            TransportConfig { versions: Versions::new(&[Version::V2]).unwrap(), ..TransportConfig::default() };
        let endpoint = EndpointConfig { retry, ..endpoint_config(Side::Server) };
        let mut server = successor(&old, &mut client, endpoint, allowing(only_v2));
        let (id, first) = ask(&mut client, &config);
        hear(&mut server, &first);
        talk(&mut client, &mut server);
        assert_eq!(early_events(&client), [EarlyData::Possible, EarlyData::Rejected], "{retry:?}");
        assert!(is_connected(&client) && is_connected(&server));
        assert_eq!(client.endpoint.conn(client.conn.unwrap()).unwrap().version(), Version::V2);
        assert_eq!(read(&mut server, id), REQUEST);
        assert_eq!(client.endpoint.stats().early_data_rejected, 1);
    }
}

/// The packets with long headers of a datagram, with their versions.
fn packets(mut datagram: &[u8]) -> Vec<(header::PacketType, Version)> {
    let mut packets = Vec::new();
    while !datagram.is_empty() {
        let parsed = header::parse(datagram, 8).unwrap();
        packets.extend(parsed.known_version().map(|version| (parsed.kind, version)));
        datagram = &datagram[parsed.packet_len..];
    }
    packets
}

/// RFC 9369 §4.1, RFC 9368 §2.3: a server that changes the version reads 0-RTT packets of the first one, with its keys.
#[test]
fn zero_rtt_packets_keep_the_first_version() {
    let (mut client, old, config) = acquainted();
    let prefers = Versions::new(&[Version::V2, Version::V1]).unwrap();
    let transport = TransportConfig { versions: prefers, ..TransportConfig::default() };
    let mut server = successor(&old, &mut client, endpoint_config(Side::Server), allowing(transport));
    let (id, first) = ask(&mut client, &config);
    assert!(first.iter().all(|datagram| header::parse(datagram, 8).unwrap().known_version() == Some(Version::V1)));
    hear(&mut server, &first);
    server.poll();
    assert_eq!((early_events(&server), read(&mut server, id)), (vec![EarlyData::Accepted], REQUEST.to_vec()));
    // Of the answer, only the first packet arrives, which tells the client the version. It has more data.
    let mut answers = said(&mut server);
    let parsed = header::parse(&answers[0], 8).unwrap();
    assert_eq!((parsed.kind, parsed.known_version()), (header::PacketType::Initial, Some(Version::V2)));
    client.receive(answers[0][..parsed.packet_len].to_vec());
    let mut conn = client.endpoint.conn(client.conn.unwrap()).unwrap();
    let second = conn.open(Dir::Bidi).unwrap();
    conn.send(second, SendData::Static(b"second"), true).unwrap();
    let more = said(&mut client);
    let early: Vec<_> = more.iter().flat_map(|datagram| packets(datagram)).collect();
    assert!(early.contains(&(header::PacketType::ZeroRtt, Version::V1)), "{early:?}");
    assert!(!early.contains(&(header::PacketType::ZeroRtt, Version::V2)), "{early:?}");
    hear(&mut server, &more);
    assert_eq!(read(&mut server, second), b"second");
    let rest = answers[0].split_off(parsed.packet_len);
    client.receive(rest);
    hear(&mut client, &answers[1..].to_vec());
    talk(&mut client, &mut server);
    assert!(is_connected(&client) && is_connected(&server));
    assert_eq!(server.endpoint.conn(server.conn.unwrap()).unwrap().version(), Version::V2);
    assert_eq!(early_events(&client), [EarlyData::Possible, EarlyData::Accepted]);
    assert_eq!(client.endpoint.stats().bytes_resent, 0);
}

/// Version 2 from the first packet: its 0-RTT keys have labels of their own (RFC 9369 §3.3.2).
#[test]
fn version_2_has_zero_rtt_as_well() {
    let both = Versions::new(&[Version::V2, Version::V1]).unwrap();
    let transport = TransportConfig { versions: both, first_version: Some(Version::V2), ..TransportConfig::default() };
    let config = ClientConfig::new(CLIENT_TLS.clone(), transport.clone()).unwrap();
    let config = config.with_sessions(8).with_early_data(true);
    let mut client = Host::idle_client();
    let mut server = server(endpoint_config(Side::Server), allowing(transport));
    visit(&mut client, &config, &mut server);
    server.events.clear();
    let (id, first) = ask(&mut client, &config);
    hear(&mut server, &first);
    server.poll();
    assert_eq!((early_events(&server), read(&mut server, id)), (vec![EarlyData::Accepted], REQUEST.to_vec()));
    talk(&mut client, &mut server);
    assert!(is_connected(&client));
}

/// RFC 9221 §3, §5: datagrams in 0-RTT packets arrive; those of a rejected attempt are lost, and reported as such.
#[test]
fn datagrams_in_zero_rtt_packets() {
    for accepts in [true, false] {
        let datagrams = || Some(DatagramConfig { report_delivery: true, ..DatagramConfig::default() });
        let transport = || TransportConfig { datagrams: datagrams(), ..TransportConfig::default() };
        let mut server = server(endpoint_config(Side::Server), allowing(transport()));
        let config = ClientConfig::new(CLIENT_TLS.clone(), transport()).unwrap();
        let config = config.with_sessions(8).with_early_data(true);
        let mut client = Host::idle_client();
        visit(&mut client, &config, &mut server);
        if !accepts {
            let endpoint = EndpointConfig { ticket_key: [9; 32].into(), ..endpoint_config(Side::Server) };
            server = successor(&server, &mut client, endpoint, allowing(transport()));
        }
        server.events.clear();
        client.events.clear();
        client.connect_with(config);
        client.poll();
        let mut conn = client.endpoint.conn(client.conn.unwrap()).unwrap();
        let max = conn.max_datagram_len().expect("0-RTT is possible");
        let id = conn.send_datagram(SendData::Bytes(vec![7; max].into()), DatagramOptions::default()).unwrap();
        talk(&mut client, &mut server);
        assert!(is_connected(&client));
        let told = |wanted: fn(&Event) -> bool| client.events.iter().any(|(_, event)| wanted(event));
        let acked = told(|event| matches!(event, Event::DatagramAcked { .. }));
        let lost = told(|event| matches!(event, Event::DatagramLost { .. }));
        assert_eq!((acked, lost), (accepts, !accepts), "{id:?}");
        let mut conn = server.endpoint.conn(server.conn.unwrap()).unwrap();
        let got = conn.take_datagram().map(|datagram| datagram.len());
        assert_eq!(got, accepts.then_some(max));
    }
}

/// Transport parameters with extensions.
fn rich(params: TransportParameters) -> TransportParameters {
    TransportParameters { max_datagram_frame_size: 1000, reset_stream_at: true, ..params }
}

/// A client with a ticket of a hostile server, the server's TLS settings, and the client's.
fn known_to_a_hostile_server() -> (Host, rustls::ServerConfig, ClientConfig) {
    let (mut client, config) = client();
    let tls = Peer::hospitable(true);
    client.connect_with(config.clone());
    let first = said(&mut client);
    let mut peer = Peer::server_on(tls.clone(), &first[0], |params| rich(params).to_bytes());
    first.iter().for_each(|datagram| peer.receive(datagram));
    exchange(&mut client, &mut peer);
    assert!(is_connected(&client));
    client.endpoint.conn(client.conn.unwrap()).unwrap().close(0, "");
    client.wait(Duration::from_secs(30));
    (client, tls, config)
}

/// Lets the client send a request to a hostile server with these settings; returns both.
fn ask_hostile(
    tls: rustls::ServerConfig,
    client: &mut Host,
    config: &ClientConfig,
    params: impl FnOnce(TransportParameters) -> Vec<u8>,
) -> (Peer, StreamId) {
    let (id, first): (StreamId, Datagrams) = ask(client, config);
    let mut peer = Peer::server_on(tls, &first[0], params);
    first.iter().for_each(|datagram| peer.receive(datagram));
    assert!(peer.early > 0);
    (peer, id)
}

/// RFC 9000 §7.4.1, RFC 9221 §3, draft-ietf-quic-reliable-stream-reset §3: a server that accepts 0-RTT does not reduce
/// what it granted before.
#[test]
fn servers_that_accept_and_reduce_limits_are_refused() {
    type Change = fn(&mut TransportParameters);
    let changes: [(Change, bool); 11] = [
        (|_| {}, true),
        (|params| params.initial_max_data += 1, true),
        (|params| params.initial_max_data -= 1, false),
        (|params| params.initial_max_stream_data_bidi_local -= 1, false),
        (|params| params.initial_max_stream_data_bidi_remote -= 1, false),
        (|params| params.initial_max_stream_data_uni -= 1, false),
        (|params| params.initial_max_streams_bidi -= 1, false),
        (|params| params.initial_max_streams_uni -= 1, false),
        (|params| params.active_connection_id_limit -= 1, false),
        (|params| params.max_datagram_frame_size -= 1, false),
        (|params| params.reset_stream_at = false, false),
    ];
    for (n, (change, fine)) in changes.into_iter().enumerate() {
        let (mut client, tls, config) = known_to_a_hostile_server();
        let (mut peer, _) = ask_hostile(tls, &mut client, &config, |params| {
            let mut params = rich(params);
            change(&mut params);
            params.to_bytes()
        });
        exchange(&mut client, &mut peer);
        let error = (!fine).then_some(TransportError::PROTOCOL_VIOLATION);
        assert_eq!(client.error(), error, "change {n}");
        let accepted = early_events(&client).contains(&EarlyData::Accepted);
        assert_eq!(accepted, fine, "change {n}");
    }
}

/// RFC 9001 §4.6.2: a server that rejects 0-RTT has not read its packets, and must not acknowledge them.
#[test]
fn servers_that_reject_and_acknowledge_are_refused() {
    for early in [true, false] {
        let (mut client, mut tls, config) = known_to_a_hostile_server();
        tls.max_early_data_size = 0;
        let (mut peer, _) = ask_hostile(tls, &mut client, &config, |params| params.to_bytes());
        exchange(&mut client, &mut peer);
        assert_eq!((early_events(&client), client.error()), (vec![EarlyData::Possible, EarlyData::Rejected], None));
        let first = peer.got[DATA].iter().next().expect("the data came again").start;
        assert!(first > 0, "0-RTT and 1-RTT packets share their numbers");
        let mut acked = RangeSet::default();
        acked.insert(if early { first - 1..first + 1 } else { first..first + 1 });
        let packet = peer.packet(DATA, &Peer::ack_of(&acked, None));
        client.receive(packet);
        client.run();
        assert_eq!(client.error(), early.then_some(TransportError::PROTOCOL_VIOLATION));
    }
}

/// RFC 9001 §4.6.1: a limit of 0-RTT data in a ticket is that of the transport parameters, and nothing else.
#[test]
fn tickets_with_limits_of_their_own_are_refused() {
    for (size, refused) in [(u32::MAX, false), (16_384, true), (u32::MAX - 1, true)] {
        let (mut client, mut peer) = against_client(TransportConfig::default());
        // Lifetime, age_add, nonce, ticket, and the extension early_data (RFC 8446 §4.6.1).
        let body = [&[0, 0, 1, 0, 7, 7, 7, 7, 1, 0, 0, 1, 5, 0, 8, 0, 42, 0, 4][..], &size.to_be_bytes()].concat();
        let ticket = [&[4, 0, 0, body.len() as u8][..], &body].concat();
        let packet = peer.packet(DATA, &frames(&[Frame::Crypto { offset: 0, data: &ticket }]));
        client.receive(packet);
        client.run();
        assert_eq!(client.error(), refused.then_some(TransportError::PROTOCOL_VIOLATION), "{size}");
    }
}

/// RFC 9001 §5.6: servers send no 0-RTT packets. Clients drop what looks like one.
#[test]
fn clients_drop_zero_rtt_packets() {
    let (mut client, tls, config) = known_to_a_hostile_server();
    let (mut peer, _) = ask_hostile(tls, &mut client, &config, |params| rich(params).to_bytes());
    let before = client.drops(DropReason::Unexpected);
    let mut packet = peer.shaped(super::peer::INITIAL, &[1; 30], Shape { first: 0x10, ..Shape::default() });
    client.receive_from(server_addr(), &mut packet);
    assert_eq!(client.drops(DropReason::Unexpected), before + 1);
    exchange(&mut client, &mut peer);
    assert!(is_connected(&client), "{:?}", client.closed());
}

/// RFC 9001 §4.5: a server that asks clients for certificates gives no tickets and takes none, as a resumed session
/// would prove nothing.
#[test]
fn servers_that_ask_for_certificates_resume_nothing() {
    let (mut client, mut open, config) = acquainted();
    assert!(visit(&mut client, &config, &mut open));
    let (chain, key) = certificate();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let options = TlsOptions { alpn: vec![b"hostile".to_vec()], ..TlsOptions::default() };
    let clients = tls::ClientAuth::optional(roots).verifier(&options).unwrap();
    let certificates = tls::Certificates::new(chain, key).unwrap();
    let asking = tls::ServerTls::new(&options, Arc::new(certificates)).with_client_verifier(clients).build().unwrap();
    let asking = ServerConfig::new(asking, TransportConfig::default()).unwrap();
    let asking = asking.with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| true));
    let mut server = successor(&open, &mut client, endpoint_config(Side::Server), asking);
    assert!(!visit(&mut client, &config, &mut server), "the ticket of a server that did not ask");
    assert_eq!(server.endpoint.stats().tickets_sent, 0);
    assert!(!visit(&mut client, &config, &mut server));
}
