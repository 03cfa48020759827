//! The implementations, how their programs are built, and how they are started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{About, Result};
use crate::lab::End;
use crate::process::{output, tool};

/// The version of tquic's tools.
const TQUIC: &str = "1.6.0";

/// An implementation of QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Gannet itself.
    Gannet,
    /// quinn, in Rust.
    Quinn,
    /// noq, a fork of quinn.
    Noq,
    /// aioquic, in Python.
    Aioquic,
    /// quiche, in Rust with BoringSSL.
    Quiche,
    /// s2n-quic, in Rust.
    S2nQuic,
    /// tquic's tools, in Rust with BoringSSL.
    Tquic,
    /// quic-go, in Go, as Debian has it.
    QuicGo,
    /// ngtcp2, in C with GnuTLS, as Debian has it.
    Ngtcp2,
}

impl Peer {
    /// All but Gannet.
    pub const OTHERS: [Self; 8] =
        [Self::Quinn, Self::Noq, Self::Aioquic, Self::Quiche, Self::S2nQuic, Self::Tquic, Self::QuicGo, Self::Ngtcp2];

    /// Its name, which is that of its directory in `interop/peers`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gannet => "gannet",
            Self::Quinn => "quinn",
            Self::Noq => "noq",
            Self::Aioquic => "aioquic",
            Self::Quiche => "quiche",
            Self::S2nQuic => "s2n-quic",
            Self::Tquic => "tquic",
            Self::QuicGo => "quic-go",
            Self::Ngtcp2 => "ngtcp2",
        }
    }

    /// Why it cannot do a `TESTCASE`, for the matrix.
    pub fn limit(self, testcase: &str) -> &'static str {
        match (self, testcase) {
            (Self::Quinn | Self::Noq | Self::Quiche | Self::S2nQuic | Self::Tquic, "v2") => "it speaks version 1 only",
            (Self::QuicGo | Self::Ngtcp2, "v2") => "it knows version 2 by the number of an earlier draft only",
            (Self::Quinn | Self::Noq | Self::Aioquic | Self::Tquic | Self::QuicGo, "delayedacks") => {
                "its delay is not a setting"
            }
            (Self::Aioquic, "ecn") => "asyncio has no access to the ECN field",
            (Self::Quiche | Self::Tquic | Self::QuicGo, "ecn") => "it does not send ECN marks",
            (Self::Ngtcp2, "ecn" | "zerortt") => "our program for it does not do that",
            (Self::Quiche | Self::Tquic, "chacha20") => "its cipher suites cannot be chosen",
            (Self::Quiche | Self::S2nQuic | Self::Tquic, "keyupdate") => "it follows key updates, but cannot begin one",
            (_, "preferredaddress") => "our program for it offers no preferred address",
            (Self::S2nQuic, "datagrams") => "our program for it does not do that",
            (Self::Tquic, "datagrams") => "it has no datagrams",
            (_, "ackfrequency") => "it does not know ACK_FREQUENCY",
            (Self::S2nQuic, "zerortt") => "it has no 0-RTT",
            (Self::S2nQuic | Self::QuicGo | Self::Tquic, "migration") => "its clients do not migrate",
            (Self::Tquic, "stopsending" | "reset") => "it takes a reset stream for a complete one, and resets none",
            (Self::Gannet, "stopsending") => "`gannet get` stops no stream",
            (Self::Gannet, _) => "Gannet cannot do it yet, or has no option for it",
            _ => "it refuses the case",
        }
    }

    /// Debian packages that its build needs.
    pub const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Gannet | Self::Quinn | Self::Noq | Self::S2nQuic => &[],
            Self::Aioquic => &["python3", "python3-venv"],
            Self::Quiche | Self::Tquic => &["cmake", "g++"],
            Self::QuicGo => &["golang-go", "golang-github-lucas-clemente-quic-go-dev"],
            Self::Ngtcp2 => &["gcc", "libngtcp2-dev", "libngtcp2-crypto-gnutls-dev", "libgnutls28-dev"],
        }
    }
}

/// A program that is ready to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The command line.
    pub line: Vec<PathBuf>,
}

impl Program {
    /// A command that plays `testcase` at `end`, of links with this MTU. Secrets and qlogs go to `dir`.
    ///
    /// # Errors
    /// If the command line is empty.
    pub fn command(&self, end: &End, mtu: u16, role: &str, testcase: &str, dir: &Path) -> Result<Command> {
        let (first, rest) = self.line.split_first().ok_or("an empty command line")?;
        let mut command = end.command(first);
        command.args(rest).env("ROLE", role).env("TESTCASE", testcase).env("MTU", mtu.to_string());
        command.env("SSLKEYLOGFILE", dir.join(format!("{role}.keys")));
        command.env("QLOGDIR", dir.join(format!("{role}.qlog")));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }
}

/// The directory of the peers' sources.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The directory of what has been built.
fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(&std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("gannet-interop"))
}

/// A digest of all files below the directories, and of `extra`.
fn digest(dirs: &[PathBuf], extra: &str) -> Result<String> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(dir).about(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target" && name != "__pycache__") {
                    walk(&path, files)?;
                }
            } else {
                files.push(path);
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    for dir in dirs {
        walk(dir, &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new_with_prefix(extra);
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(&file)?);
    }
    Ok(hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect())
}

/// Builds a peer, unless that has been done.
///
/// # Errors
/// If a tool or a library is missing, or the build fails.
pub fn build(peer: Peer) -> Result<Program> {
    let (dir, cache) = (sources().join(peer.name()), cache()?);
    let rust = matches!(peer, Peer::Quinn | Peer::Noq | Peer::Quiche | Peer::S2nQuic);
    let mut parts = vec![dir.clone()];
    if rust {
        parts.push(sources().join("common"));
    }
    if peer == Peer::Noq {
        parts.push(sources().join("quinn/src"));
    }
    let done = cache.join(format!("{}-{}", peer.name(), digest(&parts, TQUIC)?));
    let program = match peer {
        Peer::Gannet => return Err("Gannet is not built here".into()),
        Peer::Aioquic => vec![done.join("bin/python"), dir.join("peer.py")],
        Peer::Tquic => vec![dir.join("peer.sh"), done.join("bin")],
        _ => vec![done.join("peer")],
    };
    if !done.exists() {
        println!("building {} in {}", peer.name(), done.display());
        // Renamed when it is complete, except where the path is part of what is built.
        let part = if peer == Peer::Aioquic { done.clone() } else { cache.join(format!("{}.part", peer.name())) };
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).about(|| part.display().to_string())?;
        let built = match peer {
            Peer::Aioquic => python(&dir, &part),
            Peer::Tquic => tquic(&cache, &part),
            Peer::QuicGo | Peer::Ngtcp2 => output(Command::new(dir.join("build.sh")).arg(part.join("peer"))).map(drop),
            _ => cargo(&dir, &cache, &part, peer.name()),
        };
        if let Err(error) = built {
            let _ = fs::remove_dir_all(&part);
            let packages = peer.packages().join(" ");
            return Err(format!("cannot build {}: {error} (Debian packages: {packages})", peer.name()).into());
        }
        if part != done {
            fs::rename(&part, &done)?;
        }
    }
    Ok(Program { line: program })
}

fn cargo(dir: &Path, cache: &Path, to: &Path, name: &str) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(dir).args(["build", "--release", "--locked"]);
    // Shared, so that what peers have in common is compiled once.
    command.env("CARGO_TARGET_DIR", cache.join("target"));
    output(&mut command)?;
    fs::copy(cache.join("target/release").join(format!("peer-{name}")), to.join("peer"))?;
    Ok(())
}

fn tquic(cache: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["install", "tquic_tools", "--version", TQUIC, "--locked", "--root"]).arg(to);
    command.env("CARGO_TARGET_DIR", cache.join("target-tquic"));
    output(&mut command)?;
    let _ = fs::remove_dir_all(cache.join("target-tquic"));
    Ok(())
}

fn python(dir: &Path, to: &Path) -> Result<()> {
    tool("python3", ["-m".as_ref(), "venv".as_ref(), to.as_os_str()])?;
    let mut command = Command::new(to.join("bin/python"));
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    output(command.arg(dir.join("requirements.txt"))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_its_sources() {
        for peer in Peer::OTHERS {
            assert!(sources().join(peer.name()).is_dir(), "{}", peer.name());
        }
    }

    #[test]
    fn a_digest_follows_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let of = || digest(&[dir.path().to_owned()], "").unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        let first = of();
        assert_eq!(first, of());
        fs::write(dir.path().join("a"), "2").unwrap();
        assert_ne!(first, of());
        assert_ne!(of(), digest(&[dir.path().to_owned()], "x").unwrap());
    }
}
