//! The table: printed, put into the sheet, recorded, and held against what was recorded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gannet::report::file::write_atomically;
use serde_json::Value;

use super::cell::Figures;
use super::scenario::Scenario;
use super::stack::Stack;
use crate::Failure;

/// The relative change of a figure that is still the same, as numbers in the last place may differ.
const TOLERANCE: f64 = 0.03;

/// The figures that are recorded, and the absolute change that means nothing.
const RECORDED: [(&str, f64); 8] = [
    ("fraction", 0.003),
    ("resent", 0.002),
    ("drops", 20.0),
    ("queue_ms", 0.3),
    ("fill_s", 0.03),
    ("share", 0.01),
    ("held_mb", 0.2),
    ("ended_s", 0.03),
];

/// The head of the printed table.
pub fn head() -> String {
    format!(
        "{:<32}{:<16}{:>8}{:>8}{:>9}{:>8}{:>9}{:>9}{:>8}{:>8}{:>7}{:>7}",
        "scenario", "stack", "Mbit/s", "ideal", "resent", "drops", "queue", "95 %", "filled", "share", "Jain", "CPU"
    )
}

/// A row of the printed table. `cpu` is the time that it took, in s.
pub fn row(scenario: &Scenario, stack: Stack, figures: &Figures, cpu: f64) -> String {
    let optional = |value: Option<f64>, unit| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}{unit}"));
    format!(
        "{:<32}{:<16}{:>8.1}{:>8.3}{:>8.2}%{:>8}{:>7.1}ms{:>7.1}ms{:>8}{:>8}{:>7}{cpu:>6.1}s{}",
        scenario.name,
        stack.name(),
        figures.mbps,
        figures.fraction,
        figures.resent * 100.0,
        figures.drops,
        figures.queue_ms[0],
        figures.queue_ms[1],
        optional(figures.fill_s, "s"),
        optional(figures.share, ""),
        optional(figures.jain, ""),
        figures.ended_s.map_or_else(String::new, |at| format!("  ended after {at:.2}s")),
    )
}

/// All figures of a cell by name.
pub fn named(figures: &Figures) -> impl Iterator<Item = (&'static str, f64)> {
    let all = [
        ("fraction", Some(figures.fraction)),
        ("whole", Some(figures.whole)),
        ("mbps", Some(figures.mbps)),
        ("resent", Some(figures.resent)),
        ("drops", Some(figures.drops as f64)),
        ("queue_ms", Some(figures.queue_ms[0])),
        ("queue_95_ms", Some(figures.queue_ms[1])),
        ("fill_s", figures.fill_s),
        ("share", figures.share),
        ("jain", figures.jain),
        ("held_mb", figures.held_mb),
        ("ended_s", figures.ended_s),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// The figures of cells, by `SCENARIO.STACK`.
pub type Table = BTreeMap<String, BTreeMap<String, f64>>;

/// What is recorded of a cell.
pub fn recorded(figures: &Figures) -> BTreeMap<String, f64> {
    let kept = named(figures).filter(|(name, _)| RECORDED.iter().any(|(kept, _)| kept == name));
    kept.map(|(name, value)| (name.to_owned(), rounded(value))).collect()
}

/// Four significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Reads a recorded table.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> Result<Table, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|e| format!("cannot read {}: {e}; record it with --record", path.display()))?;
    let flat: BTreeMap<String, Value> = serde_json::from_str(&text)?;
    let mut table = Table::new();
    for (key, value) in flat {
        let (cell, what) = key.strip_prefix("wan.").and_then(|key| key.rsplit_once('.')).ok_or("not a table")?;
        table.entry(cell.to_owned()).or_default().insert(what.to_owned(), value.as_f64().ok_or("not a number")?);
    }
    Ok(table)
}

/// Records a table.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, table: &Table) -> Result<(), Failure> {
    let cells = table.iter().flat_map(|(cell, figures)| figures.iter().map(move |figure| (cell, figure)));
    let flat: serde_json::Map<_, _> =
        cells.map(|(cell, (what, value))| (format!("wan.{cell}.{what}"), Value::from(*value))).collect();
    write_atomically(path, format!("{:#}\n", Value::Object(flat)).as_bytes())?;
    Ok(())
}

/// Describes how cells differ from the recorded ones.
pub fn changes(before: &Table, now: &Table) -> Vec<String> {
    let mut changes = Vec::new();
    for (cell, figures) in now {
        let Some(known) = before.get(cell) else {
            changes.push(format!("wan.{cell} is not recorded"));
            continue;
        };
        for (what, floor) in RECORDED {
            match (known.get(what), figures.get(what)) {
                (Some(old), Some(new)) if (new - old).abs() <= floor.max(old.abs() * TOLERANCE) => {}
                (None, None) => {}
                (old, new) => {
                    let show = |value: Option<&f64>| value.map_or_else(|| "none".to_owned(), f64::to_string);
                    changes.push(format!("wan.{cell}.{what}: {}, {} recorded", show(new), show(old)));
                }
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(fraction: f64, fill: Option<f64>) -> Table {
        let figures = Figures { fraction, resent: 0.012_345_6, drops: 7, fill_s: fill, ..Figures::default() };
        Table::from([("x.gannet.cubic".to_owned(), recorded(&figures))])
    }

    #[test]
    fn only_changes_that_matter_are_told() {
        let before = table(0.9, Some(1.0));
        assert_eq!(changes(&before, &table(0.9, Some(1.0))), [""; 0]);
        assert_eq!(changes(&before, &table(0.92, Some(1.02))), [""; 0]);
        // Better figures have to be recorded as well.
        assert_eq!(changes(&before, &table(0.95, Some(1.0))), ["wan.x.gannet.cubic.fraction: 0.95, 0.9 recorded"]);
        assert_eq!(changes(&before, &table(0.9, None)), ["wan.x.gannet.cubic.fill_s: none, 1 recorded"]);
        assert_eq!(changes(&Table::new(), &before), ["wan.x.gannet.cubic is not recorded"]);
        assert_eq!(changes(&before, &Table::new()), [""; 0]);
        // Relative changes of next to nothing are nothing.
        assert_eq!(changes(&table(0.001, None), &table(0.003, None)), [""; 0]);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wan.json");
        assert!(read(&path).unwrap_err().to_string().contains("--record"));
        write(&path, &table(0.9, Some(1.5))).unwrap();
        assert_eq!(read(&path).unwrap(), table(0.9, Some(1.5)));
        assert!(fs::read_to_string(&path).unwrap().contains("\"wan.x.gannet.cubic.resent\": 0.01235"));
    }
}
