//! `cargo xtask setup`: finds what the machine lacks, and installs it.

mod apt;
pub mod deny;
mod hugepages;
mod needs;
mod python;

use crate::error::{Error, Result};

pub use needs::{Need, find_program};

/// Arguments of `cargo xtask setup`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct SetupArgs {
    /// Check only: change nothing, and exit with 1 if something is missing
    #[arg(long)]
    pub check: bool,
    /// Also install what the tests need: tshark, and a Python peer in target/venv
    #[arg(long)]
    pub tests: bool,
    /// Also install what `cargo xtask bench --peers` needs: valgrind, and the build tools of quiche
    #[arg(long)]
    pub peers: bool,
}

impl SetupArgs {
    fn needs(self) -> Vec<Need> {
        let mut needs = needs::list(self.tests);
        if self.peers {
            needs.extend(needs::bench(true));
        }
        needs
    }
}

/// Returns whether we may install packages and set up memory.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the command.
///
/// # Errors
/// If something is missing and could not, or should not, be installed.
pub fn run(args: SetupArgs) -> Result<()> {
    if args.check {
        return check(args);
    }
    packages(&args.needs())?;
    if args.tests {
        python::prepare()?;
    }
    hugepages::prepare();
    println!("setup: this machine has everything it needs");
    Ok(())
}

/// Installs the missing ones of `needs`. Prints nothing if none is missing.
///
/// # Errors
/// If something is missing and cannot be installed; the message has the command.
pub fn packages(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("setup: missing {need}");
    }
    apt::install(&missing)?;
    match needs.iter().find(|need| !need.is_met()) {
        None => Ok(()),
        Some(need) => Err(Error::Unmet(format!("{need} is still missing after its package was installed"))),
    }
}

/// Installs what the demo needs: packages, and huge pages if permitted.
///
/// # Errors
/// As [`packages`].
pub fn for_demo() -> Result<()> {
    packages(&needs::list(false))?;
    hugepages::prepare();
    Ok(())
}

/// Installs what the benchmarks need: the demo's needs, valgrind, and the build tools of the heavy peers if `peers`.
///
/// # Errors
/// As [`packages`].
pub fn for_bench(peers: bool) -> Result<()> {
    for_demo()?;
    packages(&needs::bench(peers))
}

/// Installs what `cargo xtask portability` needs on this machine.
///
/// # Errors
/// As [`packages`].
pub fn for_portability() -> Result<()> {
    packages(needs::PORTABILITY)
}

/// Installs what `cargo xtask interop` needs: with `quick`, for the peers that the tests use as well, otherwise for all.
///
/// # Errors
/// As [`packages`].
pub fn for_interop(quick: bool) -> Result<()> {
    packages(&needs::list(true))?;
    if quick { Ok(()) } else { packages(&needs::interop()) }
}

/// Installs what continuous integration needs: the tests' needs, valgrind and cargo-deny.
///
/// # Errors
/// As [`for_tests`].
pub fn for_ci() -> Result<()> {
    for_tests()?;
    deny::prepare()?;
    packages(&needs::bench(false))
}

/// Installs what the tests need. They use ordinary memory, so huge pages stay as they are.
///
/// # Errors
/// As [`packages`], and if the Python peer cannot be installed.
pub fn for_tests() -> Result<()> {
    packages(&needs::list(true))?;
    python::prepare()
}

fn check(args: SetupArgs) -> Result<()> {
    let (needs, tests) = (args.needs(), args.tests);
    for need in &needs {
        println!("{:<8} {need}", if need.is_met() { "ok" } else { "missing" });
    }
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).collect();
    let python = !tests || python::is_ready();
    if tests {
        let found = if python { "ok" } else { "missing" };
        println!("{found:<8} {} in {}", python::requirement(), python::venv().display());
    }
    let memory = hugepages::is_ready();
    println!(
        "{:<8} huge pages: {}",
        if memory { "ok" } else { "few" },
        if memory { "enough for the demo" } else { "ordinary memory will be used instead" }
    );
    match (missing.is_empty(), python) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::Unmet("run `cargo xtask setup --tests`".into())),
        (false, _) => Err(apt::remedy(&missing)),
    }
}
