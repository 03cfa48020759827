//! Standard error and standard output for threads that must not wait for them.
//!
//! A stopped terminal, a pipe that nobody reads or a full disk may block a writer for ever. So a separate thread writes
//! the lines ([`Aside`]) and at most [`ROOM`] lines wait for it. Lines that find no room or cannot be written are
//! counted, and the next line that is written reports their number.

mod log;
mod pen;
mod progress;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gannet::base::aside::Aside;

use crate::args::log::{LogArgs, LogFormat};
use pen::{Item, Patient, Pen};
pub use progress::ProgressLine;

/// The maximum number of lines that wait to be written.
const ROOM: usize = 1024;

/// How long the end of the process waits for lines to be written.
const PATIENCE: Duration = Duration::from_millis(500);

struct Terminal {
    /// Lines for standard error.
    lines: Aside<Item>,
    /// Lines for standard output from threads that must not wait.
    announcements: Aside<String>,
    lost: Arc<AtomicU64>,
    format: LogFormat,
}

static TERMINAL: OnceLock<Terminal> = OnceLock::new();

/// Starts the writer threads and the log.
pub fn start(args: &LogArgs) {
    let Ok(terminal) = Terminal::new(args.log_format) else { return };
    if TERMINAL.set(terminal).is_ok() {
        log::start(args.filter(), args.log_format);
        std::panic::set_hook(Box::new(log::on_panic));
    }
}

impl Terminal {
    fn new(format: LogFormat) -> io::Result<Self> {
        let lost = Arc::<AtomicU64>::default();
        // Not through `io::stderr`: a panicking thread would wait for its lock.
        let err = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let mut pen = Pen::new(Patient(err), io::stderr().is_terminal(), format, lost.clone());
        let mut out = Patient(File::from(io::stdout().as_fd().try_clone_to_owned()?));
        Ok(Self {
            lines: Aside::start("gannet-log", ROOM, move |item| pen.take(item))?,
            announcements: Aside::start("gannet-out", ROOM, move |line: String| {
                // An error means that nobody reads it any more.
                let _ = out.write_all(line.as_bytes());
            })?,
            lost,
            format,
        })
    }
}

/// Writes `text` and a line feed to standard error. Never waits.
pub fn line(mut text: String) {
    let Some(terminal) = TERMINAL.get() else { return };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if terminal.lines.offer(Item::Line(text)).is_err() {
        terminal.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes text that is not a log event: unchanged in text format, as an event in JSON format.
pub fn tell(text: &str) {
    match TERMINAL.get().map(|terminal| terminal.format) {
        Some(LogFormat::Json) => tracing::info!("{}", text.trim_end()),
        Some(LogFormat::Text) => line(text.to_owned()),
        None => {}
    }
}

/// Reports why the command failed.
pub fn fail(why: &str) {
    match TERMINAL.get().map(|terminal| terminal.format) {
        Some(LogFormat::Json) => tracing::error!("{why}"),
        Some(LogFormat::Text) => line(format!("gannet: {why}")),
        // The writer thread could not be started.
        None => drop(writeln!(io::stderr(), "gannet: {why}")),
    }
}

/// Shows `text`, of one or more lines, below all others until replaced. If standard error is not a terminal, prints it
/// like other text if `everywhere` is set, and not at all otherwise.
pub fn status(text: String, everywhere: bool) {
    if let Some(terminal) = TERMINAL.get() {
        // If there is no room: the next one follows soon.
        let _ = terminal.lines.offer(Item::Status { text, everywhere });
    }
}

/// Prints a line on standard output. Never waits.
pub fn announce(text: &str) {
    if let Some(terminal) = TERMINAL.get() {
        let _ = terminal.announcements.offer(format!("{text}\n"));
    }
}

/// Rows and columns of the terminal, if standard error is one.
pub fn size() -> Option<(usize, usize)> {
    let term = console::Term::stderr();
    let (rows, columns) = term.is_term().then(|| term.size())?;
    Some((usize::from(rows), usize::from(columns)))
}

/// The number of lines lost so far.
pub fn lost() -> u64 {
    TERMINAL.get().map_or(0, |terminal| terminal.lost.load(Ordering::Relaxed))
}

/// Waits until all lines are written, but at most [`PATIENCE`]. Nothing is written afterwards.
pub fn finish() {
    if let Some(terminal) = TERMINAL.get() {
        terminal.announcements.finish(PATIENCE);
        terminal.lines.finish(PATIENCE);
    }
}
