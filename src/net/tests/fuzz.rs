//! Frames of every kind, randomly damaged: nothing panics, and the counters add up.

use std::net::IpAddr;

use super::world::*;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::datapath::{Checksum, TxFrame};
use crate::net::{Net, NetConfig, NetDrop, Received, Sent};
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthHeader, Mac};
use crate::wire::ipv4::{self, PROTOCOL_ICMP, PROTOCOL_UDP};
use crate::wire::ipv6::{self, ALL_NODES, PROTOCOL_ICMPV6};
use crate::wire::ndp;

const SEEDS: u64 = 40;
const STEPS: u32 = 4000;
const US: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn packet(src: &str, dst: &str, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    match (ip(src), ip(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            [&ipv4::header(src, dst, protocol, hops, 0, payload.len())[..], payload].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            [&ipv6::header(src, dst, protocol, hops, 0, 0, payload.len())[..], payload].concat()
        }
        _ => unreachable!("one family"),
    }
}

fn framed(src: Mac, dst: Mac, vlan: Option<u16>, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&EthHeader { dst, src, vlan, ethertype }.to_bytes()[..], packet].concat()
}

/// UDP from port 7 to port 4433.
fn datagram(len: usize) -> Vec<u8> {
    let [a, b] = (8 + len as u16).to_be_bytes();
    [&[0, 7, 0x11, 0x51, a, b, 0, 0][..], &vec![7; len]].concat()
}

/// One of every kind of frame that is accepted.
fn corpus() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let (us4, us6) = ("10.0.0.1", "2001:db8::1");
    let v4 = |mac, packet: &[u8]| framed(mac, US, None, ETHERTYPE_IPV4, packet);
    let v6 = |mac, dst, packet: &[u8]| framed(mac, dst, None, ETHERTYPE_IPV6, packet);
    let router = Mac([2, 0, 0, 0, 0, 9]);
    let own: std::net::Ipv6Addr = us6.parse().unwrap();
    for n in 2..12u8 {
        let mac = Mac([2, 0, 0, 0, 1, n]);
        let (src4, src6) = (format!("10.0.0.{n}"), format!("2001:db8::{n:x}"));
        all.push(v4(mac, &packet(&src4, us4, PROTOCOL_UDP, 64, &datagram(60))));
        all.push(v6(mac, US, &packet(&src6, us6, PROTOCOL_UDP, 64, &datagram(60))));
        all.push(framed(mac, US, Some(5), ETHERTYPE_IPV4, &packet(&src4, us4, PROTOCOL_UDP, 64, &datagram(60))));
        let src: std::net::Ipv6Addr = src6.parse().unwrap();
        let solicit = ndp::neighbor_solicit(src, own, own, mac);
        all.push(v6(mac, US, &packet(&src6, us6, PROTOCOL_ICMPV6, 255, &solicit)));
        let advert = ndp::neighbor_advert(src, own, src, mac, n % 2 == 0, n % 3 == 0);
        all.push(v6(mac, US, &packet(&src6, us6, PROTOCOL_ICMPV6, 255, &advert)));
        for op in [ArpOp::Request, ArpOp::Reply] {
            let (sender_ip, target_ip) = ([10, 0, 0, n].into(), [10, 0, 0, 1].into());
            let arp = Arp { op, sender_mac: mac, sender_ip, target_mac: US, target_ip };
            all.push(framed(mac, US, None, ETHERTYPE_ARP, &arp.to_bytes()));
        }
    }
    // Errors that quote datagrams of ours, with a QUIC packet's first bytes.
    let quote4 =
        packet(us4, "8.8.8.8", PROTOCOL_UDP, 60, &[&[0x11, 0x51, 0, 7, 5, 0x78, 0, 0][..], &[0x41; 40]].concat());
    let quote6 =
        packet(us6, "2001:db8:9::9", PROTOCOL_UDP, 60, &[&[0x11, 0x51, 0, 7, 5, 0x78, 0, 0][..], &[0xc1; 40]].concat());
    for head in
        [[3, 4, 0, 0, 0, 0, 5, 0x14], [3, 3, 0, 0, 0, 0, 0, 0], [3, 1, 0, 0, 0, 0, 0, 0], [8, 0, 0, 0, 1, 2, 3, 4]]
    {
        all.push(v4(router, &packet("10.7.7.7", us4, PROTOCOL_ICMP, 60, &[&head[..], &quote4].concat())));
    }
    for head in
        [[2, 0, 0, 0, 0, 0, 5, 0x14], [1, 4, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [128, 0, 0, 0, 1, 2, 3, 4]]
    {
        let message = [&head[..], &quote6].concat();
        all.push(v6(router, US, &packet("2001:db8:7::7", us6, PROTOCOL_ICMPV6, 60, &message)));
        // Behind extension headers: a fragment that is whole, and options.
        let atomic = [&[60, 0, 0, 0, 0, 0, 0, 1][..], &[PROTOCOL_ICMPV6, 0, 0x1e, 4, 0, 0, 0, 0], &message].concat();
        all.push(v6(router, US, &packet("2001:db8:7::7", us6, 44, 60, &atomic)));
    }
    let nodes = Mac::for_multicast(ALL_NODES);
    let query = [&[130u8, 0, 0, 0, 0x27, 0x10, 0, 0][..], &[0; 20]].concat();
    all.push(v6(router, nodes, &packet("fe80::9", "ff02::1", PROTOCOL_ICMPV6, 1, &query)));
    let router_advert =
        [&[134u8, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &[5, 1, 0, 0, 0, 0, 5, 0xdc]].concat();
    all.push(v6(router, nodes, &packet("fe80::9", "ff02::1", PROTOCOL_ICMPV6, 255, &router_advert)));
    all
}

/// Corrects the length and checksum of an ICMP message, which would otherwise reveal most damage.
fn mend(bytes: &mut [u8]) {
    let ethertype = bytes.get(12..14).unwrap_or_default();
    let (start, sum) = if ethertype == [8, 0] && bytes.len() > 42 && bytes[14] == 0x45 && bytes[23] == PROTOCOL_ICMP {
        let len = bytes.len() as u16 - 14;
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        (34, Sum::new())
    } else if ethertype == [0x86, 0xdd] && bytes.len() > 78 {
        let len = bytes.len() as u16 - 54;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
        // The message may follow extension headers, here at most two.
        let Some(start) = [(20, 54), (54, 62), (62, 70)].into_iter().find(|(next, _)| bytes[*next] == PROTOCOL_ICMPV6)
        else {
            return;
        };
        let address = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap();
        let len = (bytes.len() - start.1) as u32;
        (start.1, Sum::new().pseudo_v6(address(22).into(), address(38).into(), PROTOCOL_ICMPV6, len))
    } else {
        return;
    };
    bytes[start + 2..start + 4].fill(0);
    let checksum = sum.bytes(&bytes[start..]).checksum();
    bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
}

fn damaged(rng: &mut Rng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.below(4) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = match rng.below(3) {
            0 => rng.below(256) as u8,
            1 => bytes[at] ^ (1 << rng.below(8)),
            _ => [0, 1, 255, 44, 60, 43, 58, 0x81][rng.below(8) as usize],
        };
    }
    if rng.below(10) == 0 {
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
    }
    if rng.below(2) == 0 {
        mend(&mut bytes);
    }
    bytes
}

/// One run; returns how many frames were accepted in each way.
fn run(seed: u64, corpus: &[Vec<u8>]) -> [u64; 3] {
    let mut rng = Rng::from_u64(seed);
    let config = NetConfig {
        max_neighbors: 12,
        max_pending: 20,
        pending_frames: 3,
        gateways: vec![ip("10.0.0.254"), ip("fe80::1")],
        announce: rng.below(2) == 0,
        ports: Some(vec![4433]),
        vlan: (rng.below(4) == 0).then_some(5),
        seed: rng.next_u64(),
        ..config(&["10.0.0.1/24", "10.1.0.1/16", "2001:db8::1/64"])
    };
    let mut a = Net::<Frame>::new(&config, &caps(1), Instant::ZERO).unwrap();
    let mut now = Instant::ZERO;
    let (mut ready, mut pending, mut given) = (0, 0, 0);
    for _ in 0..STEPS {
        now += Duration::from_micros(rng.below(100_000));
        match rng.below(8) {
            0 => {
                let n = 1 + rng.below(60);
                let (from, to) = match rng.below(3) {
                    0 => ("10.0.0.1:4433", format!("10.{}.0.{n}:7", rng.below(3))),
                    1 => ("10.0.0.1:4433", "8.8.8.8:7".to_owned()),
                    _ => ("[2001:db8::1]:4433", format!("[2001:db8:{}::{n:x}]:7", rng.below(2))),
                };
                match a.send(now, at(from), at(&to), 2, Frame::with_payload(&[1; 30])) {
                    Sent::Ready(_) => ready += 1,
                    Sent::Pending => pending += 1,
                    Sent::Dropped(_) => {}
                }
            }
            1 => {
                if rng.below(50) == 0 {
                    a.link_up(now);
                }
                given += poll_all(&mut a, now).len() as u64;
                while a.poll_event().is_some() {}
            }
            _ => {
                let which = rng.below(corpus.len() as u64) as usize;
                let bytes = damaged(&mut rng, &corpus[which]);
                let mut frame = Frame::received(&bytes);
                if rng.below(2) == 0 {
                    (frame.ip, frame.l4) = (Checksum::Good, Checksum::Good);
                }
                match a.receive(now, &mut frame) {
                    Received::Udp(udp) => assert!(frame.data().get(udp.payload).is_some()),
                    Received::PacketTooBig { quote, .. }
                    | Received::PortUnreachable { quote }
                    | Received::HostUnreachable { quote } => {
                        assert!(frame.data().get(quote.payload).is_some_and(|quoted| quoted.len() <= quote.len.into()));
                        assert_eq!(quote.local.port(), 4433);
                    }
                    Received::Consumed | Received::Dropped(_) => {}
                }
            }
        }
        assert!(a.neighbor_count() <= 12);
    }
    for n in 1..20 {
        given += poll_all(&mut a, now + Duration::from_secs(n)).len() as u64;
    }
    let s = a.stats();
    assert_eq!(s.rx_frames, s.rx_udp + s.rx_too_big + s.rx_unreachable + s.rx_handled + s.drops.received());
    assert_eq!((s.tx_pending, s.tx_udp), (pending, ready));
    let lost = s.drops[NetDrop::PendingOverflow] + s.drops[NetDrop::NeighborUnreachable];
    assert_eq!(s.tx_pending, s.tx_released + lost, "seed {seed}");
    assert_eq!(given, s.tx_released + s.tx_control, "seed {seed}");
    [s.rx_udp, s.rx_too_big + s.rx_unreachable, s.rx_handled]
}

/// 120,000 frames.
#[test]
fn whatever_arrives_is_counted_and_harms_nobody() {
    let corpus = corpus();
    let mut heeded = [0; 3];
    for seed in 0..SEEDS {
        let run = run(seed, &corpus);
        heeded.iter_mut().zip(run).for_each(|(sum, n)| *sum += n);
    }
    assert!(heeded.iter().all(|n| *n > 1000), "most frames were too damaged to say anything: {heeded:?}");
}
