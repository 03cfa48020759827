//! ICMP: echo and errors.

use std::net::IpAddr;

use super::world::*;
use crate::base::time::{Duration, Instant};
use crate::datapath::TxFrame;
use crate::net::{Net, NetConfig, NetDrop, Quote, Received};
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthHeader, Mac};
use crate::wire::ipv4::{self, PROTOCOL_ICMP, PROTOCOL_UDP};
use crate::wire::ipv6::{self, PROTOCOL_ICMPV6};

const NOW: Instant = Instant::ZERO;
const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn us() -> Net<Frame> {
    host(1, &["10.0.0.1/24", "2001:db8::1/64"])
}

/// A frame with an ICMP message; its checksum, at offset 2, is filled in.
fn frame(src: &str, dst: &str, hops: u8, message: &[u8]) -> Frame {
    let mut message = message.to_vec();
    let (ethertype, header, pseudo) = match (ip(src), ip(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = ipv4::header(src, dst, PROTOCOL_ICMP, hops, 0, message.len()).to_vec();
            (ETHERTYPE_IPV4, header, Sum::new())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = ipv6::header(src, dst, PROTOCOL_ICMPV6, hops, 0, 0, message.len()).to_vec();
            (ETHERTYPE_IPV6, header, Sum::new().pseudo_v6(src, dst, PROTOCOL_ICMPV6, message.len() as u32))
        }
        _ => unreachable!("one family"),
    };
    let checksum = pseudo.bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let eth = EthHeader { dst: US, src: ROUTER, vlan: None, ethertype };
    Frame::received(&[&eth.to_bytes()[..], &header, &message].concat())
}

/// The start of a UDP packet as an error quotes it.
fn quote(src: &str, dst: &str) -> Vec<u8> {
    let (src, dst) = (at(src), at(dst));
    let mut quote = match (src.ip(), dst.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ipv4::header(a, b, PROTOCOL_UDP, 60, 0, 1400).to_vec(),
        (IpAddr::V6(a), IpAddr::V6(b)) => ipv6::header(a, b, PROTOCOL_UDP, 60, 0, 0, 1400).to_vec(),
        _ => unreachable!("one family"),
    };
    quote.extend(src.port().to_be_bytes());
    quote.extend(dst.port().to_be_bytes());
    quote.extend([0; 4]);
    quote
}

#[test]
fn echo_comes_back() {
    for (src, dst, request, reply, header) in
        [("10.0.0.2", "10.0.0.1", 8, 0, 34), ("2001:db8:5::2", "2001:db8::1", 128, 129, 54)]
    {
        for len in [0, 56, 1400] {
            let mut a = us();
            let message = [&[request, 0, 0, 0, 0x12, 0x34, 0, 1][..], &vec![0x5a; len]].concat();
            assert_eq!(a.receive(NOW, &mut frame(src, dst, 64, &message)), Received::Consumed);
            let answers = poll_all(&mut a, NOW);
            assert_eq!(answers.len(), 1);
            let data = answers[0].data();
            assert_eq!((&data[..6], &data[6..12]), (&ROUTER.0[..], &US.0[..]));
            let answered = &data[header..header + message.len()];
            assert_eq!((answered[0], &answered[4..]), (reply, &message[4..]));
            let back = frame(dst, src, 64, &[&[reply, 0, 0, 0][..], &message[4..]].concat());
            assert_eq!(data[14..header + message.len()], back.data()[14..], "checksums included");
            assert_eq!(a.neighbor_count(), 0);
        }
    }
}

#[test]
fn echo_is_limited_and_never_an_amplifier() {
    let mut a = us();
    let ping = frame("10.0.0.2", "10.0.0.1", 64, &[8, 0, 0, 0, 0, 0, 0, 0]);
    let mut answered = 0;
    let mut now = NOW;
    for _ in 0..2000 {
        a.receive(now, &mut ping.clone());
        answered += poll_all(&mut a, now).len();
        now += Duration::from_millis(1);
    }
    assert_eq!(answered, 100 + 2000 / 10 - 1);
    assert_eq!(a.stats().drops[NetDrop::RateLimited], 2000 - answered as u64);
    // To a group, with a group's MAC address, or with a broadcast as its source: no answer.
    let mut to_group = ping.clone();
    TxFrame::data_mut(&mut to_group)[..6].fill(0xff);
    assert_eq!(a.receive(secs(9), &mut to_group), Received::Dropped(NetDrop::ForeignMac));
    for source in ["10.0.0.255", "255.255.255.255", "224.0.0.1", "127.0.0.1", "0.0.0.0", "10.0.0.1"] {
        let mut bad = frame(source, "10.0.0.1", 64, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(a.receive(secs(9), &mut bad), Received::Dropped(NetDrop::BadSource), "{source}");
    }
}

#[test]
fn waiting_answers_are_bounded() {
    let mut a = us();
    let ping = frame("10.0.0.2", "10.0.0.1", 64, &[&[8, 0, 0, 0, 0, 0, 0, 0][..], &[0; 200]].concat());
    for _ in 0..50 {
        a.receive(NOW, &mut ping.clone());
    }
    let answered = poll_all(&mut a, NOW).len() as u64;
    assert!((1..50).contains(&answered));
    assert_eq!(a.stats().tx_control_overflow, 50 - answered);
    a.receive(NOW, &mut ping.clone());
    assert_eq!(poll_all(&mut a, NOW).len(), 1, "buffers come back");
}

#[test]
fn an_answer_too_long_for_the_frames_there_are_is_lost_and_counted() {
    let mut a = us();
    let ping = frame("10.0.0.2", "10.0.0.1", 64, &[&[8, 0, 0, 0, 0, 0, 0, 0][..], &[0; 1000]].concat());
    a.receive(NOW, &mut ping.clone());
    assert_eq!(a.poll(NOW, || Some(Frame::empty(500))), None);
    assert_eq!(a.stats().drops[NetDrop::FrameTooSmall], 1);
}

#[test]
fn packet_too_big_names_flow_and_size() {
    for (router, own, far, v6) in [
        ("10.7.7.7", "10.0.0.1:4433", "8.8.8.8:50000", false),
        ("2001:db8:7::7", "[2001:db8::1]:4433", "[2001:db8:9::9]:50000", true),
    ] {
        let mut a = us();
        let dst = at(own).ip().to_string();
        let mut say = |mtu: u16, quoted: &[u8]| {
            let [hi, lo] = mtu.to_be_bytes();
            let head = if v6 { [2, 0, 0, 0, 0, 0, hi, lo] } else { [3, 4, 0, 0, 0, 0, hi, lo] };
            a.receive(NOW, &mut frame(router, &dst, 60, &[&head[..], quoted].concat()))
        };
        let header = quote(own, far);
        let quoted = [&header[..header.len() - 4], &[5, 0x78, 0, 0], b"QUIC's first bytes, and more"].concat();
        let max_udp_payload = if v6 { 1400 - 48 } else { 1400 - 28 };
        let start = if v6 { 54 + 8 + 48 } else { 34 + 8 + 28 };
        let want = |len, payload| {
            let quote = Quote { local: at(own), remote: at(far), len, payload };
            Received::PacketTooBig { quote, max_udp_payload }
        };
        assert_eq!(say(1400, &quoted), want(1392, start..start + 28));
        assert_eq!(say(1400, &header[..header.len() - 4]), want(0, 0..0), "only the ports are quoted");
        for useless in [0, 50, 1500, 9000] {
            assert_eq!(say(useless, &quoted), Received::Dropped(NetDrop::TooBigUnusable), "{useless}");
        }
        let unrelated = Received::Dropped(NetDrop::IcmpUnrelated);
        assert_eq!(say(1400, &quote(far, own)), unrelated, "not from us");
        assert_eq!(say(1400, &header[..header.len() - 6]), unrelated, "ports cut off");
        let mut tcp = quoted.clone();
        tcp[if v6 { 6 } else { 9 }] = 6;
        assert_eq!(say(1400, &tcp), unrelated);
        let sized = |len: u16| [&header[..header.len() - 4], &len.to_be_bytes(), &[0, 0]].concat();
        assert_eq!(say(1400, &sized(1500)), unrelated, "longer than any of ours");
        let fits = Received::Dropped(NetDrop::TooBigUnusable);
        assert_eq!(say(1400, &sized(8 + max_udp_payload)), fits, "it would have been small enough");
        assert_eq!(say(1400, &quote(own, own)), unrelated, "to ourselves");
        assert_eq!(say(1400, &quote(own, if v6 { "[ff02::1]:5" } else { "224.0.0.1:5" })), unrelated);
    }
}

/// Forged messages used to exhaust the limit of 100 per second that genuine ones needed.
#[test]
fn forged_packet_too_big_takes_nothing_from_genuine_ones() {
    let config = NetConfig { ports: Some(vec![4433]), ..config(&["10.0.0.1/24"]) };
    let mut a = Net::<Frame>::new(&config, &caps(1), NOW).unwrap();
    let message = |own: &str, mtu: u16| {
        let [hi, lo] = mtu.to_be_bytes();
        frame("10.7.7.7", "10.0.0.1", 60, &[&[3, 4, 0, 0, 0, 0, hi, lo], &quote(own, "8.8.8.8:50000")[..]].concat())
    };
    for _ in 0..1000 {
        assert_eq!(a.receive(NOW, &mut message("10.0.0.1:4433", 20)), Received::Dropped(NetDrop::TooBigUnusable));
        assert_eq!(a.receive(NOW, &mut message("10.0.0.1:4434", 1400)), Received::Dropped(NetDrop::IcmpUnrelated));
        assert!(matches!(a.receive(NOW, &mut message("10.0.0.1:4433", 1400)), Received::PacketTooBig { .. }));
    }
    assert_eq!((a.stats().rx_too_big, a.stats().drops[NetDrop::RateLimited]), (1000, 0));
}

/// The same for "unreachable"; only messages about unused flows are limited.
#[test]
fn forged_unreachable_takes_nothing_from_genuine_ones() {
    let config = NetConfig { unreachable_per_second: 7, ..config(&["10.0.0.1/24"]) };
    let mut a = Net::<Frame>::new(&config, &caps(1), NOW).unwrap();
    let mut b = host(2, &["10.0.0.2/24"]);
    resolved(&mut a, &mut b, NOW, at("10.0.0.1:4433"), at("10.0.0.2:9"), b"x");
    let mut say = |code: u8, far: &str, count: usize| {
        let quoted = quote("10.0.0.1:4433", far);
        let mut message = frame("10.0.0.2", "10.0.0.1", 60, &[&[3, code, 0, 0, 0, 0, 0, 0], &quoted[..]].concat());
        let received = (0..count).map(|_| a.receive(NOW, &mut message));
        let passed = received.filter(|received| !matches!(received, Received::Dropped(_))).collect::<Vec<_>>();
        let kind = |received: &&Received| matches!(received, Received::PortUnreachable { .. }) == (code == 3);
        assert!(passed.iter().filter(kind).count() == passed.len());
        passed.len()
    };
    assert_eq!(say(3, "10.0.0.2:10", 1000), 7, "nothing was sent there");
    assert_eq!(say(1, "10.0.0.3:9", 1000), 0);
    for code in [0, 1, 3, 13] {
        assert_eq!(say(code, "10.0.0.2:9", 1000), 1000);
    }
    assert_eq!(a.stats().drops[NetDrop::RateLimited], 1993);
}

#[test]
fn a_closed_port_is_told_and_understood() {
    for (a_cidr, b_cidr, from, to) in [
        ("10.0.0.1/24", "10.0.0.2/24", "10.0.0.1:4433", "10.0.0.2:9"),
        ("2001:db8::1/64", "2001:db8::2/64", "[2001:db8::1]:4433", "[2001:db8::2]:9"),
    ] {
        let closed = NetConfig { ports: Some(vec![443]), errors_per_second: 2, ..config(&[b_cidr]) };
        let (mut a, mut b) = (host(1, &[a_cidr]), Net::new(&closed, &caps(2), NOW).unwrap());
        let sent = resolved(&mut a, &mut b, NOW, at(from), at(to), &[0; 1400]);
        settle(&mut a, &mut b, secs(5));
        let seen = deliver(&mut b, secs(5), vec![sent; 5]);
        assert_eq!(seen.len(), 5);
        let told = poll_all(&mut b, secs(5));
        assert_eq!(told.len(), 2, "no more often than allowed");
        assert!(told[0].data().len() <= 14 + 1280);
        let seen = deliver(&mut a, secs(5), told);
        for (received, _) in &seen {
            let Received::PortUnreachable { quote } = received else { panic!("{received:?}") };
            assert_eq!((quote.local, quote.remote, quote.len), (at(from), at(to), 1400));
        }
        assert_eq!(seen.len(), 2);
    }
}

#[test]
fn damaged_and_useless_messages_are_counted() {
    let mut a = us();
    let mut ping = frame("10.0.0.2", "10.0.0.1", 64, &[8, 0, 0, 0, 1, 2, 3, 4]);
    *TxFrame::data_mut(&mut ping).last_mut().unwrap() ^= 1;
    assert_eq!(a.receive(NOW, &mut ping), Received::Dropped(NetDrop::IcmpChecksum));
    let mut verdict = |src: &str, dst: &str, message: &[u8]| a.receive(NOW, &mut frame(src, dst, 64, message));
    let ignored = Received::Dropped(NetDrop::IcmpIgnored);
    assert_eq!(verdict("10.0.0.2", "10.0.0.1", &[0, 0, 0, 0, 0, 0, 0, 0]), ignored, "a reply to nothing");
    assert_eq!(verdict("10.0.0.2", "10.0.0.1", &[13, 0, 0, 0, 0, 0, 0, 0]), ignored);
    assert_eq!(verdict("10.0.0.2", "10.0.0.1", &[11, 0, 0, 0, 0, 0, 0, 0]), ignored);
    assert_eq!(verdict("10.0.0.2", "10.0.0.1", &[8, 0, 0, 0]), Received::Dropped(NetDrop::IcmpMalformed));
    assert_eq!(verdict("fe80::2", "2001:db8::1", &[200, 0, 0, 0, 0, 0, 0, 0]), ignored);
    let unspecified = verdict("::", "2001:db8::1", &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(unspecified, Received::Dropped(NetDrop::BadSource));
    assert_eq!(verdict("10.0.0.2", "10.0.0.3", &[8, 0, 0, 0, 0, 0, 0, 0]), Received::Dropped(NetDrop::NotOurAddress));
}

#[test]
fn routers_are_heard_but_not_followed() {
    let mut a = us();
    let advert = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let to_all = |hops: u8, src: &str, message: &[u8]| {
        let mut frame = frame(src, "ff02::1", hops, message);
        TxFrame::data_mut(&mut frame)[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        frame
    };
    assert_eq!(a.receive(NOW, &mut to_all(255, "fe80::9", &advert)), Received::Consumed);
    let invalid = Received::Dropped(NetDrop::NdpInvalid);
    assert_eq!(a.receive(NOW, &mut to_all(255, "2001:db8::9", &advert)), invalid);
    assert_eq!(a.receive(NOW, &mut to_all(64, "fe80::9", &advert)), invalid);
    assert_eq!((a.stats().rx_router_adverts, a.stats().rx_handled), (1, 1));
    let mut ping = to_all(64, "fe80::9", &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(a.receive(NOW, &mut ping), Received::Dropped(NetDrop::IcmpIgnored), "no answer to a group");
}

/// A listener query for `group`, to be answered within 10 s.
fn query(src: &str, hops: u8, group: &str) -> Frame {
    let IpAddr::V6(group) = ip(group) else { panic!("IPv4") };
    let mut frame = frame(src, "ff02::1", hops, &[&[130u8, 0, 0, 0, 0x27, 0x10, 0, 0][..], &group.octets()].concat());
    TxFrame::data_mut(&mut frame)[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame
}

fn reports(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.data()[..6] == [0x33, 0x33, 0, 0, 0, 0x16]).count()
}

#[test]
fn listener_queries_are_answered_with_all_groups() {
    let ignored = Received::Dropped(NetDrop::IcmpIgnored);
    let mut a = us();
    for (group, hops, src, answered) in [
        ("::", 1, "fe80::9", true),
        ("ff02::1:ff00:1", 1, "fe80::9", true),
        ("ff02::1:ff00:2", 1, "fe80::9", false),
        ("::", 255, "fe80::9", false),
        ("::", 1, "2001:db8::9", false),
    ] {
        let now = secs(100);
        let received = a.receive(now, &mut query(src, hops, group));
        assert_eq!(received, if answered { Received::Consumed } else { ignored.clone() }, "{group} {hops} {src}");
        let due = a.next_timeout().unwrap_or(now);
        assert!(due <= now + Duration::from_secs(10));
        // One for the address, one for the link-local address.
        let said = reports(&poll_all(&mut a, due));
        assert_eq!(said, if answered { 2 } else { 0 }, "{group} {hops} {src}");
        a = us();
    }
}

/// Pings used to share a limit with answers to queries: 200 pings per second made a server behind a switch with MLD
/// snooping unreachable. Forged queries could do the same.
#[test]
fn neither_pings_nor_forged_queries_keep_reports_from_going_out() {
    let mut a = us();
    let ping = frame("10.0.0.2", "10.0.0.1", 64, &[8, 0, 0, 0, 0, 0, 0, 0]);
    let mut said = Vec::new();
    for ms in (0..400_000u64).step_by(5) {
        let now = NOW + Duration::from_millis(ms);
        a.receive(now, &mut ping.clone());
        if ms % 125_000 == 5 {
            assert_eq!(a.receive(now, &mut query("fe80::9", 1, "::")), Received::Consumed);
        }
        let count = reports(&poll_all(&mut a, now));
        if count > 0 {
            said.push((ms, count));
        }
    }
    assert!(said.iter().all(|(_, count)| *count == 2), "{said:?}");
    let times: Vec<u64> = said.iter().map(|(ms, _)| ms / 125_000 * 125_000).collect();
    assert_eq!(times, [0, 125_000, 250_000, 375_000], "{said:?}: each within 10 s");
    // A thousand queries in a second cost no more than a round of reports.
    let before = a.stats().tx_control;
    for _ in 0..1000 {
        a.receive(secs(500), &mut query("fe80::66", 1, "::"));
    }
    poll_all(&mut a, secs(510));
    assert_eq!(a.stats().tx_control - before, 2);
}
