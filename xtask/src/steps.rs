//! Commands that are run one after another.

use std::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::cargo;

/// A command that exits with 0 on success.
pub(crate) struct Step {
    /// The name in the summary.
    pub(crate) name: &'static str,
    pub(crate) command: Command,
}

impl Step {
    /// A step that runs cargo.
    pub(crate) fn cargo(name: &'static str, arguments: &[&str]) -> Self {
        Self { name, command: cargo(arguments) }
    }
}

/// Runs all steps, even after a failure, so that one run shows all problems. The last lines of steps that failed are
/// repeated at the end: often no more than the end of a log is kept.
pub(crate) fn run_all(steps: Vec<Step>) -> Result<()> {
    let mut results = Vec::new();
    for mut step in steps {
        println!("\n== {}", step.name);
        // As it would be typed, without where its output goes.
        let line = process::line(&step.command);
        let failure = match process::run_with_tail(step.name, &mut step.command) {
            Ok(()) => None,
            Err(error @ Error::Interrupted(_)) => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        results.push((step.name, line, failure));
    }
    println!("\n== summary");
    for (name, line, failure) in &results {
        println!("{:<7} {name:<20} {line}", if failure.is_some() { "FAILED" } else { "ok" });
    }
    let failed: Vec<_> = results.iter().filter_map(|(name, _, failure)| Some((*name, failure.as_ref()?))).collect();
    for (_, failure) in &failed {
        println!("\n{failure}");
    }
    let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
    if names.is_empty() { Ok(()) } else { Err(Error::Unmet(format!("failed: {}", names.join(", ")))) }
}
