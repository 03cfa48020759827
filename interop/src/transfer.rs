//! A file transferred between two processes, through the forwarder, and its rate.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ::gannet::base::rng::Rng;
use ::gannet::sim::forwarder::ForwarderConfig;
use tempfile::TempDir;

use crate::certs::Certs;
use crate::error::{About, Result};
use crate::lab::{Lab, Stack};
use crate::middle::{Middle, Place};
use crate::process::Process;

/// The name of the file.
pub const FILE: &str = "file";

/// How long a transfer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a server may take to start, and to end.
const SHORT: Duration = Duration::from_secs(20);

/// The MTU of the links, which is that of the simulation.
const MTU: u16 = 1500;

/// A transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The size of the file in bytes.
    pub bytes: usize,
    /// The network stacks of client and server.
    pub stacks: [Stack; 2],
    /// The links.
    pub links: ForwarderConfig,
    /// Determines the file's contents, and what is random on the links.
    pub seed: u64,
}

/// What client and server are given.
#[derive(Debug)]
pub struct Stage<'a> {
    pub lab: &'a Lab,
    pub certs: &'a Certs,
    /// The directory with the file.
    pub www: &'a Path,
    /// Where the file is to arrive.
    pub downloads: &'a Path,
    /// The directory for everything else that is left.
    pub dir: &'a Path,
}

impl Transfer {
    /// Plays the transfer with the server's and the client's command. Returns its rate in Mbit/s, from the client's first
    /// datagram to the last one with data that reaches it.
    ///
    /// # Errors
    /// If the file does not arrive as it was sent, or a signal arrives.
    pub fn play(&self, commands: impl FnOnce(&Stage<'_>) -> Result<[Command; 2]>) -> Result<f64> {
        let dir = TempDir::with_prefix("gannet-interop-")?;
        let [www, downloads, certs] = ["www", "downloads", "certs"].map(|name| dir.path().join(name));
        for dir in [&www, &downloads, &certs] {
            fs::create_dir(dir)?;
        }
        let mut bytes = vec![0; self.bytes];
        Rng::from_u64(self.seed).fill(&mut bytes);
        fs::write(www.join(FILE), &bytes)?;

        let [client, server] = self.stacks;
        let lab = Lab::new(client, server, MTU)?;
        let certs = Certs::new(&certs, false)?;
        let stage = Stage { lab: &lab, certs: &certs, www: &www, downloads: &downloads, dir: dir.path() };
        let [serve, get] = commands(&stage)?;
        let mut server = Process::start("the server", serve, &dir.path().join("server.log"))?;
        server.wait_line("ready", SHORT)?;
        let ns = Some(lab.middle.clone());
        let place = Place { ns, to_client: "to-client".into(), to_server: "to-server".into() };
        let middle = Middle::start(&place, &self.links, self.seed, None)?;
        let mut client = Process::start("the client", get, &dir.path().join("client.log"))?;
        let status = client.wait(PATIENCE)?;
        if !status.is_some_and(|status| status.success()) {
            return Err(format!("the client: {status:?}: {}", client.output().trim()).into());
        }
        let view = middle.finish()?;
        server.stop(SHORT)?;
        if fs::read(downloads.join(FILE)).about(|| "the file has not arrived".into())? != bytes {
            return Err("the file differs".into());
        }
        Ok(self.bytes as f64 * 8e-6 / view.busy.as_secs_f64())
    }
}

/// The median: a single unlucky loss can make a transfer much slower than the others.
pub fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [low, high] = [(sorted.len() - 1) / 2, sorted.len() / 2].map(|at| sorted[at]);
    f64::midpoint(low, high)
}

/// All rates, for a table.
pub fn each(rates: &[f64]) -> String {
    rates.iter().map(|rate| format!("{rate:.1}")).collect::<Vec<_>>().join(" ")
}
