//! The `gannet` command.

mod args;
mod commands;

use args::{Args, Command};

fn main() -> std::process::ExitCode {
    let result = match &Args::load().command {
        Command::Report(args) => commands::report::run(args).map_err(|e| e.to_string()),
        other => Err(format!("not here yet: {other:?}")),
    };
    if let Err(why) = result {
        eprintln!("gannet: {why}");
        return 1.into();
    }
    std::process::ExitCode::SUCCESS
}
