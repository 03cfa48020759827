//! What a client fetches, and what came of it.

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

/// Where a file is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: it is only counted, and hashed.
    Nowhere,
    /// Standard output.
    Stdout,
    /// A file, which appears when it is complete. Devices and pipes that are there already are written to as they are.
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
    /// What to ask for: begins with a slash, percent-encoded.
    pub path: String,
    /// Where to put it.
    pub output: Destination,
}

/// What a client does.
#[derive(Clone, Debug)]
pub struct HqClientConfig {
    /// The server.
    pub remote: SocketAddr,
    /// The name that its certificate is for.
    pub server_name: String,
    /// How to connect.
    pub client: ClientConfig,
    /// What to fetch.
    pub jobs: Vec<Job>,
    /// Compute SHA-256.
    pub hash: bool,
    /// Keep up to so many received bytes in memory before the first is written to disk. On a machine
    /// without CPUs to spare, writing then does not slow receiving down.
    pub hold: u64,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What was asked for.
    pub path: String,
    /// Where it is.
    pub output: Destination,
    /// Its size.
    pub bytes: u64,
    /// From the request to the last byte's arrival.
    pub time: Duration,
    /// SHA-256 in hexadecimal, if asked for.
    pub sha256: Option<String>,
}

/// Why files could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// No connection could be started.
    #[error(transparent)]
    Connect(#[from] ConnectFailure),
    /// The connection ended too early.
    #[error("connection to {remote}: {reason}")]
    Closed {
        /// The server.
        remote: SocketAddr,
        /// How it ended.
        reason: CloseReason,
    },
    /// The network knows no way.
    #[error("cannot reach {remote}: {why}")]
    Unreachable {
        /// The server.
        remote: SocketAddr,
        /// What the network says.
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
        /// Why.
        error: io::Error,
    },
    /// The end came before this file had arrived whole.
    #[error("{0} was not fetched")]
    NotFetched(String),
}

/// For those who watch from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that have arrived in order.
    pub bytes: AtomicU64,
    /// Files that are finished.
    pub files: AtomicU64,
}
