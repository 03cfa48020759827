//! Small requests: their latency one at a time, and how many a core answers.

use crate::Failure;
use crate::cli::PeerKind;
use crate::output::add_series;
use crate::parts::pair::{self, Keep, Places, Wire};
use crate::process::value;
use crate::run::Run;

/// The number of connections of the pipelined load.
const CONNECTIONS: &str = "64";

/// The number of requests in flight on each.
const STREAMS: &str = "32";

/// 64 B up (including the 8 of the size field), 64 B down, one at a time, over memif; the same with quinn over
/// loopback.
///
/// # Errors
/// If a process fails.
pub fn round_trips(run: &mut Run) -> Result<(), Failure> {
    let seconds = run.scale.pick("0.3", "5", "15");
    let places = Places::default();
    for repeat in 0..run.repeats {
        let hdr = run.out.join(format!("rr-{repeat}.hdr"));
        let load = ["--upload", "56", "--download", "64", "--warmup", "500ms", "--duration", seconds];
        let ours = pair::gannet(run, &places, &Wire::Memif, 1500, &load, Keep::hdr(&hdr))?;
        add_series(run, "Gannet, memif, 64 B / 64 B", &hdr)?;
        for name in ["p50", "p99", "p999"] {
            run.sheet.add(format!("rr.{name}_us"), ours.get(&format!("latency_{name}_us"))?);
        }
        let hdr = run.out.join(format!("rr-quinn-{repeat}.hdr"));
        let load = ["--upload", "56", "--download", "64", "--duration", seconds];
        let quinn = pair::peer(run, &places, PeerKind::Quinn, 1500, &load, Some(&hdr))?;
        add_series(run, "quinn, loopback, 64 B / 64 B", &hdr)?;
        for name in ["p50", "p99", "p999"] {
            run.sheet.add(format!("rr.quinn_{name}_us"), value(&quinn, &format!("latency_{name}_us"))?);
        }
        let p50 = value(&quinn, "latency_p50_us")?;
        run.sheet.add("rr.vs_quinn", p50 / ours.get("latency_p50_us")?);
    }
    Ok(())
}

/// 64 connections with many requests in flight on each.
///
/// # Errors
/// If a process fails.
pub fn pipelined(run: &mut Run) -> Result<(), Failure> {
    let seconds = run.scale.pick("0.3", "4", "10");
    for repeat in 0..run.repeats {
        let hdr = run.out.join(format!("rps-{repeat}.hdr"));
        let mut load = vec!["--upload", "56", "--download", "64", "--warmup", "500ms", "--duration", seconds];
        load.extend(["--connections", CONNECTIONS, "--streams", STREAMS]);
        let ours = pair::gannet(run, &Places::default(), &Wire::Memif, 1500, &load, Keep::hdr(&hdr))?;
        add_series(run, "Gannet, memif, 64 x 32 requests in flight", &hdr)?;
        run.sheet.add("rps_1core.krps", ours.get("requests_per_second")? / 1000.0);
    }
    run.bar_of("Gannet", "rps_1core.krps", 1000.0, "requests/s, one server core");
    Ok(())
}
