//! Several cores on one port: messages that reach one of them and matter to another.

use super::neighbors::{arp_frame, gratuitous};
use super::world::*;
use crate::base::time::{Duration, Instant};
use crate::datapath::TxFrame;
use crate::net::{Detect, GroupNews, Net, NetConfig, NetEvent, Received, Sent};
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::eth::Mac;

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
const C: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// The cores of a host with MAC address 1.
fn cores(count: u8, base: &NetConfig) -> Vec<Net<Frame>> {
    (0..count).map(|core| Net::new(&base.for_core(core, count), &caps(1), Instant::ZERO).unwrap()).collect()
}

/// The events of `net`, and the news for others among them.
fn told(net: &mut Net<Frame>) -> (Vec<NetEvent>, Vec<GroupNews>) {
    let (mut events, mut news) = (Vec::new(), Vec::new());
    while let Some(event) = net.poll_event() {
        match event {
            NetEvent::Group(one) => news.push(one),
            other => events.push(other),
        }
    }
    (events, news)
}

/// Passes the news of every core to all others. Returns the other events of each core.
fn pass_on(cores: &mut [Net<Frame>], now: Instant) -> Vec<Vec<NetEvent>> {
    let all: Vec<_> = cores.iter_mut().map(told).collect();
    for (n, core) in cores.iter_mut().enumerate() {
        for (_, (_, news)) in all.iter().enumerate().filter(|(from, _)| *from != n) {
            news.iter().for_each(|news| core.take_news(now, news));
        }
    }
    all.into_iter().map(|(events, _)| events).collect()
}

/// An answer to an ARP request of ours.
fn answer(from: Mac, ip: [u8; 4]) -> Frame {
    let (sender_ip, target_ip) = (ip.into(), [10, 0, 0, 1].into());
    arp_frame(A, Arp { op: ArpOp::Reply, sender_mac: from, sender_ip, target_mac: A, target_ip })
}

fn wait(net: &mut Net<Frame>, to: &str, now: Instant) {
    assert_eq!(net.send(now, at("10.0.0.1:1"), at(to), 0, Frame::with_payload(b"x")), Sent::Pending);
    assert_eq!(poll_all(net, now).len(), 1, "a question");
}

/// An answer that a core had not asked for used to be dropped, so 1 of 8 clients was served.
#[test]
fn an_answer_that_reaches_another_core_is_heard_by_the_one_that_asked() {
    let mut all = cores(3, &config(&["10.0.0.1/24"]));
    wait(&mut all[1], "10.0.0.2:2", secs(0));
    assert_eq!(told(&mut all[1]).1, [GroupNews::Asked { ip: ip("10.0.0.2") }]);
    assert_eq!(all[2].receive(secs(0), &mut answer(B, [10, 0, 0, 2])), Received::Consumed);
    assert_eq!(all[2].neighbor_count(), 0, "it did not ask");
    pass_on(&mut all, secs(0));
    let sent = poll_all(&mut all[1], secs(0));
    assert_eq!(sent.iter().filter(|frame| frame.data()[..6] == B.0).count(), 1);
    assert_eq!([0, 1, 2].map(|n| all[n].neighbor_count()), [0, 1, 0], "others have no use for it");
    // The same when the neighbour is asked again at its known MAC address, once the entry is old.
    assert!(matches!(
        all[1].send(secs(61), at("10.0.0.1:1"), at("10.0.0.2:2"), 0, Frame::with_payload(b"")),
        Sent::Ready(_)
    ));
    assert_eq!(poll_all(&mut all[1], secs(61)).len(), 1);
    assert_eq!(all[0].receive(secs(61), &mut answer(B, [10, 0, 0, 2])), Received::Consumed);
    pass_on(&mut all, secs(61));
    assert_eq!(poll_all(&mut all[1], secs(63)).len(), 0, "not asked again");
    assert_eq!(all[1].stats().neighbor_failed, 0);
}

#[test]
fn an_answer_to_one_core_spares_the_others_the_question() {
    let mut all = cores(2, &config(&["10.0.0.1/24"]));
    wait(&mut all[0], "10.0.0.2:2", secs(0));
    wait(&mut all[1], "10.0.0.2:2", secs(0));
    pass_on(&mut all, secs(0));
    all[0].receive(secs(0), &mut answer(B, [10, 0, 0, 2]));
    pass_on(&mut all, secs(0));
    assert!(all.iter_mut().all(|core| poll_all(core, secs(0)).len() == 1), "what waited is sent");
    assert_eq!(pass_on(&mut all, secs(0)), [[], []], "no circles");
}

#[test]
fn a_neighbour_that_moves_is_followed_by_all_cores() {
    let mut all = cores(3, &config(&["10.0.0.1/24"]));
    wait(&mut all[1], "10.0.0.2:2", secs(0));
    all[1].receive(secs(0), &mut answer(B, [10, 0, 0, 2]));
    poll_all(&mut all[1], secs(0));
    pass_on(&mut all, secs(0));
    all[2].receive(secs(1), &mut gratuitous(C, [10, 0, 0, 2]));
    pass_on(&mut all, secs(1));
    let Sent::Ready(frame) = all[1].send(secs(1), at("10.0.0.1:1"), at("10.0.0.2:2"), 0, Frame::with_payload(b""))
    else {
        panic!("it is known")
    };
    assert_eq!(frame.data()[..6], C.0);
    assert_eq!(poll_all(&mut all[1], secs(1)).len(), 1, "the new address has to prove itself, wherever it was heard");
}

/// RFC 5227 §1.1: an address is announced, checked and defended by a host, not by each of its cores.
#[test]
fn only_core_0_speaks_for_the_addresses_and_all_answer() {
    for detect in [Detect::Off, Detect::Optimistic, Detect::Strict] {
        let base = NetConfig { announce: true, detect, ..config(&["10.0.0.1/24", "2001:db8::1/64"]) };
        let mut all = cores(4, &base);
        all.iter_mut().for_each(|core| core.link_up(secs(0)));
        let strict = detect == Detect::Strict;
        assert!(all.iter().all(|core| core.is_ready() != strict));
        let mut said = [0; 4];
        for ms in 0..20_000 {
            let now = secs(0) + Duration::from_millis(ms);
            for (core, said) in all.iter_mut().zip(&mut said) {
                *said += poll_all(core, now).len();
            }
            pass_on(&mut all, now);
        }
        assert!(said[0] > 5 && said[1..] == [0; 3], "{detect:?}: {said:?}");
        assert!(all.iter().all(|core| core.is_ready() && core.addresses().len() == 3), "{detect:?}");
        // Whichever core receives a request for the address answers it.
        for core in &mut all {
            let (sender_ip, target_ip) = ([10, 0, 0, 9].into(), [10, 0, 0, 1].into());
            let ask = Arp { op: ArpOp::Request, sender_mac: C, sender_ip, target_mac: Mac::ZERO, target_ip };
            assert_eq!(core.receive(secs(30), &mut arp_frame(Mac::BROADCAST, ask)), Received::Consumed);
            assert_eq!(poll_all(core, secs(30)).len(), 1);
        }
        pass_on(&mut all, secs(30));
        // Core 0 answers a second owner that core 3 has heard.
        all[3].receive(secs(40), &mut gratuitous(C, [10, 0, 0, 1]));
        assert_eq!(poll_all(&mut all[3], secs(40)).len(), 0);
        pass_on(&mut all, secs(40));
        assert_eq!(poll_all(&mut all[0], secs(40)).len(), 1, "{detect:?}: defended");
        let duplicate = NetEvent::Duplicate { ip: ip("10.0.0.1"), mac: C };
        assert_eq!(pass_on(&mut all, secs(40)), [vec![duplicate], vec![], vec![], vec![]]);
        assert_eq!(all.iter().map(|core| core.stats().duplicate_address).sum::<u64>(), 1);
    }
}

#[test]
fn an_address_that_another_station_has_is_lost_to_all_cores() {
    let base = NetConfig { announce: true, ..config(&["10.0.0.1/24"]) };
    let mut all = cores(3, &base);
    all.iter_mut().for_each(|core| core.link_up(secs(0)));
    assert_eq!(poll_all(&mut all[0], secs(0)).len(), 1, "a probe");
    // The owner's answer reaches core 2.
    let (sender_ip, target_ip) = ([10, 0, 0, 1].into(), [0, 0, 0, 0].into());
    all[2].receive(
        secs(0),
        &mut arp_frame(A, Arp { op: ArpOp::Reply, sender_mac: C, sender_ip, target_mac: A, target_ip }),
    );
    assert!(all[2].has_addresses(), "core 0 decides");
    pass_on(&mut all, secs(0));
    assert!(!all[0].has_addresses());
    pass_on(&mut all, secs(0));
    assert!(all.iter().all(|core| !core.has_addresses()));
    let lost = NetEvent::AddressLost { ip: ip("10.0.0.1"), mac: C };
    assert_eq!(pass_on(&mut all, secs(0)), [vec![], vec![lost], vec![lost]]);
}

#[test]
fn limits_are_totals_of_all_cores() {
    let base = NetConfig { errors_per_second: 1, ..config(&["10.0.0.1/24"]) };
    let parts: Vec<_> = (0..3).map(|core| base.for_core(core, 3)).collect();
    assert_eq!(parts.iter().map(|part| part.solicits_per_second).sum::<u32>(), base.solicits_per_second);
    assert_eq!(parts.iter().map(|part| part.echo_per_second).sum::<u32>(), base.echo_per_second);
    assert!(parts.iter().all(|part| part.errors_per_second == 1 && part.seed == base.seed));
}
