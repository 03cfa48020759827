//! Processes whose poll loops sleep, over ports that wake them up.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::kernel::on_veth;
use crate::support::{path, scratch};

/// Arguments of one end's port.
type PortArgs<'a> = (&'a str, Vec<(&'a str, String)>);

fn gannet(dir: &Path, (port, sets): &PortArgs<'_>, address: &str, stats: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gannet"));
    command.arg("perf").args(args).args(["--port", port, "--addr", address, "--idle", "sleep", "--quiet"]);
    command.args(sets.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]));
    command.arg("--stats").arg(dir.join(stats)).current_dir(dir);
    command
}

/// A server that is ended with the test.
struct Server(Child);

impl Server {
    fn start(dir: &Path, port: &PortArgs<'_>) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["idle.test".to_owned()]).unwrap();
        fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let args = ["server", "--listen", "4433", "--cert", "cert.pem", "--key", "key.pem"];
        let mut child = gannet(dir, port, "10.77.0.1/24", "server.json", &args).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("ready")), "the server has ended");
        Self(child)
    }

    /// CPU time that it has used so far, in hundredths of a second.
    fn ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // Behind the name, which may hold anything, utime and stime are the 12th and 13th field.
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..13].iter().map(|f| f.parse::<u64>().unwrap()).sum()
    }

    fn stop(mut self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM)
            .unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Requests one at a time, and requests far enough apart for both ends to fall asleep in between. A wake-up that is lost
/// is counted (and costs 10 ms). Then the server, with nothing to do, uses a small part of a CPU.
fn requests(server_port: &PortArgs<'_>, client_port: &PortArgs<'_>) {
    let dir = scratch();
    let dir = dir.path();
    let server = Server::start(dir, server_port);
    for (count, rate) in [("10000", None), ("3000", Some("2000"))] {
        let mut args =
            vec!["client", "--insecure", "--connect", "10.77.0.1:4433", "--requests", count, "--download", "64"];
        args.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
        let status = gannet(dir, client_port, "10.77.0.2/24", "client.json", &args).stdout(Stdio::null()).status();
        assert!(status.unwrap().success(), "{count} requests at {rate:?}");
        if rate.is_some() {
            slept(&dir.join("client.json"));
        }
    }
    let before = server.ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = server.ticks() - before;
    assert!(used < 30, "an idle server used {used} % of a CPU");
    server.stop();
    slept(&dir.join("server.json"));
}

fn slept(stats: &Path) {
    let counters: Value = serde_json::from_str(&fs::read_to_string(stats).unwrap()).unwrap();
    let count = |name: &str| counters[name].as_u64().unwrap_or_else(|| panic!("no {name} in {counters}"));
    let (sleeps, late) = (count("core_sleeps"), count("core_late_wakeups"));
    println!("{}: {sleeps} sleeps, {late} late", stats.display());
    assert!(sleeps > 100, "{sleeps}");
    // A frame may come at the very moment at which the time is up.
    assert!(late <= 2 + sleeps / 200, "{late} of {sleeps} sleeps ended by the clock though a frame was there");
}

#[test]
fn memif_wakes_both_ends() {
    let dir = scratch();
    let socket = || ("socket", path(dir.path(), "memif.sock"));
    let server = ("memif", vec![("role", "server".to_owned()), socket()]);
    let client = ("memif", vec![("role", "client".to_owned()), socket()]);
    requests(&server, &client);
}

#[test]
fn zero_copy_memif_wakes_both_ends() {
    let dir = scratch();
    let socket = || ("socket", path(dir.path(), "memif.sock"));
    let server = ("memif", vec![("role", "server".to_owned()), socket()]);
    let client = ("memif", vec![("role", "client".to_owned()), ("zero-copy", "true".to_owned()), socket()]);
    requests(&server, &client);
}

#[test]
fn vhost_and_virtio_user_are_woken() {
    let dir = scratch();
    let socket = || path(dir.path(), "vhost.sock");
    requests(&("vhost", vec![("iface", socket())]), &("virtio-user", vec![("path", socket())]));
}

#[test]
fn af_packet_wakes_both_ends() {
    on_veth("idle::af_packet_wakes_both_ends", 1500, || {
        let end = |iface: &str| ("af-packet", vec![("iface", iface.to_owned())]);
        requests(&end("left"), &end("right"));
    });
}

#[test]
fn af_xdp_wakes_both_ends() {
    on_veth("idle::af_xdp_wakes_both_ends", 1500, || {
        let end = |iface: &str| ("af-xdp", vec![("iface", iface.to_owned())]);
        requests(&end("left"), &end("right"));
    });
}
