//! Runs the benchmarks, part by part.

use std::time::Instant;

use crate::cli::RunArgs;
use crate::part::Part;
use crate::run::Run;
use crate::{Failure, output};

/// Measures, and writes the results.
///
/// # Errors
/// If a part failed, after all others have run and their results are written.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let mut run = Run::new(args)?;
    let parts = if args.only.is_empty() { Part::ALL.to_vec() } else { args.only.clone() };
    let mut failures = Vec::new();
    for part in parts {
        eprintln!("== {}", part.name());
        let start = Instant::now();
        // A thread of its own, so that its CPU affinity ends with it.
        let measured = std::thread::scope(|scope| scope.spawn(|| part.measure(&mut run)).join());
        if let Err(error) = measured.unwrap_or_else(|_| Err("the measurement has panicked".into())) {
            run.note(format!("{} failed: {error}", part.name()));
            failures.push(part.name());
        }
        eprintln!("   {:.1} s", start.elapsed().as_secs_f64());
        // Write what there is so far, whatever happens next.
        output::write(&run)?;
    }
    output::print(&run);
    if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join(", ")).into()) }
}
