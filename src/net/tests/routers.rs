//! Routers that die, are replaced, or are outside our networks.

use super::neighbors::{arp_frame, events};
use super::world::*;
use crate::base::time::{Duration, Instant};
use crate::datapath::TxFrame;
use crate::net::{Net, NetConfig, NetEvent, Received, Route, RouteError, Sent, Sources, Standing};
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::eth::Mac;

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const EVIL: Mac = Mac([2, 0, 0, 0, 0, 0x66]);

fn with_gateways(gateways: &[&str]) -> Net<Frame> {
    let config = NetConfig { gateways: gateways.iter().map(|g| ip(g)).collect(), ..config(&["10.0.0.1/24"]) };
    Net::new(&config, &caps(1), Instant::ZERO).unwrap()
}

/// Sends every half second, after calling `hint`; returns the time until a frame goes to the MAC address that ends in
/// `mac`. Only `there` is on the link.
fn time_to(
    a: &mut Net<Frame>,
    there: &mut Net<Frame>,
    mac: u8,
    from: Instant,
    mut hint: impl FnMut(&mut Net<Frame>, Instant),
) -> Duration {
    for n in 1..400 {
        let now = from + Duration::from_millis(500 * n);
        hint(a, now);
        let sent = a.send(now, at("10.0.0.1:1"), at("8.8.8.8:2"), 0, Frame::with_payload(b"x"));
        // Frames for a MAC address that has gone do not arrive.
        let heard = poll_all(a, now).into_iter().filter(|f| f.data()[..6] == [0xff; 6] || f.data()[5] == mac).collect();
        deliver(there, now, heard);
        let answers = poll_all(there, now);
        deliver(a, now, answers);
        if matches!(sent, Sent::Ready(frame) if frame.data()[5] == mac) {
            return now.saturating_since(from);
        }
    }
    panic!("never");
}

/// A silent replacement used to be noticed after 64 s, when the old entry expired.
#[test]
fn a_router_replaced_silently_is_found_by_the_doubts_of_connections() {
    let far = ip("8.8.8.8");
    let replaced = |doubts: bool| {
        let mut a = with_gateways(&["10.0.0.254"]);
        let (mut old, mut new) = (host(9, &["10.0.0.254/24"]), host(8, &["10.0.0.254/24"]));
        resolved(&mut a, &mut old, secs(0), at("10.0.0.1:1"), at("8.8.8.8:2"), b"");
        time_to(&mut a, &mut new, 8, secs(1), |a, now| {
            if doubts {
                a.suspect(now, far)
            }
        })
    };
    assert!(replaced(true) <= Duration::from_millis(2500), "{:?}", replaced(true));
    assert!(replaced(false) > Duration::from_secs(58), "without them its time has to be up first");
}

/// Unfounded suspicion, whatever the cause, costs one probe per second and changes nothing.
#[test]
fn doubts_are_cheap() {
    let mut a = with_gateways(&["10.0.0.254"]);
    let mut router = host(9, &["10.0.0.254/24"]);
    let (from, far) = (at("10.0.0.1:1"), at("8.8.8.8:2"));
    resolved(&mut a, &mut router, secs(0), from, far, b"");
    let mut asked = 0;
    for ms in 0..10_000 {
        let now = secs(1) + Duration::from_millis(ms);
        a.suspect(now, far.ip());
        let frames = poll_all(&mut a, now);
        assert!(frames.iter().all(|f| f.data()[5] == 9), "it is asked alone");
        asked += frames.len();
        deliver(&mut router, now, frames);
        let answers = poll_all(&mut router, now);
        deliver(&mut a, now, answers);
        ready(a.send(now, from, far, 0, Frame::with_payload(b"")));
    }
    assert!(asked <= 10, "{asked}");
    assert_eq!(a.stats().neighbor_changed, 0);
    // Progress of any connection through it ends the suspicion at once (RFC 4861 §7.3.1).
    for s in 20..200 {
        let standing = || Standing::Proven { progress: Some(secs(s)) };
        let sent = a.send_to(secs(s), from, far, 0, Frame::with_payload(b""), standing);
        assert!(matches!(sent, Sent::Ready(_)));
        a.suspect(secs(s), far.ip());
    }
    let after = poll_all(&mut a, secs(200)).len();
    assert!(after <= 1, "{after}: no questions for three minutes");
}

/// The second of two equal routes used never to be tried.
#[test]
fn the_second_router_serves_while_the_first_is_dead() {
    let by_routes = NetConfig {
        routes: ["10.0.0.254", "10.0.0.253"]
            .map(|via| Route { dest: "0.0.0.0/0".parse().unwrap(), via: ip(via) })
            .to_vec(),
        ..config(&["10.0.0.1/24"])
    };
    let by_routes = Net::new(&by_routes, &caps(1), Instant::ZERO).unwrap();
    for mut a in [with_gateways(&["10.0.0.254", "10.0.0.253"]), by_routes] {
        let mut second = host(3, &["10.0.0.253/24"]);
        let took = time_to(&mut a, &mut second, 3, secs(0), |_, _| {});
        assert!(took <= Duration::from_secs(5), "{took:?}");
        assert_eq!(
            events(&mut a),
            [NetEvent::RouterSilent { ip: ip("10.0.0.254") }],
            "nobody is told that hosts are out of reach"
        );
        // The first is probed from time to time, without the loss of a packet, and used again once it answers.
        let mut asked = 0;
        for n in 0..60 {
            let now = secs(10) + Duration::from_millis(500 * n);
            ready(a.send(now, at("10.0.0.1:1"), at("8.8.8.8:2"), 0, Frame::with_payload(b"")));
            let frames = poll_all(&mut a, now);
            asked += frames.iter().filter(|f| f.data()[..6] == [0xff; 6]).count();
            deliver(&mut second, now, frames);
            let answers = poll_all(&mut second, now);
            deliver(&mut a, now, answers);
        }
        assert!((2..=4).contains(&asked), "{asked}");
        let mut first = host(9, &["10.0.0.254/24"]);
        let took = time_to(&mut a, &mut first, 9, secs(40), |_, _| {});
        assert!(took <= Duration::from_secs(12), "{took:?}");
    }
}

#[test]
fn hosters_give_a_gateway_outside_of_every_network() {
    let config = NetConfig { gateways: vec![ip("172.31.1.1")], ..config(&["203.0.113.7/32"]) };
    let mut a = Net::new(&config, &caps(1), Instant::ZERO).unwrap();
    let mut gateway = host(9, &["172.31.1.1/16", "203.0.113.1/24"]);
    let (from, far) = (at("203.0.113.7:1"), at("8.8.8.8:2"));
    assert_eq!(a.local_for(far.ip()), Ok(from.ip()));
    let frame = resolved(&mut a, &mut gateway, secs(0), from, far, b"x");
    assert_eq!(frame.data()[..6], [2, 0, 0, 0, 0, 9]);
    // Our neighbours' addresses look near and are reached through it.
    let frame = ready(a.send(secs(0), from, at("203.0.113.8:2"), 0, Frame::with_payload(b"")));
    assert_eq!(frame.data()[..6], [2, 0, 0, 0, 0, 9]);
}

#[test]
fn sources_of_a_port_with_several_addresses() {
    let config = NetConfig { gateways: vec![ip("fe80::1")], ..config(&["fd00::2/64", "2001:db8::2/64"]) };
    let a = Net::<Frame>::new(&config, &caps(1), Instant::ZERO).unwrap();
    assert_eq!(a.local_for(ip("2606:4700::1")), Ok(ip("2001:db8::2")), "it was the first, a private one");
    assert_eq!(a.local_for(ip("fd00:1::1")), Ok(ip("fd00::2")));
    assert_eq!(config.source_for(ip("2606:4700::1")), Ok(ip("2001:db8::2")), "known without a port");
    let none = host(1, &["10.0.0.1/24"]);
    assert_eq!(none.local_for(ip("192.0.2.1")), Err(RouteError::NoRoute(ip("192.0.2.1"))));
    assert_eq!(none.local_for(ip("10.0.0.255")), Err(RouteError::Edge(ip("10.0.0.255"))));
}

/// A claim to be at our own MAC address used to direct our packets back to ourselves.
#[test]
fn nobody_is_where_we_are() {
    let mut a = with_gateways(&["10.0.0.254"]);
    let mut router = host(9, &["10.0.0.254/24"]);
    let (from, far) = (at("10.0.0.1:1"), at("8.8.8.8:2"));
    resolved(&mut a, &mut router, secs(0), from, far, b"");
    let (sender_ip, target_ip) = ([10, 0, 0, 254].into(), [10, 0, 0, 77].into());
    let arp = Arp { op: ArpOp::Request, sender_mac: US, sender_ip, target_mac: Mac::ZERO, target_ip };
    let mut claim = arp_frame(Mac::BROADCAST, arp);
    TxFrame::data_mut(&mut claim)[6..12].copy_from_slice(&EVIL.0);
    assert!(matches!(a.receive(secs(0), &mut claim), Received::Dropped(_)));
    let frame = ready(a.send(secs(1), from, far, 0, Frame::with_payload(b"")));
    assert_eq!(frame.data()[..6], [2, 0, 0, 0, 0, 9]);
}
