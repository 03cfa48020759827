//! Retry on the client side (RFC 9000 §17.2.5).

use gannet::crypto::retry_tag;
use gannet::quic::{CloseReason, DropReason, TransportConfig};
use gannet::wire::quic::header::{self, MAX_TOKEN};
use gannet::wire::quic::params::TransportParameters;
use gannet::wire::quic::{ConnectionId, TransportError, Version};

use super::peer::{INITIAL, Peer, Shape};
use super::world::{Host, client_addr, exchange, server_addr, small};

pub fn cid(n: u8) -> ConnectionId {
    ConnectionId::new(&[n; 8]).unwrap()
}

/// A genuine Retry for the client that sent `first`.
pub fn retry(first: &[u8], scid: ConnectionId, token: &[u8]) -> Vec<u8> {
    let parsed = header::parse(first, 8).unwrap();
    let mut out = vec![0; 60 + token.len()];
    let n = header::encode_retry(&mut out, Version::V1, &parsed.scid, &scid, token).unwrap();
    out.truncate(n);
    let tag = retry_tag(Version::V1, &parsed.dcid, &out);
    out.extend_from_slice(&tag);
    out
}

/// A token of 1160 bytes or more used to end the process, as the packet builder trusted its length.
#[test]
fn a_token_of_any_length_is_followed_or_dropped() {
    let largest = 65_000;
    let lengths = (0..=60).chain((900..1300).step_by(7)).chain([MAX_TOKEN, MAX_TOKEN + 1, 1400, 4000, largest]);
    for len in lengths {
        let mut host = Host::client(TransportConfig::default());
        let first = host.run();
        let odcid = header::parse(&first[0].1, 8).unwrap().dcid;
        // An ID of 20 bytes takes the most room.
        let scid = ConnectionId::new(&[9; 20]).unwrap();
        host.receive(retry(&first[0].1, scid, &vec![7; len]));
        let second = host.run();
        let followed = (1..=MAX_TOKEN).contains(&len);
        assert_eq!(!second.is_empty(), followed, "{len}");
        assert_eq!(host.drops(DropReason::LongToken), u64::from(len > MAX_TOKEN), "{len}");
        if !followed {
            // The server answers the first packets as if nothing had happened.
            let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
            first.iter().for_each(|(_, datagram)| peer.receive(datagram));
            exchange(&mut host, &mut peer);
            assert!(peer.is_connected() && host.closed().is_none(), "{len}");
            continue;
        }
        for (_, datagram) in &second {
            let parsed = header::parse(datagram, 8).unwrap();
            assert_eq!((parsed.dcid, parsed.token.len(), datagram.len()), (scid, len, 1200));
        }
        let params = |p| TransportParameters { retry_source_connection_id: Some(scid), ..p }.to_bytes();
        let mut peer = Peer::server_with(server_addr(), &second[0].1, cid(5), odcid, params);
        second.iter().for_each(|(_, datagram)| peer.receive(datagram));
        exchange(&mut host, &mut peer);
        assert!(peer.is_connected() && host.closed().is_none(), "{len}");
    }
}

/// A client follows one Retry, and all its Initial packets contain the token.
#[test]
fn a_client_follows_one_retry_and_keeps_its_token() {
    let mut host = Host::client(TransportConfig::default());
    let first = host.run();
    let odcid = header::parse(&first[0].1, 8).unwrap().dcid;
    host.receive(retry(&first[0].1, cid(9), b"token"));
    let mut second = host.run();
    // Neither a later one nor a copy changes anything.
    host.receive(retry(&first[0].1, cid(8), b"other"));
    host.receive(retry(&first[0].1, cid(9), b"token"));
    assert!(host.run().is_empty());
    assert_eq!(host.drops(DropReason::Unexpected), 2);
    // Retransmissions contain it as well.
    second.append(&mut host.wait(std::time::Duration::from_secs(2)));
    assert!(second.len() > first.len());
    for (_, datagram) in &second {
        let parsed = header::parse(datagram, 8).unwrap();
        assert_eq!((parsed.dcid, &datagram[parsed.token.clone()]), (cid(9), &b"token"[..]));
    }
    let params = |p| TransportParameters { retry_source_connection_id: Some(cid(9)), ..p }.to_bytes();
    let mut peer = Peer::server_with(server_addr(), &second[0].1, cid(5), odcid, params);
    // Packet numbers continue; otherwise the peer could not open the packet, as it has seen nothing of the first
    // flight.
    second.iter().for_each(|(_, datagram)| peer.receive(datagram));
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
}

#[test]
fn a_retry_that_is_not_genuine_or_too_late_is_dropped() {
    let mut host = Host::client(TransportConfig::default());
    let first = host.run();
    let parsed = header::parse(&first[0].1, 8).unwrap();
    let mut forged = retry(&first[0].1, cid(9), b"token");
    *forged.last_mut().unwrap() ^= 1;
    host.receive(forged);
    assert_eq!(host.drops(DropReason::Authentication), 1);
    host.receive(retry(&first[0].1, parsed.dcid, b"token"));
    host.receive(retry(&first[0].1, cid(9), b""));
    assert_eq!(host.drops(DropReason::Unexpected), 2, "the ID of the first packets; an empty token");
    assert!(host.run().is_empty());
    let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    peer.receive(&first[0].1);
    host.receive(peer.out.remove(0));
    host.run();
    host.receive(retry(&first[0].1, cid(9), b"token"));
    assert_eq!(host.drops(DropReason::Unexpected), 3, "after a packet of the server");
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
}

/// The server has to authenticate the ID of its Retry, and no other (RFC 9000 §7.3).
#[test]
fn a_retry_that_the_handshake_does_not_confirm_ends_the_connection() {
    for named in [None, Some(cid(7))] {
        let mut host = Host::client(TransportConfig::default());
        let first = host.run();
        let odcid = header::parse(&first[0].1, 8).unwrap().dcid;
        host.receive(retry(&first[0].1, cid(9), b"token"));
        let second = host.run();
        let params = |p| TransportParameters { retry_source_connection_id: named, ..p }.to_bytes();
        let mut peer = Peer::server_with(server_addr(), &second[0].1, cid(5), odcid, params);
        second.iter().for_each(|(_, datagram)| peer.receive(datagram));
        exchange(&mut host, &mut peer);
        let code = TransportError::TRANSPORT_PARAMETER_ERROR.0;
        assert!(matches!(host.closed(), Some(CloseReason::Transport { code: c, .. }) if *c == code), "{named:?}");
    }
}

/// A server accepts no Initial packet in a datagram below 1200 bytes, whether or not it knows the connection, and
/// whatever else is in it (RFC 9000 §14.1).
#[test]
fn short_datagrams_bring_a_server_no_initial_packets() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    peer.out.drain(..).for_each(|datagram| host.receive(datagram));
    let flight = host.run();
    let before = (host.endpoint.stats().rx_packets, host.drops(DropReason::ShortInitial));
    let ping = |peer: &mut Peer| peer.shaped(INITIAL, &[1, 0, 0, 0], Shape { unpadded: true, ..Shape::default() });
    let short = ping(&mut peer);
    host.receive(short);
    assert_eq!((host.endpoint.stats().rx_packets, host.drops(DropReason::ShortInitial)), (before.0, before.1 + 1));
    // Two of them, and one after a Handshake packet, which is accepted.
    let two = [ping(&mut peer), ping(&mut peer)].concat();
    host.receive(two);
    assert_eq!((host.endpoint.stats().rx_packets, host.drops(DropReason::ShortInitial)), (before.0, before.1 + 3));
    flight.iter().for_each(|(_, datagram)| peer.receive(datagram));
    let handshake = peer.packet(super::peer::HANDSHAKE, &[1, 0, 0, 0]);
    let mixed = [ping(&mut peer), handshake].concat();
    assert!(mixed.len() < 1200);
    host.receive(mixed);
    assert_eq!((host.endpoint.stats().rx_packets, host.drops(DropReason::ShortInitial)), (before.0 + 1, before.1 + 4));
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected());
}
