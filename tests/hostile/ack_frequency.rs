//! ACK_FREQUENCY and IMMEDIATE_ACK frames (draft-ietf-quic-ack-frequency-14), as their receiver and as their sender.

use gannet::base::time::Duration;
use gannet::quic::{AckRequests, Dir, SendData, TransportConfig};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::params::TransportParameters;

use super::acks::quiet;
use super::peer::{DATA, HANDSHAKE, Peer, frames};
use super::world::{Host, against_server, client_addr, exchange, waiting_client};

fn request(seq: u64, threshold: u64, max_delay: u64, reordering: u64) -> Vec<u8> {
    frames(&[Frame::AckFrequency { seq, threshold, max_delay, reordering }])
}

/// Sends a packet; returns whether it is acknowledged at once.
fn acked(host: &mut Host, peer: &mut Peer, payload: &[u8]) -> bool {
    host.receive(peer.packet(DATA, payload));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    peer.acked == Some(peer.pn[DATA] - 1)
}

const PING: &[u8] = &[0x01];

/// §4, §6: threshold and delay.
#[test]
fn requests_change_when_packets_are_acknowledged() {
    let (mut host, mut peer) = quiet();
    let told = [PING, PING, PING, PING].map(|ping| acked(&mut host, &mut peer, ping));
    assert_eq!(told, [false, true, false, true], "every second one by default");
    let payload = request(0, 3, 5_000, 1);
    assert!(!acked(&mut host, &mut peer, &payload));
    let told = [PING; 8].map(|ping| acked(&mut host, &mut peer, ping));
    assert_eq!(told, [false, false, true, false, false, false, true, false], "more than three");
    host.wait(Duration::from_millis(7)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.acked, Some(peer.pn[DATA] - 1), "after 5 ms");
    let payload = request(1, 0, 5_000, 1);
    assert!(acked(&mut host, &mut peer, &payload));
    assert_eq!([PING; 3].map(|ping| acked(&mut host, &mut peer, ping)), [true; 3]);
    let obsolete = request(0, 100, 5_000, 1);
    assert!(acked(&mut host, &mut peer, &obsolete) && acked(&mut host, &mut peer, PING), "obsolete");
    assert_eq!(host.error(), None);
}

/// §6.2.
#[test]
fn requests_change_which_reordering_is_told() {
    for (reordering, told) in [(1, [true, false, false]), (3, [false, false, true]), (0, [false; 3])] {
        let (mut host, mut peer) = quiet();
        let payload = request(0, 1000, 20_000, reordering);
        acked(&mut host, &mut peer, &payload);
        host.wait(Duration::from_millis(25)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        // A gap of one packet.
        peer.pn[DATA] += 1;
        assert_eq!([PING; 3].map(|ping| acked(&mut host, &mut peer, ping)), told, "{reordering}");
    }
}

/// §5.
#[test]
fn immediate_ack_is_heeded() {
    let (mut host, mut peer) = quiet();
    let payload = request(0, 1000, 20_000, 1);
    assert!(!acked(&mut host, &mut peer, &payload));
    let immediate = frames(&[Frame::ImmediateAck]);
    assert_eq!([&immediate, PING, &immediate].map(|payload| acked(&mut host, &mut peer, payload)), [true, false, true]);
}

/// §6.3: the first of several marks.
#[test]
fn marks_are_told_at_their_beginning() {
    let (mut host, mut peer) = quiet();
    host.ecn = 0b11;
    assert_eq!([PING; 3].map(|ping| acked(&mut host, &mut peer, ping)), [true; 3], "all, by default");
    host.ecn = 0b10;
    let payload = request(0, 1000, 20_000, 1);
    acked(&mut host, &mut peer, &payload);
    host.wait(Duration::from_millis(25)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let told = [0b11, 0b11, 0b10, 0b11, 0b10].map(|ecn| {
        host.ecn = ecn;
        acked(&mut host, &mut peer, PING)
    });
    assert_eq!(told, [true, false, false, true, false]);
}

/// §3, §4.
#[test]
fn violations_end_the_connection() {
    let min = |min_ack_delay| TransportConfig { min_ack_delay, ..TransportConfig::default() };
    let ms = Duration::from_millis;
    let immediate = frames(&[Frame::ImmediateAck]);
    for (config, payload, error) in [
        (min(None), request(0, 1, 20_000, 1), Some(TransportError::FRAME_ENCODING_ERROR)),
        (min(None), immediate, Some(TransportError::FRAME_ENCODING_ERROR)),
        (min(Some(ms(2))), request(0, 1, 1_999, 1), Some(TransportError::PROTOCOL_VIOLATION)),
        (min(Some(ms(2))), request(0, 1, 2_000, 1), None),
        (min(Some(ms(2))), request(0, 1, 16_384_000, 1), Some(TransportError::PROTOCOL_VIOLATION)),
        (min(Some(ms(2))), request(0, 1, 16_383_999, 1), None),
        (min(Some(ms(2))), request(0, (1 << 62) - 1, 2_000, (1 << 62) - 1), None),
        // What is announced is at most max_ack_delay.
        (min(Some(ms(500))), request(0, 1, 25_000, 1), None),
    ] {
        let (mut host, mut peer) = against_server(config);
        host.receive(peer.packet(DATA, &payload));
        host.run();
        assert_eq!(host.error(), error, "{payload:?}");
    }
    let (mut host, mut peer) = waiting_client(TransportConfig::default());
    host.receive(peer.packet(HANDSHAKE, &frames(&[Frame::ImmediateAck])));
    exchange(&mut host, &mut peer);
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
    let mut host = Host::server(TransportConfig::default());
    let params = |params| TransportParameters { max_ack_delay: 5, min_ack_delay: Some(5001), ..params };
    let mut peer = Peer::client(client_addr(), 1, |usual| params(usual).to_bytes());
    exchange(&mut host, &mut peer);
    assert_eq!(peer.close.map(|close| close.code), Some(TransportError::TRANSPORT_PARAMETER_ERROR));
}

/// §10: a packet causes at most one acknowledgement, whatever it asks for, and requests take no memory.
#[test]
fn floods_of_requests_are_bounded() {
    let (mut host, mut peer) = quiet();
    let mut payload = Vec::new();
    for seq in 0..100 {
        payload.extend(request(seq, 0, 1_000, 1));
        payload.extend(frames(&[Frame::ImmediateAck]));
    }
    for n in 0..100 {
        host.receive(peer.packet(DATA, &payload));
        let sent = host.run();
        assert!(sent.len() <= 1, "{} datagrams after packet {n}", sent.len());
        assert!(sent.iter().all(|(_, datagram)| datagram.len() < 100));
        sent.iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
    assert_eq!((host.error(), host.endpoint.memory_charged()), (None, 0));
}

/// A server that may ask a peer which announces `min_ack_delay`.
fn asking(requests: AckRequests, min_ack_delay: Option<u64>) -> (Host, Peer) {
    let config = TransportConfig { ack_requests: requests, ..TransportConfig::default() };
    let mut host = Host::server(config);
    let mut peer = Peer::client(client_addr(), 1, |usual| TransportParameters { min_ack_delay, ..usual }.to_bytes());
    exchange(&mut host, &mut peer);
    assert!(peer.handshake_done);
    (host, peer)
}

/// Sends `n` bytes to a peer that acknowledges everything at once.
fn send(host: &mut Host, peer: &mut Peer, n: usize) {
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Bytes(vec![1; n].into()), true).unwrap();
    for _ in 0..50 {
        let sent = host.wait(Duration::from_millis(10));
        sent.iter().for_each(|(_, datagram)| peer.receive(datagram));
        let ack = peer.ack(DATA);
        host.receive(peer.packet(DATA, &ack));
    }
}

/// §3: nothing is asked of peers that have not announced support, and nothing at all by default.
#[test]
fn peers_without_support_are_not_asked() {
    let fixed = AckRequests::Fixed { threshold: 5, max_delay: Duration::from_millis(3), reordering: 3 };
    for (requests, support, asked) in
        [(fixed, None, false), (AckRequests::Never, Some(1000), false), (fixed, Some(1000), true)]
    {
        let (mut host, mut peer) = asking(requests, support);
        send(&mut host, &mut peer, 10_000);
        assert_eq!(peer.ack_requests.is_empty(), !asked);
        assert_eq!(peer.immediate_acks > 0, asked, "with the last packet");
    }
}

/// §4, §7: a lost request is made again with another number, and probes ask for an acknowledgement at once.
#[test]
fn requests_are_repeated_and_probes_are_urgent() {
    let fixed = AckRequests::Fixed { threshold: 5, max_delay: Duration::from_millis(3), reordering: 3 };
    let (mut host, mut peer) = asking(fixed, Some(4000));
    send(&mut host, &mut peer, 100);
    assert_eq!(peer.ack_requests, [(0, 5, 4000, 3)], "the peer's minimum");
    let before = peer.immediate_acks;
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(b"x"), false).unwrap();
    host.run();
    let probes = host.wait(Duration::from_secs(1));
    assert!(!probes.is_empty());
    probes.iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(peer.immediate_acks > before, "in probes");
}

/// §8: fewer acknowledgements of large windows, once slow start is over.
#[test]
fn adaptive_requests_follow_the_window() {
    let (mut host, mut peer) = asking(AckRequests::Adaptive, Some(1000));
    send(&mut host, &mut peer, 100_000);
    assert!(peer.ack_requests.is_empty(), "in slow start");
    // Losses end it while there is more to send.
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Bytes(vec![1; 4 << 20].into()), true).unwrap();
    for n in 0..30 {
        let sent = host.wait(Duration::from_millis(10));
        let lost = if n % 4 == 2 { 3 } else { 0 };
        sent.iter().skip(lost).for_each(|(_, datagram)| peer.receive(datagram));
        let ack = peer.ack(DATA);
        host.receive(peer.packet(DATA, &ack));
    }
    let stats = host.endpoint.conn(conn).map(|conn| conn.stats());
    let first = peer.ack_requests.first();
    let (_, threshold, delay, reordering) =
        *first.unwrap_or_else(|| panic!("no request: {stats:?}, {:?}", host.closed()));
    assert!((1..=63).contains(&threshold) && (1000..=25_000).contains(&delay), "{threshold} packets, {delay} us");
    assert_eq!(reordering, 3);
    // One for each great change, not for each acknowledgement.
    assert!(peer.ack_requests.len() < 15, "{:?}", peer.ack_requests);
    assert!(peer.ack_requests.iter().map(|request| request.0).eq(0..peer.ack_requests.len() as u64), "numbered");
}
