//! What a server is made of, and why it may not start.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::base::time::Duration;
use crate::mem::{BufPool, PinnedBuf};
use crate::quic::{BufferProvider, StreamId};

/// The buffer that a new request's stream is received into, in bytes: the longest line.
const REQUEST_BUF: usize = 4 << 10;

/// Gives every request stream of a client one pinned buffer, as long as there are any in its part of the pool. The others
/// are received into chunks of the engine, which sees to it that everybody gets some.
#[derive(Debug)]
pub struct RequestProvider(pub BufPool);

impl BufferProvider for RequestProvider {
    fn initial_window(&self) -> u64 {
        REQUEST_BUF as u64
    }

    fn provide(&self, _: StreamId, give: &mut dyn FnMut(PinnedBuf)) {
        self.0.alloc(REQUEST_BUF).into_iter().for_each(give);
    }
}

/// Why a server could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The directory of files.
    #[error("cannot serve {}: {error}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No thread for files.
    #[error("cannot start a thread for files: {0}")]
    Thread(io::Error),
    /// A file that was to be kept in memory.
    #[error("cannot read {} into memory: {reason}", path.display())]
    Preload {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct HqServerConfig {
    /// Files below this directory are served.
    pub root: PathBuf,
    /// Uploads are kept here; `None`: they are refused.
    pub uploads: Option<PathBuf>,
    /// Files directly in `root` are read into pinned memory at the start, up to so many bytes in all.
    pub preload: u64,
    /// How long a request waits for the disk at a time; then it is refused with 504. Its thread may be stuck for longer,
    /// and others do the work of those that are.
    pub file_patience: Duration,
}

/// What [`HqServerConfig::file_patience`] usually is: longer than a disk takes that works at all.
pub const FILE_PATIENCE: Duration = Duration::from_secs(20);

/// What a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeStats {
    /// Files sent whole.
    pub files: u64,
    /// Files of which only a part was sent: the client wanted no more, or its connection ended.
    pub partial: u64,
    /// Uploads kept.
    pub uploads: u64,
    /// Requests refused.
    pub refused: u64,
    /// Bytes of files handed to the engine, of those sent in part as well.
    pub bytes: u64,
}
