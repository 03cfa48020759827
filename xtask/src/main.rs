//! Build automation: `cargo xtask COMMAND`. Needs only Rust and a C compiler to build.
#![forbid(unsafe_code)]

mod bench;
mod checks;
mod conformance;
mod demo;
mod error;
mod exits;
mod fuzz;
mod interop;
mod interrupt;
mod nic_test;
mod portability;
mod process;
mod sanitize;
mod setup;
mod sim;
mod steps;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up the machine, demonstrates Gannet, and runs all checks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find what this machine lacks, and install it as root or print the commands
    Setup(setup::SetupArgs),
    /// Transfer a file between two Gannet processes, compare every byte, measure, and write a report
    Demo(demo::DemoArgs),
    /// Measure Gannet against other implementations and its limits, and write a report
    Bench(bench::BenchArgs),
    /// Run all tests: workspace, documentation, and the engine without DPDK
    Test(checks::TestArgs),
    /// Run the simulator with any number of seeds
    Sim(sim::SimArgs),
    /// Run the fuzz targets under libFuzzer
    Fuzz(fuzz::FuzzArgs),
    /// Start and stop every command many times on an overcommitted machine
    Exits(exits::ExitsArgs),
    /// Run the tests of code that handles raw memory under AddressSanitizer, and under Miri if available
    Sanitize,
    /// Build and test in root file systems of other releases, and for another architecture; needs root and a package
    /// archive
    Portability(portability::PortabilityArgs),
    /// Test `gannet` on emulated NICs between two virtual machines; downloads QEMU and a kernel without installing them
    NicTest(nic_test::NicTestArgs),
    /// Hold the ledger of RFC requirements against the tests that exist, or break what they test to see them fail
    Conformance(conformance::ConformanceArgs),
    /// Play Gannet against other implementations over shaped links, and write a matrix; needs root
    Interop(interop::InteropArgs),
    /// Check formatting, lints and documentation, and run all tests, as in continuous integration
    Ci,
}

fn main() -> ExitCode {
    interrupt::install();
    let done = match Cli::parse().command {
        Task::Setup(args) => setup::run(args),
        Task::Demo(args) => demo::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Test(args) => checks::test(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Exits(args) => exits::run(&args),
        Task::Sanitize => sanitize::run(),
        Task::Portability(args) => portability::run(&args),
        Task::NicTest(args) => nic_test::run(&args),
        Task::Conformance(args) => conformance::run(&args),
        Task::Interop(args) => interop::run(&args),
        Task::Ci => checks::ci(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
