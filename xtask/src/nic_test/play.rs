//! The steps on two machines: what each does, and the result that it must have.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::about;
use super::flows::{self, Flow};
use super::lab::{JOB, Lab, Part, SERVER, counters};
use super::model::{Model, Side};
use super::step::Step;
use crate::demo::results::Results;
use crate::error::{Error, Result};
use crate::interrupt::pause;

/// Size of the file, in the full test and in the short one.
pub const FILE_MIB: u32 = 64;
const SHORT_FILE_MIB: u32 = 16;

/// Bytes of the upload.
const UPLOAD: &str = "16M";

/// Cores of a server with several.
const CORES: u32 = 4;

/// Connections to each address of a server with several cores.
const FLOWS: u32 = 64;

/// How much of a transfer must have arrived before it is disturbed.
const UNDER_WAY_KIB: u32 = 2048;

/// Link failures in the handshake: how long after the client's first packet the link goes down (before the answer,
/// after it, after the handshake), at which machine, and for how long.
const HANDSHAKE_FLAPS: [(Duration, Side, Duration); 6] = [
    (Duration::ZERO, Side::Client, Duration::from_secs(2)),
    (Duration::from_millis(20), Side::Server, Duration::from_secs(2)),
    (Duration::from_millis(50), Side::Client, Duration::from_millis(500)),
    (Duration::from_millis(100), Side::Server, Duration::from_secs(5)),
    (Duration::from_millis(200), Side::Client, Duration::from_secs(5)),
    (Duration::from_millis(400), Side::Server, Duration::from_millis(500)),
];

/// A capture of this many bytes contains the client's first QUIC packet, which is larger than what comes before it.
const FIRST_PACKET: u64 = 1200;

/// How long the link is down in mid-transfer.
const FLAP: Duration = Duration::from_secs(2);

/// A client gives up within 10 s, or later if CPUs are shared and emulated.
const GIVES_UP: Duration = Duration::from_secs(90);

/// The server that runs during a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Perf,
    PerfMtu9000,
    PerfSecret,
    PerfCores { spread: bool },
    Files,
}

/// Plays steps with one model. Its server keeps running from one step to the next if both need the same one.
pub struct Play<'a> {
    lab: &'a mut Lab,
    model: Model,
    server: Option<Server>,
    file_mib: u32,
}

impl<'a> Play<'a> {
    /// Steps with `model` in `lab`.
    pub fn new(lab: &'a mut Lab, model: Model, quick: bool) -> Self {
        Self { lab, model, server: None, file_mib: if quick { SHORT_FILE_MIB } else { FILE_MIB } }
    }

    /// Plays a step.
    ///
    /// # Errors
    /// If the step fails; the error contains the reason.
    pub fn step(&mut self, step: Step) -> Result<()> {
        let done = self.play(step);
        if done.is_err() && !self.lab.is_lost() {
            self.lab.save(&format!("{}-{step}", self.model))?;
            // The next step starts afresh.
            self.server = None;
            self.lab.clear()?;
        }
        done
    }

    fn play(&mut self, step: Step) -> Result<()> {
        match step {
            Step::LinkUp => self.link_up(),
            Step::Neighbours => self.neighbours(),
            Step::Handshake => self.handshake(),
            Step::Requests => self.requests(),
            Step::Upload => self.upload(),
            Step::Get => self.get(),
            Step::Mtu9000 => self.mtu_9000(),
            Step::CleanStop => self.clean_stop(),
            Step::LinkFlap => self.link_flap(),
            Step::HandshakeFlap => self.handshake_flap(),
            Step::LinkDown => self.link_down(),
            Step::Unplug => self.unplug(),
            Step::Rss => self.rss(),
            Step::Spread => self.spread(),
            Step::Vhost => Err(Error::Unmet("it has a machine of its own".into())),
        }
    }

    /// Makes sure that the server that is needed is running.
    fn listen(&mut self, wanted: Server) -> Result<()> {
        if self.server == Some(wanted) {
            return self.lab.server_must_run();
        }
        self.stop()?;
        match wanted {
            Server::Perf => self.lab.serve(self.model, "perf server", "")?,
            Server::PerfMtu9000 => self.lab.serve(self.model, "perf server", "--set mtu=9000")?,
            Server::PerfSecret => self.lab.serve(self.model, "perf server", "--secret /tmp/secret")?,
            Server::PerfCores { spread } => {
                let spread = if spread { "--spread" } else { "" };
                // Emulated CPUs are few: cores that have nothing to do must leave them to the others.
                let more = format!("--cores any:{CORES} {spread} --idle sleep -v");
                self.lab.serve(self.model, "perf server", &more)?
            }
            Server::Files => {
                let file = "/tmp/www/file";
                let make = format!("[ -e {file} ] || dd if=/dev/urandom of={file} bs=1M count={}", self.file_mib);
                self.lab.server.call(&make)?;
                self.lab.serve(self.model, "serve", "--root /tmp/www")?
            }
        };
        self.server = Some(wanted);
        Ok(())
    }

    /// Ends the server if one is running. It must end cleanly.
    fn stop(&mut self) -> Result<()> {
        if self.server.take().is_none() {
            return Ok(());
        }
        let ended = self.lab.stop_server()?;
        // Its log contains messages about the steps; no complaint is expected after this.
        let complaint = ended.err.iter().find(|line| is_complaint(line));
        complaint.map_or(Ok(()), |line| Err(Error::Unmet(format!("the server complained: {line}"))))
    }

    fn perf(&mut self, more: &str) -> Result<Results> {
        let [v4, _] = SERVER;
        let more = format!("--connect {v4}:4433 {more}");
        Ok(Results::parse(&self.lab.client(self.model, "perf client", &more)?.out))
    }

    fn link_up(&mut self) -> Result<()> {
        self.listen(Server::Perf)?;
        // It does not start before its link is up.
        self.perf("--requests 1").map(drop)
    }

    fn neighbours(&mut self) -> Result<()> {
        self.listen(Server::Perf)?;
        for server in server_addresses() {
            let more = format!("--connect '{server}' --requests 1");
            self.lab.client(self.model, "perf client", &more)?;
        }
        Ok(())
    }

    fn handshake(&mut self) -> Result<()> {
        self.listen(Server::Perf)?;
        same("handshakes", self.perf("--handshakes --requests 20")?.require("handshakes")?, 20)
    }

    fn requests(&mut self) -> Result<()> {
        self.listen(Server::Perf)?;
        same("requests", self.perf("--upload 512 --download 4000 --requests 1000")?.require("requests")?, 1000)
    }

    fn upload(&mut self) -> Result<()> {
        self.listen(Server::Perf)?;
        same("requests", self.perf(&format!("--upload {UPLOAD} --requests 1"))?.require("requests")?, 1)
    }

    fn get(&mut self) -> Result<()> {
        self.listen(Server::Files)?;
        self.start_get()?;
        self.finish_get()
    }

    fn start_get(&mut self) -> Result<()> {
        let [v4, _] = SERVER;
        self.lab.client.call("rm -rf /tmp/got/*")?;
        self.lab.start_client(self.model, "get", &format!("--sha256 -o /tmp/got/file https://{v4}:4433/file"))
    }

    /// Waits for the file. Its hash, according to `gannet` and to the client's machine, must be the one on the server's
    /// machine.
    fn finish_get(&mut self) -> Result<()> {
        let ended = self.lab.finish()?;
        let told: String = Results::parse(&ended.out).require("sha256")?;
        let sent = self.lab.server.ask("sha256sum /tmp/www/file")?;
        let stored = self.lab.client.ask("sha256sum /tmp/got/file")?;
        self.lab.client.call("rm -rf /tmp/got/*")?;
        let hash = |said: &str| said.split(' ').next().unwrap_or_default().to_owned();
        if hash(&sent) == hash(&stored) && hash(&sent) == told {
            return Ok(());
        }
        Err(Error::Unmet(format!("{} was sent, {} is stored, and {told} was said", hash(&sent), hash(&stored))))
    }

    fn mtu_9000(&mut self) -> Result<()> {
        self.listen(Server::PerfMtu9000)?;
        let results = self.perf("--set mtu=9000 --download 8M --requests 1")?;
        same("requests", results.require("requests")?, 1)?;
        // 8 MiB take 5,800 packets of 1500 bytes or 950 of 9000, and some more for acknowledgements and the search for
        // the MTU.
        match counters(&mut self.lab.client, Part::Sums, "quic_rx_datagrams")?[0] {
            ..3000 => Ok(()),
            packets => Err(Error::Unmet(format!("{packets} packets came: the large ones were not used"))),
        }
    }

    /// Starts [`FLOWS`] connections from as many ports to each address of a server with several cores, makes requests on
    /// each, and checks that all cores serve some. `client` has more options. Returns the connections as the server saw
    /// them.
    fn flows(&mut self, server: Server, client: &str) -> Result<Vec<Flow>> {
        self.listen(server)?;
        for address in server_addresses() {
            let load = format!("--connections {FLOWS} --requests {} --upload 512 --download 4000", 2 * FLOWS);
            let more = format!("--connect '{address}' {load} --idle sleep {client}");
            let results = Results::parse(&self.lab.client(self.model, "perf client", &more)?.out);
            same("handshakes", results.require("handshakes")?, u64::from(FLOWS))?;
            same("requests", results.require("requests")?, 2 * u64::from(FLOWS))?;
            // With RSS, a client chooses its ports so that answers come to the core that asked.
            let handed_over = counters(&mut self.lab.client, Part::Sums, "core_handed_over")?;
            same("answers on the wrong core", handed_over[0], 0)?;
        }
        let flows = flows::accepted(&mut self.lab.server)?;
        flows::all_serve(&flows, 2 * FLOWS as usize, CORES)?;
        Ok(flows)
    }

    fn rss(&mut self) -> Result<()> {
        let client = format!("--cores any:{CORES} --source-ports {}", FLOWS / CORES);
        let flows = self.flows(Server::PerfCores { spread: false }, &client)?;
        let steering = flows::steering(&mut self.lab.server)?;
        flows::as_predicted(&flows, &steering, &server_addresses())?;
        self.stop()?;
        let server = &mut self.lab.server;
        let opened = counters(server, Part::Cores, "quic_connections_opened")?;
        for (core, opened) in (0..CORES).zip(opened) {
            let logged = flows.iter().filter(|flow| flow.core == core).count();
            same(&format!("connections on core {core}"), opened, logged as u64)?;
        }
        // All packets of a flow come to the same queue.
        same("requests on the wrong core", counters(server, Part::Sums, "core_handed_over")?[0], 0)
    }

    fn spread(&mut self) -> Result<()> {
        self.flows(Server::PerfCores { spread: true }, &format!("--source-ports {FLOWS}"))?;
        self.stop()
    }

    fn clean_stop(&mut self) -> Result<()> {
        if self.server.is_none() {
            self.listen(Server::Perf)?;
        }
        self.stop()
    }

    /// Waits until a part of the file has arrived.
    fn await_transfer(&mut self) -> Result<()> {
        let until = Instant::now() + GIVES_UP;
        while self.lab.client.is_running(JOB)? {
            let come: u32 = self.lab.client.ask("du -sk /tmp/got | cut -f 1")?.parse().unwrap_or(0);
            if come >= UNDER_WAY_KIB {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Error::Unmet(format!("after {} s only {come} KiB have come", GIVES_UP.as_secs())));
            }
            pause(Duration::from_millis(100))?;
        }
        self.lab.finish()?;
        Err(Error::Unmet("the transfer was over before it could be disturbed".into()))
    }

    fn link_flap(&mut self) -> Result<()> {
        self.listen(Server::Files)?;
        self.start_get()?;
        self.await_transfer()?;
        self.flap(Side::Client, FLAP)?;
        self.finish_get()
    }

    fn flap(&mut self, side: Side, time: Duration) -> Result<()> {
        self.lab.link(side, self.model, false)?;
        let waited = pause(time);
        self.lab.link(side, self.model, true)?;
        waited
    }

    /// The links of both sides go down at several moments, while a server runs with a new secret and with a stored one.
    fn handshake_flap(&mut self) -> Result<()> {
        for server in [Server::Perf, Server::PerfSecret] {
            self.listen(server)?;
            for (delay, side, time) in HANDSHAKE_FLAPS {
                let done = self.flap_after_first_packet(delay, side, time);
                self.lab.capture(None)?;
                let (delay, time, side) = (delay.as_millis(), time.as_millis(), side.name());
                let failed = |error: &Error| {
                    format!("{side}'s link down for {time} ms, {delay} ms after the first packet: {error}")
                };
                done.map_err(|error| about(error, failed))?;
            }
        }
        Ok(())
    }

    fn flap_after_first_packet(&mut self, delay: Duration, side: Side, time: Duration) -> Result<()> {
        let capture = self.lab.capture(Some(self.model))?;
        let [v4, _] = SERVER;
        let more = format!("--connect {v4}:4433 --upload 512 --download 4000 --requests 3");
        self.lab.start_client(self.model, "perf client", &more)?;
        let until = Instant::now() + GIVES_UP;
        while fs::metadata(&capture).map_or(0, |file| file.len()) < FIRST_PACKET {
            if Instant::now() >= until {
                return Err(Error::Unmet(format!("the client has sent nothing within {} s", GIVES_UP.as_secs())));
            }
            pause(Duration::from_millis(2))?;
        }
        pause(delay)?;
        self.flap(side, time)?;
        same("requests", Results::parse(&self.lab.finish()?.out).require("requests")?, 3)
    }

    /// Checks how the client gives up: in time, with an error about the link or the device.
    fn gives_up(&mut self, words: &[&str]) -> Result<()> {
        let ended = self.lab.client.wait_within(JOB, GIVES_UP)?;
        self.lab.server_must_run()?;
        let said = ended.reason();
        if ended.code == 1 && words.iter().any(|word| said.contains(word)) {
            return Ok(());
        }
        Err(Error::Unmet(format!("an error about {} was expected: {said}", words.join(" or "))))
    }

    fn link_down(&mut self) -> Result<()> {
        self.load("--link-patience 4")?;
        self.lab.link(Side::Client, self.model, false)?;
        let done = self.gives_up(&["the link has been down"]);
        self.lab.link(Side::Client, self.model, true)?;
        done
    }

    fn unplug(&mut self) -> Result<()> {
        self.load("")?;
        let nic = self.lab.nic(self.model);
        self.lab.client.monitor("device_del", &format!("{{\"id\":\"{nic}\"}}"))?;
        self.gives_up(&["removed", "unplugged", "gone"])
    }

    /// Starts a client whose work takes longer than the disturbance, and waits until it is busy.
    fn load(&mut self, more: &str) -> Result<()> {
        self.listen(Server::Perf)?;
        let [v4, _] = SERVER;
        let load = "--upload 512 --download 60000 --streams 2 --duration 100s";
        self.lab.start_client(self.model, "perf client", &format!("--connect {v4}:4433 {load} {more}"))?;
        self.lab.client.wait_line(JOB, "requests/s, up [1-9]").map(drop)
    }
}

impl Drop for Play<'_> {
    fn drop(&mut self) {
        if self.server.is_some() && !self.lab.is_lost() {
            // The next model's server has the same name.
            let _ = self.lab.clear();
        }
    }
}

/// Whether a line of a server's log complains about something. The watchdog does not count: emulated CPUs stand still
/// whenever those of this machine are busy with something else.
fn is_complaint(line: &str) -> bool {
    const WATCHDOG: &str = "a core does not finish its turn";
    ["gannet: ", " WARN ", " ERROR "].iter().any(|word| line.contains(word)) && !line.contains(WATCHDOG)
}

/// Where servers listen, with either version of IP.
fn server_addresses() -> [SocketAddr; 2] {
    SERVER.map(|address| SocketAddr::new(address.parse().expect("an address"), 4433))
}

/// Checks that a number is the expected one.
///
/// # Errors
/// If they differ.
pub fn same(what: &str, found: u64, wanted: u64) -> Result<()> {
    if found == wanted { Ok(()) } else { Err(Error::Unmet(format!("{found} {what} instead of {wanted}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_about_gannet_not_about_a_busy_machine() {
        for line in
            ["gannet: no link", "2026 ERROR gannet::net: x", "2026  WARN gannet::net: another host uses our address"]
        {
            assert!(is_complaint(line), "{line}");
        }
        let stalled = "2026  WARN gannet::runtime::group: a core does not finish its turn: its application has not \
                       returned, or the system does not let it run core=0 time=251.97ms";
        for line in [stalled, "2026  INFO gannet::api: listening"] {
            assert!(!is_complaint(line), "{line}");
        }
    }
}
