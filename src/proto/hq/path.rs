//! Maps request paths to files below one directory.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use thiserror::Error;

/// The reason why a request path names no file.
#[derive(Debug, Error)]
pub enum PathError {
    /// The path tries to leave the directory, or contains bytes that no file name can have.
    #[error("the path leaves the served directory")]
    Outside,
    /// The file does not exist or is not a regular file.
    #[error("no such file")]
    Missing,
    /// The file system reported an error.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A directory that requests are confined to. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Root(Arc<Path>);

impl Root {
    /// Opens the directory `dir`, with symbolic links resolved.
    ///
    /// # Errors
    /// If it does not exist or is not a directory.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let real = dir.canonicalize()?;
        if !real.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory"));
        }
        Ok(Self(real.into()))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Converts a request path to a relative path. Does not access the file system.
    ///
    /// # Errors
    /// [`PathError::Outside`] if the path tries to leave the directory or is invalid.
    pub fn relative(path: &str) -> Result<PathBuf, PathError> {
        let text = percent_decode_str(path.trim_start_matches('/')).decode_utf8().map_err(|_| PathError::Outside)?;
        let relative = Path::new(text.as_ref());
        let plain = relative.components().all(|c| matches!(c, Component::Normal(_)));
        if plain && !text.contains('\0') { Ok(relative.to_owned()) } else { Err(PathError::Outside) }
    }

    /// Opens the regular file at a [relative](Self::relative) path for reading. Symbolic links must stay in the
    /// directory. May wait for the file system, but never for anything that is not a regular file.
    ///
    /// # Errors
    /// [`PathError`] if there is no such file.
    pub fn open(&self, relative: &Path) -> Result<(PathBuf, File, Metadata), PathError> {
        let real = self.0.join(relative).canonicalize().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PathError::Missing,
            _ => PathError::Io(e),
        })?;
        if !real.starts_with(&self.0) {
            return Err(PathError::Outside);
        }
        // Opening some devices has side effects, so nothing else is opened; the file may still be replaced in between.
        if !real.is_file() {
            return Err(PathError::Missing);
        }
        let file = Self::open_real(&real)?;
        let meta = file.metadata()?;
        if meta.is_file() { Ok((real, file, meta)) } else { Err(PathError::Missing) }
    }

    /// Opens `real`, a path without symbolic links, for reading. If it contains links now, somebody has replaced files
    /// to redirect us. Never waits for the other end of a pipe.
    pub(super) fn open_real(real: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = match openat2(CWD, real, flags, Mode::empty(), links) {
            // Kernels before 5.6, and sandboxes that do not allow the call.
            Err(Errno::NOSYS | Errno::PERM) => open(real, flags, Mode::empty())?,
            result => result?,
        };
        Ok(file.into())
    }

    /// The path of an upload: a plain name in the directory itself. Does not access the file system.
    ///
    /// # Errors
    /// [`PathError::Outside`] for anything except a plain file name.
    pub fn upload(&self, path: &str) -> Result<PathBuf, PathError> {
        let relative = Self::relative(path)?;
        let mut parts = relative.components();
        match (parts.next(), parts.next()) {
            (Some(name), None) => Ok(self.0.join(name)),
            _ => Err(PathError::Outside),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn file(root: &Root, path: &str) -> Result<File, PathError> {
        Ok(root.open(&Root::relative(path)?)?.1)
    }

    #[test]
    fn nothing_leaves_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("www");
        std::fs::create_dir_all(inner.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(inner.join("a b"), "x").unwrap();
        std::fs::write(inner.join("sub/c"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), inner.join("link")).unwrap();
        std::os::unix::fs::symlink(inner.join("sub/c"), inner.join("inside")).unwrap();
        std::os::unix::fs::symlink("../sub", inner.join("sub/up")).unwrap();
        let root = Root::new(&inner).unwrap();
        for path in ["/a%20b", "//sub/c", "/inside", "/sub/up/c"] {
            let mut text = String::new();
            file(&root, path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "x", "{path}");
        }
        for path in ["/../secret", "/sub/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/link", "/a\0"] {
            assert!(matches!(file(&root, path), Err(PathError::Outside)), "{path}");
        }
        for path in ["/nothing", "/sub", "/", "/a b/x", "/a b/"] {
            assert!(matches!(file(&root, path), Err(PathError::Missing)), "{path}");
        }
        assert_eq!(root.upload("/new").unwrap(), root.dir().join("new"));
        for path in ["/", "/sub/new", "/../new", "/%2e%2e"] {
            assert!(root.upload(path).is_err(), "{path}");
        }
        assert!(Root::new(&inner.join("a b")).is_err());
    }

    /// A resolved path is not resolved again: a link put there since is not followed.
    #[test]
    fn a_file_that_becomes_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, secret) = (dir.path().canonicalize().unwrap(), "secret");
        std::fs::create_dir(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/a"), "x").unwrap();
        std::fs::write(dir.join(secret), "x").unwrap();
        assert!(Root::open_real(&dir.join("sub/a")).is_ok());
        std::fs::remove_file(dir.join("sub/a")).unwrap();
        std::os::unix::fs::symlink(dir.join(secret), dir.join("sub/a")).unwrap();
        assert!(Root::open_real(&dir.join("sub/a")).is_err());
        std::os::unix::fs::symlink(dir.join("sub"), dir.join("way")).unwrap();
        std::fs::write(dir.join("sub/b"), "x").unwrap();
        assert!(Root::open_real(&dir.join("sub/b")).is_ok() && Root::open_real(&dir.join("way/b")).is_err());
    }

    /// The thread that read files used to hang if a regular file was replaced by a pipe.
    #[test]
    fn what_is_no_regular_file_is_missing_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("pipe"), Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("zero")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let root = Root::new(dir.path()).unwrap();
        for path in ["/pipe", "/socket"] {
            assert!(matches!(file(&root, path), Err(PathError::Missing)), "{path}");
        }
        assert!(matches!(file(&root, "/zero"), Err(PathError::Outside)));
        // Without the check before opening.
        assert!(Root::open_real(&root.dir().join("pipe")).is_ok());
    }
}
