//! `cargo xtask exits`: starts and stops every command many times on a machine that has too few CPUs for it, and shows that
//! each of them ends.

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

/// What `cargo xtask exits` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct ExitsArgs {
    /// How often each command is started and stopped
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub times: u32,
    /// Threads that want CPUs all the while [default: twice as many as there are CPUs]
    #[arg(long, value_name = "N")]
    pub hogs: Option<usize>,
    /// Only the commands whose name contains this
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Use this program instead of building one
    #[arg(long, value_name = "FILE")]
    pub gannet: Option<PathBuf>,
}

/// What is started, and how it ends.
struct Play {
    name: &'static str,
    args: Vec<String>,
    /// What runs on the other side all the while.
    server: Option<&'static str>,
    /// Ended by SIGTERM, once it has said this line, or by itself.
    stop: Stop,
}

enum Stop {
    /// It ends by itself, with 0.
    Itself,
    /// SIGTERM comes at any time after it has said `ready`.
    Ready,
    /// SIGTERM comes at any time.
    Anytime,
}

/// SIGTERM comes so long after a start at the most, each time at another moment: before the port is open, or well into
/// what it is there for.
const SINCE_START: Duration = Duration::from_secs(2);

/// The same after it has said that it is ready.
const SINCE_READY: Duration = Duration::from_millis(400);

/// The command.
///
/// # Errors
/// The program cannot be built or started, a command does not end in time or ends with the wrong code, or a signal comes.
pub fn run(args: &ExitsArgs) -> Result<()> {
    let gannet = match &args.gannet {
        Some(path) => Gannet::at(path)?,
        None => Gannet::build()?,
    };
    // All of it goes in the end; several runs at a time have one each.
    let dir = SocketDir::new()?;
    let root = dir.path().join("root");
    fs::create_dir_all(&root).map_err(Error::path("make", &root))?;
    // It takes no room, and longer to fetch than SIGTERM lets it.
    for (name, size) in [("small", 1 << 20), ("large", 8 << 30)] {
        let path = root.join(name);
        File::create(&path).and_then(|file| file.set_len(size)).map_err(Error::path("write", &path))?;
    }
    let certs = certs::make(dir.path())?;
    let stage = Stage { gannet, root, certs, socket: dir.path().join("exits.sock") };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let hogs = Hogs::start(args.hogs.unwrap_or(2 * cpus));
    println!("{} times each, on {cpus} CPUs with {} threads that want them", args.times, hogs.count());
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

    fn command(&self, args: &[String]) -> Command {
        let mut command = self.gannet.command(None);
        command.args(args);
        command
    }

    /// How long each end took.
    fn play(&self, play: &Play, times: u32) -> Result<Vec<Duration>> {
        let mut server = match play.server {
            Some(name) => {
                let mut server = Watched::start(name, self.command(&self.server(name)))?;
                server.wait_ready()?;
                Some(server)
            }
            None => None,
        };
        let mut took = Vec::new();
        for n in 0..times {
            interrupt::check()?;
            let mut process = Watched::start(play.name, self.command(&play.args))?;
            let end = match play.stop {
                Stop::Itself => process.wait()?,
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

/// When SIGTERM comes in the `n`th turn, within `spread`: at all times, and the same in each run.
fn moment(n: u32, spread: Duration) -> Duration {
    spread * (n.wrapping_mul(37) % 100) / 100
}

/// Whether a command has ended as it should: servers with 0, clients that were interrupted with 1, and with the signal what
/// was not yet ready for one.
fn check(play: &Play, end: &End) -> Result<()> {
    let fine = match (&play.stop, end.code) {
        (_, Some(0)) => true,
        (Stop::Anytime, Some(1)) => true,
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
