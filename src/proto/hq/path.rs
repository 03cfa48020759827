//! From request paths to files below one directory, and nowhere else.

use std::io;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use thiserror::Error;

/// Why a request path names no file.
#[derive(Debug, Error)]
pub enum PathError {
    /// The path tries to leave the directory, or has bytes that no file name has.
    #[error("the path leaves the served directory")]
    Outside,
    /// There is no such file, or it is not a regular one.
    #[error("no such file")]
    Missing,
    /// The file system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A directory that requests are confined to.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The directory `dir`, with symbolic links resolved.
    ///
    /// # Errors
    /// When it does not exist or is no directory.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let real = dir.canonicalize()?;
        if !real.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory"));
        }
        Ok(Self(real))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The relative path that a request path stands for.
    fn relative(path: &str) -> Result<PathBuf, PathError> {
        let text = percent_decode_str(path.trim_start_matches('/')).decode_utf8().map_err(|_| PathError::Outside)?;
        let relative = Path::new(text.as_ref());
        let plain = relative.components().all(|c| matches!(c, Component::Normal(_)));
        if plain && !text.contains('\0') { Ok(relative.to_owned()) } else { Err(PathError::Outside) }
    }

    /// The existing regular file that a request path names. Symbolic links must stay in the directory.
    ///
    /// # Errors
    /// [`PathError`] says why there is none.
    pub fn file(&self, path: &str) -> Result<PathBuf, PathError> {
        let real = self.0.join(Self::relative(path)?).canonicalize().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PathError::Missing,
            _ => PathError::Io(e),
        })?;
        if !real.starts_with(&self.0) {
            return Err(PathError::Outside);
        }
        if real.is_file() { Ok(real) } else { Err(PathError::Missing) }
    }

    /// Where an upload under this request path goes: directly into the directory, under a plain name.
    ///
    /// # Errors
    /// [`PathError::Outside`] for anything but a plain file name.
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
    use super::*;

    #[test]
    fn nothing_leaves_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("www");
        std::fs::create_dir_all(inner.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(inner.join("a b"), "x").unwrap();
        std::fs::write(inner.join("sub/c"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), inner.join("link")).unwrap();
        let root = Root::new(&inner).unwrap();
        assert!(root.file("/a%20b").is_ok() && root.file("//sub/c").is_ok());
        for path in ["/../secret", "/sub/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/link", "/a\0"] {
            assert!(matches!(root.file(path), Err(PathError::Outside)), "{path}");
        }
        for path in ["/nothing", "/sub", "/", "/a b/x"] {
            assert!(matches!(root.file(path), Err(PathError::Missing)), "{path}");
        }
        assert_eq!(root.upload("/new").unwrap(), root.dir().join("new"));
        for path in ["/", "/sub/new", "/../new", "/%2e%2e"] {
            assert!(root.upload(path).is_err(), "{path}");
        }
        assert!(Root::new(&inner.join("a b")).is_err());
    }
}
