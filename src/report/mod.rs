//! Layer `report`: latency histograms, and with the feature `report` what is made of them: text, .hdr logs, HTML pages.
#![forbid(unsafe_code)]

#[cfg(feature = "report")]
mod colours;
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

/// One figure, drawn as a bar. Bars of the same unit are drawn to the same scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What was measured.
    pub label: String,
    /// Whose figure it is: all bars of a stack have the same colour, and so do the series whose names begin with it.
    pub stack: String,
    /// How much, in `unit`; of repeats the median.
    pub value: f64,
    /// The smallest and the largest of the repeats.
    pub spread: Option<(f64, f64)>,
    /// `Gbit/s`, `requests/s` and the like.
    pub unit: String,
}

impl Bar {
    /// A figure of Gannet's, measured once.
    pub fn new(label: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Self { label: label.into(), stack: "Gannet".into(), value, spread: None, unit: unit.into() }
    }
}
