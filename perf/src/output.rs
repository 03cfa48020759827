//! Output: the table, the JSON file and the HTML page.

use std::path::Path;
use std::time::SystemTime;

use gannet::report::file::write_atomically;
use gannet::report::{HdrLog, ReportInput, Series, html, machine, read_hdr_log, write_hdr_log};

use crate::Failure;
use crate::goals;
use crate::run::Run;

/// Facts about the machine and the run, without which figures mean little.
pub fn fingerprint(run: &Run) -> Vec<(String, String)> {
    let mut facts = machine::facts(Path::new("/"), None);
    let mut fact = |key: &str, value: String| facts.push((key.into(), value));
    fact("Crypto", gannet::crypto::backend_name().into());
    fact("Scale", format!("{:?}, {} repeats, medians", run.scale, run.repeats));
    fact("CPUs", format!("server {}, client {}", run.cores[0], run.cores[1]));
    let load = machine::load(Path::new("/"));
    fact("Load average at the end", load.average.map(|n| format!("{n:.2}")).join(" "));
    let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fact("Seconds since 1970", date.as_secs().to_string());
    for note in &run.notes {
        fact("Note", note.clone());
    }
    facts
}

/// Writes the JSON file, if requested, and the page.
///
/// # Errors
/// If a file cannot be written.
pub fn write(run: &Run) -> Result<(), Failure> {
    let mut results = run.sheet.to_json();
    results["run"] = serde_json::to_value(machine::origin(Path::new("/"), None))?;
    let json = format!("{results:#}\n");
    write_atomically(&run.out.join("results.json"), json.as_bytes())?;
    if let Some(path) = &run.args.json {
        write_atomically(path, json.as_bytes())?;
    }
    let mut facts = fingerprint(run);
    let goals = run.sheet.stats().filter_map(|(key, stat)| {
        let met = if goals::goal(key)?.is_met(stat.median) { "met" } else { "missed" };
        let (median, min, max) = (goals::number(stat.median), goals::number(stat.min), goals::number(stat.max));
        Some((key.to_owned(), format!("{median} ({min} to {max}): goal {met}")))
    });
    facts.extend(goals);
    let page = html::render(&ReportInput {
        title: "Gannet benchmarks".into(),
        series: run.series.clone(),
        throughput: run.bars.clone(),
        facts,
    });
    write_atomically(&run.out.join("report.html"), page.as_bytes())?;
    Ok(())
}

/// Prints the fingerprint and the table.
pub fn print(run: &Run) {
    for (key, value) in fingerprint(run) {
        println!("{key}: {value}");
    }
    println!("\n{}", goals::table(&run.sheet.without("wan.")));
    println!("report: {}", run.out.join("report.html").display());
}

/// Adds the latencies of a histogram file to the report under `name`; repeats are merged.
///
/// # Errors
/// If the file cannot be read.
pub fn add_series(run: &mut Run, name: &str, path: &Path) -> Result<(), Failure> {
    for series in read_hdr_log(path)?.series.into_iter().filter(|s| s.name == "request") {
        match run.series.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                known.latency.merge(&series.latency);
                known.duration += series.duration;
            }
            None => run.series.push(Series { name: name.into(), ..series }),
        }
    }
    Ok(())
}

/// Writes a series to a histogram file.
///
/// # Errors
/// If the file cannot be written.
pub fn keep_series(path: &Path, series: Series) -> Result<(), Failure> {
    write_hdr_log(path, &HdrLog { series: vec![series], ..HdrLog::default() })?;
    Ok(())
}
