//! The file system of an emulated machine: `gannet`, the libraries that it loads, busybox and the kernel's modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::parts::Parts;
use crate::demo::certs;
use crate::error::{Error, Result};
use crate::process;
use crate::setup::find_program;

/// The first process.
const INIT: &str = include_str!("init.sh");

/// Plugins of DPDK that drive the emulated NICs, and those that any port needs.
const PLUGINS: [&str; 6] = ["bus_pci", "bus_vdev", "mempool_ring", "net_e1000", "net_virtio", "net_vmxnet3"];

/// Creates the archive for the program `gannet`. `work` is a directory for temporary files.
///
/// # Errors
/// If a library cannot be found or read.
pub fn make(parts: &Parts, gannet: &Path, certs: &certs::Paths, work: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.file("init", INIT.as_bytes());
    archive.device("dev/console", 5, 1);
    for dir in ["proc", "sys", "tmp", "run"] {
        archive.directory(dir);
    }
    // As on systems whose /bin and /lib are in /usr, so that each file has one name.
    for name in ["bin", "lib", "lib64", "sbin"] {
        archive.directory(&format!("usr/{name}"));
        archive.link(name, &format!("usr/{name}"));
    }
    archive.link("var/run", "/run");
    archive.file("usr/bin/busybox", &read(&parts.busybox)?);
    archive.link("usr/bin/sh", "busybox");
    archive.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n");
    for (name, path) in [("ca.pem", &certs.ca), ("server.pem", &certs.cert), ("server.key", &certs.key)] {
        archive.file(name, &read(path)?);
    }
    for module in &parts.modules {
        archive.file(&format!("modules/{}", file_name(module)), &read(module)?);
    }
    let order: Vec<_> = parts.modules.iter().map(|module| format!("{}\n", file_name(module))).collect();
    archive.file("modules/order", order.concat().as_bytes());
    archive.file("usr/bin/gannet", &read(&stripped(gannet, work)?)?);
    libraries(&mut archive, gannet)?;
    let plugins = plugin_dir()?;
    for entry in fs::read_dir(&plugins).map_err(Error::path("read", &plugins))?.flatten() {
        let path = entry.path();
        if PLUGINS.iter().any(|name| file_name(&path).starts_with(&format!("librte_{name}.so"))) {
            add(&mut archive, &path)?;
            libraries(&mut archive, &path)?;
        }
    }
    Ok(archive.finish())
}

/// Where DPDK looks for its plugins; see dpdk-sys/build.rs.
fn plugin_dir() -> Result<PathBuf> {
    let libdir = process::output("pkg-config", Command::new("pkg-config").args(["--variable=libdir", "libdpdk"]))?;
    let dir = Path::new(libdir.trim()).join("dpdk");
    let found = fs::read_dir(&dir).map_err(Error::path("read", &dir))?.flatten().map(|entry| entry.path());
    let newest = found.filter(|path| file_name(path).starts_with("pmds-")).max();
    newest.ok_or_else(|| Error::Unmet(format!("there are no plugins of DPDK in {}", dir.display())))
}

/// Adds every library that `program` loads.
fn libraries(archive: &mut Archive, program: &Path) -> Result<()> {
    let said = process::output("ldd", Command::new("ldd").arg(program))?;
    loaded(&said)
        .map_err(|name| Error::Unmet(format!("{} needs {name}, which is not here", program.display())))?
        .into_iter()
        .try_for_each(|path| add(archive, &path))
}

/// The paths that `ldd` found.
///
/// # Errors
/// If a library was not found; the error is its name.
fn loaded(ldd: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in ldd.lines() {
        let line = line.trim();
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path.starts_with("not found") {
            return Err(name.to_owned());
        }
        let path = path.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

/// Adds a file under its real name, and its other names as links: a library that exists twice is loaded twice.
fn add(archive: &mut Archive, path: &Path) -> Result<()> {
    let unusable = || Error::path("find", path);
    let (Some(dir), true) = (path.parent(), path.is_absolute()) else { return Ok(()) };
    let dir = dir.canonicalize().map_err(unusable())?;
    let here = dir.join(file_name(path));
    let real = path.canonicalize().map_err(unusable())?;
    archive.file(&real.display().to_string(), &read(&real)?);
    if here != real {
        archive.link(&here.display().to_string(), &real.display().to_string());
    }
    Ok(())
}

/// The program without its line tables, which would take longer to unpack than everything else. Unchanged if there is
/// no `strip`.
fn stripped(program: &Path, work: &Path) -> Result<PathBuf> {
    if find_program("strip").is_none() {
        return Ok(program.to_owned());
    }
    let to = work.join("gannet");
    process::output("strip", Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(program))?;
    Ok(to)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::path("read", path))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_that_the_loader_names() {
        let ldd = "\tlinux-vdso.so.1 (0x1)\n\tlibm.so.6 => /lib/libm.so.6 (0x2)\n\t/lib64/ld-linux.so.2 (0x3)\n";
        assert_eq!(loaded(ldd).unwrap(), [Path::new("/lib/libm.so.6"), Path::new("/lib64/ld-linux.so.2")]);
        assert_eq!(loaded("\tlibx.so => not found\n").unwrap_err(), "libx.so");
        assert_eq!(loaded("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_file_is_there_once_however_many_links_lead_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::write(dir.join("lib.so.1.0"), "once").unwrap();
        std::os::unix::fs::symlink("lib.so.1.0", dir.join("lib.so")).unwrap();
        let mut archive = Archive::new();
        for name in ["lib.so", "lib.so.1.0"] {
            add(&mut archive, &dir.join(name)).unwrap();
        }
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        assert_eq!(text.matches("once").count(), 1);
    }
}
