//! False acknowledgements, and the credibility of ECN marks.

use gannet::base::time::Duration;
use gannet::quic::{Dir, SendData, TransportConfig};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::{EcnCounts, Frame};

use super::peer::{DATA, HANDSHAKE, INITIAL, Peer, frames};
use super::world::{Host, against_server, client_addr, exchange, server_addr};

static DATA_BYTES: [u8; 1 << 20] = [7; 1 << 20];

/// A server that sends without end to a peer that acknowledges by `ack`, for up to `rounds` of 10 ms.
fn stream_to(rounds: usize, ack: fn(&Peer) -> Vec<u8>) -> (Host, Peer, u64) {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    let mut sent = 0;
    for _ in 0..rounds {
        if let Some(mut conn) = host.endpoint.conn(conn) {
            let _ = conn.send(id, SendData::Static(&DATA_BYTES), false);
        }
        for (_, datagram) in host.wait(Duration::from_millis(10)) {
            sent += datagram.len() as u64;
            peer.receive(&datagram);
        }
        let ack = ack(&peer);
        let datagram = peer.packet(DATA, &ack);
        host.receive(datagram);
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        if host.closed().is_some() {
            break;
        }
    }
    (host, peer, sent)
}

/// RFC 9000 §21.4. Until 2026-11, no number was skipped, and such a peer drove the window to 177 MB.
#[test]
fn acknowledging_what_never_came_ends_the_connection() {
    let (host, peer, sent) = stream_to(200, |peer| peer.optimistic_ack(DATA));
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
    assert_eq!(peer.close.map(|close| close.frame_type), Some(0x02));
    // Detected within the first skipped numbers; a window has 8 to 400 packets by then.
    assert!(sent < 1 << 20, "{sent} bytes by then");
}

/// The same with an acknowledgement of only those numbers, long after the packets around them were acknowledged.
#[test]
fn acknowledging_gaps_later_ends_the_connection_too() {
    let (mut host, mut peer, _) = stream_to(30, |peer| peer.ack(DATA));
    assert_eq!(host.closed(), None);
    let ack = peer.optimistic_ack(DATA);
    let datagram = peer.packet(DATA, &ack);
    host.receive(datagram);
    host.run();
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
}

#[test]
fn an_honest_peer_never_hits_a_number_that_was_left_out() {
    let (host, peer, sent) = stream_to(200, |peer| peer.ack(DATA));
    assert_eq!((host.closed(), peer.close), (None, None));
    assert!(sent > 10 << 20, "{sent}");
    assert_eq!(host.endpoint.stats().lost_packets, 0, "a number that was left out is no loss");
}

/// RFC 9000 §13.4.1. Until 2026-11, marks were counted but not reported.
#[test]
fn marks_are_reported_for_each_space() {
    let mut host = Host::server(TransportConfig::default());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    host.ecn = 0b10;
    exchange(&mut host, &mut peer);
    assert!(peer.handshake_done);
    let ect0 = |peer: &Peer, space: usize| peer.ecn[space].is_some_and(|e| e.ect0 > 0 && e.ect1 + e.ce == 0);
    assert!(ect0(&peer, INITIAL), "{:?}", peer.ecn);
    let mut client = Host::client(TransportConfig::default());
    let first = client.run();
    let mut server = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    first.iter().for_each(|(_, datagram)| server.receive(datagram));
    client.ecn = 0b10;
    exchange(&mut client, &mut server);
    assert!(ect0(&server, INITIAL) || ect0(&server, HANDSHAKE), "{:?}", server.ecn);
    let ping = frames(&[Frame::Ping]);
    let mut hear = |host: &mut Host, ecn, wait| {
        host.ecn = ecn;
        let datagram = peer.packet(DATA, &ping);
        host.receive(datagram.clone());
        let acks = peer.ack_delays.len();
        host.receive(datagram);
        host.wait(wait).iter().for_each(|(_, datagram)| peer.receive(datagram));
        (peer.ack_delays.len() > acks, peer.ecn[DATA])
    };
    let late = Duration::from_millis(30);
    let ecn = |ect0, ect1, ce| Some(EcnCounts { ect0, ect1, ce });
    assert_eq!(hear(&mut host, 0b00, late), (true, None), "nothing to report");
    assert_eq!(hear(&mut host, 0b01, late), (true, ecn(0, 1, 0)), "duplicates do not count");
    assert_eq!(hear(&mut host, 0b10, late), (true, ecn(1, 1, 0)));
    assert_eq!(hear(&mut host, 0b11, Duration::ZERO), (true, ecn(1, 1, 1)), "congestion is reported at once (§13.2.1)");
}

/// RFC 9000 §13.4.2.1: none of our packets is ECN-capable, so no count can be about them.
#[test]
fn marks_on_packets_that_were_not_capable_do_not_shrink_the_window() {
    let window = |count: bool| {
        let (mut host, mut peer) = against_server(TransportConfig { ecn: false, ..TransportConfig::default() });
        let conn = host.conn.unwrap();
        let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
        for n in 1..6 {
            host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&DATA_BYTES[..5000]), false).unwrap();
            host.wait(Duration::from_millis(100)).iter().for_each(|(_, datagram)| peer.receive(datagram));
            let mut ack = peer.ack(DATA);
            if count {
                ack[0] = 0x03;
                ack.extend_from_slice(&[0, 0, n]);
            }
            let datagram = peer.packet(DATA, &ack);
            host.receive(datagram);
            host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        }
        assert_eq!(host.closed(), None);
        host.endpoint.conn(conn).unwrap().stats().cwnd
    };
    assert_eq!(window(true), window(false));
}

/// A server that owes no acknowledgement, and its peer.
pub fn quiet() -> (Host, Peer) {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    host.wait(Duration::from_millis(200)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let ack = peer.ack(DATA);
    host.receive(peer.packet(DATA, &ack));
    host.run();
    (host, peer)
}

/// RFC 9000 §13.2, §13.2.1: an acknowledgement that may wait goes along with other frames.
#[test]
fn acknowledgements_go_along_with_data() {
    let (mut host, mut peer) = quiet();
    host.receive(peer.packet(DATA, &frames(&[Frame::Ping])));
    assert!(host.run().is_empty(), "delayed");
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(b"abc"), false).unwrap();
    let sent = host.run();
    assert_eq!(sent.len(), 1);
    peer.receive(&sent[0].1);
    assert_eq!((peer.acked, peer.stream_bytes), (Some(peer.pn[DATA] - 1), 3));
}

/// RFC 9000 §13.2.1: packets that are not ack-eliciting are not answered, whatever is missing before them, and each
/// ack-eliciting one causes at most one packet.
#[test]
fn only_ack_eliciting_packets_are_answered() {
    let (mut host, mut peer) = quiet();
    for n in 0..20 {
        // Every other one leaves a gap.
        peer.pn[DATA] += n % 2;
        let ack = peer.ack(DATA);
        host.receive(peer.packet(DATA, &[ack, frames(&[Frame::Padding(5)])].concat()));
        assert!(host.wait(Duration::from_millis(30)).is_empty(), "packet {n}");
    }
    for n in 0..20 {
        peer.pn[DATA] += n % 2;
        host.receive(peer.packet(DATA, &frames(&[Frame::Ping])));
        assert!(host.run().len() <= 1, "packet {n}");
    }
}

/// RFC 9000 §13.2.1, §13.2.4: a receiver asks for an acknowledgement of its own now and then, not in each packet.
#[test]
fn acknowledgements_are_rarely_ack_eliciting() {
    let (mut host, mut peer) = quiet();
    let (mut packets, mut pings) = (0, 0);
    for _ in 0..600 {
        host.receive(peer.packet(DATA, &frames(&[Frame::Ping])));
        peer.told.clear();
        for (_, datagram) in host.run() {
            packets += 1;
            peer.receive(&datagram);
        }
        pings += peer.told.len();
    }
    assert_eq!((packets, pings), (300, 4), "each 64th packet");
}

/// RFC 9000 §13.2.1: Initial and Handshake packets are acknowledged without delay. RFC 9000 §13.2.5: their delay is
/// reported as 0, and that of other packets as it was.
#[test]
fn handshake_packets_are_acknowledged_at_once_and_delays_are_reported() {
    let mut host = Host::client(TransportConfig::default());
    let first = host.run();
    let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    first.iter().for_each(|(_, datagram)| peer.receive(datagram));
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected());
    let spaces: Vec<_> = peer.ack_delays.iter().map(|(space, _)| *space).collect();
    assert!(spaces.contains(&INITIAL) && spaces.contains(&HANDSHAKE), "although no time has passed: {spaces:?}");
    assert!(peer.ack_delays.iter().all(|(_, delay)| *delay == 0), "{:?}", peer.ack_delays);

    let (mut host, mut peer) = quiet();
    host.receive(peer.packet(DATA, &frames(&[Frame::Ping])));
    host.now += Duration::from_millis(10);
    peer.ack_delays.clear();
    host.receive(peer.packet(DATA, &frames(&[Frame::Ping])));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.ack_delays, [(DATA, 0)], "the delay is that of the largest packet");
    host.receive(peer.packet(DATA, &frames(&[Frame::Ping])));
    host.now += Duration::from_millis(16);
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(b"abc"), false).unwrap();
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.ack_delays[1], (DATA, 16_000 >> 3), "in units of 8 microseconds");
}

/// RFC 9000 §13.2.6: packets are acknowledged in the space that they belong to.
#[test]
fn acknowledgements_stay_in_their_space() {
    let mut host = Host::client(TransportConfig::default());
    let first = host.run();
    let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    // Numbers that no other space has.
    peer.pn = [100, 200, 300];
    first.iter().for_each(|(_, datagram)| peer.receive(datagram));
    exchange(&mut host, &mut peer);
    host.receive(peer.packet(DATA, &frames(&[Frame::Ping])));
    host.wait(Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let acked = |space: usize| peer.acked_all[space].last().unwrap().end - 1;
    assert!((100..200).contains(&acked(INITIAL)) && (200..300).contains(&acked(HANDSHAKE)) && acked(DATA) >= 300);
}
