//! Stateless resets that look like packets of the connection, and what is left to say after one (RFC 9000 §10.3).

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::CloseReason;
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::frame::Frame;

use super::peer::{DATA, Peer, frames};
use super::world::{Host, addr, against_client, endpoint_config, own_id, small};

const TOKEN: [u8; 16] = [1; 16];

/// A connected client, whose server has given its ID a reset token.
fn client() -> (Host, Peer) {
    let (mut host, mut peer) = against_client(small());
    let cid = ConnectionId::new(&[1; 8]).unwrap();
    let frame = Frame::NewConnectionId { seq: 1, retire_prior_to: 1, cid, reset_token: TOKEN };
    let datagram = peer.packet(DATA, &frames(&[frame]));
    host.receive(datagram);
    host.wait(Duration::from_millis(50)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    (host, peer)
}

/// Datagrams to the connection ID `dcid` that nobody can read, in every form that a version may give them.
fn unreadable(dcid: &ConnectionId) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    // From the shortest that is a reset at all, some of them too short for a header protection sample.
    for len in [1 + dcid.len() + 16, 28, 30, 31, 42, 1200] {
        let mut datagram = vec![0x41; len - 16];
        datagram[1..=dcid.len()].copy_from_slice(dcid);
        all.push((format!("a short header, {len} bytes"), datagram));
    }
    let kinds = [("Initial", 0xc3, 1u32), ("0-RTT", 0xd3, 1), ("Handshake", 0xe3, 1), ("Retry", 0xf3, 1)];
    for (name, first, version) in kinds.into_iter().chain([("of another version", 0xc3, 7), ("negotiating", 0xc3, 0)]) {
        let mut datagram = vec![first];
        datagram.extend_from_slice(&version.to_be_bytes());
        datagram.push(dcid.len() as u8);
        datagram.extend_from_slice(dcid);
        datagram.extend_from_slice(&[4, 9, 9, 9, 9]);
        if first == 0xc3 && version == 1 {
            datagram.push(0);
        }
        if version == 1 && first != 0xf3 {
            // What follows, with the token.
            datagram.push(40);
        }
        datagram.extend_from_slice(&[7; 24]);
        all.push((format!("a long header, {name}"), datagram));
    }
    all
}

/// RFC 9000 §10.3: "endpoints MUST treat any packet ending in a valid stateless reset token as a Stateless Reset, as
/// other QUIC versions might allow the use of a long header"; §10.3.1: whenever "the first packet in an incoming
/// datagram either cannot be associated with a connection or cannot be decrypted". Until 2026-11, packets with our
/// connection ID were only compared if they had a short header and were long enough to be opened.
#[test]
fn what_cannot_be_read_and_ends_in_the_token_is_a_reset() {
    let (host, peer) = client();
    drop(host);
    for (name, start) in unreadable(&peer.remote_cid) {
        let (mut host, _) = client();
        for token in [[2; 16], TOKEN] {
            assert!(host.closed().is_none(), "{name}: the token is another");
            host.receive([&start[..], &token].concat());
            host.run();
        }
        assert_eq!(host.closed(), Some(&CloseReason::StatelessReset), "{name}");
        assert!(host.wait(Duration::from_secs(60)).is_empty(), "{name}: nothing is sent after a reset");
        assert_eq!(host.endpoint.connection_count(), 0);
    }
}

/// RFC 9000 §10.3: a packet that is genuine is none, whatever the datagram ends in.
#[test]
fn a_datagram_that_can_be_read_is_no_reset() {
    let (mut host, mut peer) = client();
    let datagram = peer.packet(DATA, &[0x01, 0, 0, 0]);
    let before = host.endpoint.stats().rx_packets;
    host.receive(datagram);
    host.run();
    assert!(host.closed().is_none() && host.endpoint.stats().rx_packets == before + 1);
}

/// RFC 9000 §10.3.1: "the endpoint MUST enter the draining period and not send any further packets on this connection".
/// Until 2026-11, a connection that was being closed went on repeating its close.
#[test]
fn a_reset_ends_a_connection_that_is_being_closed() {
    for known in [false, true] {
        let (mut host, mut peer) = client();
        let conn = host.conn.unwrap();
        host.endpoint.conn(conn).unwrap().close(7, "enough");
        assert_eq!(host.run().len(), 1);
        let mut reset = vec![0x41; 26];
        if known {
            reset[1..=peer.remote_cid.len()].copy_from_slice(&peer.remote_cid);
        }
        reset.extend_from_slice(&TOKEN);
        host.receive(reset);
        assert!(host.run().is_empty(), "no answer to the reset");
        assert_eq!(host.endpoint.draining_count(), 1);
        for _ in 0..5 {
            let datagram = peer.packet(DATA, &[0x01]);
            host.receive(datagram);
            assert!(host.wait(Duration::from_millis(30)).is_empty(), "nothing is said while draining");
        }
        let ends = host.events.iter().filter(|(_, event)| matches!(event, gannet::quic::Event::Closed { .. })).count();
        assert_eq!((ends, host.closed()), (1, Some(&CloseReason::Local { code: 7 })));
        host.wait(Duration::from_secs(10));
        assert_eq!(host.endpoint.connection_count(), 0);
    }
}

/// RFC 9000 §10.3: a reset is a packet with a short header whose other bits are random; it is smaller than its cause
/// (§10.3.3), by one byte if that is short, and ends in the token of the ID. What is too short for a packet is not
/// answered.
#[test]
fn resets_look_like_packets_and_are_smaller_than_their_cause() {
    let config = endpoint_config(Side::Server);
    let id = own_id(&config, 5, 5, 5);
    let mut host = Host::server_with(config, small());
    let mut seen = std::collections::HashSet::new();
    let mut token = None;
    for len in (18..60).chain([1000, 1472]) {
        let mut datagram = vec![0x41; len];
        datagram[1..=id.len()].copy_from_slice(&id);
        host.receive_from(addr(Side::Client), &mut datagram);
        let out = host.run();
        if len <= 21 {
            assert!(out.is_empty(), "{len} bytes");
            continue;
        }
        let [(_, reset)] = &out[..] else { panic!("{} answers to {len} bytes", out.len()) };
        assert_eq!(reset.len(), if len <= 43 { len - 1 } else { 42 }, "for {len} bytes");
        assert_eq!(reset[0] & 0xc0, 0x40, "the form of a short header");
        let end = reset.last_chunk::<16>().copied();
        assert_eq!(*token.get_or_insert(end), end, "one token for one ID");
        seen.insert(reset[0] & 0x3f);
    }
    assert!(seen.len() > 15, "the rest of the first byte has {} values", seen.len());
}
