//! The scenarios: links, machines, and who shares them.

use std::time::Duration;

use gannet::sim::forwarder::{Codel, Gilbert, Outage, PER_MILLE, Shape};
use gannet::sim::paths;

use super::host::Speed;
use super::settings::{Acks, MTU, Receiver, Windows};
use super::stack::Stack;
use super::world::HEADERS;

/// Bytes of a full packet that are not stream data: the short header with a connection ID of eight bytes and a packet
/// number of two (RFC 9000 §17.3.1), the tag, and a STREAM frame's type, ID, offset and length (RFC 9000 §19.8).
const OVERHEAD: usize = (1 + 8 + 2) + 16 + (1 + 1 + 4 + 2);

/// The share of a link's rate that is left for stream data.
pub const GOODPUT: f64 = (MTU - HEADERS - OVERHEAD) as f64 / MTU as f64;

/// A flow beside the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its stack; `None` for the same as the first one's.
    pub stack: Option<Stack>,
    /// When it starts.
    pub start: Duration,
}

/// A scenario. The first flow is measured, and those beside it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name in keys.
    pub name: String,
    /// The link to the receivers.
    pub down: Shape,
    /// The link to the senders.
    pub up: Shape,
    /// Flow control.
    pub windows: Windows,
    /// Its length.
    pub time: Duration,
    /// Goodput is counted from here on.
    pub settled: Duration,
    /// The number of bytes to transfer, if it is limited. Goodput is then counted from the start.
    pub bytes: Option<u64>,
    /// Flows beside the first one.
    pub others: Vec<Other>,
    /// The machines of receivers and of senders.
    pub speeds: [Speed; 2],
    /// Who receives.
    pub receiver: Receiver,
    /// Whether it is part of short runs.
    pub quick: bool,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Mbit/s as bit/s.
const M: u64 = 1_000_000;

/// A clean link: rate in Mbit/s, round-trip time in ms, and queue as a share of the product of both.
pub fn path(name: impl Into<String>, rate: u64, rtt: u64, queue: f64) -> Scenario {
    let bdp = (rate * M / 8 * rtt / 1000) as f64;
    let shape = Shape { delay: ms(rtt) / 2, rate: rate * M, queue: 1 << 20, ..Shape::default() };
    let time = match rate {
        ..100 => 30,
        100..500 => 20,
        500..1000 => 15,
        _ => 12,
    };
    Scenario {
        name: name.into(),
        down: Shape { queue: (bdp * queue).max(3000.0) as u64, ..shape.clone() },
        up: shape,
        windows: Windows::Wide,
        time: Duration::from_secs(time),
        settled: ms((30 * rtt).clamp(1000, 6000)),
        bytes: None,
        others: Vec::new(),
        speeds: [Speed::default(); 2],
        receiver: Receiver::Own,
        quick: false,
    }
}

/// All scenarios.
pub fn all() -> Vec<Scenario> {
    let mut all = clean();
    all.extend(windows());
    all.extend(lossy());
    all.extend(reordering());
    all.extend(changes());
    all.extend(shared());
    all.extend(machines());
    all.extend(real());
    let short = path("short_50m_20ms", 50, 20, 1.0);
    all.push(Scenario { time: Duration::from_secs(3), ..short });
    // Parts of several groups, so that a short run sees each.
    let quick =
        ["short_50m_20ms", "clean_100m_20ms_q1", "loss_100m_20ms_0.1", "jitter_100m_50ms_1ms", "defaults_500m_20ms"];
    for scenario in &mut all {
        if quick.contains(&scenario.name.as_str()) {
            scenario.quick = true;
        }
    }
    all
}

fn clean() -> Vec<Scenario> {
    let mut all = Vec::new();
    for rate in [50, 100, 500] {
        for rtt in [20, 100] {
            for (queue, name) in [(0.25, "q025"), (1.0, "q1")] {
                all.push(path(format!("clean_{rate}m_{rtt}ms_{name}"), rate, rtt, queue));
            }
        }
    }
    all.push(path("clean_1000m_200ms_q1", 1000, 200, 1.0));
    all
}

fn windows() -> Vec<Scenario> {
    let of = |windows, name: &str, rate, rtt, queue, suffix: &str| {
        let name = format!("{name}_{rate}m_{rtt}ms{suffix}");
        Scenario { windows, ..path(name, rate, rtt, queue) }
    };
    let with = |windows, name: &str, rate, rtt| of(windows, name, rate, rtt, 1.0, "");
    let shallow = |windows, name: &str, rate, rtt| of(windows, name, rate, rtt, 0.25, "_q025");
    let fast = path("memory_10000m_100ms", 10_000, 100, 1.0);
    vec![
        shallow(Windows::Default, "defaults", 100, 20),
        shallow(Windows::Default, "defaults", 100, 200),
        shallow(Windows::Default, "defaults", 1000, 20),
        shallow(Windows::Default, "defaults", 1000, 200),
        shallow(Windows::Serve, "serve", 1000, 20),
        shallow(Windows::Serve, "serve", 1000, 200),
        Scenario {
            windows: Windows::Memory(4 << 30),
            time: Duration::from_secs(8),
            up: Shape { queue: 16 << 20, ..fast.up },
            ..fast
        },
        with(Windows::Default, "defaults", 500, 20),
        with(Windows::Default, "defaults", 500, 100),
        with(Windows::Default, "defaults", 1000, 200),
        with(Windows::Provided, "provided", 500, 100),
        with(Windows::Serve, "serve", 1000, 20),
        with(Windows::Serve, "serve", 1000, 100),
        with(Windows::Serve, "serve", 1000, 200),
    ]
}

fn lossy() -> Vec<Scenario> {
    let with = |rate, rtt, percent: f64| {
        let base = path(format!("loss_{rate}m_{rtt}ms_{percent}"), rate, rtt, 1.0);
        let loss = (percent * 10_000.0).round() as u64;
        Scenario { down: Shape { loss, ..base.down }, ..base }
    };
    let mut all: Vec<_> = [0.01, 0.1, 1.0, 2.0].map(|percent| with(100, 20, percent)).into();
    all.extend([with(100, 100, 1.0), with(500, 20, 1.0), with(500, 100, 0.1), with(500, 100, 2.0)]);
    let base = path("burst_loss_100m_50ms", 100, 50, 1.0);
    // Twenty packets in a row, once in 10,000.
    let gilbert = Gilbert { to_bad: 100, to_good: 50 * PER_MILLE, loss_good: 0, loss_bad: 1000 * PER_MILLE };
    all.push(Scenario { down: Shape { gilbert: Some(gilbert), ..base.down }, ..base });
    let base = path("ack_loss_100m_50ms_10", 100, 50, 1.0);
    all.push(Scenario { up: Shape { loss: 100 * PER_MILLE, ..base.up }, ..base });
    let base = path("acks_delayed_25ms_loss3", 100, 20, 1.0);
    let acks = Acks { every: 20, delay: ms(25) };
    let rare = Scenario {
        down: Shape { loss: 30 * PER_MILLE, ..base.down },
        receiver: Receiver::Rare(acks),
        bytes: Some(5_000_000),
        time: Duration::from_secs(60),
        ..base
    };
    all.push(Scenario { name: "to_quinn_loss3".into(), receiver: Receiver::Quinn, ..rare.clone() });
    // quinn gives up if there are too many gaps in what it has received.
    for rate in [500, 1000] {
        let base = path(format!("to_quinn_{rate}m_100ms"), rate, 100, 1.0);
        all.push(Scenario { receiver: Receiver::Quinn, ..base });
    }
    all.push(rare);
    all
}

fn reordering() -> Vec<Scenario> {
    let base = |name: String| path(name, 100, 50, 1.0);
    let jitter = |jitter: u64, overtaking, name: &str| {
        let base = base(format!("{name}_100m_50ms_{jitter}ms"));
        Scenario { down: Shape { jitter: ms(jitter), overtaking, ..base.down }, ..base }
    };
    let late = |percent: u64, by: u64| {
        let base = base(format!("late_100m_50ms_{percent}_{by}ms"));
        Scenario { down: Shape { late: percent * 10 * PER_MILLE, late_by: ms(by), ..base.down }, ..base }
    };
    vec![
        jitter(1, true, "jitter"),
        jitter(2, true, "jitter"),
        jitter(5, true, "jitter"),
        jitter(5, false, "jitter_in_order"),
        late(1, 5),
        late(1, 20),
        late(5, 5),
    ]
}

fn changes() -> Vec<Scenario> {
    let base = |name: &str| path(name, 100, 50, 1.0);
    let step = |name: &str, steps: &[(u64, u64)]| {
        let base = base(name);
        let steps = steps.iter().map(|(at, rate)| (Duration::from_secs(*at), rate * M)).collect();
        Scenario { down: Shape { steps, ..base.down }, ..base }
    };
    let outage = |name: &str, length: Duration| {
        let base = base(name);
        let outages = vec![Outage { from: Duration::from_secs(5), length, every: Duration::ZERO }];
        let [down, up] = [base.down.clone(), base.up.clone()].map(|of| Shape { outages: outages.clone(), ..of });
        Scenario { down, up, ..base }
    };
    let codel = |name: &str, marks| {
        let base = base(name);
        let codel = Some(Codel { marks, ..Codel::default() });
        Scenario { down: Shape { codel, queue: 4 << 20, ..base.down }, ..base }
    };
    let marked = base("ecn_100m_50ms");
    vec![
        step("step_100m_50ms_down", &[(8, 20)]),
        step("step_100m_50ms_up", &[(0, 20), (8, 100)]),
        outage("outage_100m_50ms_1s", Duration::from_secs(1)),
        outage("outage_100m_50ms_4s", Duration::from_secs(4)),
        codel("codel_100m_50ms", false),
        codel("codel_ecn_100m_50ms", true),
        Scenario { down: Shape { mark_above: Some(marked.down.queue / 4), ..marked.down }, ..marked },
    ]
}

fn shared() -> Vec<Scenario> {
    let long = |name: String, rtt, stack, start| Scenario {
        others: vec![Other { stack, start: ms(start) }],
        time: Duration::from_secs(60),
        settled: Duration::from_secs(2),
        ..path(name, 50, rtt, 1.0)
    };
    let mut all = Vec::new();
    for rtt in [20, 100] {
        all.push(long(format!("share_same_50m_{rtt}ms"), rtt, None, 1000));
        let cubic = Some(Stack::QUINN_CUBIC);
        all.push(long(format!("share_cubic_quinn_50m_{rtt}ms"), rtt, cubic, 0));
        all.push(long(format!("share_cubic_gannet_50m_{rtt}ms"), rtt, Some(Stack::GANNET_CUBIC), 0));
    }
    all
}

fn machines() -> Vec<Scenario> {
    let base = |name: &str| path(name, 500, 20, 1.0);
    // 20 packets a millisecond are 235 Mbit/s.
    let slow = Speed::per_ms(20);
    let fast = Speed::default();
    let [receiver, sender, burst] = ["cpu_receiver_500m_20ms", "cpu_sender_500m_20ms", "socket_1000m_20ms"].map(base);
    let step = (Duration::from_secs(8), 50 * M);
    vec![
        Scenario { speeds: [Speed { socket: 2 << 20, ..slow }, fast], ..receiver },
        Scenario { speeds: [fast, slow], down: Shape { steps: vec![step], ..sender.down }, ..sender },
        // A short path to a receiver that is slower than the link, with a buffer of the usual size.
        Scenario {
            speeds: [Speed { socket: 208 << 10, ..Speed::per_ms(60) }, fast],
            bytes: Some(20_000_000),
            ..Scenario { name: burst.name, ..path("", 1000, 20, 1.0) }
        },
    ]
}

/// What `cargo xtask interop --paths` plays between processes as well.
fn real() -> Vec<Scenario> {
    let scenario = |of: paths::Path| Scenario {
        name: of.name.into(),
        down: of.down,
        up: of.up,
        windows: Windows::Serve,
        bytes: Some(of.bytes),
        time: Duration::from_secs(120),
        ..path("", 50, 20, 1.0)
    };
    paths::all().into_iter().map(scenario).collect()
}

impl Scenario {
    /// The number of stream bytes that the link can carry from `from` to `until`, counted from its start.
    pub fn capacity(&self, from: Duration, until: Duration) -> f64 {
        let rates = std::iter::once((Duration::ZERO, self.down.rate)).chain(self.down.steps.iter().copied());
        let ends = self.down.steps.iter().map(|(at, _)| *at).chain([Duration::MAX]);
        let overlap = |a: Duration, b: Duration| b.min(until).saturating_sub(a.max(from)).as_secs_f64();
        let bits: f64 = rates
            .zip(ends)
            .map(|((begin, rate), end)| {
                let outages = self.down.outages.iter().map(|outage| {
                    let (a, b) = (outage.from.max(begin), (outage.from + outage.length).min(end));
                    if a < b { overlap(a, b) } else { 0.0 }
                });
                rate as f64 * (overlap(begin, end) - outages.sum::<f64>())
            })
            .sum();
        bits / 8.0 * GOODPUT
    }

    /// The round-trip time without queues.
    pub fn rtt(&self) -> Duration {
        self.down.delay + self.up.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_short_runs_see_several_groups() {
        let all = all();
        let mut names: Vec<_> = all.iter().map(|scenario| scenario.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().filter(|scenario| scenario.quick).count() >= 4);
    }

    #[test]
    fn the_capacity_follows_steps_and_outages() {
        let secs = Duration::from_secs;
        let mut scenario = path("x", 80, 20, 1.0);
        let mega = |scenario: &Scenario, from, until| {
            (scenario.capacity(secs(from), secs(until)) / GOODPUT / 1e6).round() as u64
        };
        assert_eq!([mega(&scenario, 0, 3), mega(&scenario, 5, 6), mega(&scenario, 6, 6)], [30, 10, 0]);
        scenario.down.steps = vec![(secs(4), 8 * M), (secs(6), 16 * M)];
        assert_eq!([mega(&scenario, 0, 4), mega(&scenario, 3, 7), mega(&scenario, 5, 10)], [40, 14, 9]);
        scenario.down.outages = vec![Outage { from: secs(3), length: secs(2), every: Duration::ZERO }];
        assert_eq!([mega(&scenario, 0, 4), mega(&scenario, 3, 7)], [30, 3]);
        assert!((GOODPUT - 0.958).abs() < 1e-9);
    }
}
