//! Runs two communicating processes: Gannet's, or another implementation's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::Failure;
use crate::cli::PeerKind;
use crate::lab::world;
use crate::peers;
use crate::process::{Running, command, value};
use crate::run::Run;

/// The server's address on Gannet's own wires.
const SERVER: &str = "10.77.0.1";

/// The client's address.
const CLIENT: &str = "10.77.0.2";

/// Where both processes run.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Network namespaces of server and client; `None` for ours.
    pub namespaces: Option<[String; 2]>,
    /// The server's address for other implementations; `None` for loopback.
    pub address: Option<String>,
}

impl Places {
    fn namespace(&self, side: usize) -> Option<&str> {
        self.namespaces.as_ref().map(|names| names[side].as_str())
    }
}

/// A wire between two Gannet processes.
#[derive(Clone, Debug)]
pub enum Wire {
    /// Shared memory.
    Memif,
    /// A port of this profile on this interface in each namespace.
    Interface(&'static str, &'static str),
}

/// The results of Gannet's client, by name.
#[derive(Debug)]
pub struct Outcome(Value);

impl Outcome {
    /// A figure.
    ///
    /// # Errors
    /// If the client did not write it.
    pub fn get(&self, name: &str) -> Result<f64, Failure> {
        self.0[name].as_f64().ok_or_else(|| format!("gannet perf client wrote no {name}").into())
    }
}

/// Options of both ends, and their additional output.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    /// The idle mode of both ends.
    pub idle: &'static str,
    /// The file for the client's latency histogram.
    pub hdr: Option<&'a Path>,
    /// The files for the stage timers of server and client, which slow both down.
    pub stages: Option<[&'a Path; 2]>,
}

impl Default for Keep<'_> {
    fn default() -> Self {
        Self { idle: "spin", hdr: None, stages: None }
    }
}

impl<'a> Keep<'a> {
    /// Keeps the client's latencies in this file.
    pub fn hdr(path: &'a Path) -> Self {
        Self { hdr: Some(path), ..Self::default() }
    }
}

/// Runs `gannet perf server`, and `gannet perf client` with `load`, over `wire`.
///
/// Over shared memory, the client, which receives most, owns that memory: it decrypts directly out of it, and the
/// server's driver copies into it. Neither end computes or verifies UDP checksums there, nor does the kernel on the
/// loopback interface that other implementations use.
///
/// # Errors
/// If either fails.
pub fn gannet(
    run: &Run,
    places: &Places,
    wire: &Wire,
    mtu: u16,
    load: &[&str],
    keep: Keep<'_>,
) -> Result<Outcome, Failure> {
    let program = run.gannet()?;
    let [cert, key] = identity(&run.out)?;
    let json = run.out.join("gannet-client.json");
    let _ = fs::remove_file(&json);
    // In the runtime directory.
    let socket = format!("perf-{}.sock", std::process::id());
    let common = |command: &mut Command, side: usize, address: &str| {
        match wire {
            Wire::Memif => {
                let role: &[&str] =
                    if side == 0 { &["role=server"] } else { &["role=client", "zero-copy=true", "peer=trusted"] };
                command.args(["--port", "memif", "--set", &format!("socket={socket}")]);
                command.args(role.iter().chain(&["offloads=none"]).flat_map(|set| ["--set", set]));
            }
            Wire::Interface(profile, interface) => {
                command.args(["--port", profile, "--set", &format!("iface={interface}")]);
            }
        }
        command.args(["--set", &format!("mtu={mtu}"), "--addr", &format!("{address}/24")]);
        command.args(["--core", &run.cores[side].to_string(), "--idle", keep.idle, "--suite", "aes128"]);
        if let Some(files) = keep.stages {
            command.arg("--stages").arg(files[side]);
        }
    };
    let mut server = command(program, places.namespace(0));
    server.args(["perf", "server", "--quiet", "--listen", "4433", "--cert"]).arg(cert).arg("--key").arg(key);
    common(&mut server, 0, SERVER);
    let (server, _) = Running::start_server("gannet-server", server, &run.out)?;

    let mut client = command(program, places.namespace(1));
    client.args(["perf", "client", "--insecure", "--quiet", "--connect", &format!("{SERVER}:4433")]).args(load);
    client.arg("--json").arg(&json);
    if let Some(hdr) = keep.hdr {
        client.arg("--hdr").arg(hdr);
    }
    common(&mut client, 1, CLIENT);
    Running::start("gannet-client", client, &run.out)?.finish(limit())?;
    drop(server);
    let _ = fs::remove_file(gannet::dpdk::runtime_dir().join(&socket));
    let text = fs::read_to_string(&json).map_err(|e| format!("cannot read {}: {e}", json.display()))?;
    Ok(Outcome(serde_json::from_str(&text)?))
}

/// Runs both ends of another implementation, and returns its client's output.
///
/// # Errors
/// If either fails.
pub fn peer(
    run: &Run,
    places: &Places,
    kind: PeerKind,
    mtu: u16,
    load: &[&str],
    hdr: Option<&Path>,
) -> Result<Vec<String>, Failure> {
    let args = |core: usize, rest: &[&str]| -> Vec<String> {
        let common = ["--mtu".into(), mtu.to_string(), "--core".into(), core.to_string()];
        common.into_iter().chain(rest.iter().map(|s| (*s).to_owned())).collect()
    };
    let listen = format!("{}:0", places.address.as_deref().unwrap_or("127.0.0.1"));
    let server = peers::command(places.namespace(0), kind, &args(run.cores[0], &["--listen", &listen]))?;
    let (server, address) = Running::start_server(&format!("{}-server", kind.name()), server, &run.out)?;
    let mut words = vec!["--connect", &address];
    words.extend(load);
    let hdr = hdr.map(|path| path.display().to_string());
    if let Some(hdr) = &hdr {
        words.extend(["--hdr", hdr]);
    }
    let client = peers::command(places.namespace(1), kind, &args(run.cores[1], &words))?;
    let lines = Running::start(&format!("{}-client", kind.name()), client, &run.out)?.finish(limit());
    drop(server);
    lines
}

/// The goodput of another implementation's download, in Gbit/s.
///
/// # Errors
/// As [`peer`].
pub fn peer_gbps(run: &Run, places: &Places, kind: PeerKind, mtu: u16, bytes: u64) -> Result<f64, Failure> {
    value(&peer(run, places, kind, mtu, &["--download", &bytes.to_string()], None)?, "download_gbps")
}

/// The time limit of a single run.
fn limit() -> Duration {
    Duration::from_secs(300)
}

/// Writes a certificate and its key to files.
fn identity(dir: &Path) -> Result<[PathBuf; 2], Failure> {
    let [cert, key] = ["bench-cert.pem", "bench-key.pem"].map(|name| dir.join(name));
    if !cert.is_file() || !key.is_file() {
        let (cert_pem, key_pem) = world::identity_pem();
        fs::write(&key, key_pem)?;
        fs::write(&cert, cert_pem)?;
    }
    Ok([cert, key])
}
