//! `cargo xtask setup`: finds what the machine lacks, and gets it.

mod apt;
pub mod deny;
mod hugepages;
mod needs;
mod python;

use crate::error::{Error, Result};

pub use needs::{Need, find_program};

/// What `cargo xtask setup` takes.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct SetupArgs {
    /// Look only: change nothing, and end with 1 when something is missing
    #[arg(long)]
    pub check: bool,
    /// Also what the tests need: tshark, and a Python peer in target/venv
    #[arg(long)]
    pub tests: bool,
    /// Also what `cargo xtask bench --peers` needs: valgrind, and what quiche is built with
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

/// Whether we may install packages and set up memory.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The command.
///
/// # Errors
/// Something is missing and could not be, or was not to be, installed.
pub fn run(args: SetupArgs) -> Result<()> {
    if args.check {
        return check(args);
    }
    packages(&args.needs())?;
    if args.tests {
        python::prepare()?;
    }
    hugepages::prepare();
    println!("setup: this machine has what it takes");
    Ok(())
}

/// Installs what `needs` lacks. Says nothing when nothing is missing.
///
/// # Errors
/// Something is missing and cannot be installed by us; the message says what to type.
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

/// What the demo needs: packages, and huge pages if we may.
///
/// # Errors
/// As [`packages`].
pub fn for_demo() -> Result<()> {
    packages(&needs::list(false))?;
    hugepages::prepare();
    Ok(())
}

/// What the benchmarks need: what the demo needs, valgrind, and what the heavy peers are built with if `peers`.
///
/// # Errors
/// As [`packages`].
pub fn for_bench(peers: bool) -> Result<()> {
    for_demo()?;
    packages(&needs::bench(peers))
}

/// What `cargo xtask portability` needs on this machine.
///
/// # Errors
/// As [`packages`].
pub fn for_portability() -> Result<()> {
    packages(needs::PORTABILITY)
}

/// What continuous integration needs: what the tests need, valgrind and cargo-deny.
///
/// # Errors
/// As [`for_tests`].
pub fn for_ci() -> Result<()> {
    for_tests()?;
    deny::prepare()?;
    packages(&needs::bench(false))
}

/// What the tests need. They use ordinary memory: huge pages are left as they are.
///
/// # Errors
/// As [`packages`], and when the Python peer cannot be installed.
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
