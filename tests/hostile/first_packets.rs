//! The first packets of a connection, and those that lead to none: connection IDs of the handshake (RFC 9000 §7.2), what a
//! server does with packets of strangers (§5.2.2), several packets in a datagram (§12.2), transport parameters (§18.2).

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{CloseReason, Dir, DropReason, EndpointConfig, Event, RetryPolicy, StreamId, TransportConfig};
use gannet::wire::quic::frame::{Frame, StreamHeader};
use gannet::wire::quic::header::{self, PacketType};
use gannet::wire::quic::{ConnectionId, TransportError, Version};

use super::peer::{DATA, HANDSHAKE, INITIAL, Peer, Shape, frames};
use super::retry::{cid, retry};
use super::world::{
    Host, against_client, against_server, client_addr, endpoint_config, exchange, greeted, server_addr, small,
    waiting_client,
};

const PING: [u8; 4] = [1, 0, 0, 0];

fn from(scid: ConnectionId) -> Shape {
    Shape { scid: Some(scid), unpadded: true, ..Shape::default() }
}

/// The number of packets that the host has accepted, and of those that it dropped as unexpected.
fn taken(host: &Host) -> (u64, u64) {
    (host.endpoint.stats().rx_packets, host.drops(DropReason::Unexpected))
}

/// "Until a packet is received from the server, the client MUST use the same Destination Connection ID value on all
/// packets in this connection." It has at least 8 bytes, and nobody can predict it.
#[test]
fn a_client_keeps_to_the_id_that_it_chose_until_it_hears_from_the_server() {
    let mut host = Host::client(TransportConfig { handshake_timeout: Duration::from_secs(20), ..small() });
    let mut chosen = Vec::new();
    for _ in 0..2 {
        let sent = host.wait(Duration::from_secs(5));
        assert!(sent.len() >= 3, "it has asked again");
        let ids: Vec<_> = sent.iter().map(|(_, datagram)| header::parse(datagram, 8).unwrap().dcid).collect();
        assert!(ids[0].len() >= 8 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert!(!chosen.contains(&ids[0]));
        chosen.push(ids[0]);
        let conn = host.conn.unwrap();
        host.endpoint.conn(conn).unwrap().close(0, "");
        host.wait(Duration::from_secs(20));
        host.connect(small());
    }
}

/// "Once a client has received a valid Initial packet from the server, it MUST discard any subsequent packet it receives
/// on that connection with a different Source Connection ID." Until 2026-11, it read Handshake packets with any.
#[test]
fn the_servers_id_is_that_of_its_first_packet() {
    let (mut host, mut peer) = waiting_client(small());
    // It comes before the first packet, so it is kept, and recognised later.
    let early = peer.shaped(HANDSHAKE, &PING, from(cid(7)));
    host.receive(early);
    assert_eq!(host.endpoint.stats().packets_kept, 1);
    host.receive(peer.out.remove(0));
    assert_eq!(taken(&host), (1, 1));
    for space in [INITIAL, HANDSHAKE] {
        let datagram = peer.shaped(space, &PING, from(cid(7)));
        host.receive(datagram);
    }
    assert_eq!(taken(&host), (1, 3));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
    // All packets since then are for the ID of the first one, which the peer checks, too.
    let mut later = peer.dcids.iter().skip_while(|id| **id == peer.original_dcid).peekable();
    assert!(later.peek().is_some() && later.all(|id| *id == peer.local_cid), "{:?}", peer.dcids);
}

/// The same for a server, which sets its destination by the first packet of the client.
#[test]
fn the_clients_id_is_that_of_its_first_packet() {
    let (mut host, mut peer) = greeted(small());
    let before = taken(&host);
    for space in [INITIAL, HANDSHAKE] {
        let datagram = peer.shaped(space, &PING, Shape { scid: Some(cid(7)), ..Shape::default() });
        host.receive(datagram);
    }
    assert_eq!(taken(&host), (before.0, before.1 + 2));
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && peer.dcids.iter().all(|id| *id == peer.local_cid));
}

/// "Initial packets sent by the server MUST set the Token Length field to 0; clients that receive an Initial packet with a
/// non-zero Token Length field MUST either discard the packet or generate a connection error". Until 2026-11, they were
/// read.
#[test]
fn a_packet_of_a_server_with_a_token_is_dropped() {
    let (mut host, mut peer) = waiting_client(small());
    let datagram = peer.shaped(INITIAL, &PING, Shape { token: b"token", ..Shape::default() });
    host.receive(datagram);
    assert_eq!(taken(&host), (0, 1));
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected());
}

/// "If a client receives a packet that uses a different version than it initially selected, it MUST discard that packet."
/// The same for packets of a server's connection. Until 2026-11, an Initial packet of an unknown version was read as if it
/// were of version 1; anyone can make one.
#[test]
fn packets_of_another_version_are_not_read() {
    let (client, server) = (waiting_client(small()), greeted(small()));
    for (mut host, mut peer) in [client, server] {
        let before = host.endpoint.stats().rx_packets;
        let shape = Shape { version: Some(0x1a2a_3a4a), ..Shape::default() };
        let datagram = peer.shaped(INITIAL, &PING, shape);
        host.receive(datagram.clone());
        // Behind another packet as well.
        let first = peer.shaped(INITIAL, &PING, Shape { unpadded: true, ..Shape::default() });
        host.receive([first, datagram].concat());
        assert_eq!(host.endpoint.stats().rx_packets, before + 1, "{:?}", host.side);
        exchange(&mut host, &mut peer);
        assert!(peer.is_connected() && host.closed().is_none(), "{:?}", host.closed());
    }
}

/// Each packet of a datagram is processed and acknowledged as if it were alone, whatever becomes of the others; those for
/// another ID are ignored. Until 2026-11, one for another ID hid those behind it.
#[test]
fn packets_of_one_datagram_are_taken_one_by_one() {
    let (mut host, mut peer) = greeted(small());
    let before = host.endpoint.stats().rx_packets;
    let short = Shape { unpadded: true, ..Shape::default() };
    let first = peer.pn[INITIAL];
    let mut forged = peer.shaped(INITIAL, &PING, short);
    *forged.last_mut().unwrap() ^= 1;
    let parts = [
        peer.shaped(INITIAL, &PING, short),
        peer.shaped(INITIAL, &PING, Shape { dcid: Some(cid(9)), ..short }),
        forged,
        peer.shaped(HANDSHAKE, &PING, short),
        peer.shaped(INITIAL, &PING, Shape::default()),
    ];
    // The Handshake packet would end the Initial packets.
    let initials = [&parts[0][..], &parts[1], &parts[2], &parts[4]].concat();
    host.receive(initials);
    assert_eq!(host.endpoint.stats().rx_packets, before + 2);
    assert_eq!((host.drops(DropReason::Malformed), host.drops(DropReason::Authentication)), (1, 1));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    let acked: Vec<_> = (first..peer.pn[INITIAL]).filter(|pn| peer.acked_all[INITIAL].contains(*pn)).collect();
    assert_eq!(acked, [first + 1, first + 3]);
    host.receive(parts[3].clone());
    // Of two number spaces: the end of the handshake, and data behind it.
    let id = StreamId::new(Side::Client, Dir::Uni, 0);
    let mut data = frames(&[Frame::Stream(StreamHeader { id, offset: 0, len: Some(1), fin: true })]);
    data.push(7);
    let data = peer.packet(DATA, &data);
    let both = [peer.out.drain(..).collect::<Vec<_>>().concat(), data].concat();
    host.receive(both);
    host.wait(Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(host.events.iter().any(|(_, event)| matches!(event, Event::Readable { .. })), "{:?}", host.events);
    assert!(peer.acked_all[DATA].contains(0));
}

/// "Duplicate suppression MUST happen after removing packet protection": what is not authentic says nothing about a
/// packet number.
#[test]
fn a_forged_copy_does_not_take_the_place_of_a_packet() {
    let (mut host, mut peer) = against_server(small());
    let real = peer.packet(DATA, &PING);
    let mut forged = real.clone();
    *forged.last_mut().unwrap() ^= 1;
    let before = host.endpoint.stats().rx_packets;
    for datagram in [&forged, &real, &real, &forged] {
        host.receive(datagram.clone());
    }
    assert_eq!(host.endpoint.stats().rx_packets, before + 1);
    assert_eq!((host.drops(DropReason::Authentication), host.drops(DropReason::Duplicate)), (2, 1));
}

/// A packet of another version that is long enough is answered, once for the datagram, and with the IDs that it came with,
/// whatever their lengths (RFC 9000 §5.2.2, §17.2.1).
#[test]
fn other_versions_are_answered_if_they_bring_enough() {
    let other = |ids: [usize; 2], len: usize| {
        let mut datagram = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a];
        for (n, id) in ids.into_iter().enumerate() {
            datagram.push(id as u8);
            datagram.extend(vec![n as u8 + 1; id]);
        }
        datagram.resize(len, 0);
        datagram
    };
    for ids in [[8, 8], [0, 0], [3, 20], [21, 255], [255, 255]] {
        let mut host = Host::server(small());
        host.receive(other(ids, 1199));
        assert!(host.run().is_empty(), "smaller packets are dropped");
        host.receive(other(ids, 1200));
        let answers = host.run();
        assert_eq!(answers.len(), 1);
        let answer = &answers[0].1;
        assert_eq!((answer[0] & 0x80, &answer[1..5]), (0x80, &[0; 4][..]));
        let (dcid, scid) = header::raw_cids(answer).unwrap();
        assert_eq!((dcid, scid), (&vec![2; ids[1]][..], &vec![1; ids[0]][..]));
        assert!(header::versions(answer).any(|version| version == 1) && answer.len() < 1200);
        assert_eq!(host.endpoint.connection_count(), 0);
    }
    // Two such packets in a datagram, as far as that can be told, get one answer.
    let mut host = Host::server(small());
    host.receive([other([8, 8], 1200), other([8, 8], 1200)].concat());
    assert_eq!(host.run().len(), 1);
}

/// "Servers MUST drop incoming packets under all other circumstances."
#[test]
fn what_begins_no_connection_is_dropped_by_a_server() {
    let (mut other, mut peer) = greeted(small());
    let handshake = peer.packet(HANDSHAKE, &PING);
    let mut client = Peer::client(client_addr(), 5, |params| params.to_bytes());
    let initial = client.out.remove(0);
    let zero_rtt = {
        let mut datagram = initial.clone();
        datagram[0] = datagram[0] & !0x30 | 0x10;
        datagram
    };
    let short_id = {
        client.begin_with(ConnectionId::new(&[5; 7]).unwrap());
        client.packet(INITIAL, &PING)
    };
    let retry = retry(&initial, cid(5), b"token");
    let mut negotiation = vec![0; 100];
    let len = header::encode_version_negotiation(&mut negotiation, 0, &cid(5), &cid(6), &[1]).unwrap();
    negotiation.truncate(len);
    let strange = [
        ("a Handshake packet", handshake),
        ("a 0-RTT packet", zero_rtt),
        ("a Retry", retry),
        ("a Version Negotiation packet", negotiation),
        ("an Initial packet in a small datagram", initial[..1199].to_vec()),
        ("an Initial packet to an ID of 7 bytes", short_id),
        ("a 1-RTT packet", [&[0x41][..], &[5; 1299]].concat()),
        ("without the fixed bit", [&[initial[0] & !0x40][..], &initial[1..]].concat()),
        ("an ID of 21 bytes", [&[0xc0, 0, 0, 0, 1, 21][..], &[5; 1300]].concat()),
        ("a source ID of 21 bytes", [&[0xc0, 0, 0, 0, 1, 8][..], &[5; 8], &[21], &[5; 1300]].concat()),
    ];
    for (name, datagram) in strange {
        let mut host = Host::server(small());
        host.receive(datagram);
        assert!(host.run().is_empty(), "{name} is answered");
        assert_eq!(host.endpoint.connection_count(), 0, "{name}");
        assert_eq!(host.endpoint.stats().drops.iter().sum::<u64>(), 1, "{name}");
    }
    exchange(&mut other, &mut peer);
    assert!(peer.is_connected());
}

/// "If a server refuses to accept a new connection, it SHOULD send an Initial packet containing a CONNECTION_CLOSE frame
/// with error code CONNECTION_REFUSED." Until 2026-11, a server with as many connections as it may have was silent.
#[test]
fn a_client_that_is_not_served_is_told() {
    for full in [false, true] {
        let config = EndpointConfig { max_connections: 1, retry: RetryPolicy::Never, ..endpoint_config(Side::Server) };
        let mut host = Host::server_with(config, small());
        if full {
            let mut first = Peer::client(client_addr(), 1, |params| params.to_bytes());
            exchange(&mut host, &mut first);
            assert!(first.is_connected());
        } else {
            host.endpoint.stop_accepting();
        }
        let mut peer = Peer::client(client_addr(), 2, |params| params.to_bytes());
        host.receive(peer.out.remove(0));
        let answers = host.run();
        assert_eq!(answers.len(), 1);
        peer.receive(&answers[0].1);
        let close = peer.close.expect("it is told");
        assert_eq!((close.code, close.application), (TransportError::CONNECTION_REFUSED, false), "full: {full}");
        assert_eq!(host.drops(if full { DropReason::Overload } else { DropReason::Refused }), 1);
        assert_eq!(host.endpoint.connection_count(), usize::from(full));
    }
}

/// Both ends announce what they may, and nothing else; `max_ack_delay` includes the time by which timers may be late (RFC
/// 9000 §18.2). Until 2026-11, it did not.
#[test]
fn what_is_announced_is_allowed_and_kept() {
    let delay = Duration::from_millis(25);
    let config = || TransportConfig { max_ack_delay: delay, ..small() };
    // [`Peer::params`] refuses parameters that only servers may send, and those that occur twice.
    let (_, peer) = against_client(config());
    let client = peer.params();
    let (mut host, mut peer) = against_server(config());
    let server = peer.params();
    for params in [&client, &server] {
        assert_eq!(params.max_ack_delay, 26);
        assert!(params.active_connection_id_limit >= 2 && params.ack_delay_exponent <= 20);
        assert!(params.max_udp_payload_size >= 1200 && params.initial_max_streams_bidi == 3);
    }
    assert!(client.original_destination_connection_id.is_none() && client.stateless_reset_token.is_none());
    assert_eq!(server.original_destination_connection_id, Some(peer.original_dcid));
    assert!(server.stateless_reset_token.is_some() && server.retry_source_connection_id.is_none());
    // Acknowledgements come before that, even with the ticks of the timer wheel.
    host.wait(Duration::from_secs(1)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let acks = peer.ack_delays.len();
    let ping = peer.packet(DATA, &PING);
    host.receive(ping);
    let came = host.now;
    while peer.ack_delays.len() == acks {
        host.now = host.endpoint.next_timeout().unwrap().max(host.now);
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
    let took = host.now.saturating_since(came);
    assert!(took < Duration::from_millis(server.max_ack_delay), "{took:?}");
    let longest = TransportConfig { max_ack_delay: Duration::from_millis((1 << 14) - 1), ..small() };
    assert_eq!(against_server(longest).1.params().max_ack_delay, (1 << 14) - 1);
}

/// "endpoints MUST increase the idle timeout period to be at least three times the current Probe Timeout" (RFC 9000
/// §10.1).
#[test]
fn the_idle_timeout_leaves_time_for_three_probes() {
    let config = TransportConfig { max_idle_timeout: Duration::from_millis(10), ..small() };
    let mut host = Host::client(config);
    // The probe timeout before a first round trip is 999 ms.
    let sent = host.wait(Duration::from_millis(2900));
    assert!(host.closed().is_none() && sent.len() >= 3, "{:?}", host.closed());
    host.wait(Duration::from_millis(200));
    assert_eq!(host.closed(), Some(&CloseReason::IdleTimeout));
}

/// "A server MUST NOT send more than one Retry packet in response to a single UDP datagram." Its ID is not the one that
/// the client has chosen.
#[test]
fn one_datagram_gets_one_retry_with_another_id() {
    let config = EndpointConfig { retry: RetryPolicy::Always, ..endpoint_config(Side::Server) };
    let mut host = Host::server_with(config, small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    let initial = peer.out.remove(0);
    host.receive([initial.clone(), initial.clone()].concat());
    let answers = host.run();
    let [(_, retry)] = &answers[..] else { panic!("{} answers", answers.len()) };
    let (asked, retry) = (header::parse(&initial, 8).unwrap(), header::parse(retry, 8).unwrap());
    assert_eq!((retry.kind, retry.dcid), (PacketType::Retry, asked.scid));
    assert_ne!(retry.scid, asked.dcid);
}

/// A client's first flight after a Retry: the same words, from the same ID, in packets with other numbers (RFC 9000
/// §17.2.5.2, §17.2.5.3); the unused bits of the Retry mean nothing.
#[test]
fn after_a_retry_a_client_says_the_same_in_other_packets() {
    for unused in [0x00, 0x0f, 0x05] {
        let mut host = Host::client(small());
        let first = host.run();
        let asked = header::parse(&first[0].1, 8).unwrap();
        let mut retry = retry(&first[0].1, cid(9), b"token");
        retry.truncate(retry.len() - 16);
        retry[0] = retry[0] & 0xf0 | unused;
        let tag = gannet::crypto::retry_tag(Version::V1, &asked.dcid, &retry);
        host.receive([&retry[..], &tag].concat());
        let second = host.run();
        let again = header::parse(&second[0].1, 8).unwrap();
        assert_eq!((again.scid, again.dcid), (asked.scid, cid(9)));
        let read = |flight: &[(gannet::quic::Transmit, Vec<u8>)]| {
            let mut peer = Peer::server(server_addr(), &flight[0].1, |params| params.to_bytes());
            flight.iter().for_each(|(_, datagram)| peer.receive(datagram));
            let numbers: Vec<_> = peer.got[INITIAL].iter().flatten().collect();
            (peer.heard[INITIAL].clone(), numbers)
        };
        let ((words, numbers), (same, others)) = (read(&first), read(&second));
        assert!(!words.is_empty() && words == same);
        assert!(others.iter().all(|pn| numbers.iter().all(|before| before < pn)), "{numbers:?}, {others:?}");
    }
}
