//! Paths of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// The root of the repository.
pub fn root() -> PathBuf {
    // Cargo passes the current path of this package; the compiled-in one is for runs without cargo.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The command `cargo ARGUMENTS`, run in the root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(arguments);
    command
}

/// Whether cargo-nextest is installed.
pub fn has_nextest() -> bool {
    process::succeeds(&mut cargo(&["nextest", "--version"]))
}
