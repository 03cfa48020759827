//! Layer `report`: latency histograms, and with the feature `report` what is made of them: text, .hdr logs, HTML pages.
#![forbid(unsafe_code)]

#[cfg(feature = "report")]
mod decode;
#[cfg(feature = "report")]
pub mod file;
#[cfg(feature = "report")]
pub mod hdr_log;
#[cfg(feature = "report")]
pub mod html;
pub mod latency;
#[cfg(feature = "report")]
pub mod machine;
#[cfg(feature = "report")]
mod plot;
#[cfg(feature = "report")]
pub mod text;

use std::time::{Duration, SystemTime};

#[cfg(feature = "report")]
pub use hdr_log::{HdrLog, HdrLogError, read_hdr_log, write_hdr_log};
#[cfg(feature = "report")]
pub use html::ReportInput;
pub use latency::{Latency, Summary};

/// Latencies under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What was measured, for legends and tables.
    pub name: String,
    /// The latencies.
    pub latency: Latency,
    /// When recording began.
    pub start: SystemTime,
    /// How long it went on; zero if not known.
    pub duration: Duration,
}

impl Series {
    /// A series whose time of recording is not known.
    pub fn new(name: impl Into<String>, latency: Latency) -> Self {
        Self { name: name.into(), latency, start: SystemTime::UNIX_EPOCH, duration: Duration::ZERO }
    }

    /// The same, recorded from `start` on for `duration`.
    #[must_use]
    pub fn recorded(self, start: SystemTime, duration: Duration) -> Self {
        Self { start, duration, ..self }
    }
}

/// One throughput figure. Bars of the same unit are drawn to the same scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What was measured.
    pub label: String,
    /// How much, in `unit`.
    pub value: f64,
    /// `Gbit/s`, `requests/s` and the like.
    pub unit: String,
}
