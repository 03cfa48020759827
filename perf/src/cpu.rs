//! The time that this thread has had a CPU: what others on the machine take does not count.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread so far. Asking takes some 200 ns.
pub fn time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_takes_no_time() {
        let start = time();
        std::thread::sleep(Duration::from_millis(50));
        let slept = time();
        assert!(slept - start < Duration::from_millis(50));
        // Work does.
        let mut n = 0u64;
        while time() - slept < Duration::from_millis(5) {
            n += 1;
        }
        assert!(n > 0);
    }
}
