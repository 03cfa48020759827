//! Servers behind QUIC-LB load balancers (draft-ietf-quic-load-balancers-21): what balancers read in their IDs, and what
//! servers do with each other's packets.

use std::sync::Arc;

use gannet::base::Side;
use gannet::mem::BufPool;
use gannet::quic::{CidConfig, DropReason, Endpoint, EndpointConfig, RetryPolicy, ServerConfig, TransportConfig};
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::header::{self, PacketType};

use super::balancer::{Config, bytes};
use super::peer::{DATA, Peer, Shape};
use super::world::{Host, SERVER_TLS, client_addr, exchange, small};

/// Lengths of server ID and nonce, and whether there is a key: single-pass and four-pass encryption with texts of odd and
/// even lengths, server IDs that need the fourth pass, and plaintext.
const FORMS: [(usize, usize, bool); 8] = [
    (1, 15, true),
    (3, 9, true),
    (2, 9, true),
    (10, 9, true),
    (1, 18, true),
    (1, 15, false),
    (4, 9, false),
    (1, 18, false),
];

fn server_id(n: u8, len: usize) -> Vec<u8> {
    vec![n; len]
}

/// The settings of server `n` with this secret, and the load balancers' configuration.
fn form((len, nonce, keyed): (usize, usize, bool), n: u8, secret: u8, seed: u8) -> (EndpointConfig, Config) {
    let key = keyed.then_some([0x6b; 16]);
    let cid = CidConfig::routed(5, &server_id(n, len), nonce, key.as_ref()).unwrap();
    let base = EndpointConfig::from_secret(&[secret; 32].into(), [seed; 32]);
    let config = EndpointConfig { cid, max_connections: 100, ..base };
    (config, Config { rotation: 5, server_id: len, nonce, key })
}

fn server(config: EndpointConfig) -> Host {
    let server = ServerConfig::new(SERVER_TLS.clone(), Arc::new(small())).unwrap();
    Host::new(Side::Server, Endpoint::new(config, Some(server), BufPool::heap()))
}

/// A peer that has connected to `host`.
fn connected(host: &mut Host) -> Peer {
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    exchange(host, &mut peer);
    assert!(peer.is_connected() && peer.handshake_done && host.closed().is_none());
    peer
}

fn ids(peer: &Peer) -> Vec<ConnectionId> {
    std::iter::once(peer.remote_cid).chain(peer.issued.iter().map(|(_, id)| *id)).collect()
}

/// §5.4.2.4, Appendix B.1 (whose second vector is damaged: its nonce has nine digits, its first octet three) and Appendix
/// B.2 (whose fourth is read without the first octet, which is wrong).
#[test]
fn a_load_balancer_reads_the_vectors_of_the_draft() {
    let key = "8f95f09245765f80256934e50c66207f";
    for (key, rotation, server_id, nonce, cid) in [
        ("", 0, "c4605e", "4504cc4f", "07c4605e4504cc4f"),
        ("fdf726a9893ec05c0632d3956680baf0", 0, "31441a", "9c69c275", "0767947d29be054a"),
        (key, 0, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
        (key, 1, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
        (key, 2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
        (key, 0, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
    ] {
        let (server_id, nonce, cid) = (bytes(server_id), bytes(nonce), bytes(cid));
        let key = (!key.is_empty()).then(|| bytes(key).try_into().expect("16 bytes"));
        let config = Config { rotation, server_id: server_id.len(), nonce: nonce.len(), key };
        assert_eq!(config.server_id(&cid), Some(server_id.clone()));
        // The ID of a short header has no length; that of a long header has to be long enough.
        assert_eq!(config.server_id(&[&cid[..], &[9; 30]].concat()), Some(server_id));
        assert_eq!(config.server_id(&cid[..cid.len() - 1]), None);
        assert_eq!(Config { rotation: rotation + 1, ..config }.server_id(&cid), None);
    }
}

/// §5.1: "A server encodes one of its assigned server IDs in any CID it generates". §9: without a key, servers "SHOULD
/// NOT send CIDs in QUIC NEW_CONNECTION_ID frames".
#[test]
fn every_id_leads_to_its_server() {
    for wish in FORMS {
        let (config, balancer) = form(wish, 7, 1, 1);
        let peer = connected(&mut server(config));
        let ids = ids(&peer);
        assert_eq!(ids.len(), if wish.2 { 4 } else { 1 }, "{wish:?}");
        for id in ids {
            assert_eq!(id.len(), 1 + wish.0 + wish.1);
            assert_eq!(id[0], 5 << 5 | (id.len() - 1) as u8, "config rotation bits and length");
            assert_eq!(balancer.server_id(&id), Some(server_id(7, wish.0)), "{wish:?}");
            let stranger = Config { key: Some([0x6c; 16]), ..balancer.clone() };
            // One byte may be the same by accident.
            assert!(wish.0 == 1 || stranger.server_id(&id) != Some(server_id(7, wish.0)), "{wish:?}");
        }
    }
}

/// Sends a client a Retry from `host`. Returns the ID in it, and what the client answers.
fn asked(host: &mut Host) -> (ConnectionId, Vec<Vec<u8>>) {
    let mut client = Host::client(TransportConfig::default());
    client.now = host.now;
    client.run().into_iter().for_each(|(_, datagram)| host.receive(datagram));
    let retry: Vec<_> = host.run().into_iter().map(|(_, datagram)| datagram).collect();
    let parsed = header::parse(&retry[0], 8).unwrap();
    assert_eq!(parsed.kind, PacketType::Retry);
    retry.into_iter().for_each(|datagram| client.receive(datagram));
    let second = client.run().into_iter().map(|(_, datagram)| datagram).collect();
    (parsed.scid, second)
}

#[test]
fn clients_come_back_from_a_retry_to_the_same_server() {
    for wish in FORMS {
        let (config, balancer) = form(wish, 7, 1, 1);
        let mut host = server(EndpointConfig { retry: RetryPolicy::Always, ..config });
        let (other, _) = asked(&mut host);
        let (scid, second) = asked(&mut host);
        assert_ne!(scid, other);
        assert_eq!(balancer.server_id(&scid), Some(server_id(7, wish.0)), "{wish:?}");
        assert_eq!(header::parse(&second[0], 8).unwrap().dcid, scid);
        second.into_iter().for_each(|datagram| host.receive(datagram));
        assert_eq!((host.endpoint.connection_count(), host.endpoint.stats().tokens_accepted), (1, 1), "{wish:?}");
    }
}

/// If a client's second packet nevertheless arrives at another server, that depends on the secret.
#[test]
fn servers_with_one_secret_take_each_others_tokens() {
    for (secret, taken) in [(1, true), (2, false)] {
        let retry = RetryPolicy::Always;
        let mut one = server(EndpointConfig { retry, ..form(FORMS[0], 1, 1, 1).0 });
        let mut other = server(EndpointConfig { retry, ..form(FORMS[0], 2, secret, 2).0 });
        let (_, second) = asked(&mut one);
        other.now = one.now;
        second.into_iter().for_each(|datagram| other.receive(datagram));
        assert_eq!(other.endpoint.connection_count(), usize::from(taken));
        assert_eq!(other.drops(DropReason::BadToken), u64::from(!taken));
    }
}

/// §9.5: a server that answered for another with the same secret would tell anyone the reset tokens of its connections.
#[test]
fn servers_with_one_secret_do_not_reset_each_others_connections() {
    for wish in FORMS {
        let mut host = server(form(wish, 1, 1, 1).0);
        let mut peer = connected(&mut host);
        let mut other = server(form(wish, 2, 1, 2).0);
        connected(&mut other);
        let all = ids(&peer);
        for id in &all {
            let datagram = peer.shaped(DATA, &[0x01; 60], Shape { dcid: Some(*id), ..Shape::default() });
            other.receive(datagram);
        }
        assert_eq!((other.run().len(), other.endpoint.stats().resets_sent), (0, 0), "{wish:?}");
        assert_eq!(other.drops(DropReason::ForeignId), all.len() as u64);
        // The server's own successor does.
        let mut after = server(form(wish, 1, 1, 3).0);
        let datagram = peer.shaped(DATA, &[0x01; 60], Shape::default());
        after.receive(datagram);
        assert_eq!((after.run().len(), after.endpoint.stats().resets_sent), (1, 1), "{wish:?}");
    }
}
