//! Which CPUs are used, and how far apart they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Round trips that are timed.
const ROUNDS: u64 = 20_000;

/// A number on cache lines of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// The first two CPUs that we may run on; one for both if there is only one.
pub fn cores() -> [usize; 2] {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let server = ids.first().map_or(0, |id| id.id);
    [server, ids.get(1).map_or(server, |id| id.id)]
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        eprintln!("warning: cannot run on CPU {cpu}");
    }
}

/// How long a cache line takes from one CPU to the other and back, ns: some 80 within a group of cores that share a
/// cache, several hundred from one group to another. On a virtual machine it is the host who decides, and decides anew
/// whenever it likes.
pub fn round_trip_ns(cores: [usize; 2]) -> f64 {
    let line = Line(AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores[1]);
            for turn in 0..ROUNDS {
                await_value(&line.0, 2 * turn + 1);
                line.0.store(2 * turn + 2, Ordering::Release);
            }
        });
        let ping = scope.spawn(|| {
            pin(cores[0]);
            let mut start = Instant::now();
            for turn in 0..ROUNDS {
                // The first ones wait for the other thread to be there.
                if turn == ROUNDS / 10 {
                    start = Instant::now();
                }
                line.0.store(2 * turn + 1, Ordering::Release);
                await_value(&line.0, 2 * turn + 2);
            }
            start.elapsed().as_nanos() as f64 / (ROUNDS - ROUNDS / 10) as f64
        });
        ping.join().unwrap_or(f64::NAN)
    })
}

/// Both may have to share one CPU: then each lets the other run.
fn await_value(line: &AtomicU64, value: u64) {
    let mut looks = 0u32;
    while line.load(Ordering::Acquire) != value {
        looks += 1;
        if looks.is_multiple_of(1 << 12) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back() {
        let ids: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|id| id.id).collect();
        let first = ids.first().copied().unwrap_or(0);
        let ns = round_trip_ns([first, ids.get(1).copied().unwrap_or(first)]);
        assert!(ns > 0.0 && ns.is_finite(), "{ns}");
    }
}
