//! Claims of routers and strangers about the size of datagrams.

use gannet::base::time::Duration;
use gannet::quic::{ConnId, Dir, SendData, StreamId, TooBig, TransportConfig};
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::frame::Frame;

use super::peer::{DATA, Peer, frames};
use super::world::{Host, against_server, client_addr, server_addr};

static BYTES: [u8; 100_000] = [7; 100_000];

/// A server whose datagrams have grown to 1472 bytes, and a stream of its own.
fn grown() -> (Host, Peer, StreamId) {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    let id = conn(&mut host).open(Dir::Uni).unwrap();
    (0..3).for_each(|_| drop(round(&mut host, &mut peer, usize::MAX)));
    assert_eq!(mtu(&mut host), 1472);
    (host, peer, id)
}

fn conn(host: &mut Host) -> gannet::quic::Conn<'_> {
    let id: ConnId = host.conn.unwrap();
    host.endpoint.conn(id).unwrap()
}

fn mtu(host: &mut Host) -> u16 {
    conn(host).stats().mtu
}

/// Runs for 50 ms on a path that carries datagrams of up to `path` bytes. Returns the datagrams sent.
fn round(host: &mut Host, peer: &mut Peer, path: usize) -> Vec<Vec<u8>> {
    let sent: Vec<_> = host.wait(Duration::from_millis(50)).into_iter().map(|(_, datagram)| datagram).collect();
    sent.iter().filter(|datagram| datagram.len() <= path).for_each(|datagram| peer.receive(datagram));
    let ack = peer.ack(DATA);
    let datagram = peer.packet(DATA, &ack);
    host.receive(datagram);
    sent
}

/// A datagram of 1472 bytes that the server has just sent.
fn large(host: &mut Host, peer: &mut Peer, id: StreamId) -> Vec<u8> {
    conn(host).send(id, SendData::Static(&BYTES[..5000]), false).unwrap();
    round(host, peer, usize::MAX).into_iter().find(|datagram| datagram.len() > 1440).expect("data fills datagrams")
}

fn tell(host: &mut Host, max: u16, len: u16, quoted: &[u8]) {
    let news = TooBig { local: server_addr(), remote: client_addr(), max, len, quoted };
    host.endpoint.packet_too_big(host.now, &news);
}

/// RFC 9000 §14.2.1, RFC 8899 §4.6.2. Until 2026-11, one message from anyone reduced it permanently.
#[test]
fn a_claim_that_is_not_true_changes_nothing() {
    let (mut host, mut peer, id) = grown();
    let quoted = large(&mut host, &mut peer, id);
    for claim in [0, 40, 540, 1199, 1200, 1300] {
        tell(&mut host, claim, quoted.len() as u16, &quoted[..21]);
        assert_eq!(mtu(&mut host), 1472, "{claim}");
        let probes = round(&mut host, &mut peer, usize::MAX).iter().filter(|datagram| datagram.len() == 1472).count();
        assert_eq!(probes, usize::from(claim >= 1200), "{claim}: a hint to probe, if it may be true");
        assert_eq!(mtu(&mut host), 1472, "{claim}");
    }
    assert_eq!(host.endpoint.stats().too_big_ignored, 0);
}

#[test]
fn a_claim_that_is_true_is_found_out_by_probes_and_the_size_comes_back() {
    let (mut host, mut peer, id) = grown();
    let quoted = large(&mut host, &mut peer, id);
    tell(&mut host, 1350, quoted.len() as u16, &quoted[..21]);
    for _ in 0..100 {
        round(&mut host, &mut peer, 1350);
    }
    assert_eq!(mtu(&mut host), 1350);
    // As long as it is claimed, and ten minutes more (RFC 8899 §5.1.1).
    for _ in 0..65 {
        host.now += Duration::from_secs(10);
        let datagram = peer.packet(DATA, &frames(&[Frame::Ping]));
        host.receive(datagram);
        round(&mut host, &mut peer, usize::MAX);
    }
    assert_eq!((mtu(&mut host), host.closed()), (1472, None));
}

/// What a stranger can know: the addresses, and the form of datagrams. None of this makes a connection send a probe.
#[test]
fn who_has_not_seen_a_datagram_is_not_listened_to() {
    let (mut host, mut peer, id) = grown();
    let quoted = large(&mut host, &mut peer, id);
    let wrong_id = {
        let mut quoted = quoted.clone();
        quoted[8] ^= 1;
        quoted
    };
    let theirs = [&[0x41][..], &ConnectionId::new(&[0; 8]).unwrap(), &[1; 12]].concat();
    let cases: &[(&str, u16, u16, &[u8])] = &[
        ("nothing quoted", 1300, 0, &[]),
        ("too little quoted", 1300, 1472, &quoted[..8]),
        ("another connection ID", 1300, 1472, &wrong_id),
        ("none of ours", 1300, 1472, &theirs),
        ("a long header", 1300, 1472, &[0xc1; 21]),
        ("a datagram that fits", 1300, 1300, &quoted[..21]),
        ("a datagram larger than any", 1300, 1473, &quoted[..21]),
    ];
    for (what, max, len, quoted) in cases {
        let before = host.endpoint.stats().too_big_ignored;
        tell(&mut host, *max, *len, quoted);
        assert_eq!(host.endpoint.stats().too_big_ignored, before + 1, "{what}");
        assert!(host.wait(Duration::from_millis(30)).iter().all(|(_, datagram)| datagram.len() < 1200), "{what}");
        assert_eq!(mtu(&mut host), 1472);
    }
    let elsewhere = TooBig { local: server_addr(), remote: server_addr(), max: 1300, len: 1472, quoted: &quoted[..21] };
    host.endpoint.packet_too_big(host.now, &elsewhere);
    assert_eq!(host.endpoint.stats().too_big_ignored, cases.len() as u64 + 1);
    assert_eq!(host.endpoint.stats().iter().find(|(name, _)| *name == "quic_too_big_ignored").unwrap().1, 8);
}

/// When the peer's connection ID changes, quotes of the new one are accepted. At the end, everything is forgotten.
#[test]
fn quotes_are_known_by_the_connection_id_in_use() {
    let (mut host, mut peer, id) = grown();
    let old = large(&mut host, &mut peer, id);
    let cid = ConnectionId::new(&[5; 8]).unwrap();
    let frame = Frame::NewConnectionId { seq: 1, retire_prior_to: 1, cid, reset_token: [1; 16] };
    let datagram = peer.packet(DATA, &frames(&[frame]));
    host.receive(datagram);
    let new = large(&mut host, &mut peer, id);
    assert_eq!(new[1..9], cid[..]);
    tell(&mut host, 1300, 1472, &old[..21]);
    assert_eq!(host.endpoint.stats().too_big_ignored, 1);
    tell(&mut host, 1300, 1472, &new[..21]);
    assert_eq!(host.endpoint.stats().too_big_ignored, 1);
    host.endpoint.abandon_all();
    host.run();
    tell(&mut host, 1300, 1472, &new[..21]);
    assert_eq!(host.endpoint.stats().too_big_ignored, 2);
}
