//! The time of a packet in the engine, by its own stage timers.

use gannet::report::read_hdr_log;

use crate::Failure;
use crate::parts::pair::{self, Keep, Places, Wire};
use crate::run::Run;

/// Measures a bulk transfer and small requests with timers at both ends. Timers cost some 100 ns per packet, so only
/// the proportions of stages count; `packets` has the total.
///
/// # Errors
/// If a process fails.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    let seconds = run.scale.pick("0.3", "2", "5");
    let bulk = ["--download", "1G", "--duration", seconds];
    let requests = ["--upload", "56", "--download", "64", "--duration", seconds];
    for (job, load) in [("bulk", &bulk[..]), ("rr", &requests[..])] {
        let files = ["server", "client"].map(|side| run.out.join(format!("stages-{job}-{side}.hdr")));
        let keep = Keep { stages: Some([&files[0], &files[1]]), ..Keep::default() };
        pair::gannet(run, &Places::default(), &Wire::Memif, 1500, load, keep)?;
        for (side, file) in ["server", "client"].iter().zip(&files) {
            let unit = format!("ns by the engine's stage timers, means: {job}, {side}");
            for series in read_hdr_log(file)?.series {
                let key = format!("stages_{job}_{side}.{}", series.name);
                // The counter's resolution may be as low as 10 ns, so means are finer than medians.
                let summary = series.latency.summary();
                run.sheet.add(format!("{key}_mean_ns"), summary.mean);
                if let Some(p99) = summary.p99 {
                    run.sheet.add(format!("{key}_p99_ns"), p99 as f64);
                }
                run.bar(series.name, &format!("{key}_mean_ns"), &unit);
            }
        }
    }
    Ok(())
}
