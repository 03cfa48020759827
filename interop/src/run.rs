//! `gannet-interop run`: plays cells one after another.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use crate::cases::{self, Case};
use crate::error::{About, Result};
use crate::matrix::{Cell, Matrix, Role, Verdict};
use crate::peer::{self, Peer};
use crate::play::{Outcome, Programs, play};
use crate::{interrupt, lab};

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Only these cells: PEER/CASE/ROLE, where an empty or missing part stands for all. ROLE is Gannet's: client or
    /// server. May be repeated
    #[arg(long, value_name = "PEER/CASE/ROLE")]
    pub only: Vec<String>,
    /// The seed of all that is random on the links
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// A dozen cases with quinn and aioquic, in less than two minutes
    #[arg(long)]
    pub quick: bool,
    /// Play each peer with itself, without Gannet
    #[arg(long)]
    pub itself: bool,
    /// The `gannet` command
    #[arg(long, value_name = "FILE")]
    pub gannet: PathBuf,
    /// The directory for results: DIR.json, DIR.html, and what is left of cells that failed in DIR
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Keep logs, captures and secrets of all cells
    #[arg(long)]
    pub keep: bool,
    /// Do not play peers with themselves when a cell fails
    #[arg(long)]
    pub no_blame: bool,
}

/// The cases of a quick run. What they lose does not decide whether they pass: with 30 % of loss, one handshake in some
/// hundreds takes longer than peers wait.
const QUICK: [&str; 13] = [
    "handshake",
    "transfer",
    "chacha20",
    "multiplexing",
    "retry",
    "amplificationlimit",
    "earlyloss",
    "transferloss",
    "transfercorruption",
    "ipv6",
    "reset",
    "exactsizes",
    "mtu1280",
];

/// Which cells to play.
#[derive(Clone, Debug)]
struct Filter(Vec<[String; 3]>);

impl Filter {
    fn new(only: &[String]) -> Self {
        let part = |text: &str, at: usize| text.split('/').nth(at).unwrap_or_default().to_owned();
        Self(only.iter().map(|text| [0, 1, 2].map(|at| part(text, at))).collect())
    }

    fn allows(&self, peer: Peer, case: &str, role: Role) -> bool {
        let names = [peer.name(), case, role.name()];
        let fits = |pattern: &[String; 3]| pattern.iter().zip(names).all(|(p, name)| p.is_empty() || p == name);
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

/// The cells of a run.
fn cells(args: &RunArgs, cases: &[Case]) -> Vec<(Peer, usize, Role)> {
    let filter = Filter::new(&args.only);
    let mut all = Vec::new();
    for peer in Peer::OTHERS {
        if args.quick && !matches!(peer, Peer::Quinn | Peer::Aioquic) {
            continue;
        }
        for (at, case) in cases.iter().enumerate() {
            if args.quick && !QUICK.contains(&case.name) {
                continue;
            }
            let roles: &[Role] = if args.itself { &[Role::Itself] } else { &[Role::Client, Role::Server] };
            for role in roles {
                let fits = match role {
                    Role::Client => case.gannet_gets,
                    Role::Server => case.gannet_serves,
                    Role::Itself => case.suits_all(),
                };
                if fits && filter.allows(peer, case.name, *role) {
                    all.push((peer, at, *role));
                }
            }
        }
    }
    all
}

/// Plays all cells.
///
/// # Errors
/// If a cell fails, a peer cannot be built, or a signal arrives.
pub fn run(args: &RunArgs) -> Result<()> {
    let cases = cases::all();
    let cells = cells(args, &cases);
    if cells.is_empty() {
        return Err("no cell fits; see `gannet-interop list`".into());
    }
    lab::remove_stale();
    let mut programs = Programs { gannet: args.gannet.clone(), peers: Vec::new() };
    for (peer, ..) in &cells {
        if !programs.peers.iter().any(|(one, _)| one == peer) {
            programs.peers.push((*peer, peer::build(*peer)?));
        }
    }
    let _ = fs::remove_dir_all(&args.out);
    fs::create_dir_all(&args.out).about(|| args.out.display().to_string())?;
    let mut matrix = Matrix { seed: args.seed, cells: Vec::new() };
    let start = Instant::now();
    for (peer, at, role) in cells {
        let cell = one(args, &programs, &cases[at], peer, role)?;
        let words = cell.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let verdict = match cell.verdict {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAILED",
            Verdict::PeerFails => "peer fails",
            Verdict::PeerCannot | Verdict::GannetCannot => "cannot",
        };
        println!("{verdict:<10} {:>5.1} s  {}/{}/{}{words}", cell.seconds, peer.name(), cell.case, role.name());
        matrix.cells.push(cell);
        matrix.write(&args.out, &cases)?;
    }
    println!("{} in {:.0} s", matrix.summary(), start.elapsed().as_secs_f64());
    println!("the matrix: {}", args.out.with_extension("html").display());
    match matrix.count(&Verdict::Failed) {
        0 => Ok(()),
        failed => Err(format!("{failed} cells failed; logs and captures are in {}", args.out.display()).into()),
    }
}

fn one(args: &RunArgs, programs: &Programs, case: &Case, peer: Peer, role: Role) -> Result<Cell> {
    let start = Instant::now();
    let (client, server) = role.ends(peer);
    let outcome = kept(args, programs, case, client, server)?;
    let mut cell = Cell {
        peer,
        case: case.name,
        role,
        verdict: Verdict::Passed,
        why: None,
        with_itself: None,
        seconds: start.elapsed().as_secs_f64(),
    };
    match outcome {
        Outcome::Passed => {}
        Outcome::Unsupported(who) => {
            let gannet = who == Peer::Gannet;
            cell.verdict = if gannet { Verdict::GannetCannot } else { Verdict::PeerCannot };
            cell.why = Some(who.limit(case.testcase).into());
        }
        Outcome::Failed(why) => {
            (cell.verdict, cell.why) = (Verdict::Failed, Some(why));
            if !args.no_blame && role != Role::Itself && case.suits_all() {
                let alone = kept(args, programs, case, peer, peer)?;
                cell.with_itself = Some(match &alone {
                    Outcome::Passed => "passes".into(),
                    Outcome::Unsupported(_) => "cannot do it".into(),
                    Outcome::Failed(why) => why.clone(),
                });
                if matches!(alone, Outcome::Failed(_)) {
                    cell.verdict = Verdict::PeerFails;
                }
            }
        }
    }
    Ok(cell)
}

/// Plays a case; what is left of it is kept if it fails.
fn kept(args: &RunArgs, programs: &Programs, case: &Case, client: Peer, server: Peer) -> Result<Outcome> {
    interrupt::check()?;
    let dir = TempDir::with_prefix("gannet-interop-")?;
    let outcome = play(case, client, server, programs, args.seed, dir.path())?;
    if args.keep || matches!(outcome, Outcome::Failed(_)) {
        let to = args.out.join(format!("{}-{}-{}", case.name, client.name(), server.name()));
        for name in ["www", "downloads"] {
            let _ = fs::remove_dir_all(dir.path().join(name));
        }
        copy(dir.path(), &to)?;
    }
    Ok(outcome)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).about(|| to.display().to_string())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).about(|| target.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(only: &[&str], quick: bool) -> RunArgs {
        RunArgs {
            only: only.iter().map(|&o| o.to_owned()).collect(),
            seed: 1,
            quick,
            itself: false,
            gannet: PathBuf::new(),
            out: PathBuf::new(),
            keep: false,
            no_blame: false,
        }
    }

    #[test]
    fn cells_are_chosen() {
        let cases = cases::all();
        let count = |only: &[&str], quick| cells(&args(only, quick), &cases).len();
        assert_eq!(count(&["quinn/transfer/client"], false), 1);
        assert_eq!(count(&["quinn/transfer"], false), 2);
        assert_eq!(count(&["/transfer/client"], false), Peer::OTHERS.len());
        assert_eq!(count(&["quinn/badalpn"], false), 1);
        assert_eq!(count(&["nobody"], false), 0);
        assert_eq!(count(&[], true), 2 * 2 * QUICK.len());
        assert!(QUICK.iter().all(|name| cases.iter().any(|case| case.name == *name)));
    }
}
