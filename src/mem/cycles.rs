//! The time stamp counter, which is cheaper to read than the clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is compared with the system's clock to determine its rate.
const CALIBRATION: Duration = Duration::from_millis(20);

/// Reads the time stamp counter of this CPU. It runs at a constant rate, [`cycles_per_ns`], on all x86-64 CPUs made
/// after 2008; on other architectures, nanoseconds are counted. It is not serialising: about ten instructions around
/// the call may overlap it.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: RDTSC is part of x86-64 and accesses no memory; Linux allows it in user space.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    return origin().elapsed().as_nanos() as u64;
}

/// The number of [`cycles`] per nanosecond. The first call takes 20 ms.
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
        // If the thread is preempted between the two readings they differ, but both go on.
        assert!(counted >= 4_500_000.0, "{counted} ns of at least 5 ms");
        assert!((0.1..20.0).contains(&rate), "{rate} GHz");
    }
}
