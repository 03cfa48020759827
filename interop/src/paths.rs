//! `gannet-interop paths`: do real processes agree with the simulation?
//!
//! `gannet serve` and `gannet get` transfer a file over each path of `gannet::sim::paths`, through the forwarder, and
//! `gannet-perf` plays the same transfer in virtual time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::gannet::base::rng::Rng;
use ::gannet::sim::forwarder::ForwarderConfig;
use ::gannet::sim::paths;
use serde_json::Value;
use tempfile::TempDir;

use crate::certs::Certs;
use crate::error::{About, Result};
use crate::lab::{self, Lab, Stack};
use crate::middle::{Middle, Place};
use crate::process::{self, Process};
use crate::{gannet, interrupt};

/// The relative difference from the simulation that is still agreement.
const TOLERANCE: f64 = 0.1;

/// Simulated transfers over each path. They cost next to nothing, and with few losses each is different.
const SIMULATED: usize = 9;

/// How long a transfer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a server may take to start, and to end.
const SHORT: Duration = Duration::from_secs(20);

/// The MTU of the simulation.
const MTU: u16 = 1500;

/// The name of the file.
const FILE: &str = "file";

/// Arguments of `paths`.
#[derive(Clone, Debug, clap::Args)]
pub struct PathsArgs {
    /// Only paths whose names begin like this. May be repeated
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// The seed of the first transfer over a path, real and simulated; each further one has the next
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Real transfers over each path. Medians are compared
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// The `gannet` command
    #[arg(long, value_name = "FILE")]
    pub gannet: PathBuf,
    /// The `gannet-perf` command
    #[arg(long, value_name = "FILE")]
    pub perf: PathBuf,
}

/// Rates of all transfers over a path with one algorithm, in Mbit/s.
#[derive(Clone, Debug, Default)]
struct Rates {
    real: Vec<f64>,
    simulated: Vec<f64>,
}

impl Rates {
    /// The medians, real and simulated, and the ratio of both.
    fn summary(&self) -> [f64; 3] {
        let [real, simulated] = [median(&self.real), median(&self.simulated)];
        [real, simulated, real / simulated]
    }

    fn agree(&self) -> bool {
        let [.., ratio] = self.summary();
        (ratio - 1.0).abs() <= TOLERANCE
    }
}

/// The median: a single unlucky loss can make a transfer much slower than the others.
pub fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [low, high] = [(sorted.len() - 1) / 2, sorted.len() / 2].map(|at| sorted[at]);
    f64::midpoint(low, high)
}

/// Plays all paths and prints a table.
///
/// # Errors
/// If a transfer fails, a path differs from the simulation, or a signal arrives.
pub fn run(args: &PathsArgs) -> Result<()> {
    let chosen = |name: &str| args.only.is_empty() || args.only.iter().any(|only| name.starts_with(only.as_str()));
    let paths: Vec<_> = paths::all().into_iter().filter(|path| chosen(path.name)).collect();
    if paths.is_empty() {
        let known: Vec<_> = paths::all().iter().map(|path| path.name).collect();
        return Err(format!("no path fits; there are {}", known.join(", ")).into());
    }
    lab::remove_stale();
    println!("{:<20}{:<8}{:>8}{:>11}{:>7}  each, real | simulated", "path", "", "Mbit/s", "simulated", "ratio");
    let mut different = Vec::new();
    for path in &paths {
        let algorithms: &[&str] = if path.bbr { &["cubic", "bbr"] } else { &["cubic"] };
        for congestion in algorithms {
            let mut rates = Rates::default();
            for (n, seed) in (args.seed..).take(SIMULATED.max(args.repeats as usize)).enumerate() {
                interrupt::check()?;
                let name = || format!("{} with {congestion} and seed {seed}", path.name);
                if n < SIMULATED {
                    rates.simulated.push(simulated(args, path, congestion, seed).about(name)?);
                }
                if n < args.repeats as usize {
                    rates.real.push(real(args, path, congestion, seed).about(name)?);
                }
            }
            let ([real, simulated, ratio], agree) = (rates.summary(), rates.agree());
            let each = |rates: &[f64]| rates.iter().map(|rate| format!("{rate:.1}")).collect::<Vec<_>>().join(" ");
            let (name, each) = (path.name, format!("{} | {}", each(&rates.real), each(&rates.simulated)));
            let mark = if agree { "" } else { "  DIFFERS" };
            println!("{name:<20}{congestion:<8}{real:>8.1}{simulated:>11.1}{ratio:>7.3}  {each}{mark}");
            if !agree {
                different.push(format!("{name} with {congestion}"));
            }
        }
    }
    if different.is_empty() {
        return Ok(());
    }
    Err(format!("more than {:.0} % from the simulation: {}", TOLERANCE * 100.0, different.join(", ")).into())
}

/// Plays a transfer in virtual time. Returns its rate in Mbit/s.
fn simulated(args: &PathsArgs, path: &paths::Path, congestion: &str, seed: u64) -> Result<f64> {
    let dir = TempDir::with_prefix("gannet-interop-")?;
    let (json, stack) = (dir.path().join("rates.json"), format!("gannet.{congestion}"));
    let mut perf = std::process::Command::new(&args.perf);
    perf.args(["run", "--only", "wan", "--scenario", path.name, "--stack", &stack, "--seed", &seed.to_string()]);
    perf.arg("--out").arg(dir.path()).arg("--json").arg(&json);
    process::output(&mut perf)?;
    let results: Value = serde_json::from_slice(&fs::read(&json)?)?;
    let key = format!("wan.{}.{stack}.mbps", path.name);
    let rate = results[&key]["median"].as_f64().filter(|rate| *rate > 0.0);
    rate.ok_or_else(|| format!("gannet-perf has not measured {key}").into())
}

/// Plays a transfer between processes. Returns its rate in Mbit/s, from the client's first datagram to the last one with
/// data that reaches it.
fn real(args: &PathsArgs, path: &paths::Path, congestion: &str, seed: u64) -> Result<f64> {
    let dir = TempDir::with_prefix("gannet-interop-")?;
    let [www, downloads, certs] = ["www", "downloads", "certs"].map(|name| dir.path().join(name));
    for dir in [&www, &downloads, &certs] {
        fs::create_dir(dir)?;
    }
    let mut bytes = vec![0; usize::try_from(path.bytes)?];
    Rng::from_u64(seed).fill(&mut bytes);
    fs::write(www.join(FILE), &bytes)?;

    let lab = Lab::new(Stack::Bypass, Stack::Bypass, MTU)?;
    let certs = Certs::new(&certs, false)?;
    let [serve, get] = gannet::transfer(&args.gannet, &lab, &certs, [&www, &downloads], congestion, FILE);
    let mut server = Process::start("the server", serve, &dir.path().join("server.log"))?;
    server.wait_line("ready", SHORT)?;
    let place = Place { ns: Some(lab.middle.clone()), to_client: "to-client".into(), to_server: "to-server".into() };
    let config =
        ForwarderConfig { to_server: path.up.clone(), to_client: path.down.clone(), ..ForwarderConfig::default() };
    let middle = Middle::start(&place, &config, seed, None)?;
    let mut client = Process::start("the client", get, &dir.path().join("client.log"))?;
    let status = client.wait(PATIENCE)?;
    if !status.is_some_and(|status| status.success()) {
        return Err(format!("the client: {status:?}: {}", client.output().trim()).into());
    }
    let view = middle.finish()?;
    server.stop(SHORT)?;
    if !same(&downloads.join(FILE), &bytes)? {
        return Err("the file differs".into());
    }
    Ok(path.bytes as f64 * 8e-6 / view.busy.as_secs_f64())
}

fn same(file: &Path, bytes: &[u8]) -> Result<bool> {
    Ok(fs::read(file).about(|| "the file has not arrived".into())? == bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared() {
        let mut rates = Rates { real: vec![20.0, 8.0, 7.5], simulated: vec![1.0, 7.0, 9.0, 10.0] };
        assert_eq!(rates.summary(), [8.0, 8.0, 1.0]);
        assert!(rates.agree());
        for (simulated, agree) in [(7.4, true), (7.2, false), (8.8, true), (9.0, false)] {
            rates.simulated = vec![simulated; 2];
            assert_eq!(rates.agree(), agree, "{simulated}");
        }
    }
}
