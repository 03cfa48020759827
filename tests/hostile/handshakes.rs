//! Unusual handshakes: what waits forever, and what must not.

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{Dir, DropReason, Event, StreamId};
use gannet::wire::quic::frame::{Frame, StreamHeader};
use gannet::wire::quic::header::{self, PacketType};

use super::peer::{DATA, HANDSHAKE, INITIAL, Peer, STRANGE_SUITES, frames};
use super::world::{Host, client_addr, exchange, small, waiting_client};

/// Types of the packets in a datagram.
pub fn kinds(datagram: &[u8]) -> Vec<PacketType> {
    let mut kinds = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let parsed = header::parse(rest, 8).unwrap();
        kinds.push(parsed.kind);
        rest = &rest[parsed.packet_len..];
    }
    kinds
}

/// A client with Handshake keys must send a probe even if it has nothing to send: the server may have to wait for it
/// before it can send the rest of its flight (RFC 9002 §6.2.2.1). The probe used to be omitted, as there was nothing to
/// put into it.
#[test]
fn a_client_with_nothing_to_say_probes_with_handshake_packets() {
    let (mut host, mut peer) = waiting_client(small());
    // Only the ServerHello arrives.
    let hello = peer.out.iter().position(|datagram| kinds(datagram) == [PacketType::Initial]).unwrap();
    host.receive(peer.out[hello].clone());
    host.run();
    let probes = host.wait(Duration::from_secs(5));
    let handshake = probes.iter().filter(|(_, datagram)| kinds(datagram).contains(&PacketType::Handshake)).count();
    assert!((2..20).contains(&handshake), "{handshake} of {}", probes.len());
    let before = peer.packets;
    probes.iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(peer.packets >= before + handshake as u64);
}

/// A server's flight may arrive in any order. Everything but the ServerHello used to be dropped, and was missing until
/// the server's timeout.
#[test]
fn a_servers_flight_may_come_in_any_order() {
    let (mut host, mut peer) = waiting_client(small());
    let early = peer.out.len() as u64 - 1;
    assert!(early >= 1 && kinds(&peer.out[0]) == [PacketType::Initial]);
    let data = peer.packet(DATA, &frames(&[Frame::MaxData(1 << 20)]));
    host.receive(data);
    while let Some(datagram) = peer.out.pop() {
        host.receive(datagram);
    }
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(peer.is_connected());
    let stats = host.endpoint.stats();
    assert_eq!((stats.handshakes, stats.packets_kept), (1, early + 1));
    assert_eq!(stats.drops.iter().sum::<u64>(), 0);
    assert_eq!(peer.ack_delays.iter().filter(|(space, _)| *space == DATA).count(), 1, "it was read as well");
}

/// Data of a client that overtakes the end of its handshake is read when the client is authenticated, and not before.
/// The acknowledgement reports how long it was held (RFC 9000 §13.2.5).
#[test]
fn data_before_the_end_of_the_handshake_waits_for_it() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    peer.out.drain(..).for_each(|datagram| host.receive(datagram));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(peer.is_connected());
    let id = StreamId::new(Side::Client, Dir::Uni, 0);
    let mut payload = frames(&[Frame::Stream(StreamHeader { id, offset: 0, len: Some(4), fin: true })]);
    payload.extend_from_slice(b"data");
    host.receive(peer.packet(DATA, &payload));
    host.run();
    assert!(host.events.is_empty(), "nothing of it is reported: {:?}", host.events);
    host.wait(Duration::from_millis(40));
    peer.out.drain(..).for_each(|datagram| host.receive(datagram));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    let told = |wanted: fn(&Event) -> bool| host.events.iter().position(|(_, event)| wanted(event));
    let connected = told(|event| matches!(event, Event::Connected { .. }));
    let opened = told(|event| matches!(event, Event::StreamOpened { .. }));
    assert!(connected.is_some() && connected < opened, "{:?}", host.events);
    let stats = host.endpoint.stats();
    assert_eq!((stats.packets_kept, stats.drops.iter().sum::<u64>()), (1, 0));
    let delay = peer.ack_delays.iter().find(|(space, _)| *space == DATA).unwrap().1;
    assert!((40_000 >> 3..41_000 >> 3).contains(&delay), "{delay}");
}

/// Anyone who knows an ID can send what looks like early packets: a few are kept, and none for keys that cannot come.
#[test]
fn a_flood_of_early_packets_is_bounded() {
    let (mut host, mut peer) = waiting_client(small());
    for n in 0..1000_u32 {
        let mut junk = vec![0x5a; 1200];
        junk[0] = 0x40;
        junk[1..=peer.remote_cid.len()].copy_from_slice(&peer.remote_cid);
        junk[100..104].copy_from_slice(&n.to_be_bytes());
        host.receive(junk);
    }
    assert_eq!((host.endpoint.stats().packets_kept, host.drops(DropReason::NoKeys)), (10, 990));
    // The handshake continues, and the junk fails authentication.
    peer.out.drain(..).for_each(|datagram| host.receive(datagram));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(peer.is_connected() && host.closed().is_none());
    assert_eq!(host.drops(DropReason::Authentication), 10);
    // Once the handshake is confirmed, no more Handshake keys will come.
    let late = peer.packet(HANDSHAKE, &[1, 0, 0, 0]);
    host.receive(peer.packet(DATA, &frames(&[Frame::HandshakeDone])));
    host.receive(late);
    assert_eq!((host.endpoint.stats().packets_kept, host.drops(DropReason::NoKeys)), (10, 991));
}

/// RFC 9001 §4.9.1: a client discards its Initial keys when it first sends a Handshake packet, and a server when it has
/// first read one. After that, they neither read nor send Initial packets.
#[test]
fn initial_keys_are_discarded_with_the_first_handshake_packet() {
    let ping = frames(&[Frame::Ping]);
    let is_read = |host: &mut Host, datagram| {
        let before = host.endpoint.stats().rx_packets;
        host.receive(datagram);
        host.endpoint.stats().rx_packets > before
    };
    let has =
        |kind: PacketType, sent: &[(_, Vec<u8>)]| sent.iter().any(|(_, datagram)| kinds(datagram).contains(&kind));

    let (mut client, mut peer) = waiting_client(small());
    let flight = std::mem::take(&mut peer.out);
    let (hello, rest): (Vec<_>, Vec<_>) = flight.into_iter().partition(|one| kinds(one) == [PacketType::Initial]);
    hello.into_iter().for_each(|datagram| client.receive(datagram));
    assert!(!has(PacketType::Handshake, &client.run()));
    assert!(is_read(&mut client, peer.packet(INITIAL, &ping)), "it has Handshake keys, but has sent nothing");
    rest.into_iter().for_each(|datagram| client.receive(datagram));
    assert!(has(PacketType::Handshake, &client.run()));
    assert!(!is_read(&mut client, peer.packet(INITIAL, &ping)) && client.drops(DropReason::NoKeys) == 1);
    let later = client.wait(Duration::from_secs(3));
    assert!(has(PacketType::Handshake, &later) && !has(PacketType::Initial, &later));

    let mut server = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    peer.out.drain(..).for_each(|datagram| server.receive(datagram));
    server.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(is_read(&mut server, peer.packet(INITIAL, &ping)));
    assert!(has(PacketType::Initial, &server.run()));
    assert!(is_read(&mut server, peer.packet(HANDSHAKE, &ping)));
    assert!(!is_read(&mut server, peer.packet(INITIAL, &ping)) && server.drops(DropReason::NoKeys) == 1);
    let later = server.wait(Duration::from_secs(3));
    assert!(has(PacketType::Handshake, &later) && !has(PacketType::Initial, &later));
}

/// RFC 9001 §5.3: "An endpoint MUST NOT reject a ClientHello that offers a cipher suite that it does not support".
#[test]
fn cipher_suites_that_nobody_knows_are_passed_over() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), STRANGE_SUITES, |params| params.to_bytes());
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
}
