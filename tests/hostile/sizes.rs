//! Datagrams of every size: what does not fit is left out, and nothing else happens.

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{CidConfig, Dir, DropReason, EndpointConfig, SendData, TransportConfig};
use gannet::wire::quic::header::MAX_TOKEN;
use gannet::wire::quic::{ConnectionId, TransportError};

use super::peer::{DATA, INITIAL, Peer, Shape};
use super::retry::retry;
use super::world::{Host, against_server, client_addr, endpoint_config, exchange, small};

/// A close by a client fits even beside the longest token.
#[test]
fn a_close_fits_beside_the_longest_token() {
    let mut host = Host::client(TransportConfig::default());
    let first = host.run();
    host.receive(retry(&first[0].1, ConnectionId::new(&[9; 20]).unwrap(), &[7; MAX_TOKEN]));
    host.run();
    let id = host.conn.unwrap();
    host.endpoint.conn(id).unwrap().close(u64::MAX, &"long ".repeat(100));
    let last = host.run();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].1.len(), 1200, "a server takes no Initial packet in less");
}

/// A code above 2^62-1, which has no encoding, used to end the process.
#[test]
fn an_endpoint_may_close_with_any_code() {
    let (mut host, mut peer) = against_server(small());
    host.endpoint.close_all(u64::MAX, &"long ".repeat(100));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    let close = peer.close.unwrap();
    assert_eq!((close.application, close.code), (true, TransportError((1 << 62) - 1)));
}

/// It used to be lost without being counted.
#[test]
fn an_answer_that_does_not_fit_is_counted() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    peer.out.clear();
    let foreign = peer.shaped(INITIAL, &[1], Shape { version: Some(0x1a2a_3a4a), ..Shape::default() });
    host.receive(foreign.clone());
    assert_eq!(host.endpoint.poll_transmit(host.now, &mut [0; 20]), None);
    assert_eq!(host.drops(DropReason::Overload), 1);
    host.receive(foreign);
    assert_eq!(host.run().len(), 1);
    assert_eq!(host.drops(DropReason::Overload), 1);
}

/// Connections send less, or nothing, into slots that are too small.
#[test]
fn slots_of_any_size_bring_nobody_down() {
    for size in (0..1300).step_by(13) {
        let (mut server, mut peer) = against_server(small());
        let ping = peer.packet(super::peer::DATA, &[1, 0, 0, 0]);
        server.receive(ping);
        let mut client = Host::client(TransportConfig::default());
        for host in [&mut server, &mut client] {
            for _ in 0..2 {
                while let Some(transmit) = host.endpoint.poll_transmit(host.now, &mut vec![0; size]) {
                    assert!(transmit.len <= size);
                }
                host.endpoint.close_all(1, &"long ".repeat(100));
            }
        }
    }
}

/// RFC 9000 §10.3: "the endpoint SHOULD ensure that all packets it sends are at least 22 bytes longer than the minimum
/// connection ID length that it requests the peer to include in its packets". Otherwise, a peer that has lost its state
/// cannot answer with a reset that looks like a packet to us. Until 2026-11, packets to peers with shorter IDs than ours
/// were shorter. ACKs get there without padding, which would count as in flight.
#[test]
fn packets_are_long_enough_to_be_answered_with_a_reset() {
    for len in [10, 13, 19] {
        let endpoint = EndpointConfig { cid: CidConfig::unrouted(len).unwrap(), ..endpoint_config(Side::Server) };
        let keep_alive = Some(Duration::from_secs(1));
        let mut host = Host::server_with(endpoint, TransportConfig { keep_alive, ..TransportConfig::default() });
        let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
        exchange(&mut host, &mut peer);
        let conn = host.conn.unwrap();
        let mut sizes = Vec::new();
        let mut listen = |host: &mut Host, peer: &mut Peer, ms| {
            for (_, datagram) in host.wait(Duration::from_millis(ms)) {
                peer.receive(&datagram);
                assert!(datagram.len() >= len + 22, "{} bytes for IDs of {len}", datagram.len());
                sizes.push(datagram.len());
            }
        };
        for _ in 0..3 {
            let ack = peer.ack(DATA);
            let datagram = peer.packet(DATA, &ack);
            host.receive(datagram);
            listen(&mut host, &mut peer, 100);
        }
        let ack = peer.ack(DATA);
        let datagram = peer.packet(DATA, &ack);
        host.receive(datagram);
        // Nothing but acknowledgements, which the peer does not acknowledge.
        let (before, told) = (peer.packets, peer.told.len());
        for _ in 0..20 {
            let datagram = peer.packet(DATA, &[0x01, 0, 0, 0]);
            host.receive(datagram);
            listen(&mut host, &mut peer, 30);
        }
        assert!(peer.packets > before + 10 && peer.told.len() == told);
        assert_eq!(host.endpoint.conn(conn).unwrap().stats().bytes_in_flight, 0, "ACKs are not in flight");
        // A PING, a byte of a stream, a close.
        listen(&mut host, &mut peer, 1500);
        assert!(peer.told.len() > told, "no PING");
        let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
        host.endpoint.conn(conn).unwrap().send(id, SendData::Static(b"x"), false).unwrap();
        listen(&mut host, &mut peer, 0);
        assert_eq!(peer.stream_bytes, 1);
        host.endpoint.conn(conn).unwrap().close(0, "");
        listen(&mut host, &mut peer, 0);
        assert!(peer.close.is_some());
    }
}
