//! Requests and answers between a client and two cores, at the right core and at the wrong one.
//!
//! The client shares the first CPU with core 0, and core 1 has the second. On the way to a connection of core 0 and back,
//! a request and its answer never change CPUs; if the request arrives at core 1, it does so twice. With a connection of
//! core 1, they change CPUs twice in either case: with the request or with the hand-over, and with the answer. So on the
//! average of both connections, which is what the figures are, a request at the wrong core takes the one step from CPU to
//! CPU more that it would take with a client on another machine.

use gannet::mem::cycles_per_ns;

use crate::Failure;
use crate::lab::group::{Pair, Ports};
use crate::run::Run;
use crate::stats::Stat;

/// The size of a request, and of its answer, in bytes.
const MESSAGE: usize = 64;

static MESSAGE_BYTES: [u8; MESSAGE] = [0x5a; MESSAGE];

/// The number of connections of core 1 whose requests arrive at the same time.
const BURST: usize = 32;

/// The quantiles that are recorded, with their names.
const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p99", 0.99)];

/// Measures latencies, and the cost of bursts.
///
/// # Errors
/// If the cores cannot be created, or requests are not answered.
pub fn measure(run: &mut Run, ports: Ports) -> Result<(), Failure> {
    let cpus = run.cores;
    Pair::run(ports, cpus, &MESSAGE_BYTES, |pair| {
        pair.connect(0, 1)?;
        pair.connect(1, BURST)?;
        check(pair)?;
        for _ in 0..run.repeats {
            latencies(run, pair)?;
            bursts(run, pair)?;
        }
        Ok(())
    })?;
    let unit = "us, one request at a time, p50";
    run.bar("at the right core", "cores.right_core_p50_us", unit);
    run.bar("at the wrong core", "cores.wrong_core_p50_us", unit);
    Ok(())
}

/// How often a request may be accompanied by a delayed acknowledgement of the other connection, which takes its way. That
/// happens if a CPU was busy with something else.
const CHANCES: usize = 20;

/// Makes sure that requests take the ways that they are meant to take.
fn check(pair: &mut Pair<'_>) -> Result<(), Failure> {
    for (owner, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let meant = [(owner, to) == (1, 0), (owner, to) == (0, 1)];
        let mut takes_it = false;
        for _ in 0..CHANCES {
            let before = [pair.handed_over(), pair.taken_over()];
            pair.ask(owner, 1, to)?;
            takes_it |= [pair.handed_over() > before[0], pair.taken_over() > before[1]] == meant;
        }
        if !takes_it {
            return Err(format!("a request to core {owner} by core {to} took another way").into());
        }
    }
    Ok(())
}

/// One request at a time, on a connection of each core in turn.
fn latencies(run: &mut Run, pair: &mut Pair<'_>) -> Result<(), Failure> {
    let count = run.scale.pick(50, 20_000, 100_000);
    // By the right core (0) or the wrong one (1), then by the core of the connection.
    let mut samples = <[[Vec<u64>; 2]; 2]>::default();
    for _ in 0..count {
        for owner in [0, 1] {
            for wrong in [0, 1] {
                samples[wrong][owner].push(pair.ask(owner, 1, owner ^ wrong)?);
            }
        }
    }
    for (name, mut samples) in ["right_core", "wrong_core"].into_iter().zip(samples) {
        for (quantile, part) in QUANTILES {
            let [near, far] = samples.each_mut().map(|samples| at(samples, part) as f64 / cycles_per_ns() / 1000.0);
            run.sheet.add(format!("cores.{name}_{quantile}_us"), (near + far) / 2.0);
            if quantile == "p50" {
                run.sheet.add(format!("cores.{name}_0_{quantile}_us"), near);
                run.sheet.add(format!("cores.{name}_1_{quantile}_us"), far);
            }
        }
    }
    Ok(())
}

/// Requests on as many connections of core 1 as a burst has packets: how much more time both cores need if all of them
/// arrive at core 0. This includes what is done twice, such as parsing headers, and reading frames that are in the other
/// CPU's cache.
fn bursts(run: &mut Run, pair: &mut Pair<'_>) -> Result<(), Failure> {
    let count = run.scale.pick(5, 100, 100);
    let rounds = run.scale.pick(3, 31, 101);
    // By the right core or the wrong one, then by where the time is spent.
    let mut ns = <[[Vec<f64>; 2]; 2]>::default();
    for _ in 0..rounds {
        for (to, ns) in [1, 0].into_iter().zip(&mut ns) {
            let before = pair.spent();
            for _ in 0..count {
                pair.ask(1, BURST, to)?;
            }
            let after = pair.spent();
            for ((ns, before), after) in ns.iter_mut().zip(before).zip(after) {
                ns.push((after - before) as f64 / cycles_per_ns() / (count * BURST) as f64);
            }
        }
    }
    let [[_, right], [give, take]] = ns.map(|ns| ns.map(|ns| Stat::of(&ns).map_or(f64::NAN, |stat| stat.median)));
    run.sheet.add("cores.right_core_ns", right);
    run.sheet.add("cores.wrong_core_ns", give + take);
    // What the core that received it spends, and what the core of its connection spends more than for one of its own.
    run.sheet.add("cores.wrong_core_give_ns", give);
    run.sheet.add("cores.wrong_core_take_ns", take - right);
    run.sheet.add("cores.wrong_core_extra_ns", give + take - right);
    Ok(())
}

/// The smallest sample that at least this part of all samples does not exceed; 0 without samples. Reorders them.
fn at(samples: &mut [u64], part: f64) -> u64 {
    let rank = ((samples.len() as f64 * part).ceil() as usize).clamp(1, samples.len().max(1)) - 1;
    if samples.is_empty() { 0 } else { *samples.select_nth_unstable(rank).1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let mut samples: Vec<u64> = (1..=100).rev().collect();
        assert_eq!([0.5, 0.99, 1.0, 0.0, 0.001].map(|part| at(&mut samples, part)), [50, 99, 100, 1, 1]);
        assert_eq!((at(&mut [7], 0.5), at(&mut [7], 0.99), at(&mut [], 0.5)), (7, 7, 0));
        assert_eq!(at(&mut [3, 1, 2], 0.5), 2);
    }

    #[test]
    fn requests_take_the_way_they_are_meant_to_take() {
        // DPDK is started here and nowhere else in these tests.
        let [a, b] = crate::cores::cores();
        Pair::run(Ports::open().unwrap(), [a, b], &MESSAGE_BYTES, |pair| {
            pair.connect(0, 1)?;
            pair.connect(1, BURST)?;
            check(pair)?;
            let before = (pair.handed_over(), pair.spent());
            pair.ask(1, BURST, 0)?;
            assert!(pair.handed_over() - before.0 >= BURST as u64);
            let after = pair.spent();
            assert!(after[0] > before.1[0] && after[1] > before.1[1], "both cores had work: {before:?}, {after:?}");
            Ok(())
        })
        .unwrap();
    }
}
