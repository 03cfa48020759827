//! Build automation: `cargo xtask COMMAND`. Compiles with nothing but Rust and a C compiler.
#![forbid(unsafe_code)]

mod bench;
mod checks;
mod demo;
mod error;
mod exits;
mod interrupt;
mod portability;
mod process;
mod sanitize;
mod setup;
mod sim;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets the machine up, shows Gannet at work, and runs every check.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find what this machine lacks, and install it as root or say what to type
    Setup(setup::SetupArgs),
    /// Download a file between two Gannet processes, compare every byte, measure, and write a report
    Demo(demo::DemoArgs),
    /// Measure Gannet beside its peers and its limits, and write a report
    Bench(bench::BenchArgs),
    /// Run every test: workspace, documentation, and the engine without DPDK
    Test(checks::TestArgs),
    /// Play seeds of the simulator, as many as one likes
    Sim(sim::SimArgs),
    /// Start and stop every command many times on a machine with too few CPUs
    Exits(exits::ExitsArgs),
    /// Run the tests of all that handles raw memory under AddressSanitizer, and under Miri where there is one
    Sanitize,
    /// Build and test in the file systems of other releases, and for another processor; needs root and an archive
    Portability(portability::PortabilityArgs),
    /// Format, lints, documentation and every test: what continuous integration runs
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
        Task::Exits(args) => exits::run(&args),
        Task::Sanitize => sanitize::run(),
        Task::Portability(args) => portability::run(&args),
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
