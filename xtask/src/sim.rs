//! `cargo xtask sim`: runs the simulator with any number of seeds.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::Command;
use std::str::FromStr;

use crate::error::Result;
use crate::process;
use crate::workspace::cargo;

/// Arguments of `cargo xtask sim`.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// Seeds to run: A..B, excluding B, or a single one, whose outcome is printed
    #[arg(long, value_name = "A..B", default_value = "0..20000")]
    pub seeds: Seeds,
    /// Number of threads [default: the number of CPUs]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
}

/// The seeds to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// A single one, to examine.
    One(u64),
    /// A range.
    Range(Range<u64>),
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.replace('_', "").parse().map_err(|e| format!("{text:?} is not a seed: {e}"));
        let Some((from, to)) = text.split_once("..") else { return number(text).map(Self::One) };
        let range = number(from)?..number(to)?;
        if range.is_empty() { Err(format!("the range {text} is empty")) } else { Ok(Self::Range(range)) }
    }
}

/// Runs the simulator.
///
/// # Errors
/// If the simulator cannot be built, a seed fails, or a signal arrives.
pub fn run(args: &SimArgs) -> Result<()> {
    process::run("the simulator", &mut command(args))
}

fn command(args: &SimArgs) -> Command {
    let (test, variable, value) = match &args.seeds {
        Seeds::One(seed) => ("replay", "GANNET_SEED", seed.to_string()),
        Seeds::Range(range) => ("seeds", "GANNET_SEEDS", format!("{}..{}", range.start, range.end)),
    };
    let build = ["test", "--quiet", "--no-default-features", "--test", "sim", "--"];
    let mut command = cargo(&[&build[..], &["--exact", "--nocapture", test]].concat());
    command.env(variable, value);
    if let Some(jobs) = args.jobs {
        command.env("GANNET_JOBS", jobs.to_string());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seeds: &str, jobs: Option<usize>) -> String {
        let jobs = jobs.and_then(NonZeroUsize::new);
        process::line(&command(&SimArgs { seeds: seeds.parse().unwrap(), jobs }))
    }

    #[test]
    fn ranges_and_single_seeds_reach_the_simulator() {
        let cargo = "cargo test --quiet --no-default-features --test sim -- --exact --nocapture";
        assert_eq!(line("0..1_000_000", Some(4)), format!("GANNET_JOBS=4 GANNET_SEEDS=0..1000000 {cargo} seeds"));
        assert_eq!(line("1147", None), format!("GANNET_SEED=1147 {cargo} replay"));
    }

    #[test]
    fn what_is_no_range_of_seeds_is_refused() {
        for text in ["", "x", "5..5", "7..3", "1..", "-1..3", "0..99999999999999999999999"] {
            assert!(text.parse::<Seeds>().is_err(), "{text:?}");
        }
    }
}
