//! Files being read.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::proto::hq::{PathError, Root};

/// A file that is being read. It may be closed in between.
pub(super) struct Input {
    /// The path without symbolic links.
    real: PathBuf,
    /// Identifies the file and its version: the same version is read to its end, or reading fails.
    identity: [u64; 5],
    file: Option<File>,
}

impl Input {
    /// Opens the file at `path` in `root`, and returns its length in bytes.
    pub(super) fn open(root: &Root, path: &Path) -> Result<(Self, u64), PathError> {
        let (real, file, meta) = root.open(path)?;
        Ok((Self { real, identity: identity(&meta), file: Some(file) }, meta.len()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.real
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Takes the open file, which is reopened when it is next read.
    pub(super) fn close(&mut self) -> Option<File> {
        self.file.take()
    }

    /// Fills `buf` with the bytes at `offset`.
    pub(super) fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = Root::open_real(&self.real)?;
                if identity(&file.metadata()?) != self.identity {
                    return Err(io::Error::other("the file was replaced while it was read"));
                }
                file
            }
        };
        self.file.insert(file).read_exact_at(buf, offset)
    }
}

fn identity(meta: &Metadata) -> [u64; 5] {
    [meta.dev(), meta.ino(), meta.len(), meta.mtime() as u64, meta.mtime_nsec() as u64]
}
