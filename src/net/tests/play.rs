//! Random simulations: flapping links, dying routers, strangers, suspicion, progress, address changes.

use super::neighbors::gratuitous;
use super::world::*;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::datapath::TxFrame;
use crate::net::{Detect, Net, NetConfig, NetDrop, Received, Sent, Standing};
use crate::wire::eth::Mac;

const SEEDS: u64 = 60;
const STEPS: u32 = 1500;

fn subject(rng: &mut Rng) -> Net<Frame> {
    let detect = [Detect::Off, Detect::Optimistic, Detect::Strict][rng.below(3) as usize];
    let config = NetConfig {
        announce: rng.below(4) > 0,
        detect,
        max_neighbors: 16,
        max_pending: 20,
        pending_frames: 3,
        solicits_per_second: 40,
        gateways: ["10.0.0.254", "10.0.0.253", "fe80::1"].map(ip).to_vec(),
        seed: rng.next_u64(),
        ..config(&["10.0.0.1/16", "2001:db8::1/64"])
    };
    Net::new(&config, &caps(1), Instant::ZERO).unwrap()
}

/// Another host on the link, which answers at times.
struct Other {
    net: Net<Frame>,
    deaf: bool,
}

fn others() -> Vec<Other> {
    let addrs: [&[&str]; 5] = [
        &["10.0.0.254/16", "fe80::1/64"],
        &["10.0.0.253/16"],
        &["10.0.1.1/16", "2001:db8::11/64"],
        &["10.0.1.2/16", "2001:db8::12/64"],
        &["10.0.1.3/16"],
    ];
    let other = |(n, addrs): (usize, &&[&str])| Other { net: host(0x10 + n as u8, addrs), deaf: false };
    addrs.iter().enumerate().map(other).collect()
}

fn remote(rng: &mut Rng) -> std::net::SocketAddr {
    let n = 1 + rng.below(4);
    at(&match rng.below(6) {
        0 => format!("10.0.1.{n}:{n}"),
        1 => format!("8.8.8.{n}:{n}"),
        2 => format!("10.0.{}.{}:9", rng.below(200), 1 + rng.below(250)),
        3 => format!("[2001:db8::1{n}]:{n}"),
        4 => format!("[2606::{n}]:{n}"),
        _ => format!("[2001:db8::{:x}]:9", 0x100 + rng.below(60_000)),
    })
}

/// One run; returns the number of broadcast solicitations in its busiest second.
fn play(seed: u64) -> usize {
    let mut rng = Rng::from_u64(seed);
    let mut a = subject(&mut rng);
    let mut others = others();
    let mut now = Instant::ZERO;
    let mut sent_pending = 0;
    let mut given = 0;
    let (mut calls, mut second, mut busiest) = (0, 0, 0);
    for _ in 0..STEPS {
        now += Duration::from_micros(rng.below(60_000));
        match rng.below(12) {
            0 => a.link_up(now),
            1 => a.link_down(now),
            2 => {
                let n = rng.below(others.len() as u64) as usize;
                others[n].deaf = rng.below(2) == 0;
            }
            3 => a.suspect(now, remote(&mut rng).ip()),
            4 => a.heard_from(now, remote(&mut rng).ip(), [2, 0, 0, 0, 0, rng.below(256) as u8]),
            5 => {
                let ours = [[10, 0, 0, 1], [10, 0, 1, 1], [10, 0, 0, 254]][rng.below(3) as usize];
                a.receive(now, &mut gratuitous(Mac([2, 0, 0, 0, 0, rng.below(64) as u8]), ours));
            }
            6 if rng.below(8) == 0 => {
                let _ = a.add_address(now, format!("10.0.0.{}/16", 5 + rng.below(4)).parse().unwrap());
            }
            7 if rng.below(16) == 0 => a.remove_address(ip(&format!("10.0.0.{}", 5 + rng.below(4)))),
            _ => {
                let to = remote(&mut rng);
                let from = if to.is_ipv4() { at("10.0.0.1:4433") } else { at("[2001:db8::1]:4433") };
                let standing = match rng.below(4) {
                    0 => Standing::Stranger { via: Some([2, 0, 0, 0, 0, 0x66]).filter(|_| rng.below(2) == 0) },
                    1 => Standing::Unproven,
                    _ => Standing::Proven { progress: Some(now - Duration::from_millis(rng.below(3000))) },
                };
                let sent = a.send_to(now, from, to, 0, Frame::with_payload(&[1; 30]), || standing);
                sent_pending += u64::from(sent == Sent::Pending);
                if let Sent::Ready(frame) = sent {
                    assert!(frame.data()[..6] != [0; 6], "seed {seed}: it goes somewhere");
                }
            }
        }
        let frames = poll_all(&mut a, now);
        given += frames.len() as u64;
        if now.as_nanos() / 1_000_000_000 != second {
            second = now.as_nanos() / 1_000_000_000;
            calls = 0;
        }
        let asks = |f: &&Frame| f.data()[12..14] == [8, 6] && f.data()[..6] == [0xff; 6] && f.data()[28..32] != [0; 4];
        calls += frames.iter().filter(asks).count();
        busiest = busiest.max(calls);
        for other in &mut others {
            deliver(&mut other.net, now, frames.clone());
            let answers = poll_all(&mut other.net, now);
            if !other.deaf {
                let seen = deliver(&mut a, now, answers);
                assert!(seen.iter().all(|(received, _)| matches!(received, Received::Dropped(_))), "seed {seed}");
            }
        }
        while a.poll_event().is_some() {}
        assert!(a.neighbor_count() <= 16);
        // Addresses taken stay so, and addresses that are not ours are not used.
        assert!(a.next_timeout().is_none_or(|at| at > now), "seed {seed}: a deadline that was met is in the future");
    }
    // Left alone, it becomes quiet, and no frame is left waiting.
    let deadline = now + Duration::from_secs(60);
    while let Some(next) = a.next_timeout().filter(|next| *next < deadline) {
        given += poll_all(&mut a, next).len() as u64;
    }
    let s = *a.stats();
    let lost = s.drops[NetDrop::PendingOverflow] + s.drops[NetDrop::NeighborUnreachable];
    assert_eq!(s.tx_pending, sent_pending, "seed {seed}");
    assert_eq!(sent_pending, s.tx_released + lost, "seed {seed}: every frame that waited is sent or lost: {s:?}");
    assert_eq!(given, s.tx_released + s.tx_control, "seed {seed}");
    assert_eq!(s.rx_frames, s.rx_udp + s.rx_too_big + s.rx_unreachable + s.rx_handled + s.drops.received());
    busiest
}

#[test]
fn whatever_happens_frames_are_accounted_for_and_the_link_is_left_in_peace() {
    let busiest = (0..SEEDS).map(play).max().unwrap();
    // Forty solicitations per second, routers, and announcements of our own addresses, at most twice in a second.
    assert!(busiest <= 2 * 40 + 40, "{busiest} ARP requests to everyone in a second");
}
