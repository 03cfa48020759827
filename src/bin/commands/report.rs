//! `gannet report`: histogram logs to one HTML page, and a table on the terminal.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gannet::report::file::{WriteError, write_atomically};
use gannet::report::{HdrLog, HdrLogError, ReportInput, html, read_hdr_log, text};

use crate::args::ReportArgs;
use crate::output::print;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// An input cannot be read.
    #[error(transparent)]
    Read(#[from] HdrLogError),
    /// The page cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The output is an input.
    #[error("{} is an input and would be overwritten: choose another name with -o", .0.display())]
    Overwrite(PathBuf),
    /// The terminal or pipe is gone.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Writes the page that `args` asks for, and prints the table.
///
/// # Errors
/// When an input cannot be used, or the page cannot be written. There is no page then, or the old one.
pub fn run(args: &ReportArgs) -> Result<(), ReportError> {
    let mut table = Vec::new();
    run_to(args, &mut table)?;
    print(&String::from_utf8_lossy(&table));
    Ok(())
}

fn run_to(args: &ReportArgs, out: &mut impl Write) -> Result<(), ReportError> {
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if args.files.iter().any(|f| same(f, &args.output)) {
        return Err(ReportError::Overwrite(args.output.clone()));
    }
    let logs = args.files.iter().map(|f| read_hdr_log(f)).collect::<Result<Vec<_>, _>>()?;
    let input = combine(&args.title, &labels(&args.files), logs);
    write_atomically(&args.output, html::render(&input).as_bytes())?;
    write!(out, "{}\n{}\n", text::summary_table(&input.series), args.output.display())?;
    Ok(())
}

/// A short name for each file: its stem, or the path where stems are the same.
fn labels(files: &[PathBuf]) -> Vec<String> {
    let stem = |f: &PathBuf| f.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let stems: Vec<String> = files.iter().map(stem).collect();
    if repeated(stems.iter().cloned()).is_empty() {
        stems
    } else {
        files.iter().map(|f| f.display().to_string()).collect()
    }
}

/// What occurs more than once.
fn repeated<T: Clone + Eq + std::hash::Hash>(all: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    all.filter(|x| !seen.insert(x.clone())).collect()
}

/// All logs in one report. Names that several files use get the file's label; facts that all agree on appear once.
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
    let mut input = ReportInput { title: title.into(), facts, ..ReportInput::default() };
    for (log, label) in logs.into_iter().zip(labels) {
        input.series.extend(log.series.into_iter().map(|mut s| {
            if names.contains(&s.name) {
                s.name = format!("{} ({label})", s.name);
            }
            s
        }));
        input.throughput.extend(log.throughput.into_iter().map(|mut b| {
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
            throughput: vec![Bar { label: "down".into(), value: 1.0, unit: "Gbit/s".into() }],
            series: names.iter().map(|n| Series::new(*n, l.clone())).collect(),
        }
    }

    fn args(files: &[&Path], output: &Path) -> ReportArgs {
        ReportArgs { files: files.iter().map(PathBuf::from).collect(), output: output.into(), title: "T".into() }
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
