//! Datagrams of every size: what does not fit is left out, and nothing else happens.

use gannet::quic::{DropReason, TransportConfig};
use gannet::wire::quic::header::MAX_TOKEN;
use gannet::wire::quic::{ConnectionId, TransportError};

use super::peer::{INITIAL, Peer, Shape};
use super::retry::retry;
use super::world::{Host, against_server, client_addr, small};

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
