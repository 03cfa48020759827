//! Throughput on one CPU and on two: of engines that share nothing, and of the AEAD alone.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::machine;
use crate::Failure;
use crate::cores::{pin, round_trip_ns};
use crate::lab::apps::Placement;
use crate::parts::kernels::Bench;
use crate::parts::transfer::{Shape, Transfer};
use crate::run::Run;

/// Largest IP packet in bytes.
const MTU: u16 = 1500;

/// Time for both threads to be told when they are to begin.
const LEAD: Duration = Duration::from_millis(2);

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// A transfer between two engines: the same as in the part `packets`.
    Engine,
    /// The AEAD alone, on as many bytes.
    Aead,
}

/// Work for a time.
#[derive(Clone, Copy, Debug)]
struct Job {
    load: Load,
    begin: Instant,
    end: Instant,
}

/// A thread on a CPU of its own, with engines of its own.
struct Worker {
    jobs: Sender<Job>,
    rates: Receiver<Result<f64, Failure>>,
}

impl Worker {
    fn start(cpu: usize, span: usize) -> Self {
        let (jobs, orders) = channel();
        let (results, rates) = channel();
        thread::spawn(move || {
            pin(cpu);
            let mut bench = Rig::new(span);
            while let Ok(job) = orders.recv() {
                let rate = match &mut bench {
                    Ok(rig) => rig.rate(job),
                    Err(why) => Err(why.to_string().into()),
                };
                if results.send(rate).is_err() {
                    break;
                }
            }
        });
        Self { jobs, rates }
    }

    fn order(&self, job: Job) {
        // Without its thread, there is no result either.
        let _ = self.jobs.send(job);
    }

    fn rate(&self) -> Result<f64, Failure> {
        self.rates.recv().map_err(|_| "a measuring thread has panicked")?
    }
}

/// What a worker works with.
struct Rig {
    transfer: Transfer,
    kernels: Bench,
}

impl Rig {
    fn new(span: usize) -> Result<Self, Failure> {
        let shape = Shape { mtu: MTU, placement: Placement::Direct, span };
        Ok(Self { transfer: Transfer::new(shape)?, kernels: Bench::new(MTU, span)? })
    }

    /// Packets per second of wall-clock time: unlike CPU time, it would reveal threads that wait for each other.
    fn rate(&mut self, job: Job) -> Result<f64, Failure> {
        while Instant::now() < job.begin {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        let mut packets = 0;
        while Instant::now() < job.end {
            packets += match job.load {
                Load::Engine => {
                    let [before, _] = self.transfer.packets();
                    self.transfer.cycle();
                    let [after, _] = self.transfer.packets();
                    if after == before {
                        return Err("the transfer has stopped".into());
                    }
                    after - before
                }
                Load::Aead => self.kernels.round(),
            };
        }
        Ok(packets as f64 / start.elapsed().as_secs_f64())
    }
}

/// Rates on the first CPU alone, on the second alone, and on both at once, in packets per second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    alone: [f64; 2],
    together: [f64; 2],
}

impl Rates {
    /// How many times as much two CPUs do as one, which is the mean of the two.
    fn scaling(self) -> f64 {
        let [a, b] = self.alone;
        let [c, d] = self.together;
        2.0 * (c + d) / (a + b)
    }
}

fn rates(workers: &[Worker; 2], load: Load, time: Duration) -> Result<Rates, Failure> {
    let job = || {
        let begin = Instant::now() + LEAD;
        Job { load, begin, end: begin + time }
    };
    let alone = |worker: &Worker| {
        worker.order(job());
        worker.rate()
    };
    // What is measured together comes in the middle, so that a drift of the machine's speed cancels out.
    let first = alone(&workers[0])?;
    let both = job();
    workers.iter().for_each(|worker| worker.order(both));
    let together = [workers[0].rate()?, workers[1].rate()?];
    let second = alone(&workers[1])?;
    Ok(Rates { alone: [first, second], together })
}

/// Measures scaling.
///
/// # Errors
/// If there is no memory, or a transfer stops.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    let span = Shape::cold(run.scale);
    let time = Duration::from_millis(run.scale.pick(20, 200, 500));
    let workers = run.cores.map(|cpu| Worker::start(cpu, span));
    // Wait until both are ready.
    rates(&workers, Load::Engine, time / 10)?;
    for _ in 0..run.repeats {
        let engine = rates(&workers, Load::Engine, time)?;
        let aead = rates(&workers, Load::Aead, time)?;
        let mut add = |key: &str, value: f64| run.sheet.add(format!("cores.{key}"), value);
        add("engine_1_mpps", (engine.alone[0] + engine.alone[1]) / 2e6);
        add("engine_2_mpps", (engine.together[0] + engine.together[1]) / 1e6);
        add("engine_scaling", engine.scaling());
        add("aead_scaling", aead.scaling());
        add("scaling_vs_aead", engine.scaling() / aead.scaling());
    }
    drop(workers);
    if let Some(scaling) = run.sheet.median("cores.aead_scaling") {
        let claim = machine::siblings(run.cores[0]);
        run.note(machine::describe(run.cores, scaling, round_trip_ns(run.cores), claim.as_deref()));
    }
    let unit = "throughput of two CPUs divided by that of one";
    run.bar("engine", "cores.engine_scaling", unit);
    run.bar("AEAD alone", "cores.aead_scaling", unit);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_relative_to_the_mean_of_both() {
        let scaling = |alone, together| Rates { alone, together }.scaling();
        assert_eq!(scaling([2.0, 2.0], [2.0, 2.0]), 2.0);
        assert_eq!(scaling([2.0, 2.0], [1.0, 1.0]), 1.0);
        // One CPU is slower than the other; neither slows the other down.
        assert_eq!(scaling([1.0, 3.0], [1.0, 3.0]), 2.0);
    }

    #[test]
    fn both_loads_are_rated() {
        let mut rig = Rig::new(8 << 20).unwrap();
        for load in [Load::Engine, Load::Aead] {
            let begin = Instant::now();
            assert!(rig.rate(Job { load, begin, end: begin + Duration::from_millis(20) }).unwrap() > 0.0, "{load:?}");
        }
    }
}
