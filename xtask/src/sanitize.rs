//! `cargo xtask sanitize`: runs the tests of code that handles raw memory with instrumentation that detects invalid
//! accesses.
//!
//! AddressSanitizer works with the stable toolchain, which includes its runtime; only the compiler flag is unstable.
//! DPDK and ipsec-mb are excluded, as their memory is not instrumented. Miri checks more, if it is installed.

use std::process::Command;

use crate::error::Result;
use crate::process;
use crate::steps::{Step, run_all};
use crate::workspace::{cargo, target};

/// The target of the tests. It is named so that build scripts and macros are not instrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Enables the instrumentation, and makes pools mark their free blocks (`src/mem/poison.rs`).
const RUSTFLAGS: &str = "-Zsanitizer=address --cfg gannet_asan";

/// The number of random operations against the models of streams: a tenth of the usual, since each takes longer.
const OPERATIONS: &str = "50000";

/// The seeds of the simulator: a tenth of the usual, for the same reason.
const SEEDS: &str = "0..2000";

/// Integration tests in which memory changes owners.
const INTEGRATION: [&str; 6] = ["contract", "api_handle", "hostile", "hq_proto", "perf_proto", "sim"];

/// Runs the tests.
///
/// # Errors
/// If a test fails, memory is misused or leaks, or a signal arrives.
pub fn run() -> Result<()> {
    let mut steps = vec![units(), integration()];
    if process::succeeds(&mut cargo(&["miri", "--version"])) {
        steps.push(miri());
    } else {
        println!("skipping Miri: this toolchain has no `cargo miri` (rustup component add miri)");
    }
    run_all(steps)
}

fn instrumented(arguments: &[&str]) -> Command {
    let mut command = cargo(&["test", "--no-default-features", "--no-fail-fast", "--target", TARGET, "--target-dir"]);
    command.arg(target().join("asan")).args(arguments);
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("ASAN_OPTIONS", "detect_leaks=1:detect_stack_use_after_return=1")
        .env("GANNET_CONTRACT_OPS", OPERATIONS)
        .env("GANNET_SEEDS", SEEDS);
    command
}

fn units() -> Step {
    let command = instrumented(&["--lib"]);
    Step { name: "units under ASan", command }
}

fn integration() -> Step {
    let tests = INTEGRATION.iter().flat_map(|name| ["--test", name]).collect::<Vec<_>>();
    Step { name: "transfers under ASan", command: instrumented(&tests) }
}

fn miri() -> Step {
    let mut command = cargo(&["miri", "test", "--no-default-features", "--lib", "--", "mem::"]);
    command.env("GANNET_CONTRACT_OPS", OPERATIONS);
    Step { name: "memory under Miri", command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruments_are_asked_for() {
        for step in [units(), integration()] {
            let line = process::line(&step.command);
            for part in ["RUSTC_BOOTSTRAP=1", "-Zsanitizer=address", "detect_leaks=1", "--target x86_64", "/asan"] {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
    }
}
