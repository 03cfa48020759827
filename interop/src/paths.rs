//! `gannet-interop paths`: do real processes agree with the simulation?
//!
//! `gannet serve` and `gannet get` transfer a file over each path of `gannet::sim::paths`, through the forwarder, and
//! `gannet-perf` plays the same transfer in virtual time.

use std::fs;
use std::path::PathBuf;

use ::gannet::sim::forwarder::ForwarderConfig;
use ::gannet::sim::paths;
use serde_json::Value;
use tempfile::TempDir;

use crate::error::{About, Result};
use crate::lab::{self, Stack};
use crate::process;
use crate::transfer::{Transfer, each, median};
use crate::{gannet, interrupt};

/// The relative difference from the simulation that is still agreement.
const TOLERANCE: f64 = 0.1;

/// Simulated transfers over each path. They cost next to nothing, and with few losses each is different.
const SIMULATED: usize = 9;

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

/// Plays a transfer between processes. Returns its rate in Mbit/s.
fn real(args: &PathsArgs, path: &paths::Path, congestion: &str, seed: u64) -> Result<f64> {
    let links =
        ForwarderConfig { to_server: path.up.clone(), to_client: path.down.clone(), ..ForwarderConfig::default() };
    let transfer = Transfer { bytes: usize::try_from(path.bytes)?, stacks: [Stack::Bypass; 2], links, seed };
    transfer.play(|stage| Ok(gannet::transfer(&args.gannet, stage, congestion)))
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
