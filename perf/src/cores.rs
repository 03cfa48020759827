//! The CPUs in use, and the distance between them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use gannet::base::cpus;

/// The number of timed round trips.
const ROUNDS: u64 = 20_000;

/// A number on a cache line of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// The first two CPUs that this process may use; the same one twice if there is only one.
pub fn cores() -> [usize; 2] {
    let cpus = cpus::allowed();
    let server = cpus.first().copied().unwrap_or(0);
    [server, cpus.get(1).copied().unwrap_or(server)]
}

/// Pins the calling thread to a CPU.
pub fn pin(cpu: usize) {
    if let Err(error) = cpus::pin(cpu) {
        eprintln!("warning: {error}");
    }
}

/// The round-trip time of a cache line between two CPUs in ns: some 80 within a group of cores that share a cache,
/// several hundred between groups. On a virtual machine this depends on the host, and may change at any time.
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
                // The first ones wait for the other thread to start.
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

/// Yields while it waits, as both threads may share a CPU.
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
        let ns = round_trip_ns(cores());
        assert!(ns > 0.0 && ns.is_finite(), "{ns}");
    }
}
