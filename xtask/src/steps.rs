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

/// Runs all steps, even after a failure, so that one run shows all problems.
pub(crate) fn run_all(steps: Vec<Step>) -> Result<()> {
    let mut results = Vec::new();
    for mut step in steps {
        println!("\n== {}", step.name);
        let result = process::run(step.name, &mut step.command);
        if let Err(error) = &result {
            if matches!(error, Error::Interrupted(_)) {
                return result;
            }
            println!("{error}");
        }
        results.push((step, result.is_ok()));
    }
    println!("\n== summary");
    for (step, good) in &results {
        println!("{:<7} {:<20} {}", if *good { "ok" } else { "FAILED" }, step.name, process::line(&step.command));
    }
    let failed: Vec<_> = results.iter().filter(|(_, good)| !good).map(|(step, _)| step.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Unmet(format!("failed: {}", failed.join(", ")))) }
}
