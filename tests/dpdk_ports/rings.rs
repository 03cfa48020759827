//! `net_ring`: frames by pointer within one process.

use gannet::datapath::{BURST, Burst, Checksum, Datapath as _, RxFrame as _, TX_HEADROOM, TxFrame as _};
use gannet::dpdk::{Eal, EalConfig, EalError, Hugepages, Mbuf, Port, RxMbuf};

use crate::support::*;

#[test]
fn rings_loopback() {
    isolated("rings::rings_loopback", || {
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("ring", &[]));
        assert!(queue.link_up());
        let caps = queue.caps();
        assert_eq!((caps.mtu, caps.tx_ip_checksum, caps.tx_udp_checksum), (1500, false, false));
        assert_eq!(caps.mac[0] & 3, 2, "a random local address");
        round_trips(&mut queue, &Traffic { count: 5000, mtu: 1500, window: 256 });
        let stats = queue.stats();
        assert_eq!((stats.rx_frames, stats.rx_bytes), (5000, stats.tx_bytes));
        assert_eq!((stats.rx_linearized_bytes, stats.rx_oversize, stats.tx_no_frame), (0, 0, 0));
        assert_eq!(port.stats().rx_frames, 5000);
        assert!(port.xstats().iter().any(|(name, value)| name == "rx_good_packets" && *value == 5000));
    });
}

#[test]
fn rings_pair() {
    isolated("rings::rings_pair", || {
        let eal = eal();
        let _thread = eal.register_thread().unwrap();
        let (mut a, mut b) = Port::ring_pair(&eal, &profile("ring", &[("queues", "2"), ("mtu", "9000")])).unwrap();
        let (mut left, mut right) = (a.take_queues(), b.take_queues());
        assert_eq!((left.len(), right.len(), a.take_queues().len()), (2, 2, 0));
        for (l, r) in left.iter_mut().zip(&mut right) {
            let traffic = Traffic { count: 2000, mtu: 9000, window: 500 };
            traffic.run(l, r);
            traffic.run(r, l);
        }
        // Frames under way when a port closes are not lost.
        let mut burst = Burst::new();
        for n in 0..8 {
            assert!(make(&mut left[0], &mut burst, n, 100));
        }
        assert_eq!(left[0].tx_burst(&mut burst), 8);
        drop((left, a));
        let mut burst = Burst::new();
        assert_eq!(right[0].rx_burst(&mut burst), 8);
        drop(burst);
        drop(right);
        assert_no_leak(&b);
    });
}

#[test]
fn rings_checksums_are_unknown_and_flags_off() {
    isolated("rings::rings_checksums_are_unknown_and_flags_off", || {
        let eal = eal();
        let (_port, mut queue) = open(&eal, &profile("ring", &[]));
        let mut burst = Burst::new();
        assert!(make(&mut queue, &mut burst, 0, 64));
        queue.tx_burst(&mut burst);
        let mut burst = Burst::new();
        assert_eq!(queue.rx_burst(&mut burst), 1);
        assert_eq!((burst[0].ip_checksum(), burst[0].l4_checksum()), (Checksum::Unknown, Checksum::Unknown));
        assert_eq!(burst[0].rss_hash(), 0);
    });
}

#[test]
fn rings_full_leaves_frames_in_the_burst() {
    isolated("rings::rings_full_leaves_frames_in_the_burst", || {
        let eal = eal();
        let (mut a, mut b) = Port::ring_pair(&eal, &profile("ring", &[("tx_desc", "64")])).unwrap();
        let (mut tx, mut rx) = (a.take_queues().remove(0), b.take_queues().remove(0));
        // A ring of 64 holds 63.
        let (mut next, mut taken) = (0, 0);
        let mut burst = Burst::new();
        for _ in 0..3 {
            while burst.len() < BURST {
                assert!(make(&mut tx, &mut burst, next, 64));
                next += 1;
            }
            taken += tx.tx_burst(&mut burst) as u32;
        }
        assert_eq!((taken, burst.len() as u32, tx.stats().tx_full), (63, next - 63, 32), "each frame once");
        assert_eq!(number(burst[0].data()), Some(63), "the first frame left over is at the front");
        let mut seen = Seen::default();
        eventually("the arrival of all frames", || {
            tx.tx_burst(&mut burst);
            let before = seen.frames;
            receive_small(&mut rx, &mut seen);
            assert!(seen.frames > before || !burst.is_empty());
            seen.frames == next
        });
        drop((tx, rx));
        assert_no_leak(&a);
    });
}

fn receive_small(queue: &mut gannet::dpdk::Queue, seen: &mut Seen) {
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    for mut frame in burst {
        assert_eq!(number(frame.data_mut()), Some(seen.frames));
        seen.frames += 1;
    }
}

#[test]
fn rings_buffers_all_come_back() {
    isolated("rings::rings_buffers_all_come_back", || {
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("ring", &[("mbufs", "512"), ("tx_desc", "32")]));
        let (rest, all) = port.buffers();
        assert_eq!((rest, all), (512, 512));
        let mut held = Vec::new();
        while let Some(frame) = queue.tx_alloc() {
            held.push(frame);
        }
        assert_eq!((held.len(), queue.stats().tx_no_frame, port.buffers().0), (512, 1, 0));
        drop(held.split_off(100));
        assert_eq!(port.buffers().0, 412);
        // Memory of a dropped frame is reused clean.
        let mut frame = queue.tx_alloc().unwrap();
        assert!(frame.data().is_empty());
        let room = frame.payload_mut().len();
        assert!((1500 + 18..=2048).contains(&room), "{room}");
        frame.set_payload_len(1);
        assert_eq!(frame.prepend(TX_HEADROOM).len(), TX_HEADROOM);
        drop(frame);
        // Raw hand-over and back is one owner all along.
        let raw = queue.tx_alloc().map(|_| ()).and_then(|()| held.pop()).map(|f| f.data().len());
        assert_eq!(raw, Some(0));
        let mut burst = Burst::new();
        assert!(make(&mut queue, &mut burst, 1, 64));
        queue.tx_burst(&mut burst);
        let mut burst = Burst::new();
        queue.rx_burst(&mut burst);
        let raw = burst.pop().map(|f: RxMbuf| f.into_mbuf().into_raw()).unwrap();
        // SAFETY: from `into_raw` just now.
        let mut back = RxMbuf::from_mbuf(unsafe { Mbuf::from_raw(raw) });
        assert_eq!(number(back.data_mut()), Some(1));
        drop((back, held, queue));
        assert_no_leak(&port);
    });
}

#[test]
fn rings_a_frame_may_outlive_its_port() {
    isolated("rings::rings_a_frame_may_outlive_its_port", || {
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("ring", &[]));
        let mut frame = queue.tx_alloc().unwrap();
        drop((queue, port, eal));
        frame.payload_mut()[..4].copy_from_slice(b"here");
        frame.set_payload_len(4);
        assert_eq!(frame.data(), b"here");
    });
}

#[test]
fn rings_prepend_is_bounded() {
    isolated("rings::rings_prepend_is_bounded", || {
        let eal = eal();
        let (_port, mut queue) = open(&eal, &profile("ring", &[]));
        std::panic::set_hook(Box::new(|_| {}));
        let mut frame = queue.tx_alloc().unwrap();
        frame.set_payload_len(10);
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            frame.prepend(TX_HEADROOM + 1);
        }));
        assert!(refused.is_err());
        let mut frame = queue.tx_alloc().unwrap();
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| frame.set_payload_len(60_000)));
        assert!(refused.is_err());
    });
}

#[test]
fn eal_once_per_process_and_threads() {
    isolated("rings::eal_once_per_process_and_threads", || {
        let affinity = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let cpus = |s: String| s.lines().find(|l| l.starts_with("Cpus_allowed:")).unwrap().to_owned();
        let before = cpus(affinity());
        let eal = eal();
        assert_eq!(cpus(affinity()), before, "the caller keeps its CPUs");
        assert!(eal.warning().is_none());
        assert!(Eal::version().starts_with("DPDK "));
        assert!(matches!(Eal::init(&EalConfig::default()), Err(EalError::AlreadyInitialised)));
        assert_eq!(Eal::lcore(), Some(0));
        let thread = std::thread::spawn({
            let eal = eal.clone();
            move || {
                assert_eq!(Eal::lcore(), None);
                let guard = eal.register_thread().unwrap();
                let inner = eal.register_thread().unwrap();
                let id = Eal::lcore();
                drop(inner);
                assert_eq!(Eal::lcore(), id, "the outer guard still holds");
                drop(guard);
                assert_eq!(Eal::lcore(), None);
                id
            }
        });
        assert!(thread.join().unwrap().is_some_and(|id| id != 0));
        // A queue moves between threads.
        let (port, mut queue) = open(&eal, &profile("ring", &[]));
        let moved = std::thread::spawn({
            let eal = eal.clone();
            move || {
                let _thread = eal.register_thread().unwrap();
                round_trips(&mut queue, &Traffic { count: 500, mtu: 1500, window: 64 });
                queue
            }
        });
        drop(moved.join().unwrap());
        assert_no_leak(&port);
        drop((port, eal));
        assert!(matches!(Eal::init(&EalConfig::default()), Err(EalError::AlreadyInitialised)), "not even afterwards");
    });
}

#[test]
fn eal_hugepages_required_but_absent() {
    isolated("rings::eal_hugepages_required_but_absent", || {
        let config = EalConfig { hugepages: Hugepages::Require, memory_mb: 1 << 30, ..EalConfig::default() };
        let error = Eal::init(&config).unwrap_err().to_string();
        assert!(error.contains("vm.nr_hugepages"), "{error}");
        // That did not use up the one chance.
        drop(eal());
    });
}

#[test]
fn memory_is_registered_and_let_go() {
    isolated("rings::memory_is_registered_and_let_go", || {
        let eal = eal();
        let (a, b) = Port::ring_pair(&eal, &profile("ring", &[])).unwrap();
        let page = 4096;
        let layout = std::alloc::Layout::from_size_align(64 * page, page).unwrap();
        // SAFETY: a layout with a size; freed below, after all guards.
        unsafe {
            let memory = std::alloc::alloc(layout);
            assert!(a.register_memory(memory.add(1), page, page).is_err());
            assert!(a.register_memory(memory, page + 1, page).is_err());
            for _ in 0..2 {
                let first = a.register_memory(memory, 64 * page, page).unwrap();
                let second = b.register_memory(memory, 64 * page, page).unwrap();
                drop(second);
                drop(first);
            }
            std::alloc::dealloc(memory, layout);
        }
    });
}
