//! 0-RTT (RFC 9001 §4.6): when it is accepted, what becomes of its data, and what an attacker can do with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{
    ClientConfig, Dir, DropReason, EarlyData, EarlyDataRequest, EndpointConfig, Event, RetryPolicy, SendData,
    ServerConfig, StreamId, TransportConfig,
};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::{Frame, StreamHeader};

use super::flood::spoofed;
use super::memory::held;
use super::peer::{DATA, Peer, frames};
use super::resumption::{client, client_config, server, server_config, visit};
use super::retry_server::{Datagrams, hear, said, talk};
use super::world::{CLIENT_TLS, Host, SERVER_TLS, client_addr, endpoint_config, exchange, server_addr};

pub const REQUEST: &[u8] = &[7; 3000];

pub fn accepting() -> ServerConfig {
    server_config().with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| true))
}

/// A server that accepts 0-RTT, a client that has a ticket of it, and the client's settings.
pub fn acquainted() -> (Host, Host, ClientConfig) {
    let mut server = server(endpoint_config(Side::Server), accepting());
    let (mut client, config) = client();
    visit(&mut client, &config, &mut server);
    (client, server, config)
}

/// A server that has issued tickets to others, with these settings: what is older than that, it takes for its predecessor's.
pub fn known(mut server: Host, others: &ClientConfig) -> Host {
    visit(&mut Host::idle_client(), others, &mut server);
    server.events.clear();
    server
}

/// Starts a connection with a request as 0-RTT data; returns what the client sends.
pub fn ask(client: &mut Host, config: &ClientConfig) -> (StreamId, Datagrams) {
    client.events.clear();
    client.connect_with(config.clone());
    client.poll();
    assert_eq!(early_events(client), [EarlyData::Possible]);
    let mut conn = client.endpoint.conn(client.conn.unwrap()).unwrap();
    assert_eq!((conn.early_data(), conn.is_established()), (Some(EarlyData::Possible), false));
    let id = conn.open(Dir::Bidi).unwrap();
    conn.send(id, SendData::Static(REQUEST), true).unwrap();
    (id, said(client))
}

pub fn early_events(host: &Host) -> Vec<EarlyData> {
    let state = |event: &Event| match event {
        Event::EarlyData { state } => Some(*state),
        _ => None,
    };
    host.events.iter().filter_map(|(_, event)| state(event)).collect()
}

pub fn is_connected(host: &Host) -> bool {
    host.events.iter().any(|(_, event)| matches!(event, Event::Connected { .. }))
}

/// The bytes of a stream that can be read.
pub fn read(host: &mut Host, id: StreamId) -> Vec<u8> {
    let Some(mut conn) = host.conn.and_then(|conn| host.endpoint.conn(conn)) else { return Vec::new() };
    let mut bytes = Vec::new();
    while let Some(chunk) = conn.take(id) {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// A request that is answered before the client has completed the handshake: after one round trip.
#[test]
fn a_request_is_answered_within_the_first_round_trip() {
    let (mut client, mut server, config) = acquainted();
    server.events.clear();
    let (id, first) = ask(&mut client, &config);
    hear(&mut server, &first);
    server.poll();
    assert_eq!(early_events(&server), [EarlyData::Accepted]);
    assert!(matches!(server.events[0].1, Event::EarlyData { .. }) && !is_connected(&server));
    let mark = server.events.iter().position(|(_, event)| matches!(event, Event::EarlyBytes { until: 3000, .. }));
    let readable = server.events.iter().position(|(_, event)| matches!(event, Event::Readable { .. }));
    assert!(mark.is_some() && mark < readable);
    {
        let mut conn = server.endpoint.conn(server.conn.unwrap()).unwrap();
        assert_eq!((conn.alpn(), conn.is_established()), (Some(&b"hostile"[..]), false));
        assert_eq!(conn.early_until(id), REQUEST.len() as u64);
        assert_eq!(conn.early_until(StreamId(4)), 0);
        conn.send(id, SendData::Static(b"answer"), true).unwrap();
    }
    assert_eq!(read(&mut server, id), REQUEST);
    // The flight with the answer is acknowledged like any other.
    hear(&mut client, &said(&mut server));
    client.poll();
    assert_eq!(early_events(&client), [EarlyData::Possible, EarlyData::Accepted]);
    assert!(is_connected(&client));
    assert_eq!(read(&mut client, id), b"answer");
    talk(&mut client, &mut server);
    assert!(is_connected(&server));
    let stats = server.endpoint.stats();
    assert_eq!((stats.early_data_accepted, stats.handshakes_resumed), (1, 1));
    assert!(stats.early_packets >= 3);
    assert_eq!(client.endpoint.stats().early_data_accepted, 1);
    assert_eq!((client.endpoint.stats().lost_packets, client.endpoint.stats().bytes_resent), (0, 0));
}

/// Every reason to refuse: the data arrives once, in 1-RTT packets, on the same stream.
#[test]
fn rejected_data_is_sent_again() {
    let other_secret = EndpointConfig { ticket_key: [9; 32].into(), ..endpoint_config(Side::Server) };
    let small = TransportConfig { max_data: 1000, ..TransportConfig::default() };
    let few = TransportConfig { max_streams_bidi: 1, ..TransportConfig::default() };
    let narrow = TransportConfig { stream_window_bidi_remote: 500, ..TransportConfig::default() };
    let refusing = || server_config().with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| false));
    let with = |transport: &TransportConfig| {
        let config = ServerConfig::new(SERVER_TLS.clone(), transport.clone()).unwrap();
        config.with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| true))
    };
    let same = || endpoint_config(Side::Server);
    let cases = [
        (other_secret, accepting(), "another secret"),
        (same(), refusing(), "the application refuses"),
        (same(), server_config(), "0-RTT is off"),
        (same(), with(&small), "a lower limit"),
        (same(), with(&few), "fewer streams"),
        (same(), with(&narrow), "a smaller window"),
    ];
    for (endpoint, config, why) in cases {
        let (mut client, old, client_config) = acquainted();
        let mut server = known(server(endpoint, config), &super::resumption::client_config());
        (server.now, client.now) = (old.now, old.now);
        let (id, first) = ask(&mut client, &client_config);
        // A second stream, which some do not allow.
        let mut conn = client.endpoint.conn(client.conn.unwrap()).unwrap();
        let second = conn.open(Dir::Bidi).unwrap();
        conn.send(second, SendData::Static(b"second"), true).unwrap();
        hear(&mut server, &[first, said(&mut client)].concat());
        server.poll();
        assert_eq!((early_events(&server), server.endpoint.stats().early_packets), (vec![], 0), "{why}");
        let mut got = [Vec::new(), Vec::new()];
        for _ in 0..40 {
            talk(&mut client, &mut server);
            got[0].append(&mut read(&mut server, id));
            got[1].append(&mut read(&mut server, second));
            for conn in [server.conn].into_iter().flatten() {
                // Ends the first stream, so that the client may open another.
                if got[0].len() == REQUEST.len()
                    && let Some(mut conn) = server.endpoint.conn(conn)
                {
                    let _ = conn.finish(id);
                }
            }
            let now = server.now + Duration::from_millis(100);
            (client.now, server.now) = (now, now);
        }
        assert_eq!(early_events(&client), [EarlyData::Possible, EarlyData::Rejected], "{why}");
        assert!(client.closed().is_none() && server.closed().is_none(), "{why}: {:?}", server.closed());
        assert!(got[0] == REQUEST && got[1] == b"second", "{why}: {} and {} bytes", got[0].len(), got[1].len());
        assert_eq!(server.endpoint.stats().early_data_accepted, 0);
    }
}

/// RFC 9001 §4.6.2: a server that has rejected 0-RTT cannot have read its packets, and must not acknowledge them.
#[test]
fn an_acknowledgement_of_what_was_rejected_ends_the_connection() {
    for lies in [false, true] {
        let (mut client, _, config) = acquainted();
        let (_, first) = ask(&mut client, &config);
        // A server that does not know the ticket.
        let mut peer = Peer::server(server_addr(), &first[0], |params| params.to_bytes());
        first.iter().for_each(|datagram| peer.receive(datagram));
        exchange(&mut client, &mut peer);
        assert_eq!(early_events(&client), [EarlyData::Possible, EarlyData::Rejected]);
        assert!(peer.early > 0 && peer.is_connected());
        let mut got = peer.got[DATA].clone();
        if lies {
            got.insert(0..1);
        }
        client.receive(peer.packet(DATA, &Peer::ack_of(&got, None)));
        client.run();
        assert_eq!(client.error(), lies.then_some(TransportError::PROTOCOL_VIOLATION));
    }
}

/// A Retry does not reject 0-RTT: the data is sent again with the token (RFC 9000 §17.2.5.3).
#[test]
fn zero_rtt_survives_a_retry() {
    let (mut client, old, config) = acquainted();
    let endpoint = EndpointConfig { retry: RetryPolicy::Always, ..endpoint_config(Side::Server) };
    let mut server = known(server(endpoint, accepting()), &client_config());
    (server.now, client.now) = (old.now, old.now);
    let (id, first) = ask(&mut client, &config);
    hear(&mut server, &first);
    hear(&mut client, &said(&mut server));
    let second = said(&mut client);
    hear(&mut server, &second);
    server.poll();
    assert_eq!(early_events(&server), [EarlyData::Accepted]);
    assert_eq!(read(&mut server, id), REQUEST);
    talk(&mut client, &mut server);
    assert!(is_connected(&client) && is_connected(&server));
}

/// 0-RTT packets that overtake the ClientHello within its connection, or come late, are read.
#[test]
fn order_does_not_matter() {
    let (mut client, mut server, config) = acquainted();
    let (id, mut first) = ask(&mut client, &config);
    assert!(first.len() > 1);
    let late = first.pop().unwrap();
    hear(&mut server, &first);
    hear(&mut client, &said(&mut server));
    let rest = said(&mut client);
    hear(&mut server, &rest);
    server.poll();
    assert!(is_connected(&server));
    server.receive(late);
    assert_eq!(read(&mut server, id), REQUEST);
    // The keys are discarded after a while (RFC 9001 §4.9.3).
    let before = server.drops(DropReason::NoKeys);
    server.wait(Duration::from_secs(1));
    server.receive(first[1].clone());
    assert_eq!(server.drops(DropReason::NoKeys), before + 1);
}

/// Copies of a first flight, from wherever they come: the request is processed once (RFC 9001 §9.2). A copy costs a
/// handshake of the usual size, and nothing of it is kept when that has timed out.
#[test]
fn a_flood_of_replays_is_accepted_once() {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let policy = |_: &EarlyDataRequest<'_>| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        true
    };
    let endpoint = EndpointConfig { max_connections: 5000, max_handshakes: 5000, ..endpoint_config(Side::Server) };
    let endpoint = EndpointConfig { retry: RetryPolicy::Never, ..endpoint };
    let mut server = server(endpoint, server_config().with_early_data(Arc::new(policy)));
    let (mut client, config) = client();
    visit(&mut client, &config, &mut server);
    let (_, first) = ask(&mut client, &config);
    hear(&mut server, &first);
    let _ = said(&mut server);
    let before = server.endpoint.stats().clone();
    assert_eq!((before.early_data_accepted, ASKED.load(Ordering::Relaxed)), (1, 1));
    let (memory, mut bytes_in, mut bytes_out, mut packets) = (held(), 0, 0, 0);
    const COPIES: u64 = 2000;
    for n in 0..COPIES {
        for datagram in &first {
            bytes_in += datagram.len();
            server.receive_from(spoofed(n), &mut datagram.clone());
        }
        for (_, datagram) in server.run() {
            bytes_out += datagram.len();
            packets += 1;
        }
    }
    let grown = held() - memory;
    let stats = server.endpoint.stats();
    assert_eq!((stats.early_data_accepted, stats.early_packets), (1, before.early_packets));
    assert_eq!(stats.early_data_rejected - before.early_data_rejected, COPIES);
    assert!(bytes_out < 3 * bytes_in, "{bytes_out} for {bytes_in}");
    eprintln!(
        "{} copies: {bytes_in} bytes in, {packets} packets with {bytes_out} bytes out, {} bytes of memory each",
        COPIES,
        grown / COPIES as isize
    );
    server.wait(Duration::from_secs(60));
    assert!(server.endpoint.connection_count() <= 1);
}

/// RFC 8446 §8.2: which tickets its predecessor has accepted, a server does not know.
#[test]
fn a_server_that_begins_anew_refuses_tickets_of_its_predecessor_for_a_while() {
    for (after, accepted) in
        [(Duration::ZERO, false), (Duration::from_secs(60), false), (Duration::from_secs(300), true)]
    {
        let (mut client, old, config) = acquainted();
        let mut server = server(endpoint_config(Side::Server), accepting());
        server.now = old.now;
        // Somebody else is there first.
        let (mut other, first) = (Host::idle_client(), client_config());
        visit(&mut other, &first, &mut server);
        server.events.clear();
        server.now += after;
        client.now = server.now;
        let (_, first) = ask(&mut client, &config);
        hear(&mut server, &first);
        server.poll();
        assert_eq!(!early_events(&server).is_empty(), accepted, "after {after:?}");
    }
}

/// A resumed client with the keys of 0-RTT packets, and a server that has read its ClientHello.
fn hostile() -> (Host, Peer) {
    let mut server = server(endpoint_config(Side::Server), accepting());
    let config = Peer::resuming();
    let mut peer = Peer::client_with(client_addr(), 1, config.clone());
    exchange(&mut server, &mut peer);
    server.wait(Duration::from_secs(1)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let mut peer = Peer::client_with(spoofed(5), 2, config);
    for datagram in peer.out.drain(..).collect::<Vec<_>>() {
        server.receive_from(peer.addr, &mut datagram.clone());
    }
    server.events.clear();
    (server, peer)
}

fn hear_early(server: &mut Host, peer: &mut Peer, payload: &[u8]) {
    let mut datagram = peer.early_packet(payload);
    server.receive_from(peer.addr, &mut datagram);
    server.run();
}

/// RFC 9000 §12.4, table 3; RFC 9001 §8.3.
#[test]
fn frames_that_0rtt_packets_must_not_contain() {
    let forbidden: [Vec<u8>; 6] = [
        vec![0x02, 0, 0, 0, 0],
        frames(&[Frame::Crypto { offset: 0, data: b"x" }]),
        frames(&[Frame::HandshakeDone]),
        frames(&[Frame::NewToken { token: b"x" }]),
        frames(&[Frame::PathResponse([7; 8])]),
        frames(&[Frame::RetireConnectionId { seq: 0 }]),
    ];
    for payload in forbidden {
        let (mut server, mut peer) = hostile();
        // The server acknowledges them in a 1-RTT packet, whose acknowledgement has to come in one, too.
        (0..2).for_each(|_| hear_early(&mut server, &mut peer, &frames(&[Frame::Ping])));
        assert_eq!(server.error(), None);
        hear_early(&mut server, &mut peer, &payload);
        assert_eq!(server.error(), Some(TransportError::PROTOCOL_VIOLATION), "frame 0x{:02x}", payload[0]);
    }
    let allowed = frames(&[Frame::Ping, Frame::MaxData(1 << 41), Frame::PathChallenge([7; 8])]);
    let (mut server, mut peer) = hostile();
    hear_early(&mut server, &mut peer, &allowed);
    assert_eq!((server.error(), server.endpoint.stats().early_packets), (None, 1));
}

/// RFC 9000 §17.2.3: the limits that the server set hold for 0-RTT data.
#[test]
fn limits_hold_for_0rtt_data() {
    let header = StreamHeader { id: StreamId(0), offset: 1 << 30, len: Some(1), fin: false };
    let beyond = [frames(&[Frame::Stream(header)]), vec![7]].concat();
    let (mut server, mut peer) = hostile();
    hear_early(&mut server, &mut peer, &beyond);
    assert_eq!(server.error(), Some(TransportError::FLOW_CONTROL_ERROR));
    let header = StreamHeader { id: StreamId(4 * 1000), offset: 0, len: Some(1), fin: false };
    let (mut server, mut peer) = hostile();
    hear_early(&mut server, &mut peer, &[frames(&[Frame::Stream(header)]), vec![7]].concat());
    assert_eq!(server.error(), Some(TransportError::STREAM_LIMIT_ERROR));
}

/// RFC 9001 §5.6: sessions are resumed without 0-RTT unless the application wants it.
#[test]
fn a_client_that_does_not_ask_sends_no_0rtt() {
    let mut server = server(endpoint_config(Side::Server), accepting());
    let mut client = Host::idle_client();
    let config = ClientConfig::new(CLIENT_TLS.clone(), TransportConfig::default()).unwrap().with_sessions(8);
    assert!(!visit(&mut client, &config, &mut server) && visit(&mut client, &config, &mut server));
    assert!(early_events(&client).is_empty());
    assert_eq!((server.endpoint.stats().early_data_accepted, server.endpoint.stats().early_data_rejected), (0, 0));
}

/// Without a ticket there is no 0-RTT, and the application is not asked.
#[test]
fn strangers_cannot_send_0rtt() {
    let mut server = server(endpoint_config(Side::Server), accepting());
    let (mut client, _) = client();
    client.connect_with(client_config());
    client.poll();
    assert!(early_events(&client).is_empty());
    assert!(client.endpoint.conn(client.conn.unwrap()).unwrap().open(Dir::Bidi).is_err());
    hear(&mut server, &said(&mut client));
    talk(&mut client, &mut server);
    assert!(is_connected(&client) && server.endpoint.stats().early_data_rejected == 0);
}
