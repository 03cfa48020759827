//! Results of the stage timers.

use std::path::Path;
use std::time::SystemTime;

use gannet::report::{HdrLog, Series, machine, text, write_hdr_log};
use gannet::runtime::{Stage, Stages};

use super::Failure;
use crate::terminal;

/// Writes the histograms of each core to `path`, and prints a table of them unless `quiet`. Those of several cores are
/// named after their cores.
///
/// # Errors
/// If the file cannot be written.
pub fn keep(path: &Path, cores: &[Stages], start: SystemTime, port: String, quiet: bool) -> Result<(), Failure> {
    let duration = start.elapsed().unwrap_or_default();
    let name = |core: usize, stage: &str| {
        if cores.len() == 1 { stage.to_owned() } else { format!("core {core}: {stage}") }
    };
    let of_core = |(core, stages): (usize, &Stages)| {
        Stage::ALL.map(|(stage, stage_name)| {
            Series::new(name(core, stage_name), stages.latency(stage).clone()).recorded(start, duration)
        })
    };
    let all = cores.iter().enumerate().flat_map(of_core);
    let series: Vec<Series> = all.filter(|series| series.latency.count() > 0).collect();
    if !quiet {
        terminal::tell(&text::summary_table(&series));
    }
    if series.is_empty() {
        return Err(
            format!("no packets were received or sent: there are no stages to write to {}", path.display()).into()
        );
    }
    let mut facts = machine::facts(Path::new("/"), None);
    facts.push(("Port".into(), port));
    write_hdr_log(path, &HdrLog { facts, throughput: Vec::new(), series })?;
    Ok(())
}
