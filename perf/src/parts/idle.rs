//! Idle modes of a poll loop: the latency of the first packet after a pause, and the effect of other tasks on the same
//! CPUs.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Failure;
use crate::parts::pair::{self, Keep, Places, Wire};
use crate::run::Run;
use crate::stop::StopOnDrop;

/// The modes, as named by `--idle`.
const MODES: [&str; 3] = ["spin", "yield", "sleep"];

/// Requests per second that leave both ends idle in between.
const RATE: &str = "200";

/// The number of tasks that constantly use a CPU, for each CPU that the two ends poll on.
const HOGS_PER_CPU: usize = 2;

/// For each mode: requests 5 ms apart, back-to-back requests, and a download while four tasks compete for the two CPUs.
///
/// # Errors
/// If a process fails.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    let seconds = run.scale.pick("0.3", "3", "10");
    let bytes: u64 = run.scale.pick(1 << 20, 64 << 20, 64 << 20);
    let places = Places::default();
    for _ in 0..run.repeats {
        let (mut first, mut crowded) = (Vec::new(), Vec::new());
        for mode in MODES {
            let keep = Keep { idle: mode, ..Keep::default() };
            let small = ["--upload", "56", "--download", "64", "--warmup", "300ms", "--duration", seconds];
            let apart: Vec<&str> = small.iter().copied().chain(["--rate", RATE]).collect();
            let ours = pair::gannet(run, &places, &Wire::Memif, 1500, &apart, keep)?;
            for name in ["p50", "p99"] {
                run.sheet.add(format!("idle.{mode}.first_{name}_us"), ours.get(&format!("latency_{name}_us"))?);
            }
            first.push(ours.get("latency_p50_us")?);
            let ours = pair::gannet(run, &places, &Wire::Memif, 1500, &small, keep)?;
            run.sheet.add(format!("idle.{mode}.rr_p50_us"), ours.get("latency_p50_us")?);
            let size = bytes.to_string();
            let ours = beside_hogs(|| pair::gannet(run, &places, &Wire::Memif, 1500, &["--download", &size], keep))?;
            let taken = bytes as f64 * 8.0 / 1e9 / ours.get("download_gbps")?;
            run.sheet.add(format!("idle.{mode}.crowded_s"), taken);
            crowded.push(taken);
        }
        run.sheet.add("idle.sleep_vs_spin_first", first[2] / first[0]);
        run.sheet.add("idle.spin_vs_sleep_crowded", crowded[0] / crowded[2]);
        run.sheet.add("idle.yield_vs_sleep_crowded", crowded[1] / crowded[2]);
    }
    for mode in MODES {
        run.bar(
            format!("--idle {mode}"),
            &format!("idle.{mode}.first_p50_us"),
            "µs, p50 of a request after a pause of 5 ms",
        );
    }
    for mode in MODES {
        run.bar(
            format!("--idle {mode}"),
            &format!("idle.{mode}.crowded_s"),
            "s for a download while 4 tasks compete for 2 CPUs",
        );
    }
    Ok(())
}

/// Does `work` while other tasks compete for the CPUs.
fn beside_hogs<T>(work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 * HOGS_PER_CPU {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hogs_end_with_what_they_disturb_even_if_it_panics() {
        assert_eq!(beside_hogs(|| 5), 5);
        // If they went on, this would never return.
        assert!(std::panic::catch_unwind(|| beside_hogs(|| panic!("on purpose"))).is_err());
    }
}
