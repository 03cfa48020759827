//! Results of the stage timers.

use std::path::Path;
use std::time::SystemTime;

use gannet::report::{HdrLog, Series, machine, text, write_hdr_log};
use gannet::runtime::{Stage, Stages};

use super::Failure;
use crate::terminal;

/// Writes the histograms to `path`, and prints a table of them unless `quiet`.
///
/// # Errors
/// If the file cannot be written.
pub fn keep(path: &Path, stages: &Stages, start: SystemTime, port: String, quiet: bool) -> Result<(), Failure> {
    let duration = start.elapsed().unwrap_or_default();
    let series: Vec<Series> = Stage::ALL
        .iter()
        .map(|(stage, name)| Series::new(*name, stages.latency(*stage).clone()).recorded(start, duration))
        .filter(|series| series.latency.count() > 0)
        .collect();
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
