//! The file system of another release, and programs within it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive;
use super::system::System;
use crate::error::{Error, Result};
use crate::setup::find_program;
use crate::{process, workspace};

/// Mounts what a program needs, and starts it.
const ENTER: &str = "xtask/src/portability/enter.sh";

/// A root file system below `target/portability`, made once and used again.
pub struct Root {
    /// What holds the root, its builds and the note that it is complete.
    dir: PathBuf,
    rust: PathBuf,
    crates: PathBuf,
}

/// Whether a program may see the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// That of this machine, to install packages.
    Machine,
    /// Its own, with nothing but a loopback.
    Loopback,
}

impl Root {
    /// The root of `system`: that of the last time, unless `fresh`.
    ///
    /// # Errors
    /// No archive has it, or debootstrap fails.
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

    /// Where cargo builds to when it runs in the root.
    fn builds(&self) -> PathBuf {
        self.dir.join("builds")
    }

    fn bootstrap(&self, system: System) -> Result<()> {
        let (uri, settings) = (archive::find(system)?, archive::settings()?);
        for dir in [self.path(), self.builds()] {
            fs::create_dir_all(&dir).map_err(Error::path("make", &dir))?;
        }
        // It mounts things in there.
        let mut command = namespaces(Network::Machine);
        command.args(["debootstrap", "--variant=minbase", "--include=ca-certificates"]);
        command.arg(format!("--components={}", system.components()));
        command.arg(system.codename()).arg(self.path()).arg(uri);
        process::run("debootstrap", &mut command)?;
        let file = self.path().join("etc/apt/apt.conf.d/99host");
        fs::write(&file, settings).map_err(Error::path("write", &file))?;
        fs::write(self.complete(), "").map_err(Error::path("write", &self.complete()))
    }

    /// Removes all of it. Refuses while anything is mounted there, since what is mounted would be removed as well.
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

    /// `arguments`, to be run in the root.
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

/// `unshare` with namespaces of its own for mounts and processes, before the program to run in them. Whatever happens to
/// it, processes and mounts go with the first process in there.
fn namespaces(network: Network) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    if network == Network::Loopback {
        command.arg("--net");
    }
    command.arg("--");
    command
}

/// A mount point at or below `dir`, if there is one among `mounts` (proc_pid_mounts(5)).
fn mount_below(mounts: &str, dir: &Path) -> Option<String> {
    let points = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
    points.map(|point| point.replace("\\040", " ")).find(|point| Path::new(point).starts_with(dir))
}

fn sysroot() -> Result<PathBuf> {
    let out = process::output("rustc", Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(out.trim()))
}

/// Cargo's home with the sources of all crates, which are fetched now: there is no network within.
fn crates() -> Result<PathBuf> {
    process::run("cargo fetch", &mut workspace::cargo(&["fetch", "--locked"]))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.ok_or_else(|| Error::Unmet("neither CARGO_HOME nor HOME says where cargo keeps its crates".into()))
}

/// nextest where it runs in any root; without it `cargo xtask test` falls back to `cargo test`.
fn nextest() -> Option<PathBuf> {
    find_program("cargo-nextest").and_then(|path| path.canonicalize().ok())
}

#[cfg(test)]
mod tests;
