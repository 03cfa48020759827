//! Patches that break a behaviour each, and the tests that must fail then.
//!
//! A patch is a file in `tests/conformance/mutants`. Before the difference itself, lines name the requirement that it
//! breaks, the arguments for `cargo nextest run` that build the tests, and the tests, each of which has to fail:
//!
//! ```text
//! Requirement: rfc9000#17.2.2/1
//! Run: --test hostile
//! Red: retry::a_token_from_a_server_is_dropped
//! ```
//!
//! They are applied to a copy of the working tree that has its own target directory, so nothing here is rebuilt.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::conformance::ledger::Ledger;
use crate::error::{Error, Result};
use crate::workspace::{self, cargo};
use crate::{interrupt, process};

/// The patches, relative to the root.
const PATCHES: &str = "tests/conformance/mutants";

/// The exit code of nextest when tests have failed.
const TESTS_FAILED: i32 = 100;

/// Number of lines that are shown of a run that did not end as it should.
const LAST: usize = 12;

/// A patch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mutant {
    path: PathBuf,
    requirement: String,
    run: Vec<String>,
    red: Vec<String>,
}

impl Mutant {
    fn parse(path: &Path, text: &str) -> std::result::Result<Self, String> {
        let head = text.lines().take_while(|line| !line.starts_with("--- ") && !line.starts_with("diff "));
        let mut this = Self { path: path.into(), requirement: String::new(), run: Vec::new(), red: Vec::new() };
        for line in head {
            match line.split_once(": ") {
                Some(("Requirement", id)) => this.requirement = id.trim().to_owned(),
                Some(("Run", run)) => this.run = run.split_whitespace().map(str::to_owned).collect(),
                Some(("Red", test)) => this.red.push(test.trim().to_owned()),
                _ => {}
            }
        }
        let whole = !this.requirement.is_empty() && !this.run.is_empty() && !this.red.is_empty();
        if whole { Ok(this) } else { Err(format!("{} needs lines with Requirement, Run and Red", path.display())) }
    }

    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The mutants whose names contain one of `only`, or all if there are none in it.
///
/// # Errors
/// If a patch cannot be read, lacks a line, or breaks a requirement whose row does not name its tests.
pub(super) fn load(ledger: &Ledger, only: &[String]) -> Result<Vec<Mutant>> {
    let dir = workspace::root().join(PATCHES);
    let entries = std::fs::read_dir(&dir).map_err(Error::path("list", &dir))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort();
    let mut mutants = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(Error::path("read", &path))?;
        let mutant = Mutant::parse(&path, &text).map_err(Error::Unmet)?;
        if let Some(test) = mutant.red.iter().find(|test| !ledger.names(&mutant.requirement, test)) {
            let why = format!("{}: the row of {} does not name the test {test}", mutant.name(), mutant.requirement);
            return Err(Error::Unmet(why));
        }
        mutants.push(mutant);
    }
    if !only.is_empty() {
        mutants.retain(|mutant| only.iter().any(|part| mutant.name().contains(part)));
    }
    Ok(mutants)
}

/// Applies each mutant alone and runs its tests.
///
/// # Errors
/// If one survives, cannot be applied or built, or a signal arrives.
pub(super) fn run(ledger: &Ledger, only: &[String]) -> Result<()> {
    let mutants = load(ledger, only)?;
    let home = workspace::target().join("mutants");
    let (tree, target) = (home.join("tree"), home.join("target"));
    let mut bad = Vec::new();
    for (n, mutant) in mutants.iter().enumerate() {
        interrupt::check()?;
        let began = Instant::now();
        let outcome = copy_tree(&tree).and_then(|()| apply(&tree, mutant)).and_then(|()| play(&tree, &target, mutant));
        if matches!(outcome, Err(Error::Interrupted(_))) {
            return outcome;
        }
        let word = if outcome.is_ok() { "red" } else { "BAD" };
        println!("{word} {:>3}/{} {} {:.0} s", n + 1, mutants.len(), mutant.name(), began.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            println!("  {error}");
            bad.push(mutant.name());
        }
    }
    copy_tree(&tree)?;
    println!("{} mutants, {} of them noticed by their tests", mutants.len(), mutants.len() - bad.len());
    if bad.is_empty() { Ok(()) } else { Err(Error::Unmet(format!("mutants without effect: {}", bad.join(", ")))) }
}

/// Makes `tree` a copy of the working tree. Files that have not changed are not written, so cargo does not build them
/// again.
fn copy_tree(tree: &Path) -> Result<()> {
    let root = workspace::root();
    let list = |dir: &Path, more: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(dir).args(["ls-files", "-z"]).args(more);
        process::output("the list of files", &mut command)
    };
    let names = list(&root, &["--cached", "--others", "--exclude-standard"])?;
    let names: BTreeSet<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    for name in &names {
        let (from, to) = (root.join(name), tree.join(name));
        if !from.is_file() {
            continue;
        }
        let bytes = std::fs::read(&from).map_err(Error::path("read", &from))?;
        if std::fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        let dir = to.parent().unwrap_or(tree);
        std::fs::create_dir_all(dir).map_err(Error::path("create", dir))?;
        std::fs::write(&to, bytes).map_err(Error::path("write", &to))?;
    }
    remove_others(tree, tree, &names)
}

/// Removes files in `dir`, within `tree`, that are not in `names`.
fn remove_others(tree: &Path, dir: &Path, names: &BTreeSet<&str>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::path("list", dir))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(tree, &path, names)?;
        } else if !path.strip_prefix(tree).is_ok_and(|name| names.contains(&*name.to_string_lossy())) {
            std::fs::remove_file(&path).map_err(Error::path("remove", &path))?;
        }
    }
    Ok(())
}

fn apply(tree: &Path, mutant: &Mutant) -> Result<()> {
    let mut command = Command::new("git");
    // Otherwise git would take the tree for a part of this repository, and ignore the patch.
    command.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree)).current_dir(tree);
    command.args(["apply", "-C1", "--recount"]).arg(&mutant.path);
    process::output("the patch", &mut command).map(drop)
}

/// Runs the tests of an applied mutant: each has to fail.
fn play(tree: &Path, target: &Path, mutant: &Mutant) -> Result<()> {
    let tests: Vec<_> = mutant.red.iter().map(|test| format!("test(={test})")).collect();
    let mut command = cargo(&["nextest", "run", "--no-default-features", "--no-fail-fast", "--offline"]);
    command.current_dir(tree).args(&mutant.run).args(["--filterset", &tests.join(" | ")]);
    command.env("CARGO_TARGET_DIR", target).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    // Most of the time is spent on builds.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0").env("CARGO_PROFILE_DEV_DEBUG", "false");
    let out = command.output().map_err(|source| Error::Start { command: process::line(&command), source })?;
    interrupt::check()?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.code() != Some(TESTS_FAILED) {
        let lines: Vec<_> = said.lines().collect();
        let tail = process::format_tail(lines[lines.len().saturating_sub(LAST)..].iter().copied());
        let name = "the run with the mutant".to_owned();
        return Err(Error::Failed { name, command: process::line(&command), status: out.status, tail });
    }
    match mutant.red.iter().find(|test| !has_failed(&said, test)) {
        Some(test) => Err(Error::Unmet(format!("{test} does not notice"))),
        None => Ok(()),
    }
}

/// Whether nextest reports that `test` failed.
fn has_failed(said: &str, test: &str) -> bool {
    said.lines().any(|line| {
        let mut words = line.split_whitespace();
        let bad = words.next().is_some_and(|word| ["FAIL", "SIGABRT", "SIGSEGV", "TIMEOUT", "ABORT"].contains(&word));
        bad && words.last() == Some(test)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_what_it_breaks_and_who_notices() {
        let text =
            "Some words.\nRequirement: rfc1#2/3\nRun: --test hostile\nRed: a::b\nRed: c\n\n--- a/x\n+++ b/x\nRed: d\n";
        let mutant = Mutant::parse(Path::new("dir/broken.patch"), text).unwrap();
        assert_eq!((mutant.name().as_str(), mutant.requirement.as_str()), ("broken", "rfc1#2/3"));
        assert_eq!((mutant.run.join(" ").as_str(), mutant.red.join(" ").as_str()), ("--test hostile", "a::b c"));
        for missing in ["Requirement", "Run", "Red"] {
            let less: String = text.lines().filter(|l| !l.starts_with(missing)).map(|l| format!("{l}\n")).collect();
            assert!(Mutant::parse(Path::new("x"), &less).is_err(), "{missing}");
        }
    }

    #[test]
    fn only_a_failure_counts() {
        let said = "        FAIL [   0.006s] (1/3) gannet::hostile a::b\n        PASS [   0.001s] (2/3) gannet c::d\n\
                    \x20     SIGABRT [   0.001s] gannet e\n";
        assert_eq!(["a::b", "b", "c::d", "e"].map(|test| has_failed(said, test)), [true, false, false, true]);
    }

    #[test]
    fn a_copy_follows_its_original() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("src")).unwrap();
        std::fs::write(tree.join("src/gone.rs"), "old").unwrap();
        copy_tree(&tree).unwrap();
        let manifest = tree.join("Cargo.toml");
        let copied =
            || std::fs::read(&manifest).unwrap() == std::fs::read(workspace::root().join("Cargo.toml")).unwrap();
        assert!(copied() && !tree.join("src/gone.rs").exists());
        let written = |path: &Path| path.metadata().unwrap().modified().unwrap();
        let before = written(&manifest);
        std::fs::write(tree.join("README.md"), "changed").unwrap();
        copy_tree(&tree).unwrap();
        assert_eq!(written(&manifest), before, "it is left alone");
        assert_ne!(std::fs::read(tree.join("README.md")).unwrap(), b"changed");
    }
}
