//! `cargo xtask conformance`: holds the ledger of RFC requirements, `tests/conformance.tsv`, against the requirements and
//! the tests that exist.
//!
//! A program outside the repository lists the requirements. With `--mutants`, behaviours that rows of the ledger claim to
//! be tested are broken one after another, and the tests must notice.

mod ledger;
mod mutants;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::{self, cargo};
use ledger::Ledger;

/// The ledger, relative to the root.
const LEDGER: &str = "tests/conformance.tsv";

/// Where the program that lists the requirements usually is, relative to the root.
const TOOL: &str = "../shared/tools/conformance";

/// Names the program that lists the requirements.
const TOOL_VARIABLE: &str = "GANNET_CONFORMANCE";

/// Arguments of `cargo xtask conformance`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConformanceArgs {
    /// The program that lists the requirements of the RFCs
    #[arg(long, value_name = "PATH", env = TOOL_VARIABLE, default_value_os_t = workspace::root().join(TOOL))]
    pub tool: PathBuf,
    /// Accept requirements without a row
    #[arg(long)]
    pub partial: bool,
    /// Take the names of all tests from this file, one a line, rather than from cargo, which builds them
    #[arg(long, value_name = "FILE")]
    pub tests: Option<PathBuf>,
    /// Break behaviours that the ledger says are tested, one at a time, and require that the tests notice
    #[arg(long)]
    pub mutants: bool,
    /// Only mutants whose file name contains this; may be given more than once
    #[arg(long, value_name = "NAME", requires = "mutants")]
    pub only: Vec<String>,
}

/// Checks the ledger, or its mutants.
///
/// # Errors
/// If the ledger has a bad row or lacks one, a mutant survives, a program cannot be run, or a signal arrives.
pub fn run(args: &ConformanceArgs) -> Result<()> {
    let path = workspace::root().join(LEDGER);
    let ledger = Ledger::parse(&read(&path)?).map_err(Error::Unmet)?;
    if args.mutants {
        return mutants::run(&ledger, &args.only);
    }
    let names = match &args.tests {
        Some(file) => names_in(&read(file)?),
        None => existing_tests()?,
    };
    check(&args.tool, &path, &ledger, &names, args.partial)
}

/// Whether the program that lists the requirements is there, so that the ledger can be checked.
pub fn is_possible() -> bool {
    std::env::var_os(TOOL_VARIABLE).map_or_else(|| workspace::root().join(TOOL), PathBuf::from).is_file()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::path("read", path))
}

/// The last word of each line, which is the name of a test.
fn names_in(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

/// The names of all tests of the workspace.
fn existing_tests() -> Result<BTreeSet<String>> {
    if workspace::has_nextest() {
        let mut command = cargo(&["nextest", "list", "--workspace", "--message-format", "oneline"]);
        return process::output("the list of tests", command.stderr(Stdio::inherit())).map(|text| names_in(&text));
    }
    let mut command = cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--", "--list"]);
    let text = process::output("the list of tests", command.stderr(Stdio::inherit()))?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Holds `ledger`, which was read from `path`, against the tests and requirements.
fn check(tool: &Path, path: &Path, ledger: &Ledger, tests: &BTreeSet<String>, partial: bool) -> Result<()> {
    // The program also accepts the last part of a name, which may be that of another test.
    let unknown = ledger.tests().filter(|(_, name)| !tests.contains(*name));
    let mut bad: Vec<String> = unknown.map(|(id, name)| format!("{id}: there is no test {name}")).collect();
    let names = workspace::target().join("conformance-tests.txt");
    let list: String = tests.iter().map(|name| format!("{name}\n")).collect();
    std::fs::write(&names, list).map_err(Error::path("write", &names))?;
    let mut command = Command::new(tool);
    command.arg("check").arg(path).arg(&names).stderr(Stdio::inherit());
    let line = process::line(&command);
    let out = command.output().map_err(|source| Error::Start { command: line, source })?;
    let said = String::from_utf8_lossy(&out.stdout);
    for line in said.lines() {
        match line.split_once('\t') {
            Some(("open", _)) if partial => {}
            Some(("bad", why)) => bad.push(why.to_owned()),
            _ => println!("{line}"),
        }
    }
    bad.iter().for_each(|why| println!("bad: {why}"));
    let complete = out.status.success() && !said.lines().any(|line| line.starts_with("open\t"));
    if !bad.is_empty() || !said.contains("covered ") {
        Err(Error::Unmet(format!("{LEDGER} has {} bad rows", bad.len())))
    } else if !complete && !partial {
        Err(Error::Unmet(format!("{LEDGER} does not answer every requirement")))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_are_the_last_words() {
        let text = "gannet::hostile violations::a\nb\n\n  gannet c::d  \n";
        assert_eq!(names_in(text).into_iter().collect::<Vec<_>>(), ["b", "c::d", "violations::a"]);
    }

    /// A program that says `words` and ends with `code`.
    fn tool(dir: &Path, words: &str, code: u8) -> PathBuf {
        let path = dir.join("tool");
        std::fs::write(&path, format!("#!/bin/sh\nprintf '{words}'\nexit {code}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn rows_that_are_missing_or_bad_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::parse("rfc1#1/1\ttest\ta::b\n").unwrap();
        let tests: BTreeSet<String> = ["a::b".to_owned()].into();
        let check = |words: &str, code, ledger: &Ledger, partial| {
            let tool = tool(dir.path(), words, code);
            super::check(&tool, Path::new("ledger"), ledger, &tests, partial).map_err(|error| error.to_string())
        };
        let full = "covered 1/1\\n";
        assert_eq!(check(full, 0, &ledger, false), Ok(()));
        let open = "open\\trfc1#1/2\\n covered 1/2\\n";
        assert!(check(open, 1, &ledger, false).unwrap_err().contains("not answer every"));
        assert!(check(open, 0, &ledger, false).is_err(), "SHOULDs are answered as well");
        assert_eq!(check(open, 1, &ledger, true), Ok(()));
        assert!(check("bad\\tline 3\\ncovered 1/2\\n", 1, &ledger, true).unwrap_err().contains("1 bad row"));
        assert!(check("", 2, &ledger, true).is_err(), "it failed");
        let elsewhere = Ledger::parse("rfc1#1/1\ttest\tz::b\n").unwrap();
        assert!(check(full, 0, &elsewhere, false).is_err(), "a test of another module");
    }

    #[test]
    fn the_ledger_of_this_repository_is_well_formed() {
        let text = read(&workspace::root().join(LEDGER)).unwrap();
        let ledger = Ledger::parse(&text).unwrap();
        mutants::load(&ledger, &[]).unwrap();
    }
}
