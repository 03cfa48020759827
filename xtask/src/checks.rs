//! `cargo xtask test` and `cargo xtask ci`: run all checks, one after another, and print a summary.

use std::process::Command;

use crate::error::{Error, Result};
use crate::nic_test::parts::Parts;
use crate::steps::{Step, run_all};
use crate::workspace::{self, cargo, has_nextest};
use crate::{conformance, setup};

/// Arguments of `cargo xtask test`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TestArgs {
    /// Run only tests whose name contains this, and no documentation tests
    #[arg(long, value_name = "NAME")]
    pub filter: Option<String>,
    /// Install nothing
    #[arg(long)]
    pub no_setup: bool,
}

/// Runs all tests.
///
/// # Errors
/// If a dependency cannot be installed, a step fails, or a signal arrives.
pub fn test(args: &TestArgs) -> Result<()> {
    if !args.no_setup {
        setup::for_tests()?;
    }
    let mut steps = test_steps(args.filter.as_deref(), has_nextest());
    if args.filter.is_none() {
        steps.extend(ledger_step());
        steps.extend(nic_step(!args.no_setup)?);
        steps.extend(interop_step());
        steps.push(wan_step());
    }
    run_all(steps)
}

/// Checks formatting, lints and documentation, runs all tests, and counts instructions per packet.
///
/// # Errors
/// As [`test()`].
pub fn ci() -> Result<()> {
    setup::for_ci()?;
    let mut steps = lint_steps();
    steps.extend(FEATURES.map(feature_step));
    steps.push(dependency_step());
    steps.extend(test_steps(None, has_nextest()));
    steps.extend(ledger_step());
    steps.extend(nic_step(true)?);
    steps.extend(interop_step());
    steps.push(count_step());
    steps.push(wan_step());
    run_all(steps)
}

/// The part of `cargo xtask nic-test` that takes less than three minutes, with igb (four queues with RSS) and virtio.
/// `None`, with a warning, on machines that cannot emulate others.
///
/// # Errors
/// If a signal arrives.
fn nic_step(download: bool) -> Result<Option<Step>> {
    let parts = if download { Parts::prepare() } else { Parts::existing() };
    match parts {
        Ok(()) => Ok(Some(Step::cargo("emulated NICs", &NIC_TEST))),
        Err(error @ Error::Interrupted(_)) => Err(error),
        Err(error) => {
            println!("warning: the tests on emulated NICs are left out: {error}");
            Ok(None)
        }
    }
}

/// Holds the ledger of RFC requirements against the tests, where the program that lists the requirements is there.
fn ledger_step() -> Option<Step> {
    conformance::is_possible().then(|| Step::cargo("conformance", &["xtask", "conformance"]))
}

/// A dozen cases of `cargo xtask interop` with two peers. `None`, with a warning, without root.
fn interop_step() -> Option<Step> {
    if !setup::is_root() {
        println!("warning: the matrix with other implementations is left out: it needs root");
        return None;
    }
    Some(Step::cargo("other stacks", &["xtask", "interop", "--quick", "--no-setup"]))
}

const NIC_TEST: [&str; 6] = [
    "xtask",
    "nic-test",
    "--quick",
    "--model=igb,virtio-split",
    "--step=neighbours,requests,get",
    "--step=clean-stop,rss,spread,unplug",
];

/// Fails if a packet takes 5 % more instructions than recorded in perf/icount.json.
fn count_step() -> Step {
    Step::cargo("instruction counts", &held("icount"))
}

/// Fails if goodput, or another figure, on one of a few links differs by 3 % from that recorded in perf/wan.json.
fn wan_step() -> Step {
    Step::cargo("links in virtual time", &held("wan"))
}

/// The arguments that hold a part of the benchmarks against its recorded figures.
fn held(part: &'static str) -> Vec<&'static str> {
    let build = ["run", "--release", "--package", "gannet-perf", "--bin", "gannet-perf", "--"];
    [&build[..], &["run", "--only", part, "--quick", "--check"]].concat()
}

/// Combinations of features that users of the library choose; all and none are checked anyway.
const FEATURES: [&str; 5] = ["dpdk", "dpdk,ipsec-mb", "proto", "report", "cli"];

/// Checks the library, and the command if enabled, with only these features.
fn feature_step(features: &'static str) -> Step {
    let clippy = ["clippy", "--package", "gannet", "--lib", "--bins", "--no-default-features", "--features"];
    Step::cargo("a set of features", &[&clippy[..], &[features, "--", "-D", "warnings"]].concat())
}

/// Checks licences, sources and bans of dependencies. Advisories are excluded: they come from a Git repository, which
/// may be unreachable, and change independently of this one.
fn dependency_step() -> Step {
    let mut command = Command::new(setup::deny::program());
    command.current_dir(workspace::root());
    command.args(["--workspace", "--locked", "check", "--allow", "duplicate", "bans", "licenses", "sources"]);
    Step { name: "dependencies", command }
}

fn lint_steps() -> Vec<Step> {
    let deny = ["--", "-D", "warnings"];
    let clippy = ["clippy", "--workspace", "--all-targets"];
    let portable = ["clippy", "--all-targets", "--no-default-features"];
    let mut doc = Step::cargo("documentation", &["doc", "--workspace", "--no-deps"]);
    doc.command.env("RUSTDOCFLAGS", "-D warnings");
    vec![
        Step::cargo("format", &["fmt", "--all", "--check"]),
        Step::cargo("lints", &[&clippy[..], &deny].concat()),
        Step::cargo("lints without DPDK", &[&portable[..], &deny].concat()),
        doc,
    ]
}

fn test_steps(filter: Option<&str>, nextest: bool) -> Vec<Step> {
    let tests: &[&str] = if nextest {
        &["nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]
    };
    let portable: &[&str] = if nextest {
        // A filter need not match any of these tests.
        &["nextest", "run", "--no-default-features", "--lib", "--no-fail-fast", "--no-tests=pass"]
    } else {
        &["test", "--no-default-features", "--lib"]
    };
    let with_filter = |arguments: &[&str]| {
        let mut command = cargo(arguments);
        command.args(filter);
        command
    };
    let mut steps = vec![Step { name: "tests", command: with_filter(tests) }];
    if filter.is_none() {
        steps.push(Step::cargo("documentation tests", &["test", "--workspace", "--doc"]));
        steps.push(Step::cargo("build without DPDK", &["build", "--no-default-features"]));
    }
    steps.push(Step { name: "tests without DPDK", command: with_filter(portable) });
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| process::line(&step.command)).collect()
    }

    #[test]
    fn every_test_runs_with_either_runner() {
        let expected = [
            "cargo nextest run --workspace --no-fail-fast",
            "cargo test --workspace --doc",
            "cargo build --no-default-features",
            "cargo nextest run --no-default-features --lib --no-fail-fast --no-tests=pass",
        ];
        assert_eq!(lines(&test_steps(None, true)), expected);
        let plain = lines(&test_steps(None, false));
        assert_eq!(plain[0], "cargo test --workspace --lib --bins --tests --no-fail-fast");
        assert_eq!(plain[3], "cargo test --no-default-features --lib");
    }

    #[test]
    fn a_filter_reaches_the_runners() {
        let filtered = lines(&test_steps(Some("quic::"), true));
        let expected = [
            "cargo nextest run --workspace --no-fail-fast quic::",
            "cargo nextest run --no-default-features --lib --no-fail-fast --no-tests=pass quic::",
        ];
        assert_eq!(filtered, expected);
    }

    #[test]
    fn lints_deny_warnings() {
        let lints = lines(&lint_steps());
        assert!(lints[1].ends_with("-D warnings") && lints[2].ends_with("-D warnings"), "{lints:?}");
        assert!(lints[3].starts_with("RUSTDOCFLAGS='-D warnings' "), "{lints:?}");
    }

    #[test]
    fn features_are_checked_alone() {
        let all: Vec<_> = FEATURES.map(feature_step).into_iter().collect();
        assert!(
            lines(&all).contains(
                &"cargo clippy --package gannet --lib --bins --no-default-features --features dpdk -- -D warnings"
                    .to_owned()
            )
        );
    }

    #[test]
    fn dependencies_are_checked_as_deny_toml_says() {
        let line = process::line(&dependency_step().command);
        assert!(line.contains("cargo-deny") && line.ends_with("bans licenses sources"), "{line}");
        assert!(workspace::root().join("deny.toml").is_file());
    }

    #[test]
    fn the_short_test_of_emulated_nics_has_a_step_of_each_kind() {
        let line = process::line(&Step::cargo("emulated NICs", &NIC_TEST).command);
        assert!(line.starts_with("cargo xtask nic-test --quick --model=igb,virtio-split --step="), "{line}");
    }

    #[test]
    fn figures_are_checked_against_those_recorded() {
        for (step, part) in [(count_step(), "icount"), (wan_step(), "wan")] {
            let line = process::line(&step.command);
            let end = format!("run --only {part} --quick --check");
            assert!(line.starts_with("cargo run --release") && line.ends_with(&end), "{line}");
        }
    }

    #[test]
    fn one_failure_does_not_hide_another() {
        let step = |name, program| Step { name, command: Command::new(program) };
        let error = run_all(vec![step("a", "false"), step("b", "true"), step("c", "false")]).unwrap_err();
        assert_eq!(error.to_string(), "failed: a, c");
        run_all(vec![step("b", "true")]).unwrap();
    }
}
