//! Ports with several queues: how frames are spread over them, and which settings are refused.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use gannet::datapath::{BURST, Burst, Datapath as _, RxFrame as _};
use gannet::dpdk::{Eal, Port, PortError, ProfileError, Queue};

use crate::kernel::{mac, on_veth, run};
use crate::support::*;

const FLOWS: u16 = 64;
const FIRST_PORT: u16 = 20_000;

/// A UDP datagram over IPv4 with a valid header checksum, 60 bytes long, of flow `flow`.
pub fn udp(flow: u16, to: u16) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    let mut head = [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2];
    let sum: u32 = head.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(head);
    for field in [FIRST_PORT + flow, to, 26, 0] {
        frame.extend(field.to_be_bytes());
    }
    frame.resize(60, 0xa5);
    frame
}

/// The flow of a datagram made by [`udp`], or by a socket with a port like it.
pub fn flow_of(frame: &[u8]) -> Option<u16> {
    let ours = frame.len() >= 42 && frame[12..14] == [0x08, 0x00] && frame[23] == 17;
    let port = ours.then(|| u16::from_be_bytes([frame[34], frame[35]]))?;
    port.checked_sub(FIRST_PORT).filter(|flow| *flow < FLOWS)
}

/// Polls each of `queues` on a thread of its own until `count` frames of flows, which `send` causes, have arrived.
/// Returns how many frames of each flow each queue received.
fn poll_all(eal: &Eal, queues: Vec<Queue>, count: u32, send: impl FnOnce()) -> Vec<Vec<u32>> {
    let arrived = AtomicU32::new(0);
    let seen = Mutex::new(vec![Vec::new(); queues.len()]);
    thread::scope(|scope| {
        for mut queue in queues {
            let (arrived, seen) = (&arrived, &seen);
            scope.spawn(move || {
                let _thread = eal.register_thread().unwrap();
                let mut flows = vec![0; usize::from(FLOWS)];
                eventually("the arrival of all frames", || {
                    let mut rx = Burst::new();
                    queue.rx_burst(&mut rx);
                    for frame in &mut rx {
                        if let Some(flow) = flow_of(frame.data_mut()) {
                            flows[usize::from(flow)] += 1;
                            arrived.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    queue.release(&mut rx);
                    arrived.load(Ordering::Relaxed) >= count
                });
                seen.lock().unwrap()[usize::from(queue.id())] = flows;
            });
        }
        send();
    });
    seen.into_inner().unwrap()
}

/// Each frame has arrived once, each flow at one queue, and each queue has flows.
fn assert_spread(seen: &[Vec<u32>], each: u32) {
    for flow in 0..usize::from(FLOWS) {
        let mut at: Vec<u32> = seen.iter().map(|queue| queue[flow]).filter(|n| *n > 0).collect();
        assert_eq!((at.len(), at.pop()), (1, Some(each)), "flow {flow}: {seen:?}");
    }
    assert!(seen.iter().all(|queue| queue.iter().any(|n| *n > 0)), "a queue without frames: {seen:?}");
}

#[test]
fn af_packet_spreads_flows_over_four_queues() {
    on_veth("queues::af_packet_spreads_flows_over_four_queues", 1500, || {
        let eal = eal();
        let four = profile("af-packet", &[("iface", "left"), ("queues", "4")]).for_cores(4).unwrap();
        let mut port = Port::open(&eal, &four).unwrap();
        let (_peer_port, mut peer) = open(&eal, &profile("af-packet", &[("iface", "right")]));
        eventually("the link", || port.link_up() && peer.link_up());
        let queues = port.take_queues();
        assert_eq!(queues.len(), 4);
        let seen = poll_all(&eal, queues, 10 * u32::from(FLOWS), || {
            for _ in 0..10 {
                for flow in 0..FLOWS {
                    send(&mut peer, &udp(flow, 4433));
                }
            }
        });
        assert_spread(&seen, 10);
        assert_eq!(port.stats().rx_missed, 0);
        assert_eq!(port.steering(), None, "the kernel keeps its hash to itself");
        assert_no_leak(&port);
    });
}

fn send(queue: &mut Queue, bytes: &[u8]) {
    let mut tx = Burst::new();
    eventually("a frame that is free", || {
        let Some(frame) = filled(queue, bytes) else { return false };
        tx.push(frame);
        true
    });
    eventually("room in the ring", || {
        queue.tx_burst(&mut tx);
        tx.is_empty()
    });
}

/// The kernel spreads what its sockets send to a tap by flow. That it then follows the queue that answers (`tun_flow`) is
/// why a client there needs no special source port.
#[test]
fn a_tap_spreads_flows_over_four_queues_and_answers_stay_where_flows_began() {
    let name = "queues::a_tap_spreads_flows_over_four_queues_and_answers_stay_where_flows_began";
    on_veth(name, 1500, || {
        let eal = eal();
        let four = profile("tap", &[("iface", "gannet-q"), ("queues", "4")]).for_cores(4).unwrap();
        let mut port = Port::open(&eal, &four).unwrap();
        run("ip addr add 10.9.0.1/24 dev gannet-q");
        run("ip link set gannet-q up");
        run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev gannet-q nud permanent");
        let sockets: Vec<UdpSocket> =
            (0..FLOWS).map(|flow| UdpSocket::bind(("10.9.0.1", FIRST_PORT + flow)).unwrap()).collect();
        let to: SocketAddr = "10.9.0.2:4433".parse().unwrap();
        let queues = port.take_queues();
        // The driver keeps buffers ready for frames to come.
        let before = port.buffers();
        let seen = poll_all(&eal, queues, 5 * u32::from(FLOWS), || {
            for _ in 0..5 {
                for socket in &sockets {
                    socket.send_to(b"hello", to).unwrap();
                }
            }
        });
        assert_spread(&seen, 5);
        assert_eq!((port.steering(), port.buffers()), (None, before));
    });
}

/// Queue i feeds queue i.
#[test]
fn memif_queues_are_pairs() {
    isolated("queues::memif_queues_are_pairs", || {
        let dir = scratch();
        let socket = path(dir.path(), "s");
        let eal = eal();
        let sets = |role| [("socket", socket.as_str()), ("role", role), ("queues", "4")];
        let mut server = Port::open(&eal, &profile("memif", &sets("server")).for_cores(4).unwrap()).unwrap();
        let mut client = Port::open(&eal, &profile("memif", &sets("client")).for_cores(4).unwrap()).unwrap();
        eventually("the link", || server.link_up() && client.link_up());
        let (mut near, mut far) = (server.take_queues(), client.take_queues());
        for (i, queue) in (0..).zip(&mut far) {
            for n in 0..50 {
                send(queue, &pattern(n + 1000 * i, 64));
            }
        }
        for (i, queue) in near.iter_mut().enumerate() {
            let mut got = Vec::new();
            eventually("fifty frames", || {
                let mut rx = Burst::new();
                queue.rx_burst(&mut rx);
                got.extend(rx.iter_mut().map(|frame| number(frame.data_mut()).unwrap()));
                got.len() >= 50
            });
            assert_eq!(got, (0..50).map(|n| n + 1000 * i as u32).collect::<Vec<_>>());
        }
        // Each frame arrives once.
        assert!(near.iter_mut().all(|queue| queue.rx_burst(&mut Burst::new()) == 0));
        drop((near, far));
        assert_no_leak(&server);
        assert_no_leak(&client);
    });
}

/// A server with more queues than its client would receive each packet several times, and one with fewer would miss
/// some: neither gets a link, and the client's message contains the right number.
#[test]
fn memif_ends_with_unequal_queues_say_so() {
    if assignment().is_some_and(|(case, _)| case == "unequal-server") {
        let (_, dir) = assignment().unwrap();
        let eal = eal();
        let socket = path(&dir, "s");
        let three = profile("memif", &[("socket", &socket), ("role", "server"), ("queues", "3")]);
        let mut port = Port::open(&eal, &three.for_cores(3).unwrap()).unwrap();
        let mut queues = port.take_queues();
        say("ready");
        let done = thread::spawn(until_told);
        while !done.is_finished() {
            for queue in &mut queues {
                assert_eq!(queue.rx_burst(&mut Burst::new()), 0);
                queue.link_up();
            }
            thread::yield_now();
        }
        return;
    }
    let name = "queues::memif_ends_with_unequal_queues_say_so";
    isolated(name, || {
        let dir = scratch();
        let mut server = Peer::start(name, "unequal-server", dir.path());
        server.expect("ready");
        let eal = eal();
        let socket = path(dir.path(), "s");
        for queues in ["1", "4"] {
            let client = profile("memif", &[("socket", &socket), ("role", "client"), ("queues", queues)]);
            let mut port = Port::open(&eal, &client).unwrap();
            let queue = port.take_queues().remove(0);
            eventually("a word", || {
                assert!(!port.link_up());
                queue.link_problem().is_some_and(|why| why.contains("3 queues") && why.contains("--cores any:3"))
            });
        }
        let client = profile("memif", &[("socket", &socket), ("role", "client"), ("queues", "3")]);
        let port = Port::open(&eal, &client).unwrap();
        eventually("the link", || port.link_up());
        drop(port);
        server.finish();
    });
}

#[test]
fn more_queues_than_there_are_name_the_limit() {
    on_veth("queues::more_queues_than_there_are_name_the_limit", 1500, || {
        let eal = eal();
        for (name, iface, want, most) in
            [("af-packet", "left", 17, 16), ("af-xdp", "left", 4, 1), ("af-xdp", "left", 2, 1)]
        {
            let text = want.to_string();
            let error = refused(&eal, &profile(name, &[("iface", iface), ("queues", &text)]));
            assert!(matches!(error, PortError::Queues { max, want: w, .. } if max == most && w == want), "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("at most {most} queues")) && text.contains("--spread"), "{text}");
        }
        let error = refused(&eal, &profile("tap", &[("iface", "gannet-q"), ("queues", "128")]));
        println!("{error}");
        assert!(matches!(error, PortError::Queues { want: 128, .. }), "{error}");
        let start = [("iface", "left"), ("queues", "1"), ("start_queue", "3")];
        let error = refused(&eal, &profile("af-xdp", &start));
        assert!(matches!(error, PortError::Queues { max: 0, want: 1, .. }), "{error}");
        // They all share one queue.
        let one = profile("af-xdp", &[("iface", "left")]).spread_over(4).unwrap();
        assert_eq!(Port::open(&eal, &one).unwrap().take_spread(&eal).unwrap().len(), 4);
        let error = profile("af-packet", &[("iface", "left"), ("queues", "2")]).spread_over(4).unwrap_err();
        assert!(matches!(error, ProfileError::Spread { queues: 2, .. }), "{error}");
    });
}

/// The kernel's interface is deleted while four threads poll it and packets are sent to it: every queue learns that it
/// is gone for good, none hangs or fails, and the port closes.
#[test]
fn an_interface_that_is_deleted_under_load_is_gone_for_all_queues() {
    on_veth("queues::an_interface_that_is_deleted_under_load_is_gone_for_all_queues", 1500, || {
        let eal = eal();
        for (name, iface) in [("tap", "gannet-gone"), ("af-packet", "left")] {
            let four = profile(name, &[("iface", iface), ("queues", "4")]).for_cores(4).unwrap();
            let mut port = Port::open(&eal, &four).unwrap();
            run(&format!("ip link set {iface} up"));
            eventually("the link", || port.link_up());
            let before = port.buffers();
            let queues = port.take_queues();
            let busy = AtomicU32::new(0);
            thread::scope(|scope| {
                for mut queue in queues {
                    let (eal, busy) = (&eal, &busy);
                    scope.spawn(move || {
                        let _thread = eal.register_thread().unwrap();
                        let (mut rx, mut tx) = (Burst::new(), Burst::new());
                        let mut sent = 0;
                        eventually("the removal", || {
                            queue.rx_burst(&mut rx);
                            queue.release(&mut rx);
                            while tx.len() < BURST && make(&mut queue, &mut tx, 0, 1000) {}
                            sent += queue.tx_burst(&mut tx);
                            if sent > 200 {
                                sent = 0;
                                busy.fetch_or(1 << queue.id(), Ordering::Relaxed);
                            }
                            !queue.link_up() && queue.removed().is_some()
                        });
                        let why = queue.removed().unwrap();
                        assert!(why.contains(iface) && why.contains("deleted"), "{why}");
                    });
                }
                eventually("load on all queues", || busy.load(Ordering::Relaxed) == 15);
                run(&format!("ip link del {iface}"));
            });
            assert!(!port.link_up());
            // A later interface of the same name is another one.
            run(&format!("ip link add {iface} type veth peer name other"));
            run(&format!("ip link set {iface} up"));
            run("ip link set other up");
            assert!(!port.link_up());
            assert_eq!(port.buffers(), before);
            drop(port);
            if name == "tap" {
                run(&format!("ip link del {iface}"));
            }
        }
    });
}

/// Other code removes the device, as the driver of an unplugged PCI device does: no crash, no hang, and its number,
/// which another device may have by now, is left alone.
#[test]
fn a_device_that_is_removed_by_others_is_gone() {
    isolated("queues::a_device_that_is_removed_by_others_is_gone", || {
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("null", &[]));
        assert!(queue.link_up());
        assert_eq!(queue.removed(), None);
        hot_remove(port.name());
        eventually("the removal", || !queue.link_up() && queue.removed().is_some());
        assert!(queue.removed().unwrap().contains(port.name()));
        assert_eq!(queue.rx_burst(&mut Burst::new()), 0);
        // The number is free, and another port takes it.
        let (other, mut alive) = open(&eal, &profile("ring", &[]));
        assert_eq!(other.id(), port.id());
        drop((queue, port));
        round_trips(&mut alive, &Traffic { count: 100, mtu: 1500, window: 32 });
        drop(alive);
        assert_no_leak(&other);
        // Events registered for the former device do not concern the one that has its number now.
        drop(other);
        drop(open(&eal, &profile("ring", &[])));
    });
}

/// `rte_eal_hotplug_remove` of DPDK, which is in this process.
fn hot_remove(device: &str) {
    type Remove = unsafe extern "C" fn(*const libc::c_char, *const libc::c_char) -> libc::c_int;
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: the symbol has this type since DPDK 18; no thread polls the device.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"rte_eal_hotplug_remove".as_ptr());
        assert!(!symbol.is_null());
        let remove: Remove = std::mem::transmute(symbol);
        assert_eq!(remove(c"vdev".as_ptr(), name.as_ptr()), 0);
    }
}

#[test]
fn rings_smaller_than_a_burst_are_refused() {
    isolated("queues::rings_smaller_than_a_burst_are_refused", || {
        for (name, set) in [("af-packet", ("framecnt", "31")), ("memif", ("rsize", "4")), ("ring", ("tx_desc", "31"))] {
            let all = sets(&[("role", "client"), ("iface", "x"), set]);
            let known = |key: &str| gannet::dpdk::PortProfile::source(name).is_some_and(|text| text.contains(key));
            let all: Vec<_> = all.into_iter().filter(|(key, _)| known(key)).collect();
            let error = gannet::dpdk::PortProfile::load(name, &all).unwrap_err();
            assert!(matches!(error, ProfileError::BadValue { .. }), "{name}: {error}");
        }
    });
}

#[test]
fn the_mac_address_is_that_of_all_queues() {
    on_veth("queues::the_mac_address_is_that_of_all_queues", 1500, || {
        let eal = eal();
        let mut port = Port::open(&eal, &profile("af-packet", &[("iface", "left"), ("queues", "4")])).unwrap();
        assert!(port.take_queues().iter().all(|queue| queue.caps().mac == mac("left")));
        assert_eq!(port.node(), None, "a veth is nowhere");
    });
}
