//! Closing: for how long peers are informed, and who need not wait for that (RFC 9000 §10).

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::CloseReason;
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::Frame;

use super::peer::{Close, DATA, HANDSHAKE, INITIAL, NO_ALPN, Peer, frames};
use super::world::{
    Host, against_client, against_server, client_addr, exchange, greeted, server_addr, small, waiting_client,
};

const PING: [u8; 1] = [0x01];

/// The probe timeout of these hosts, whose peers answer immediately: 1 ms, and the peer's 25 ms.
const PTO: Duration = Duration::from_millis(26);

/// Three probe timeouts for a round trip of 10 ms, measured once: three times that and the peer's 25 ms each.
const WAIT: Duration = Duration::from_millis(3 * (3 * 10 + 25));

/// Closes the host's connection.
fn close(host: &mut Host) {
    let id = host.conn.unwrap();
    host.endpoint.conn(id).unwrap().close(7, "enough");
}

fn worlds() -> [(Host, Peer); 2] {
    [against_server(small()), against_client(small())]
}

/// Delivers a packet of the peer; returns the number of answers.
fn answers(host: &mut Host, peer: &mut Peer) -> usize {
    host.receive(peer.packet(DATA, &PING));
    host.run().len()
}

/// The close is lost, and so are the answers to probes, which come 1, 3 and 7 probe timeouts after it. Closing used to
/// end after three of them, just before the second probe, which was answered by a stateless reset (seeds 1147 and
/// 3818).
#[test]
fn who_still_asks_is_told_again() {
    for (mut host, mut peer) in worlds() {
        close(&mut host);
        assert_eq!(host.run().len(), 1);
        let mut told = Vec::new();
        for ptos in [1, 2, 4] {
            host.wait(PTO * ptos + Duration::from_millis(1));
            host.receive(peer.packet(DATA, &PING));
            told = host.run();
            assert_eq!(told.len(), 1, "{ptos}");
            assert_eq!(host.endpoint.stats().resets_sent, 0, "{ptos}");
        }
        told.iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert_eq!(peer.close, Some(Close { code: TransportError(7), application: true, frame_type: 0 }));
        assert_eq!(host.endpoint.connection_count(), 1);
    }
}

/// A probe is answered however many packets came before it. It used to be answered only if it was the 2^n-th packet.
#[test]
fn a_probe_is_answered_however_many_packets_came_before_it() {
    for (mut host, mut peer) in worlds() {
        close(&mut host);
        host.run();
        let at_once: usize = (0..20).map(|_| answers(&mut host, &mut peer)).sum();
        assert_eq!(at_once, 5, "the 1st, 2nd, 4th, 8th and 16th");
        host.wait(PTO);
        assert_eq!(answers(&mut host, &mut peer), 1);
        assert_eq!(answers(&mut host, &mut peer), 0);
    }
}

/// A peer that never stops sending gets a few answers, and occupies a closed connection for nine probe timeouts.
#[test]
fn closing_is_bounded_in_answers_and_time() {
    for (mut host, mut peer) in worlds() {
        close(&mut host);
        host.run();
        let (start, mut sent, mut asked) = (host.now, 0, 0);
        while host.endpoint.connection_count() > 0 {
            sent += answers(&mut host, &mut peer);
            asked += 1;
            host.wait(Duration::from_micros(100));
        }
        assert!(asked > 2000 && sent < 60, "{asked} packets, {sent} answers");
        let lasted = host.now.saturating_since(start);
        assert!(lasted <= PTO * 9 + Duration::from_millis(1), "{lasted:?}");
    }
}

#[test]
fn closing_of_a_connection_that_nobody_asks_for_lasts_three_probe_timeouts() {
    for (mut host, _) in worlds() {
        close(&mut host);
        host.run();
        host.wait(PTO * 3 - Duration::from_millis(1));
        assert_eq!(host.endpoint.connection_count(), 1);
        host.wait(Duration::from_millis(2));
        assert_eq!(host.endpoint.connection_count(), 0);
    }
}

/// The application closes a connection without passing the time: closing begins when the engine next gets the time,
/// however long ago it last did.
#[test]
fn closing_begins_when_the_close_can_leave() {
    for (mut host, mut peer) in worlds() {
        close(&mut host);
        // Time passes without the engine being called.
        host.now += PTO * 100;
        assert_eq!(host.run().len(), 1);
        host.wait(PTO * 3 - Duration::from_millis(1));
        assert_eq!(host.endpoint.connection_count(), 1);
        assert_eq!(answers(&mut host, &mut peer), 1);
    }
    // Or it first gets the time with a packet.
    for (mut host, mut peer) in worlds() {
        close(&mut host);
        host.now += PTO * 100;
        host.receive(peer.packet(DATA, &PING));
        assert_eq!(host.run().len(), 1);
        host.wait(PTO * 3 - Duration::from_millis(1));
        assert_eq!(host.endpoint.connection_count(), 1);
    }
}

/// "When sending a CONNECTION_CLOSE, the alert is no_application_protocol" (RFC 9001 §8.1).
#[test]
fn a_client_without_application_protocol_is_told_so() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), NO_ALPN, |params| params.to_bytes());
    peer.out.drain(..).for_each(|datagram| host.receive(datagram));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    let code = TransportError(0x178);
    assert_eq!(host.error(), Some(code));
    assert_eq!(peer.close, Some(Close { code, application: false, frame_type: 6 }));
}

/// The server refuses a client's first packet, which is thus not acknowledged: no round trip was measured, and three
/// probe timeouts for an assumed one are 3 s. But it is known that it took no longer than the answer.
#[test]
fn a_refused_client_is_over_when_it_hears_of_it() {
    let mut host = Host::client(small());
    let first = host.run();
    let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    host.wait(Duration::from_millis(10));
    let refusal = frames(&[Frame::ConnectionClose { code: 0x178, frame_type: 6, reason: b"no" }]);
    host.receive(peer.packet(INITIAL, &refusal));
    host.run();
    assert_eq!(host.closed(), Some(&CloseReason::PeerTransport { code: 0x178, reason: "no".into() }));
    // Nobody has to wait even that long.
    assert_eq!((host.endpoint.connection_count(), host.endpoint.draining_count()), (1, 1));
    host.wait(WAIT + Duration::from_millis(1));
    assert_eq!((host.endpoint.connection_count(), host.endpoint.draining_count()), (0, 0));
}

/// The same when the client refuses, here because the server's answer is invalid.
#[test]
fn a_client_that_refuses_its_server_closes_as_long_as_the_answer_took() {
    let mut host = Host::client(small());
    let first = host.run();
    let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    host.wait(Duration::from_millis(10));
    host.receive(peer.packet(INITIAL, &frames(&[Frame::HandshakeDone])));
    assert_eq!(host.run().len(), 1);
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
    host.wait(WAIT - Duration::from_millis(1));
    assert_eq!((host.endpoint.connection_count(), host.endpoint.draining_count()), (1, 0), "the server may ask");
    host.wait(Duration::from_millis(2));
    assert_eq!(host.endpoint.connection_count(), 0);
}

/// A server's first packet reveals nothing about the round trip: it answers at once, and the client may be far away.
#[test]
fn a_server_that_refuses_a_client_does_not_forget_it_at_once() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), NO_ALPN, |params| params.to_bytes());
    let hello: Vec<_> = peer.out.drain(..).collect();
    hello.iter().for_each(|datagram| host.receive(datagram.clone()));
    host.run();
    host.wait(Duration::from_millis(900));
    hello.iter().for_each(|datagram| host.receive(datagram.clone()));
    assert_eq!(host.run().len(), 1, "the refusal once more, and no new connection");
    assert_eq!(host.endpoint.stats().connections_opened, 1);
}

/// Both sides of a close: the one that received it drains, and that alone is no reason to stay.
#[test]
fn connections_that_drain_are_known_and_forgotten() {
    for (mut host, mut peer) in worlds() {
        assert_eq!(host.endpoint.draining_count(), 0);
        host.receive(peer.packet(DATA, &frames(&[Frame::ApplicationClose { code: 1, reason: b"" }])));
        host.run();
        assert_eq!((host.endpoint.connection_count(), host.endpoint.draining_count()), (1, 1), "{:?}", host.side);
        host.receive(peer.packet(DATA, &PING));
        assert!(host.run().is_empty());
        host.wait(PTO * 3 + Duration::from_millis(2));
        assert_eq!((host.endpoint.connection_count(), host.endpoint.draining_count()), (0, 0));
        if host.side == Side::Client {
            host.connect(small());
            host.run();
            assert_eq!((host.endpoint.connection_count(), host.endpoint.draining_count()), (1, 0));
        }
    }
}

/// Packets that arrive while closing are not authenticated: anyone may have sent them, in the name of the peer. "Such
/// endpoints MUST limit the cumulative size of packets it sends to three times the cumulative size of the packets that
/// are received and attributed to the connection" (RFC 9000 §10.2.1). Until 2026-11, 25 bytes were answered with 170.
#[test]
fn a_close_is_repeated_with_three_times_what_asks_for_it_at_most() {
    for (mut host, peer) in worlds() {
        let id = host.conn.unwrap();
        host.endpoint.conn(id).unwrap().close(7, &"long ".repeat(100));
        assert_eq!(host.run().len(), 1);
        let (mut received, mut sent, mut answers) = (0, 0, 0);
        for len in (22..).step_by(3) {
            host.wait(PTO / 3);
            if host.endpoint.connection_count() == 0 {
                break;
            }
            let mut junk = vec![0x5a; len];
            junk[1..=peer.remote_cid.len()].copy_from_slice(&peer.remote_cid);
            received += len;
            host.receive(junk);
            for (_, datagram) in host.run() {
                sent += datagram.len();
                answers += 1;
            }
            assert!(sent <= 3 * received, "{sent} bytes for {received}");
        }
        assert!(answers > 5, "{answers}");
    }
}

/// "An endpoint in the closing state MUST either discard packets received from an unvalidated address or limit" the
/// answers (RFC 9000 §10.2.1).
#[test]
fn closed_connections_answer_their_peer_only() {
    for (mut host, mut peer) in worlds() {
        close(&mut host);
        host.run();
        host.wait(PTO);
        let mut datagram = peer.packet(DATA, &PING);
        host.receive_from(std::net::SocketAddr::from(([203, 0, 113, 9], 9)), &mut datagram);
        assert!(host.run().is_empty());
        assert_eq!(answers(&mut host, &mut peer), 1);
    }
}

/// The closes that the peer has received: their packet number spaces, and whether they are the application's.
fn closes(peer: &Peer) -> Vec<(usize, bool)> {
    peer.closes.iter().map(|(space, close, _)| (*space, close.application)).collect()
}

/// A close is in packets of every level that the peer may be able to read, and of no other (RFC 9000 §10.2.3). Outside of
/// 1-RTT packets it reveals nothing of the application.
#[test]
fn a_close_is_sent_where_it_can_be_read_and_reveals_nothing_before() {
    // A server does not know whether its flight has arrived.
    let (mut host, mut peer) = greeted(small());
    host.endpoint.close_all(7, "enough");
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(closes(&peer), [(INITIAL, false), (HANDSHAKE, false), (DATA, true)]);
    for (space, close, reason) in &peer.closes {
        let (code, said) = if *space == DATA {
            (TransportError(7), &b"enough"[..])
        } else {
            (TransportError::APPLICATION_ERROR, &b""[..])
        };
        assert_eq!((close.code, &reason[..]), (code, said), "space {space}");
    }
    // A client that has heard nothing.
    let (mut host, mut peer) = waiting_client(small());
    close(&mut host);
    let last = host.run();
    assert_eq!(last[0].1.len(), 1200);
    peer.receive(&last[0].1);
    assert_eq!(closes(&peer), [(INITIAL, false)]);
    assert_eq!((peer.closes[0].1.code, peer.closes[0].2.len()), (TransportError::APPLICATION_ERROR, 0));
    // A client whose end of the handshake has arrived, which it does not know to be confirmed.
    let (mut host, mut peer) = waiting_client(small());
    exchange(&mut host, &mut peer);
    let ack = peer.ack(HANDSHAKE);
    host.receive(peer.packet(HANDSHAKE, &ack));
    close(&mut host);
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(closes(&peer), [(HANDSHAKE, false), (DATA, true)]);
    assert_eq!((peer.closes[0].1.code, peer.closes[0].2.len()), (TransportError::APPLICATION_ERROR, 0));
    // "After the handshake is confirmed, an endpoint MUST send any CONNECTION_CLOSE frames in a 1-RTT packet."
    let mut worlds = worlds();
    worlds[1].0.receive(worlds[1].1.packet(DATA, &frames(&[Frame::HandshakeDone])));
    for (mut host, mut peer) in worlds {
        close(&mut host);
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert_eq!(closes(&peer), [(DATA, true)], "{:?}", host.side);
    }
}
