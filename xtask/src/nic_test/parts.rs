//! What an emulated machine is made of: QEMU, a kernel with its modules, busybox. They are packages of the machine's
//! own archive, unpacked below `target/nic-test`; nothing is installed. Installing QEMU from backports would replace
//! other packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::lock::Lock;
use crate::error::{Error, Result};
use crate::portability::archive;
use crate::setup::find_program;
use crate::{process, workspace};

/// igb and `-netdev stream` with `reconnect-ms` exist since this version.
const OLDEST_QEMU: (u32, u32) = (8, 1);

const QEMU: &str = "qemu-system-x86_64";

/// Kernel modules in the order in which they are loaded. Some kernels have some of them built in, or lack them.
const MODULES: [&str; 8] =
    ["irqbypass", "iommufd", "vfio", "vfio_iommu_type1", "vfio_virqfd", "vfio-pci-core", "vfio-pci", "virtio_pci"];

/// Modules without which no NIC can be driven.
const NEEDED: [&str; 2] = ["vfio", "vfio-pci"];

/// The keys of Debian's archive; apt's own directory may not have them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where the parts are.
#[derive(Debug)]
pub struct Parts {
    /// The unpacked QEMU's root, or `None` for that of the machine.
    qemu: Option<PathBuf>,
    /// `vmlinuz`.
    pub kernel: PathBuf,
    /// A busybox that needs no libraries.
    pub busybox: PathBuf,
    /// Files of the modules, in the order in which they are loaded.
    pub modules: Vec<PathBuf>,
}

/// Below `target`.
fn home() -> PathBuf {
    workspace::target().join("nic-test")
}

impl Parts {
    /// Looks for the parts of an earlier run, without downloading anything.
    ///
    /// # Errors
    /// If there are none.
    pub fn existing() -> Result<()> {
        let absent =
            || Error::Unmet("QEMU and a kernel have not been downloaded: `cargo xtask nic-test` does so".into());
        Self::at(&home().join("parts")).map(drop).ok_or_else(absent)
    }

    /// Keeps other runs from using the parts' directory, and waits for one that does.
    ///
    /// # Errors
    /// If the directory cannot be used, or a signal arrives.
    pub fn lock() -> Result<Lock> {
        make(&home())?;
        Lock::take(&home())
    }

    /// Like [`Parts::prepare_locked`], for those who do not use the parts themselves.
    ///
    /// # Errors
    /// As there.
    pub fn prepare() -> Result<()> {
        let _lock = Self::lock()?;
        Self::prepare_locked().map(drop)
    }

    /// The parts of an earlier run, or new ones. The directory must be locked.
    ///
    /// # Errors
    /// If there is no apt, the archive cannot be found or reached, or has no such packages, or the processor is not
    /// x86-64.
    pub fn prepare_locked() -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            return Err(Error::Unmet(
                "the emulated machines are PCs: `gannet` must be built on x86-64 for them".into(),
            ));
        }
        let to = home().join("parts");
        if let Some(parts) = Self::at(&to) {
            return Ok(parts);
        }
        fetch(&to)?;
        Self::at(&to).ok_or_else(|| {
            Error::Unmet(format!("what was unpacked in {} is no QEMU that runs here with a kernel", to.display()))
        })
    }

    fn at(dir: &Path) -> Option<Self> {
        let own = Some(dir.join("qemu")).filter(|dir| dir.is_dir());
        let modules = MODULES.map(|name| dir.join(format!("{name}.ko")));
        let parts = Self {
            qemu: own,
            kernel: dir.join("vmlinuz"),
            busybox: dir.join("busybox"),
            modules: modules.into_iter().filter(|path| path.is_file()).collect(),
        };
        let whole = dir.join("complete").is_file();
        (whole && version(&mut parts.qemu()).is_some_and(|found| found >= OLDEST_QEMU)).then_some(parts)
    }

    /// QEMU. The kernel ends it when the thread that started it ends, for whatever reason.
    pub fn qemu(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let Some(root) = &self.qemu else {
            command.arg(QEMU);
            return command;
        };
        command.arg(root.join("usr/bin").join(QEMU));
        for dir in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(root.join(dir));
        }
        // Packages install libraries in either directory, which are one on a machine, but not here.
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir));
        command.env("QEMU_MODULE_DIR", libraries[0].join("qemu"));
        command.env("LD_LIBRARY_PATH", libraries.map(|dir| dir.display().to_string()).join(":"));
        command
    }
}

/// The version of a QEMU, if it runs.
fn version(qemu: &mut Command) -> Option<(u32, u32)> {
    parse_version(&process::output("qemu", qemu.arg("--version")).ok()?)
}

fn parse_version(said: &str) -> Option<(u32, u32)> {
    let (_, version) = said.split_once("version ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn fetch(to: &Path) -> Result<()> {
    for program in ["dpkg-deb", "apt-cache", "setpriv"] {
        if find_program(program).is_none() {
            return Err(Error::Unmet(format!(
                "this machine has no {program}: emulated machines are made of Debian packages, on a Debian"
            )));
        }
    }
    let apt = Apt::new()?;
    println!("nic-test: fetching QEMU, a kernel and busybox into {}; nothing is installed", to.display());
    process::run("apt-get", &mut apt.command("apt-get", &["update", "--quiet"])).map_err(|error| match error {
        Error::Failed { .. } => Error::Unmet(format!("{error}\n  {}", apt.remedy())),
        other => other,
    })?;
    remove(to)?;
    let work = home().join("unpacked");
    remove(&work)?;
    make(to)?;
    let machine = version(&mut Command::new(QEMU)).is_some_and(|found| found >= OLDEST_QEMU);
    if !machine {
        for package in apt.with_libraries("qemu-system-x86")? {
            process::output("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(package).arg(to.join("qemu")))?;
        }
    }
    let kernel = apt.kernel()?;
    for package in apt.download(&[&kernel, "busybox-static"])? {
        process::output("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(package).arg(&work))?;
    }
    take(&work, to)?;
    remove(&work)?;
    remove(&apt.dir)?;
    fs::write(to.join("complete"), "").map_err(Error::path("write", &to.join("complete")))
}

/// Copies what is needed from an unpacked kernel and busybox.
fn take(from: &Path, to: &Path) -> Result<()> {
    let copy = |from: &Path, name: &str| fs::copy(from, to.join(name)).map_err(Error::path("copy", from)).map(drop);
    let files = files(from)?;
    let named = |wanted: &dyn Fn(&str) -> bool| {
        files.iter().find(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
    };
    let absent = |what: &str| Error::Unmet(format!("the packages have no {what}"));
    copy(named(&|name| name.starts_with("vmlinuz")).ok_or_else(|| absent("kernel"))?, "vmlinuz")?;
    copy(named(&|name| name == "busybox").ok_or_else(|| absent("busybox"))?, "busybox")?;
    for module in MODULES {
        let plain = format!("{module}.ko");
        if let Some(path) = named(&|name| name == plain) {
            copy(path, &plain)?;
        } else if let Some(path) = named(&|name| name == format!("{plain}.xz")) {
            let name = format!("{plain}.xz");
            copy(path, &name)?;
            process::output("xz", Command::new("xz").arg("--decompress").arg(to.join(name)))?;
        } else if NEEDED.contains(&module) {
            return Err(absent(&format!("module {module}")));
        }
    }
    Ok(())
}

/// All regular files below `dir`.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(Error::path("read", &dir))?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// apt with lists and a cache of its own.
struct Apt {
    dir: PathBuf,
    codename: String,
}

impl Apt {
    fn new() -> Result<Self> {
        let (uri, codename) = archive::own()?;
        let dir = home().join("apt");
        for below in ["lists/partial", "cache/archives/partial"] {
            make(&dir.join(below))?;
        }
        let apt = Self { dir, codename };
        let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let line = |suite: &str| format!("deb {signed}{uri} {suite} main\n");
        let list = apt.dir.join("sources.list");
        let sources = [line(&apt.codename), line(&apt.backports())].concat();
        fs::write(&list, sources).map_err(Error::path("write", &list))?;
        Ok(apt)
    }

    fn backports(&self) -> String {
        format!("{}-backports", self.codename)
    }

    fn remedy(&self) -> String {
        format!("the archive in this machine's package sources has to be reachable, and to have {}", self.backports())
    }

    /// It does not need root: the machine's own files are only read.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.dir.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Acquire::Languages=none".into(),
            "Debug::NoLocking=1".into(),
            // apt's own user could not write below target.
            "APT::Sandbox::User=root".into(),
        ] {
            command.args(["-o", &option]);
        }
        command.args(arguments).current_dir(&self.dir);
        command
    }

    /// The files of a package from backports, and of all its dependencies that the machine lacks.
    fn with_libraries(&self, package: &str) -> Result<Vec<PathBuf>> {
        let suite = self.backports();
        let options = ["install", "--yes", "--quiet", "--download-only", "--no-install-recommends"];
        process::run("apt-get", &mut self.command("apt-get", &[&options[..], &["-t", &suite, package]].concat()))?;
        self.debs("cache/archives")
    }

    /// The files of `packages` alone.
    fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        process::run("apt-get", &mut self.command("apt-get", &[&["download", "--quiet"], packages].concat()))?;
        self.debs("")
    }

    fn debs(&self, below: &str) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join(below);
        let entries = fs::read_dir(&dir).map_err(Error::path("read", &dir))?.flatten().map(|entry| entry.path());
        Ok(entries.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
    }

    /// The package that `linux-image-amd64` stands for.
    fn kernel(&self) -> Result<String> {
        let said = process::output("apt-cache", &mut self.command("apt-cache", &["depends", "linux-image-amd64"]))?;
        let name = said.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned);
        name.ok_or_else(|| Error::Unmet("linux-image-amd64 of this archive names no kernel".into()))
    }
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::path("make", dir))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::path("remove", dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some((10, 0)));
        assert_eq!(parse_version("QEMU emulator version 7.2.17"), Some((7, 2)));
        assert_eq!(parse_version("no such thing"), None);
    }

    #[test]
    fn only_what_is_wanted_is_taken() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["boot/vmlinuz-6", "bin/busybox", "lib/m/vfio.ko", "lib/m/vfio-pci.ko", "lib/m/other.ko"] {
            let path = from.path().join(path);
            make(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        take(from.path(), to.path()).unwrap();
        let mut names: Vec<_> = files(to.path()).unwrap();
        names.sort();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["busybox", "vfio-pci.ko", "vfio.ko", "vmlinuz"]);
        fs::remove_file(from.path().join("lib/m/vfio.ko")).unwrap();
        assert!(take(from.path(), to.path()).unwrap_err().to_string().contains("no module vfio"));
        // The parts are complete only if there is a marker.
        assert!(Parts::at(to.path()).is_none());
    }
}
