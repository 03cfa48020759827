//! The outcome of each step with each NIC, on the terminal and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::step::Step;

/// The outcome of a step.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why it failed, or `None`.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// The outcomes of all steps played, in order.
#[derive(Debug, Default)]
pub struct Table {
    /// The name of the NIC, such as `igb`.
    rows: Vec<String>,
    outcomes: BTreeMap<(String, Step), Outcome>,
    /// Why steps were not played.
    left_out: BTreeMap<(String, Step), &'static str>,
}

/// Width of the first column.
const NAMES: usize = 16;

impl Table {
    /// Records an outcome, and prints it.
    pub fn note(&mut self, row: &str, step: Step, outcome: Outcome) {
        let said = outcome.failure.as_deref().unwrap_or("pass");
        println!("{row:<NAMES$}{:<14}{:>6.1} s  {said}", step.to_string(), outcome.took.as_secs_f64());
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        self.outcomes.insert((row.to_owned(), step), outcome);
    }

    /// Records that a step is not played.
    pub fn leave_out(&mut self, row: &str, step: Step, why: &'static str) {
        self.left_out.insert((row.to_owned(), step), why);
    }

    /// The names of failed steps, such as `igb get`.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.outcomes.iter().filter(|(_, outcome)| outcome.failure.is_some());
        failed.map(|((row, step), _)| format!("{row} {step}")).collect()
    }

    /// How many steps were played.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// A line for each NIC, a column for each step that any of them has.
    pub fn text(&self) -> String {
        let steps: Vec<_> = Step::ALL.iter().filter(|step| self.outcomes.keys().any(|(_, s)| s == *step)).collect();
        let mut text = format!("{:<NAMES$}", "");
        for step in &steps {
            let _ = write!(text, " {step}");
        }
        for row in &self.rows {
            let _ = write!(text, "\n{row:<NAMES$}");
            for step in &steps {
                let word = match self.outcomes.get(&(row.clone(), **step)) {
                    None => "-",
                    Some(Outcome { failure: None, .. }) => "pass",
                    Some(_) => "FAIL",
                };
                let _ = write!(text, " {word:<width$}", width = step.to_string().len());
            }
        }
        text.push('\n');
        text
    }

    /// `{"MODEL": {"STEP": "pass" | "reason"}}`; the reason of a step that was not played begins with "left out".
    pub fn json(&self) -> String {
        let row = |name: &String| {
            let steps = Step::ALL.iter().filter_map(|step| {
                let key = (name.clone(), *step);
                let said = match self.outcomes.get(&key) {
                    Some(outcome) => outcome.failure.clone().unwrap_or_else(|| "pass".into()),
                    None => format!("left out: {}", self.left_out.get(&key)?),
                };
                Some(format!("    {}: {}", quote(&step.to_string()), quote(&said)))
            });
            format!("  {}: {{\n{}\n  }}", quote(name), steps.collect::<Vec<_>>().join(",\n"))
        };
        format!("{{\n{}\n}}\n", self.rows.iter().map(row).collect::<Vec<_>>().join(",\n"))
    }
}

/// A JSON string (RFC 8259 §7).
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        let took = Duration::from_secs(1);
        table.note("igb", Step::LinkUp, Outcome { failure: None, took });
        table.note("igb", Step::Get, Outcome { failure: Some("say \"no\"\n".into()), took });
        table.note("e1000", Step::LinkUp, Outcome { failure: None, took });
        table.leave_out("e1000", Step::Rss, "one queue");
        table
    }

    #[test]
    fn the_json_has_a_reason_or_pass() {
        let expected = "{\n  \"igb\": {\n    \"link-up\": \"pass\",\n    \"get\": \"say \\\"no\\\"\\u000a\"\n  },\n  \
                        \"e1000\": {\n    \"link-up\": \"pass\",\n    \"rss\": \"left out: one queue\"\n  }\n}\n";
        assert_eq!(table().json(), expected);
    }

    #[test]
    fn the_table_has_what_was_played() {
        let text = table().text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["link-up", "get"]);
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["igb", "pass", "FAIL"]);
        assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["e1000", "pass", "-"]);
        assert_eq!((table().failures(), table().len()), (vec!["igb get".to_owned()], 3));
    }
}
