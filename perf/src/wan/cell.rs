//! One cell of the table: one stack in one scenario.

use std::time::Duration;

use super::end::View;
use super::host::Host;
use super::scenario::Scenario;
use super::settings::Windows;
use super::stack::Stack;
use super::world::{Flow, START, TICK, World};
use crate::Failure;

/// The share of the rate that counts as a filled pipe.
const FILLED: f64 = 0.85;

/// The figures of a cell.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Goodput of all flows over the link's ideal, once settled.
    pub fraction: f64,
    /// The same from the start.
    pub whole: f64,
    /// Goodput in Mbit/s, once settled.
    pub mbps: f64,
    /// The share of bytes that were sent again, of all that were sent.
    pub resent: f64,
    /// Packets dropped by the queue, and by receive buffers.
    pub drops: u64,
    /// Mean and 95 % delay in the queue, in ms.
    pub queue_ms: [f64; 2],
    /// The time until the flows together reach 85 % of the rate, in s.
    pub fill_s: Option<f64>,
    /// The first flow's share of the goodput, if there are several.
    pub share: Option<f64>,
    /// Jain's fairness index of the shares: 1 if all are equal.
    pub jain: Option<f64>,
    /// The most memory that the first flow's receiver had in use, in MB, if that is measured.
    pub held_mb: Option<f64>,
    /// The time until a stack closed a connection because of an error, in s.
    pub ended_s: Option<f64>,
}

/// A cell's figures and its course.
pub struct Course {
    /// The figures.
    pub figures: Figures,
    /// For each flow, stream bytes received and the state of the sender after each [`TICK`].
    pub flows: Vec<Vec<(u64, View)>>,
    /// When and why a connection ended early.
    pub ended: Option<(Duration, String)>,
}

/// Runs a cell. `viewed`: the state of senders is wanted as well.
///
/// # Errors
/// If a connection cannot begin, or time stands still.
pub fn run(scenario: &Scenario, stack: Stack, seed: u64, viewed: bool) -> Result<Course, Failure> {
    let seed = mix(&scenario.name, seed);
    let bytes = scenario.bytes.unwrap_or(u64::MAX >> 2);
    let firsts = [(stack, Duration::ZERO)];
    let others = scenario.others.iter().map(|other| (other.stack.unwrap_or(stack), other.start));
    let mut flows = Vec::new();
    for (number, (stack, start)) in firsts.into_iter().chain(others).enumerate() {
        let seed = seed.wrapping_add(number as u64);
        let [client, server] = stack.ends(scenario.windows, scenario.receiver, number as u8, seed, bytes)?;
        let [slow, sender] = scenario.speeds;
        flows.push(Flow::new(Host::new(client, slow), Host::new(server, sender), start));
    }
    let shapes = [scenario.down.clone(), scenario.up.clone()];
    let mut world = World::new(flows, shapes, seed, scenario.settled, viewed);
    world.run(scenario.time)?;
    let figures = figures(scenario, &mut world);
    let ended = world.flows.iter().find_map(|flow| flow.ended.clone());
    Ok(Course { figures, ended, flows: world.flows.into_iter().map(|flow| flow.samples).collect() })
}

/// A seed that depends on the scenario, so that others do not change when one is added: FNV-1a.
fn mix(name: &str, seed: u64) -> u64 {
    let bytes = name.bytes().chain(seed.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn figures(scenario: &Scenario, world: &mut World) -> Figures {
    let ticks = world.flows[0].samples.len();
    let received = |flow: &Flow, tick: usize| tick.checked_sub(1).map_or(0, |i| flow.samples[i.min(ticks - 1)].0);
    let at = |time: Duration| ((time.as_nanos() / TICK.as_nanos()) as usize).min(ticks);
    let all = |tick| world.flows.iter().map(|flow| received(flow, tick)).sum::<u64>() as f64;
    let over = |from: usize, until: usize| {
        let ideal = scenario.capacity(TICK * from as u32, TICK * until as u32);
        if ideal > 0.0 { (all(until) - all(from)) / ideal } else { 0.0 }
    };
    let total = all(ticks);
    let last_start = world.flows.iter().map(|flow| flow.start).max().unwrap_or_default();
    let settled = at(scenario.settled + last_start);
    let whole = match (scenario.bytes, world.flows[0].finished) {
        // To the nanosecond.
        (Some(bytes), Some(end)) => bytes as f64 / scenario.capacity(Duration::ZERO, end.saturating_since(START)),
        _ => over(0, ticks),
    };
    let fraction = if scenario.bytes.is_some() { whole } else { over(settled, ticks) };
    let time = if scenario.bytes.is_some() { Duration::ZERO } else { TICK * settled as u32 };
    let rate = scenario.capacity(time, TICK * ticks as u32) / (TICK * ticks as u32 - time).as_secs_f64();
    let shares: Vec<f64> =
        world.flows.iter().map(|flow| (received(flow, ticks) - received(flow, settled)) as f64).collect();
    let several = shares.len() > 1;
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let window = at(scenario.rtt().max(Duration::from_millis(100)));
    let filled = (window..=ticks).find(|tick| over(tick - window, *tick) >= FILLED);
    let resent: u64 = world.flows.iter_mut().map(|flow| flow.hosts[1].end.resent()).sum();
    let overflowed: u64 = world.flows.iter().flat_map(|flow| &flow.hosts).map(|host| host.overflowed).sum();
    let link = world.link();
    Figures {
        fraction,
        whole,
        mbps: fraction * rate * 8.0 / 1e6,
        resent: resent as f64 / (total + resent as f64).max(1.0),
        drops: link.lost_queue + link.lost_codel + overflowed,
        queue_ms: [world.waits.mean_ms(), world.waits.quantile_ms(0.95)],
        fill_s: filled.map(|tick| (TICK * tick as u32).as_secs_f64()),
        share: several.then(|| shares[0] / sum.max(1.0)),
        ended_s: world.flows.iter().find_map(|flow| Some(flow.ended.as_ref()?.0.as_secs_f64())),
        held_mb: (scenario.windows == Windows::Serve).then(|| world.flows[0].held as f64 / 1e6),
        jain: several.then(|| sum * sum / (squares.max(1.0) * shares.len() as f64)),
    }
}
