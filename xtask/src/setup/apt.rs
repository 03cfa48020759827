//! Debian packages.

use std::process::Command;

use super::{Need, find_program, is_root};
use crate::error::{Error, Result};
use crate::process;

/// Updates the package lists and installs the packages of `missing`.
///
/// # Errors
/// If there is no apt-get, we are not root, or apt-get fails.
pub fn install(missing: &[&Need]) -> Result<()> {
    if find_program("apt-get").is_none() || !is_root() {
        return Err(remedy(missing));
    }
    process::run("apt-get", &mut apt(&["update"]))?;
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    process::run("apt-get", install.args(names(missing)))
}

/// An error that says how to install `missing`.
pub fn remedy(missing: &[&Need]) -> Error {
    let what: Vec<_> = missing.iter().map(|need| format!("  {need}\n")).collect();
    let names = names(missing).join(" ");
    let how = if find_program("apt-get").is_some() {
        format!("type:\n  sudo apt-get update && sudo apt-get install --yes --no-install-recommends {names}")
    } else {
        format!("this system has no apt-get: install the equivalents of the Debian packages\n  {names}")
    };
    Error::Unmet(format!("missing on this machine:\n{}{how}", what.concat()))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // Prompts (tshark has one) would block for ever; another apt-get may hold the lock for a while.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command
}

fn names(missing: &[&Need]) -> Vec<&'static str> {
    let mut names: Vec<_> = missing.iter().flat_map(|need| need.packages).copied().collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::super::needs;
    use super::*;

    #[test]
    fn the_remedy_names_what_why_and_how() {
        let needs = needs::list(true);
        let missing: Vec<_> = needs.iter().collect();
        let text = remedy(&missing).to_string();
        assert!(text.contains("DPDK 22.11 or later (drives the ports)"), "{text}");
        assert!(text.contains(" libdpdk-dev libipsec-mb-dev "), "{text}");
    }

    #[test]
    fn apt_never_asks() {
        assert!(process::line(&apt(&["install"])).starts_with("DEBIAN_FRONTEND=noninteractive apt-get"));
    }
}
