//! Arbitrary bytes from the wire.

use proptest::prelude::*;

use super::world::*;
use crate::base::time::Instant;
use crate::datapath::{RxFrame, TxFrame};
use crate::net::{Net, NetConfig, NetDrop, Received};

fn us() -> Net<Frame> {
    let config = NetConfig { ports: Some(vec![4433]), ..config(&["10.0.0.1/24", "2001:db8::1/64"]) };
    Net::new(&config, &caps(1), Instant::ZERO).unwrap()
}

/// Every received frame is counted once.
fn all_counted(net: &Net<Frame>) -> bool {
    let s = net.stats();
    s.rx_frames == s.rx_udp + s.rx_too_big + s.rx_unreachable + s.rx_handled + s.drops.received()
}

/// Valid frames to start from.
fn good_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (from, to) in [("10.0.0.2:7", "10.0.0.1:4433"), ("[2001:db8::2]:7", "[2001:db8::1]:4433")] {
        let (mut a, mut b) = (us(), host(2, &["10.0.0.2/24", "2001:db8::2/64"]));
        let _ = b.send(Instant::ZERO, at(from), at(to), 1, Frame::with_payload(&[7; 50]));
        for _ in 0..3 {
            for mut frame in poll_all(&mut b, Instant::ZERO) {
                frames.push(frame.data().to_vec());
                a.receive(Instant::ZERO, &mut frame);
            }
            for mut frame in poll_all(&mut a, Instant::ZERO) {
                b.receive(Instant::ZERO, &mut frame);
            }
        }
        let closed = at(&to.replace("4433", "9"));
        frames.push(ready(b.send(Instant::ZERO, at(from), closed, 0, Frame::with_payload(&[1; 9]))).data().to_vec());
    }
    assert_eq!(frames.len(), 6);
    frames
}

fn check(net: &mut Net<Frame>, now: Instant, bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut frame = Frame::received(bytes);
    if let Received::Udp(udp) = net.receive(now, &mut frame) {
        prop_assert!(udp.payload.start <= udp.payload.end && udp.payload.end <= bytes.len());
        prop_assert!(RxFrame::data_mut(&mut frame).get(udp.payload).is_some());
        prop_assert_eq!(udp.local.port(), 4433);
    }
    prop_assert!(all_counted(net), "{:?}", net.stats());
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20), aim: bool) {
        let mut net = us();
        for (n, mut bytes) in frames.into_iter().enumerate() {
            if aim && bytes.len() > 15 {
                bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
                let kinds: [[u8; 3]; 3] = [[8, 0, 0x45], [0x86, 0xdd, 0x60], [8, 6, 0]];
                bytes[12..15].copy_from_slice(&kinds[n % 3]);
            }
            check(&mut net, secs(n as u64), &bytes)?;
        }
        prop_assert!(poll_all(&mut net, secs(30)).len() < 100);
    }

    #[test]
    fn good_frames_with_damage(damage in proptest::collection::vec((0usize..6, 0usize..160, any::<u8>(), 0usize..160), 1..60)) {
        let good = good_frames();
        let mut net = us();
        for (n, (which, at, value, cut)) in damage.into_iter().enumerate() {
            let mut bytes = good[which].clone();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            check(&mut net, secs(n as u64), &bytes)?;
            bytes.truncate(cut);
            check(&mut net, secs(n as u64), &bytes)?;
        }
        poll_all(&mut net, secs(100));
    }
}

#[test]
fn the_good_frames_are_good() {
    let mut net = us();
    for bytes in good_frames() {
        net.receive(Instant::ZERO, &mut Frame::received(&bytes));
    }
    let stats = net.stats();
    assert_eq!((stats.rx_udp, stats.rx_handled, stats.drops[NetDrop::PortClosed]), (2, 2, 2));
}

#[test]
fn each_refusal_has_its_reason() {
    let good = good_frames();
    let (v4, v6) = (&good[1], &good[4]);
    let verdict = |from: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = from.to_vec();
        change(&mut bytes);
        let mut frame = Frame::received(&bytes);
        frame.ip = crate::datapath::Checksum::Good;
        frame.l4 = crate::datapath::Checksum::Good;
        match us().receive(Instant::ZERO, &mut frame) {
            Received::Dropped(reason) => Some(reason),
            _ => None,
        }
    };
    assert_eq!(verdict(v4, &|_| {}), None);
    assert_eq!(verdict(v6, &|_| {}), None);
    assert_eq!(verdict(v4, &|b| b.truncate(13)), Some(NetDrop::EthMalformed));
    assert_eq!(verdict(v4, &|b| b[5] = 9), Some(NetDrop::ForeignMac));
    assert_eq!(verdict(v4, &|b| b[12] = 9), Some(NetDrop::EtherType));
    assert_eq!(verdict(v4, &|b| b[12..14].copy_from_slice(&[0x88, 0xa8])), Some(NetDrop::DoubleTagged));
    assert_eq!(verdict(v4, &|b| b[12..14].copy_from_slice(&[8, 6])), Some(NetDrop::ArpMalformed));
    assert_eq!(verdict(v4, &|b| b[14] = 0x65), Some(NetDrop::Ipv4Malformed));
    assert_eq!(verdict(v4, &|b| b[20] = 0x20), Some(NetDrop::Fragment));
    assert_eq!(verdict(v4, &|b| b[23] = 6), Some(NetDrop::Protocol));
    assert_eq!(verdict(v4, &|b| b[33] = 9), Some(NetDrop::NotOurAddress));
    assert_eq!(verdict(v4, &|b| b[26] = 224), Some(NetDrop::BadSource));
    assert_eq!(verdict(v4, &|b| b[39] = 7), Some(NetDrop::UdpMalformed));
    assert_eq!(verdict(v4, &|b| b[34..36].fill(0)), Some(NetDrop::UdpPortZero));
    assert_eq!(verdict(v4, &|b| b[37] ^= 1), Some(NetDrop::PortClosed));
    assert_eq!(verdict(v6, &|b| b[14] = 0x45), Some(NetDrop::Ipv6Malformed));
    assert_eq!(verdict(v6, &|b| b[20] = 43), Some(NetDrop::Ipv6Malformed), "an endless routing header");
    assert_eq!(verdict(v6, &|b| b[20] = 44), Some(NetDrop::Fragment));
    assert_eq!(verdict(v6, &|b| b[20] = 59), Some(NetDrop::Protocol));
    assert_eq!(verdict(v6, &|b| (b[20], b[55]) = (43, 0)), Some(NetDrop::Ipv6Extension), "segments left");
    assert_eq!(verdict(v6, &|b| b[53] = 9), Some(NetDrop::NotOurAddress));
    assert_eq!(verdict(v6, &|b| b[38] = 0xff), Some(NetDrop::ForeignMac), "a group we do not listen to");
    assert_eq!(verdict(v6, &|b| b[22..38].fill(0)), Some(NetDrop::BadSource));
}
