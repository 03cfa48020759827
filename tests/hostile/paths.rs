//! Addresses that change, or seem to: NATs, attackers who copy packets, and peers who want to be followed everywhere (RFC
//! 9000 §8.2, §9).

use std::net::SocketAddr;

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::quic::{CloseReason, DropReason, Event, MigrateError, TransportConfig};
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::params::{Preferred, TransportParameters};
use gannet::wire::quic::{ConnectionId, StreamId, TransportError, header};

use super::peer::{DATA, Peer, Shape, frames, generous};
use super::world::{Host, against_client, against_server, client_addr, exchange, server_addr, small, waiting_client};

/// The same host with another port.
fn port(n: u16) -> SocketAddr {
    SocketAddr::new(client_addr().ip(), 40_000 + n)
}

/// Another host.
fn host(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 4000))
}

fn ping() -> Vec<u8> {
    frames(&[Frame::Ping])
}

fn response(data: [u8; 8]) -> Vec<u8> {
    let mut payload = frames(&[Frame::PathResponse(data)]);
    payload.resize(1200 - 29, 0);
    payload
}

/// A datagram that arrived somewhere: its address, its length, and the challenges in it.
type Heard = (SocketAddr, usize, Vec<[u8; 8]>);

/// Delivers a packet with `payload` from `from`; returns what the host sends, which the peer reads.
fn say(host: &mut Host, peer: &mut Peer, from: SocketAddr, payload: &[u8]) -> Vec<Heard> {
    let mut datagram = peer.packet(DATA, payload);
    host.receive_from(from, &mut datagram);
    hear(host, peer)
}

fn hear(host: &mut Host, peer: &mut Peer) -> Vec<Heard> {
    let sent = host.run();
    read(peer, &sent)
}

fn read(peer: &mut Peer, sent: &[(gannet::quic::Transmit, Vec<u8>)]) -> Vec<Heard> {
    let mut heard = Vec::new();
    for (transmit, datagram) in sent {
        let before = peer.path_challenges.len();
        peer.receive(datagram);
        let challenges = peer.path_challenges[before..].iter().map(|(_, data)| *data).collect();
        heard.push((transmit.remote, datagram.len(), challenges));
    }
    heard
}

/// The first challenge among these that went to `to`.
fn challenge(heard: &[Heard], to: SocketAddr) -> Option<[u8; 8]> {
    heard.iter().filter(|(at, ..)| *at == to).flat_map(|(.., data)| data).next().copied()
}

fn events(host: &mut Host) -> Vec<Event> {
    host.events.drain(..).map(|(_, event)| event).collect()
}

fn migrated(host: &mut Host) -> Vec<SocketAddr> {
    let to = |event| match event {
        Event::PeerMigrated { remote, .. } => Some(remote),
        _ => None,
    };
    events(host).into_iter().filter_map(to).collect()
}

fn remote(host: &mut Host) -> SocketAddr {
    let id = host.conn.unwrap();
    host.endpoint.remote(id).unwrap()
}

/// Moves the peer to `to`, where it answers all challenges.
fn follow(host: &mut Host, peer: &mut Peer, to: SocketAddr) {
    let mut heard = say(host, peer, to, &ping());
    for _ in 0..5 {
        let Some(data) = challenge(&heard, to) else { break };
        heard = say(host, peer, to, &response(data));
    }
    assert_eq!(remote(host), to);
}

/// RFC 9000 §9.3, §8.2.1, §8.2.3: the new address is validated, first within three times what came from it, then with
/// 1200 bytes; so is the former one (§9.3.3).
#[test]
fn a_client_behind_a_nat_that_rebinds_is_followed() {
    let (mut host, mut peer) = against_server(small());
    events(&mut host);
    let came = peer.packet(DATA, &ping());
    let budget = 3 * came.len();
    host.receive_from(port(1), &mut came.clone());
    let heard = hear(&mut host, &mut peer);
    let first = challenge(&heard, port(1)).expect("a challenge for the new address");
    assert!(challenge(&heard, client_addr()).is_some_and(|data| data != first), "one for the former address");
    let sent: usize = heard.iter().filter(|(to, ..)| *to == port(1)).map(|(_, len, _)| len).sum();
    assert!(sent <= budget, "{sent} bytes for {}", came.len());
    assert!(heard.iter().filter(|(to, ..)| *to == client_addr()).all(|(_, len, _)| *len == 1200), "{heard:?}");
    assert!(migrated(&mut host).is_empty(), "not validated yet");
    // The answer may come by any path (§8.2.3).
    let heard = say(&mut host, &mut peer, client_addr(), &response(first));
    let second = challenge(&heard, port(1)).expect("another one, with 1200 bytes");
    assert!(heard.iter().any(|(to, len, data)| *to == port(1) && *len == 1200 && data.contains(&second)));
    assert!(migrated(&mut host).is_empty(), "the size is not validated yet");
    say(&mut host, &mut peer, port(1), &response(second));
    assert_eq!((migrated(&mut host), remote(&mut host)), (vec![port(1)], port(1)));
    let stats = host.endpoint.stats();
    assert!(stats.paths_seen == 1 && stats.paths_validated >= 1 && stats.path_challenges >= 3);
    // An answer that comes late is no violation.
    say(&mut host, &mut peer, port(1), &response(first));
    assert!(host.closed().is_none());
}

/// RFC 9000 §9.3: a client that has proved a new address gets a token for it, whether it had moved by then or only probed
/// the path.
#[test]
fn a_new_address_gets_a_new_token() {
    for probes in [false, true] {
        let (mut host, mut peer) = against_server(small());
        assert_eq!(peer.new_tokens.len(), 1, "for the first address");
        if probes {
            let (cid, reset_token) = (ConnectionId::new(&[9; 8]).unwrap(), [9; 16]);
            let cid = Frame::NewConnectionId { seq: 1, retire_prior_to: 0, cid, reset_token };
            let mut probe = frames(&[Frame::PathChallenge([7; 8]), cid]);
            probe.resize(1171, 0);
            let mut heard = say(&mut host, &mut peer, port(1), &probe);
            while let Some(data) = challenge(&heard, port(1)) {
                heard = say(&mut host, &mut peer, port(1), &frames(&[Frame::PathResponse(data)]));
            }
            assert_eq!((remote(&mut host), peer.new_tokens.len()), (client_addr(), 1));
        }
        follow(&mut host, &mut peer, port(1));
        assert_eq!(peer.new_tokens.len(), 2);
    }
}

/// RFC 9000 §9.3: only the highest-numbered packet moves the connection, and §9.1: only if it is not a probe.
#[test]
fn late_packets_and_probes_do_not_move_the_connection() {
    let (mut host, mut peer) = against_server(small());
    let mut late = peer.packet(DATA, &ping());
    say(&mut host, &mut peer, client_addr(), &ping());
    host.receive_from(port(1), &mut late);
    hear(&mut host, &mut peer);
    assert_eq!(remote(&mut host), client_addr(), "a late packet");
    let cid = Frame::NewConnectionId {
        seq: 1,
        retire_prior_to: 0,
        cid: ConnectionId::new(&[9; 8]).unwrap(),
        reset_token: [9; 16],
    };
    let probe = frames(&[Frame::PathChallenge([7; 8]), cid, Frame::Padding(40)]);
    let heard = say(&mut host, &mut peer, port(2), &probe);
    assert_eq!(remote(&mut host), client_addr(), "a probe");
    assert!(challenge(&heard, port(2)).is_some(), "it is validated nevertheless (§9.6.3)");
    assert_eq!(peer.path_responses.last().map(|(_, data)| *data), Some([7; 8]));
    assert!(heard.iter().any(|(to, ..)| *to == port(2)) && heard.iter().all(|(to, ..)| *to != port(1)));
    say(&mut host, &mut peer, port(2), &ping());
    assert_eq!(remote(&mut host), port(2));
}

/// RFC 9000 §8.2.2: answers go where the challenges came from, once each, and as large as the address may be sent to.
#[test]
fn challenges_are_answered_where_they_came_from() {
    let (mut host, mut peer) = against_server(small());
    let small_probe = frames(&[Frame::PathChallenge([1; 8])]);
    let heard = say(&mut host, &mut peer, port(1), &small_probe);
    let sent: usize = heard.iter().map(|(_, len, _)| len).sum();
    assert!(heard.iter().all(|(to, ..)| *to == port(1)) && sent <= 3 * 60, "{heard:?}");
    assert_eq!(peer.path_responses, [(peer.path_responses[0].0, [1; 8])]);
    let mut large_probe = frames(&[Frame::PathChallenge([2; 8])]);
    large_probe.resize(1171, 0);
    say(&mut host, &mut peer, port(1), &large_probe);
    assert_eq!(peer.path_responses[1], (1200, [2; 8]));
    let heard = say(&mut host, &mut peer, client_addr(), &small_probe);
    assert_eq!(peer.path_responses[2], (1200, [1; 8]));
    assert!(heard.iter().any(|(to, len, _)| (*to, *len) == (client_addr(), 1200)));
    host.wait(Duration::from_millis(50));
    assert_eq!(peer.path_responses.len(), 3);
    assert_eq!(remote(&mut host), client_addr());
}

/// RFC 9000 §9.3.1, §9.3.2: an attacker who forwards a packet with another address gains little, and not for long.
#[test]
fn an_address_that_does_not_answer_is_left_again() {
    for spoofed in [port(1), host(9)] {
        let (mut host, mut peer) = against_server(small());
        host.events.clear();
        let mut stolen = peer.packet(DATA, &ping());
        let len = stolen.len();
        host.receive_from(spoofed, &mut stolen);
        let mut sent = hear(&mut host, &mut peer);
        assert_eq!(remote(&mut host), spoofed);
        for _ in 0..100 {
            let out = host.wait(Duration::from_millis(100));
            sent.extend(read(&mut peer, &out));
        }
        assert_eq!(remote(&mut host), client_addr());
        let to_victim: usize = sent.iter().filter(|(to, ..)| *to == spoofed).map(|(_, len, _)| len).sum();
        assert!(to_victim > 0 && to_victim <= 3 * len, "{to_victim} bytes for {len}");
        let failed = events(&mut host)
            .iter()
            .any(|event| matches!(event, Event::PathFailed { remote, .. } if *remote == spoofed));
        assert!(failed && host.endpoint.stats().paths_failed == 1);
        assert!(host.closed().is_none());
    }
}

/// RFC 9000 §9.3.2: a packet with a higher number from the real address ends a spurious migration at once.
#[test]
fn the_real_address_takes_the_connection_back() {
    let (mut host, mut peer) = against_server(small());
    let before = host.endpoint.conn(host.conn.unwrap()).unwrap().stats();
    for n in 0..50 {
        let stolen = peer.packet(DATA, &ping());
        host.receive_from(self::host(n), &mut stolen.clone());
        assert_eq!(remote(&mut host), self::host(n));
        // The original is a duplicate.
        host.receive_from(client_addr(), &mut stolen.clone());
        say(&mut host, &mut peer, client_addr(), &ping());
        assert_eq!(remote(&mut host), client_addr());
    }
    let after = host.endpoint.conn(host.conn.unwrap()).unwrap().stats();
    assert_eq!((after.cwnd >= before.cwnd, after.mtu), (true, before.mtu), "the path is found as it was left");
    assert_eq!(host.drops(DropReason::Duplicate), 50);
}

/// Copies and forgeries cost no packet, no path and no memory, from however many addresses they come.
#[test]
fn datagrams_that_are_not_authentic_change_nothing() {
    let (mut host, mut peer) = against_server(small());
    let genuine = peer.packet(DATA, &ping());
    host.receive(genuine.clone());
    hear(&mut host, &mut peer);
    for n in 0..500 {
        let mut copy = genuine.clone();
        if n % 2 == 0 {
            copy[20] ^= 1;
        }
        host.receive_from(port(n), &mut copy);
        assert!(host.run().is_empty());
    }
    assert_eq!(host.endpoint.stats().paths_seen, 0);
    assert_eq!(host.drops(DropReason::Duplicate) + host.drops(DropReason::Authentication), 500);
}

/// A peer that comes from ever more addresses displaces its own, and is answered within limits.
#[test]
fn a_peer_that_comes_from_everywhere_is_bounded() {
    for payload in [ping(), frames(&[Frame::PathChallenge([5; 8])])] {
        let (mut host, mut peer) = against_server(small());
        let (mut came, mut count, mut sent) = (0, 0, 0);
        for n in 0..1000 {
            let mut datagram = peer.packet(DATA, &payload);
            came += datagram.len();
            host.receive_from(port(n), &mut datagram);
            for (to, len, _) in hear(&mut host, &mut peer) {
                sent += if to == client_addr() { 0 } else { len };
                count += 1;
            }
            host.now += Duration::from_millis(1);
        }
        assert!(sent <= 3 * came, "{sent} bytes for {came}");
        assert!(count <= 4 * 1000, "{count} datagrams for 1000");
        assert!(host.closed().is_none());
        host.wait(Duration::from_secs(20));
    }
}

/// RFC 9000 §9.5: a client that comes with a new ID is answered with a new one, or not at all.
#[test]
fn a_new_path_has_a_new_id_in_both_directions() {
    let (mut host, mut peer) = against_server(small());
    let (_, new) = peer.issued[0];
    peer.remote_cid = new;
    // There is none for it.
    let heard = say(&mut host, &mut peer, port(1), &ping());
    assert!(heard.iter().all(|(to, ..)| *to != port(1)), "{heard:?}");
    assert_eq!(remote(&mut host), client_addr());
    let cid = |n: u8| Frame::NewConnectionId {
        seq: n.into(),
        retire_prior_to: 0,
        cid: ConnectionId::new(&[n; 8]).unwrap(),
        reset_token: [n; 16],
    };
    peer.dcids.clear();
    let heard = say(&mut host, &mut peer, port(1), &[frames(&[cid(1), cid(2)]), ping()].concat());
    assert_eq!(remote(&mut host), port(1));
    assert!(challenge(&heard, port(1)).is_some());
    for ((to, ..), dcid) in heard.iter().zip(&peer.dcids) {
        let new = dcid.iter().all(|byte| *byte == 1);
        assert_eq!(new, *to == port(1), "to {to} with {dcid:?}");
    }
    let mut answer = challenge(&heard, port(1));
    while let Some(data) = answer {
        let heard = say(&mut host, &mut peer, port(1), &response(data));
        answer = challenge(&heard, port(1));
    }
    // Once the former path is given up, its ID is retired (§5.1.2).
    let out = host.wait(Duration::from_secs(15));
    read(&mut peer, &out);
    assert!(peer.retired.contains(&0), "{:?}", peer.retired);
}

/// A client with one ID for another path, which it has not used yet: its own two for the server.
fn with_two_ids() -> (Host, Peer, [ConnectionId; 2]) {
    let (mut host, mut peer) = against_server(small());
    let cid = ConnectionId::new(&[1; 8]).unwrap();
    let frame = Frame::NewConnectionId { seq: 1, retire_prior_to: 0, cid, reset_token: [1; 16] };
    say(&mut host, &mut peer, client_addr(), &frames(&[frame]));
    let ids = [peer.remote_cid, peer.issued[0].1];
    (host, peer, ids)
}

/// Whether each datagram that the peer has heard of went to its second ID.
fn to_second<'a>(heard: &'a [Heard], peer: &'a Peer) -> impl Iterator<Item = (SocketAddr, bool)> + 'a {
    heard.iter().zip(&peer.dcids).map(|((to, ..), dcid)| (*to, dcid.iter().all(|byte| *byte == 1)))
}

/// RFC 9000 §9.5: which ID a path has depends on the ID that the client uses on it, and not on its address, which NATs and
/// attackers change.
#[test]
fn an_address_that_belongs_to_another_path_by_now_has_the_id_of_that() {
    let (mut host, mut peer, [_, second]) = with_two_ids();
    // A probe comes by another address of the first path, and the client moves.
    say(&mut host, &mut peer, port(1), &frames(&[Frame::PathChallenge([9; 8])]));
    peer.remote_cid = second;
    follow(&mut host, &mut peer, self::host(1));
    peer.dcids.clear();
    let long = [ping(), vec![0; 500]].concat();
    let heard = [(); 2].map(|()| say(&mut host, &mut peer, port(1), &long)).concat();
    assert!(heard.iter().any(|(to, ..)| *to == port(1)), "{heard:?}");
    assert!(to_second(&heard, &peer).all(|(_, second)| second), "{heard:?} {:?}", peer.dcids);
}

#[test]
fn a_path_that_a_nat_has_rebound_while_it_was_not_in_use_needs_no_other_id() {
    let (mut host, mut peer, [first, second]) = with_two_ids();
    peer.remote_cid = second;
    follow(&mut host, &mut peer, self::host(1));
    peer.remote_cid = first;
    peer.dcids.clear();
    let heard = say(&mut host, &mut peer, port(2), &ping());
    assert_eq!(remote(&mut host), port(2));
    assert!(challenge(&heard, port(2)).is_some());
    assert!(to_second(&heard, &peer).all(|(to, second)| second == (to == self::host(1))), "{heard:?} {:?}", peer.dcids);
}

/// RFC 9000 §9.4: what was learned of a path is kept if only the port changes, and not for another host.
#[test]
fn another_host_is_another_path() {
    for (to, same) in [(port(1), true), (host(1), false)] {
        let (mut host, mut peer) = against_server(TransportConfig::default());
        // Some round trips.
        for n in 0..20 {
            host.now += Duration::from_millis(30);
            let id = host.conn.unwrap();
            let mut conn = host.endpoint.conn(id).unwrap();
            let stream = StreamId::new(Side::Server, gannet::quic::Dir::Uni, 0);
            let data = gannet::quic::SendData::Bytes(vec![0; 1000].into());
            let stream = if n == 0 { conn.open(gannet::quic::Dir::Uni).unwrap() } else { stream };
            conn.send(stream, data, false).unwrap();
            hear(&mut host, &mut peer);
            host.now += Duration::from_millis(30);
            let ack = peer.ack(DATA);
            say(&mut host, &mut peer, client_addr(), &ack);
        }
        let id = host.conn.unwrap();
        let before = host.endpoint.conn(id).unwrap().stats();
        follow(&mut host, &mut peer, to);
        let after = host.endpoint.conn(id).unwrap().stats();
        assert_eq!(after.srtt == before.srtt, same, "{:?} {:?}", before.srtt, after.srtt);
        assert_eq!(after.migrations, 1);
        if !same {
            assert_eq!(after.srtt, Duration::from_millis(333));
        }
    }
}

/// RFC 9000 §9.3.1: whatever is waiting to be sent, in whatever bursts.
#[test]
fn data_for_an_unvalidated_address_stays_within_its_budget() {
    for to in [port(1), host(1)] {
        let (mut host, mut peer) = against_server(TransportConfig::default());
        let id = host.conn.unwrap();
        let mut conn = host.endpoint.conn(id).unwrap();
        let stream = conn.open(gannet::quic::Dir::Uni).unwrap();
        conn.send(stream, gannet::quic::SendData::Bytes(vec![0; 4 << 20].into()), false).unwrap();
        for _ in 0..4 {
            host.now += Duration::from_millis(20);
            hear(&mut host, &mut peer);
            let ack = peer.ack(DATA);
            say(&mut host, &mut peer, client_addr(), &ack);
        }
        let (mut came, mut sent) = (0, 0);
        for n in 0..20 {
            let mut payload = peer.ack(DATA);
            payload.resize(30 + 60 * n, 0);
            let mut datagram = peer.packet(DATA, &payload);
            came += datagram.len();
            host.receive_from(to, &mut datagram);
            let out = host.wait(Duration::from_millis(10));
            sent += out.iter().filter(|(transmit, _)| transmit.remote == to).map(|(_, data)| data.len()).sum::<usize>();
            read(&mut peer, &out);
            assert!(sent <= 3 * came, "{sent} bytes for {came}");
        }
        assert!(sent > came, "{sent} bytes for {came}: it is used");
    }
}

/// RFC 9000 §9: "If a client receives packets from an unknown server address, the client MUST discard these packets."
#[test]
fn a_client_does_not_follow_its_server() {
    let (mut host, mut peer) = against_client(small());
    let before = host.drops(DropReason::WrongPath);
    for n in 0..10 {
        let mut datagram = peer.packet(DATA, &ping());
        host.receive_from(self::host(n), &mut datagram);
        assert!(host.run().is_empty());
    }
    assert_eq!(host.drops(DropReason::WrongPath), before + 10);
    assert!(!say(&mut host, &mut peer, server_addr(), &ping()).is_empty());
    assert_eq!(remote(&mut host), server_addr());
}

fn migrate(host: &mut Host, to: SocketAddr) -> Result<(), MigrateError> {
    let id = host.conn.unwrap();
    host.endpoint.conn(id).unwrap().migrate(to)
}

fn with_id(n: u8) -> Vec<u8> {
    let cid = ConnectionId::new(&[n; 8]).unwrap();
    frames(&[Frame::NewConnectionId { seq: n.into(), retire_prior_to: 0, cid, reset_token: [n; 16] }])
}

/// RFC 9000 §9: not before the handshake is confirmed, not against the server's wish, not without an ID.
#[test]
fn a_client_moves_only_when_it_may() {
    let (mut host, mut peer) = waiting_client(small());
    assert_eq!(migrate(&mut host, port(1)), Err(MigrateError::NotConfirmed));
    exchange(&mut host, &mut peer);
    assert_eq!(migrate(&mut host, port(1)), Err(MigrateError::NotConfirmed), "complete, but not confirmed");
    say(&mut host, &mut peer, server_addr(), &frames(&[Frame::HandshakeDone]));
    assert_eq!(migrate(&mut host, client_addr()), Err(MigrateError::InUse));
    assert_eq!(migrate(&mut host, "[2001:db8::1]:5".parse().unwrap()), Err(MigrateError::Family));
    assert_eq!(migrate(&mut host, port(1)), Err(MigrateError::NoId));
    say(&mut host, &mut peer, server_addr(), &with_id(1));
    migrate(&mut host, port(1)).unwrap();
    peer.dcids.clear();
    let sent = host.run();
    assert!(sent.iter().all(|(transmit, datagram)| transmit.local == port(1) && datagram.len() == 1200));
    read(&mut peer, &sent);
    assert!(!peer.dcids.is_empty() && peer.dcids.iter().all(|dcid| **dcid == [1; 8]), "a new ID: {:?}", peer.dcids);
    assert_eq!(migrate(&mut host, port(2)), Err(MigrateError::NoId));

    let refuses = |params: TransportParameters| {
        let mut host = Host::client(small());
        let first = host.run();
        let mut peer = Peer::server(server_addr(), &first[0].1, |own| {
            let mut own = own;
            own.disable_active_migration = params.disable_active_migration;
            own.to_bytes()
        });
        first.iter().for_each(|(_, datagram)| peer.receive(datagram));
        exchange(&mut host, &mut peer);
        say(&mut host, &mut peer, server_addr(), &frames(&[Frame::HandshakeDone]));
        say(&mut host, &mut peer, server_addr(), &with_id(1));
        migrate(&mut host, port(1))
    };
    assert_eq!(refuses(generous()), Ok(()));
    let disabled = TransportParameters { disable_active_migration: true, ..generous() };
    assert_eq!(refuses(disabled), Err(MigrateError::Disabled));
    let (mut host, _) = against_server(small());
    assert_eq!(migrate(&mut host, port(1)), Err(MigrateError::Server));
}

/// A client in the middle of its handshake gets another address from its NAT: its last handshake packet comes from
/// there, and the server follows.
#[test]
fn a_client_that_finishes_its_handshake_from_elsewhere_is_served() {
    let mut host = Host::server(small());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    let first: Vec<_> = peer.out.drain(..).collect();
    first.into_iter().for_each(|datagram| host.receive(datagram));
    hear(&mut host, &mut peer);
    let finished: Vec<_> = peer.out.drain(..).collect();
    assert!(!finished.is_empty());
    for mut datagram in finished {
        host.receive_from(port(1), &mut datagram);
    }
    let heard = hear(&mut host, &mut peer);
    assert_eq!(remote(&mut host), port(1));
    let data = challenge(&heard, port(1)).expect("the new address is validated");
    let heard = say(&mut host, &mut peer, port(1), &response(data));
    if let Some(data) = challenge(&heard, port(1)) {
        say(&mut host, &mut peer, port(1), &response(data));
    }
    assert!(peer.handshake_done && host.closed().is_none());
    assert_eq!(migrated(&mut host), [port(1)]);
    // Nothing of the first address is left in the tables.
    host.wait(Duration::from_secs(60));
    assert_eq!(host.endpoint.connection_count(), 0);
}

/// RFC 9000 §10.3.1: a stateless reset comes with the token of the ID in use, from the address in use.
#[test]
fn resets_are_recognised_after_a_move() {
    let (mut host, mut peer) = against_server(small());
    say(&mut host, &mut peer, client_addr(), &[with_id(1), with_id(2)].concat());
    peer.remote_cid = peer.issued[0].1;
    follow(&mut host, &mut peer, port(1));
    let reset = |n: u8| [&[0x41; 30][..], &[n; 16]].concat();
    for (from, token) in [(port(1), 2), (client_addr(), 1), (port(3), 1)] {
        host.receive_from(from, &mut reset(token));
        host.run();
        assert!(host.closed().is_none(), "token {token} from {from}");
    }
    host.receive_from(port(1), &mut reset(1));
    host.run();
    assert!(host.closed().is_some());
}

/// The same with the ID of a path that is not in use, from the address there, as long as the path is known.
#[test]
fn resets_are_recognised_on_every_path() {
    let reset = |n: u8| [&[0x41; 30][..], &[n; 16]].concat();
    let [soon, late] = [1, 20].map(Duration::from_secs);
    for (from, token, after, believed) in [
        (port(1), 1, Duration::ZERO, true),
        (port(1), 2, Duration::ZERO, false),
        (port(2), 1, Duration::ZERO, false),
        (client_addr(), 1, Duration::ZERO, false),
        (port(1), 1, soon, true),
        (port(1), 1, late, false),
    ] {
        let (mut host, mut peer) = against_server(small());
        say(&mut host, &mut peer, client_addr(), &[with_id(1), with_id(2)].concat());
        peer.remote_cid = peer.issued[0].1;
        say(&mut host, &mut peer, port(1), &frames(&[Frame::PathChallenge([1; 8])]));
        assert_eq!(remote(&mut host), client_addr(), "it is a probe");
        host.wait(after);
        host.receive_from(from, &mut reset(token));
        host.run();
        let ended = host.closed() == Some(&CloseReason::StatelessReset);
        assert_eq!(ended, believed, "token {token} from {from} after {after:?}");
    }
}

#[test]
fn a_gap_in_the_numbers_does_not_hide_a_move() {
    // Packets with a chosen number: a gap in the numbers does not matter.
    let (mut host, mut peer) = against_server(small());
    let mut datagram = peer.shaped(DATA, &ping(), Shape { pn: Some(1000), ..Shape::default() });
    host.receive_from(port(1), &mut datagram);
    hear(&mut host, &mut peer);
    assert_eq!(remote(&mut host), port(1));
    assert!(host.closed().is_none());
}

/// RFC 9000 §18.2: "A server that chooses a zero-length connection ID MUST NOT provide a preferred address."
#[test]
fn a_server_without_ids_has_no_preferred_address() {
    for (len, offers, want) in
        [(0, true, Some(TransportError::TRANSPORT_PARAMETER_ERROR)), (0, false, None), (8, true, None)]
    {
        let mut host = Host::client(small());
        let first = host.run();
        let odcid = header::parse(&first[0].1, 8).unwrap().dcid;
        let preferred = Preferred {
            v4: Some("192.0.2.77:443".parse().unwrap()),
            v6: None,
            cid: ConnectionId::new(&[9; 8]).unwrap(),
            token: [9; 16],
        };
        let local = ConnectionId::new(&[7; 20][..len]).unwrap();
        let mut peer = Peer::server_with(server_addr(), &first[0].1, local, odcid, |own| {
            TransportParameters { preferred_address: Some(preferred).filter(|_| offers), ..own }.to_bytes()
        });
        first.iter().for_each(|(_, datagram)| peer.receive(datagram));
        exchange(&mut host, &mut peer);
        assert_eq!(host.error(), want, "{len} {offers}: {:?}", host.closed());
    }
}

/// RFC 9000 §9.3: "After verifying a new client address, the server SHOULD send new address validation tokens".
#[test]
fn a_validated_address_gets_tokens() {
    let (mut host, mut peer) = against_server(small());
    let before = peer.new_tokens.len();
    let mut heard = say(&mut host, &mut peer, port(1), &ping());
    while let Some(data) = challenge(&heard, port(1)) {
        assert_eq!(peer.new_tokens.len(), before, "the address is not validated yet");
        heard = say(&mut host, &mut peer, port(1), &response(data));
    }
    let out = host.wait(Duration::from_millis(100));
    read(&mut peer, &out);
    assert!(peer.new_tokens.len() > before);
}
