//! Simulates a sender behind a bottleneck, to check that recovery and congestion control keep the link busy.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;
use crate::base::range_set::RangeSet;
use crate::base::rng::Rng;

const LEN: u16 = 1452;
/// The engine's timers fire at the ends of such ticks.
const TICK_NS: u64 = 1 << 16;
const MAX_ACK_DELAY: Duration = Duration::from_millis(25);
const CX: Context = Context {
    handshake_confirmed: true,
    peer_max_ack_delay: MAX_ACK_DELAY,
    has_handshake_keys: true,
    peer_completed_address_validation: true,
    at_amplification_limit: false,
};

#[derive(Clone, Copy)]
struct Link {
    /// Rate of the bottleneck in bits per second.
    rate: u64,
    /// Round-trip time without queueing.
    rtt: Duration,
    /// Capacity of the queue before the bottleneck, in bytes.
    buffer: u64,
    /// Random loss of packets and acknowledgements, per mille.
    loss: u64,
    /// Packets that are delayed by `late_by`, per mille.
    late: u64,
    late_by: Duration,
}

const CLEAN: Link = Link {
    rate: 100_000_000,
    rtt: Duration::from_millis(20),
    buffer: 250_000,
    loss: 0,
    late: 0,
    late_by: Duration::ZERO,
};

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(u64),
    AckTimer,
    Ack { ranges: Vec<(u64, u64)>, delay: Duration },
    Wake,
}

#[derive(Default)]
struct Receiver {
    received: RangeSet,
    unacked: u32,
    largest_time: Instant,
    timer: Option<Instant>,
}

struct Sim {
    link: Link,
    now: Instant,
    rng: Rng,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    count: u64,
    /// When the bottleneck has sent everything in its queue.
    busy_until: Instant,
    recovery: Recovery<u32>,
    next_pn: u64,
    /// Data to retransmit, and data that was never sent.
    lost: VecDeque<u32>,
    fresh: std::ops::Range<u32>,
    acked: Vec<bool>,
    wake: Option<Instant>,
    receiver: Receiver,
    /// Number of bytes sent through the bottleneck.
    carried: u64,
    drops: u64,
}

impl Sim {
    fn new(algorithm: CongestionAlgorithm, link: Link, pieces: u32) -> Self {
        let config = RecoveryConfig {
            initial_rtt: Duration::from_millis(333),
            max_datagram: LEN,
            algorithm,
            pacing: true,
            seed: 1,
        };
        Self {
            link,
            now: Instant::ZERO,
            rng: Rng::from_u64(1),
            events: BinaryHeap::new(),
            count: 0,
            busy_until: Instant::ZERO,
            recovery: Recovery::new(&config, Instant::ZERO),
            next_pn: 0,
            lost: VecDeque::new(),
            fresh: 0..pieces,
            acked: vec![false; pieces as usize],
            wake: None,
            receiver: Receiver::default(),
            carried: 0,
            drops: 0,
        }
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.count += 1;
        self.events.push(Reverse((when, self.count, event)));
    }

    fn send_packet(&mut self, piece: u32) {
        let pn = self.next_pn;
        self.next_pn += 1;
        self.recovery.on_packet_sent(SpaceId::Data, pn, SentPacket::new(self.now, LEN, true, true, piece));
        let wire = Duration::from_nanos(u64::from(LEN) * 8 * 1_000_000_000 / self.link.rate);
        let start = self.busy_until.max(self.now);
        let queued = start.saturating_since(self.now).as_nanos() as u64 * (self.link.rate / 1_000_000) / 8000;
        if queued + u64::from(LEN) > self.link.buffer || self.rng.chance(self.link.loss) {
            self.drops += 1;
            return;
        }
        self.busy_until = start + wire;
        self.carried += u64::from(LEN);
        let late = if self.rng.chance(self.link.late) { self.link.late_by } else { Duration::ZERO };
        self.at(self.busy_until + self.link.rtt / 2 + late, Event::Arrive(pn));
    }

    /// Sends as much as is permitted.
    fn transmit(&mut self) {
        loop {
            let more = !self.lost.is_empty() || !self.fresh.is_empty();
            let permit = self.recovery.permit(self.now, LEN);
            if !more || permit != Permit::Send {
                self.recovery.set_app_limited(!more);
                if let (Permit::PacedUntil(at), true) = (permit, more) {
                    let at = Instant::from_nanos(at.as_nanos().next_multiple_of(TICK_NS));
                    if self.wake.is_none_or(|wake| wake <= self.now || at < wake) {
                        self.wake = Some(at);
                        self.at(at, Event::Wake);
                    }
                }
                return;
            }
            if let Some(piece) = self.lost.pop_front().or_else(|| self.fresh.next()) {
                self.send_packet(piece);
            }
        }
    }

    fn send_ack(&mut self) {
        let r = &mut self.receiver;
        (r.unacked, r.timer) = (0, None);
        let ranges = r.received.iter().rev().take(32).map(|range| (range.start, range.end - 1)).collect();
        let delay = self.now.saturating_since(r.largest_time);
        if !self.rng.chance(self.link.loss) {
            self.at(self.now + self.link.rtt / 2, Event::Ack { ranges, delay });
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(pn) => {
                let r = &mut self.receiver;
                let in_order = r.received.last().map_or(pn == 0, |last| last.end == pn);
                if r.received.last().is_none_or(|last| pn >= last.end) {
                    r.largest_time = self.now;
                }
                r.received.insert(pn..pn + 1);
                r.unacked += 1;
                if r.unacked >= 2 || !in_order {
                    self.send_ack();
                } else {
                    let timer = self.now + MAX_ACK_DELAY;
                    r.timer = Some(timer);
                    self.at(timer, Event::AckTimer);
                }
            }
            Event::AckTimer if self.receiver.timer.is_some_and(|at| at <= self.now) => self.send_ack(),
            Event::Ack { ranges, delay } => {
                let ranges = ranges.into_iter().map(|(low, high)| low..=high);
                let (acked, lost) = (&mut self.acked, &mut self.lost);
                self.recovery
                    .on_ack(
                        self.now,
                        SpaceId::Data,
                        ranges,
                        delay,
                        &CX,
                        |_, packet| acked[packet.frames as usize] = true,
                        |_, piece| lost.push_back(piece),
                    )
                    .expect("the receiver is honest");
            }
            Event::AckTimer | Event::Wake => {}
        }
    }

    /// Runs until `end` or until everything is acknowledged.
    fn run(&mut self, end: Instant) {
        self.transmit();
        while self.now < end {
            let timeout = self.recovery.next_timeout(&CX);
            let timeout = timeout.map(|at| Instant::from_nanos(at.as_nanos().next_multiple_of(TICK_NS)).max(self.now));
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            match (timeout, event) {
                (None, None) => return,
                (Some(timeout), event) if event.is_none_or(|at| timeout < at) => {
                    self.now = timeout;
                    let lost = &mut self.lost;
                    let action = self.recovery.on_timeout(self.now, &CX, |_, _, piece| lost.push_back(piece));
                    if let TimeoutAction::Probe { count, .. } = action {
                        self.probe(count);
                    }
                }
                _ => {
                    if let Some(Reverse((at, _, event))) = self.events.pop() {
                        self.now = at;
                        self.handle(event);
                    }
                }
            }
            self.transmit();
        }
    }

    /// Probes repeat the oldest data in flight; the original is still tracked.
    fn probe(&mut self, count: u8) {
        let oldest = self.recovery.oldest_unacked(SpaceId::Data, |_| true).map(|(_, frames)| *frames);
        for _ in 0..count {
            if let Some(piece) = oldest {
                self.send_packet(piece);
            }
        }
    }
}

/// The utilisation of the link from `warm_up` to `end`.
fn utilisation(algorithm: CongestionAlgorithm, link: Link, warm_up: Duration, end: Duration) -> f64 {
    let mut sim = Sim::new(algorithm, link, 4_000_000);
    sim.run(Instant::ZERO + warm_up);
    let before = sim.carried;
    sim.run(Instant::ZERO + end);
    let carried = (sim.carried - before) as f64 * 8.0;
    let share = carried / (link.rate as f64 * (end - warm_up).as_secs_f64());
    assert!(sim.drops * 20 < sim.next_pn, "{} of {} packets dropped", sim.drops, sim.next_pn);
    share
}

const ALL: [CongestionAlgorithm; 3] =
    [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic, CongestionAlgorithm::Bbr];

#[test]
fn a_wide_area_link_is_used() {
    for algorithm in ALL {
        let share = utilisation(algorithm, CLEAN, Duration::from_secs(2), Duration::from_secs(12));
        assert!(share > 0.9, "{algorithm:?}: {share}");
    }
}

#[test]
fn a_data_centre_link_is_used() {
    let rtt = Duration::from_micros(10);
    let link = Link { rate: 40_000_000_000, rtt, buffer: 500_000, ..CLEAN };
    for algorithm in ALL {
        let share = utilisation(algorithm, link, Duration::from_millis(5), Duration::from_millis(35));
        assert!(share > 0.9, "{algorithm:?}: {share}");
    }
}

#[test]
fn a_paced_metro_link_with_a_shallow_buffer_is_used() {
    let rtt = Duration::from_millis(2);
    let link = Link { rate: 1_000_000_000, rtt, buffer: 125_000, ..CLEAN };
    for algorithm in ALL {
        let share = utilisation(algorithm, link, Duration::from_millis(500), Duration::from_millis(2500));
        assert!(share > 0.8, "{algorithm:?}: {share}");
    }
}

#[test]
fn reordering_does_not_slow_a_link_down() {
    // Eight packets pass in that time; without undoing, NewReno reaches a fifth of the rate.
    let link = Link { late: 2, late_by: Duration::from_millis(1), ..CLEAN };
    for algorithm in ALL {
        let share = utilisation(algorithm, link, Duration::from_secs(2), Duration::from_secs(12));
        assert!(share > 0.8, "{algorithm:?}: {share}");
    }
}

/// Jitter of 1 to 5 ms reorders whatever is sent within that time, 8 to 40 packets. Only the first losses are spurious.
#[test]
fn reordering_is_learnt() {
    for (late, by) in [(10, 2), (500, 1), (500, 5), (50, 5), (10, 15)] {
        let link = Link { late, late_by: Duration::from_millis(by), ..CLEAN };
        for algorithm in ALL {
            let mut sim = Sim::new(algorithm, link, 4_000_000);
            sim.run(Instant::ZERO + Duration::from_secs(12));
            let acked = sim.acked.iter().filter(|acked| **acked).count() as u64;
            let twice = sim.next_pn - acked - sim.drops - sim.recovery.bytes_in_flight() / u64::from(LEN);
            let share = acked as f64 * f64::from(LEN) * 8.0 / (link.rate as f64 * 12.0);
            assert!(share > 0.9, "{algorithm:?}, {late} per mille late by {by} ms: {share}");
            assert!(
                twice * 50 < acked,
                "{algorithm:?}, {late} per mille late by {by} ms: {twice} of {acked} sent twice"
            );
        }
    }
}

#[test]
fn everything_arrives_over_a_bad_link() {
    for (algorithm, loss) in ALL.into_iter().flat_map(|a| [(a, 20), (a, 100), (a, 300)]) {
        let link = Link { rate: 50_000_000, rtt: Duration::from_millis(10), buffer: 100_000, loss, ..CLEAN };
        let mut sim = Sim::new(algorithm, link, 2000);
        sim.run(Instant::ZERO + Duration::from_secs(600));
        let missing = sim.acked.iter().filter(|acked| !**acked).count();
        assert_eq!(missing, 0, "{algorithm:?} at {loss} per mille");
        assert_eq!(sim.recovery.bytes_in_flight(), 0);
    }
}

#[test]
fn the_same_run_twice_is_the_same() {
    let link = Link { rate: 50_000_000, rtt: Duration::from_millis(10), buffer: 60_000, loss: 5, ..CLEAN };
    let run = |algorithm| {
        let mut sim = Sim::new(algorithm, link, 10_000);
        sim.run(Instant::ZERO + Duration::from_secs(60));
        (sim.now, sim.next_pn, sim.carried, sim.recovery.cwnd())
    };
    for algorithm in ALL {
        assert_eq!(run(algorithm), run(algorithm));
    }
}
