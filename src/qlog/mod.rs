//! Writes what happens to connections to files in the format of qlog, for tools such as qvis.
//!
//! Each connection has a file of its own: a JSON text sequence (draft-ietf-quic-qlog-main-schema-14 §5, §11.2) with the
//! events of draft-ietf-quic-qlog-quic-events-13. Poll loops only copy events to batches (`sink`), which a thread
//! encodes ([`encode`]) and writes (`files`). Everything is bounded: the number and size of files, and the batches that
//! wait; what has no room is left out, counted, and the file says so. Application data, keys, tokens and reset tokens
//! are never written.
#![forbid(unsafe_code)]

pub mod encode;
mod files;
mod frames;
pub mod json;
mod names;
mod sink;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::quic::trace::{TraceSink, Tracer};

use files::Writer;
pub use names::Names;
use sink::{Counters, Line, Sink};

/// Settings of qlog files.
#[derive(Clone, Debug)]
pub struct QlogConfig {
    /// The directory of the files, which is made if there is none. The files are named after the client's first
    /// destination ID: `0123456789abcdef_server.sqlog`. Only their owner can read them.
    pub dir: PathBuf,
    /// Maximum size of a file in bytes, 64 MiB by default. When it is reached, the rest of the connection is not traced.
    pub limit: u64,
    /// Trace one of this many connections; all by default.
    pub every: u64,
    /// Maximum number of connections that are traced at a time, 256 by default. Others are not traced.
    pub open: usize,
    /// Maximum number of files, 10,000 by default.
    pub files: u64,
    /// The names of events.
    pub names: Names,
}

impl QlogConfig {
    /// Files in `dir`, with defaults otherwise.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), limit: 64 << 20, every: 1, open: 256, files: 10_000, names: Names::default() }
    }
}

/// Makes qlog files of the connections of one or more endpoints
/// ([`EndpointConfig::tracer`](crate::quic::EndpointConfig::tracer)).
///
/// Clones write to the same files. When the last of them and of their endpoints is dropped, the files are complete, unless
/// the disk takes more than two seconds.
#[derive(Clone, Debug)]
pub struct Qlog {
    line: Arc<Line>,
}

impl Qlog {
    /// Makes the directory, and starts the thread that writes.
    ///
    /// # Errors
    /// If the directory cannot be made or written to, or there can be no thread.
    pub fn start(config: QlogConfig) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let mut writer = Writer::new(config.clone(), counters.clone())?;
        let line = Line::aside(config, counters, move |batch| writer.write(batch))?;
        Ok(Self { line: Arc::new(line) })
    }

    /// Like [`Qlog::start`], but writes in the thread of the engine, which waits for it: for simulations and tests.
    ///
    /// # Errors
    /// As for [`Qlog::start`].
    pub fn direct(config: QlogConfig) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let mut writer = Writer::new(config.clone(), counters.clone())?;
        let line = Line::direct(config, counters, move |batch| writer.write(batch));
        Ok(Self { line: Arc::new(line) })
    }

    /// Waits, for at most two seconds, until everything is written, and writes nothing more. Returns whether it was. Endpoints
    /// should be dropped before: what they record later is lost.
    pub fn finish(&self) -> bool {
        self.line.finish()
    }

    /// Counters with their names: files made, events written, events for which there was no room, connections that were
    /// not traced because of a limit, and files that could not be made or completed.
    pub fn counters(&self) -> [(&'static str, u64); 5] {
        self.line.counters.all()
    }
}

impl Tracer for Qlog {
    fn sink(&self) -> Box<dyn TraceSink> {
        Box::new(Sink::new(self.line.clone()))
    }
}
