//! Layer `report`: latency histograms and, with the feature `report`, their output as text, .hdr logs and HTML pages.
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

/// A named latency histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What was measured, for legends and tables.
    pub name: String,
    /// The latencies.
    pub latency: Latency,
    /// When recording began.
    pub start: SystemTime,
    /// The duration of recording; zero if unknown.
    pub duration: Duration,
}

impl Series {
    /// Creates a series with an unknown time of recording.
    pub fn new(name: impl Into<String>, latency: Latency) -> Self {
        Self { name: name.into(), latency, start: SystemTime::UNIX_EPOCH, duration: Duration::ZERO }
    }

    /// Sets the time of recording: from `start` on for `duration`.
    #[must_use]
    pub fn recorded(self, start: SystemTime, duration: Duration) -> Self {
        Self { start, duration, ..self }
    }
}

/// A figure drawn as a bar. Bars of the same unit share a scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What was measured.
    pub label: String,
    /// The stack that was measured: all bars of a stack have the same colour, and so do the series whose names start
    /// with it.
    pub stack: String,
    /// The value in `unit`; the median if repeated.
    pub value: f64,
    /// The minimum and maximum of the repeats.
    pub spread: Option<(f64, f64)>,
    /// The unit, for example `Gbit/s` or `requests/s`.
    pub unit: String,
}

impl Bar {
    /// Creates a figure of Gannet, measured once.
    pub fn new(label: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Self { label: label.into(), stack: "Gannet".into(), value, spread: None, unit: unit.into() }
    }
}
