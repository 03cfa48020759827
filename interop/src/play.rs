//! One case between two implementations.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::gannet::base::rng::Rng;

use crate::cases::{self, Case, Ending, Served};
use crate::certs::Certs;
use crate::error::{About, Result};
use crate::evidence::Evidence;
use crate::gannet;
use crate::lab::{End, Lab, PORT, PREFERRED, Stack};
use crate::middle::{Middle, Place};
use crate::peer::{Peer, Program};
use crate::process::Process;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server may take to start, and to end.
const SHORT: Duration = Duration::from_secs(20);

/// How long a client of a server that was killed may take.
const NOTICE: Duration = Duration::from_secs(30);

/// Datagrams of the server after which it is killed.
const SOME: u64 = 300;

/// The exit code for a case that a program cannot do.
const UNSUPPORTED: i32 = 127;

/// What the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `gannet` command.
    pub gannet: PathBuf,
    /// The peers that have been built.
    pub peers: Vec<(Peer, Program)>,
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// It did not.
    Failed(String),
    /// One cannot do it.
    Unsupported(Peer),
}

/// Plays a case in `dir`, which is left with logs, captures and secrets.
///
/// # Errors
/// If a signal arrives, or the lab cannot be made.
pub fn play(case: &Case, client: Peer, server: Peer, programs: &Programs, seed: u64, dir: &Path) -> Result<Outcome> {
    let bypass = |peer| peer == Peer::Gannet && !case.image;
    let stack = |peer| if bypass(peer) { Stack::Bypass } else { Stack::Kernel };
    let lab = Lab::new(stack(client), stack(server), case.mtu)?;
    for name in ["certs", "www", "downloads", "server.qlog", "client.qlog"] {
        fs::create_dir_all(dir.join(name)).about(|| name.into())?;
    }
    let certs = Certs::new(&dir.join("certs"), case.big_chain)?;
    let files = (case.files)();
    write_files(&files, &dir.join("www"), seed)?;
    let play = Play { case, client, server, programs, dir, lab: &lab, certs: &certs, files: &files };
    match play.run(seed) {
        Ok(outcome) => Ok(outcome),
        Err(error) => {
            crate::interrupt::check()?;
            Ok(Outcome::Failed(error.to_string()))
        }
    }
}

struct Play<'a> {
    case: &'a Case,
    client: Peer,
    server: Peer,
    programs: &'a Programs,
    dir: &'a Path,
    lab: &'a Lab,
    certs: &'a Certs,
    files: &'a [Served],
}

impl Play<'_> {
    fn run(&self, seed: u64) -> Result<Outcome> {
        let place =
            Place { ns: Some(self.lab.middle.clone()), to_client: "to-client".into(), to_server: "to-server".into() };
        let Some(serve) = self.server_command()? else { return Ok(Outcome::Unsupported(self.server)) };
        let Some(runs) = self.client_commands()? else { return Ok(Outcome::Unsupported(self.client)) };
        let mut server = Process::start(self.server.name(), serve, &self.dir.join("server.log"))?;
        if let Err(error) = server.wait_line("ready", SHORT) {
            return if code(&mut server)? == Some(UNSUPPORTED) {
                Ok(Outcome::Unsupported(self.server))
            } else {
                Err(error)
            };
        }
        if self.server == Peer::Tquic {
            // Its script says so before the socket is bound.
            std::thread::sleep(Duration::from_millis(300));
        }
        let middle = Middle::start(&place, &(self.case.link)(), seed, Some(self.dir))?;
        let killed = self.case.ending == Ending::ServerKilled;
        let mut all = true;
        let mut server = Some(server);
        for run in runs {
            let mut client = Process::start(self.client.name(), run, &self.dir.join("client.log"))?;
            if killed {
                while middle.server_datagrams() < SOME {
                    if client.wait(Duration::from_millis(5))?.is_some() {
                        return Err("the client ended before the server was killed".into());
                    }
                }
                drop(server.take());
            }
            let limit = if killed { NOTICE } else { PATIENCE };
            let Some(status) = client.wait(limit)? else {
                return Err(format!("the client had not finished after {} s", limit.as_secs()).into());
            };
            match status.code() {
                Some(UNSUPPORTED) => return Ok(Outcome::Unsupported(self.client)),
                Some(0) => {}
                Some(_) => all = false,
                None => return Err(format!("the client was ended by a signal: {status}").into()),
            }
        }
        self.ended_as_expected(all)?;
        if let Some(mut server) = server {
            if let Some(status) = server.poll()? {
                return Err(format!("the server has ended: {status}").into());
            }
            let stopped = server.stop(SHORT)?;
            if self.server == Peer::Gannet && !stopped.is_some_and(|status| status.success()) {
                return Err(format!("Gannet did not end in order: {stopped:?}").into());
            }
        }
        let view = middle.finish()?;
        let evidence = Evidence { client: self.client, server: self.server, view, dir: self.dir };
        fs::write(self.dir.join("sight.json"), serde_json::to_string_pretty(evidence.sight())?)?;
        fs::write(self.dir.join("forwarder.txt"), format!("{:#?}\n", evidence.view.stats))?;
        cases::common(self.case, &evidence)?;
        (self.case.check)(&evidence)?;
        Ok(Outcome::Passed)
    }

    fn ended_as_expected(&self, all: bool) -> Result<()> {
        let wanted = match self.case.ending {
            Ending::Success | Ending::FirstStopped => true,
            Ending::OneMissing | Ending::Refused | Ending::ServerKilled => false,
        };
        if all != wanted {
            let how = if all { "success" } else { "a failure" };
            return Err(format!("the client reports {how}").into());
        }
        let (www, downloads) = (self.dir.join("www"), self.dir.join("downloads"));
        for file in self.expected() {
            let want = fs::read(www.join(&file.name))?;
            let got = fs::read(downloads.join(&file.name)).about(|| format!("{} is not there", file.name))?;
            if want != got {
                return Err(format!("{} differs: {} bytes instead of {}", file.name, got.len(), want.len()).into());
            }
        }
        if self.case.ending == Ending::ServerKilled
            && self.client == Peer::Gannet
            && fs::read_dir(&downloads)?.count() > 0
        {
            return Err("the client has left a file".into());
        }
        Ok(())
    }

    /// The files that arrive.
    fn expected(&self) -> &[Served] {
        match self.case.ending {
            Ending::Success | Ending::OneMissing => self.files,
            Ending::FirstStopped => &self.files[1..],
            Ending::Refused | Ending::ServerKilled => &[],
        }
    }

    fn urls(&self) -> Vec<String> {
        let server = SocketAddr::new(self.lab.server.ip(self.case.v6), PORT);
        let mut names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        if self.case.ending == Ending::OneMissing {
            names.insert(1, "missing");
        }
        if names.is_empty() {
            // Only the server matters.
            names.push("");
        }
        names.into_iter().map(|name| format!("https://{server}/{name}")).collect()
    }

    fn server_command(&self) -> Result<Option<Command>> {
        if self.server == Peer::Gannet {
            return Ok(gannet::serve(&self.programs.gannet, self.lab, self.case, self.certs, self.dir));
        }
        let testcase = self.case.server.unwrap_or(self.case.testcase);
        let mut command = self.peer_command(self.server, &self.lab.server, "server", testcase)?;
        command.env("LISTEN", SocketAddr::new(self.lab.server.ip(self.case.v6), PORT).to_string());
        command.env("CERT", &self.certs.cert).env("KEY", &self.certs.key).env("WWW", self.dir.join("www"));
        command.env("PREFERRED", format!("{PREFERRED}:{PORT}"));
        if testcase == "datagrams" {
            command.env("ALPN", self.case.alpn);
        }
        Ok(Some(command))
    }

    fn client_commands(&self) -> Result<Option<Vec<Command>>> {
        let urls = self.urls();
        if self.client == Peer::Gannet {
            return Ok(gannet::get(&self.programs.gannet, self.lab, self.case, self.certs, self.dir, &urls));
        }
        let mut command = self.peer_command(self.client, &self.lab.client, "client", self.case.testcase)?;
        command.env("REQUESTS", urls.join(" ")).env("ALPN", self.case.alpn);
        command.env("CA", &self.certs.ca).env("DOWNLOADS", self.dir.join("downloads"));
        Ok(Some(vec![command]))
    }

    fn peer_command(&self, peer: Peer, end: &End, role: &str, testcase: &str) -> Result<Command> {
        let program = self.programs.peers.iter().find(|(one, _)| *one == peer).map(|(_, program)| program);
        let program = program.ok_or_else(|| format!("{} has not been built", peer.name()))?;
        program.command(end, self.lab.mtu, role, testcase, self.dir)
    }
}

fn code(process: &mut Process) -> Result<Option<i32>> {
    Ok(process.wait(Duration::from_millis(200))?.and_then(|status| status.code()))
}

/// Writes files of bytes that follow from the seed.
fn write_files(files: &[Served], dir: &Path, seed: u64) -> Result<()> {
    let mut rng = Rng::from_u64(seed);
    for file in files {
        let mut bytes = vec![0; usize::try_from(file.size)?];
        rng.fill(&mut bytes);
        fs::write(dir.join(&file.name), bytes).about(|| file.name.clone())?;
    }
    Ok(())
}
