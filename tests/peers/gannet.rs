//! The commands of the `gannet` binary as the tests run them, over an AF_PACKET port.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use super::PORT;
use super::netns::End;
use super::process::{Finished, Proc};

/// Whom `gannet get` trusts.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// A certificate authority, PEM.
    Ca(&'a Path),
    /// Anybody.
    Anybody,
}

/// A command line in the making.
#[derive(Debug)]
pub struct Gannet<'a> {
    end: &'a End,
    name: &'static str,
    args: Vec<OsString>,
}

/// The binary that Cargo has just built, or the one that `GANNET_BIN` names.
fn binary() -> OsString {
    std::env::var_os("GANNET_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_gannet").into())
}

/// The URL of `path` on the server at `ip`.
pub fn url(ip: impl Into<IpAddr>, path: &str) -> String {
    format!("https://{}{path}", SocketAddr::new(ip.into(), PORT))
}

impl<'a> Gannet<'a> {
    /// `gannet serve` at `end`, on both of its addresses.
    pub fn serve(end: &'a End, cert: &Path, key: &Path, root: &Path) -> Self {
        let v6 = format!("{}/64", end.v6);
        let port = PORT.to_string();
        let this = Self::new(end, "serve").args(["--addr", &v6, "--listen", &port]);
        this.path("--cert", cert).path("--key", key).path("--root", root)
    }

    /// `gannet get` at `end` of `urls` into `out`, from whichever of its addresses fits them.
    pub fn get(end: &'a End, trust: Trust<'_>, out: &Path, urls: &[String]) -> Self {
        let v6 = urls.first().is_some_and(|u| u.contains('[')).then(|| format!("{}/64", end.v6));
        let this = Self::new(end, "get").args(v6.iter().flat_map(|v6| ["--addr", v6]));
        let this = match trust {
            Trust::Ca(pem) => this.path("--ca", pem),
            Trust::Anybody => this.args(["--insecure"]),
        };
        this.args(["--sha256"]).path("-o", out).args(urls)
    }

    /// `gannet perf server` at `end`.
    pub fn perf_server(end: &'a End, cert: &Path, key: &Path) -> Self {
        let port = PORT.to_string();
        Self::new(end, "perf server").args(["--listen", &port]).path("--cert", cert).path("--key", key)
    }

    /// `gannet perf client` at `end`, against the server at `ip`.
    pub fn perf_client(end: &'a End, ip: impl Into<IpAddr>) -> Self {
        let server = SocketAddr::new(ip.into(), PORT).to_string();
        Self::new(end, "perf client").args(["--insecure", "--connect", &server])
    }

    fn new(end: &'a End, command: &'static str) -> Self {
        let iface = format!("iface={}", end.iface);
        let v4 = format!("{}/24", end.v4);
        let this = Self { end, name: command, args: command.split(' ').map(OsString::from).collect() };
        let this = this.args(["--port", "af-packet", "--set", &iface, "--addr", &v4]);
        if end.mtu == 1500 { this } else { this.args(["--set", &format!("mtu={}", end.mtu)]) }
    }

    /// More arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().into()));
        self
    }

    /// An option whose value is a path.
    pub fn path(mut self, option: &str, path: &Path) -> Self {
        self.args.extend([option.into(), path.into()]);
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Proc {
        self.spawn_with(Stdio::piped())
    }

    /// The same with something else as its stderr.
    pub fn spawn_with(self, stderr: Stdio) -> Proc {
        let mut command = self.end.command(binary());
        command.args(&self.args);
        Proc::spawn_with(&format!("gannet {}", self.name), command, stderr)
    }

    /// Runs it to its end within a line of a shell, in which it is called `"$@"`.
    pub fn run_in(self, script: &str) -> Finished {
        let mut command = self.end.command("sh");
        command.args(["-c", script, "sh"]).arg(binary()).args(&self.args);
        Proc::spawn(&format!("gannet {}", self.name), command).wait()
    }

    /// Starts it within a script that calls it `"$@"`, which a shell runs on a terminal of its own. Killing the process
    /// closes the terminal.
    pub fn spawn_on_terminal(self, script: &Path) -> Proc {
        let words = [OsString::from("sh"), script.into(), binary()].into_iter().chain(self.args);
        let quoted = words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        let mut command = self.end.command("script");
        command.args(["--quiet", "--command", &format!("exec {quoted}"), "/dev/null"]);
        Proc::spawn(&format!("gannet {}", self.name), command)
    }

    /// Starts it and returns once its port is up.
    pub fn ready(self) -> Proc {
        let server = self.spawn();
        server.wait_line("ready");
        server
    }

    /// Runs it to its end.
    pub fn run(self) -> Finished {
        self.spawn().wait()
    }
}
