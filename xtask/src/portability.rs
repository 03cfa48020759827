//! `cargo xtask portability`: builds and tests in root file systems of other releases, and for another architecture.

pub(crate) mod archive;
mod root;
mod system;

use crate::error::{Error, Result};
use crate::steps::{Step, run_all};
use crate::{process, setup};
use root::{Network, Root};
use system::System;

/// Arguments of `cargo xtask portability`.
#[derive(Clone, Debug, clap::Args)]
pub struct PortabilityArgs {
    /// Systems to build and test on
    #[arg(value_enum, value_name = "SYSTEM", default_values_t = [System::Debian13, System::Sid, System::Aarch64])]
    systems: Vec<System>,
    /// Recreate the root file systems and everything in them
    #[arg(long)]
    fresh: bool,
    /// Run only tests whose name contains this, and no demo
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

/// The target of [`System::Aarch64`], as named by Rust and by Debian.
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Runs cargo and fails on warnings. RUSTFLAGS would cause every crate to be rebuilt.
const WITHOUT_WARNINGS: &str =
    "set -o pipefail; cargo \"$@\" 2>&1 | tee /tmp/cargo.log && ! grep -q '^warning' /tmp/cargo.log";

/// The demo runs the program built for the tests: its speed shows nothing about a system.
const PROGRAM: &str = "GANNET_BIN=/gannet-target/debug/gannet";

/// Settings of pkg-config, cc and cargo to build for [`TARGET`] and to run its programs.
const CROSS: [&str; 6] = [
    "PKG_CONFIG_ALLOW_CROSS=1",
    "PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig",
    "CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc",
    "AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar",
    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc",
    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64",
];

/// Packages needed to cross-build for AArch64 and to run the result.
const CROSS_PACKAGES: [&str; 10] = [
    "gcc",
    "tshark",
    "libc6-dev",
    "pkg-config",
    "libclang-dev",
    "gcc-aarch64-linux-gnu",
    "libc6-dev:arm64",
    "libdpdk-dev:arm64",
    "qemu-user",
    "iproute2",
];

/// Runs the command.
///
/// # Errors
/// If we are not root, a system is not available, a step fails, or a signal arrives. No mount or process outlives the
/// command.
pub fn run(args: &PortabilityArgs) -> Result<()> {
    if !setup::is_root() {
        return Err(Error::Unmet("only root can create root file systems and enter them".into()));
    }
    setup::for_portability()?;
    let mut failed = Vec::new();
    for system in &args.systems {
        println!("\n==== {system}");
        let done = Root::prepare(*system, args.fresh).and_then(|root| check(*system, &root, args.filter.as_deref()));
        match done {
            Ok(()) => {}
            Err(error @ Error::Interrupted(_)) => return Err(error),
            Err(error) => {
                println!("{error}");
                failed.push(format!("{system} ({error})"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Unmet(format!("failed: {}", failed.join("; ")))) }
}

fn check(system: System, root: &Root, filter: Option<&str>) -> Result<()> {
    if system == System::Aarch64 {
        if !root.rust().join("lib/rustlib").join(TARGET).join("lib").is_dir() {
            return Err(Error::Unmet(format!(
                "this Rust has no standard library for AArch64: type `rustup target add {TARGET}`"
            )));
        }
        process::run("packages", &mut root.command(Network::Machine, &shell(&foreign_packages())))?;
        return run_all(cross_steps(root));
    }
    process::run("packages", &mut root.command(Network::Machine, &shell(COMPILER)))?;
    process::run("setup", &mut root.command(Network::Machine, &["cargo", "xtask", "setup", "--tests"]))?;
    process::run("versions", &mut root.command(Network::Loopback, &shell(VERSIONS)))?;
    run_all(native_steps(root, filter))
}

/// Packages for the first build, as in `.ci/run`; `cargo xtask setup` installs the rest.
const COMPILER: &str = "apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends gcc libc6-dev";

/// Prints package versions.
const VERSIONS: &str = "dpkg-query --show gcc libdpdk-dev 'libipsec-mb*' 'libclang-*-dev' libc6";

fn foreign_packages() -> String {
    let names = CROSS_PACKAGES.join(" ");
    format!(
        "dpkg --add-architecture arm64 && apt-get update --quiet && \
         apt-get install --quiet --yes --no-install-recommends {names} && \
         dpkg-query --show libdpdk-dev:arm64 libc6:arm64 qemu-user gcc-aarch64-linux-gnu"
    )
}

const fn shell(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

/// Steps in the root file system of a release: the README's two commands, in parts.
fn native_steps(root: &Root, filter: Option<&str>) -> Vec<Step> {
    let step = |name, arguments: &[&str]| Step { name, command: root.command(Network::Loopback, arguments) };
    if let Some(filter) = filter {
        return vec![step("tests", &["cargo", "xtask", "test", "--no-setup", "--filter", filter])];
    }
    let demo =
        ["env", PROGRAM, "cargo", "xtask", "demo", "--no-setup", "--size", "64M", "--requests", "5000", "--wire"];
    vec![
        step("build", &["bash", "-c", WITHOUT_WARNINGS, "bash", "build", "--workspace", "--all-targets"]),
        step("tests", &["cargo", "xtask", "test", "--no-setup"]),
        step("demo", &[&demo[..], &["memif"]].concat()),
        step("demo, virtio-user", &[&demo[..], &["virtio-user"]].concat()),
    ]
}

/// Steps for the other architecture: the engine's tests are run, and everything except the tools is built.
fn cross_steps(root: &Root) -> Vec<Step> {
    let step = |name, arguments: &[&str]| Step {
        name,
        command: root.command(Network::Loopback, &[&["env"][..], &CROSS, arguments, &["--target", TARGET]].concat()),
    };
    let build = ["bash", "-c", WITHOUT_WARNINGS, "bash", "build", "-p", "gannet", "-p", "ipsec-mb-sys"];
    vec![
        step("engine tests", &["cargo", "test", "--no-default-features", "--lib"]),
        step("build with ports", &build),
        step("port unit tests", &["cargo", "test", "--lib", "dpdk::"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_the_cross_build_are_of_the_other_processor() {
        let script = foreign_packages();
        assert!(script.starts_with("dpkg --add-architecture arm64 && apt-get update"), "{script}");
        assert!(script.contains(" libdpdk-dev:arm64 ") && !script.contains("ipsec"), "{script}");
    }
}
