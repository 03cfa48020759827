//! The goals of the figures, and the table that compares them.

use gannet::report::text;

use crate::stats::{Sheet, Stat};

/// A goal: a direction and a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At least this much.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

impl Goal {
    /// Returns whether `value` meets the goal.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(goal) => format!(">= {}", number(goal)),
            Self::AtMost(goal) => format!("<= {}", number(goal)),
        }
    }
}

/// The goals, by key.
pub const GOALS: &[(&str, Goal)] = &[
    ("bulk_1500.gbps", Goal::AtLeast(40.0)),
    ("bulk_9000.gbps", Goal::AtLeast(75.0)),
    ("bulk_1500.vs_quinn", Goal::AtLeast(5.0)),
    ("rx_1500.ns_per_packet", Goal::AtMost(260.0)),
    ("rx_1500.vs_aead_limit", Goal::AtLeast(0.55)),
    ("rx_9000.vs_aead_limit", Goal::AtLeast(0.75)),
    ("tx_1500.ns_per_packet", Goal::AtMost(280.0)),
    ("tx_1500.vs_aead_limit", Goal::AtLeast(0.55)),
    ("rr.p50_us", Goal::AtMost(8.0)),
    ("rr.p99_us", Goal::AtMost(16.0)),
    ("rr.p999_us", Goal::AtMost(60.0)),
    ("rr.vs_quinn", Goal::AtLeast(6.0)),
    ("rps_1core.krps", Goal::AtLeast(1500.0)),
    ("hps.vs_rustls", Goal::AtLeast(0.85)),
    ("conns.bytes_idle", Goal::AtMost(6144.0)),
    ("conns.cost_growth", Goal::AtMost(1.6)),
    ("cores.handover_ns", Goal::AtMost(60.0)),
    ("cores.scaling_vs_aead", Goal::AtLeast(0.95)),
    ("alloc_per_packet", Goal::AtMost(0.0)),
    ("copied_bytes_per_byte", Goal::AtMost(0.0)),
    ("af_packet.vs_quinn", Goal::AtLeast(1.0)),
    ("af_xdp.vs_quinn", Goal::AtLeast(1.3)),
    ("placement_1500_cold.direct_vs_copy", Goal::AtLeast(1.5)),
    ("placement_9000_cold.direct_vs_copy", Goal::AtLeast(1.5)),
];

/// The goal of `key`, if it has one.
pub fn goal(key: &str) -> Option<Goal> {
    GOALS.iter().find(|(name, _)| *name == key).map(|(_, goal)| *goal)
}

/// Formats a number with three or four significant digits.
pub fn number(v: f64) -> String {
    match v.abs() {
        a if a >= 1000.0 || v.fract() == 0.0 => format!("{v:.0}"),
        a if a >= 100.0 => format!("{v:.1}"),
        a if a >= 1.0 => format!("{v:.2}"),
        _ => format!("{v:.4}"),
    }
}

/// Formats every figure with its goal, and whether the median meets it.
pub fn table(sheet: &Sheet) -> String {
    let rows: Vec<[String; 6]> = sheet.stats().map(|(key, stat)| row(key, stat)).collect();
    text::table(&["key", "min", "median", "max", "goal", ""], &rows)
}

fn row(key: &str, stat: Stat) -> [String; 6] {
    let goal = goal(key);
    let verdict = goal.map_or("", |goal| if goal.is_met(stat.median) { "met" } else { "missed" });
    [
        key.into(),
        number(stat.min),
        number(stat.median),
        number(stat.max),
        goal.map_or_else(String::new, Goal::text),
        verdict.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_look_the_right_way() {
        assert!(goal("rr.p50_us").unwrap().is_met(8.0) && !goal("rr.p50_us").unwrap().is_met(8.1));
        assert!(goal("bulk_1500.gbps").unwrap().is_met(41.0) && !goal("bulk_1500.gbps").unwrap().is_met(39.0));
        assert_eq!(goal("nothing"), None);
        let mut names: Vec<_> = GOALS.iter().map(|(name, _)| name).collect();
        names.dedup();
        assert_eq!(names.len(), GOALS.len());
    }

    #[test]
    fn the_table_says_what_is_missed() {
        let mut sheet = Sheet::default();
        for v in [1.0, 2.0, 4.0] {
            sheet.add("hps.vs_rustls", v / 4.0);
            sheet.add("other", v * 1234.5);
        }
        sheet.add("alloc_per_packet", 0.0);
        let text = table(&sheet);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["key", "min", "median", "max", "goal"]);
        assert_eq!(lines[1], ["alloc_per_packet", "0", "0", "0", "<=", "0", "met"]);
        assert_eq!(lines[2], ["hps.vs_rustls", "0.2500", "0.5000", "1", ">=", "0.8500", "missed"]);
        assert_eq!(lines[3], ["other", "1234", "2469", "4938"]);
    }
}
