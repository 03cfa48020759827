//! Formats the `tracing` events of the library and the commands as log lines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::PanicHookInfo;

use gannet::base::printable::is_steering;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;

use crate::args::log::LogFormat;

/// Maximum length of a line, in bytes.
const MAX_LINE: usize = 8 << 10;

/// Starts to log the events that pass `filter`. The thread that emits an event formats it; another thread writes it.
pub fn start(filter: Targets, format: LogFormat) {
    let filtered = tracing_subscriber::registry().with(filter);
    // Fails only if there is a subscriber already.
    let _ = match format {
        LogFormat::Text => {
            let lines = fmt::layer().with_writer(Lines { text: true }).with_ansi(false).log_internal_errors(false);
            tracing::subscriber::set_global_default(filtered.with(lines))
        }
        LogFormat::Json => {
            let lines = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
            let lines = lines.with_writer(Lines { text: false }).log_internal_errors(false);
            tracing::subscriber::set_global_default(filtered.with(lines))
        }
    };
}

#[derive(Clone, Copy)]
struct Lines {
    text: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl io::Write for Lines {
    /// Writes one event.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        super::line(if self.text { one_line(&line) } else { line.into_owned() });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes control characters, so that whatever a peer sent can neither start a new line nor control the terminal.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end_matches('\n').chars() {
        if line.len() >= MAX_LINE {
            line.push('…');
            break;
        }
        if is_steering(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// A line that reports the loss of `lost` earlier lines.
pub fn lost_line(lost: u64, format: LogFormat) -> String {
    const MESSAGE: &str = "lines were lost here: standard error did not accept them";
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    match format {
        LogFormat::Text => format!("{time}  WARN gannet: {MESSAGE} lost={lost}\n"),
        LogFormat::Json => {
            let event = serde_json::json!({
                "timestamp": time, "level": "WARN", "message": MESSAGE, "lost": lost, "target": "gannet"
            });
            format!("{event}\n")
        }
    }
}

/// Logs a panic. Unlike the standard library's hook it never waits for standard error: a core that panics has
/// connections to close.
pub fn on_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current().name().unwrap_or("a thread").to_owned();
    let at = info.location().map(tracing::field::display);
    tracing::error!(at, "{thread} panicked: {}", info.payload_as_str().unwrap_or("no reason was given"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        super::tell(&backtrace.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(one_line("a\nINFO forged\x1b[2J\u{202e}é\n"), "a\\nINFO forged\\u{1b}[2J\\u{202e}é");
        let long = one_line(&"x".repeat(100_000));
        assert_eq!(long.len(), MAX_LINE + '…'.len_utf8());
    }
}
