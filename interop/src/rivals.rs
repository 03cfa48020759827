//! `gannet-interop rivals`: does a peer receive as fast from Gannet as from itself, on a path that loses packets?
//!
//! The peer's client gets a file from `gannet serve`, with CUBIC and with BBR, and from its own server, through the
//! forwarder with the same seeds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ::gannet::sim::forwarder::{ForwarderConfig, PER_MILLE, Shape};

use crate::error::{About, Result};
use crate::lab::{self, PORT, Stack};
use crate::peer::{self, Peer, Program};
use crate::transfer::{FILE, Stage, Transfer, each, median};
use crate::{gannet, interrupt};

/// Rate of the bottleneck in bit/s: what two processes and a forwarder carry on two slow CPUs without being the limit.
const RATE: u64 = 50_000_000;

/// The queue in bytes, much more than rate times round-trip time: only random losses count.
const QUEUE: u64 = 256 << 10;

/// Round-trip times: below the usual delay of acknowledgements, 25 ms.
const ROUND_TRIPS: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];

/// The size of the file in bytes.
const BYTES: usize = 5_000_000;

/// Gannet may be slower by this ratio: the seeds are the same, but the packets that are lost are not.
const TOLERANCE: f64 = 0.1;

/// Arguments of `rivals`.
#[derive(Clone, Debug, clap::Args)]
pub struct RivalsArgs {
    /// The peers [default: s2n-quic, quinn]
    pub peers: Vec<Peer>,
    /// The seed of the first transfer; each further one has the next
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Transfers from each server over each path. Medians are compared
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// The share of packets to the client that are lost, per mille
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..1000))]
    pub loss: u64,
    /// The `gannet` command
    #[arg(long, value_name = "FILE")]
    pub gannet: PathBuf,
    /// Let Gannet write qlog files there
    #[arg(long, value_name = "DIR")]
    pub qlog: Option<PathBuf>,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// `gannet serve` with this algorithm.
    Gannet(&'static str),
    /// The peer.
    Itself,
}

/// Plays all transfers and prints a table.
///
/// # Errors
/// If a transfer fails, a peer gets its files faster from itself, or a signal arrives.
pub fn run(args: &RivalsArgs) -> Result<()> {
    let peers = if args.peers.is_empty() { vec![Peer::S2nQuic, Peer::Quinn] } else { args.peers.clone() };
    let peers: Vec<(Peer, Program)> =
        peers.into_iter().map(|peer| Ok((peer, peer::build(peer)?))).collect::<Result<_>>()?;
    lab::remove_stale();
    println!("{:<12}{:>6}  {:<8}{:>8}{:>7}  each", "peer", "RTT", "sender", "Mbit/s", "ratio");
    let mut slower = Vec::new();
    for (peer, program) in &peers {
        for rtt in ROUND_TRIPS {
            let mut itself = None;
            for sender in [Sender::Itself, Sender::Gannet("cubic"), Sender::Gannet("bbr")] {
                let mut rates = Vec::new();
                for seed in (args.seed..).take(args.repeats as usize) {
                    interrupt::check()?;
                    let name = || format!("{} from {sender:?} in {rtt:?} with seed {seed}", peer.name());
                    rates.push(transfer(args, program, sender, rtt, seed).about(name)?);
                }
                let rate = median(&rates);
                let ratio = rate / *itself.get_or_insert(rate);
                let (peer, rtt, from) = (peer.name(), format!("{} ms", rtt.as_millis()), sender.name());
                let each = each(&rates);
                let mark = if ratio < 1.0 - TOLERANCE { "  SLOWER" } else { "" };
                println!("{peer:<12}{rtt:>6}  {from:<8}{rate:>8.1}{ratio:>7.2}  {each}{mark}");
                if !mark.is_empty() {
                    slower.push(format!("{peer} from {from} in {rtt}"));
                }
            }
        }
    }
    if slower.is_empty() {
        return Ok(());
    }
    Err(format!("peers receive faster from themselves: {}", slower.join(", ")).into())
}

impl Sender {
    fn name(self) -> &'static str {
        match self {
            Self::Gannet(algorithm) => algorithm,
            Self::Itself => "itself",
        }
    }
}

/// Plays a transfer. Returns its rate in Mbit/s.
fn transfer(args: &RivalsArgs, peer: &Program, sender: Sender, rtt: Duration, seed: u64) -> Result<f64> {
    let up = Shape { delay: rtt / 2, rate: RATE, queue: QUEUE, ..Shape::default() };
    let down = Shape { loss: args.loss * PER_MILLE, ..up.clone() };
    let links = ForwarderConfig { to_server: up, to_client: down, ..ForwarderConfig::default() };
    let server = if sender == Sender::Itself { Stack::Kernel } else { Stack::Bypass };
    let transfer = Transfer { bytes: BYTES, stacks: [Stack::Kernel, server], links, seed };
    transfer.play(|stage| Ok([serve(args, peer, sender, stage)?, get(peer, stage)?]))
}

fn serve(args: &RivalsArgs, peer: &Program, sender: Sender, stage: &Stage<'_>) -> Result<Command> {
    let Stage { lab, certs, www, dir, .. } = stage;
    Ok(match sender {
        Sender::Gannet(algorithm) => {
            let [mut serve, _] = gannet::transfer(&args.gannet, stage, algorithm);
            if let Some(to) = &args.qlog {
                serve.arg("--qlog").arg(to);
            }
            serve
        }
        Sender::Itself => {
            let mut serve = peer.command(&lab.server, lab.mtu, "server", "transfer", dir)?;
            serve.env("LISTEN", SocketAddr::new(lab.server.v4.into(), PORT).to_string());
            serve.env("CERT", &certs.cert).env("KEY", &certs.key).env("WWW", www);
            serve
        }
    })
}

fn get(peer: &Program, stage: &Stage<'_>) -> Result<Command> {
    let Stage { lab, certs, downloads, dir, .. } = stage;
    let mut get = peer.command(&lab.client, lab.mtu, "client", "transfer", dir)?;
    get.env("REQUESTS", format!("https://{}:{PORT}/{FILE}", lab.server.v4)).env("ALPN", "hq-interop");
    get.env("CA", &certs.ca).env("DOWNLOADS", downloads);
    Ok(get)
}
