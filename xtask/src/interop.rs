//! `cargo xtask interop`: builds the programs and plays Gannet against other implementations.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::error::{Error, Result};
use crate::{process, setup, workspace};

/// Arguments of `cargo xtask interop`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InteropArgs {
    /// Only these cells: PEER/CASE/ROLE, where an empty or missing part stands for all, for example `quinn`,
    /// `/transfer` or `//client`. ROLE is Gannet's. May be repeated
    #[arg(long, value_name = "PEER/CASE/ROLE")]
    pub only: Vec<String>,
    /// The seed of all that is random on the links
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// A dozen cases with quinn and aioquic, in less than two minutes
    #[arg(long)]
    pub quick: bool,
    /// Compare transfers between `gannet serve` and `gannet get` over shaped links with the same transfers in the
    /// simulation of `cargo xtask bench --only wan`; `--only` then names paths. Wants a machine that does nothing else
    #[arg(long, group = "comparison", conflicts_with_all = ["quick", "itself", "keep", "list"])]
    pub paths: bool,
    /// Compare what s2n-quic and quinn receive from `gannet serve` with what they receive from themselves, over links that
    /// lose 3 % of all packets. Wants a machine that does nothing else
    #[arg(long, group = "comparison", conflicts_with_all = ["quick", "only", "itself", "keep", "list"])]
    pub rivals: bool,
    /// With --paths and --rivals: transfers over each path
    #[arg(long, value_name = "N", requires = "comparison")]
    pub repeats: Option<u32>,
    /// Play each peer with itself, without Gannet
    #[arg(long)]
    pub itself: bool,
    /// Keep logs, captures, qlogs and secrets of all cells, not only of those that fail
    #[arg(long)]
    pub keep: bool,
    /// List peers and cases
    #[arg(long)]
    pub list: bool,
    /// Use this program instead of building one
    #[arg(long, value_name = "FILE")]
    pub gannet: Option<PathBuf>,
    /// The directory for what is left of cells; the matrix is DIR.html and DIR.json [default: target/interop]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Install nothing
    #[arg(long)]
    pub no_setup: bool,
}

/// Runs the command.
///
/// # Errors
/// If a dependency is missing, a build or a cell fails, this is not root, or a signal arrives.
pub fn run(args: &InteropArgs) -> Result<()> {
    let here = std::env::current_dir().map_err(|source| Error::Io { what: "no current directory".into(), source })?;
    if !args.list && !setup::is_root() {
        return Err(Error::Unmet(
            "`cargo xtask interop` needs root: it makes network namespaces and veth pairs".into(),
        ));
    }
    if !args.no_setup && !args.list {
        setup::for_interop(args.quick || args.paths || args.rivals)?;
    }
    let mut build = vec!["build", "-p", "gannet-interop", "--bin", "gannet-interop"];
    if args.gannet.is_none() && !args.list {
        // As for the tests: slightly optimised, with debug assertions.
        build.extend(["-p", "gannet", "--bin", "gannet"]);
    }
    if args.paths {
        build.extend(["-p", "gannet-perf", "--bin", "gannet-perf"]);
    }
    process::run("the build", &mut workspace::cargo(&build))?;
    let debug = workspace::target().join("debug");
    let mut interop = Command::new(debug.join("gannet-interop"));
    interop.current_dir(workspace::root());
    if args.list {
        return process::run("the list", interop.arg("list"));
    }
    let gannet = args.gannet.as_ref().map_or_else(|| debug.join("gannet"), |file| here.join(file));
    let gannet = fs::canonicalize(&gannet).map_err(Error::path("find the program", &gannet))?;
    if args.paths {
        interop.arg("paths").args(args.arguments()).arg("--gannet").arg(gannet);
        interop.arg("--perf").arg(debug.join("gannet-perf"));
        return process::run("the comparison", &mut interop);
    }
    if args.rivals {
        interop.arg("rivals").args(args.arguments()).arg("--gannet").arg(gannet);
        return process::run("the comparison", &mut interop);
    }
    let name = if args.quick { "interop-quick" } else { "interop" };
    let out = args.out.as_ref().map_or_else(|| workspace::target().join(name), |out| here.join(out));
    interop.arg("run").args(args.arguments()).arg("--gannet").arg(gannet).arg("--out").arg(out);
    process::run("the matrix", &mut interop)
}

impl InteropArgs {
    /// The arguments for `gannet-interop`, without paths of files.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for only in &self.only {
            arguments.extend(["--only".to_owned(), only.clone()]);
        }
        let flags = [("--quick", self.quick), ("--itself", self.itself), ("--keep", self.keep)];
        arguments.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned()));
        if let Some(seed) = self.seed {
            arguments.extend(["--seed".into(), seed.to_string()]);
        }
        if let Some(repeats) = self.repeats {
            arguments.extend(["--repeats".into(), repeats.to_string()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: InteropArgs,
    }

    #[test]
    fn repeats_are_for_comparisons() {
        let repeats = |words: &[&str]| {
            let words = ["interop", "--repeats", "7"].iter().chain(words);
            Cli::try_parse_from(words).map(|cli| cli.args.repeats)
        };
        for one in ["--paths", "--rivals"] {
            assert_eq!(repeats(&[one]).unwrap(), Some(7), "{one}");
        }
        assert!(repeats(&[]).is_err() && repeats(&["--quick"]).is_err() && repeats(&["--paths", "--rivals"]).is_err());
    }

    #[test]
    fn arguments_are_passed_on() {
        let args = InteropArgs {
            only: vec!["quinn".into(), "/transfer".into()],
            seed: Some(7),
            keep: true,
            ..InteropArgs::default()
        };
        assert_eq!(args.arguments(), ["--only", "quinn", "--only", "/transfer", "--keep", "--seed", "7"]);
        assert!(InteropArgs::default().arguments().is_empty());
    }
}
