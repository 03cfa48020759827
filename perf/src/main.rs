//! Measures Gannet against other implementations and its limits: `cargo xtask bench`.
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "an allocator is unsafe to be")]
mod alloc;
mod cli;
mod cores;
#[expect(unsafe_code, reason = "a system call that std does not offer")]
mod cpu;
mod drive;
mod goals;
mod lab;
mod output;
mod part;
mod parts;
mod peers;
mod process;
mod run;
mod stats;
mod stop;
mod wan;

use std::process::ExitCode;

use clap::Parser;

/// Any error, for display to the user.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    let done = match cli::Cli::parse().command {
        cli::Command::Run(args) => drive::run(&args),
        cli::Command::Peer(args) => peers::run(&args),
        cli::Command::Replay(args) => parts::icount::replay(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gannet-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
