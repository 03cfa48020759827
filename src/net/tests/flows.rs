//! The fast path gives the same results as full parsing.

use std::net::IpAddr;

use proptest::prelude::*;

use super::world::*;
use crate::base::time::Instant;
use crate::datapath::{Checksum, RxFrame, TxFrame};
use crate::net::{Net, NetConfig, Received};
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthHeader, Mac};
use crate::wire::ipv4::{self, PROTOCOL_UDP};
use crate::wire::ipv6;

const NOW: Instant = Instant::ZERO;

/// Two hosts of one IP version that know each other, in a VLAN or not, and a frame from one to the other.
fn pair(v6: bool, vlan: Option<u16>, payload: &[u8]) -> (Net<Frame>, Frame) {
    let [a_cidr, b_cidr, from, to] = if v6 {
        ["2001:db8::1/64", "2001:db8::2/64", "[2001:db8::1]:4433", "[2001:db8::2]:50000"]
    } else {
        ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.1:4433", "10.0.0.2:50000"]
    };
    let host = |mac, addr| Net::new(&NetConfig { vlan, ..config(&[addr]) }, &caps(mac), NOW).unwrap();
    let (mut a, mut b) = (host(1, a_cidr), host(2, b_cidr));
    let frame = resolved(&mut a, &mut b, NOW, at(from), at(to), payload);
    (b, Frame::received(frame.data()))
}

fn verdict() -> impl Strategy<Value = Checksum> {
    proptest::sample::select(&[Checksum::Unknown, Checksum::Good, Checksum::Bad][..])
}

proptest! {
    #[test]
    fn whatever_is_changed(
        v6: bool, vlan in proptest::option::of(Just(5u16)), payload in proptest::collection::vec(any::<u8>(), 0..80), other in proptest::collection::vec(any::<u8>(), 0..80),
        changes in proptest::collection::vec((0..80usize, any::<u8>()), 0..3), cut in proptest::option::of(0..130usize),
        padding in 0..20usize, ip in verdict(), l4 in verdict(),
    ) {
        let (mut knows, good) = pair(v6, vlan, &payload);
        let (mut fresh, next) = pair(v6, vlan, &other);
        let mut bytes = next.data().to_vec();
        bytes.extend(vec![0xaa; padding]);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        // One has seen a packet of the flow, the other has not.
        knows.receive(NOW, &mut good.clone());
        let received = |host: &mut Net<Frame>| {
            let before = *host.stats();
            let mut frame = Frame::received(&bytes);
            (frame.ip, frame.l4) = (ip, l4);
            let received = host.receive(NOW, &mut frame);
            let payload = match &received {
                Received::Udp(udp) => RxFrame::data_mut(&mut frame)[udp.payload.clone()].to_vec(),
                _ => Vec::new(),
            };
            let after = host.stats();
            (received, payload, after.rx_udp - before.rx_udp, after.rx_udp_bytes - before.rx_udp_bytes,
                after.rx_udp_software_checksums - before.rx_udp_software_checksums, after.drops.received() - before.drops.received())
        };
        prop_assert_eq!(received(&mut knows), received(&mut fresh));
    }
}

#[test]
fn handed_frames_are_neither_verified_nor_counted_again() {
    let (mut b, frame) = pair(false, None, &[7; 40]);
    // A checksum that the other core would not have let pass.
    let handed = || {
        let mut bytes = frame.data().to_vec();
        bytes[40] ^= 0xff;
        Frame::received(&bytes)
    };
    assert!(b.receive_known_handed(&mut handed()).is_none(), "the flow is not known");
    let counters = |b: &Net<Frame>| b.stats().iter().collect::<Vec<_>>();
    let received = b.stats().rx_udp;
    let udp = b.receive_handed(NOW, &mut handed()).expect("a datagram");
    assert_eq!(b.stats().rx_udp, received);
    let before = counters(&b);
    let known = b.receive_known_handed(&mut handed()).expect("a known flow");
    assert_eq!(b.flow(known.flow), Some((udp.local, udp.remote)));
    assert_eq!(known.payload.map(usize::from), [udp.payload.start, udp.payload.end]);
    assert_eq!(counters(&b), before);
    assert!(matches!(b.receive(NOW, &mut handed()), Received::Dropped(_)), "from the wire, it is verified");
}

#[test]
fn a_port_that_is_closed_is_closed_for_flows_that_are_known() {
    let mut config = config(&["10.0.0.2/24"]);
    config.ports = Some(vec![50000]);
    let mut b = Net::new(&config, &caps(2), NOW).unwrap();
    let mut a = host(1, &["10.0.0.1/24"]);
    let frame = resolved(&mut a, &mut b, NOW, at("10.0.0.1:4433"), at("10.0.0.2:50000"), &[7; 40]);
    for _ in 0..2 {
        let received = b.receive(NOW, &mut Frame::received(frame.data()));
        assert!(matches!(received, Received::Udp(_)), "{received:?}");
    }
    b.close_port(50000);
    let received = b.receive(NOW, &mut Frame::received(frame.data()));
    assert!(matches!(received, Received::Dropped(_)), "{received:?}");
}

/// A datagram from a host behind a router.
fn datagram(vlan: Option<u16>, priority: u8, from: &str, to: &str) -> Frame {
    let (src, dst) = (at(from), at(to));
    let mut udp = [&src.port().to_be_bytes()[..], &dst.port().to_be_bytes(), &[0, 48, 0, 0], &[7; 40]].concat();
    let len = udp.len();
    let (ethertype, ip, pseudo) = match (src.ip(), dst.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let header = ipv4::header(a, b, PROTOCOL_UDP, 60, 0, len).to_vec();
            (ETHERTYPE_IPV4, header, Sum::new().pseudo_v4(a, b, PROTOCOL_UDP, len as u16))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let header = ipv6::header(a, b, PROTOCOL_UDP, 60, 0, 0, len).to_vec();
            (ETHERTYPE_IPV6, header, Sum::new().pseudo_v6(a, b, PROTOCOL_UDP, len as u32))
        }
        _ => unreachable!("one family"),
    };
    let checksum = pseudo.bytes(&udp).checksum();
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let eth = EthHeader { dst: Mac([2, 0, 0, 0, 0, 1]), src: Mac([2, 0, 0, 0, 0, 9]), vlan, ethertype };
    let mut bytes = [&eth.to_bytes()[..], &ip, &udp].concat();
    if vlan.is_some() {
        bytes[14] |= priority << 5;
    }
    Frame::received(&bytes)
}

/// Interleaved flows are each parsed in full once. A single byte at a fixed offset used to distinguish flows: all
/// tagged IPv4 flows shared one slot, and so did all IPv6 flows of a host, and each packet evicted the previous flow.
#[test]
fn flows_of_all_kinds_have_places_of_their_own() {
    let addrs = ["10.0.0.1/16", "10.0.0.200/16", "2001:db8::1/64"];
    let ports = |host: &str| (0..8).map(|n| format!("{host}:{}", 50_000 + n)).collect::<Vec<_>>();
    let hosts = |near: &dyn Fn(u32) -> String| (0..8).map(|n| format!("{}:4711", near(n))).collect::<Vec<_>>();
    let (v4, v6) = ("10.0.0.1:4433", "[2001:db8::1]:4433");
    for (from, to) in [
        (ports("10.0.0.2"), v4),
        (hosts(&|n| format!("10.0.0.{}", 2 + n)), v4),
        (hosts(&|n| format!("10.0.{n}.7")), v4),
        (hosts(&|n| format!("{}.1.2.3", 20 + n)), v4),
        (ports("[2001:db8::2]"), v6),
        (hosts(&|n| format!("[2001:db8::{}]", 2 + n)), v6),
        (hosts(&|n| format!("[2001:db8:{n}::2]")), v6),
    ] {
        for vlan in [None, Some(5)] {
            let mut a = Net::<Frame>::new(&NetConfig { vlan, ..config(&addrs) }, &caps(1), NOW).unwrap();
            for round in 0..100 {
                for from in &from {
                    let received = a.receive(NOW, &mut datagram(vlan, round % 8, from, to));
                    let Received::Udp(udp) = received else { panic!("{received:?}") };
                    assert_eq!((udp.remote, udp.local), (at(from), at(to)));
                }
            }
            assert_eq!((a.stats().rx_udp, a.stats().rx_flow_misses), (800, 8), "{} {vlan:?}", from[1]);
        }
    }
    // The same for destinations.
    let mut a = host(1, &addrs);
    for _ in 0..100 {
        for to in ["10.0.0.1:4433", "10.0.0.200:4433", "10.0.0.1:443"] {
            assert!(matches!(a.receive(NOW, &mut datagram(None, 0, "10.0.0.2:7", to)), Received::Udp(_)));
        }
    }
    assert_eq!(a.stats().rx_flow_misses, 3);
}

/// Closing a port used to forget all flows.
#[test]
fn a_port_that_is_closed_makes_no_other_flow_forgotten() {
    let ports = NetConfig { ports: Some(vec![443, 4433]), ..config(&["10.0.0.1/24"]) };
    let mut a = Net::<Frame>::new(&ports, &caps(1), NOW).unwrap();
    let take = |a: &mut Net<Frame>, to| a.receive(NOW, &mut datagram(None, 0, "10.0.0.2:7", to));
    take(&mut a, "10.0.0.1:443");
    take(&mut a, "10.0.0.1:4433");
    a.close_port(443);
    assert!(matches!(take(&mut a, "10.0.0.1:4433"), Received::Udp(_)));
    assert_eq!(a.stats().rx_flow_misses, 2);
    assert!(matches!(take(&mut a, "10.0.0.1:443"), Received::Dropped(_)));
}
