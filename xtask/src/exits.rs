//! `cargo xtask exits`: starts and stops every command many times on an overcommitted machine, and checks that each of
//! them ends.

mod hogs;
mod process;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::demo::{certs, gannet::Gannet, guards::SocketDir, wire};
use crate::error::{Error, Result};
use crate::interrupt;
use hogs::Hogs;
use process::{End, Watched};

/// Arguments of `cargo xtask exits`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExitsArgs {
    /// How often each command is started and stopped
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub times: u32,
    /// Threads that constantly use a CPU [default: twice as many as there are CPUs]
    #[arg(long, value_name = "N")]
    pub hogs: Option<usize>,
    /// Only the commands whose name contains this
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Use this program instead of building one
    #[arg(long, value_name = "FILE")]
    pub gannet: Option<PathBuf>,
}

/// A command and how it ends.
struct Play {
    name: &'static str,
    args: Vec<String>,
    /// The server that runs on the other side meanwhile.
    server: Option<&'static str>,
    /// How it ends.
    stop: Stop,
}

enum Stop {
    /// By itself, with code 0.
    Itself,
    /// By itself, with code 0, or with 1 if it finds problems.
    Finding,
    /// By SIGTERM at a random time after its `ready` line.
    Ready,
    /// By SIGTERM at a random time.
    Anytime,
}

/// The maximum time from the start to SIGTERM, which varies: from before the port is open to well into its work.
const SINCE_START: Duration = Duration::from_secs(2);

/// The same from its `ready` line.
const SINCE_READY: Duration = Duration::from_millis(400);

/// Runs the command.
///
/// # Errors
/// If the program cannot be built or started, a command does not end in time or ends with the wrong code, or a signal
/// arrives.
pub fn run(args: &ExitsArgs) -> Result<()> {
    let gannet = match &args.gannet {
        Some(path) => Gannet::at(path)?,
        None => Gannet::build()?,
    };
    // Removed at the end; concurrent runs have separate ones.
    let dir = SocketDir::new()?;
    let root = dir.path().join("root");
    fs::create_dir_all(&root).map_err(Error::path("make", &root))?;
    // A sparse file, which takes longer to fetch than the time until SIGTERM.
    for (name, size) in [("small", 1 << 20), ("large", 8 << 30)] {
        let path = root.join(name);
        File::create(&path).and_then(|file| file.set_len(size)).map_err(Error::path("write", &path))?;
    }
    let certs = certs::make(dir.path())?;
    let stage = Stage { gannet, root, certs, socket: dir.path().join("exits.sock") };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let hogs = Hogs::start(args.hogs.unwrap_or(2 * cpus));
    println!("{} times each, on {cpus} CPUs with {} busy threads", args.times, hogs.count());
    println!("{:<28}{:>8}{:>16}{:>16}", "command", "times", "median end", "longest end");
    let wanted = |play: &Play| args.only.as_ref().is_none_or(|only| play.name.contains(only.as_str()));
    for play in stage.plays().iter().filter(|play| wanted(play)) {
        let mut took = stage.play(play, args.times)?;
        took.sort();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        println!("{:<28}{:>8}{:>16}{:>16}", play.name, took.len(), ms(median), ms(longest));
    }
    Ok(())
}

struct Stage {
    gannet: Gannet,
    root: PathBuf,
    certs: certs::Paths,
    socket: PathBuf,
}

impl Stage {
    fn plays(&self) -> Vec<Play> {
        let get = |suite: &str, name: &str| {
            let url = format!("https://{}/{name}", wire::SERVER);
            self.client("get", &["--suite", suite, "-o", "/dev/null", &url])
        };
        let perf = |more: &[&str]| self.client("perf client", &[&["--connect", wire::SERVER], more].concat());
        let play = |name, args, server, stop| Play { name, args, server, stop };
        let mut plays = vec![
            play("serve", self.server("serve"), None, Stop::Ready),
            play("perf server", self.server("perf server"), None, Stop::Ready),
            play("serve, at any time", self.server("serve"), None, Stop::Anytime),
        ];
        for (suite, [whole, cut]) in [
            ("aes128", ["get aes128", "get aes128, at any time"]),
            ("chacha20", ["get chacha20", "get chacha20, at any time"]),
        ] {
            plays.push(play(whole, get(suite, "small"), Some("serve"), Stop::Itself));
            plays.push(play(cut, get(suite, "large"), Some("serve"), Stop::Anytime));
        }
        let (load, long) = (perf(&["--requests", "100"]), perf(&["--download", "1K", "--duration", "60s"]));
        plays.push(play("perf client", load, Some("perf server"), Stop::Itself));
        plays.push(play("perf client, at any time", long, Some("perf server"), Stop::Anytime));
        plays.push(play("doctor", vec!["doctor".into()], None, Stop::Finding));
        plays.push(play("doctor, at any time", vec!["doctor".into()], None, Stop::Anytime));
        plays.push(play("report", self.report(), None, Stop::Itself));
        plays.push(play("report, at any time", self.report(), None, Stop::Anytime));
        plays
    }

    fn port(&self, role: &str, addr: &str) -> Vec<String> {
        let socket = format!("socket={}", self.socket.display());
        let role = format!("role={role}");
        ["--port", "memif", "--set", &role, "--set", &socket, "--addr", addr].map(String::from).to_vec()
    }

    fn server(&self, command: &str) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut args: Vec<String> = command.split(' ').map(String::from).collect();
        args.extend(self.port("server", wire::SERVER_ADDR));
        args.extend(["--listen", wire::LISTEN, "--cert"].map(String::from));
        args.extend([path(&self.certs.cert), "--key".into(), path(&self.certs.key)]);
        if command == "serve" {
            args.extend(["--root".into(), path(&self.root)]);
        }
        args
    }

    fn client(&self, command: &str, more: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = command.split(' ').map(String::from).collect();
        args.extend(self.port("client", wire::CLIENT_ADDR));
        args.extend(["--quiet".into(), "--ca".into(), self.certs.ca.display().to_string()]);
        args.extend(more.iter().map(|word| (*word).to_owned()));
        args
    }

    fn report(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        vec!["report".into(), "-o".into(), path(&self.root.with_file_name("report.html")), path(&self.latencies())]
    }

    /// The file that `report` reads.
    fn latencies(&self) -> PathBuf {
        self.root.with_file_name("latencies.hdr")
    }

    /// Makes that file.
    fn measure(&self) -> Result<()> {
        let mut server = Watched::start("perf server", self.command(&self.server("perf server")))?;
        server.wait_ready()?;
        let hdr = self.latencies().display().to_string();
        let more = ["--connect", wire::SERVER, "--requests", "1000", "--hdr", &hdr];
        let mut client = Watched::start("perf client", self.command(&self.client("perf client", &more)))?;
        let end = client.wait()?;
        server.terminate()?;
        if end.code == Some(0) { Ok(()) } else { Err(Error::Unmet(format!("perf client failed:\n{}", end.said))) }
    }

    fn command(&self, args: &[String]) -> Command {
        let mut command = self.gannet.command(None);
        command.args(args);
        command
    }

    /// Runs a play `times` times, and returns how long each end took.
    fn play(&self, play: &Play, times: u32) -> Result<Vec<Duration>> {
        let mut server = match play.server {
            Some(name) => {
                let mut server = Watched::start(name, self.command(&self.server(name)))?;
                server.wait_ready()?;
                Some(server)
            }
            None => None,
        };
        if play.args.first().is_some_and(|command| command == "report") {
            self.measure()?;
        }
        let mut took = Vec::new();
        for n in 0..times {
            interrupt::check()?;
            let mut process = Watched::start(play.name, self.command(&play.args))?;
            let end = match play.stop {
                Stop::Itself | Stop::Finding => process.wait()?,
                Stop::Ready => {
                    process.wait_ready()?;
                    std::thread::sleep(moment(n, SINCE_READY));
                    process.terminate()?
                }
                Stop::Anytime => {
                    std::thread::sleep(moment(n, SINCE_START));
                    process.terminate()?
                }
            };
            check(play, &end)?;
            took.push(end.took);
        }
        if let Some(server) = &mut server {
            server.terminate()?;
        }
        Ok(took)
    }
}

/// The time of SIGTERM in turn `n`, within `spread`: evenly distributed, and the same in each run.
fn moment(n: u32, spread: Duration) -> Duration {
    spread * (n.wrapping_mul(37) % 100) / 100
}

/// Checks that a command ended as expected: servers with 0, interrupted clients with 1, and commands not yet ready for
/// the signal by the signal.
fn check(play: &Play, end: &End) -> Result<()> {
    let fine = match (&play.stop, end.code) {
        (_, Some(0)) => true,
        (Stop::Anytime | Stop::Finding, Some(1)) => true,
        (Stop::Anytime, None) => end.signal == Some(signal_hook::consts::SIGTERM),
        _ => false,
    };
    if fine {
        return Ok(());
    }
    Err(Error::Unmet(format!("{} ended with {:?} (signal {:?}):\n{}", play.name, end.code, end.signal, end.said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_at_all_times() {
        let mut all: Vec<_> = (0..100).map(|n| moment(n, SINCE_READY)).collect();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), all[0]), (100, Duration::ZERO));
        assert!(all[99] < SINCE_READY);
    }
}
