//! Two emulated machines, a wire between each pair of their NICs, and `gannet` on both.

use std::fs;
use std::path::PathBuf;

use super::about;
use super::clock;
use super::guest::{Ended, Guest, Spec, console};
use super::model::{self, Model, Side};
use super::parts::Parts;
use crate::demo::certs;
use crate::error::{Error, Result};

/// Memory of a machine in MiB, and its hugepages: each `gannet` takes some 700 MiB of them.
const MEMORY: u32 = 1792;
const HUGE: u32 = 480;

/// Addresses of the two sides.
pub const SERVER: [&str; 2] = ["10.77.0.1", "fd77::1"];
const CLIENT: [&str; 2] = ["10.77.0.2", "fd77::2"];

/// CPUs of the machine that runs the servers: as many cores of a server as there are on this machine poll at a time.
const SERVER_CPUS: u32 = 2;

/// The name of the command that runs in each machine.
pub const JOB: &str = "gannet";

/// What is needed to start machines.
pub struct Stage {
    /// QEMU and the kernel.
    pub parts: Parts,
    /// The file system of all machines.
    pub initrd: PathBuf,
    /// The directory for sockets and logs, whose path is short.
    pub dir: PathBuf,
    /// The program that this machine runs.
    pub gannet: PathBuf,
    /// Certificates of servers at [`SERVER`].
    pub certs: certs::Paths,
}

/// Two machines with a pair of NICs for each model.
pub struct Lab {
    dir: PathBuf,
    models: Vec<Model>,
    /// The machine that runs the servers.
    pub server: Guest,
    /// The machine that runs the clients.
    pub client: Guest,
}

impl Lab {
    /// Boots both machines.
    ///
    /// # Errors
    /// If one does not boot.
    pub fn boot(stage: &Stage, models: &[Model]) -> Result<Self> {
        // The client connects its wires to the server's sockets.
        let mut server = start(stage, models, Side::Server, SERVER_CPUS)?;
        let mut client = start(stage, models, Side::Client, 1)?;
        for (side, guest) in [(Side::Server, &mut server), (Side::Client, &mut client)] {
            let words = |error: &Error| format!("{error}\n  on its console:\n    {}", console(&stage.dir, side.name()));
            guest.boot().map_err(|error| about(error, words))?;
        }
        clock::check([&mut server, &mut client])?;
        Ok(Self { dir: stage.dir.clone(), models: models.to_vec(), server, client })
    }

    /// Whether a machine no longer answers.
    pub fn is_lost(&self) -> bool {
        self.server.is_lost() || self.client.is_lost()
    }

    /// QEMU's name for the NIC of `model`, on either machine.
    pub fn nic(&self, model: Model) -> String {
        model::id(self.place(model))
    }

    fn place(&self, model: Model) -> usize {
        self.models.iter().position(|known| *known == model).unwrap_or_default()
    }

    /// The options of a port on `model`, as `gannet` takes them.
    fn port(&mut self, model: Model, side: Side) -> Result<String> {
        let place = self.place(model);
        Self::port_of(self.guest(side), model, place, side)
    }

    /// The same for the `n`th NIC of a machine.
    ///
    /// # Errors
    /// If there is no such NIC.
    pub fn port_of(guest: &mut Guest, model: Model, n: usize, side: Side) -> Result<String> {
        let device = guest.ask(&format!("nic {}", model::slot(n)))?;
        let [v4, v6] = if side == Side::Server { SERVER } else { CLIENT };
        Ok(format!("--port {} --set device={device} --addr {v4}/24 --addr {v6}/64", model.profile()))
    }

    /// Starts a server on `model` and waits until it is ready: `command` with more options.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn serve(&mut self, model: Model, command: &str, more: &str) -> Result<String> {
        let port = self.port(model, Side::Server)?;
        let identity = "--listen 4433 --cert /server.pem --key /server.key";
        self.server.run(JOB, &format!("gannet {command} {port} {identity} --stats /tmp/stats.json {more}"))?;
        self.server.wait_line(JOB, "^ready")
    }

    /// Starts a client on `model`.
    ///
    /// # Errors
    /// If the machine does not answer.
    pub fn start_client(&mut self, model: Model, command: &str, more: &str) -> Result<()> {
        let port = self.port(model, Side::Client)?;
        self.client.run(JOB, &format!("gannet {command} {port} --ca /ca.pem --stats /tmp/stats.json {more}"))
    }

    /// Runs a client on `model`, which must succeed.
    ///
    /// # Errors
    /// If it fails or hangs, or the server has ended.
    pub fn client(&mut self, model: Model, command: &str, more: &str) -> Result<Ended> {
        self.start_client(model, command, more)?;
        self.finish()
    }

    /// Waits for the client to end, which must succeed.
    ///
    /// # Errors
    /// If it fails or hangs, or the server has ended.
    pub fn finish(&mut self) -> Result<Ended> {
        let ended = self.client.wait(JOB)?;
        self.server_must_run()?;
        ended.success("client")
    }

    /// # Errors
    /// If the server has ended.
    pub fn server_must_run(&mut self) -> Result<()> {
        if self.server.is_running(JOB)? {
            return Ok(());
        }
        let ended = self.server.wait(JOB)?;
        Err(Error::Unmet(format!("the server ended with {}", ended.reason())))
    }

    /// Ends the server with SIGTERM.
    ///
    /// # Errors
    /// If it has already ended, hangs, or ends with another code than 0.
    pub fn stop_server(&mut self) -> Result<Ended> {
        self.server_must_run()?;
        self.server.signal(JOB, "TERM")?;
        self.server.wait(JOB)?.success("server")
    }

    /// Unplugs the cable of a machine, or plugs it in.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn link(&mut self, side: Side, model: Model, up: bool) -> Result<()> {
        let nic = self.nic(model);
        self.guest(side).monitor("set_link", &format!("{{\"name\":\"{nic}\",\"up\":{up}}}"))
    }

    fn guest(&mut self, side: Side) -> &mut Guest {
        if side == Side::Server { &mut self.server } else { &mut self.client }
    }

    /// Starts a capture of the wire of `model`, and returns its file; with `None`, ends the current capture.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn capture(&mut self, model: Option<Model>) -> Result<PathBuf> {
        let file = self.dir.join("capture.pcap");
        let Some(model) = model else {
            return self.client.monitor("object-del", "{\"id\":\"capture\"}").map(|()| file);
        };
        // Left by an earlier capture.
        let _ = fs::remove_file(&file);
        let (wire, path) = (model::wire(self.place(model)), file.display());
        let kind = "\"qom-type\":\"filter-dump\",\"id\":\"capture\"";
        self.client.monitor("object-add", &format!("{{{kind},\"netdev\":\"{wire}\",\"file\":\"{path}\"}}"))?;
        Ok(file)
    }

    /// Saves the output of both commands and the last capture in files whose names start with `name`.
    ///
    /// # Errors
    /// If a machine does not answer, or a file cannot be written.
    pub fn save(&mut self, name: &str) -> Result<()> {
        for (side, guest) in [(Side::Server, &mut self.server), (Side::Client, &mut self.client)] {
            let lines = guest.call(&format!("tail -n 400 /tmp/job/{JOB}.out /tmp/job/{JOB}.err"))?.lines;
            let path = self.dir.join(format!("{name}.{}.log", side.name()));
            fs::write(&path, lines.join("\n")).map_err(Error::path("write", &path))?;
        }
        // There may be no capture.
        let _ = fs::rename(self.dir.join("capture.pcap"), self.dir.join(format!("{name}.pcap")));
        Ok(())
    }

    /// Ends what is still running after a step, on both machines.
    ///
    /// # Errors
    /// If a machine does not answer.
    pub fn clear(&mut self) -> Result<()> {
        self.server.clear(JOB)?;
        self.client.clear(JOB)
    }
}

/// A part of the counters that `--stats` writes, by the number of spaces before each line.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The sums over all cores.
    Sums = 2,
    /// The counters of each core, in their order.
    Cores = 6,
}

/// The values of a counter of the last command that `guest` ran with `--stats`.
///
/// # Errors
/// If the machine does not answer, or there is no such counter.
pub fn counters(guest: &mut Guest, part: Part, name: &str) -> Result<Vec<u64>> {
    let line = format!("sed -n 's/^ \\{{{}\\}}\"{name}\": \\([0-9]*\\),*$/\\1/p' /tmp/stats.json", part as u8);
    let said = guest.call(&line)?;
    let values: Vec<_> = said.lines.iter().map_while(|line| line.parse().ok()).collect();
    if values.is_empty() { Err(Error::Unmet(format!("there is no counter {name}"))) } else { Ok(values) }
}

fn start(stage: &Stage, models: &[Model], side: Side, cpus: u32) -> Result<Guest> {
    let wires = models.iter().enumerate().map(|(n, model)| {
        let wire = stage.dir.join(format!("wire{n}"));
        if side == Side::Server {
            // Left by earlier machines.
            let _ = fs::remove_file(&wire);
        }
        model::devices(*model, n, side, &wire.display().to_string())
    });
    let spec =
        Spec { name: side.name(), cpus, memory: MEMORY, huge: HUGE, shared: false, devices: wires.flatten().collect() };
    Guest::start(&stage.parts, &spec, &stage.initrd, &stage.dir)
}
