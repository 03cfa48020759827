//! Kernel interfaces: a veth pair in a network namespace of its own. Needs root.

use std::process::Command;

use gannet::datapath::{Checksum, Datapath as _, RxFrame as _};
use gannet::dpdk::PortError;

use crate::support::*;

/// Moves this process into a new network namespace, which goes with it. `false`, with the reason, without root.
fn namespace() -> bool {
    // SAFETY: changes the calling thread's namespace only; threads started later inherit it.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("skipped: a network namespace needs root ({})", std::io::Error::last_os_error());
        return false;
    }
    true
}

pub fn run(line: &str) {
    let mut words = line.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).stdout(std::process::Stdio::null()).status();
    assert!(status.is_ok_and(|s| s.success()), "{line}");
}

/// Does `work` in a process and a network namespace of its own, with `left` and `right` ([`veth`]); nothing without root.
pub fn on_veth(test: &str, mtu: u16, work: impl FnOnce()) {
    isolated(test, || {
        if namespace() {
            veth(mtu);
            work();
        }
    });
}

/// `left` and `right`, up, silent and without segmentation or checksum offloads.
fn veth(mtu: u16) {
    run(&format!("ip link add left mtu {mtu} type veth peer name right mtu {mtu}"));
    for end in ["left", "right"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
        run(&format!("ip link set {end} up"));
        run(&format!("ethtool -K {end} tx off gso off gro off tso off tx-udp-segmentation off"));
    }
}

/// Frames both ways between the two ends.
fn exchange(driver: &str, mtu: u16, sets: &[(&str, &str)]) {
    let eal = eal();
    let mtu_text = mtu.to_string();
    let end = |iface| {
        let mut all = vec![("devargs.iface", iface), ("mtu", mtu_text.as_str())];
        all.extend(sets);
        open(&eal, &profile(driver, &all))
    };
    let (left_port, mut left) = end("left");
    let (_right_port, mut right) = end("right");
    eventually("the link", || left.link_up() && right.link_up());
    assert_eq!(left.caps().mac, mac("left"));
    let traffic = Traffic { count: 3000, mtu, window: 64 };
    traffic.run(&mut left, &mut right);
    traffic.run(&mut right, &mut left);
    assert!(left_port.stats().rx_frames >= 3000);
}

pub fn mac(iface: &str) -> [u8; 6] {
    let out = Command::new("ip").args(["-o", "link", "show", iface]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let at = text.split_once("link/ether ").unwrap().1;
    let mut bytes = at[..17].split(':').map(|b| u8::from_str_radix(b, 16).unwrap());
    std::array::from_fn(|_| bytes.next().unwrap())
}

#[test]
fn af_packet_over_veth() {
    on_veth("kernel::af_packet_over_veth", 1500, || {
        exchange("af-packet", 1500, &[]);
    });
}

#[test]
fn af_packet_jumbo() {
    on_veth("kernel::af_packet_jumbo", 9000, || {
        exchange("af-packet", 9000, &[("devargs.framecnt", "256")]);
    });
}

#[test]
fn af_xdp_over_veth() {
    on_veth("kernel::af_xdp_over_veth", 1500, || {
        exchange("af-xdp", 1500, &[]);
    });
}

#[test]
fn an_interface_with_a_smaller_mtu_is_refused() {
    on_veth("kernel::an_interface_with_a_smaller_mtu_is_refused", 1400, || {
        let error = refused(&eal(), &profile("af-packet", &[("devargs.iface", "left")]));
        assert!(matches!(error, PortError::InterfaceMtu { have: 1400, want: 1500, .. }), "{error}");
        assert!(error.to_string().contains("ip link set dev left mtu 1500"));
    });
}

#[test]
fn without_root_the_capability_is_named() {
    on_veth("kernel::without_root_the_capability_is_named", 1500, || {
        // SAFETY: gives up root for the whole process.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        let eal = eal();
        for (driver, capability) in [("af-packet", "cap_net_raw"), ("af-xdp", "cap_bpf")] {
            let error = refused(&eal, &profile(driver, &[("devargs.iface", "left")]));
            assert!(matches!(error, PortError::Permission { .. }), "{error}");
            assert!(error.to_string().contains(capability), "{error}");
        }
        drop(open(&eal, &profile("ring", &[])));
    });
}

#[test]
fn af_xdp_refuses_what_does_not_fit_a_page() {
    on_veth("kernel::af_xdp_refuses_what_does_not_fit_a_page", 9000, || {
        let error = refused(&eal(), &profile("af-xdp", &[("devargs.iface", "left"), ("mtu", "9000")]));
        assert!(matches!(error, PortError::Mtu { want: 9000, .. }), "{error}");
    });
}

#[test]
fn tap_talks_to_the_kernel() {
    isolated("kernel::tap_talks_to_the_kernel", || {
        if !namespace() {
            return;
        }
        let eal = eal();
        let (_port, mut queue) = open(&eal, &profile("tap", &[("devargs.iface", "gannet-test")]));
        run("ip addr add 10.9.0.1/24 dev gannet-test");
        run("ip link set gannet-test up");
        assert_ne!(queue.caps().mac, mac("gannet-test"));
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        // The kernel asks who has the other address.
        let mut asked = false;
        eventually("an ARP request", || {
            let _ = socket.send_to(b"x", "10.9.0.2:9");
            let mut burst = gannet::datapath::Burst::new();
            queue.rx_burst(&mut burst);
            for frame in &mut burst {
                assert_ne!(frame.l4_checksum(), Checksum::Bad);
                asked |= frame.data_mut()[12..14] == [0x08, 0x06] && frame.data_mut()[38..42] == [10, 9, 0, 2];
            }
            asked
        });
    });
}
