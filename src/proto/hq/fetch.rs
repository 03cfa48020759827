//! Jobs of a client and their results.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use thiserror::Error;

use crate::base::time::Duration;
use crate::proto::hq::files::Sink;
use crate::proto::hq::status;
use crate::quic::{ClientConfig, CloseReason};
use crate::runtime::{ConnectFailure, Unreachable};

/// The destination of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: the file is only counted and hashed.
    Nowhere,
    /// Standard output.
    Stdout,
    /// A file, which appears when it is complete. Existing devices and pipes are written to directly.
    File(PathBuf),
}

impl Destination {
    pub(super) fn sink(&self) -> Sink {
        match self {
            Self::Nowhere => Sink::Nowhere,
            Self::Stdout => Sink::Stdout,
            Self::File(path) => Sink::Path(path.clone()),
        }
    }
}

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct Job {
    /// The path to request: starts with a slash, percent-encoded.
    pub path: String,
    /// The destination.
    pub output: Destination,
}

/// The configuration of an [`HqClient`](super::HqClient).
#[derive(Clone, Debug)]
pub struct HqClientConfig {
    /// The server.
    pub remote: SocketAddr,
    /// The name that its certificate must be valid for.
    pub server_name: String,
    /// TLS and transport settings.
    pub client: ClientConfig,
    /// Move the connection to the next source port at this interval ([`Context::migrate`](crate::runtime::Context)).
    pub migrate_every: Option<Duration>,
    /// The files to fetch.
    pub jobs: Vec<Job>,
    /// Compute the SHA-256 of each file.
    pub hash: bool,
    /// Keep up to this many received bytes in memory before writing any to disk. On a machine without spare CPUs,
    /// writing then does not slow down receiving.
    pub hold: u64,
    /// Fetch the first file over a connection of its own and the others over a second one, which resumes the session of
    /// the first ([`ClientConfig::with_sessions`]), and requests them as 0-RTT data if that is allowed
    /// ([`ClientConfig::with_early_data`]).
    pub resume: bool,
}

/// A fetched file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The position of its job among those of all cores.
    pub job: usize,
    /// The requested path.
    pub path: String,
    /// The destination.
    pub output: Destination,
    /// The size in bytes.
    pub bytes: u64,
    /// The time from the request to the arrival of the last byte.
    pub time: Duration,
    /// The SHA-256 in hexadecimal, if requested.
    pub sha256: Option<String>,
}

/// The reason why files could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The connection could not be started.
    #[error(transparent)]
    Connect(#[from] ConnectFailure),
    /// The connection ended too early.
    #[error("connection to {remote}: {reason}")]
    Closed {
        /// The server.
        remote: SocketAddr,
        /// The reason.
        reason: CloseReason,
    },
    /// The server cannot be reached.
    #[error("cannot reach {remote}: {why}")]
    Unreachable {
        /// The server.
        remote: SocketAddr,
        /// The reason.
        why: Unreachable,
    },
    /// The server refused one file.
    #[error("{path}: {} (code {code})", status::text(*code))]
    Refused {
        /// The file.
        path: String,
        /// The server's code.
        code: u64,
    },
    /// A file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The run ended before this file had arrived.
    #[error("{0} was not fetched")]
    NotFetched(String),
}

/// The progress of a client, or of those of several cores, for other threads to read.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes received in order.
    pub bytes: AtomicU64,
    /// Files completed.
    pub files: AtomicU64,
    /// Numbers the errors of all cores in the order of their occurrence.
    pub(super) failures: AtomicU64,
}
