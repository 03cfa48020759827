//! `cargo xtask demo`: transfers a file between two Gannet processes and compares every byte.

mod args;
pub mod certs;
mod cores;
pub mod gannet;
pub mod guards;
mod netns;
pub mod results;
pub mod source;
pub mod wire;

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::{self, Running, Stderr};
use crate::{setup, workspace};

pub use args::DemoArgs;
use gannet::Gannet;
use results::Results;
use source::Source;
use wire::{End, Link, Wire};

/// The maximum number of bytes of a file that server and client keep in memory.
const MOST_IN_MEMORY: u64 = 1 << 30;

/// How long a server may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// The paths of a demo, all below `--out`.
struct Stage<'a> {
    args: &'a DemoArgs,
    gannet: Gannet,
    out: PathBuf,
    certs: certs::Paths,
    source: Source,
}

/// Runs the command.
///
/// # Errors
/// If a dependency is missing, a process fails or takes too long, the received bytes differ, or a signal arrives. All
/// processes and temporary files are removed in any case.
pub fn run(args: &DemoArgs) -> Result<()> {
    args.check()?;
    if !args.no_setup {
        setup::for_demo()?;
    }
    let gannet = match &args.gannet {
        Some(path) => Gannet::at(path)?,
        None => Gannet::build()?,
    };
    let out = args.out.clone().unwrap_or_else(|| workspace::target().join("demo"));
    fs::create_dir_all(&out).map_err(Error::path("make", &out))?;
    let out = out.canonicalize().map_err(Error::path("find", &out))?;
    let certs = certs::make(&out)?;
    let source = match &args.file {
        Some(file) => Source::existing(file, &out)?,
        None => Source::random(&out, args.size)?,
    };
    println!("source: {} {}", source, source.sha256);
    let stage = Stage { args, gannet, out, certs, source };
    if args.wire == Wire::Ring { stage.run_ring() } else { stage.run_pair() }
}

impl Stage<'_> {
    /// Runs two processes over a wire: first the file, then requests and responses.
    fn run_pair(&self) -> Result<()> {
        let link = Link::prepare(self.args.wire, self.args.mtu)?;
        self.transfer(&link)?;
        if self.args.requests > 0 {
            self.requests(&link)?;
            self.report()?;
        }
        Ok(())
    }

    /// Runs both ends in one process, as `net_ring` requires.
    fn run_ring(&self) -> Result<()> {
        println!("\n== download and {} requests within one process", self.args.requests);
        let mut ring = self.gannet.command(None);
        ring.arg("ring").arg("--root").arg(&self.source.root);
        ring.arg("--cert").arg(&self.certs.cert).arg("--key").arg(&self.certs.key);
        ring.arg("--requests").arg(self.args.requests.to_string()).arg("--out").arg(&self.out);
        ring.arg(source::NAME);
        let received = guards::Removed::unless(self.args.keep, self.out.join(source::NAME));
        let limit = self.transfer_limit() + self.request_limit();
        let lines = Running::start("the ring demo", ring, shown())?.finish(None, limit)?;
        let received = received.path().exists().then_some(received.path());
        self.judge(&Results::parse(&lines), received)?;
        if self.out.join("latency.hdr").exists() { self.report() } else { Ok(()) }
    }

    fn transfer(&self, link: &Link) -> Result<()> {
        println!("\n== download over {}, MTU {}", self.args.wire, self.args.mtu);
        let (server, client) = link.ends("get");
        let cores = cores::pick();
        let mut serve = self.gannet.command(server.namespace.as_deref());
        serve.arg("serve").arg("--root").arg(&self.source.root);
        // There may be only two cores, so files are read before the measurement and written after it.
        let in_memory = self.source.size.min(MOST_IN_MEMORY).to_string();
        serve.args(["--preload", &in_memory]);
        self.server_side(&mut serve, &server, cores.server);
        self.capture(&mut serve, "server");
        let mut serve = self.start_server(serve, "server.log")?;

        let received = guards::Removed::unless(self.args.keep, self.out.join("received.bin"));
        guards::remove_file(received.path())?;
        let mut get = self.gannet.command(client.namespace.as_deref());
        get.arg("get").args(&client.args).args(["--addr", wire::CLIENT_ADDR]);
        get.arg("--ca").arg(&self.certs.ca).args(["--core", &cores.client.to_string(), "--sha256"]);
        get.args(["--hold", &in_memory]);
        self.capture(&mut get, "client");
        get.arg("-o").arg(received.path()).arg(format!("https://{}/{}", wire::SERVER, source::NAME));
        let get = Running::start("the client", get, shown())?;
        let lines = get.finish(Some(&mut serve), self.transfer_limit())?;
        self.judge(&Results::parse(&lines), Some(received.path()))?;
        serve.stop()
    }

    fn requests(&self, link: &Link) -> Result<()> {
        println!("\n== {} requests and responses", self.args.requests);
        let (server, client) = link.ends("perf");
        let cores = cores::pick();
        let mut serve = self.gannet.command(server.namespace.as_deref());
        serve.args(["perf", "server"]);
        self.server_side(&mut serve, &server, cores.server);
        let mut serve = self.start_server(serve, "perf-server.log")?;

        let hdr = self.out.join("latency.hdr");
        guards::remove_file(&hdr)?;
        let mut perf = self.gannet.command(client.namespace.as_deref());
        perf.args(["perf", "client"]).args(&client.args).args(["--addr", wire::CLIENT_ADDR]);
        perf.arg("--ca").arg(&self.certs.ca).args(["--core", &cores.client.to_string()]);
        perf.args(["--connect", wire::SERVER, "--upload", "512", "--download", "4000"]);
        perf.args(["--requests", &self.args.requests.to_string()]).arg("--hdr").arg(&hdr);
        let perf = Running::start("the perf client", perf, shown())?;
        for line in perf.finish(Some(&mut serve), self.request_limit())? {
            println!("  {line}");
        }
        serve.stop()
    }

    fn report(&self) -> Result<()> {
        println!("\n== report");
        let page = self.out.join("report.html");
        let mut report = self.gannet.command(None);
        report.arg("report").arg(self.out.join("latency.hdr")).arg("-o").arg(&page);
        process::run("the report", &mut report)?;
        println!("latency: open {}", page.display());
        Ok(())
    }

    /// Compares the bytes and shows the figures.
    fn judge(&self, results: &Results, received: Option<&Path>) -> Result<()> {
        let told: String = results.require("sha256")?;
        if !told.eq_ignore_ascii_case(&self.source.sha256) {
            let detail = received.map_or_else(String::new, |path| source::difference(&self.source.file(), path));
            return Err(Error::Unmet(format!(
                "the bytes differ: received sha256 {told}, sent {}{detail}",
                self.source.sha256
            )));
        }
        if let Some(path) = received {
            let stored = source::sha256(path)?;
            if stored != self.source.sha256 {
                let detail = source::difference(&self.source.file(), path);
                return Err(Error::Unmet(format!("{} is not what was sent{detail}", path.display())));
            }
        }
        println!("\nevery byte matches: sha256 {}", self.source.sha256);
        print!("{}", results.summary()?);
        if self.args.keep
            && let Some(path) = received
        {
            println!("  {:<28}{}", "kept", path.display());
        }
        Ok(())
    }

    fn server_side(&self, command: &mut Command, end: &End, core: usize) {
        command.args(&end.args).args(["--addr", wire::SERVER_ADDR, "--listen", wire::LISTEN]);
        command.arg("--cert").arg(&self.certs.cert).arg("--key").arg(&self.certs.key);
        command.args(["--core", &core.to_string()]);
    }

    fn start_server(&self, command: Command, log: &str) -> Result<Running> {
        let log = self.out.join(log);
        let file = File::create(&log).map_err(Error::path("write", &log))?;
        let mut server = Running::start("the server", command, Stderr::Log(file))?;
        println!("{}", server.wait_for_line("ready", READY)?);
        Ok(server)
    }

    fn capture(&self, command: &mut Command, side: &str) {
        if self.args.pcap {
            let pcap = self.out.join(format!("{side}.pcap"));
            let keys = self.out.join(format!("{side}.keys"));
            println!("capture: {} with its TLS secrets in {}", pcap.display(), keys.display());
            command.arg("--pcap").arg(pcap).arg("--keylog").arg(keys);
        }
    }

    /// The time limit of the transfer, for the slowest wire: 8 MiB per second.
    fn transfer_limit(&self) -> Duration {
        let seconds = self.args.timeout.unwrap_or_else(|| 60 + self.source.size / (8 << 20));
        Duration::from_secs(seconds)
    }

    /// The time limit of the requests: a thousand per second.
    fn request_limit(&self) -> Duration {
        Duration::from_secs(self.args.timeout.unwrap_or_else(|| 60 + self.args.requests / 1000))
    }
}

/// The handling of stderr of a program that draws progress on a terminal.
fn shown() -> Stderr {
    if std::io::stderr().is_terminal() { Stderr::Inherit } else { Stderr::Show }
}
