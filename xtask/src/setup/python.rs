//! The Python environment of the aioquic peer, used only by tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::{process, workspace};

/// aioquic with the version required by the test harness.
const REQUIREMENT: &str = include_str!("../../../tests/peers/requirements.txt");

/// The requirement without the line feed.
pub fn requirement() -> &'static str {
    REQUIREMENT.trim()
}

/// The directory of the environment: `GANNET_VENV`, or `target/venv`.
pub fn venv() -> PathBuf {
    std::env::var_os("GANNET_VENV").map_or_else(|| workspace::target().join("venv"), PathBuf::from)
}

/// A Python that can create virtual environments.
pub fn interpreter() -> Option<&'static str> {
    // Another Python may shadow the system's and lack ensurepip.
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| process::succeeds(Command::new(python).args(["-c", "import venv, ensurepip"])))
}

/// Returns whether the environment has the right version of aioquic.
pub fn is_ready() -> bool {
    let program = "import sys, aioquic; sys.exit('aioquic==' + aioquic.__version__ != sys.argv[1])";
    process::succeeds(Command::new(python(&venv())).args(["-c", program, requirement()]))
}

/// Creates the environment unless it exists.
///
/// # Errors
/// If there is no suitable Python, or pip fails.
pub fn prepare() -> Result<()> {
    if is_ready() {
        return Ok(());
    }
    let Some(interpreter) = interpreter() else {
        return Err(Error::Unmet("no python3 with venv: type `sudo apt-get install python3-venv`".into()));
    };
    let venv = venv();
    process::run("python", Command::new(interpreter).args(["-m", "venv", "--clear"]).arg(&venv))?;
    install(requirement())?;
    if is_ready() {
        return Ok(());
    }
    let python = python(&venv);
    Err(Error::Unmet(format!("pip installed {}, but {} cannot import it", requirement(), python.display())))
}

/// Installs a package into the environment.
///
/// # Errors
/// If pip fails.
pub fn install(requirement: &str) -> Result<()> {
    let mut pip = Command::new(python(&venv()));
    process::run("pip", pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]))
}

fn python(venv: &Path) -> PathBuf {
    venv.join("bin/python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_pinned() {
        let version = requirement().strip_prefix("aioquic==").unwrap();
        assert!(
            version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok()),
            "{version}"
        );
    }
}
