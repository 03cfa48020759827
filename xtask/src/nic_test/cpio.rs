//! The archive that Linux unpacks as its first file system: cpio in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources).

use std::collections::BTreeSet;

/// Types and permissions of entries.
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Entries are aligned to this many bytes.
const ALIGN: usize = 4;

/// An archive in memory. Everything belongs to root.
#[derive(Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// An archive that contains only its root directory. Without one, the kernel's would remain, which is
    /// world-writable, and DPDK loads no plugins from such a tree.
    pub fn new() -> Self {
        let mut archive = Self { bytes: Vec::new(), names: BTreeSet::new() };
        archive.entry(".", DIRECTORY, (0, 0), &[]);
        archive
    }

    /// Adds a file that everyone can read and execute, and the directories above it. An existing file is kept.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.add(path, FILE, (0, 0), content);
    }

    /// Adds a directory and those above it.
    pub fn directory(&mut self, path: &str) {
        self.add(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a symbolic link, and the directories above it. An existing one is kept.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, LINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.names.contains(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.names.insert(path.to_owned());
        self.entry(path, mode, device, content);
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        // Magic; inode, mode, user, group, links, time, size, device, device of the node, length of the name, checksum.
        let inode = self.names.len();
        let header = format!(
            "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{1:08X}{0:08X}{size:08X}{0:08X}{0:08X}{major:08X}{minor:08X}\
             {name:08X}{0:08X}",
            0,
            1,
            size = content.len(),
            name = path.len() + 1,
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new();
        archive.file("/usr/bin/a", b"12345");
        archive.file("usr/bin/a", b"other");
        archive.link("usr/bin/b", "a");
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        let places: Vec<_> = ["usr\0", "usr/bin\0", "usr/bin/a\0", "usr/bin/b\0"].map(|n| text.find(n)).into();
        assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
        assert!(!text.contains("other") && text.contains("TRAILER!!!"));
    }

    /// If there is a `cpio` program, it can read the archive.
    #[test]
    fn another_program_reads_it() {
        let mut archive = Archive::new();
        archive.file("init", b"#!/bin/sh\n");
        archive.device("dev/console", 5, 1);
        let mut command = Command::new("cpio");
        command.args(["--list", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else { return };
        child.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stdout).lines().collect::<Vec<_>>(),
            [".", "init", "dev", "dev/console"]
        );
    }
}
