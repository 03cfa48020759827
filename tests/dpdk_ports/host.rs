//! Effects of a port on the host's interface, and of the host on a port. Needs root.

use std::net::IpAddr;
use std::process::Command;

use gannet::datapath::{Burst, Datapath as _, RxFrame as _};
use gannet::dpdk::{PortError, PortProfile, Queue};

use crate::kernel::{mac, on_veth, run};
use crate::support::*;

const OTHER_MAC: &str = "02:00:00:00:00:77";

fn shown(line: &str) -> String {
    let mut words = line.split(' ');
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// The user-set flags, and the number of requests for promiscuous mode.
fn state(iface: &str) -> (bool, u32) {
    let text = shown(&format!("ip -d link show {iface}"));
    let count = text.split_once("promiscuity ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    (text.contains("PROMISC"), count)
}

fn groups(iface: &str) -> Vec<String> {
    let text = shown(&format!("ip maddr show dev {iface}"));
    let link = text.lines().filter_map(|line| line.trim().strip_prefix("link")).map(|mac| mac.trim()[..17].to_owned());
    link.filter(|mac| mac.starts_with("33:33:")).collect()
}

/// A port that changes everything it can.
fn holder(driver: &str) -> PortProfile {
    profile(driver, &[("devargs.iface", "left"), ("mac", OTHER_MAC), ("promiscuous", "true")])
}

/// Runs `parent` in a namespace with two interfaces, beside another process that runs `child` there.
fn beside(test: &str, child: impl FnOnce(), parent: impl FnOnce(Peer)) {
    let case = format!("{test}/other");
    if assignment().is_some_and(|(name, _)| name == case) {
        return child();
    }
    on_veth(test, 1500, || {
        parent(Peer::start(test, &case, std::path::Path::new("/nonexistent")));
    });
}

fn open_until_told(driver: &str) {
    let eal = eal();
    let (_port, mut queue) = open(&eal, &holder(driver));
    queue.set_multicast(&[[0x33, 0x33, 0xff, 0, 0, 9]]);
    assert_eq!(queue.caps().mac, [2, 0, 0, 0, 0, 0x77]);
    say("open");
    until_told();
}

/// Ports used to leave the interface promiscuous and with the configured MAC address, even after an orderly end.
fn leaves_nothing(test: &str, driver: &str) {
    beside(
        test,
        || open_until_told(driver),
        |mut other| {
            let (own, before) = (mac("left"), state("left"));
            assert_eq!(before, (false, 0));
            let during = |other: &mut Peer| {
                other.expect("open");
                assert_eq!(mac("left"), own, "the interface keeps its address");
                let (flag, count) = state("left");
                assert!(!flag && count > 0, "all frames come in, but by nobody's order to keep it so");
                assert!(groups("left").contains(&"33:33:ff:00:00:09".to_owned()));
            };
            during(&mut other);
            other.finish();
            assert_eq!((mac("left"), state("left")), (own, before), "after an orderly end");
            let mut other = Peer::start(test, &format!("{test}/other"), std::path::Path::new("/nonexistent"));
            during(&mut other);
            // Dropping the process kills it (SIGKILL).
            drop(other);
            assert_eq!((mac("left"), state("left")), (own, before), "after kill -9");
            assert!(!groups("left").contains(&"33:33:ff:00:00:09".to_owned()));
            // What it may leave, its XDP program, is harmless and can be found.
            println!("left behind: {:?}", gannet::dpdk::xdp_programs());
            let mut other = Peer::start(test, &format!("{test}/other"), std::path::Path::new("/nonexistent"));
            other.expect("open");
            if driver == "af-xdp" {
                assert!(gannet::dpdk::xdp_programs().iter().any(|xdp| xdp.interface == "left"));
            }
            other.finish();
        },
    );
}

#[test]
fn af_packet_leaves_the_interface_as_it_was() {
    leaves_nothing("host::af_packet_leaves_the_interface_as_it_was", "af-packet");
}

#[test]
fn af_xdp_leaves_the_interface_as_it_was() {
    leaves_nothing("host::af_xdp_leaves_the_interface_as_it_was", "af-xdp");
}

#[test]
fn a_port_without_wishes_is_not_promiscuous() {
    on_veth("host::a_port_without_wishes_is_not_promiscuous", 1500, || {
        let eal = eal();
        let (_port, mut queue) = open(&eal, &profile("af-packet", &[("devargs.iface", "left")]));
        assert_eq!((queue.caps().mac, state("left")), (mac("left"), (false, 0)));
        let all_nodes = [0x33, 0x33, 0, 0, 0, 1];
        let before = groups("left");
        queue.set_multicast(&[all_nodes, [0x33, 0x33, 0xff, 0, 0, 1]]);
        assert!(groups("left").contains(&"33:33:ff:00:00:01".to_owned()), "{:?}", groups("left"));
        queue.set_multicast(&[all_nodes]);
        assert!(!groups("left").contains(&"33:33:ff:00:00:01".to_owned()), "{:?}", groups("left"));
        queue.set_multicast(&[]);
        assert_eq!(groups("left"), before);
    });
}

fn send(queue: &mut Queue, count: u32) {
    let mut burst = Burst::new();
    let mut next = 0;
    eventually("sending all frames", || {
        while next < count && !burst.is_full() && make(queue, &mut burst, next, 64) {
            next += 1;
        }
        queue.tx_burst(&mut burst);
        next == count && burst.is_empty()
    });
}

/// Packets that the kernel dropped because the port's ring was full used to be missing in all counters.
fn counts_drops(driver: &str, sets: &[(&str, &str)], frames: u32) {
    let eal = eal();
    let (port, mut slow) = open(&eal, &profile(driver, &[&[("devargs.iface", "left")], sets].concat()));
    let (other, mut fast) = open(&eal, &profile("af-packet", &[("devargs.iface", "right")]));
    eventually("the link", || slow.link_up() && fast.link_up());
    assert_eq!(port.stats().rx_missed, 0);
    send(&mut fast, frames);
    // The rest of them is in the ring.
    let mut seen = 0;
    eventually("all frames, in one way or the other", || {
        let mut burst = Burst::new();
        slow.rx_burst(&mut burst);
        seen += burst.iter_mut().filter_map(|frame| number(frame.data_mut())).count() as u64;
        seen + port.stats().rx_missed >= u64::from(frames)
    });
    let missed = port.stats().rx_missed;
    assert!(missed > 0 && seen > 0, "{seen} received, {missed} missed");
    assert_eq!(port.stats().rx_missed, missed, "looking at it does not set it back");
    assert_eq!(other.stats().rx_missed, 0, "each port its own");
}

#[test]
fn af_packet_counts_what_its_ring_had_no_room_for() {
    on_veth("host::af_packet_counts_what_its_ring_had_no_room_for", 1500, || {
        counts_drops("af-packet", &[("framecnt", "32")], 500);
    });
}

#[test]
fn af_xdp_counts_what_its_ring_had_no_room_for() {
    on_veth("host::af_xdp_counts_what_its_ring_had_no_room_for", 1500, || {
        counts_drops("af-xdp", &[("rx_desc", "64")], 500);
    });
}

/// The driver reports "up" whatever the state of the interface.
#[test]
fn the_link_is_that_of_the_interface() {
    on_veth("host::the_link_is_that_of_the_interface", 1500, || {
        let eal = eal();
        let (_port, mut queue) = open(&eal, &profile("af-packet", &[("devargs.iface", "left")]));
        eventually("the link", || queue.link_up());
        run("ip link set right down");
        eventually("the end of the link", || !queue.link_up());
        assert!(queue.link_problem().is_some_and(|why| why.contains("no carrier")));
        run("ip link set left down");
        assert!(queue.link_problem().is_some_and(|why| why.contains("ip link set dev left up")));
        for end in ["left", "right"] {
            run(&format!("ip link set {end} up"));
        }
        eventually("the link", || queue.link_up());
        assert_eq!(queue.link_problem(), None);
        run("ip link del right");
        eventually("the end of the link", || !queue.link_up());
        assert!(queue.link_problem().is_some_and(|why| why.contains("is gone")));
    });
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The kernel answers for its addresses, whichever interface a packet arrives on.
#[test]
fn addresses_of_the_kernel_are_refused() {
    on_veth("host::addresses_of_the_kernel_are_refused", 1500, || {
        run("ip addr add 10.9.0.1/24 dev left");
        run("ip addr add 10.8.0.1/30 dev right");
        let port = profile("af-packet", &[("devargs.iface", "left")]);
        for (addr, remedy) in [("10.9.0.1", "ip addr del 10.9.0.1/24 dev left"), ("10.8.0.1", "10.8.0.1/30 dev right")]
        {
            let error = port.claim(&[ip("10.9.0.9"), ip(addr)]).unwrap_err();
            assert!(matches!(error, PortError::KernelHasAddress { .. }), "{error}");
            assert!(
                error.to_string().contains(remedy) && error.to_string().contains("kernel_address=shared"),
                "{error}"
            );
        }
        assert!(port.claim(&[ip("10.9.0.9")]).is_ok());
        let filtered = profile("af-packet", &[("devargs.iface", "left"), ("kernel_address", "shared")]);
        assert!(filtered.claim(&[ip("10.9.0.1")]).is_ok());
        // Only the port gets its frames.
        assert!(profile("memif", &[]).claim(&[ip("10.9.0.1")]).is_ok());
    });
}

/// Two servers with one address on one interface used to report "ready".
#[test]
fn an_address_is_for_one_process() {
    beside(
        "host::an_address_is_for_one_process",
        || {
            let _claim = profile("af-packet", &[("devargs.iface", "left")]).claim(&[ip("10.9.0.1")]).unwrap();
            say("claimed");
            until_told();
        },
        |mut other| {
            other.expect("claimed");
            for driver in ["af-packet", "af-xdp"] {
                let port = profile(driver, &[("devargs.iface", "left")]);
                let error = port.claim(&[ip("10.9.0.1")]).unwrap_err();
                assert!(matches!(error, PortError::AddressInUse { .. }), "{error}");
                assert!(error.to_string().contains("in use by process"), "{error}");
                assert!(port.claim(&[ip("10.9.0.2")]).is_ok(), "another address");
            }
            let right = profile("af-packet", &[("devargs.iface", "right")]);
            assert!(right.claim(&[ip("10.9.0.1")]).is_ok(), "another interface");
            // When it is killed, its address is released.
            drop(other);
            assert!(profile("af-packet", &[("devargs.iface", "left")]).claim(&[ip("10.9.0.1")]).is_ok());
        },
    );
}

/// The second one used to take the queue from the first, or failed with an error of the driver.
#[test]
fn a_receive_queue_is_for_one_af_xdp_port() {
    let left = || profile("af-xdp", &[("devargs.iface", "left")]);
    beside(
        "host::a_receive_queue_is_for_one_af_xdp_port",
        || {
            let eal = eal();
            let (_port, _queue) = open(&eal, &left());
            say("open");
            until_told();
        },
        |mut other| {
            other.expect("open");
            let eal = eal();
            let error = refused(&eal, &left());
            assert!(matches!(error, PortError::QueueInUse { queue: 0, .. }), "{error}");
            assert!(error.to_string().contains("start_queue"), "{error}");
            drop(other);
            // What a killed process left on the interface is harmless.
            drop(open(&eal, &left()));
        },
    );
}
