//! The counters of a run.

use std::path::Path;

use gannet::datapath::Datapath;
use gannet::dpdk::Port;
use gannet::quic::EndpointStats;
use gannet::report::file::{WriteError, write_atomically};
use gannet::runtime::{App, Core};

use super::keylog;
use crate::commands::origin::origin;
use crate::terminal;

/// Every counter of a core with its name.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// The engine's counters.
    pub endpoint: EndpointStats,
    all: Vec<(&'static str, u64)>,
    /// The driver's own counters, by its names.
    driver: Vec<(String, u64)>,
}

impl Counters {
    /// The counters of `core`.
    pub fn of<D: Datapath, A: App>(core: &Core<D, A>) -> Self {
        let lost = [("log_lines_lost", terminal::lost()), ("keylog_lines_lost", keylog::lost())];
        let all = core.counters().chain(lost).collect();
        Self { endpoint: core.endpoint_stats().clone(), all, driver: Vec::new() }
    }

    /// Adds the counters of the port's device: packets that never reached a queue are counted nowhere else.
    pub fn add_device(&mut self, port: &Port) {
        self.all.extend(port.stats().iter());
        self.driver = port.xstats();
    }

    /// The counter `name`; 0 if there is none.
    pub fn value(&self, name: &str) -> u64 {
        self.all.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
    }

    /// Writes the counters as one JSON object, in which the driver's counters, with names given by DPDK, are a nested
    /// object.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let mut map: serde_json::Map<String, serde_json::Value> =
            self.all.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        map.insert("run".to_owned(), origin());
        map.insert("driver".to_owned(), self.driver.iter().cloned().collect());
        let mut text = serde_json::to_string_pretty(&map).unwrap_or_default();
        text.push('\n');
        write_atomically(path, text.as_bytes())
    }
}
