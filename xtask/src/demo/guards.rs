//! Guards that remove files and directories in any case.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The prefix of all our temporary names, followed by the process ID and more.
pub const PREFIX: &str = "gannet-demo-";

/// The maximum length of a directory that leaves room for a socket's name: its whole path has at most 107 bytes.
const SOCKET_DIR_MAX: usize = 80;

/// A file that is removed on drop, unless it is to be kept.
#[derive(Debug)]
pub struct Removed {
    path: PathBuf,
    keep: bool,
}

impl Removed {
    /// Guards `path`, which need not exist.
    pub fn unless(keep: bool, path: PathBuf) -> Self {
        Self { path, keep }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove_file(&self.path)
        {
            eprintln!("warning: {error}");
        }
    }
}

/// Removes a file if it exists.
///
/// # Errors
/// If it exists and cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A private directory for sockets, with a short path.
#[derive(Debug)]
pub struct SocketDir(PathBuf);

impl SocketDir {
    /// Creates the directory, and removes those of killed demos.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new() -> Result<Self> {
        let temporary = std::env::temp_dir();
        let below = if temporary.as_os_str().len() > SOCKET_DIR_MAX { Path::new("/tmp") } else { &temporary };
        Self::below(below)
    }

    fn below(dir: &Path) -> Result<Self> {
        for entry in fs::read_dir(dir).map_err(Error::path("read", dir))?.flatten() {
            if entry.file_name().to_str().is_some_and(is_stale) {
                // Those of other users stay.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = dir.join(format!("{PREFIX}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::path("make", &path))?;
        Ok(Self(path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Returns whether `name` was left by a process of ours that has ended.
pub fn is_stale(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let pid = rest.split('-').next().unwrap_or_default();
    let ours = pid == std::process::id().to_string();
    let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    is_number && !ours && !Path::new("/proc").join(pid).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Above every process ID on Linux.
    const NOBODY: &str = "4194305";

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        assert!(is_stale(&format!("{PREFIX}{NOBODY}")));
        assert!(is_stale(&format!("{PREFIX}{NOBODY}-s")));
        assert!(!is_stale(&format!("{PREFIX}{}", std::process::id())));
        assert!(!is_stale(&format!("{PREFIX}1-c")));
        assert!(!is_stale(PREFIX));
        assert!(!is_stale("gannet-demo-x"));
        assert!(!is_stale(NOBODY));
    }

    #[test]
    fn files_go_unless_kept() {
        let dir = tempfile::tempdir().unwrap();
        let [gone, kept] = ["gone", "kept"].map(|name| dir.path().join(name));
        for path in [&gone, &kept] {
            fs::write(path, "x").unwrap();
        }
        drop(Removed::unless(false, gone.clone()));
        drop(Removed::unless(true, kept.clone()));
        assert!(!gone.exists() && kept.exists());
        remove_file(&gone).unwrap();
    }

    #[test]
    fn socket_directories_replace_stale_ones_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join(format!("{PREFIX}{NOBODY}"));
        fs::create_dir(&stale).unwrap();
        let sockets = SocketDir::below(dir.path()).unwrap();
        fs::write(sockets.path().join("s.sock"), "").unwrap();
        assert!(!stale.exists());
        drop(sockets);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
