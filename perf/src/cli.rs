//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::part::Part;

/// Measures Gannet against other implementations and its limits.
#[derive(Debug, Parser)]
#[command(name = "gannet-perf", version)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure.
    Run(RunArgs),
    /// Run one end of another implementation as a process.
    #[command(hide = true)]
    Peer(PeerArgs),
    /// Run the work whose instructions are counted.
    #[command(hide = true)]
    Replay(ReplayArgs),
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Only these parts.
    #[arg(long, value_name = "PART,...", value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Shorter runs and fewer repeats: within 10 minutes for all parts.
    #[arg(long)]
    pub quick: bool,
    /// Run only as much as shows that everything works; the figures mean nothing.
    #[arg(long, hide = true)]
    pub tiny: bool,
    /// Repeats of each measurement [default: 5 with --quick, otherwise 7].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: Option<u32>,
    /// Write the results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Directory for the report, histograms and logs.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub out: PathBuf,
    /// The program to measure [default: the one next to this one].
    #[arg(long, value_name = "PROGRAM")]
    pub gannet: Option<PathBuf>,
    /// With icount: fail if counts are more than 5 % above the recorded ones. With wan: fail if a cell is more than 3 %
    /// from the recorded one.
    #[arg(long)]
    pub check: bool,
    /// With icount and wan: record the figures.
    #[arg(long, conflicts_with = "check")]
    pub record: bool,
    /// With wan: only scenarios whose names begin like this.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// With wan: only these stacks, such as gannet.cubic.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub stack: Vec<String>,
    /// With wan: the seed of everything random.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// File of the recorded table of wan.
    #[arg(long, value_name = "FILE", default_value = "perf/wan.json")]
    pub wan_table: PathBuf,
    /// File of recorded instruction counts.
    #[arg(long, value_name = "FILE", default_value = "perf/icount.json")]
    pub baseline: PathBuf,
}

/// The implementations that Gannet is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PeerKind {
    /// quinn on kernel sockets.
    Quinn,
    /// s2n-quic on kernel sockets; needs the feature `peers`.
    S2n,
    /// quiche on kernel sockets; needs the feature `peers`.
    Quiche,
}

/// Arguments of `peer`.
#[derive(Clone, Debug, Args)]
pub struct PeerArgs {
    /// The implementation.
    #[arg(value_enum)]
    pub kind: PeerKind,
    /// Run the server on this address; without it, the client.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// The server to connect to.
    #[arg(long, value_name = "ADDR", required_unless_present = "listen")]
    pub connect: Option<SocketAddr>,
    /// CPU to run on.
    #[arg(long, value_name = "CPU")]
    pub core: Option<usize>,
    /// Largest IP packet in bytes.
    #[arg(long, default_value_t = 1500)]
    pub mtu: u16,
    /// Bytes that each request sends.
    #[arg(long, default_value_t = 0)]
    pub upload: u64,
    /// Bytes that each request asks for.
    #[arg(long, default_value_t = 0)]
    pub download: u64,
    /// Make one request after another for this many seconds [default: one request].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Write the latency histogram to this file.
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{text} seconds: {error}"))
}

/// Arguments of `replay`.
#[derive(Clone, Copy, Debug, Args)]
pub struct ReplayArgs {
    /// Cycles before the counted ones.
    #[arg(long, default_value_t = 12)]
    pub warmup: usize,
    /// Cycles whose instructions are counted.
    #[arg(long, default_value_t = 20)]
    pub cycles: u32,
    /// Largest IP packet in bytes.
    #[arg(long, default_value_t = 1500)]
    pub mtu: u16,
    /// Size of the destination memory in MiB.
    #[arg(long, default_value_t = 2)]
    pub span: usize,
    /// One request after another instead of a transfer; each cycle is one.
    #[arg(long)]
    pub requests: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["gannet-perf", "run", "--only", "placement,rr", "--quick"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("run") };
        assert_eq!(args.only, [Part::Placement, Part::Rr]);
        assert!(Cli::try_parse_from(["gannet-perf", "run", "--only", "nonsense"]).is_err());
        assert!(Cli::try_parse_from(["gannet-perf", "peer", "quinn"]).is_err(), "neither server nor client");
    }
}
