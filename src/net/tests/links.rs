//! Links that come and go, and duplicate addresses.

use super::neighbors::{events, gratuitous};
use super::world::*;
use crate::base::time::{Duration, Instant};
use crate::datapath::TxFrame;
use crate::net::{Detect, Net, NetConfig, NetDrop, NetError, NetEvent, Received, RouteError, Sources};
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::eth::Mac;

const C: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// A host that announces its addresses.
fn loud(mac: u8, detect: Detect, addrs: &[&str]) -> Net<Frame> {
    let config = NetConfig { announce: true, detect, ..config(addrs) };
    Net::new(&config, &caps(mac), Instant::ZERO).unwrap()
}

/// The kind of a frame about addresses.
fn says(frame: &Frame) -> &'static str {
    let data = frame.data();
    match (&data[12..14], data.get(54)) {
        ([8, 6], _) => {
            let arp = Arp::parse(&data[14..]).unwrap();
            match arp.op {
                ArpOp::Request if arp.sender_ip.is_unspecified() => "probe",
                ArpOp::Request if arp.sender_ip == arp.target_ip => "announce",
                ArpOp::Request => "ask",
                ArpOp::Reply => "answer",
            }
        }
        ([0x86, 0xdd], _) if data[20] == 0 => "report",
        ([0x86, 0xdd], Some(135)) if data[22..38] == [0; 16] => "probe",
        ([0x86, 0xdd], Some(135)) => "ask",
        ([0x86, 0xdd], Some(136)) if data[58] & 0x40 == 0 => "announce",
        ([0x86, 0xdd], Some(136)) => "answer",
        _ => "something else",
    }
}

/// All such frames that `net` sends, with the time in milliseconds since `from`.
fn hear(net: &mut Net<Frame>, from: Instant) -> Vec<(u64, &'static str)> {
    let mut heard = Vec::new();
    let mut now = from;
    loop {
        let at = now.saturating_since(from).as_millis() as u64;
        heard.extend(poll_all(net, now).iter().map(|frame| (at, says(frame))));
        match net.next_timeout() {
            Some(next) => now = now.max(next),
            None => return heard,
        }
    }
}

/// Announcements used to be sent once, at the first poll, whether the link was up or not.
#[test]
fn addresses_are_announced_after_every_link_up() {
    let mut a = loud(1, Detect::Off, &["10.0.0.1/24", "2001:db8::1/64"]);
    assert_eq!(hear(&mut a, Instant::ZERO), [], "nobody would hear it");
    let all = [
        (0, "report"),
        (0, "report"),
        (0, "announce"),
        (0, "announce"),
        (0, "announce"),
        (2000, "announce"),
        (2000, "announce"),
        (2000, "announce"),
    ];
    let again = |(at, what): &(u64, &str)| *at > 0 && *what == "report";
    for n in 0..3 {
        a.link_up(secs(100 * n));
        assert_eq!(a.poll(secs(100 * n), || None), None, "without a frame it waits");
        let (repeated, said): (Vec<_>, Vec<_>) = hear(&mut a, secs(100 * n)).into_iter().partition(again);
        assert_eq!(said, all, "time {n}");
        assert!(repeated.len() == 2 && repeated.iter().all(|(at, _)| *at <= 1000), "{repeated:?}: in case one is lost");
        a.link_down(secs(100 * n + 50));
        assert_eq!(hear(&mut a, secs(100 * n + 50)), []);
    }
    // A link that goes down in between is not talked to.
    a.link_up(secs(900));
    poll_all(&mut a, secs(900));
    a.link_down(secs(901));
    assert_eq!(hear(&mut a, secs(901)), []);
    assert_eq!(a.stats().address_announcements, 3 * 6 + 3);
    // Another host accepts these frames and learns nothing.
    let mut b = host(2, &["10.0.0.2/24", "2001:db8::2/64"]);
    a.link_up(secs(1000));
    let said = poll_all(&mut a, secs(1000));
    deliver(&mut b, secs(1000), said);
    assert_eq!((b.neighbor_count(), b.stats().duplicate_address), (0, 0));
}

#[test]
fn and_at_a_change_of_address() {
    let mut a = loud(1, Detect::Optimistic, &["10.0.0.1/24", "2001:db8::1/64"]);
    a.link_up(secs(0));
    hear(&mut a, secs(0));
    for addr in ["10.0.0.5/24", "2001:db8::5/64"] {
        a.add_address(secs(10), addr.parse().unwrap()).unwrap();
        let heard: Vec<_> = hear(&mut a, secs(10)).into_iter().filter(|(_, what)| *what != "report").collect();
        assert_eq!(heard, [(0, "probe"), (1000, "announce"), (3000, "announce")], "{addr}");
    }
    assert_eq!(a.add_address(secs(20), "10.0.0.5/16".parse().unwrap()), Err(NetError::TwiceTheSame(ip("10.0.0.5"))));
    let mut b = host(2, &["10.0.0.2/24"]);
    resolved(&mut b, &mut a, secs(20), at("10.0.0.2:1"), at("10.0.0.5:2"), b"x");
    a.remove_address(ip("10.0.0.5"));
    let mut late = ready(b.send(secs(20), at("10.0.0.2:1"), at("10.0.0.5:2"), 0, Frame::with_payload(b"x")));
    assert_eq!(a.receive(secs(20), &mut late), Received::Dropped(NetDrop::NotOurAddress));
}

/// Used at once, given up when somebody claims it in the first second, and defended after that.
#[test]
fn an_address_in_use_is_not_taken() {
    for addr in ["10.0.0.1/24", "2001:db8::1/64"] {
        let mut first = loud(1, Detect::Optimistic, &[addr]);
        first.link_up(secs(0));
        hear(&mut first, secs(0));
        let mut second = loud(2, Detect::Optimistic, &[addr]);
        let remote = if addr.starts_with("10") { ip("10.0.0.9") } else { ip("2001:db8::9") };
        assert!(second.is_ready() && second.local_for(remote).is_ok(), "used at once");
        second.link_up(secs(100));
        settle(&mut first, &mut second, secs(100));
        let addr = addr.split_once('/').unwrap().0;
        let lost = NetEvent::AddressLost { ip: ip(addr), mac: Mac([2, 0, 0, 0, 0, 1]) };
        assert_eq!(events(&mut second), [lost], "{addr}");
        assert_eq!(second.local_for(remote), Err(RouteError::NoAddress(remote)));
        assert!(second.addresses().iter().all(|own| own.addr() != ip(addr)) && !second.has_addresses());
        assert_eq!((second.stats().address_lost, first.stats().address_lost), (1, 0));
        assert!(events(&mut first).is_empty(), "who asks first and listens does no harm");
        let said = hear(&mut second, secs(100));
        assert!(said.iter().all(|(_, what)| *what != "announce") || addr.contains(':'), "{said:?}");
    }
    // Two that start together both leave it.
    let mut pair = [1, 2].map(|mac| loud(mac, Detect::Optimistic, &["10.0.0.1/24"]));
    pair.iter_mut().for_each(|net| net.link_up(secs(0)));
    let [one, two] = &mut pair;
    settle(one, two, secs(0));
    assert_eq!((one.stats().address_lost, two.stats().address_lost), (1, 1));
}

#[test]
fn a_strict_host_waits_for_its_addresses() {
    let mut a = loud(1, Detect::Strict, &["10.0.0.1/24", "2001:db8::1/64"]);
    let mut b = host(2, &["10.0.0.2/24", "2001:db8::2/64"]);
    a.link_up(secs(0));
    let (from, to) = (at("10.0.0.2:1"), at("10.0.0.1:2"));
    let mut now = secs(0);
    let mut heard = Vec::new();
    while !a.is_ready() {
        assert_eq!(a.local_for(ip("10.0.0.9")).is_ok(), a.addresses().iter().any(|own| own.addr() == ip("10.0.0.1")));
        let _ = b.send(now, from, to, 0, Frame::with_payload(b"x"));
        heard.extend(poll_all(&mut a, now).iter().map(says));
        let asked = poll_all(&mut b, now);
        deliver(&mut a, now, asked);
        now += Duration::from_millis(100);
        assert!(now < secs(8), "{heard:?}");
    }
    assert!(now >= secs(4));
    let answers = heard.iter().filter(|what| **what == "answer").count();
    let probes = heard.iter().filter(|what| **what == "probe").count();
    assert!(answers <= 1 && probes == 5, "what is not ours yet is not answered for: {heard:?}");
    assert_eq!(b.stats().duplicate_address, 0);
    // Who had an address keeps it while the link comes and goes.
    hear(&mut a, now);
    a.link_down(secs(60));
    a.link_up(secs(60));
    assert!(a.is_ready() && a.local_for(ip("10.0.0.9")).is_ok());
    assert!(hear(&mut a, secs(60)).iter().filter(|(_, what)| *what == "probe").count() == 3);
}

#[test]
fn a_strict_host_leaves_what_others_have() {
    let mut a = loud(1, Detect::Strict, &["10.0.0.1/24"]);
    a.link_up(secs(0));
    poll_all(&mut a, secs(2));
    a.receive(secs(2), &mut gratuitous(C, [10, 0, 0, 1]));
    assert_eq!(events(&mut a), [NetEvent::AddressLost { ip: ip("10.0.0.1"), mac: C }]);
    assert!(a.is_ready() && a.addresses().is_empty());
    assert_eq!(hear(&mut a, secs(2)), []);
}

/// The second solicitation used to leave just before the address was ours, so Linux, which needs our link-layer address,
/// answered the third one only, after two seconds.
#[test]
fn the_second_solicitation_waits_until_the_address_is_ours() {
    let mut a = loud(1, Detect::Optimistic, &["2001:db8::1/64"]);
    let start = secs(0) + Duration::from_millis(1);
    let _ = a.send(secs(0), at("[2001:db8::1]:1"), at("[2001:db8::2]:2"), 0, Frame::with_payload(b"x"));
    a.link_up(start);
    // The length of the IPv6 payload tells whether there is an option.
    let asked =
        |frames: Vec<Frame>| frames.iter().filter(|f| says(f) == "ask").map(|f| f.data()[19]).collect::<Vec<_>>();
    assert_eq!(asked(poll_all(&mut a, start)), [24]);
    assert_eq!(asked(poll_all(&mut a, secs(1))), []);
    assert_eq!(a.next_timeout(), Some(secs(1) + Duration::from_millis(1)), "it is not forgotten");
    assert_eq!(asked(poll_all(&mut a, secs(1) + Duration::from_millis(1))), [32]);
}

/// RFC 4429: while an address is tentative, our packets do not override others' neighbour caches.
#[test]
fn an_optimistic_address_overrides_nothing() {
    let mut a = loud(1, Detect::Optimistic, &["2001:db8::1/64"]);
    let mut b = host(2, &["2001:db8::2/64"]);
    a.link_up(secs(0));
    poll_all(&mut a, secs(0));
    let (ours, theirs) = (at("[2001:db8::1]:1"), at("[2001:db8::2]:2"));
    let _ = a.send(secs(0), ours, theirs, 0, Frame::with_payload(b"x"));
    let asked = poll_all(&mut a, secs(0));
    assert_eq!((asked.len(), asked[0].data()[18..20].to_vec()), (1, vec![0, 24]), "no source link-layer address");
    deliver(&mut b, secs(0), asked);
    let answered = poll_all(&mut b, secs(0));
    deliver(&mut a, secs(0), answered);
    let [_, seen] = settle(&mut a, &mut b, secs(0));
    assert!(seen.iter().any(|(received, _)| matches!(received, Received::Udp(_))), "it works all the same");
    let _ = b.send(secs(0), theirs, ours, 0, Frame::with_payload(b"x"));
    let asked = poll_all(&mut b, secs(0));
    deliver(&mut a, secs(0), asked);
    let flags = |frames: Vec<Frame>| frames.iter().find(|f| says(f) == "answer").map(|f| f.data()[58]);
    assert_eq!(flags(poll_all(&mut a, secs(0))), Some(0x40));
    hear(&mut a, secs(1));
    let mut c = host(3, &["2001:db8::3/64"]);
    let _ = c.send(secs(9), at("[2001:db8::3]:2"), ours, 0, Frame::with_payload(b"x"));
    let asked = poll_all(&mut c, secs(9));
    deliver(&mut a, secs(9), asked);
    assert_eq!(flags(poll_all(&mut a, secs(9))), Some(0x60));
}
