//! Finds package archives in the machine's own package sources.

use std::process::Command;

use super::system::System;
use crate::error::{Error, Result};
use crate::process;
use crate::setup::find_program;

/// One line per package source of the machine.
const FORMAT: &str = "$(LABEL)|$(CODENAME)|$(REPO_URI)";

/// The archive that contains `system`.
///
/// # Errors
/// If there is no apt, or none of its sources is suitable.
pub fn find(system: System) -> Result<String> {
    if find_program("apt-get").is_none() {
        return Err(Error::Unmet("this machine has no apt-get, whose sources name the archive to use".into()));
    }
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", FORMAT, "Created-By: Packages"]);
    choose(&process::output("apt-get", &mut command)?, system)
}

/// Finds the archive of the release that this machine runs, and the codename of the release.
///
/// # Errors
/// If the machine runs no known Debian release, or its archive is not among the package sources.
pub fn own() -> Result<(String, String)> {
    let path = std::path::Path::new("/etc/os-release");
    let release = std::fs::read_to_string(path).map_err(Error::path("read", path))?;
    let system = codename(&release).and_then(System::of);
    let Some(system) = system else {
        return Err(Error::Unmet(format!("{} does not name a known Debian release", path.display())));
    };
    Ok((find(system)?, system.codename().to_owned()))
}

/// Returns the codename from the text of os-release(5).
fn codename(release: &str) -> Option<&str> {
    release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"'))
}

/// Selects the archive whose label is the distribution's name; archives of updates have other labels. It contains all
/// suites, whichever the machine itself uses.
fn choose(sources: &str, system: System) -> Result<String> {
    let mut archives = sources.lines().filter_map(|line| {
        let [label, codename, uri] = line.split('|').collect::<Vec<_>>().try_into().ok()?;
        (label == system.distribution()).then_some((codename, uri))
    });
    let all: Vec<_> = archives.by_ref().collect();
    let same = all.iter().find(|(codename, _)| *codename == system.codename());
    same.or(all.first()).map(|(_, uri)| (*uri).to_owned()).ok_or_else(|| {
        let distribution = system.distribution();
        Error::Unmet(format!(
            "{system} comes from an archive of {distribution}, and none is among this machine's package sources: \
             run this on a machine with {distribution}"
        ))
    })
}

/// The apt settings that a root needs to reach the archive: proxies, and whether dates are checked.
///
/// # Errors
/// If `apt-config` fails.
pub fn settings() -> Result<String> {
    let all = process::output("apt-config", Command::new("apt-config").arg("dump"))?;
    let wanted = ["Acquire::http::", "Acquire::https::", "Acquire::Check-"];
    Ok(all.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(|l| format!("{l}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &str = "Debian-Security|bookworm-security|mirror:/security/\nDebian|bookworm|mirror:/debian/\n\
        Debian|bookworm-updates|mirror:/debian/\nnodistro|nodistro|mirror:/others/\n";

    #[test]
    fn the_archive_is_the_distributions_own() {
        for system in [System::Debian12, System::Debian13, System::Sid, System::Aarch64] {
            assert_eq!(choose(SOURCES, system).unwrap(), "mirror:/debian/", "{system}");
        }
        let both = format!("{SOURCES}Debian|sid|mirror:/unstable/\n");
        assert_eq!(choose(&both, System::Sid).unwrap(), "mirror:/unstable/");
        assert_eq!(choose(&both, System::Debian13).unwrap(), "mirror:/debian/");
    }

    #[test]
    fn the_own_release_is_found_by_its_name() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").and_then(System::of), Some(System::Debian12));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n").and_then(System::of), Some(System::Debian13));
        assert_eq!(codename("ID=arch\n").and_then(System::of), None);
        assert_eq!(System::of("noble"), None);
    }

    #[test]
    fn a_distribution_that_is_not_to_be_had_is_named() {
        let error = choose(SOURCES, System::Ubuntu2404).unwrap_err().to_string();
        assert!(error.contains("ubuntu24.04") && error.contains("archive of Ubuntu"), "{error}");
        assert!(choose("", System::Debian13).is_err());
    }
}
