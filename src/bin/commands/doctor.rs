//! `gannet doctor`: checks whether this machine is ready, and prints remedies if it is not.
//!
//! All facts are read from files under a root directory, so that tests can supply any machine.

mod cpu;
mod devices;
mod memory;
mod poll;
mod rights;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::origin::origin;
use crate::args::DoctorArgs;
use crate::output::print;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Fine.
    Ok,
    /// For information; nothing is wrong.
    Note,
    /// Gannet runs, but more slowly, or not on every kind of port.
    Warn,
    /// Gannet does not run, or a device reserved for it cannot be used.
    Fail,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The section.
    pub area: &'static str,
    /// The item that was checked.
    pub what: String,
    /// The severity.
    pub status: Status,
    /// The result in words.
    pub found: String,
    /// Commands that mend it, one per line; text after a '#' is explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn new(area: &'static str, what: impl Into<String>, status: Status, found: impl Into<String>) -> Self {
        Self { area, what: what.into(), status, found: found.into(), remedy: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Facts that only the running program knows.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// DPDK's version; `None` if unknown.
    pub dpdk: Option<String>,
    /// The selected crypto kernels, as returned by `gannet::crypto::backend_name`.
    pub crypto: String,
    /// DPDK's network drivers that can be loaded; empty if unknown.
    pub drivers: Vec<String>,
    /// Drivers that are missing or cannot be loaded, each with a remedy.
    pub absent: Vec<(String, String)>,
    /// The kernel's addresses by interface, as `ADDRESS/LENGTH`.
    pub addresses: Vec<(String, String)>,
    /// Interfaces with an XDP program, and its attachment mode in the notation of `ip link`.
    pub xdp: Vec<(String, &'static str)>,
    /// Kinds of ports whose packet buffers the peer process can write to; empty if unknown.
    pub shared: Vec<String>,
    /// The directory of sockets given without a path, and what is wrong with it.
    pub sockets: Option<(PathBuf, Option<String>)>,
}

/// The user's plans.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The CPUs for poll loops; empty to let the doctor choose one.
    pub cores: Vec<usize>,
    /// The memory of a command, in bytes.
    pub memory: Option<u64>,
}

/// The files of a machine.
struct Tree(PathBuf);

impl Tree {
    /// A file's text without surrounding white space; `None` if it cannot be read.
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(path)).ok().map(|s| s.trim().to_string())
    }

    /// A file's bytes.
    fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(path)).ok()
    }

    /// The names in a directory, sorted; empty if it does not exist.
    fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.join(path))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// The last component of a symbolic link's target.
    fn link_name(&self, path: &str) -> Option<String> {
        std::fs::read_link(self.0.join(path)).ok()?.file_name()?.to_str().map(String::from)
    }

    fn exists(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }
}

/// Examines the machine whose /proc, /sys and /dev are under `root`.
pub fn examine(root: &Path, build: &Build, wishes: &Wishes) -> Vec<Finding> {
    let tree = Tree(root.into());
    let rights = rights::Rights::read(&tree);
    let nics = devices::nics(&tree);
    let cores = poll::Cores::read(&tree, wishes, &nics);
    let mut all = software(build);
    all.extend(cpu::check(&tree));
    all.extend(poll::check(&tree, &cores, &nics));
    all.extend(memory::check(&tree, &rights, wishes.memory));
    all.extend(rights.check());
    all.extend(devices::check(&tree, &rights, &nics));
    all.extend(devices::interfaces(&tree, &build.addresses, &build.xdp));
    all
}

fn software(build: &Build) -> Vec<Finding> {
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    let mut add = |what: &str, status, found: &str| all.push(Finding::new("Software", what, status, found));
    add("gannet", Status::Ok, env!("CARGO_PKG_VERSION"));
    match &build.dpdk {
        Some(version) => add("DPDK", Status::Ok, version),
        None => add("DPDK", Status::Note, "version unknown"),
    }
    if !build.drivers.is_empty() {
        add("DPDK drivers", Status::Ok, &build.drivers.join(" "));
    }
    if !build.absent.is_empty() {
        let names: Vec<&str> = build.absent.iter().map(|(name, _)| name.as_str()).collect();
        let mut remedies: Vec<&str> = build.absent.iter().map(|(_, remedy)| remedy.as_str()).collect();
        remedies.sort_unstable();
        remedies.dedup();
        let found = format!("{}: ports of these drivers cannot be opened", names.join(" "));
        missing.push(Finding::new("Software", "missing drivers", Status::Note, found).remedy(remedies.join("\n")));
    }
    if !build.crypto.is_empty() {
        let portable = build.crypto.starts_with("portable");
        add("crypto kernels", if portable { Status::Note } else { Status::Ok }, &build.crypto);
    }
    if !build.shared.is_empty() {
        let ports = build.shared.join(", ");
        add(
            "shared memory",
            Status::Note,
            &format!("{ports}: frames are copied, unless peer = \"trusted\" (SECURITY.md)"),
        );
    }
    match &build.sockets {
        Some((dir, None)) => add("sockets", Status::Ok, &dir.display().to_string()),
        Some((_, Some(problem))) => add("sockets", Status::Warn, problem),
        None => {}
    }
    all.extend(missing);
    all
}

/// Examines this machine and prints the findings. Returns whether no check failed.
///
/// # Errors
/// If the findings cannot be formatted.
pub fn run(args: &DoctorArgs, build: &Build) -> io::Result<bool> {
    let wishes = Wishes { cores: args.cores.clone(), memory: args.memory };
    let findings = examine(Path::new("/"), build, &wishes);
    let ok = findings.iter().all(|f| f.status != Status::Fail);
    if args.json {
        #[derive(Serialize)]
        struct Report<'a> {
            run: serde_json::Value,
            ok: bool,
            findings: &'a [Finding],
        }
        print(&format!("{}\n", serde_json::to_string_pretty(&Report { run: origin(), ok, findings: &findings })?));
    } else {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        print(&text(&findings, colours));
    }
    Ok(ok)
}

/// Formats the findings as text.
fn text(findings: &[Finding], colours: bool) -> String {
    let width = findings.iter().map(|f| f.what.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    let mut area = "";
    for f in findings {
        if f.area != area {
            area = f.area;
            out.push_str(&format!("{}{area}\n", if out.is_empty() { "" } else { "\n" }));
        }
        out.push_str(&format!("  {}  {:<width$}  {}\n", mark(f.status, colours), f.what, f.found));
        for line in f.remedy.iter().flat_map(|r| r.lines()) {
            out.push_str(&format!("        {line}\n"));
        }
    }
    let count = |s| findings.iter().filter(|f| f.status == s).count();
    let plural = |n| if n == 1 { "" } else { "s" };
    let (ok, warn, fail) = (count(Status::Ok), count(Status::Warn), count(Status::Fail));
    out.push_str(&format!("\n{ok} ok, {warn} warning{}, {fail} failure{}\n", plural(warn), plural(fail)));
    out
}

fn mark(status: Status, colours: bool) -> String {
    let (word, colour) = match status {
        Status::Ok => ("ok  ", 32),
        Status::Note => ("note", 36),
        Status::Warn => ("warn", 33),
        Status::Fail => ("FAIL", 31),
    };
    if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.into() }
}

#[cfg(test)]
#[path = "doctor/tests.rs"]
mod tests;
