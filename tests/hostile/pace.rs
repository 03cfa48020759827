//! What must not be sent yet waits for a time or for the peer, and never keeps a connection busy.

use gannet::base::Side;
use gannet::base::time::{Duration, Instant};
use gannet::quic::{ConnId, Dir, EndpointConfig, RetryPolicy, SendData, TransportConfig};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::Frame;

use super::peer::{DATA, INITIAL, Peer, Shape, frames};
use super::world::{Host, addr, against_server, client_addr, endpoint_config, small};

static BYTES: [u8; 200_000] = [7; 200_000];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The peer receives what the server sends for `time`, and acknowledges it at the end.
fn hear(host: &mut Host, peer: &mut Peer, time: Duration) {
    host.wait(time).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let ack = peer.ack(DATA);
    let datagram = peer.packet(DATA, &ack);
    host.receive(datagram);
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
}

/// A server with a round trip of 100 ms that has just sent what pacing allows at once, and has no more data.
fn out_of_breath() -> (Host, Peer, ConnId) {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    let conn = host.conn.unwrap();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    for _ in 0..6 {
        host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&BYTES[..100_000]), false).unwrap();
        hear(&mut host, &mut peer, ms(100));
    }
    for _ in 0..100 {
        hear(&mut host, &mut peer, ms(100));
    }
    let stats = host.endpoint.conn(conn).unwrap().stats();
    assert!(stats.bytes_in_flight == 0 && stats.srtt > ms(50), "{stats:?}");
    // Not a byte more: data that waits for its time arms a timer that lets control frames go along.
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&BYTES[..14_300]), false).unwrap();
    let sent = host.run();
    sent.iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(sent.len(), 10);
    assert_eq!(host.endpoint.conn(conn).unwrap().stream_stats(id).unwrap().sent, 614_300);
    assert!(host.endpoint.conn(conn).unwrap().stats().bytes_in_flight < stats.cwnd / 2, "the window is not the limit");
    (host, peer, conn)
}

/// How long it takes until `heard`, without a packet from the peer.
fn until(host: &mut Host, peer: &mut Peer, heard: fn(&Peer) -> bool) -> Option<Duration> {
    let start = host.now;
    (0..200).find_map(|_| {
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        if heard(peer) {
            return Some(host.now.saturating_since(start));
        }
        host.wait(Duration::from_micros(500)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        None
    })
}

/// Until 2026-11, control frames delayed by pacing had no timer: they waited for the next acknowledgement or timeout.
#[test]
fn control_frames_go_as_soon_as_pacing_lets_them() {
    let (mut host, mut peer, conn) = out_of_breath();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().reset(id, 1).unwrap();
    let waited = until(&mut host, &mut peer, |peer| !peer.resets.is_empty());
    assert!(waited.is_some_and(|waited| waited > ms(0) && waited < ms(20)), "RESET_STREAM after {waited:?}");
    let (mut host, mut peer, _) = out_of_breath();
    let datagram = peer.packet(DATA, &frames(&[Frame::PathChallenge([9; 8])]));
    host.receive(datagram);
    let waited = until(&mut host, &mut peer, |peer| !peer.path_responses.is_empty());
    // RFC 9000 §8.2.2: answers to challenges are not delayed.
    assert_eq!(waited, Some(ms(0)));
}

/// A server at its amplification limit, with a client that does not answer.
fn at_the_limit(host: &mut Host, from: std::net::SocketAddr, seed: u64) -> Peer {
    let mut peer = Peer::client(from, seed, |params| params.to_bytes());
    peer.out.drain(..).collect::<Vec<_>>().iter_mut().for_each(|datagram| host.receive_from(from, datagram));
    for (transmit, datagram) in host.run() {
        if transmit.remote == from {
            peer.receive(&datagram);
        }
    }
    peer
}

/// Until 2026-11, the deadline of an acknowledgement without budget stayed in the past, and every turn looked at each
/// such connection.
#[test]
fn what_has_no_budget_makes_no_turn_busy() {
    // None of them has to validate its address first.
    let config = EndpointConfig { retry: RetryPolicy::Never, ..endpoint_config(Side::Server) };
    let mut host = Host::server_with(config, small());
    let from = |n: u8| std::net::SocketAddr::from(([192, 0, 2, n], 1000));
    let mut peers: Vec<Peer> = (0..40).map(|n| at_the_limit(&mut host, from(n), 100 + u64::from(n))).collect();
    host.wait(Duration::from_secs(4));
    for (n, peer) in peers.iter_mut().enumerate() {
        let shape = Shape { first: 0, unpadded: false, ..Shape::default() };
        let mut datagram = peer.shaped(INITIAL, &frames(&[Frame::Ping]), shape);
        // All of its budget is used at once for what is lost.
        host.receive_from(from(n as u8), &mut datagram);
    }
    host.run();
    for (n, peer) in peers.iter_mut().enumerate() {
        let mut datagram = peer.packet(INITIAL, &frames(&[Frame::Ping]));
        host.receive_from(from(n as u8), &mut datagram);
    }
    host.run();
    let until = host.now + Duration::from_secs(1);
    let mut wakeups = 0;
    while let Some(at) = host.endpoint.next_timeout().filter(|at| *at <= until) {
        host.now = host.now.max(at) + Duration::from_micros(1);
        host.run();
        wakeups += 1;
        // A connection has its loss and probe timers; a deadline in the past would cause a turn each microsecond.
        assert!(wakeups < 400, "{wakeups} turns until {until:?}, at {:?}", host.now);
    }
}

/// The close is small: a server with hardly any budget still sends it (RFC 9000 §10.2.3).
#[test]
fn a_close_needs_no_more_budget_than_it_takes() {
    let mut host = Host::server(small());
    let mut peer = at_the_limit(&mut host, client_addr(), 1);
    host.wait(Duration::from_secs(4)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    // A short packet gives a budget of three times its length. Servers read no Initial packet in so short a datagram,
    // so it follows one that cannot be read.
    let mut datagram = peer.shaped(INITIAL, &frames(&[Frame::HandshakeDone]), Shape::default());
    let mut sent = 0;
    host.receive_from(client_addr(), &mut datagram);
    for (_, datagram) in host.run() {
        sent += datagram.len();
        peer.receive(&datagram);
    }
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
    assert!(peer.close.is_some() && sent <= 3 * datagram.len());
}

/// RFC 9000 §8.1: whatever strangers send, they get back at most three times as much.
#[test]
fn nobody_gets_more_than_three_times_what_it_sends() {
    for junk in 0..4 {
        let mut host = Host::server(small());
        let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
        let (mut received, mut sent) = (0, 0);
        let mut check = |host: &mut Host, datagram: &mut [u8], wait: Duration, reads: Option<&mut Peer>| {
            received += datagram.len();
            host.receive_from(addr(host.side.peer()), datagram);
            let out = host.wait(wait);
            sent += out.iter().map(|(_, datagram)| datagram.len()).sum::<usize>();
            if let Some(peer) = reads {
                out.iter().for_each(|(_, datagram)| peer.receive(datagram));
            }
            assert!(sent <= 3 * received, "{sent} for {received} with junk {junk}");
        };
        for mut datagram in peer.out.drain(..).collect::<Vec<_>>() {
            check(&mut host, &mut datagram, Duration::ZERO, None);
        }
        for n in 0..30u8 {
            let mut datagram = match junk {
                // With the right connection ID, but unreadable.
                0 => {
                    let mut datagram = vec![0xe0u8; 60];
                    datagram[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
                    datagram[6..14].copy_from_slice(&peer.original_dcid);
                    datagram[14] = 0;
                    datagram
                }
                // Packets that it has sent before.
                1 => Peer::client(client_addr(), 1, |params| params.to_bytes()).out.remove(0),
                // A packet that ends the connection.
                2 => peer.packet(INITIAL, &frames(&[Frame::HandshakeDone])),
                // Two packets in one datagram, and garbage.
                _ => [peer.shaped(INITIAL, &[1, 0, 0, 0], Shape { unpadded: true, ..Shape::default() }), vec![n; 30]]
                    .concat(),
            };
            check(&mut host, &mut datagram, ms(200), None);
        }
    }
}

/// No deadline is in the past after it was handled, whatever the state of the connection.
#[test]
fn no_deadline_is_met_twice() {
    for wait in [0, 10, 100, 1000] {
        let (mut host, mut peer) = against_server(small());
        let conn = host.conn.unwrap();
        let id = host.endpoint.conn(conn).unwrap().open(Dir::Bidi).unwrap();
        host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&BYTES[..5000]), false).unwrap();
        let mut times = Vec::<Instant>::new();
        for n in 0..40 {
            if n % 7 == 3 {
                let datagram = peer.packet(DATA, &frames(&[Frame::Ping]));
                host.receive(datagram);
            }
            host.run();
            host.now += ms(wait);
            while let Some(at) = host.endpoint.next_timeout().filter(|at| *at <= host.now) {
                host.run();
                times.push(at);
                assert!(host.endpoint.next_timeout().is_none_or(|next| next > host.now), "{at:?} at {:?}", host.now);
            }
        }
    }
}

/// RFC 9002 §7.7: "packets containing only ACK frames SHOULD therefore not be paced".
#[test]
fn acknowledgements_go_whatever_pacing_says() {
    let (mut host, mut peer, conn) = out_of_breath();
    let id = host.endpoint.conn(conn).unwrap().open(Dir::Uni).unwrap();
    host.endpoint.conn(conn).unwrap().send(id, SendData::Static(&BYTES[..5000]), false).unwrap();
    assert!(host.run().is_empty(), "data waits");
    for _ in 0..2 {
        let datagram = peer.packet(DATA, &frames(&[Frame::Ping]));
        host.receive(datagram);
    }
    let said = host.run();
    assert_eq!(said.len(), 1);
    peer.receive(&said[0].1);
    assert_eq!(peer.acked, Some(peer.pn[DATA] - 1));
    assert!(said[0].1.len() < 60, "{} bytes", said[0].1.len());
}

/// RFC 9000 §8.1: "servers MUST count all of the payload bytes received in datagrams that are uniquely attributed to a
/// single connection. This includes datagrams that contain packets that are successfully processed and datagrams that
/// contain packets that are all discarded."
#[test]
fn datagrams_that_cannot_be_read_raise_the_budget_too() {
    let sent = |junk: usize| {
        let mut host = Host::server(small());
        let mut peer = at_the_limit(&mut host, client_addr(), 1);
        let mut sent = 0;
        for _ in 0..junk {
            let mut datagram = peer.packet(INITIAL, &frames(&[Frame::Ping]));
            // The tag no longer fits.
            *datagram.last_mut().unwrap() ^= 1;
            host.receive_from(client_addr(), &mut datagram);
            sent += host.wait(ms(4000)).iter().map(|(_, datagram)| datagram.len()).sum::<usize>();
        }
        sent
    };
    let (none, some) = (sent(0), sent(2));
    assert!(none == 0 && some >= 1200, "{some} bytes in answer to what cannot be read");
}
