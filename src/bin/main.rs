//! The `gannet` command.

mod args;
mod commands;

use args::{Args, Command, PerfCommand};

fn main() -> std::process::ExitCode {
    let result = match &Args::load().command {
        Command::Serve(args) => commands::serve::run(args).map_err(|e| e.to_string()),
        Command::Get(args) => commands::get::run(args).map_err(|e| e.to_string()),
        Command::Perf(PerfCommand::Server(args)) => commands::perf::serve(args).map_err(|e| e.to_string()),
        Command::Perf(PerfCommand::Client(args)) => commands::perf::measure(args).map_err(|e| e.to_string()),
        Command::Ring(args) => commands::ring::run(args).map_err(|e| e.to_string()),
        Command::Report(args) => commands::report::run(args).map_err(|e| e.to_string()),
        Command::Doctor(args) => {
            let build = commands::doctor::Build {
                dpdk: option_env!("GANNET_DPDK_VERSION").map(String::from),
                crypto: gannet::crypto::backend_name().to_owned(),
                drivers: gannet::dpdk::available_drivers().into_iter().map(|d| d.name).collect(),
                shared: gannet::dpdk::PortProfile::shared(),
                sockets: Some((gannet::dpdk::runtime_dir(), gannet::dpdk::runtime_dir_problem())),
            };
            match commands::doctor::run(args, &build) {
                Ok(true) => Ok(()),
                Ok(false) => return 1.into(),
                Err(e) => Err(e.to_string()),
            }
        }
    };
    if let Err(why) = result {
        eprintln!("gannet: {why}");
        return 1.into();
    }
    std::process::ExitCode::SUCCESS
}
