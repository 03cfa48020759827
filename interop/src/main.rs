//! Plays Gannet against other implementations over shaped links, and makes a matrix of the results. Needs root.
#![forbid(unsafe_code)]

mod capture;
mod cases;
mod certs;
mod decode;
mod error;
mod evidence;
mod frame;
mod gannet;
mod interrupt;
mod lab;
mod matrix;
mod middle;
mod paths;
mod peer;
mod play;
mod process;
mod rivals;
mod run;
mod shape;
mod sight;
mod socket;
mod transfer;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::gannet::sim::forwarder::{ForwarderConfig, Rebinding, Shape};
use clap::{Parser, Subcommand};

use error::Result;
use middle::{Middle, Place};
use peer::Peer;

/// Plays Gannet against other implementations, and forwards between interfaces over shaped links.
#[derive(Debug, Parser)]
#[command(name = "gannet-interop", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Play the matrix
    Run(run::RunArgs),
    /// Compare transfers between real processes with the simulation
    Paths(paths::PathsArgs),
    /// Compare what peers receive from Gannet with what they receive from themselves, on paths that lose packets
    Rivals(rivals::RivalsArgs),
    /// Build peers
    Build {
        /// The peers [default: all]
        peers: Vec<Peer>,
    },
    /// List peers and cases
    List,
    /// Forward between two interfaces until a signal arrives, then print what was done
    Forward(Box<ForwardArgs>),
}

#[derive(Clone, Debug, clap::Args)]
struct ForwardArgs {
    /// The interface towards the client
    #[arg(long, value_name = "IFACE")]
    to_client: String,
    /// The interface towards the server
    #[arg(long, value_name = "IFACE")]
    to_server: String,
    /// Namespace of the interfaces
    #[arg(long, value_name = "NAME")]
    ns: Option<String>,
    /// The link to the server: delay=15ms,rate=10M,queue=37500,loss=20,... (probabilities per mille)
    #[arg(long, value_name = "SHAPE", value_parser = shape::shape, default_value = "")]
    up: Shape,
    /// The link to the client
    #[arg(long, value_name = "SHAPE", value_parser = shape::shape, default_value = "")]
    down: Shape,
    /// Give all clients another source: TIME=port, TIME=address or TIME=both, where TIME counts from the first datagram.
    /// May be repeated
    #[arg(long, value_name = "TIME=WHAT", value_parser = shape::rebinding)]
    rebind: Vec<(Duration, Rebinding)>,
    /// An address for clients to be given. May be repeated
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,
    /// Earlier sources of a client still reach it
    #[arg(long)]
    keep_mappings: bool,
    /// The seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write client.pcap and server.pcap into this directory
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
}

fn forward(args: ForwardArgs) -> Result<()> {
    let place = Place { ns: args.ns, to_client: args.to_client, to_server: args.to_server };
    let config = ForwarderConfig {
        to_server: args.up,
        to_client: args.down,
        rebindings: args.rebind,
        addresses: args.address,
        keeps_mappings: args.keep_mappings,
    };
    let middle = Middle::start(&place, &config, args.seed, args.pcap.as_deref())?;
    println!("ready");
    while !interrupt::arrived() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let view = middle.finish()?;
    println!("{}", serde_json::to_string_pretty(&view.sight)?);
    println!("{:#?}", view.stats);
    Ok(())
}

fn list() {
    println!("peers: {}", Peer::OTHERS.map(Peer::name).join(", "));
    for case in cases::all() {
        println!("{:<20} {}", case.name, case.about);
    }
}

fn main() -> ExitCode {
    let done = interrupt::install().and_then(|()| match Cli::parse().command {
        Task::Run(args) => run::run(&args),
        Task::Paths(args) => paths::run(&args),
        Task::Rivals(args) => rivals::run(&args),
        Task::Build { peers } => {
            let peers = if peers.is_empty() { Peer::OTHERS.to_vec() } else { peers };
            peers.into_iter().try_for_each(|peer| peer::build(peer).map(drop))
        }
        Task::List => {
            list();
            Ok(())
        }
        Task::Forward(args) => forward(*args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if interrupt::arrived() { 130 } else { 1 })
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
