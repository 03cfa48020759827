//! Handshakes that do not go the usual way: what waits for ever, and what must not.

use std::time::Duration;

use gannet::wire::quic::header::{self, PacketType};

use super::peer::Peer;
use super::world::{Host, server_addr, small};

/// Kinds of the packets in a datagram.
fn kinds(datagram: &[u8]) -> Vec<PacketType> {
    let mut kinds = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let parsed = header::parse(rest, 8).unwrap();
        kinds.push(parsed.kind);
        rest = &rest[parsed.packet_len..];
    }
    kinds
}

/// A client that has Handshake keys and nothing to send still has to: the server may have to wait for it before it can
/// send the rest of its flight (RFC 9002 §6.2.2.1). The probe was not sent, as there was nothing to put into it.
#[test]
fn a_client_with_nothing_to_say_probes_with_handshake_packets() {
    let mut host = Host::client(small());
    let first = host.run();
    let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    first.iter().for_each(|(_, datagram)| peer.receive(datagram));
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
