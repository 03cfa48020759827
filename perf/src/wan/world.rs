//! Machines at both sides of one bottleneck, in virtual time.

use std::time::Duration;

use gannet::base::rng::Rng;
use gannet::base::time::Instant;
use gannet::sim::forwarder::{InFlight, Link, Shape, ShapeStats};

use super::end::{Packet, Spares, View};
use super::host::Host;
use crate::Failure;

/// When the world begins.
pub const START: Instant = Instant::from_nanos(1_000_000_000);

/// The time between samples.
pub const TICK: Duration = Duration::from_millis(10);

/// The size of IPv4 and UDP headers, in bytes.
pub const HEADERS: usize = 28;

/// The number of steps at one moment before something is considered broken.
const MAX_STEPS: u64 = 1 << 20;

/// A connection: its receiver and its sender.
pub struct Flow {
    /// The client, which receives, and the server, which sends.
    pub hosts: [Host; 2],
    /// When it starts, counted from the start of the world.
    pub start: Duration,
    /// The most bytes of its pool that the receiver had in use after a tick.
    pub held: u64,
    /// Stream bytes received, and the state of the sender, after each tick.
    pub samples: Vec<(u64, View)>,
    /// When everything had been received.
    pub finished: Option<Instant>,
    /// When and why the connection ended before that.
    pub ended: Option<(Duration, String)>,
    /// When each of both has something to do.
    next: [Option<Instant>; 2],
    begun: bool,
}

impl Flow {
    /// A connection that starts after `start`.
    pub fn new(client: Host, server: Host, start: Duration) -> Self {
        Self {
            hosts: [client, server],
            start,
            held: 0,
            samples: Vec::new(),
            finished: None,
            ended: None,
            next: [None; 2],
            begun: false,
        }
    }
}

/// A packet on its way.
struct Arrival {
    flow: usize,
    host: usize,
    packet: Packet,
}

/// The world.
pub struct World {
    /// All connections.
    pub flows: Vec<Flow>,
    /// The link to the clients, and the one to the servers.
    links: [Link; 2],
    flying: InFlight<Arrival>,
    now: Instant,
    /// Delays in the queue of the link to the clients.
    pub waits: Waits,
    /// Whether senders are looked at.
    viewed: bool,
    spares: Spares,
    out: Vec<Packet>,
}

impl World {
    /// A world with these links, to the clients and to the servers. Delays in the queue are counted from `settled` on.
    pub fn new(flows: Vec<Flow>, shapes: [Shape; 2], seed: u64, settled: Duration, viewed: bool) -> Self {
        let mut rng = Rng::from_u64(seed);
        let links = shapes.map(|shape| Link::new(shape, START, Rng::from_u64(rng.next_u64())));
        let waits = Waits { from: START + settled, ..Waits::default() };
        let (flying, spares) = (InFlight::default(), Spares::default());
        Self { flows, links, flying, now: START, waits, viewed, spares, out: Vec::new() }
    }

    /// Runs until `end`, or until every connection has finished.
    ///
    /// # Errors
    /// If a connection cannot begin, or time stands still.
    pub fn run(&mut self, end: Duration) -> Result<(), Failure> {
        let (end, mut tick, mut steps) = (START + end, START + TICK, 0);
        for flow in &mut self.flows {
            flow.next = [Some(START + flow.start), None];
        }
        loop {
            let arrival = self.flying.next();
            let hosts = self.flows.iter().flat_map(|flow| flow.next).flatten();
            let next = hosts.chain(arrival).fold(tick, Instant::min).max(self.now);
            steps = if next > self.now { 0 } else { steps + 1 };
            if steps > MAX_STEPS {
                return Err(format!("time stands still at {:?}", self.now.saturating_since(START)).into());
            }
            self.now = next;
            self.deliver();
            self.work()?;
            if self.now >= tick {
                self.sample();
                tick += TICK;
                if self.now >= end || self.flows.iter().all(|flow| flow.finished.is_some()) {
                    return Ok(());
                }
            }
        }
    }

    fn deliver(&mut self) {
        while self.flying.next().is_some_and(|at| at <= self.now) {
            let Some((_, Arrival { flow, host, packet })) = self.flying.pop() else { return };
            let flow = &mut self.flows[flow];
            flow.hosts[host].arrive(packet, &mut self.spares);
            flow.next[host] = flow.hosts[host].due();
        }
    }

    fn work(&mut self) -> Result<(), Failure> {
        for index in 0..self.flows.len() {
            for side in 0..2 {
                let flow = &mut self.flows[index];
                if flow.next[side].is_none_or(|at| at > self.now) {
                    continue;
                }
                let host = &mut flow.hosts[side];
                if side == 0 && !std::mem::replace(&mut flow.begun, true) {
                    host.end.begin(self.now)?;
                }
                host.work(self.now, &mut self.out, &mut self.spares);
                flow.next[side] = host.due();
                if side == 0 && flow.finished.is_none() && host.end.is_finished() {
                    flow.finished = Some(self.now);
                }
                self.send(index, side);
            }
        }
        Ok(())
    }

    /// Sends what a host has just made.
    fn send(&mut self, flow: usize, side: usize) {
        for mut packet in self.out.drain(..) {
            let to = 1 - side;
            let passages = self.links[to].offer(self.now, packet.len + HEADERS, packet.len, packet.ecn);
            let Some(first) = passages.first() else {
                self.spares.give(packet);
                continue;
            };
            if to == 0 {
                self.waits.add(self.now, first.queued);
            }
            for copy in &passages[1..] {
                let mut memory = self.spares.take();
                memory[..packet.len].copy_from_slice(packet.data());
                let packet = Packet { ecn: copy.ecn, len: packet.len, memory };
                self.flying.push(copy.at, Arrival { flow, host: to, packet });
            }
            packet.ecn = first.ecn;
            self.flying.push(first.at, Arrival { flow, host: to, packet });
        }
    }

    fn sample(&mut self) {
        for flow in &mut self.flows {
            let view = if self.viewed { flow.hosts[1].end.view() } else { View::default() };
            flow.held = flow.held.max(flow.hosts[0].end.held());
            flow.samples.push((flow.hosts[0].end.received(), view));
            if flow.finished.is_none() && flow.ended.is_none() {
                let why = flow.hosts.iter().find_map(|host| host.end.ended());
                flow.ended = why.map(|why| (self.now.saturating_since(START), why));
            }
        }
    }

    /// Counters of the link to the clients.
    pub fn link(&self) -> ShapeStats {
        self.links[0].stats()
    }
}

/// Delays in a queue, in steps of 0.1 ms.
#[derive(Debug, Default)]
pub struct Waits {
    from: Instant,
    counts: Vec<u64>,
    sum: Duration,
    count: u64,
}

impl Waits {
    fn add(&mut self, now: Instant, wait: Duration) {
        if now < self.from {
            return;
        }
        let step = (wait.as_micros() / 100) as usize;
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.sum += wait;
        self.count += 1;
    }

    /// The mean, in ms.
    pub fn mean_ms(&self) -> f64 {
        self.sum.as_secs_f64() * 1e3 / self.count.max(1) as f64
    }

    /// The delay that this share of packets did not exceed, in ms.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        let step = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        step.map_or(0.0, |step| (step + 1) as f64 / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_summed_up() {
        let mut waits = Waits { from: START, ..Waits::default() };
        waits.add(Instant::ZERO, Duration::from_secs(9));
        (1..=100).for_each(|ms| waits.add(START, Duration::from_millis(ms)));
        assert!((waits.mean_ms() - 50.5).abs() < 1e-9);
        assert_eq!([waits.quantile_ms(0.95), waits.quantile_ms(1.0)], [95.1, 100.1]);
        assert_eq!(Waits::default().quantile_ms(0.95), 0.0);
    }
}
