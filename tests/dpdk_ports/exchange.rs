//! Frames that change cores: the rings between them, and one queue pair for many cores.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use gannet::base::rng::Rng;
use gannet::datapath::exchange::{Exchange as _, Handed};
use gannet::datapath::spread::Scatter;
use gannet::datapath::{BURST, Burst, Datapath as _, RxFrame as _};
use gannet::dpdk::{Eal, MAX_CORES, Port, PortError, Queue, RingExchange, RxMbuf, mesh};

use crate::queues::{flow_of, udp};
use crate::support::*;

/// Frames received from `queue`, which receives what it sends.
fn received(queue: &mut Queue, numbers: std::ops::Range<u32>) -> Vec<RxMbuf> {
    let mut got = Vec::new();
    let mut tx = Burst::new();
    for n in numbers {
        assert!(make(queue, &mut tx, n, 64));
        assert_eq!(queue.tx_burst(&mut tx), 1);
        let mut rx = Burst::new();
        assert_eq!(queue.rx_burst(&mut rx), 1);
        got.extend(rx);
    }
    got
}

fn handed(frame: RxMbuf, tag: Option<[u32; 3]>) -> Handed<RxMbuf> {
    Handed { frame, tag }
}

#[test]
fn frames_keep_order_and_tags() {
    isolated("exchange::frames_keep_order_and_tags", || {
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("ring", &[]));
        let mut ends = mesh::<RxMbuf>(&eal, 3, None).unwrap();
        assert!(ends.iter().zip(0..).all(|(end, core)| (end.core(), end.cores()) == (core, 3)));
        let mut burst: Burst<_> = received(&mut queue, 0..3)
            .into_iter()
            .zip([None, Some([1, 2, 3]), Some([u32::MAX; 3])])
            .map(|(frame, tag)| handed(frame, tag))
            .collect();
        assert_eq!(ends[0].offer(0, &mut burst), 0, "there is no ring to oneself");
        assert_eq!(ends[0].offer(3, &mut burst), 0, "nor to a core that is not there");
        assert_eq!(ends[0].offer(2, &mut burst), 3);
        assert!(burst.is_empty());
        assert_eq!((ends[0].take(&mut burst), ends[1].take(&mut burst), ends[2].take(&mut burst)), (0, 0, 3));
        let tags: Vec<_> = burst.iter().map(|h| h.tag).collect();
        assert_eq!(tags, [None, Some([1, 2, 3]), Some([u32::MAX; 3])]);
        for (n, h) in (0..).zip(&mut burst) {
            assert_eq!(number(h.frame.data_mut()), Some(n));
        }
        assert_eq!(ends[2].take(&mut burst), 0);
        drop((burst, ends, queue));
        assert_no_leak(&port);
    });
}

#[test]
fn a_full_ring_leaves_frames_and_dropping_it_frees_them() {
    isolated("exchange::a_full_ring_leaves_frames_and_dropping_it_frees_them", || {
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("ring", &[("mbufs", "4096")]));
        let mut ends = mesh::<RxMbuf>(&eal, 2, None).unwrap();
        let mut frames = received(&mut queue, 0..600).into_iter();
        let (mut taken, mut burst) = (0, Burst::new());
        loop {
            burst.extend(frames.by_ref().take(BURST - burst.len()).map(|frame| handed(frame, None)));
            let offered = burst.len();
            let n = ends[0].offer(1, &mut burst);
            taken += n;
            if n < offered {
                break;
            }
        }
        assert_eq!(taken, 511, "a ring of 512");
        let first = number(burst[0].frame.data_mut());
        assert_eq!(first, Some(511), "the first frame left over is at the front");
        assert_eq!(ends[0].offer(1, &mut burst), 0);
        // Room for one.
        let mut some = Burst::new();
        some.extend(received(&mut queue, 1000..1031).into_iter().map(|frame| handed(frame, None)));
        assert_eq!(ends[1].take(&mut some), 1, "up to a full burst");
        assert_eq!(number(some[31].frame.data_mut()), Some(0));
        assert_eq!(ends[0].offer(1, &mut burst), 1);
        drop((some, burst, frames));
        let rest = port.buffers();
        assert!(rest.0 + 511 <= rest.1, "they wait in the ring: {rest:?}");
        // The other end keeps the frame.
        ends.pop();
        assert_eq!(port.buffers(), rest);
        drop((ends, queue));
        assert_no_leak(&port);
    });
}

#[test]
fn cores_have_fair_turns() {
    isolated("exchange::cores_have_fair_turns", || {
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("ring", &[("mbufs", "4096")]));
        let mut ends = mesh::<RxMbuf>(&eal, 5, None).unwrap();
        // The core with the most frames does not starve the others: each has more than a burst.
        for from in 1..5u8 {
            for n in 0..3 {
                let start = u32::from(from) * 1000 + n * 32;
                let mut burst: Burst<_> =
                    received(&mut queue, start..start + 32).into_iter().map(|frame| handed(frame, None)).collect();
                assert_eq!(ends[usize::from(from)].offer(0, &mut burst), 32);
            }
        }
        let mut order = Vec::new();
        for _ in 0..12 {
            let mut burst = Burst::new();
            assert_eq!(ends[0].take(&mut burst), 32);
            let from: Vec<_> = burst.iter_mut().map(|h| number(h.frame.data_mut()).unwrap() / 1000).collect();
            assert!(from.iter().all(|f| *f == from[0]));
            order.push(from[0]);
        }
        assert_eq!(ends[0].take(&mut Burst::new()), 0);
        assert_eq!(order[..8], [1, 2, 3, 4, 1, 2, 3, 4]);
        drop((ends, queue));
        assert_no_leak(&port);
    });
}

#[test]
fn groups_that_cannot_be() {
    isolated("exchange::groups_that_cannot_be", || {
        let eal = eal();
        for cores in [0, MAX_CORES + 1, 255] {
            let error = mesh::<RxMbuf>(&eal, cores, None).unwrap_err();
            assert!(matches!(error, PortError::Cores { max: 64, .. }), "{error}");
        }
        assert_eq!(mesh::<RxMbuf>(&eal, 1, None).unwrap()[0].cores(), 1);
        // All rings of the largest group, on a node that does not exist.
        assert_eq!(mesh::<RxMbuf>(&eal, MAX_CORES, Some(7)).unwrap().len(), usize::from(MAX_CORES));
    });
}

/// Four threads pass frames to each other as fast as they can: each pair keeps its order, nothing is lost or
/// duplicated, no bit is missed (the last frames would remain), and every buffer is returned, although other threads
/// free it.
#[test]
fn four_threads_pass_frames_to_each_other() {
    isolated("exchange::four_threads_pass_frames_to_each_other", || {
        const CORES: u8 = 4;
        const EACH: u32 = 20_000;
        let eal = eal();
        let mut port = Port::open(&eal, &profile("ring", &[("queues", "4"), ("mbufs", "4096")])).unwrap();
        let ends = mesh::<RxMbuf>(&eal, CORES, None).unwrap();
        let queues = port.take_queues();
        let finished = AtomicU32::new(0);
        let total = AtomicU64::new(0);
        thread::scope(|scope| {
            for (mut end, mut queue) in ends.into_iter().zip(queues) {
                let (eal, finished, total) = (&eal, &finished, &total);
                scope.spawn(move || {
                    let _thread = eal.register_thread().unwrap();
                    let me = end.core();
                    let mut rng = Rng::from_u64(u64::from(me));
                    let mut out: Vec<Burst<Handed<RxMbuf>>> = (0..CORES).map(|_| Burst::new()).collect();
                    let mut next = [0u32; CORES as usize];
                    let mut heard = [0u32; CORES as usize];
                    let (mut tx, mut rx, mut taken) = (Burst::new(), Burst::new(), Burst::new());
                    let mut left = EACH * u32::from(CORES - 1);
                    let mut told = false;
                    eventually("the end", || {
                        // Frames come from the port, as in real use.
                        while left > 0 && tx.len() < 8 && make(&mut queue, &mut tx, 0, 64) {
                            left -= 1;
                        }
                        queue.tx_burst(&mut tx);
                        queue.rx_burst(&mut rx);
                        for frame in rx.drain(..) {
                            // Chosen at random among those that have not finished.
                            let open: Vec<u8> =
                                (0..CORES).filter(|&to| to != me && next[usize::from(to)] < EACH).collect();
                            let to = open[rng.below(open.len() as u64) as usize];
                            let n = &mut next[usize::from(to)];
                            let lane = &mut out[usize::from(to)];
                            lane.push(handed(frame, Some([u32::from(me), *n, !*n])));
                            *n += 1;
                            while lane.is_full() {
                                end.offer(to, lane);
                                take(&mut end, &mut taken, &mut heard);
                            }
                        }
                        for (to, lane) in (0..).zip(&mut out) {
                            end.offer(to, lane);
                        }
                        take(&mut end, &mut taken, &mut heard);
                        let sent = left == 0 && tx.is_empty() && out.iter().all(Burst::is_empty);
                        let all = (0..CORES).all(|from| from == me || heard[usize::from(from)] == EACH);
                        if sent && all && !told {
                            told = true;
                            finished.fetch_add(1, Ordering::Relaxed);
                        }
                        // No thread leaves while another may still send to it.
                        finished.load(Ordering::Relaxed) == u32::from(CORES)
                    });
                    total.fetch_add(heard.iter().map(|n| u64::from(*n)).sum(), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(total.into_inner(), 12 * u64::from(EACH));
        assert_no_leak(&port);
    });
}

/// Takes and checks a burst.
fn take(end: &mut RingExchange<RxMbuf>, taken: &mut Burst<Handed<RxMbuf>>, heard: &mut [u32]) {
    end.take(taken);
    for Handed { mut frame, tag } in taken.drain(..) {
        assert_eq!(number(frame.data_mut()), Some(0), "an intact frame");
        let [from, n, check] = tag.unwrap();
        let heard = &mut heard[from as usize];
        assert_eq!((*heard, !n), (n, check), "from {from}");
        *heard += 1;
    }
}

/// A port with one queue, and four cores: flows stay on their cores, every core has some, everything is sent by the one
/// queue, and the counters add up to those of the port.
#[test]
fn one_queue_is_spread_over_four_cores() {
    isolated("exchange::one_queue_is_spread_over_four_cores", || {
        let eal = eal();
        let one = profile("ring", &[]).spread_over(4).unwrap();
        let (mut near, mut far) = Port::ring_pair(&eal, &one).unwrap();
        let mut peer = far.take_queues().remove(0);
        let mut cores = near.take_spread(&eal).unwrap();
        assert_eq!((cores.len(), near.take_spread(&eal).unwrap().len()), (4, 0));
        assert!(cores.iter_mut().all(|core| core.link_up() && core.caps() == near.caps()));
        const FLOWS: u16 = 64;
        let mut home = [None; FLOWS as usize];
        let mut share = [0; 4];
        for round in 0..20 {
            let mut tx = Burst::new();
            for flow in 0..FLOWS {
                tx.push(filled(&mut peer, &udp(flow, 4433)).unwrap());
                if tx.is_full() {
                    assert_eq!(peer.tx_burst(&mut tx), BURST);
                }
            }
            let (mut arrived, mut answers) = (0, 0);
            eventually("the arrival of all frames", || {
                for (index, core) in cores.iter_mut().enumerate() {
                    let (mut rx, mut tx) = (Burst::new(), Burst::new());
                    core.rx_burst(&mut rx);
                    for frame in &mut rx {
                        let flow = usize::from(flow_of(frame.data_mut()).unwrap());
                        assert_eq!(*home[flow].get_or_insert(index), index, "flow {flow} stays");
                        share[index] += 1;
                        arrived += 1;
                        tx.push(filled(core, &frame.data_mut()[..60]).unwrap());
                    }
                    core.release(&mut rx);
                    core.tx_burst(&mut tx);
                    assert!(tx.is_empty());
                }
                let mut rx = Burst::new();
                answers += peer.rx_burst(&mut rx);
                arrived == FLOWS && answers == usize::from(FLOWS)
            });
            assert!(round > 0 || share.iter().all(|n| *n > 0), "{share:?}");
        }
        let stats: Vec<_> = cores.iter().map(|core| core.stats()).collect();
        let sum = |of: fn(&gannet::datapath::DatapathStats) -> u64| stats.iter().map(of).sum::<u64>();
        let all = 20 * u64::from(FLOWS);
        assert_eq!((sum(|s| s.rx_frames), sum(|s| s.tx_frames), sum(|s| s.spread_full)), (all, all, 0));
        assert_eq!((sum(|s| s.rx_bytes), sum(|s| s.tx_bytes)), (60 * all, 60 * all));
        assert!(stats.iter().zip(share).all(|(s, n)| s.rx_frames == n && s.tx_frames == n), "{stats:?}");
        // Frames that are not UDP over IP go to the first core.
        let mut tx = Burst::new();
        assert!(make(&mut peer, &mut tx, 7, 64));
        peer.tx_burst(&mut tx);
        let mut rx = Burst::new();
        assert_eq!(cores[0].rx_burst(&mut rx), 1);
        drop((rx, cores, peer));
        assert_no_leak(&near);
    });
}

/// A core that does not poll loses the frames for it, which are counted, and the others go on.
#[test]
fn a_core_that_does_not_poll_loses_its_own_frames_only() {
    isolated("exchange::a_core_that_does_not_poll_loses_its_own_frames_only", || {
        let eal = eal();
        let (mut near, mut far) = Port::ring_pair(&eal, &profile("ring", &[]).spread_over(2).unwrap()).unwrap();
        let mut peer = far.take_queues().remove(0);
        let mut cores = near.take_spread(&eal).unwrap();
        let (mut sent, mut here) = (0u64, 0u64);
        while sent < 4000 {
            let mut tx = Burst::new();
            while !tx.is_full() {
                tx.push(filled(&mut peer, &udp(sent as u16 % 64, 4433)).unwrap());
                sent += 1;
            }
            assert_eq!(peer.tx_burst(&mut tx), BURST);
            let mut rx = Burst::new();
            here += cores[0].rx_burst(&mut rx) as u64;
            cores[0].release(&mut rx);
        }
        let stats = cores[0].stats();
        assert_eq!(stats.spread_full, sent - here - 511, "all that its ring has no room for");
        assert_eq!(stats.rx_frames, here + stats.spread_full);
        drop((cores, peer));
        assert_no_leak(&near);
    });
}

#[test]
fn scattered_frames_all_arrive_somewhere() {
    isolated("exchange::scattered_frames_all_arrive_somewhere", || {
        let eal = eal();
        let mut port = Port::open(&eal, &profile("ring", &[("queues", "4")]).for_cores(4).unwrap()).unwrap();
        let ends = mesh::<RxMbuf>(&eal, 4, None).unwrap();
        let mut cores: Vec<_> = (0..)
            .zip(port.take_queues().into_iter().zip(ends))
            .map(|(core, (queue, end))| Scatter::new(queue, end, core, Rng::from_u64(core.into())))
            .collect();
        let mut seen = [[0u32; 4]; 4];
        const EACH: u32 = 3000;
        let mut next = [0; 4];
        let mut got = 0;
        eventually("all of them", || {
            for index in 0..4 {
                let core = &mut cores[index];
                let mut tx = Burst::new();
                while next[index] < EACH && tx.len() < 16 {
                    let bytes = pattern(next[index] + 10_000 * index as u32, 64);
                    tx.push(filled(core, &bytes).unwrap());
                    next[index] += 1;
                }
                core.tx_burst(&mut tx);
                let mut rx = Burst::new();
                core.rx_burst(&mut rx);
                for frame in &mut rx {
                    seen[index][number(frame.data_mut()).unwrap() as usize / 10_000] += 1;
                    got += 1;
                }
                core.release(&mut rx);
            }
            got == 4 * EACH
        });
        // A quarter each, of 3000.
        assert!(seen.iter().flatten().all(|n| (600..900).contains(n)), "{seen:?}");
        assert!(cores.iter().all(|core| (2000..2500).contains(&core.scattered())));
        drop(cores);
        assert_no_leak(&port);
    });
}

/// The environment is closed after the last ring is freed.
#[test]
fn rings_may_outlive_ports() {
    isolated("exchange::rings_may_outlive_ports", || {
        let eal: Eal = eal();
        let (port, mut queue) = open(&eal, &profile("ring", &[]));
        let mut ends = mesh::<RxMbuf>(&eal, 2, None).unwrap();
        let mut burst: Burst<_> = received(&mut queue, 0..5).into_iter().map(|frame| handed(frame, None)).collect();
        assert_eq!(ends[0].offer(1, &mut burst), 5);
        drop((port, queue, eal));
        assert_eq!(ends[1].take(&mut burst), 5);
        assert_eq!(number(burst[4].frame.data_mut()), Some(4));
    });
}
