//! An ID and a reset token belong to one connection, once; only their owner answers for them (RFC 9000 §5.1, §10.3,
//! §21.11).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gannet::base::Side;
use gannet::mem::BufPool;
use gannet::quic::{CidConfig, CloseReason, DropReason, Endpoint, EndpointConfig, SendData, ServerConfig};
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::header;
use gannet::wire::quic::params::TransportParameters;
use gannet::wire::quic::{ConnectionId, TransportError};

use super::peer::{DATA, Peer, Shape, frames};
use super::world::{
    CLIENT_TLS, Host, SERVER_TLS, against_client, against_server, client_addr, endpoint_config, exchange, own_id,
    server_addr, small,
};

fn retire(seq: u64) -> Vec<u8> {
    frames(&[Frame::RetireConnectionId { seq }])
}

fn to(dcid: ConnectionId) -> Shape {
    Shape { dcid: Some(dcid), ..Shape::default() }
}

/// A server with these settings.
fn server(config: EndpointConfig) -> Host {
    let server = ServerConfig::new(SERVER_TLS.clone(), Arc::new(small())).unwrap();
    Host::new(Side::Server, Endpoint::new(config, Some(server), BufPool::heap()))
}

/// Ends all connections at once and silently, as a crash would.
fn forget(host: &mut Host) {
    host.endpoint.abandon_all();
    host.run();
    host.events.clear();
    assert_eq!(host.endpoint.connection_count(), 0);
}

/// The stateless resets among the datagrams.
fn resets(out: &[(gannet::quic::Transmit, Vec<u8>)]) -> Vec<&[u8]> {
    out.iter().filter(|(transmit, _)| transmit.conn.is_none()).map(|(_, datagram)| &datagram[..]).collect()
}

/// A client that has retired ID 0 in a packet to another one; returns the old ID.
fn with_a_retired_id() -> (Host, Peer, ConnectionId) {
    let (mut host, mut peer) = against_server(small());
    assert_eq!(peer.issued.len(), 3, "{:?}", peer.issued);
    let (old, (_, next)) = (peer.remote_cid, peer.issued[0]);
    peer.remote_cid = next;
    let datagram = peer.packet(DATA, &retire(0));
    host.receive(datagram);
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.issued.len(), 4, "another one in its place");
    (host, peer, old)
}

#[test]
fn packets_to_an_id_that_was_retired_a_moment_ago_are_taken() {
    let (mut host, mut peer, old) = with_a_retired_id();
    let before = host.endpoint.stats().rx_packets;
    let late = peer.shaped(DATA, &[0x01], to(old));
    host.receive(late);
    assert_eq!(host.endpoint.stats().rx_packets, before + 1);
    host.wait(Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.acked, Some(peer.pn[DATA] - 1));
    assert!(host.closed().is_none());
}

#[test]
fn a_retired_id_leads_nowhere_after_that_and_is_not_answered_while_the_connection_lives() {
    let (mut host, mut peer, old) = with_a_retired_id();
    host.wait(Duration::from_secs(5)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let before = host.endpoint.stats().rx_packets;
    let stale = peer.shaped(DATA, &[0x01; 60], to(old));
    host.receive(stale);
    assert_eq!(host.endpoint.stats().rx_packets, before, "it must not be read");
    assert_eq!((host.run().len(), host.endpoint.stats().resets_sent), (0, 0));
    assert_eq!(host.drops(DropReason::RetiredId), 1);
    // The same for an ID not issued yet: its token must not be available before the ID.
    let next = own_id(&endpoint_config(Side::Server), 0, 0, 5);
    let early = peer.shaped(DATA, &[0x01; 60], to(next));
    host.receive(early);
    assert_eq!((host.run().len(), host.drops(DropReason::RetiredId)), (0, 2));
    let datagram = peer.packet(DATA, &[0x01]);
    host.receive(datagram);
    host.wait(Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.acked, Some(peer.pn[DATA] - 1));
    assert!(host.closed().is_none());
    // When the connection is gone, the answer is due, with the token of that very ID.
    forget(&mut host);
    for (id, token) in peer.tokens.clone() {
        let datagram = peer.shaped(DATA, &[0x01; 60], to(id));
        host.receive(datagram);
        let out = host.run();
        assert!(matches!(resets(&out)[..], [reset] if reset.ends_with(&token) && reset.len() < 60));
    }
}

/// RFC 9000 §5.1.1: a peer gets no more IDs than it takes, also when it gives some up.
#[test]
fn a_peer_gets_no_more_ids_than_it_takes() {
    for (takes, gets) in [(2, 2), (3, 3), (4, 4), (1000, 4)] {
        let mut host = Host::server(small());
        let params = |params| TransportParameters { active_connection_id_limit: takes, ..params };
        let mut peer = Peer::client(client_addr(), 1, |usual| params(usual).to_bytes());
        exchange(&mut host, &mut peer);
        assert_eq!(peer.issued.len() + 1, gets, "of {takes}");
        peer.remote_cid = peer.issued[0].1;
        let datagram = peer.packet(DATA, &retire(0));
        host.receive(datagram);
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert_eq!(peer.issued.len(), gets, "one more, in its place");
        host.wait(Duration::from_secs(1)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        let issued: HashSet<_> = peer.issued.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(issued.len(), gets);
    }
}

/// Cores share the keys. An ID at the wrong core means that the NIC has dispatched it wrongly, not that the connection
/// is gone.
#[test]
fn ids_of_other_cores_and_other_forms_are_not_answered() {
    let (_, mut peer) = against_server(small());
    let mine = endpoint_config(Side::Server);
    let mut other = server(EndpointConfig { core: mine.core + 1, ..mine.clone() });
    let alike = Peer::client(client_addr(), 3, |p| p.to_bytes()).out.remove(0);
    other.receive(alike);
    other.run();
    let before = other.endpoint.stats().resets_sent;
    for (id, _) in peer.issued.clone().into_iter().map(|(_, id)| (id, ())) {
        let datagram = peer.shaped(DATA, &[1; 40], to(id));
        other.receive(datagram);
    }
    assert!(resets(&other.run()).is_empty() && other.endpoint.stats().resets_sent == before);
    assert_eq!(other.drops(DropReason::ForeignId), 3);
    // Another form, and another server's ID.
    for form in [CidConfig::unrouted(17).unwrap(), CidConfig::routed(2, &[8], 9, Some(&[5; 16])).unwrap()] {
        let mut other = server(EndpointConfig { cid: form, ..mine.clone() });
        let datagram = peer.shaped(DATA, &[1; 60], to(peer.remote_cid));
        other.receive(datagram);
        assert_eq!((other.run().len(), other.drops(DropReason::ForeignId)), (0, 1));
    }
}

/// A server that crashed and was restarted with its secret, and one without.
#[test]
fn a_restarted_server_answers_for_its_former_self() {
    // One of several cores restarts as one of fewer: the old ones used to be forgotten.
    let cases =
        [(1, true, (0, 1), (0, 1)), (2, false, (0, 1), (0, 1)), (1, true, (3, 4), (1, 2)), (1, true, (1, 2), (0, 1))];
    for (secret, believed, (old, of_old), (new, of_new)) in cases {
        let config = |secret: u8, seed| EndpointConfig {
            max_connections: 100,
            ..EndpointConfig::from_secret(&[secret; 32].into(), [seed; 32])
        };
        let mut before = server(config(1, 1).for_core(old, of_old));
        let mut client = Host::client(small());
        for _ in 0..10 {
            let said = client.run();
            said.into_iter().for_each(|(_, datagram)| before.receive(datagram));
            before.run().into_iter().for_each(|(_, datagram)| client.receive(datagram));
        }
        assert!(client.endpoint.conn(client.conn.unwrap()).unwrap().stats().handshake_time.is_some());
        let mut after = server(config(secret, 2).for_core(new, of_new));
        let conn = client.conn.unwrap();
        let stream = client.endpoint.conn(conn).unwrap().open(gannet::quic::Dir::Bidi).unwrap();
        client.endpoint.conn(conn).unwrap().send(stream, SendData::Static(&[1; 500]), false).unwrap();
        client.run().into_iter().for_each(|(_, datagram)| after.receive(datagram));
        after.run().into_iter().for_each(|(_, datagram)| client.receive(datagram));
        client.poll();
        assert_eq!(client.closed() == Some(&CloseReason::StatelessReset), believed, "{:?}", client.closed());
    }
}

/// The first IDs of `count` consecutive connections.
fn ids_of(host: &mut Host, count: u32) -> HashSet<Vec<u8>> {
    let config = gannet::quic::ClientConfig::new(CLIENT_TLS.clone(), Arc::new(small())).unwrap();
    let (mut slot, mut ids) = (vec![0; 2048], HashSet::new());
    for n in 0..count {
        host.endpoint.connect(host.now, &config, "sim", client_addr(), server_addr()).unwrap();
        while let Some(transmit) = host.endpoint.poll_transmit(host.now, &mut slot) {
            let scid = header::parse(&slot[..transmit.len], 0).unwrap().scid;
            assert!(ids.insert(scid.to_vec()), "{scid:?} again, at connection {n}");
        }
        host.endpoint.abandon_all();
        while host.endpoint.poll_event().is_some() {}
        while host.endpoint.poll_transmit(host.now, &mut slot).is_some() {}
    }
    ids
}

/// After 65,536 connections, the IDs and tokens of the first used to be those of the last.
#[test]
fn a_place_is_used_many_times_and_its_ids_never_come_back() {
    let mut host = Host::client(small());
    host.run();
    forget(&mut host);
    assert_eq!(ids_of(&mut host, 66_000).len(), 66_000);
}

/// The client keeps moving to new IDs and retires the ones before. Its sequence numbers may reach 2^16.
fn wear_out(host: &mut Host, peer: &mut Peer, rounds: u32) -> HashSet<Vec<u8>> {
    let mut ids: HashSet<Vec<u8>> = [peer.remote_cid.to_vec()].into();
    let mut tokens = HashSet::new();
    let mut used = 0;
    for _ in 0..rounds {
        let Some(&(newest, id)) = peer.issued.iter().max_by_key(|(seq, _)| *seq) else { break };
        for ((_, id), (_, token)) in peer.issued.drain(..).zip(peer.tokens.drain(..)) {
            assert!(ids.insert(id.to_vec()) && tokens.insert(token), "an ID or a token comes again");
        }
        let old: Vec<u8> = (used..newest).flat_map(retire).collect();
        (used, peer.remote_cid) = (newest, id);
        let datagram = peer.packet(DATA, &old);
        host.receive(datagram);
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        let ack = peer.ack(DATA);
        let datagram = peer.packet(DATA, &ack);
        host.receive(datagram);
        host.events.retain(|(_, event)| matches!(event, gannet::quic::Event::Closed { .. }));
    }
    ids
}

/// Sequence numbers used to be truncated: ID 256 was ID 0.
#[test]
fn sequence_numbers_are_not_cut() {
    let (mut host, mut peer) = against_server(small());
    let ids = wear_out(&mut host, &mut peer, 400);
    assert!(ids.len() > 1000 && host.closed().is_none(), "{} IDs, {:?}", ids.len(), host.closed());
    // ID 0 was retired long ago; an ID in use with the same low byte is not taken for it.
    let config = endpoint_config(Side::Server);
    let stale = peer.shaped(DATA, &[1; 40], to(own_id(&config, 0, 0, 0)));
    host.wait(Duration::from_secs(5));
    let before = host.endpoint.stats().rx_packets;
    host.receive(stale);
    assert_eq!(host.endpoint.stats().rx_packets, before);
}

#[test]
fn a_connection_without_sequence_numbers_closes() {
    let (mut host, mut peer) = against_server(small());
    let ids = wear_out(&mut host, &mut peer, 1 << 16);
    assert_eq!(ids.len(), 1 << 16, "every one was given once");
    assert_eq!(host.error(), Some(TransportError::NO_ERROR), "{:?}", host.closed());
    assert_eq!(peer.close.as_ref().map(|close| close.code), Some(TransportError::NO_ERROR));
}

fn reset(first: u8, token: [u8; 16]) -> Vec<u8> {
    let mut datagram: Vec<u8> = (0..26u8).map(|i| i.wrapping_mul(37)).collect();
    datagram[0] = first;
    datagram.extend_from_slice(&token);
    datagram
}

/// RFC 9000 §10.3 and §10.3.1: whatever ends in the token of the ID in use is a reset, in whatever form. Tokens of IDs
/// that are not used yet or are retired mean nothing, nor do tokens from elsewhere.
#[test]
fn tokens_mean_the_id_in_use_and_its_peer() {
    let new_id = |seq: u64, prior: u64| {
        let cid = ConnectionId::new(&[seq as u8; 8]).unwrap();
        let reset_token = [seq as u8; 16];
        frames(&[Frame::NewConnectionId { seq, retire_prior_to: prior, cid, reset_token }])
    };
    // First bytes: a short header, without the fixed bit, a long header of version 0x25..., of a Handshake packet.
    for first in [0x41, 0x01, 0xc3, 0xe3] {
        let (mut host, mut peer) = against_client(small());
        let datagram = peer.packet(DATA, &[new_id(1, 0), new_id(2, 1), new_id(3, 1)].concat());
        host.receive(datagram);
        host.run();
        for (token, from) in [(3, server_addr()), (0, server_addr()), (1, client_addr())] {
            host.receive_from(from, &mut reset(first, [token; 16]));
            host.run();
            assert!(host.closed().is_none(), "token {token} from {from}");
        }
        host.receive(reset(first, [1; 16]));
        host.run();
        assert_eq!(host.closed(), Some(&CloseReason::StatelessReset), "first byte {first:#x}");
    }
}

/// Nothing that one client knows is of use against the next one in the same place.
#[test]
fn the_next_connection_in_a_place_has_other_ids_and_tokens() {
    let mut host = Host::server(small());
    let mut seen = HashSet::new();
    for seed in 1..50 {
        let mut peer = Peer::client(client_addr(), seed, |p| p.to_bytes());
        exchange(&mut host, &mut peer);
        assert!(seen.insert(peer.remote_cid.to_vec()));
        for (id, token) in &peer.tokens {
            assert!(seen.insert(id.to_vec()) && seen.insert(token.to_vec()));
        }
        forget(&mut host);
    }
}

/// RFC 9000 §10.3.3: two hosts that have both lost everything, and by chance take each other's resets for packets of
/// former connections, soon fall silent.
#[test]
fn resets_of_resets_end() {
    let config = endpoint_config(Side::Server);
    let gone: Vec<u8> = own_id(&config, 5, 5, 5).to_vec();
    let mut hosts = [server(config.clone()), server(config)];
    let mut datagram = vec![0x41; 1200];
    let (mut said, mut turn) = (0, 0);
    loop {
        datagram[1..11].copy_from_slice(&gone);
        let len = datagram.len();
        hosts[turn].receive(datagram);
        let out = hosts[turn].run();
        let [(_, answer)] = &out[..] else { break };
        assert!(answer.len() < len && answer.len() <= 42);
        datagram = answer.clone();
        (said, turn) = (said + 1, 1 - turn);
    }
    assert_eq!(said, 22, "42 bytes, one less each time, to 21");
}
