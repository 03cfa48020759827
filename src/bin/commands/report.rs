//! `gannet report`: turns histogram logs into one HTML page, a table, CSV or JSON.

mod export;

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gannet::report::file::{WriteError, write_atomically};
use gannet::report::{HdrLog, HdrLogError, ReportInput, html, read_hdr_log, text};

use super::origin::origin;
use crate::args::{ReportArgs, ReportFormat};
use crate::output::print;

/// The reason why no report was written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// An input cannot be read.
    #[error(transparent)]
    Read(#[from] HdrLogError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The output file is also an input.
    #[error("{} is an input and would be overwritten: choose another name with -o", .0.display())]
    Overwrite(PathBuf),
    /// The series cannot be written as CSV.
    #[error("cannot write CSV: {0}")]
    Csv(#[from] csv::Error),
    /// Standard output cannot be written to.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Writes the report that `args` asks for.
///
/// # Errors
/// If an input cannot be used or the output cannot be written. An existing file then stays as it was.
pub fn run(args: &ReportArgs) -> Result<(), ReportError> {
    let mut text = Vec::new();
    run_to(args, &mut text)?;
    print(&String::from_utf8_lossy(&text));
    Ok(())
}

/// Like [`run`]; output without a file goes to `out`.
fn run_to(args: &ReportArgs, out: &mut impl Write) -> Result<(), ReportError> {
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    let page = (args.format == ReportFormat::Html).then(|| PathBuf::from("report.html"));
    let output = args.output.clone().or(page);
    if let Some(output) = output.as_ref().filter(|output| args.files.iter().any(|f| same(f, output))) {
        return Err(ReportError::Overwrite(output.clone()));
    }
    let logs = args.files.iter().map(|f| read_hdr_log(f)).collect::<Result<Vec<_>, _>>()?;
    let input = combine(&args.title, &labels(&args.files), logs);
    let table = text::summary_table(&input.series);
    let content = match args.format {
        ReportFormat::Html => html::render(&input),
        ReportFormat::Text => table.clone(),
        ReportFormat::Csv => export::csv(&input.series)?,
        ReportFormat::Json => export::json(&input, origin()),
    };
    match output {
        Some(path) => {
            write_atomically(&path, content.as_bytes())?;
            write!(out, "{table}\n{}\n", path.display())?;
        }
        None => out.write_all(content.as_bytes())?,
    }
    Ok(())
}

/// A short label for each file: its stem, or its path if stems are not unique.
fn labels(files: &[PathBuf]) -> Vec<String> {
    let stem = |f: &PathBuf| f.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let stems: Vec<String> = files.iter().map(stem).collect();
    if repeated(stems.iter().cloned()).is_empty() {
        stems
    } else {
        files.iter().map(|f| f.display().to_string()).collect()
    }
}

/// The values that occur more than once.
fn repeated<T: Clone + Eq + std::hash::Hash>(all: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    all.filter(|x| !seen.insert(x.clone())).collect()
}

/// Combines all logs into one report. Names used by several files get the file's label; facts that all agree on appear
/// once.
fn combine(title: &str, labels: &[String], logs: Vec<HdrLog>) -> ReportInput {
    let names = repeated(logs.iter().flat_map(|l| l.series.iter().map(|s| s.name.clone())));
    let bars = repeated(logs.iter().flat_map(|l| l.throughput.iter().map(|b| (b.unit.clone(), b.label.clone()))));
    let mut facts: Vec<(String, String)> = Vec::new();
    for (log, label) in logs.iter().zip(labels) {
        for fact in &log.facts {
            let common = logs.iter().all(|l| l.facts.contains(fact));
            let key = if common || logs.len() == 1 { fact.0.clone() } else { format!("{} ({label})", fact.0) };
            let fact = (key, fact.1.clone());
            if !facts.contains(&fact) {
                facts.push(fact);
            }
        }
    }
    let several = logs.len() > 1;
    let mut input = ReportInput { title: title.into(), facts, ..ReportInput::default() };
    for (log, label) in logs.into_iter().zip(labels) {
        input.series.extend(log.series.into_iter().map(|mut s| {
            if names.contains(&s.name) {
                s.name = format!("{} ({label})", s.name);
            }
            s
        }));
        input.throughput.extend(log.throughput.into_iter().map(|mut b| {
            // Each file is a run of its own, with its own throughput.
            if several {
                b.stack.clone_from(label);
            }
            if bars.contains(&(b.unit.clone(), b.label.clone())) {
                b.label = format!("{} ({label})", b.label);
            }
            b
        }));
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;
    use gannet::report::{Bar, Latency, Series, write_hdr_log};

    fn log(cpu: &str, names: &[&str]) -> HdrLog {
        let mut l = Latency::new();
        (1..100).for_each(|n| l.record(n * 1000));
        HdrLog {
            facts: vec![("CPU".into(), cpu.into()), ("Kernel".into(), "K".into())],
            throughput: vec![Bar { spread: Some((0.5, 2.0)), ..Bar::new("down", 1.0, "Gbit/s") }],
            series: names.iter().map(|n| Series::new(*n, l.clone())).collect(),
        }
    }

    fn args(files: &[&Path], output: &Path) -> ReportArgs {
        let files = files.iter().map(PathBuf::from).collect();
        ReportArgs { files, format: ReportFormat::Html, output: Some(output.into()), title: "T".into() }
    }

    #[test]
    fn other_formats_go_to_standard_output_or_to_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, file) = (dir.path().join("a.hdr"), dir.path().join("out"));
        write_hdr_log(&a, &log("X", &["rtt, \"quoted\"", "other"])).unwrap();
        let made = |format, output: Option<&Path>| {
            let mut out = Vec::new();
            let args = ReportArgs { format, output: output.map(PathBuf::from), ..args(&[&a], &file) };
            run_to(&args, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let csv = made(ReportFormat::Csv, None);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], "series,count,min_ns,mean_ns,p50_ns,p90_ns,p99_ns,p999_ns,p9999_ns,max_ns,seconds");
        // 99 samples do not support a 99th percentile.
        assert!(lines[1].starts_with("\"rtt, \"\"quoted\"\"\",99,1000,"), "{csv}");
        assert_eq!(lines[1].split(',').rev().take(5).collect::<Vec<_>>()[1..], ["99007", "", "", ""], "{csv}");
        let json: serde_json::Value = serde_json::from_str(&made(ReportFormat::Json, None)).unwrap();
        assert_eq!(json["series"][1]["name"], "other");
        assert_eq!(json["series"][1]["latency_ns"]["count"], 99);
        assert!(json["series"][1]["latency_ns"]["min"].is_u64() && json["series"][1]["latency_ns"]["p99"].is_null());
        assert_eq!(json["throughput"][0]["max"], 2.0);
        assert_eq!(json["facts"]["CPU"], "X");
        assert!(json["run"]["version"].is_string() && json["run"]["load"]["average"].is_array());
        let text = made(ReportFormat::Text, None);
        assert!(text.starts_with("series") && text.lines().count() == 3, "{text}");
        assert!(made(ReportFormat::Csv, Some(&file)).contains("out"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), csv);
    }

    #[test]
    fn several_files_make_one_page_with_distinct_names() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, page) = (dir.path().join("a.hdr"), dir.path().join("b.hdr"), dir.path().join("r.html"));
        write_hdr_log(&a, &log("X", &["rtt", "only a"])).unwrap();
        write_hdr_log(&b, &log("Y", &["rtt"])).unwrap();
        let mut out = Vec::new();
        run_to(&args(&[&a, &b], &page), &mut out).unwrap();
        let (out, html) = (String::from_utf8(out).unwrap(), std::fs::read_to_string(&page).unwrap());
        for part in ["rtt (a)", "rtt (b)", "only a ", "p99.9", "r.html"] {
            assert!(out.contains(part), "{part} is not in {out}");
        }
        for part in ["CPU (a)", "CPU (b)", "<dt>Kernel</dt>", "down (a)", "rtt (b)", "<h1>T</h1>"] {
            assert!(html.contains(part), "{part} is not on the page");
        }
        assert_eq!(html.matches("<dt>Kernel").count(), 1);
    }

    #[test]
    fn bad_input_leaves_no_page() {
        let dir = tempfile::tempdir().unwrap();
        let (good, bad, page) = (dir.path().join("a.hdr"), dir.path().join("bad.hdr"), dir.path().join("r.html"));
        write_hdr_log(&good, &log("X", &["rtt"])).unwrap();
        std::fs::write(&bad, "nonsense\n").unwrap();
        let why =
            |files: &[&Path], output: &Path| run_to(&args(files, output), &mut Vec::new()).unwrap_err().to_string();
        assert!(why(&[&good, &bad], &page).contains("bad.hdr:1"));
        assert!(why(&[&good, &dir.path().join("gone.hdr")], &page).contains("gone.hdr"));
        assert!(!page.exists());
        let e = why(&[&good], &dir.path().join("x/../a.hdr"));
        assert!(e.contains("a.hdr"), "{e}");
        assert!(why(&[&good], &good).contains("would be overwritten"));
        assert!(read_hdr_log(&good).is_ok());
        assert!(why(&[&good], dir.path()).contains("name of a file"));
    }

    #[test]
    fn files_with_the_same_stem_go_by_their_path() {
        assert_eq!(labels(&["a/x.hdr".into(), "y.hdr".into()]), ["x", "y"]);
        assert_eq!(labels(&["a/x.hdr".into(), "b/x.hdr".into()]), ["a/x.hdr", "b/x.hdr"]);
    }
}
