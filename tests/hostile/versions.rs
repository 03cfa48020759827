//! Versions and their negotiation (RFC 9000 §6, RFC 8999 §6, RFC 9368, RFC 9369).

use std::net::SocketAddr;

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::quic::{CloseReason, EndpointConfig, TransportConfig};
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::header;
use gannet::wire::quic::version::{Version, Versions, is_reserved};

use super::peer::{DATA, Peer, frames};
use super::world::{Host, client_addr, endpoint_config, exchange, small, waiting_client};

/// A server's answer to `first` that lists `versions`.
fn negotiation(first: &[u8], versions: &[u32]) -> Vec<u8> {
    let first = header::parse(first, 8).unwrap();
    let mut out = vec![0; 100];
    let len = header::encode_version_negotiation(&mut out, 0, &first.scid, &first.dcid, versions).unwrap();
    out.truncate(len);
    out
}

/// Whether a client gives up when its first packet is answered by `answer`.
fn gives_up(answer: impl FnOnce(&[u8]) -> Vec<u8>) -> bool {
    let mut host = Host::client(small());
    let first = host.run();
    host.receive(answer(&first[0].1));
    host.run();
    match host.closed() {
        None => false,
        Some(reason) => {
            assert_eq!(*reason, CloseReason::VersionMismatch);
            true
        }
    }
}

/// Until 2026-11, a packet that lists no version at all ended the attempt, although anyone who sees the client's first
/// packet could send it ("An endpoint MUST ignore a packet that contains no Supported Version fields or contains a
/// truncated Supported Version value").
#[test]
fn only_a_list_without_our_version_ends_the_attempt() {
    assert!(gives_up(|first| negotiation(first, &[2, 0x0a0a_0a0a])));
    assert!(!gives_up(|first| negotiation(first, &[2, 1])));
    assert!(!gives_up(|first| negotiation(first, &[])));
    for cut in 1..4 {
        assert!(!gives_up(|first| {
            let mut answer = negotiation(first, &[2, 3]);
            answer.truncate(answer.len() - cut);
            answer
        }));
    }
    assert!(
        !gives_up(|first| {
            let mut other = first.to_vec();
            other[6] ^= 1;
            negotiation(&other, &[2])
        }),
        "another connection's"
    );
}

/// Version 2 with a peer whose packet protection is that of rustls (RFC 9369 §3), to the first key updates.
#[test]
fn version_2_is_spoken_with_both_sides() {
    let v2 = || TransportConfig { versions: Version::V2.into(), ..small() };
    let (mut host, mut peer) = waiting_client(v2());
    assert_eq!(peer.version, Version::V2);
    exchange(&mut host, &mut peer);
    check_version_2(&mut host, &mut peer);

    let mut host = Host::server(v2());
    let mut peer = Peer::client_of(Version::V2, client_addr(), 1, |params| params.to_bytes());
    exchange(&mut host, &mut peer);
    check_version_2(&mut host, &mut peer);
}

fn check_version_2(host: &mut Host, peer: &mut Peer) {
    assert!(peer.is_connected() && host.closed().is_none());
    assert_eq!(host.endpoint.stats().handshakes_v2, 1);
    let id = host.conn.unwrap();
    assert_eq!(host.endpoint.conn(id).unwrap().stats().version, Version::V2);
    for updates in 1..=3 {
        let ping = frames(&[Frame::Ping]);
        peer.update_keys();
        let packet = peer.packet(DATA, &ping);
        host.receive(packet);
        let before = peer.packets;
        host.wait(Duration::from_secs(1)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert!(peer.packets > before && host.closed().is_none());
        assert_eq!(host.endpoint.conn(id).unwrap().stats().key_updates, updates);
        // It keeps the keys before these for a while (RFC 9001 §6.5).
        let ack = peer.ack(DATA);
        let packet = peer.packet(DATA, &ack);
        host.receive(packet);
        host.wait(Duration::from_secs(2)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
}

/// RFC 9000 §6.1, §17.2.1, RFC 9368 §2.1: servers list all versions that they accept, and one that does not exist. What
/// is wrong with a packet in a version that is not accepted does not matter.
#[test]
fn servers_list_their_versions() {
    let numbers = |versions: &[Version]| versions.iter().map(|version| version.number()).collect::<Vec<_>>();
    for versions in [&[Version::V1][..], &[Version::V2], &[Version::V2, Version::V1]] {
        for grease in [true, false] {
            let transport = TransportConfig { versions: Versions::new(versions).unwrap(), ..small() };
            let config = EndpointConfig { grease, ..endpoint_config(Side::Server) };
            let mut host = Host::server_with(config, transport);
            let (dcid, scid) = ([7; 30], [8; 255]);
            let mut places = [0; 4];
            for n in 0..40 {
                let refused = Version::ALL.into_iter().find(|version| !versions.contains(version));
                let version = refused.filter(|_| n % 2 == 0).map_or(0x1a2a_3a4a, Version::number);
                let mut first = [&[0xc0][..], &version.to_be_bytes(), &[30], &dcid, &[255], &scid].concat();
                first.resize(1200, 0);
                host.receive(first);
                let out = host.run();
                let [(_, answer)] = &out[..] else { panic!("{} answers", out.len()) };
                assert!(answer[0] & 0xc0 == 0xc0 && answer[1..5] == [0; 4], "{answer:x?}");
                assert_eq!(header::raw_cids(answer), Some((&scid[..], &dcid[..])));
                let listed: Vec<u32> = header::versions(answer).collect();
                let real: Vec<u32> = listed.iter().copied().filter(|version| !is_reserved(*version)).collect();
                assert_eq!(real, numbers(versions), "in order of preference");
                assert_eq!(listed.len(), real.len() + usize::from(grease));
                let place = listed.iter().position(|version| is_reserved(*version)).unwrap_or(3);
                places[place] += 1;
            }
            let expected = if grease { 0..versions.len() + 1 } else { 3..4 };
            assert_eq!((0..4).filter(|place| places[*place] > 0).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            assert_eq!(host.endpoint.stats().negotiations_sent, 40);
        }
    }
}

/// What is not answered: datagrams that are too small, Version Negotiation itself (RFC 9000 §6.1), and anything that a
/// client receives (RFC 9368 §2.1). Nor is there an endless number of answers.
#[test]
fn version_negotiation_cannot_be_abused() {
    let mut host = Host::server(small());
    let datagram = |version: u32, len: usize| {
        let mut datagram = [&[0xc0][..], &version.to_be_bytes(), &[8], &[7; 8], &[8], &[8; 8]].concat();
        datagram.resize(len, 0);
        datagram
    };
    for (version, len) in [(0x1a2a_3a4a, 1199), (0x1a2a_3a4a, 30), (0, 1202), (0, 1203)] {
        host.receive(datagram(version, len));
        assert!(host.run().is_empty(), "{version:x} {len}");
    }
    let mut client = Host::client(small());
    client.run();
    client.receive(datagram(0x1a2a_3a4a, 1200));
    assert!(client.run().is_empty() && client.closed().is_none());

    // A flood for one second: 100 are allowed at once, and 100 in each second.
    let (mut sent, mut received, mut count) = (0, 0, 0);
    for n in 0..10_000u64 {
        host.now += Duration::from_micros(100);
        received += 1200;
        host.receive_from(SocketAddr::from(([198, 51, 100, 1], n as u16)), &mut datagram(0x1a2a_3a4a, 1200));
        for (_, answer) in host.run() {
            (sent, count) = (sent + answer.len(), count + 1);
        }
    }
    assert!((199..=200).contains(&count), "{count} answers");
    assert!(sent < received / 1000, "{sent} bytes for {received}");
    assert_eq!((host.endpoint.connection_count(), host.endpoint.stats().connections_opened), (0, 0));
}

#[test]
fn once_a_server_was_heard_the_version_is_settled() {
    let (mut host, mut peer) = waiting_client(small());
    let (local, remote) = (peer.remote_cid, peer.original_dcid);
    host.receive(peer.out.remove(0));
    let mut late = vec![0; 100];
    let len = header::encode_version_negotiation(&mut late, 0, &local, &remote, &[2]).unwrap();
    late.truncate(len);
    host.receive(late);
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
}
