//! Explicit congestion notification between two engines, through routers of all kinds (RFC 9000 §13.4), and the spin bit
//! (§17.4).

use gannet::base::time::Duration;
use gannet::quic::{Dir, EndpointConfig, EndpointStats, Event, SendData, TransportConfig};
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::frame::{EcnCounts, Frame};

use super::peer::{DATA, Peer, Shape, frames};
use super::world::{Host, against_server, client_addr, exchange, small};

const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// A client that uploads to a server, with these settings, through a router that lets `fate` decide with which codepoint a
/// datagram arrives, if it does: it gets the sender, 0 for the client, and the number of the datagram. Returns their
/// counters, the number of marked datagrams of each, and the number of all.
fn upload(
    configs: [TransportConfig; 2],
    mut fate: impl FnMut(usize, u64, u8) -> Option<u8>,
) -> ([EndpointStats; 2], [u64; 2], [u64; 2]) {
    let [client, server] = configs;
    let mut hosts = [Host::client(client), Host::server(server)];
    let (mut marked, mut sent, mut opened) = ([0; 2], [0; 2], false);
    for _ in 0..4000 {
        let mut quiet = true;
        for from in [0, 1] {
            for (transmit, datagram) in hosts[from].run() {
                quiet = false;
                sent[from] += 1;
                marked[from] += u64::from(transmit.ecn == ECT_0);
                assert!(transmit.ecn == 0 || transmit.ecn == ECT_0);
                if let Some(ecn) = fate(from, sent[from], transmit.ecn) {
                    hosts[1 - from].ecn = ecn;
                    hosts[1 - from].receive(datagram);
                }
            }
        }
        let connected = hosts[0].events.iter().any(|(_, e)| matches!(e, Event::Connected { .. }));
        if connected && !opened {
            opened = true;
            let id = hosts[0].conn.unwrap();
            let mut conn = hosts[0].endpoint.conn(id).unwrap();
            let stream = conn.open(Dir::Uni).unwrap();
            conn.send(stream, SendData::Static(&[7; 300_000]), true).unwrap();
        }
        if quiet {
            if hosts[0].events.iter().any(|(_, e)| matches!(e, Event::SendFinished { .. })) {
                let [client, server] = &hosts;
                let stats = [client, server].map(|host| host.endpoint.stats().clone());
                return (stats, marked, sent);
            }
            let next = hosts.iter().filter_map(|host| host.endpoint.next_timeout()).min().expect("something happens");
            hosts.iter_mut().for_each(|host| host.now = host.now.max(next));
        }
    }
    panic!("nothing arrived");
}

fn large() -> TransportConfig {
    TransportConfig { max_data: 1 << 20, stream_window_uni: 1 << 20, ..small() }
}

fn found(stats: &EndpointStats) -> [u64; 2] {
    [stats.ecn_validated, stats.ecn_failed]
}

#[test]
fn everything_is_marked_where_marks_arrive() {
    let (stats, marked, sent) = upload([large(), large()], |_, _, ecn| Some(ecn));
    assert_eq!(stats.each_ref().map(found), [[1, 0]; 2]);
    // None is sent without a mark once a path is validated, and before that, none but those that follow the first ten.
    assert!(sent[0] > 200 && marked[0] == sent[0], "{marked:?} of {sent:?}");
    assert_eq!(stats.map(|stats| stats.ecn_congestion + stats.ecn_ce), [0, 0]);
}

#[test]
fn nothing_is_marked_if_that_is_off() {
    let off = TransportConfig { ecn: false, ..large() };
    let (stats, marked, _) = upload([off.clone(), large()], |_, _, ecn| Some(ecn));
    assert_eq!((marked[0], found(&stats[0])), (0, [0, 0]));
    assert!(marked[1] > 0, "the server has its own setting");
    // Reports about marks that were never sent mean nothing.
    let (stats, _, _) = upload([off.clone(), off], |_, _, _| Some(CE));
    assert_eq!(stats.map(|stats| stats.ecn_congestion), [0, 0]);
}

/// RFC 9000 §13.4.2.2: "If validation fails, then the endpoint MUST disable ECN."
#[test]
fn routers_that_change_marks_get_no_more() {
    for arrives in [0, 1, CE] {
        let (stats, marked, sent) = upload([large(), large()], |_, _, ecn| Some(if ecn == 0 { 0 } else { arrives }));
        // Some packets of the handshake are never acknowledged, so not all ten need to be known to have arrived with CE.
        let failed = stats.each_ref().map(|stats| stats.ecn_failed);
        assert!(arrives == CE || failed == [1, 1], "{arrives}: {failed:?}");
        assert_eq!(stats.each_ref().map(|stats| stats.ecn_validated), [0, 0], "{arrives}");
        assert!(marked.iter().all(|n| *n <= 10) && sent[0] > 200, "{arrives}: {marked:?} of {sent:?}");
    }
    // Later, it fails as well.
    let (stats, marked, _) = upload([large(), large()], |_, n, ecn| Some(if n < 60 { ecn } else { 0 }));
    assert_eq!(found(&stats[0]), [1, 1]);
    assert!((60..200).contains(&marked[0]), "{marked:?}");
}

/// Connections are not lost to routers that drop marked packets.
#[test]
fn routers_that_drop_marked_packets_are_survived() {
    let (stats, marked, _) = upload([large(), large()], |_, _, ecn| (ecn == 0).then_some(0));
    assert_eq!(stats.each_ref().map(|stats| stats.ecn_validated), [0, 0]);
    assert!(marked.iter().all(|n| *n <= 10), "{marked:?}");
    // One that begins to do so later, on the way to the server.
    let (stats, ..) = upload([large(), large()], |from, n, ecn| (ecn == 0 || n < 60 || from == 1).then_some(ecn));
    assert_eq!(stats[0].ecn_validated, 1);
}

/// RFC 9002 §7.1: reported marks reduce the window, once per round trip.
#[test]
fn congestion_marks_reduce_the_window() {
    let (calm, ..) = upload([large(), large()], |_, _, ecn| Some(ecn));
    let (stats, ..) = upload([large(), large()], |_, n, ecn| Some(if n % 50 == 0 && ecn != 0 { CE } else { ecn }));
    assert_eq!((calm[0].ecn_congestion, stats[0].lost_packets), (0, 0));
    assert!((1..=stats[1].ecn_ce).contains(&stats[0].ecn_congestion), "{stats:?}");
    assert_eq!(found(&stats[0]), [1, 0]);
}

/// RFC 9000 §13.4.2.1: reports of peers that are true, missing or wrong.
#[test]
fn reports_of_peers_are_checked() {
    type Count = fn(u64) -> Option<u64>;
    let cases: [(Count, [u64; 2]); 4] =
        [(Some, [1, 0]), (|_| None, [0, 1]), (|n| Some(n - 1), [0, 1]), (|_| Some(1000), [0, 1])];
    for (n, (count, expected)) in cases.into_iter().enumerate() {
        let (mut host, mut peer) = against_server(small());
        let before = found(host.endpoint.stats());
        assert_eq!(before, [0, 0], "nothing was acknowledged");
        let ect0 = count(peer.received(DATA));
        let ack = peer.ack_with(DATA, ect0.map(|ect0| EcnCounts { ect0, ..EcnCounts::default() }));
        let packet = peer.packet(DATA, &[&frames(&[Frame::Ping])[..], &ack].concat());
        host.receive(packet);
        let out = host.wait(Duration::from_millis(100));
        assert_eq!(found(host.endpoint.stats()), expected, "case {n}");
        let mark = if expected == [1, 0] { ECT_0 } else { 0 };
        assert!(!out.is_empty() && out.iter().all(|(transmit, _)| transmit.ecn == mark), "case {n}");
    }
}

/// The close of a capable path is marked, like everything else on it.
#[test]
fn closes_are_marked() {
    let mut hosts = [Host::client(small()), Host::server(small())];
    for _ in 0..20 {
        for from in [0, 1] {
            for (transmit, datagram) in hosts[from].run() {
                hosts[1 - from].ecn = transmit.ecn;
                hosts[1 - from].receive(datagram);
            }
        }
    }
    for host in &mut hosts {
        let id = host.conn.unwrap();
        let mut conn = host.endpoint.conn(id).unwrap();
        assert!(conn.stats().ecn);
        conn.close(7, "");
        let out = host.run();
        assert!(!out.is_empty() && out.iter().all(|(transmit, _)| transmit.ecn == ECT_0));
    }
}

/// RFC 9000 §17.4: the bit is inverted by the client and reflected by the server, on most connections.
#[test]
fn the_spin_bit_spins_if_that_is_on() {
    for on in [true, false] {
        let config = || TransportConfig { spin: on, keep_alive: Some(Duration::from_millis(100)), ..small() };
        let mut spinning = 0;
        let (mut client, mut server) = (Host::client(config()), Host::server(config()));
        for n in 0..40 {
            if n > 0 {
                client.connect(config());
            }
            let mut seen = [Vec::new(), Vec::new()];
            for _ in 0..20 {
                for (_, datagram) in client.run() {
                    seen[0].extend((datagram[0] & 0x80 == 0).then_some(datagram.clone()));
                    server.receive(datagram);
                }
                for (_, datagram) in server.run() {
                    seen[1].extend((datagram[0] & 0x80 == 0).then_some(datagram.clone()));
                    client.receive(datagram);
                }
                (client.now, server.now) =
                    (client.now + Duration::from_millis(50), server.now + Duration::from_millis(50));
            }
            let values = |list: &[Vec<u8>]| {
                let set = list.iter().filter(|datagram| datagram[0] & 0x20 != 0).count();
                (set > 0, set < list.len())
            };
            assert!(seen.iter().all(|list| list.len() > 4), "{:?}", seen.map(|list| list.len()));
            let both = seen.iter().all(|list| values(list) == (true, true));
            // A side that does not spin always sends the same value.
            spinning += usize::from(both);
            let id = client.conn.unwrap();
            client.endpoint.conn(id).unwrap().close(0, "");
            client.run().into_iter().for_each(|(_, datagram)| server.receive(datagram));
            client.wait(Duration::from_secs(5));
            server.now = client.now;
            server.run();
        }
        let expected = if on { 28..40 } else { 0..1 };
        assert!(expected.contains(&spinning), "{on}: {spinning} of 40");
    }
}

/// RFC 9000 §17.4: "An endpoint resets the spin value for a network path to 0 when changing the connection ID being used on
/// that network path."
#[test]
fn the_spin_bit_restarts_with_another_id() {
    let mut spinning = 0;
    for n in 0..20 {
        let config = TransportConfig { spin: true, ..small() };
        let mut host = Host::server_with(EndpointConfig::from_seed([n; 32]), config);
        let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
        peer.takes_any_id = true;
        exchange(&mut host, &mut peer);
        // The bit of the first packet after one with this frame, whose own bit is set.
        let mut answer = |frame: Frame<'_>| {
            let packet = peer.shaped(DATA, &frames(&[frame]), Shape { first: 0x20, ..Shape::default() });
            host.receive(packet);
            let mut out = host.run();
            out.extend(host.wait(Duration::from_millis(100)));
            out.iter().for_each(|(_, datagram)| peer.receive(datagram));
            // Header protection leaves the bit as it is (RFC 9001 §5.4.1).
            let first = out[0].1[0] & 0x20 != 0;
            let ack = peer.ack(DATA);
            let ack = peer.shaped(DATA, &ack, Shape { first: 0x20, ..Shape::default() });
            host.receive(ack);
            first
        };
        let id = |seq: u64, retire_prior_to| {
            let cid = ConnectionId::new(&[seq as u8; 8]).unwrap();
            Frame::NewConnectionId { seq, retire_prior_to, cid, reset_token: [seq as u8; 16] }
        };
        if !answer(Frame::Ping) {
            // One in 16 does not spin.
            continue;
        }
        assert!(answer(id(1, 0)), "{n}: another ID, which is not used yet");
        assert!(!answer(id(2, 1)), "{n}: the ID changes");
        assert!(answer(Frame::Ping), "{n}: the next packet");
        assert!(host.closed().is_none());
        spinning += 1;
    }
    assert!(spinning > 10, "{spinning} of 20");
}
