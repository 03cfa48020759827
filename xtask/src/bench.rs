//! `cargo xtask bench`: builds the programs and runs the benchmarks.

use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::{process, setup, workspace};

/// Arguments of `cargo xtask bench`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BenchArgs {
    /// Only these parts, for example `placement`; the same as --only
    #[arg(value_name = "PART")]
    pub parts: Vec<String>,
    /// Only these parts: placement, packets, bulk_1500, bulk_9000, rr, rps, idle, stages, hps, conns, cores, floods,
    /// icount, wan, af_packet, af_xdp, peers
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Shorter runs and fewer repeats: within 10 minutes once built
    #[arg(long)]
    pub quick: bool,
    /// Repeats of each measurement [default: 5 with --quick, otherwise 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: Option<u32>,
    /// Write the results to this file as one flat JSON object: key to median, min and max
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Directory for the report, histograms and logs [default: target/bench]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Also build the heavy peers: s2n-quic and quiche
    #[arg(long)]
    pub peers: bool,
    /// With wan: only scenarios whose names begin like this, with a plot of each
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// With wan: only these stacks, such as gannet.cubic
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub stack: Vec<String>,
    /// With wan: another seed than that of the recorded table
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Fail if instruction counts are more than 5 % above those in perf/icount.json, or cells of wan more than 3 % from
    /// those in perf/wan.json
    #[arg(long)]
    pub check: bool,
    /// Record instruction counts in perf/icount.json, and cells of wan in perf/wan.json
    #[arg(long, conflicts_with = "check")]
    pub record: bool,
    /// Install nothing
    #[arg(long)]
    pub no_setup: bool,
}

/// Runs the command.
///
/// # Errors
/// If a dependency is missing, the build or a part fails, counts have increased, or a signal arrives.
pub fn run(args: &BenchArgs) -> Result<()> {
    let here = std::env::current_dir().map_err(|source| Error::Io { what: "no current directory".into(), source })?;
    let out = args.out.as_ref().map_or_else(|| workspace::target().join("bench"), |out| here.join(out));
    if !args.no_setup {
        setup::for_bench(args.peers)?;
    }
    let mut build =
        vec!["build", "--release", "-p", "gannet", "-p", "gannet-perf", "--bin", "gannet", "--bin", "gannet-perf"];
    if args.peers {
        build.extend(["--features", "gannet-perf/peers"]);
    }
    process::run("the build", &mut workspace::cargo(&build))?;
    fs::create_dir_all(&out).map_err(Error::path("make", &out))?;

    let mut perf = std::process::Command::new(workspace::target().join("release/gannet-perf"));
    perf.current_dir(workspace::root()).args(args.arguments());
    perf.arg("--out").arg(&out);
    if let Some(json) = &args.json {
        perf.arg("--json").arg(here.join(json));
    }
    process::run("the benchmark", &mut perf)
}

impl BenchArgs {
    /// The arguments for `gannet-perf`, without paths.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["run".to_owned()];
        let parts: Vec<&str> = self.parts.iter().chain(&self.only).map(String::as_str).collect();
        if !parts.is_empty() {
            arguments.extend(["--only".into(), parts.join(",")]);
        }
        let flags = [("--quick", self.quick), ("--check", self.check), ("--record", self.record)];
        arguments.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned()));
        for (flag, names) in [("--scenario", &self.scenario), ("--stack", &self.stack)] {
            if !names.is_empty() {
                arguments.extend([flag.to_owned(), names.join(",")]);
            }
        }
        let numbers = [("--seed", self.seed), ("--repeats", self.repeats.map(u64::from))];
        for (flag, number) in numbers.into_iter().filter_map(|(flag, number)| Some((flag, number?))) {
            arguments.extend([flag.to_owned(), number.to_string()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_wan_are_chosen() {
        let args = BenchArgs {
            only: vec!["wan".into()],
            scenario: vec!["loss".into(), "late".into()],
            stack: vec!["gannet.cubic".into()],
            seed: Some(7),
            check: true,
            ..BenchArgs::default()
        };
        let line = args.arguments().join(" ");
        assert_eq!(line, "run --only wan --check --scenario loss,late --stack gannet.cubic --seed 7");
    }

    #[test]
    fn parts_may_be_named_either_way() {
        let args = BenchArgs {
            parts: vec!["placement".into()],
            only: vec!["rr".into(), "hps".into()],
            quick: true,
            repeats: Some(7),
            ..BenchArgs::default()
        };
        assert_eq!(args.arguments(), ["run", "--only", "placement,rr,hps", "--quick", "--repeats", "7"]);
        assert_eq!(BenchArgs::default().arguments(), ["run"]);
    }
}
