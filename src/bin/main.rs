//! The `gannet` command.

mod args;
mod commands;
mod output;
mod terminal;

use std::process::ExitCode;

use args::{Args, Command, PerfCommand};
use commands::session::Failure;

/// Exit code for failures.
const FAILED: u8 = 1;

/// Exit code for invalid arguments, the same as clap's.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::load();
    terminal::start(&args.log());
    let code = end(run(&args.command));
    terminal::finish();
    code
}

/// Reports a failure, and chooses the exit code.
fn end(result: Result<ExitCode, Failure>) -> ExitCode {
    let result = result.and_then(|code| match output::problem() {
        Some(error) => Err(format!("cannot print the results: {error}").into()),
        None => Ok(code),
    });
    match result {
        Ok(code) => code,
        Err(failure) => {
            terminal::fail(&failure.to_string());
            if commands::session::is_usage(&failure) { USAGE.into() } else { FAILED.into() }
        }
    }
}

fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => commands::serve::run(args)?,
        Command::Get(args) => commands::get::run(args)?,
        Command::Perf(PerfCommand::Server(args)) => commands::perf::serve(args)?,
        Command::Perf(PerfCommand::Client(args)) => commands::perf::measure(args)?,
        Command::Ring(args) => commands::ring::run(args)?,
        Command::Report(args) => commands::report::run(args)?,
        Command::Doctor(args) => {
            let drivers = gannet::dpdk::available_drivers();
            let build = commands::doctor::Build {
                absent: gannet::dpdk::absent_drivers(&drivers),
                dpdk: commands::origin::DPDK.map(String::from),
                crypto: gannet::crypto::backend_name().to_owned(),
                drivers: drivers.into_iter().filter(|d| d.problem.is_none()).map(|d| d.name).collect(),
                addresses: gannet::dpdk::kernel_addresses()
                    .into_iter()
                    .map(|kernel| (kernel.interface, format!("{}/{}", kernel.addr, kernel.prefix)))
                    .collect(),
                xdp: gannet::dpdk::xdp_programs().into_iter().map(|xdp| (xdp.interface, xdp.mode)).collect(),
                shared: gannet::dpdk::PortProfile::shared(),
                sockets: Some((gannet::dpdk::runtime_dir(), gannet::dpdk::runtime_dir_problem())),
            };
            if !commands::doctor::run(args, &build)? {
                return Ok(FAILED.into());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
