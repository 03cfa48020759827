//! The command line of `gannet`, and the checks that need no device.

pub mod cores;
pub mod engine;
pub mod log;
pub mod qlog;
pub mod quic_lb;
pub mod target;
pub mod tls;
pub mod values;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};

use cores::CoresArgs;
use engine::{EndArgs, EngineArgs, SecretArgs};
use log::LogArgs;
use target::{HostPort, Url};
use tls::{ClientIdentityArgs, IdentityArgs, TrustArgs};

const EXAMPLES: &str = "\
Examples:
  # check whether this machine is ready
  gannet doctor

  # two processes on one machine, over shared memory
  gannet serve --port memif --set role=server --set socket=gannet.sock \\
      --addr 10.77.0.1/24 --listen 4433 --cert cert.pem --key key.pem --root ./www
  gannet get --port memif --set role=client --set socket=gannet.sock \\
      --addr 10.77.0.2/24 --ca ca.pem -o file https://10.77.0.1:4433/file

Environment:
  GANNET_CRYPTO=ipsec-mb|portable   crypto kernels to use (default: the fastest this CPU supports)
  GANNET_LOG=LEVEL                  log level, unless --log-level, -q or -v is given
  SSLKEYLOGFILE=FILE                same as --keylog FILE
  QLOGDIR=DIR                       same as --qlog DIR";

const SERVE_EXAMPLES: &str = "\
Example:
  gannet serve --port af-packet --set iface=eth1 --addr 192.0.2.10/24 --gateway 192.0.2.1 \\
      --listen 443 --cert cert.pem --key key.pem --root ./www

Prints a line that starts with `ready` once its port is up. Stops on SIGINT and SIGTERM.";

const GET_EXAMPLES: &str = "\
Examples:
  gannet get --port af-packet --set iface=eth1 --addr 192.0.2.20/24 --ca ca.pem \\
      -o file.bin --sha256 https://192.0.2.10/file.bin
  gannet get ... --ca ca.pem -o downloads/ https://192.0.2.10/a https://192.0.2.10/b
  # each file over a connection of another core
  gannet get ... --cores 2-3 --ca ca.pem -o downloads/ https://192.0.2.10/a https://192.0.2.10/b";

const CLIENT_EXAMPLES: &str = "\
Examples:
  # throughput: download 10 GiB on one connection
  gannet perf client ... --connect 10.77.0.1:4433 --insecure --download 10G

  # 64 connections, 16 on each of four cores
  gannet perf client ... --connect 10.77.0.1:4433 --insecure --cores 2-5 --connections 64 --download 1M --duration 10s

  # latency: 64-byte requests, 1 KiB answers, 50,000 per second, for 30 seconds
  gannet perf client ... --connect 10.77.0.1:4433 --insecure \\
      --upload 64 --download 1K --rate 50k --duration 30s --hdr latency.hdr
  gannet report latency.hdr -o report.html";

const REPORT_EXAMPLES: &str = "\
Example:
  gannet report gannet.hdr other.hdr -o compare.html";

/// QUIC v1 on DPDK, decrypting stream bytes straight into the application's pinned buffers.
#[derive(Debug, Parser)]
#[command(name = "gannet", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the files of a directory.
    Serve(ServeArgs),
    /// Fetch files.
    Get(GetArgs),
    /// Measure throughput and latency.
    #[command(subcommand)]
    Perf(PerfCommand),
    /// Turn latency histograms (.hdr files) into an HTML page, a table, CSV or JSON.
    Report(ReportArgs),
    /// Check whether this machine is ready, and print the commands that make it so.
    Doctor(DoctorArgs),
    /// Server and client in one process over an in-process ring; for `cargo xtask demo`.
    #[command(hide = true)]
    Ring(RingArgs),
}

/// The two sides of a measurement.
#[derive(Debug, Subcommand)]
pub enum PerfCommand {
    /// Answer the requests of `gannet perf client`.
    Server(PerfServerArgs),
    /// Send requests, and print the results.
    Client(PerfClientArgs),
}

/// Arguments of `gannet serve`.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// Port and engine.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Several cores.
    #[command(flatten)]
    pub cores: CoresArgs,

    /// UDP port to listen on.
    #[arg(long, value_name = "UDPPORT", value_parser = values::number::<u16>(1, 65535))]
    pub listen: u16,

    /// Certificate and key.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// The secret that survives restarts.
    #[command(flatten)]
    pub secret: SecretArgs,

    /// What SIGTERM and SIGINT do.
    #[command(flatten)]
    pub end: EndArgs,

    /// When to send Retry packets, which make clients prove their address before any state is stored (RFC 9000 §8.1.2).
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, help_heading = "Engine")]
    pub retry: engine::Retry,

    /// Accept requests as 0-RTT data, before the handshake is complete (RFC 9001 §4.6). Anybody who sees the packets of
    /// such a request can repeat it.
    #[arg(long, help_heading = "Engine", conflicts_with = "upload_dir")]
    pub early_data: bool,

    /// An --addr that connected clients are asked to move to (RFC 9000 §9.6), at most one of each IP version.
    #[arg(long, value_name = "ADDR", help_heading = "Engine")]
    pub preferred_address: Vec<IpAddr>,

    /// Directory whose files are served.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: PathBuf,

    /// At start, read the files in the top level of the directory into pinned memory, up to this many bytes in total.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, default_value = "0")]
    pub preload: u64,

    /// Accept uploads and store them in this directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub upload_dir: Option<PathBuf>,
}

/// Arguments of `gannet get`.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = GET_EXAMPLES)]
pub struct GetArgs {
    /// Port and engine.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Several cores.
    #[command(flatten)]
    pub cores: CoresArgs,

    /// The trusted servers.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// The client's certificate.
    #[command(flatten)]
    pub identity: ClientIdentityArgs,

    /// Name that the certificate must be valid for [default: the host of the URL].
    #[arg(long, value_name = "NAME", value_parser = target::host_name, help_heading = "TLS")]
    pub server_name: Option<String>,

    /// Where to write the file: a path, a directory (required for several files), or - for standard output [default:
    /// the current directory].
    #[arg(short, long, value_name = "PATH|DIR", value_hint = ValueHint::AnyPath)]
    pub output: Option<PathBuf>,

    /// Print the SHA-256 of each file.
    #[arg(long)]
    pub sha256: bool,

    /// Keep up to this many received bytes in pinned memory before writing any to disk, so that the disk does not slow
    /// the network down. Once another 64M wait for the disk, the server is throttled.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, default_value = "0")]
    pub hold: u64,

    /// Move the connection to another source port at this interval (RFC 9000 §9.2), as if the network had changed.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Engine")]
    pub migrate_every: Option<Duration>,

    /// Whether to resume sessions.
    #[command(flatten)]
    pub resume: ResumeArgs,

    /// What to fetch: https://HOST[:PORT]/PATH, all from one server.
    #[arg(value_name = "URL", required = true)]
    pub urls: Vec<Url>,
}

/// Resumption of sessions by `gannet get`.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct ResumeArgs {
    /// Fetch the first file over a connection of its own, and the others over a second one that resumes its session. With
    /// --cores, each core does so.
    #[arg(long, help_heading = "Engine")]
    pub resume: bool,

    /// The same, and request these others as 0-RTT data, before the handshake is complete, if the server allows it (RFC
    /// 9001 §4.6).
    #[arg(long, help_heading = "Engine")]
    pub early_data: bool,
}

impl ResumeArgs {
    /// Whether there is to be a second connection.
    pub fn is_wanted(&self) -> bool {
        self.resume || self.early_data
    }
}

/// Arguments of `gannet perf server`.
#[derive(Clone, Debug, ClapArgs)]
pub struct PerfServerArgs {
    /// Port and engine.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Several cores.
    #[command(flatten)]
    pub cores: CoresArgs,

    /// UDP port to listen on.
    #[arg(long, value_name = "UDPPORT", value_parser = values::number::<u16>(1, 65535))]
    pub listen: u16,

    /// Certificate and key.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// The secret that survives restarts.
    #[command(flatten)]
    pub secret: SecretArgs,

    /// What SIGTERM and SIGINT do.
    #[command(flatten)]
    pub end: EndArgs,

    /// When to send Retry packets, which make clients prove their address before any state is stored (RFC 9000 §8.1.2).
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, help_heading = "Engine")]
    pub retry: engine::Retry,

    /// An --addr that connected clients are asked to move to (RFC 9000 §9.6), at most one of each IP version.
    #[arg(long, value_name = "ADDR", help_heading = "Engine")]
    pub preferred_address: Vec<IpAddr>,

    /// Accept requests as 0-RTT data, before the handshake is complete (RFC 9001 §4.6). Anybody who sees the packets of
    /// such a request can repeat it.
    #[arg(long, help_heading = "Engine")]
    pub early_data: bool,
}

/// Arguments of `gannet perf client`.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = CLIENT_EXAMPLES)]
pub struct PerfClientArgs {
    /// Port and engine.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Several cores.
    #[command(flatten)]
    pub cores: CoresArgs,

    /// The `gannet perf server` to talk to.
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: HostPort,

    /// The trusted servers.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// The client's certificate.
    #[command(flatten)]
    pub identity: ClientIdentityArgs,

    /// Name that the certificate must be valid for [default: the host of --connect].
    #[arg(long, value_name = "NAME", value_parser = target::host_name, help_heading = "TLS")]
    pub server_name: Option<String>,

    /// Bytes that each request sends; K, M and G are powers of 1024.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, default_value = "0", help_heading = "Load")]
    pub upload: u64,

    /// Bytes that each request asks for; K, M and G are powers of 1024.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, default_value = "0", help_heading = "Load")]
    pub download: u64,

    /// Stop after this many requests in total [default: 1, or no limit with --duration].
    #[arg(long, value_name = "N", value_parser = values::number::<u64>(1, u64::MAX), help_heading = "Load")]
    pub requests: Option<u64>,

    /// Stop after this long: 10s, 250ms, 2m.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Load")]
    pub duration: Option<Duration>,

    /// Start this many requests per second, whether or not answers arrive [default: each answer starts the next
    /// request].
    #[arg(long, value_name = "N", value_parser = values::rate, help_heading = "Load")]
    pub rate: Option<f64>,

    /// Apply the same load for this long before measuring.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Load")]
    pub warmup: Option<Duration>,

    /// Open and close connections as fast as possible instead of making requests, with --connections in flight.
    #[arg(long, help_heading = "Load")]
    pub handshakes: bool,

    /// Send datagrams (RFC 9221) at this rate per second and of this size in bytes, which the server returns, instead of
    /// making requests: 10k/100. Each core has one connection, and all share the rate. Lasts for --duration [default:
    /// 10s].
    #[arg(long, value_name = "RATE/SIZE", value_parser = values::datagrams, help_heading = "Load")]
    #[arg(conflicts_with_all = ["upload", "download", "requests", "rate", "warmup", "handshakes", "connections", "streams"])]
    pub datagrams: Option<(f64, usize)>,

    /// Resume the sessions of earlier connections of this run, rather than have the server prove each time who it is.
    #[arg(long, help_heading = "Load")]
    pub resume: bool,

    /// With --handshakes, make a request on each connection before closing it, and resume sessions as with --resume: those
    /// of resumed ones are sent as 0-RTT data, before the handshake is complete, if the server allows it (RFC 9001 §4.6).
    #[arg(long, requires = "handshakes", help_heading = "Load")]
    pub early_data: bool,

    /// Number of connections to spread the requests over.
    #[arg(long, value_name = "N", value_parser = values::number::<u32>(1, u32::MAX.into()), default_value_t = 1)]
    #[arg(help_heading = "Load")]
    pub connections: u32,

    /// Number of UDP source ports from which each core opens its connections in turn: a server's NIC steers all packets
    /// from one port to the same queue [default: 1; with --cores, up to 64].
    #[arg(long, value_name = "N", value_parser = values::number::<u16>(1, 16_384), help_heading = "Load")]
    pub source_ports: Option<u16>,

    /// Number of requests in flight on each connection.
    #[arg(long, value_name = "N", value_parser = values::number::<u32>(1, u32::MAX.into()), default_value_t = 1)]
    #[arg(help_heading = "Load")]
    pub streams: u32,

    /// Write the results to this file as JSON.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,

    /// Write the latency histogram to this file, for `gannet report`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub hdr: Option<PathBuf>,
}

impl PerfClientArgs {
    /// The total number of requests; `None` if only the duration ends the run.
    pub fn request_limit(&self) -> Option<u64> {
        self.requests.or(if self.duration.is_some() { None } else { Some(1) })
    }
}

/// Arguments of `gannet report`.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = REPORT_EXAMPLES)]
pub struct ReportArgs {
    /// Histogram logs, as written by --hdr.
    #[arg(value_name = "FILE.hdr", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// Output format.
    #[arg(long, value_enum, default_value_t = ReportFormat::Html)]
    pub format: ReportFormat,

    /// The file to write [default: report.html for HTML, standard output for other formats].
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,

    /// Heading of the page.
    #[arg(long, value_name = "TEXT", default_value = "Gannet latency report")]
    pub title: String,
}

/// Output formats of `gannet report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// An HTML page, and a table on standard output.
    Html,
    /// The table only.
    Text,
    /// One line per series: name, number of samples, times in nanoseconds, duration in seconds.
    Csv,
    /// Series, throughput and facts about the machines. `run` describes this machine.
    Json,
}

/// Arguments of `gannet doctor`.
#[derive(Clone, Debug, ClapArgs)]
pub struct DoctorArgs {
    /// CPU that a poll loop will run on. May be repeated [default: a suitable one].
    #[arg(long = "core", value_name = "CPU")]
    pub cores: Vec<usize>,

    /// Memory that a command is to be given with its --memory.
    #[arg(long, value_name = "BYTES", value_parser = values::memory)]
    pub memory: Option<u64>,

    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the hidden `gannet ring`.
#[derive(Clone, Debug, ClapArgs)]
pub struct RingArgs {
    /// Directory whose files are served.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,

    /// Certificate and key.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Number of requests of the latency run.
    #[arg(long, value_name = "N", value_parser = values::number::<u64>(0, u64::MAX), default_value = "0")]
    pub requests: u64,

    /// Directory for the fetched file and the results.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// File below the root to fetch.
    pub file: String,
}

impl Args {
    /// Parses the arguments of this process. On an error, prints it and exits with code 2.
    pub fn load() -> Self {
        Self::try_load_from(std::env::args_os()).unwrap_or_else(|e| e.exit())
    }

    /// The logging options.
    pub fn log(&self) -> LogArgs {
        match &self.command {
            Command::Serve(a) => a.engine.log.clone(),
            Command::Get(a) => a.engine.log.clone(),
            Command::Perf(PerfCommand::Server(a)) => a.engine.log.clone(),
            Command::Perf(PerfCommand::Client(a)) => a.engine.log.clone(),
            Command::Report(_) | Command::Doctor(_) | Command::Ring(_) => LogArgs::default(),
        }
    }

    /// Parses and checks `words`, the program's name first.
    ///
    /// # Errors
    /// Errors of clap, including `--help` and `--version`, and arguments that contradict each other.
    pub fn try_load_from<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<Self, clap::Error> {
        let mut command = with_negative_numbers(Self::command());
        let matches = command.try_get_matches_from_mut(words)?;
        let args = Self::from_arg_matches(&matches).map_err(|e| e.format(&mut command))?;
        args.check().map_err(|why| refusal(&mut command, &matches, why))?;
        Ok(args)
    }

    /// Checks that arguments do not contradict each other.
    fn check(&self) -> Result<(), String> {
        match &self.command {
            Command::Serve(a) => a.engine.check().and_then(|()| a.identity.check()),
            Command::Get(a) => a.engine.check().and_then(|()| a.check()),
            Command::Perf(PerfCommand::Server(a)) => a.engine.check().and_then(|()| a.identity.check()),
            Command::Perf(PerfCommand::Client(a)) => a.engine.check(),
            Command::Report(_) | Command::Doctor(_) | Command::Ring(_) => Ok(()),
        }
    }
}

/// The value names of options that take numbers.
const NUMBERS: &[&str] = &["BYTES", "TIME", "N", "CPU", "LIST", "ID", "UDPPORT"];

/// Lets number options accept values that start with a hyphen, to report a negative number as such rather than as an
/// unknown option.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let is_number = |arg: &clap::Arg| {
        arg.get_value_names().is_some_and(|names| names.iter().any(|n| NUMBERS.contains(&n.as_str())))
    };
    command
        .mut_args(|arg| {
            let number = is_number(&arg);
            if number { arg.allow_hyphen_values(true) } else { arg }
        })
        .mut_subcommands(with_negative_numbers)
}

/// Creates an error that shows the usage of the selected subcommand.
fn refusal(command: &mut clap::Command, mut matches: &clap::ArgMatches, why: String) -> clap::Error {
    command.build();
    let mut command = command;
    while let Some((name, inner)) = matches.subcommand()
        && command.find_subcommand(name).is_some()
    {
        command = command.find_subcommand_mut(name).expect("it is there");
        matches = inner;
    }
    command.error(ErrorKind::ValueValidation, why)
}

impl GetArgs {
    /// Whether the file goes to standard output.
    pub fn to_stdout(&self) -> bool {
        self.output.as_deref() == Some(Path::new("-"))
    }

    /// Checks that all URLs are on one server and that each gets its own file.
    fn check(&self) -> Result<(), String> {
        let Some(first) = self.urls.first() else { return Ok(()) };
        if let Some(other) = self.urls.iter().find(|u| u.authority != first.authority) {
            let (a, b) = (&first.authority, &other.authority);
            return Err(format!("the URLs are on different servers ({a} and {b}): run gannet once for each"));
        }
        if self.to_stdout() && self.urls.len() > 1 {
            return Err("several files cannot all be written to standard output: give a directory with -o".into());
        }
        for (i, u) in self.urls.iter().enumerate() {
            if self.urls[..i].iter().any(|v| v.file_name() == u.file_name()) {
                return Err(format!("two URLs would be written to the same file, '{}'", u.file_name()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "args/tests.rs"]
mod tests;
