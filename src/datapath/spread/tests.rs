//! Both decorators over simulated links, with small exchanges.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use super::*;
use crate::datapath::flow;
use crate::datapath::sim::{SimConfig, SimLink, SimPort};

/// An exchange with room for a few frames.
struct Post<F> {
    boxes: Rc<Vec<RefCell<VecDeque<Handed<F>>>>>,
    core: usize,
    room: usize,
}

fn post<F>(cores: usize, room: usize) -> Vec<Post<F>> {
    let boxes = Rc::new((0..cores).map(|_| RefCell::default()).collect::<Vec<_>>());
    (0..cores).map(|core| Post { boxes: boxes.clone(), core, room }).collect()
}

impl<F> Exchange<F> for Post<F> {
    fn cores(&self) -> u8 {
        self.boxes.len() as u8
    }

    fn offer(&mut self, to: u8, burst: &mut Burst<Handed<F>>) -> usize {
        let mut to = self.boxes[usize::from(to)].borrow_mut();
        let fit = burst.len().min(self.room - to.len());
        to.extend(burst.drain(..fit));
        fit
    }

    fn take(&mut self, burst: &mut Burst<Handed<F>>) -> usize {
        let mut mine = self.boxes[self.core].borrow_mut();
        let fit = mine.len().min(burst.remaining_capacity());
        burst.extend(mine.drain(..fit));
        fit
    }
}

type Rx = <SimPort as Datapath>::Rx;
type Tx = <SimPort as Datapath>::Tx;
type Core = Spread<SimPort, SimPort, Post<Rx>, Post<Tx>>;

/// A port, and the cores that share the other end of its link.
fn spread(cores: usize, room: usize, config: SimConfig) -> (SimPort, Vec<Core>) {
    let (peer, port) = SimLink::pair(config);
    let hash = FlowHash::new([0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb]);
    let (mut received, mut sent) = (post(cores, room).into_iter(), post(cores, room).into_iter());
    let host = Host::new(port, received.next().unwrap(), sent.next().unwrap(), hash);
    let guests = received.zip(sent).map(|(received, sent)| {
        // Frames come from a link that leads nowhere.
        Spread::Guest(Guest::new(SimLink::pair(config).0, received, sent))
    });
    let cores = std::iter::once(Spread::Host(host)).chain(guests).collect();
    (peer, cores)
}

fn send(port: &mut impl Datapath<Tx = Tx>, bytes: &[u8]) -> bool {
    let Some(mut frame) = port.tx_alloc() else { return false };
    frame.payload_mut()[..bytes.len()].copy_from_slice(bytes);
    frame.set_payload_len(bytes.len());
    let mut burst = Burst::new();
    burst.push(frame);
    port.tx_burst(&mut burst) == 1
}

fn datagram(port: u16) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) =
        (SocketAddr::from(([10, 0, 0, 1], port)), SocketAddr::from(([10, 0, 0, 2], 443)));
    flow::tests::frame(from, to, false)
}

/// The source ports of what `core` receives now.
fn receive(core: &mut impl Datapath<Rx = Rx>) -> Vec<u16> {
    let mut burst = Burst::new();
    let got = core.rx_burst(&mut burst);
    assert_eq!(got, burst.len());
    let ports = burst.iter_mut().map(|frame| u16::from_be_bytes([frame.data_mut()[34], frame.data_mut()[35]]));
    let ports = ports.collect();
    core.release(&mut burst);
    ports
}

#[test]
fn each_frame_arrives_once_in_order_at_one_core() {
    let (mut peer, mut cores) = spread(3, 1000, SimConfig::default());
    let mut seen: Vec<Vec<u16>> = vec![Vec::new(); 3];
    for round in 0..10 {
        for port in 0..30 {
            assert!(send(&mut peer, &datagram(1000 + port + 30 * round)));
        }
        for (core, seen) in cores.iter_mut().zip(&mut seen) {
            seen.extend(receive(core));
        }
    }
    assert!(seen.iter().all(|ports| ports.len() > 60 && ports.is_sorted()), "{seen:?}");
    let mut all = seen.concat();
    all.sort_unstable();
    assert_eq!(all, (1000..1300).collect::<Vec<_>>());
    let stats: Vec<_> = cores.iter().map(Datapath::stats).collect();
    assert!(stats.iter().zip(&seen).all(|(stats, seen)| stats.rx_frames == seen.len() as u64), "{stats:?}");
    assert_eq!(stats.iter().map(|s| s.rx_bytes).sum::<u64>(), 300 * datagram(0).len() as u64);
}

/// A burst that is not empty has room for fewer frames; the others from the port wait.
#[test]
fn no_frame_is_lost_for_want_of_room_in_a_burst() {
    let (mut peer, mut cores) = spread(1, 0, SimConfig::default());
    for port in 0..50 {
        assert!(send(&mut peer, &datagram(port)));
    }
    let mut burst = Burst::new();
    assert_eq!(cores[0].rx_burst(&mut burst), BURST);
    burst.truncate(20);
    assert_eq!(cores[0].rx_burst(&mut burst), 12);
    assert_eq!(cores[0].rx_burst(&mut burst), 0, "it is full");
    assert_eq!(receive(&mut cores[0]), (44..50).collect::<Vec<_>>());
}

#[test]
fn a_guest_that_does_not_keep_up_loses_frames_of_its_own() {
    let (mut peer, mut cores) = spread(2, 5, SimConfig::default());
    let mut here = 0;
    for port in 0..200 {
        assert!(send(&mut peer, &datagram(port)));
        here += receive(&mut cores[0]).len();
    }
    let stats = cores[0].stats();
    assert_eq!((stats.spread_full, stats.rx_frames), (200 - here as u64 - 5, 195));
    assert_eq!(receive(&mut cores[1]).len(), 5);
    assert_eq!(cores[1].stats().rx_frames, 5);
}

#[test]
fn what_guests_send_waits_for_the_port() {
    let config = SimConfig { ring_size: 4, ..SimConfig::default() };
    let (mut peer, mut cores) = spread(2, 6, config);
    for port in 0..6 {
        assert!(send(&mut cores[1], &datagram(port)));
    }
    let mut burst = Burst::new();
    burst.push(cores[1].tx_alloc().unwrap());
    for _ in 0..3 {
        assert_eq!((cores[1].tx_burst(&mut burst), burst.len()), (0, 1), "the way to the host is full");
    }
    assert_eq!((cores[1].stats().tx_full, cores[1].stats().tx_frames), (1, 6), "each frame counts once");
    // The host sends when it polls, as many frames as its port takes.
    let mut arrived = Vec::new();
    for (room, total) in [(4, 4), (0, 4), (4, 6)] {
        receive(&mut cores[0]);
        if room > 0 {
            arrived.extend(receive(&mut peer));
        }
        assert_eq!(arrived.len(), total);
    }
    assert_eq!(arrived, [0, 1, 2, 3, 4, 5]);
    assert!(send(&mut cores[0], &datagram(9)));
    let stats = [cores[0].stats(), cores[1].stats()].map(|s| (s.tx_frames, s.tx_bytes));
    let len = datagram(0).len() as u64;
    assert_eq!(stats, [(1, len), (6, 6 * len)], "each core counts its own");
}

#[test]
fn links_and_removals_are_those_of_the_ports() {
    let (peer, mut cores) = spread(2, 1, SimConfig::default());
    assert!(cores[0].link_up() && cores[0].removed().is_none());
    // The other end of the link that provides the guest's frames is gone.
    assert!(!cores[1].link_up());
    drop(peer);
    assert!(!cores[0].link_up());
}

/// If the queue to another core is full, the frame stays where it arrived: nothing is lost.
#[test]
fn scattering_loses_nothing() {
    for room in [0, 1, 3, 100] {
        let (mut peer, port) = SimLink::pair(SimConfig::default());
        let mut ends = post(3, room).into_iter();
        let mut cores = Vec::new();
        // Only the first has a peer that sends.
        let mut ports = vec![port];
        ports.extend((1..3).map(|_| SimLink::pair(SimConfig::default()).1));
        for (core, port) in (0..).zip(ports) {
            cores.push(Scatter::new(port, ends.next().unwrap(), core, Rng::from_u64(u64::from(core) + 7)));
        }
        let mut seen = vec![Vec::new(); 3];
        for round in 0..20 {
            for n in 0..30 {
                assert!(send(&mut peer, &datagram(round * 30 + n)));
            }
            for (core, seen) in cores.iter_mut().zip(&mut seen) {
                seen.extend(receive(core));
            }
        }
        for _ in 0..20 {
            for (core, seen) in cores.iter_mut().zip(&mut seen) {
                seen.extend(receive(core));
            }
        }
        let scattered = cores[0].scattered();
        assert_eq!(seen[1].len() + seen[2].len(), scattered as usize);
        match room {
            0 => assert_eq!(scattered, 0),
            100 => assert!((340..460).contains(&scattered), "{scattered} of 600 at two of three cores"),
            _ => assert!(scattered > 0),
        }
        let mut all = seen.concat();
        all.sort_unstable();
        assert_eq!(all, (0..600).collect::<Vec<_>>(), "room for {room}");
    }
}

/// Nothing used to wake the cores that share a port, which had to look for frames every 50 us.
#[test]
fn cores_that_are_given_frames_are_called_once() {
    fn called(core: &mut Core) -> (Vec<u8>, bool) {
        let mut called = Vec::new();
        let busy = core.passed_on(|to| called.push(to));
        (called, busy)
    }
    let (mut peer, mut cores) = spread(3, 1000, SimConfig::default());
    assert_eq!(called(&mut cores[0]), (vec![], false));
    for port in 1000..1030 {
        assert!(send(&mut peer, &datagram(port)));
    }
    receive(&mut cores[0]);
    assert_eq!(called(&mut cores[0]), (vec![1, 2], true));
    assert_eq!(called(&mut cores[0]), (vec![], false));
    assert!(!receive(&mut cores[1]).is_empty());
    assert_eq!(called(&mut cores[1]), (vec![], false));
    assert!(send(&mut cores[1], &datagram(1)));
    assert_eq!(called(&mut cores[1]), (vec![0], false));
    receive(&mut cores[0]);
    assert_eq!(called(&mut cores[0]), (vec![], true), "it has sent the guest's frame");
    // Guests may sleep if they are called, and nobody else has to wake them.
    let armed: Vec<_> = cores.iter_mut().map(Datapath::arm).collect();
    assert_eq!(armed, [false, true, true], "a simulated port wakes nobody");
    assert_eq!([true, false].map(|is_called| cores[1].wakes(armed[1], is_called)), [true, false]);
    assert_eq!([true, false].map(|port| cores[0].wakes(port, true)), [true, false]);
}
