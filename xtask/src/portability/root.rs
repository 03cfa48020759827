//! The root file system of another release, and running programs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive;
use super::system::System;
use crate::error::{Error, Result};
use crate::setup::find_program;
use crate::{process, workspace};

/// The script that mounts what a program needs, and starts it.
const ENTER: &str = "xtask/src/portability/enter.sh";

/// A root file system below `target/portability`, created once and reused.
pub struct Root {
    /// The directory of the root, its builds and the mark that it is complete.
    dir: PathBuf,
    rust: PathBuf,
    crates: PathBuf,
}

/// The network of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// This machine's, to install packages.
    Machine,
    /// Its own, with only a loopback interface.
    Loopback,
}

impl Root {
    /// Prepares the root of `system`: the existing one, unless `fresh`.
    ///
    /// # Errors
    /// If no archive contains it, or debootstrap fails.
    pub fn prepare(system: System, fresh: bool) -> Result<Self> {
        let dir = workspace::target().join("portability").join(system.to_string());
        let (rust, crates) = (sysroot()?, crates()?);
        let root = Self { dir, rust, crates };
        if fresh {
            root.remove()?;
        }
        if !root.complete().exists() {
            root.remove()?;
            root.bootstrap(system)?;
        }
        Ok(root)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn complete(&self) -> PathBuf {
        self.dir.join("complete")
    }

    /// Cargo's target directory inside the root.
    fn builds(&self) -> PathBuf {
        self.dir.join("builds")
    }

    fn bootstrap(&self, system: System) -> Result<()> {
        let (uri, settings) = (archive::find(system)?, archive::settings()?);
        for dir in [self.path(), self.builds()] {
            fs::create_dir_all(&dir).map_err(Error::path("make", &dir))?;
        }
        // debootstrap mounts file systems in the root.
        let mut command = namespaces(Network::Machine);
        command.args(["debootstrap", "--variant=minbase", "--include=ca-certificates"]);
        command.arg(format!("--components={}", system.components()));
        command.arg(system.codename()).arg(self.path()).arg(uri);
        process::run("debootstrap", &mut command)?;
        let file = self.path().join("etc/apt/apt.conf.d/99host");
        fs::write(&file, settings).map_err(Error::path("write", &file))?;
        fs::write(self.complete(), "").map_err(Error::path("write", &self.complete()))
    }

    /// Removes the root. Fails if anything is mounted in it, since the mounted files would be removed too.
    fn remove(&self) -> Result<()> {
        let mounts = Path::new("/proc/self/mounts");
        let mounts = fs::read_to_string(mounts).map_err(Error::path("read", mounts))?;
        if let Some(mount) = mount_below(&mounts, &self.dir) {
            return Err(Error::Unmet(format!("something is mounted at {mount}: `umount` it first")));
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::path("remove", &self.dir)(error)),
            _ => Ok(()),
        }
    }

    /// The command that runs `arguments` in the root.
    pub fn command(&self, network: Network, arguments: &[&str]) -> Command {
        let mut command = namespaces(network);
        command.arg("sh").arg(workspace::root().join(ENTER)).arg(self.path()).args(arguments);
        command.env("GANNET_REPOSITORY", workspace::root()).env("GANNET_BUILDS", self.builds());
        command.env("GANNET_RUST", &self.rust).env("GANNET_CRATES", &self.crates);
        if let Some(nextest) = nextest() {
            command.env("GANNET_NEXTEST", nextest);
        }
        if network == Network::Loopback {
            command.env("GANNET_OFFLINE", "1");
        }
        command
    }

    /// The Rust toolchain.
    pub fn rust(&self) -> &Path {
        &self.rust
    }
}

/// `unshare` with separate namespaces for mounts and processes, to which the program to run is appended. When its first
/// process ends, for whatever reason, all its processes and mounts are gone.
fn namespaces(network: Network) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    if network == Network::Loopback {
        command.arg("--net");
    }
    command.arg("--");
    command
}

/// A mount point at or below `dir`, if any is in `mounts` (proc_pid_mounts(5)).
fn mount_below(mounts: &str, dir: &Path) -> Option<String> {
    let points = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
    points.map(|point| point.replace("\\040", " ")).find(|point| Path::new(point).starts_with(dir))
}

fn sysroot() -> Result<PathBuf> {
    let out = process::output("rustc", Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(out.trim()))
}

/// Cargo's home with the sources of all crates, which are fetched now, as there is no network inside.
fn crates() -> Result<PathBuf> {
    process::run("cargo fetch", &mut workspace::cargo(&["fetch", "--locked"]))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.ok_or_else(|| Error::Unmet("neither CARGO_HOME nor HOME says where cargo keeps its crates".into()))
}

/// nextest, if it runs in any root; without it `cargo xtask test` uses `cargo test`.
fn nextest() -> Option<PathBuf> {
    find_program("cargo-nextest").and_then(|path| path.canonicalize().ok())
}

#[cfg(test)]
mod tests;
