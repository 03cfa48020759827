//! The counters of a run.

use std::path::Path;

use gannet::datapath::Datapath;
use gannet::quic::EndpointStats;
use gannet::report::file::{WriteError, write_atomically};
use gannet::runtime::{App, Core};

/// Every counter of a core with its name.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// The engine's.
    pub endpoint: EndpointStats,
    all: Vec<(&'static str, u64)>,
}

impl Counters {
    /// Those of `core`.
    pub fn of<D: Datapath, A: App>(core: &Core<D, A>) -> Self {
        Self { endpoint: core.endpoint_stats().clone(), all: core.counters().collect() }
    }

    /// Writes them as one JSON object.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let map: serde_json::Map<String, serde_json::Value> =
            self.all.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let mut text = serde_json::to_string_pretty(&map).unwrap_or_default();
        text.push('\n');
        write_atomically(path, text.as_bytes())
    }
}
