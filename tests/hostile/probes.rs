//! Probe timeouts (RFC 9002 §6.2.4), and what is repeated (RFC 9000 §13.3).

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{Dir, SendData, TransportConfig};
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::header::PacketType;

use super::handshakes::kinds;
use super::peer::{DATA, INITIAL, Peer, Told, frames};
use super::world::{Host, against_server, client_addr, greeted, small, waiting_client};

static BYTES: [u8; 100_000] = [7; 100_000];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn send(host: &mut Host, len: usize) {
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&BYTES[..len]), false).unwrap();
}

/// Lets `time` pass; the peer reads what is sent and acknowledges it.
fn listen(host: &mut Host, peer: &mut Peer, time: Duration) {
    host.wait(time).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let ack = peer.ack(DATA);
    let datagram = peer.packet(DATA, &ack);
    host.receive(datagram);
}

/// Lets time pass until something is sent.
fn next(host: &mut Host) -> Vec<Vec<u8>> {
    loop {
        let at = host.endpoint.next_timeout().expect("a timer");
        host.now = host.now.max(at);
        let sent = host.run();
        if !sent.is_empty() {
            return sent.into_iter().map(|(_, datagram)| datagram).collect();
        }
    }
}

/// RFC 9002 §6.2.4: a client whose last handshake message and first data are lost sends both again when the handshake's
/// probe timeout expires. Until 2026-11, the data waited for the confirmation of the handshake.
#[test]
fn a_handshake_probe_brings_the_data_in_flight_along() {
    let (mut host, mut peer) = waiting_client(small());
    let answers: Vec<_> = peer.out.drain(..).collect();
    answers.into_iter().for_each(|datagram| host.receive(datagram));
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Bidi).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&BYTES[..500]), true).unwrap();
    assert!(!host.run().is_empty(), "the request is sent, and lost");
    let probes: Vec<_> = host.wait(ms(1500)).into_iter().map(|(_, datagram)| datagram).collect();
    let both = [PacketType::Handshake, PacketType::Short];
    assert!(
        probes.iter().any(|datagram| kinds(datagram) == both),
        "{:?}",
        probes.iter().map(|d| kinds(d)).collect::<Vec<_>>()
    );
    probes.iter().for_each(|datagram| peer.receive(datagram));
    // The peer has its keys from the first packet of each datagram on.
    probes.iter().for_each(|datagram| peer.receive(datagram));
    assert!(peer.stream_bytes >= 500 && peer.is_connected(), "{} bytes", peer.stream_bytes);
}

/// RFC 9000 §13.3: HANDSHAKE_DONE and new connection IDs are repeated by a probe until they are acknowledged, and not
/// after that. Until 2026-11, they were sent a third time when the packet that the probe had repeated was declared lost.
#[test]
fn what_a_probe_repeated_does_not_come_a_third_time() {
    let (mut host, mut peer) = greeted(small());
    assert!(!peer.handshake_done && peer.issued.is_empty(), "the handshake is not complete");
    let finished: Vec<_> = peer.out.drain(..).collect();
    finished.into_iter().for_each(|datagram| host.receive(datagram));
    assert!(!host.run().is_empty(), "HANDSHAKE_DONE is sent, and lost");
    assert!(!peer.handshake_done);
    for _ in 0..20 {
        listen(&mut host, &mut peer, ms(1100));
    }
    assert!(peer.handshake_done && host.closed().is_none());
    let mut known: Vec<u64> = peer.issued.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(known.len(), 3, "each is announced once more: {known:?}");
    known.sort_unstable();
    assert_eq!(known, [1, 2, 3]);
}

/// RFC 9000 §13.3: a loss that no probe has repeated is, until an acknowledgement.
#[test]
fn handshake_done_is_repeated_until_it_is_acknowledged() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    for _ in 0..2 {
        let said: Vec<_> = peer.out.drain(..).collect();
        said.into_iter().for_each(|datagram| host.receive(datagram));
        let heard = host.run();
        if !peer.is_connected() {
            heard.iter().for_each(|(_, datagram)| peer.receive(datagram));
        }
    }
    // Three series of probes are lost, too.
    host.wait(ms(8000));
    assert!(!peer.handshake_done);
    for _ in 0..5 {
        listen(&mut host, &mut peer, ms(8000));
    }
    assert!(peer.handshake_done && host.closed().is_none());
}

/// RFC 9002 §6.2.4, §7.5: when the probe timeout expires, two ack-eliciting packets are sent although the window is full,
/// and they count as in flight. RFC 9002 §7: nothing else is sent beyond the window.
#[test]
fn probes_are_ack_eliciting_and_go_beyond_the_window() {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    for _ in 0..3 {
        listen(&mut host, &mut peer, ms(50));
    }
    send(&mut host, 90_000);
    let stats = |host: &mut Host| host.endpoint.conn(host.conn.unwrap()).unwrap().stats();
    // Pacing stops when the window is full.
    let mut at_once = host.run();
    while let Some(at) = host.endpoint.next_timeout().filter(|at| *at < host.now + ms(20)) {
        host.now = at;
        at_once.append(&mut host.run());
    }
    let before = stats(&mut host);
    assert!(before.bytes_in_flight <= before.cwnd && before.bytes_in_flight + 1472 > before.cwnd, "{before:?}");
    assert!(at_once.len() >= 8);
    let probes = next(&mut host);
    assert_eq!(probes.len(), 2);
    let after = stats(&mut host);
    let sent: usize = probes.iter().map(Vec::len).sum();
    assert_eq!(after.bytes_in_flight, before.bytes_in_flight + sent as u64);
    assert_eq!((after.lost_packets, after.cwnd), (before.lost_packets, before.cwnd), "a timeout is no loss");
    for (i, datagram) in probes.iter().enumerate() {
        let told = peer.told.len();
        peer.receive(datagram);
        let new = &peer.told[told..];
        // The first repeats or continues the data, the other is a PING.
        let fits = |told: &(u64, Told)| matches!((i, told.1), (0, Told::Stream(..)) | (1, Told::Ping));
        assert!(new.iter().any(fits), "probe {i}: {new:?}");
    }
}

/// RFC 9002 §6.2.4: "An endpoint SHOULD include new data in packets that are sent on PTO expiration."
#[test]
fn a_probe_carries_new_data_if_there_is_any() {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    for _ in 0..3 {
        listen(&mut host, &mut peer, ms(50));
    }
    send(&mut host, 90_000);
    host.wait(ms(20));
    let stats = |host: &mut Host| host.endpoint.conn(host.conn.unwrap()).unwrap().stats();
    let before = stats(&mut host);
    assert!(before.bytes_in_flight + 1472 > before.cwnd, "{before:?}");
    next(&mut host).iter().for_each(|datagram| peer.receive(datagram));
    let offsets: Vec<u64> = peer
        .told
        .iter()
        .filter_map(|(_, told)| match told {
            Told::Stream(_, offset, ..) => Some(*offset),
            _ => None,
        })
        .collect();
    assert!(offsets.first().is_some_and(|offset| *offset > 10_000), "{offsets:?}: not the first bytes again");
}

/// RFC 9000 §8.1, §14.1: a client's datagrams with Initial packets have at least 1200 bytes, whatever is in them; so do a
/// server's if they are ack-eliciting.
#[test]
fn datagrams_with_initial_packets_are_full() {
    let check = |datagrams: &[Vec<u8>], side: Side, what: &str| {
        for datagram in datagrams.iter().filter(|datagram| kinds(datagram).contains(&PacketType::Initial)) {
            assert!(datagram.len() >= 1200, "{side:?}, {what}: {} bytes", datagram.len());
        }
        datagrams.iter().filter(|datagram| kinds(datagram).contains(&PacketType::Initial)).count()
    };
    let sent = |out: Vec<(gannet::quic::Transmit, Vec<u8>)>| out.into_iter().map(|(_, d)| d).collect::<Vec<_>>();
    let (mut host, mut peer) = waiting_client(small());
    let acked = peer.packet(INITIAL, &frames(&[Frame::Ping]));
    host.receive(acked);
    assert_eq!(check(&sent(host.run()), Side::Client, "an acknowledgement"), 1);
    assert!(check(&sent(host.wait(ms(5000))), Side::Client, "probes") >= 2);
    let hello = peer.out.remove(0);
    host.receive(hello);
    assert_eq!(check(&sent(host.run()), Side::Client, "after the ServerHello"), 1);
    let mut host = Host::client(small());
    assert_eq!(check(&sent(host.run()), Side::Client, "a first flight"), 1);
    let conn = host.conn.unwrap();
    host.endpoint.conn(conn).unwrap().close(1, "no");
    assert_eq!(check(&sent(host.run()), Side::Client, "a close"), 1);

    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    let first: Vec<_> = peer.out.drain(..).collect();
    first.into_iter().for_each(|datagram| host.receive(datagram));
    assert!(check(&sent(host.run()), Side::Server, "a flight") >= 1);
    for _ in 0..3 {
        let more = peer.packet(INITIAL, &[0x01, 0, 0, 0]);
        host.receive(more);
        // An acknowledgement alone.
        host.run();
        check(&sent(host.wait(ms(2500))), Side::Server, "probes");
    }
}

/// RFC 9000 §14: "an endpoint MUST NOT close a connection when it receives a datagram that does not meet size
/// constraints".
#[test]
fn datagrams_of_any_size_end_no_connection() {
    let (mut host, mut peer) = against_server(TransportConfig { max_udp_payload: 1200, ..small() });
    for len in [1, 4, 20, 1173, 1300, 1472, 9000] {
        let mut payload = vec![0; len];
        payload[0] = 1;
        let datagram = peer.packet(DATA, &payload);
        host.receive(datagram);
        host.wait(ms(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert!(host.closed().is_none() && peer.close.is_none(), "{len} bytes");
    }
    // Initial packets in datagrams that are too small are ignored (§14.1).
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    let first: Vec<_> = peer.out.drain(..).collect();
    first.into_iter().for_each(|datagram| host.receive(datagram));
    host.run();
    let small = peer.shaped(INITIAL, &[0x1e, 0, 0, 0], super::peer::Shape { unpadded: true, ..Default::default() });
    host.receive(small);
    host.run();
    assert!(host.closed().is_none(), "the frame in it would be an error");
}

/// RFC 9000 §19.16: "The sequence number specified in a RETIRE_CONNECTION_ID frame MUST NOT refer to the Destination
/// Connection ID field of the packet in which the frame is contained."
#[test]
fn a_retirement_goes_to_another_id() {
    let (mut host, mut peer) = against_server(small());
    for n in 1..8u8 {
        let cid = ConnectionId::new(&[n; 8]).unwrap();
        let seq = u64::from(n);
        let frame = Frame::NewConnectionId { seq, retire_prior_to: seq, cid, reset_token: [n; 16] };
        let datagram = peer.packet(DATA, &frames(&[frame]));
        host.receive(datagram);
        for (_, datagram) in host.wait(ms(30)) {
            let before = peer.retired.len();
            peer.receive(&datagram);
            if peer.retired.len() > before {
                assert_eq!((&peer.retired[before..], peer.dcids.last()), (&[seq - 1][..], Some(&cid)));
            }
        }
        assert_eq!(peer.retired.last(), Some(&(seq - 1)));
        let ack = peer.ack(DATA);
        let datagram = peer.packet(DATA, &ack);
        host.receive(datagram);
    }
}
