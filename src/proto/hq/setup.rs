//! Configuration, start-up errors and counters of a server.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::base::time::Duration;
use crate::mem::{BufPool, PinnedBuf};
use crate::quic::{BufferProvider, StreamId};

/// The size of the receive buffer of a new request, in bytes: the longest line.
const REQUEST_BUF: usize = 4 << 10;

/// Provides one pinned buffer for each request stream, while its part of the pool lasts. Further streams are received
/// into chunks of the engine, which shares them fairly.
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

/// The reason why a server could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The directory cannot be used.
    #[error("cannot serve {}: {error}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// No file thread could be started.
    #[error("cannot start a file thread: {0}")]
    Thread(io::Error),
    /// A file could not be preloaded.
    #[error("cannot read {} into memory: {reason}", path.display())]
    Preload {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// The configuration of an [`HqServer`](super::HqServer).
#[derive(Clone, Debug)]
pub struct HqServerConfig {
    /// The directory whose files are served.
    pub root: PathBuf,
    /// The directory for uploads; `None` to refuse them.
    pub uploads: Option<PathBuf>,
    /// Files in the top level of `root` are read into pinned memory at start, up to this many bytes in total.
    pub preload: u64,
    /// How long a request waits for each disk access before it is refused with 504. A blocked thread may take longer,
    /// and is replaced by another.
    pub file_patience: Duration,
}

/// The default of [`HqServerConfig::file_patience`]: longer than a working disk takes.
pub const FILE_PATIENCE: Duration = Duration::from_secs(20);

/// Counters of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeStats {
    /// Files sent whole.
    pub files: u64,
    /// Files sent in part: the client stopped them, or its connection ended.
    pub partial: u64,
    /// Uploads stored.
    pub uploads: u64,
    /// Requests refused.
    pub refused: u64,
    /// Bytes of files passed to the engine, including those sent in part.
    pub bytes: u64,
}

impl std::iter::Sum for ServeStats {
    fn sum<I: Iterator<Item = Self>>(cores: I) -> Self {
        cores.fold(Self::default(), |a, b| Self {
            files: a.files + b.files,
            partial: a.partial + b.partial,
            uploads: a.uploads + b.uploads,
            refused: a.refused + b.refused,
            bytes: a.bytes + b.bytes,
        })
    }
}
