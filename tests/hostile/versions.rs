//! Versions and their negotiation (RFC 9000 §6, RFC 8999 §6, RFC 9368, RFC 9369).

use std::net::SocketAddr;
use std::sync::Arc;

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::crypto::retry_tag;
use gannet::mem::BufPool;
use gannet::quic::{
    ClientConfig, CloseReason, DropReason, Endpoint, EndpointConfig, Event, RetryPolicy, TransportConfig,
};
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::header::{self, PacketType};
use gannet::wire::quic::params::TransportParameters;
use gannet::wire::quic::varint::Reader;
use gannet::wire::quic::version::{Version, Versions, is_reserved};
use gannet::wire::quic::{ConnectionId, TransportError};

use super::peer::{DATA, INITIAL, Peer, Shape, frames};
use super::retry_server::talk;
use super::world::{CLIENT_TLS, Host, client_addr, endpoint_config, exchange, server_addr, small, waiting_client};

/// A server's answer to `first` that lists `versions`.
fn negotiation(first: &[u8], versions: &[u32]) -> Vec<u8> {
    let first = header::parse(first, 8).unwrap();
    let mut out = vec![0; 100];
    // Clients ignore what is in the unused bits (RFC 9000 §17.2.1).
    let unused = first.dcid[0] ^ versions.len() as u8;
    let len = header::encode_version_negotiation(&mut out, unused, &first.scid, &first.dcid, versions).unwrap();
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

/// A client that speaks `versions` and begins with `first`.
fn client(versions: &[Version], first: Version) -> Host {
    let versions = Versions::new(versions).unwrap();
    Host::client(TransportConfig { versions, first_version: Some(first), ..small() })
}

/// The encoded version_information parameter (RFC 9368 §3).
fn information(numbers: &[u32]) -> Vec<u8> {
    raw_information(&numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>())
}

fn raw_information(value: &[u8]) -> Vec<u8> {
    [&[0x11, value.len() as u8][..], value].concat()
}

/// Usual parameters of a peer, followed by others.
fn and<'a>(more: &'a [u8]) -> impl Fn(TransportParameters) -> Vec<u8> + 'a {
    move |params| [&params.to_bytes()[..], more].concat()
}

/// A server that answers the first flight `first` in `version`.
fn server(version: Version, first: &[u8], params: impl FnOnce(TransportParameters) -> Vec<u8>) -> Peer {
    let odcid = header::parse(first, 8).unwrap().dcid;
    let local = ConnectionId::new(&[0x5e; 8]).unwrap();
    let mut peer = Peer::server_of(version, server_addr(), first, local, odcid, params);
    peer.receive(first);
    peer
}

const V1: u32 = 1;
const V2: u32 = 0x6b33_43cf;
const GREASE: u32 = 0xfafa_fafa;

/// RFC 9368 §2.1: the client begins again with a version that the server lists, as a connection with other IDs.
#[test]
fn a_client_begins_again_with_a_version_in_common() {
    let mut host = client(&[Version::V1, Version::V2], Version::V1);
    let first = host.run().remove(0).1;
    host.receive(negotiation(&first, &[GREASE, V2]));
    let second = host.run().remove(0).1;
    let [before, after] = [&first, &second].map(|packet| header::parse(packet, 8).unwrap());
    assert_eq!((before.known_version(), after.known_version()), (Some(Version::V1), Some(Version::V2)));
    assert!(before.dcid != after.dcid && second.len() >= 1200);
    // Late answers to the first attempt, and any to the second (RFC 9368 §4).
    host.receive(negotiation(&first, &[7]));
    host.receive(negotiation(&second, &[V1]));
    host.receive(negotiation(&second, &[7]));
    assert!(host.run().is_empty() && host.closed().is_none());
    let mut peer = server(Version::V2, &second, and(&information(&[V2, V2, GREASE])));
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
    let id = host.conn.unwrap();
    assert_eq!(host.endpoint.conn(id).unwrap().version(), Version::V2);
    assert_eq!(host.endpoint.stats().negotiations_followed, 1);
    // Nothing answers to the first attempt any more.
    assert_eq!(host.endpoint.connection_count(), 1);
}

/// RFC 9368 §4: the server's Version Information must explain the Version Negotiation packet; a server that speaks only
/// version 1 needs none (§8).
#[test]
fn forged_lists_are_found_out() {
    let ending = |versions: &[Version], first: Version, list: &[u32], more: &[u8]| {
        let mut host = client(versions, first);
        let one = host.run().remove(0).1;
        host.receive(negotiation(&one, list));
        let two = host.run().remove(0).1;
        let version = header::parse(&two, 8).unwrap().known_version().unwrap();
        let mut peer = server(version, &two, and(more));
        exchange(&mut host, &mut peer);
        assert_eq!(peer.close.as_ref().map(|close| close.code), host.error());
        host.error()
    };
    let refused = Some(TransportError::VERSION_NEGOTIATION_ERROR);
    let malformed = Some(TransportError::TRANSPORT_PARAMETER_ERROR);
    let prefers_v1 = [Version::V1, Version::V2];
    let to_v2 = |more: &[u8]| ending(&prefers_v1, Version::V1, &[V2], more);
    assert_eq!(to_v2(&information(&[V2, V2])), None);
    assert_eq!(to_v2(&information(&[V2, GREASE])), None);
    assert_eq!(to_v2(&information(&[V2, V1, V2])), refused, "the server speaks version 1");
    assert_eq!(to_v2(&information(&[V2])), refused, "nothing is available");
    assert_eq!(to_v2(&[]), refused, "there is no information");
    assert_eq!(to_v2(&information(&[V1, V2])), refused, "another version than that of the packets");
    assert_eq!(to_v2(&information(&[7, V2])), refused, "never offered");
    assert_eq!(to_v2(&information(&[0, V2])), malformed);
    assert_eq!(to_v2(&information(&[V2, 0])), malformed);
    assert_eq!(to_v2(&raw_information(&[1, 2, 3])), malformed);
    assert_eq!(to_v2(&raw_information(&[])), malformed);
    assert_eq!(to_v2(&raw_information(&[&V2.to_be_bytes()[..], &[1]].concat())), malformed);
    assert_eq!(to_v2(&[information(&[V2, V2]), information(&[V2, V2])].concat()), malformed, "twice");
    let to_v1 = |more: &[u8]| ending(&[Version::V2, Version::V1], Version::V2, &[V1], more);
    assert_eq!((to_v1(&[]), to_v1(&information(&[V1, V1]))), (None, None));
    assert_eq!(to_v1(&information(&[V1, V1, V2])), refused);
}

/// RFC 9368 §2.3, RFC 9369 §4.1: the server answers in a version that it prefers.
#[test]
fn a_client_follows_its_server_to_a_compatible_version() {
    let [v1, v2] = Version::ALL;
    for (first, answer) in [(v1, v2), (v2, v1)] {
        for versions in [[v1, v2], [v2, v1]] {
            let mut host = client(&versions, first);
            let flight = host.run().remove(0).1;
            let mut peer = server(answer, &flight, and(&information(&[answer.number(), V1, V2])));
            // An acknowledgement in the first version, from before the server has read the whole ClientHello.
            let early = peer.first_packet(&peer.ack(INITIAL));
            host.receive(early);
            assert_eq!(host.endpoint.stats().drops[DropReason::Version as usize], 0);
            exchange(&mut host, &mut peer);
            assert!(peer.is_connected() && host.closed().is_none());
            let id = host.conn.unwrap();
            assert_eq!(host.endpoint.conn(id).unwrap().version(), answer);
            // What it sent from then on had the negotiated version: the peer reads nothing else in the handshake, and
            // `Peer::receive` has found no packet of another.
            assert!(peer.handshake_versions.iter().all(|version| *version == answer));
        }
    }
}

/// RFC 9368 §4: the version of the packets is confirmed by the handshake.
#[test]
fn a_change_of_the_version_has_to_be_confirmed() {
    let ending = |versions: &[Version], more: &[u8]| {
        let mut host = client(versions, Version::V1);
        let flight = host.run().remove(0).1;
        let mut peer = server(Version::V2, &flight, and(more));
        exchange(&mut host, &mut peer);
        (host.error(), host.drops(DropReason::Version) > 0)
    };
    let both = [Version::V1, Version::V2];
    let refused = Some(TransportError::VERSION_NEGOTIATION_ERROR);
    assert_eq!(ending(&both, &information(&[V2, V1, V2])), (None, false));
    assert_eq!(ending(&both, &information(&[V2])), (None, false), "it removes all versions");
    assert_eq!(ending(&both, &information(&[V1, V1, V2])), (refused, false));
    assert_eq!(ending(&both, &information(&[GREASE, GREASE])), (refused, false));
    assert_eq!(ending(&both, &[]), (refused, false));
    // A version that was not offered.
    assert_eq!(ending(&[Version::V1], &information(&[V2, V1, V2])), (None, true));
    // Without a change, the information may be missing, but not be wrong.
    let same = |more: &[u8]| {
        let mut host = client(&both, Version::V1);
        let flight = host.run().remove(0).1;
        let mut peer = server(Version::V1, &flight, and(more));
        exchange(&mut host, &mut peer);
        host.error()
    };
    assert_eq!((same(&[]), same(&information(&[V1])), same(&information(&[V1, 7]))), (None, None, None));
    assert_eq!((same(&information(&[V2, V1])), same(&information(&[7, V1]))), (refused, refused));
}

/// RFC 9369 §4.1: CRYPTO data in the first version means that it is the negotiated one.
#[test]
fn after_crypto_data_the_version_does_not_change() {
    let mut host = client(&[Version::V1, Version::V2], Version::V1);
    let flight = host.run().remove(0).1;
    let mut peer = server(Version::V1, &flight, |params| params.to_bytes());
    let mut other = server(Version::V2, &flight, and(&information(&[V2, V2])));
    host.receive(peer.out.remove(0));
    host.run();
    other.out.drain(..).for_each(|datagram| host.receive(datagram));
    assert!(host.drops(DropReason::Version) > 0);
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
}

/// RFC 9369 §4.1: "The client ignores Retry packets using other versions."
#[test]
fn a_retry_has_the_version_of_the_first_flight() {
    for (version, taken) in [(Version::V1, true), (Version::V2, false)] {
        let mut host = client(&[Version::V1, Version::V2], Version::V1);
        let flight = host.run().remove(0).1;
        let parsed = header::parse(&flight, 8).unwrap();
        let mut retry = vec![0; 200];
        let len = header::encode_retry(&mut retry, version, &parsed.scid, &[0x77; 8], b"token").unwrap();
        retry.truncate(len);
        // Unused bits, which clients ignore (RFC 9000 §17.2.5).
        retry[0] |= 0x0a;
        retry.extend(retry_tag(version, &parsed.dcid, &retry.clone()));
        host.receive(retry);
        let next = host.run();
        assert_eq!(next.len(), usize::from(taken));
        assert_eq!(host.drops(DropReason::Unexpected), u64::from(!taken));
        if taken {
            assert_eq!(header::parse(&next[0].1, 8).unwrap().known_version(), Some(Version::V1));
        }
    }
}

/// Two of ours: every combination of versions, with and without Retry, ends as both prefer.
#[test]
fn both_sides_find_the_version_that_the_server_prefers() {
    let [v1, v2] = Version::ALL;
    let lists: [&[Version]; 4] = [&[v1], &[v2], &[v1, v2], &[v2, v1]];
    for ours in lists {
        for theirs in lists {
            for (first, retry) in ours.iter().flat_map(|first| [(*first, false), (*first, true)]) {
                let retry = if retry { RetryPolicy::Always } else { RetryPolicy::Never };
                let config = EndpointConfig { retry, ..endpoint_config(Side::Server) };
                let versions = Versions::new(theirs).unwrap();
                let mut server = Host::server_with(config, TransportConfig { versions, ..small() });
                let mut client = client(ours, first);
                let mut retries = Vec::new();
                for _ in 0..20 {
                    client.run().into_iter().for_each(|(_, datagram)| server.receive(datagram));
                    for (_, datagram) in server.run() {
                        let parsed = header::parse_greased(&datagram, 10).unwrap();
                        retries.extend((parsed.kind == PacketType::Retry).then_some(parsed.version));
                        client.receive(datagram);
                    }
                }
                let case = format!("{ours:?} from {first} with {theirs:?} and {retry:?}");
                let Some(expected) = theirs.iter().copied().find(|version| ours.contains(version)) else {
                    assert_eq!(client.closed(), Some(&CloseReason::VersionMismatch), "{case}");
                    assert_eq!(server.endpoint.connection_count(), 0);
                    continue;
                };
                for host in [&mut client, &mut server] {
                    assert!(host.events.iter().any(|(_, e)| matches!(e, Event::Connected { .. })), "{case}");
                    let id = host.conn.unwrap();
                    assert_eq!(host.endpoint.conn(id).unwrap().version(), expected, "{case}");
                    assert_eq!(host.endpoint.stats().handshakes_v2, u64::from(expected == v2));
                }
                // A Retry has the version that the client begins with, in its second attempt if there is one.
                let chosen = if theirs.contains(&first) { first } else { expected };
                let expected = if retry == RetryPolicy::Always { vec![chosen.number()] } else { vec![] };
                assert_eq!(retries, expected, "{case}");
            }
        }
    }
}

/// RFC 9368 §4 on the server's side.
#[test]
fn servers_check_what_clients_say_about_versions() {
    let ending = |version: Version, more: &[u8]| {
        let mut host = Host::server(small());
        let mut peer = Peer::client_of(version, client_addr(), 1, and(more));
        exchange(&mut host, &mut peer);
        assert_eq!(peer.close.as_ref().map(|close| close.code), host.error());
        host.error()
    };
    let refused = Some(TransportError::VERSION_NEGOTIATION_ERROR);
    let malformed = Some(TransportError::TRANSPORT_PARAMETER_ERROR);
    for (version, other) in [(Version::V1, V2), (Version::V2, V1)] {
        let own = version.number();
        assert_eq!(ending(version, &information(&[own, GREASE, own])), None);
        assert_eq!(ending(version, &[]), None, "a client that knows nothing of this");
        assert_eq!(ending(version, &information(&[other, other, own])), refused);
        assert_eq!(ending(version, &information(&[7, 7, own])), refused);
        assert_eq!(ending(version, &information(&[own])), malformed, "the chosen version is not available");
        assert_eq!(ending(version, &information(&[own, other])), malformed);
        assert_eq!(ending(version, &information(&[0, 0, own])), malformed);
        assert_eq!(ending(version, &information(&[own, own, 0])), malformed);
        assert_eq!(ending(version, &raw_information(&[])), malformed);
        assert_eq!(ending(version, &raw_information(&[0, 0, 1])), malformed);
        assert_eq!(ending(version, &raw_information(&[&own.to_be_bytes()[..], &[0, 0]].concat())), malformed);
    }
}

/// RFC 9369 §4.1: a server answers what it reads of an incomplete ClientHello in the version of the client, and changes
/// the version when it has read all of it. It can read both versions until the client has Handshake keys.
#[test]
fn a_long_client_hello_is_read_before_the_version_is_chosen() {
    let versions = |list: &[Version]| TransportConfig { versions: Versions::new(list).unwrap(), ..small() };
    let mut server = Host::server(versions(&[Version::V2, Version::V1]));
    let mut client = Host::idle_client();
    let mut tls = (**CLIENT_TLS).clone();
    tls.alpn_protocols.extend((0..12).map(|n| vec![n; 200]));
    client.connect_with(ClientConfig::new(Arc::new(tls), versions(&[Version::V1, Version::V2])).unwrap());
    let mut flight: Vec<_> = client.run().into_iter().map(|(_, datagram)| datagram).collect();
    assert!(flight.len() > 2, "{} datagrams", flight.len());
    let last = flight.pop().unwrap();
    let repeated = last.clone();
    for datagram in flight {
        server.receive(datagram);
        for (_, datagram) in server.run() {
            assert_eq!(header::parse_greased(&datagram, 10).unwrap().version, V1);
            client.receive(datagram);
        }
    }
    server.receive(last);
    let answers = server.run();
    assert_eq!(header::parse_greased(&answers[0].1, 10).unwrap().version, V2);
    // The client has not received them and repeats itself in its version, which changes nothing.
    let dropped = server.drops(DropReason::Authentication);
    server.receive(repeated);
    client.wait(Duration::from_millis(400)).into_iter().for_each(|(_, datagram)| {
        assert_eq!(header::parse_greased(&datagram, 10).unwrap().version, V1);
        server.receive(datagram);
    });
    assert_eq!((server.drops(DropReason::Authentication), server.drops(DropReason::Version)), (dropped, 0));
    answers.into_iter().for_each(|(_, datagram)| client.receive(datagram));
    talk(&mut client, &mut server);
    for host in [&mut client, &mut server] {
        let id = host.conn.unwrap();
        assert_eq!(host.endpoint.conn(id).unwrap().version(), Version::V2);
        assert!(host.events.iter().any(|(_, e)| matches!(e, Event::Connected { .. })));
    }
}

/// A ClientHello that would occupy much memory before it is complete.
#[test]
fn endless_client_hellos_are_refused() {
    for (len, refused) in [(0x4000u32, false), (0x4001, true), (0xff_ffff, true)] {
        let mut host = Host::server(small());
        let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
        peer.out.clear();
        let data = [&[1][..], &len.to_be_bytes()[1..], &[0; 100]].concat();
        let packet = peer.packet(INITIAL, &frames(&[Frame::Crypto { offset: 0, data: &data }]));
        host.receive(packet);
        host.run();
        assert_eq!(host.error(), refused.then_some(TransportError::CRYPTO_BUFFER_EXCEEDED), "{len}");
    }
}

/// RFC 9287 §3: the fixed bit has any value, in both directions, once both have said that they accept it.
#[test]
fn the_fixed_bit_is_greased_if_the_peer_accepts_it() {
    const GREASE_QUIC_BIT: [u8; 3] = [0x6a, 0xb2, 0];
    for (ours, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
        let config = EndpointConfig { grease: ours, ..endpoint_config(Side::Server) };
        let mut host = Host::server_with(config, small());
        let said = if theirs { &GREASE_QUIC_BIT[..] } else { &[] };
        let mut peer = Peer::client(client_addr(), 1, and(said));
        exchange(&mut host, &mut peer);
        assert!(peer.is_connected());
        let offered = peer.transport_parameters().windows(3).any(|bytes| bytes == GREASE_QUIC_BIT);
        assert_eq!(offered, ours);
        for n in 0..100u8 {
            // The peer's own bit: it must be accepted if that was announced, and only then.
            let shape = Shape { clear: if n % 2 == 0 { 0x40 } else { 0 }, ..Shape::default() };
            let packet = peer.shaped(DATA, &frames(&[Frame::Ping]), shape);
            assert_eq!(packet[0] & 0x40 == 0, n % 2 == 0);
            let (before, dropped) = (host.endpoint.stats().rx_packets, host.drops(DropReason::Malformed));
            host.receive(packet);
            let taken = ours || n % 2 == 1;
            assert_eq!(host.endpoint.stats().rx_packets - before, u64::from(taken));
            assert_eq!(host.drops(DropReason::Malformed) - dropped, u64::from(!taken));
            host.wait(Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        }
        assert!(host.closed().is_none() && peer.fixed_bits[1] > 30, "{:?}", peer.fixed_bits);
        // About half of the packets; none if there is no agreement.
        assert_eq!(peer.fixed_bits[0] > 20, ours && theirs, "{:?}", peer.fixed_bits);
        assert_eq!(peer.fixed_bits[0] == 0, !(ours && theirs), "{:?}", peer.fixed_bits);
    }
    for bad in [&[0x6a, 0xb2, 1, 0][..], &[GREASE_QUIC_BIT, GREASE_QUIC_BIT].concat()] {
        let mut host = Host::server(small());
        let mut peer = Peer::client(client_addr(), 1, and(bad));
        exchange(&mut host, &mut peer);
        assert_eq!(host.error(), Some(TransportError::TRANSPORT_PARAMETER_ERROR), "{bad:x?}");
    }
}

/// Clients offer a reserved version and a reserved parameter (RFC 9000 §15, §18.1), unless greasing is off. They do not
/// clear the fixed bit before they know their server (RFC 9287 §3.1).
#[test]
fn clients_send_what_servers_have_to_ignore() {
    for grease in [true, false] {
        let config = EndpointConfig { grease, ..endpoint_config(Side::Client) };
        let mut host = Host::new(Side::Client, Endpoint::new(config, None, BufPool::heap()));
        let (mut reserved, mut ids) = (0, Vec::new());
        for _ in 0..20 {
            host.connect(small());
            let first = host.run().remove(0).1;
            assert_eq!(first[0] & 0x40, 0x40);
            let mut peer = Peer::server(server_addr(), &first, |params| params.to_bytes());
            peer.receive(&first);
            let available = peer.params().version_information.unwrap().available;
            reserved += available.iter().filter(|version| is_reserved(**version)).count();
            assert!([V1, V2].iter().all(|version| available.contains(version)));
            let mut r = Reader::new(peer.transport_parameters());
            while let (Some(id), Some(_)) = (r.varint(), r.prefixed()) {
                ids.extend((id % 31 == 27).then_some(id));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((reserved, ids.len()), if grease { (20, 20) } else { (0, 0) });
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
