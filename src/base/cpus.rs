//! The CPUs that a thread may run on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that the calling thread may run on, in ascending order; none if the system does not tell.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Pins the calling thread to `cpu`. Threads that it starts afterwards inherit this.
///
/// # Errors
/// If there is no such CPU, or the process may not use it (for example because of its cgroup). The message names the CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| {
        let e = io::Error::from(e);
        io::Error::new(e.kind(), format!("cannot run on CPU {cpu}: {e}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_nowhere_else() {
        let before = allowed();
        let last = *before.last().expect("a CPU");
        let inside = std::thread::spawn(move || {
            pin(last).unwrap();
            allowed()
        });
        assert_eq!(inside.join().unwrap(), [last]);
        assert_eq!(allowed(), before, "other threads stay as they are");
    }

    #[test]
    fn cpus_that_do_not_exist_are_named() {
        let before = allowed();
        // The system allows 8,192 CPUs at most, and the set holds fewer.
        for cpu in [usize::MAX, CpuSet::MAX_CPU] {
            assert_eq!(pin(cpu).unwrap_err().to_string(), format!("there is no CPU {cpu}"));
        }
        if !before.contains(&(CpuSet::MAX_CPU - 1)) {
            let error = pin(CpuSet::MAX_CPU - 1).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot run on CPU {}: ", CpuSet::MAX_CPU - 1)), "{error}");
        }
        assert_eq!(allowed(), before);
    }
}
