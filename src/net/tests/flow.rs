//! UDP from one host to another.

use proptest::prelude::*;

use super::world::*;
use crate::base::time::Instant;
use crate::datapath::{Caps, Checksum, RxFrame, TxFrame};
use crate::net::{Net, NetConfig, NetDrop, NetError, Received, Route, Sent, UdpDatagram};
use crate::wire::checksum::Sum;
use crate::wire::udp::never_zero;

const NOW: Instant = Instant::ZERO;

/// One address pair of either IP version.
const PAIRS: [[&str; 4]; 2] = [
    ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.1:4433", "10.0.0.2:50000"],
    ["2001:db8::1/64", "2001:db8::2/64", "[2001:db8::1]:4433", "[2001:db8::2]:50000"],
];

#[test]
fn resolves_then_delivers_both_ways() {
    for [a_cidr, b_cidr, from, to] in PAIRS {
        let (mut a, mut b) = (host(1, &[a_cidr]), host(2, &[b_cidr]));
        let (from, to) = (at(from), at(to));
        assert_eq!(a.send(NOW, from, to, 2, Frame::with_payload(b"hello")), Sent::Pending);
        let [_, seen] = settle(&mut a, &mut b, NOW);
        let [(Received::Udp(udp), payload)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((udp.local, udp.remote, udp.ecn, &payload[..]), (to, from, 2, &b"hello"[..]));
        // The question told b who a is: the answer waits for nothing.
        let back = ready(b.send(NOW, to, from, 1, Frame::with_payload(b"world")));
        let seen = deliver(&mut a, NOW, vec![back]);
        let [(Received::Udp(udp), payload)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((udp.local, udp.remote, udp.ecn, &payload[..]), (from, to, 1, &b"world"[..]));
        settle(&mut a, &mut b, NOW);
        let misses = (a.stats().tx_template_misses, b.stats().tx_template_misses);
        for n in 0..10 {
            ready(a.send(NOW, from, to, 0, Frame::with_payload(&[n])));
            ready(b.send(NOW, to, from, 0, Frame::with_payload(&[n])));
        }
        // Once each: a knows b only now, b's knowledge of a was confirmed.
        assert!(a.stats().tx_template_misses <= misses.0 + 1);
        assert!(b.stats().tx_template_misses <= misses.1 + 1);
        assert_eq!((a.stats().neighbor_solicits, a.stats().drops.sent()), (1, 0));
    }
}

#[test]
fn frames_look_as_the_standards_say() {
    let (mut a, mut b) = (host(1, &["10.0.0.1/24"]), host(2, &["10.0.0.2/24"]));
    let frame = resolved(&mut a, &mut b, NOW, at("10.0.0.1:4433"), at("10.0.0.2:50000"), b"abc");
    // Worked out by hand: IPv4 sum 4500+001f+4000+4011+0a00+0001+0a00+0002 = d933, checksum 26cc;
    // UDP pseudo 0a00+0001+0a00+0002+0011+000b, header 1151+c350+000b, data 6162+6300: ad2e, checksum 52d1.
    let want: &[u8] = &[
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, //
        0x45, 0, 0, 0x1f, 0, 0, 0x40, 0, 0x40, 0x11, 0x26, 0xcc, 10, 0, 0, 1, 10, 0, 0, 2, //
        0x11, 0x51, 0xc3, 0x50, 0, 0x0b, 0x52, 0xd1, b'a', b'b', b'c',
    ];
    assert_eq!(frame.data(), want);
}

#[test]
fn device_checksums_come_out_as_those_in_software() {
    for [a_cidr, b_cidr, from, to] in PAIRS {
        for ecn in 0..4 {
            let mut b = host(2, &[b_cidr]);
            let mut frames = Vec::new();
            for (tx_ip_checksum, tx_udp_checksum) in [(false, false), (true, false), (false, true), (true, true)] {
                let caps = Caps { tx_ip_checksum, tx_udp_checksum, ..caps(1) };
                let mut a = Net::new(&config(&[a_cidr]), &caps, NOW).unwrap();
                let _ = a.send(NOW, at(from), at(to), 0, Frame::with_payload(b"first"));
                let asked = poll_all(&mut a, NOW);
                deliver(&mut b, NOW, asked);
                let answered = poll_all(&mut b, NOW);
                deliver(&mut a, NOW, answered);
                let mut frame = ready(a.send(NOW, at(from), at(to), ecn, Frame::with_payload(b"some odd payload!")));
                let asked_for = tx_ip_checksum && at(to).is_ipv4() || tx_udp_checksum;
                assert_eq!(frame.offload.is_some(), asked_for);
                finish_in_the_device(&mut frame);
                frames.push(frame.data().to_vec());
            }
            assert!(frames.iter().all(|frame| *frame == frames[0]), "{frames:02x?}");
        }
    }
}

/// What a device does to a frame on request.
fn finish_in_the_device(frame: &mut Frame) {
    let Some(offload) = frame.offload else { return };
    let (l3, l4) = (usize::from(offload.l2_len), usize::from(offload.l2_len + offload.l3_len));
    let data = TxFrame::data_mut(frame);
    if offload.ip_checksum {
        assert!(!offload.ipv6);
        assert_eq!(data[l3 + 10..l3 + 12], [0, 0], "devices want zeros here");
        let checksum = Sum::new().bytes(&data[l3..l4]).checksum();
        data[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
    }
    if offload.udp_checksum {
        let checksum = never_zero(Sum::new().bytes(&data[l4..]).checksum());
        data[l4 + 6..l4 + 8].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[test]
fn trusts_the_device_that_says_good_and_checks_when_it_says_nothing() {
    for [a_cidr, b_cidr, from, to] in PAIRS {
        let (mut a, mut b) = (host(1, &[a_cidr]), host(2, &[b_cidr]));
        let good = resolved(&mut a, &mut b, NOW, at(from), at(to), &[7; 100]);
        let mut verdict = |l4, flip: bool| {
            let mut frame = good.clone();
            frame.l4 = l4;
            if flip {
                *TxFrame::data_mut(&mut frame).last_mut().unwrap() ^= 1;
            }
            b.receive(NOW, &mut frame)
        };
        let bad = Received::Dropped(NetDrop::UdpChecksum);
        assert!(matches!(verdict(Checksum::Unknown, false), Received::Udp(_)));
        assert_eq!(verdict(Checksum::Unknown, true), bad);
        assert!(matches!(verdict(Checksum::Good, true), Received::Udp(_)));
        assert_eq!(verdict(Checksum::Bad, false), bad);
    }
}

#[test]
fn checks_ipv4_headers() {
    let (mut a, mut b) = (host(1, &["10.0.0.1/24"]), host(2, &["10.0.0.2/24"]));
    let good = resolved(&mut a, &mut b, NOW, at("10.0.0.1:1"), at("10.0.0.2:2"), b"x");
    let mut verdict = |ip, ttl: u8| {
        let mut frame = good.clone();
        frame.ip = ip;
        TxFrame::data_mut(&mut frame)[22] = ttl;
        b.receive(NOW, &mut frame)
    };
    assert!(matches!(verdict(Checksum::Unknown, 64), Received::Udp(_)));
    assert_eq!(verdict(Checksum::Unknown, 63), Received::Dropped(NetDrop::Ipv4Checksum));
    assert_eq!(verdict(Checksum::Bad, 64), Received::Dropped(NetDrop::Ipv4Checksum));
    assert!(matches!(verdict(Checksum::Good, 63), Received::Udp(_)));
}

#[test]
fn a_missing_checksum_is_for_ipv4_only() {
    for ([a_cidr, b_cidr, from, to], offset) in PAIRS.into_iter().zip([40, 60]) {
        let (mut a, mut b) = (host(1, &[a_cidr]), host(2, &[b_cidr]));
        let mut frame = resolved(&mut a, &mut b, NOW, at(from), at(to), b"x");
        TxFrame::data_mut(&mut frame)[offset..offset + 2].fill(0);
        frame.l4 = Checksum::Bad;
        match b.receive(NOW, &mut frame) {
            Received::Udp(UdpDatagram { payload, .. }) => assert_eq!(payload, 42..43),
            other => assert_eq!((other, offset), (Received::Dropped(NetDrop::UdpNoChecksum), 60)),
        }
    }
}

#[test]
fn vlan_tags_go_on_and_only_ours_come_in() {
    let tagged = |mac, addr, vlan| Net::<Frame>::new(&NetConfig { vlan, ..config(&[addr]) }, &caps(mac), NOW).unwrap();
    for [a_cidr, b_cidr, from, to] in PAIRS {
        let (mut a, mut b) = (tagged(1, a_cidr, Some(7)), tagged(2, b_cidr, Some(7)));
        let frame = resolved(&mut a, &mut b, NOW, at(from), at(to), b"in a VLAN");
        assert_eq!(frame.data()[12..16], [0x81, 0, 0, 7]);
        let seen = deliver(&mut b, NOW, vec![frame.clone()]);
        assert_eq!(seen[0].1, b"in a VLAN");
        for other in [None, Some(8)] {
            let mut b = tagged(2, b_cidr, other);
            assert_eq!(b.receive(NOW, &mut frame.clone()), Received::Dropped(NetDrop::WrongVlan));
        }
        let mut untagged = host(3, &[a_cidr]);
        let _ = untagged.send(NOW, at(from), at(to), 0, Frame::with_payload(b"x"));
        let frames = poll_all(&mut untagged, NOW);
        assert_eq!(deliver(&mut b, NOW, frames)[0].0, Received::Dropped(NetDrop::WrongVlan));
    }
}

#[test]
fn what_is_not_on_the_link_goes_to_the_gateway() {
    let mut config = config(&["10.0.0.1/24", "2001:db8::1/64"]);
    config.gateways = vec![ip("10.0.0.254"), ip("fe80::ff:fe00:2")];
    config.routes = vec![Route { dest: "192.168.0.0/16".parse().unwrap(), via: ip("10.0.0.253") }];
    let mut a = Net::new(&config, &caps(1), NOW).unwrap();
    let mut gateway = host(2, &["10.0.0.254/24", "2001:db8::fe/64"]);
    let mut other = host(3, &["10.0.0.253/24"]);
    for (from, to) in [("10.0.0.1:1", "8.8.8.8:443"), ("[2001:db8::1]:1", "[2001:db8:9::9]:443")] {
        let frame = resolved(&mut a, &mut gateway, NOW, at(from), at(to), b"far away");
        assert_eq!(frame.data()[..6], [2, 0, 0, 0, 0, 2]);
        let seen = deliver(&mut gateway, NOW, vec![frame]);
        assert_eq!(seen[0].0, Received::Dropped(NetDrop::NotOurAddress), "it is no router");
    }
    let frame = resolved(&mut a, &mut other, NOW, at("10.0.0.1:1"), at("192.168.3.3:443"), b"");
    assert_eq!(frame.data()[..6], [2, 0, 0, 0, 0, 3]);
    assert_eq!(a.neighbor_count(), 3);
}

#[test]
fn refuses_what_cannot_be_sent() {
    let mut a = host(1, &["10.0.0.1/24", "2001:db8::1/64"]);
    let mut refusal =
        |from: &str, to: &str, len: usize| match a.send(NOW, at(from), at(to), 0, Frame::with_payload(&vec![0; len])) {
            Sent::Dropped(reason) => Some(reason),
            _ => None,
        };
    assert_eq!(refusal("10.0.0.1:1", "[2001:db8::2]:1", 1), Some(NetDrop::FamilyMismatch));
    assert_eq!(refusal("10.0.0.9:1", "10.0.0.2:1", 1), Some(NetDrop::NotOurSource));
    assert_eq!(refusal("10.0.0.1:1", "8.8.8.8:1", 1), Some(NetDrop::NoRoute));
    assert_eq!(refusal("10.0.0.1:1", "10.0.0.255:1", 1), Some(NetDrop::NoRoute));
    for to in ["10.0.0.2:0", "10.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", "127.0.0.1:1", "0.0.0.0:1"] {
        assert_eq!(refusal("10.0.0.1:1", to, 1), Some(NetDrop::BadDestination), "{to}");
    }
    for to in ["[::]:1", "[::1]:1", "[ff02::1]:1", "[::ffff:10.0.0.2]:1"] {
        assert_eq!(refusal("[2001:db8::1]:1", to, 1), Some(NetDrop::BadDestination), "{to}");
    }
    assert_eq!(refusal("10.0.0.1:1", "10.0.0.2:1", 1473), Some(NetDrop::TooBig));
    assert_eq!(refusal("10.0.0.1:1", "10.0.0.2:1", 1472), None);
    assert_eq!(refusal("[2001:db8::1]:1", "[2001:db8::2]:1", 1453), Some(NetDrop::TooBig));
    assert_eq!(refusal("[2001:db8::1]:1", "[2001:db8::2]:1", 1452), None);
    assert_eq!((a.max_udp_payload(false), a.max_udp_payload(true)), (1472, 1452));
    assert_eq!(a.stats().drops.sent(), 16);
}

#[test]
fn too_big_is_refused_on_the_fast_path_too() {
    let (mut a, mut b) = (host(1, &["10.0.0.1/24"]), host(2, &["10.0.0.2/24"]));
    let (from, to) = (at("10.0.0.1:1"), at("10.0.0.2:2"));
    let full = resolved(&mut a, &mut b, NOW, from, to, &[1; 1472]);
    assert_eq!(full.data().len(), 1514);
    let sent = a.send(NOW, from, to, 0, Frame::with_payload(&[1; 1473]));
    assert_eq!(sent, Sent::Dropped(NetDrop::TooBig));
}

#[test]
fn a_port_set_is_kept_to() {
    let mut config = config(&["10.0.0.2/24"]);
    config.ports = Some(vec![443]);
    let (mut a, mut b) = (host(1, &["10.0.0.1/24"]), Net::new(&config, &caps(2), NOW).unwrap());
    let frame = resolved(&mut a, &mut b, NOW, at("10.0.0.1:1"), at("10.0.0.2:443"), b"x");
    assert!(matches!(b.receive(NOW, &mut frame.clone()), Received::Udp(_)));
    b.close_port(443);
    assert_eq!(b.receive(NOW, &mut frame.clone()), Received::Dropped(NetDrop::PortClosed));
    b.open_port(443);
    assert!(matches!(b.receive(NOW, &mut frame.clone()), Received::Udp(_)));
}

#[test]
fn configurations_that_cannot_work_are_named() {
    let err = |change: &dyn Fn(&mut NetConfig, &mut Caps)| {
        let (mut config, mut caps) = (config(&["10.0.0.1/24"]), caps(1));
        change(&mut config, &mut caps);
        Net::<Frame>::new(&config, &caps, NOW).err()
    };
    assert_eq!(err(&|_, _| {}), None);
    assert_eq!(err(&|_, caps| caps.mac[0] = 3), Some(NetError::BadMac));
    assert_eq!(err(&|c, _| c.vlan = Some(4095)), Some(NetError::BadVlan(4095)));
    assert_eq!(err(&|c, _| c.vlan = Some(0)), Some(NetError::BadVlan(0)));
    assert_eq!(err(&|_, caps| caps.mtu = 1000), Some(NetError::MtuTooSmall { mtu: 1000, needed: 1228 }));
    let small = |what, value, least| Some(NetError::LimitTooSmall { what, value, least });
    assert_eq!(err(&|c, _| c.max_neighbors = 7), small("max_neighbors", 7, 8));
    assert_eq!(err(&|c, _| c.pending_frames = 0), small("pending_frames", 0, 1));
    assert_eq!(err(&|c, _| c.max_pending = 2), small("max_pending", 2, 16));
    assert_eq!(err(&|c, _| c.templates = 0), small("templates", 0, 2));
    assert!(
        err(&|c, _| c.gateways = vec![ip("10.1.0.1")]).unwrap().to_string().contains("10.1.0.1 is not on the link")
    );
}

proptest! {
    /// More flows than templates: every datagram still has its own headers and arrives intact.
    #[test]
    fn flows_do_not_mix(sends in proptest::collection::vec((0u16..40, 0usize..1400, 0u8..4, any::<bool>()), 1..60), seed: u64) {
        let addrs = ["10.0.0.1/24", "2001:db8::1/64"];
        let config = NetConfig { templates: 8, seed, ..config(&addrs) };
        let mut a = Net::new(&config, &caps(1), NOW).unwrap();
        let mut b = host(2, &["10.0.0.2/24", "2001:db8::2/64"]);
        for [_, _, from, to] in PAIRS {
            resolved(&mut a, &mut b, NOW, at(from), at(to), b"");
        }
        for (port, len, ecn, v6) in sends {
            let [_, _, from, to] = PAIRS[usize::from(v6)];
            let (from, mut to) = (at(from), at(to));
            to.set_port(1000 + port);
            let payload: Vec<u8> = (0..len).map(|i| (i as u16 ^ port) as u8).collect();
            let mut frame = ready(a.send(NOW, from, to, ecn, Frame::with_payload(&payload)));
            let Received::Udp(udp) = b.receive(NOW, &mut frame) else { panic!("not taken") };
            prop_assert_eq!((udp.local, udp.remote, udp.ecn), (to, from, ecn));
            prop_assert_eq!(&RxFrame::data_mut(&mut frame)[udp.payload], &payload[..]);
        }
    }
}
