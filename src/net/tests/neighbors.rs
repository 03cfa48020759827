//! Neighbours that come, go, move, and do not answer.

use super::world::*;
use crate::base::time::Instant;
use crate::datapath::TxFrame;
use crate::net::{Net, NetConfig, NetDrop, NetEvent, Received, Sent};
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::eth::{ETHERTYPE_ARP, EthHeader, Mac};
use crate::wire::ipv6::{self, ALL_NODES, PROTOCOL_ICMPV6};
use crate::wire::ndp;

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
const C: Mac = Mac([2, 0, 0, 0, 0, 3]);

pub(super) fn arp_frame(dst: Mac, arp: Arp) -> Frame {
    let eth = EthHeader { dst, src: arp.sender_mac, vlan: None, ethertype: ETHERTYPE_ARP };
    Frame::received(&[&eth.to_bytes()[..], &arp.to_bytes()].concat())
}

pub(super) fn gratuitous(mac: Mac, addr: [u8; 4]) -> Frame {
    let (sender_ip, target_ip) = (addr.into(), addr.into());
    arp_frame(Mac::BROADCAST, Arp { op: ArpOp::Request, sender_mac: mac, sender_ip, target_mac: Mac::ZERO, target_ip })
}

pub(super) fn events(net: &mut Net<Frame>) -> Vec<NetEvent> {
    std::iter::from_fn(|| net.poll_event()).collect()
}

#[test]
fn who_does_not_answer_is_given_up() {
    for (addr, from, to) in
        [("10.0.0.1/24", "10.0.0.1:1", "10.0.0.2:2"), ("2001:db8::1/64", "[2001:db8::1]:1", "[2001:db8::2]:2")]
    {
        let mut a = host(1, &[addr]);
        assert_eq!(a.next_timeout(), None);
        for _ in 0..3 {
            assert_eq!(a.send(secs(0), at(from), at(to), 0, Frame::with_payload(b"x")), Sent::Pending);
        }
        let mut asked = poll_all(&mut a, secs(0)).len();
        let mut now = Instant::ZERO;
        while let Some(next) = a.next_timeout() {
            assert!(next > now, "time moves on");
            now = next;
            asked += poll_all(&mut a, now).len();
        }
        assert_eq!((now, asked), (secs(3), 3));
        assert_eq!(a.stats().drops[NetDrop::NeighborUnreachable], 3);
        assert_eq!(events(&mut a), [NetEvent::Unreachable { ip: at(to).ip() }]);
        assert_eq!(a.neighbor_count(), 0);
        // Used again, it is solicited again.
        assert_eq!(a.send(now, at(from), at(to), 0, Frame::with_payload(b"x")), Sent::Pending);
        assert_eq!(poll_all(&mut a, now).len(), 1);
    }
}

#[test]
fn waiting_frames_are_bounded_and_the_newest_survive() {
    let limits = NetConfig { pending_frames: 3, max_pending: 4, ..config(&["10.0.0.1/24"]) };
    let mut a = Net::new(&limits, &caps(1), Instant::ZERO).unwrap();
    let mut b = host(2, &["10.0.0.2/24"]);
    let from = at("10.0.0.1:1");
    for n in 0..5 {
        assert_eq!(a.send(secs(0), from, at("10.0.0.2:2"), 0, Frame::with_payload(&[n])), Sent::Pending);
    }
    // A neighbour with a single waiting frame keeps it although another has many.
    for to in ["10.0.0.3:2", "10.0.0.4:2", "10.0.0.5:2"] {
        assert_eq!(a.send(secs(0), from, at(to), 0, Frame::with_payload(&[8])), Sent::Pending);
    }
    let full = a.send(secs(0), from, at("10.0.0.6:2"), 0, Frame::with_payload(&[9]));
    assert_eq!(full, Sent::Dropped(NetDrop::PendingFull));
    let [_, seen] = settle(&mut a, &mut b, secs(0));
    let payloads: Vec<_> = seen.iter().filter(|(r, _)| matches!(r, Received::Udp(_))).map(|(_, p)| p[0]).collect();
    assert_eq!(payloads, [4], "the newest");
    assert_eq!((a.stats().drops[NetDrop::PendingOverflow], a.stats().tx_released), (4, 1));
    // In order, too.
    let mut a = Net::new(&limits, &caps(1), Instant::ZERO).unwrap();
    for n in 0..5 {
        assert_eq!(a.send(secs(0), from, at("10.0.0.2:2"), 0, Frame::with_payload(&[n])), Sent::Pending);
    }
    let [_, seen] = settle(&mut a, &mut b, secs(0));
    let payloads: Vec<_> = seen.iter().filter(|(r, _)| matches!(r, Received::Udp(_))).map(|(_, p)| p[0]).collect();
    assert_eq!(payloads, [2, 3, 4]);
}

#[test]
fn a_known_neighbour_is_asked_again_after_its_time_without_a_pause() {
    let (mut a, mut b) = (host(1, &["10.0.0.1/24"]), host(2, &["10.0.0.2/24"]));
    let (from, to) = (at("10.0.0.1:1"), at("10.0.0.2:2"));
    resolved(&mut a, &mut b, secs(0), from, to, b"");
    ready(a.send(secs(59), from, to, 0, Frame::with_payload(b"")));
    assert_eq!(poll_all(&mut a, secs(59)).len(), 0);
    ready(a.send(secs(60), from, to, 0, Frame::with_payload(b"")));
    let asked = poll_all(&mut a, secs(60));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].data()[..6], B.0, "asked alone, not everyone");
    deliver(&mut b, secs(60), asked);
    let answer = poll_all(&mut b, secs(60));
    deliver(&mut a, secs(60), answer);
    assert_eq!(a.next_timeout(), Some(secs(61)), "a timer set is not unset");
    assert_eq!(poll_all(&mut a, secs(61)).len(), 0);
    assert_eq!(a.next_timeout(), None);
    // Silent from now on: in use while it is probed, then waited for.
    ready(a.send(secs(120), from, to, 0, Frame::with_payload(b"")));
    for now in 121..=123 {
        poll_all(&mut a, secs(now));
    }
    assert_eq!(a.send(secs(123), from, to, 0, Frame::with_payload(b"")), Sent::Pending);
    assert_eq!(a.stats().neighbor_failed, 1);
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    let (mut a, mut b) = (host(1, &["10.0.0.1/24"]), host(2, &["10.0.0.2/24"]));
    let (from, to) = (at("10.0.0.1:1"), at("10.0.0.2:2"));
    resolved(&mut a, &mut b, secs(0), from, to, b"");
    events(&mut a);
    assert_eq!(a.receive(secs(1), &mut gratuitous(C, [10, 0, 0, 2])), Received::Consumed);
    assert_eq!(events(&mut a), [], "there are no other cores");
    let frame = ready(a.send(secs(1), from, to, 0, Frame::with_payload(b"")));
    assert_eq!(frame.data()[..6], C.0);
    assert_eq!(poll_all(&mut a, secs(1)).len(), 1, "the new address has to prove itself");
    assert_eq!(a.stats().neighbor_changed, 1);
}

#[test]
fn strangers_who_speak_unasked_are_not_learned() {
    let mut a = host(1, &["10.0.0.1/24", "2001:db8::1/64"]);
    let speak = gratuitous(C, [10, 0, 0, 9]);
    assert_eq!(a.receive(secs(0), &mut speak.clone()), Received::Dropped(NetDrop::ArpForeign));
    let reply = Arp {
        op: ArpOp::Reply,
        sender_mac: C,
        sender_ip: [10, 0, 0, 9].into(),
        target_mac: A,
        target_ip: [10, 0, 0, 1].into(),
    };
    a.receive(secs(0), &mut arp_frame(A, reply));
    let (src, dst) = ("2001:db8::9".parse().unwrap(), "2001:db8::1".parse().unwrap());
    a.receive(secs(0), &mut ndp_frame(A, src, dst, 255, &ndp::neighbor_advert(src, dst, src, C, true, true)));
    assert_eq!(a.neighbor_count(), 0);
    // Nor is a sender that is not on the link, though it gets an answer.
    let request = Arp { op: ArpOp::Request, sender_ip: [192, 168, 0, 9].into(), ..reply };
    assert_eq!(a.receive(secs(0), &mut arp_frame(Mac::BROADCAST, request)), Received::Consumed);
    assert_eq!((a.neighbor_count(), poll_all(&mut a, secs(0)).len()), (0, 1));
}

pub(super) fn ndp_frame(
    dst_mac: Mac,
    src: std::net::Ipv6Addr,
    dst: std::net::Ipv6Addr,
    hops: u8,
    message: &[u8],
) -> Frame {
    let eth = EthHeader { dst: dst_mac, src: C, vlan: None, ethertype: 0x86dd };
    let ip = ipv6::header(src, dst, PROTOCOL_ICMPV6, hops, 0, 0, message.len());
    Frame::received(&[&eth.to_bytes()[..], &ip, message].concat())
}

#[test]
fn address_probes_are_answered_and_duplicates_defended() {
    let mut a = host(1, &["10.0.0.1/24", "2001:db8::1/64"]);
    // RFC 5227: a probe has no sender address.
    let probe = Arp {
        op: ArpOp::Request,
        sender_mac: C,
        sender_ip: [0; 4].into(),
        target_mac: Mac::ZERO,
        target_ip: [10, 0, 0, 1].into(),
    };
    assert_eq!(a.receive(secs(0), &mut arp_frame(Mac::BROADCAST, probe)), Received::Consumed);
    let answer = poll_all(&mut a, secs(0));
    let arp = Arp::parse(&answer[0].data()[14..]).unwrap();
    assert_eq!((arp.op, arp.sender_mac, arp.sender_ip), (ArpOp::Reply, A, [10, 0, 0, 1].into()));
    assert_eq!(answer[0].data().len(), 60, "padded");
    // RFC 4862: the same for IPv6.
    let (none, us) = (std::net::Ipv6Addr::UNSPECIFIED, "2001:db8::1".parse().unwrap());
    let group = ipv6::solicited_node(us);
    let mut message = ndp::neighbor_solicit(none, group, us, C)[..24].to_vec();
    message[2..4].fill(0);
    let sum = crate::wire::checksum::Sum::new().pseudo_v6(none, group, PROTOCOL_ICMPV6, 24).bytes(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let mut solicit = ndp_frame(Mac::for_multicast(group), none, group, 255, &message);
    assert_eq!(a.receive(secs(0), &mut solicit), Received::Consumed);
    let answer = poll_all(&mut a, secs(0));
    assert_eq!(answer[0].data()[..6], Mac::for_multicast(ALL_NODES).0);
    assert_eq!(answer[0].data()[54 + 4], 0x20, "override, not solicited");
    // Others that claim to be us.
    assert_eq!(a.receive(secs(0), &mut gratuitous(C, [10, 0, 0, 1])), Received::Dropped(NetDrop::BadSource));
    let claim = ndp::neighbor_advert(us, ALL_NODES, us, C, false, true);
    let mut claim = ndp_frame(Mac::for_multicast(ALL_NODES), us, ALL_NODES, 255, &claim);
    assert_eq!(a.receive(secs(0), &mut claim), Received::Dropped(NetDrop::BadSource));
    let want = [ip("10.0.0.1"), us.into()].map(|ip| NetEvent::Duplicate { ip, mac: C });
    assert_eq!(events(&mut a), want, "those who only ask do not claim");
    let defence = poll_all(&mut a, secs(0));
    assert_eq!(defence.len(), 2);
    let arp = Arp::parse(&defence[0].data()[14..]).unwrap();
    assert_eq!(
        (&defence[0].data()[..6], arp.sender_ip, arp.target_ip),
        (&[0xff; 6][..], [10, 0, 0, 1].into(), [10, 0, 0, 1].into())
    );
    assert_eq!(defence[1].data()[..6], Mac::for_multicast(ALL_NODES).0);
    // Once in ten seconds, whatever comes.
    for _ in 0..1000 {
        a.receive(secs(5), &mut gratuitous(C, [10, 0, 0, 1]));
    }
    assert_eq!((events(&mut a), poll_all(&mut a, secs(5)).len()), (vec![], 0));
    a.receive(secs(10), &mut gratuitous(C, [10, 0, 0, 1]));
    assert_eq!((events(&mut a).len(), poll_all(&mut a, secs(10)).len()), (1, 1));
    assert_eq!((a.stats().duplicate_address, a.stats().address_defended), (1003, 3));
    // Our own frames, looped back, are not claims.
    a.receive(secs(0), &mut gratuitous(A, [10, 0, 0, 1]));
    assert_eq!(a.stats().duplicate_address, 1003);
}

#[test]
fn neighbour_discovery_from_afar_is_discarded() {
    let mut a = host(1, &["2001:db8::1/64"]);
    let (src, us): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
        ("2001:db8::9".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let message = ndp::neighbor_solicit(src, us, us, C);
    let far = a.receive(secs(0), &mut ndp_frame(A, src, us, 254, &message));
    assert_eq!(far, Received::Dropped(NetDrop::NdpInvalid));
    assert_eq!(a.receive(secs(0), &mut ndp_frame(A, src, us, 255, &message)), Received::Consumed);
    let answer = poll_all(&mut a, secs(0));
    assert_eq!(answer[0].data()[..6], C.0);
    assert_eq!(answer[0].data()[54 + 4], 0x60, "override, solicited");
}

#[test]
fn what_one_core_learned_serves_another() {
    let mut a = host(1, &["10.0.0.1/24"]);
    let (from, to) = (at("10.0.0.1:1"), at("10.0.0.2:2"));
    assert_eq!(a.send(secs(0), from, to, 0, Frame::with_payload(b"x")), Sent::Pending);
    a.share_neighbor(secs(0), to.ip(), B);
    let frames = poll_all(&mut a, secs(0));
    assert!(frames.iter().any(|f| f.data().ends_with(b"x") && f.data()[..6] == B.0));
    assert_eq!(events(&mut a), [], "no circles");
    a.share_neighbor(secs(0), ip("10.9.9.9"), B);
    a.share_neighbor(secs(0), ip("10.0.0.3"), Mac::BROADCAST);
    assert_eq!(a.neighbor_count(), 1);
}

#[test]
fn a_full_table_makes_room_and_keeps_its_gateway() {
    let mut limits = NetConfig { max_neighbors: 9, max_pending: 64, ..config(&["10.0.0.1/24"]) };
    limits.gateways = vec![ip("10.0.0.254")];
    let mut a = Net::new(&limits, &caps(1), Instant::ZERO).unwrap();
    let mut gateway = host(9, &["10.0.0.254/24"]);
    let (from, far) = (at("10.0.0.1:1"), at("8.8.8.8:443"));
    resolved(&mut a, &mut gateway, secs(0), from, far, b"");
    for n in 10..40 {
        let to = at(&format!("10.0.0.{n}:2"));
        assert_eq!(a.send(secs(1), from, to, 0, Frame::with_payload(b"x")), Sent::Pending);
    }
    assert_eq!((a.neighbor_count(), a.stats().neighbor_evicted), (9, 22));
    assert_eq!(a.stats().drops[NetDrop::NeighborUnreachable], 22, "their frames went with them");
    ready(a.send(secs(1), from, far, 0, Frame::with_payload(b"")));
}
