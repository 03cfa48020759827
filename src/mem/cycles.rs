//! The time stamp counter: what it costs to look at a clock is less than what is to be measured.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is held against the system's clock to learn its rate.
const CALIBRATION: Duration = Duration::from_millis(20);

/// The time stamp counter of this CPU. It runs at a constant rate, [`cycles_per_ns`], on every x86-64 CPU that has VAES
/// or is otherwise younger than 2008; elsewhere it counts nanoseconds. It is not serialising: what is around the call
/// may overlap it by some ten instructions.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: RDTSC is part of x86-64 and touches no memory; Linux leaves it to user space.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    return origin().elapsed().as_nanos() as u64;
}

/// How many [`cycles`] there are in a nanosecond. The first call takes 20 ms.
pub fn cycles_per_ns() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (start, from) = (Instant::now(), cycles());
        std::thread::sleep(CALIBRATION);
        let (passed, to) = (start.elapsed(), cycles());
        (to.wrapping_sub(from) as f64 / passed.as_nanos() as f64).max(f64::MIN_POSITIVE)
    })
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_keeps_time() {
        let rate = cycles_per_ns();
        let (start, from) = (Instant::now(), cycles());
        while start.elapsed() < Duration::from_millis(5) {}
        let counted = (cycles() - from) as f64 / rate;
        // Whoever is taken off the CPU between the two clocks sees them differ, but both go on.
        assert!(counted >= 4_500_000.0, "{counted} ns of at least 5 ms");
        assert!((0.1..20.0).contains(&rate), "{rate} GHz");
    }
}
