//! Standard error and standard output, for those who may not wait for them.
//!
//! A terminal that was stopped, a pipe that nobody reads, a full disk: whatever takes our lines may take none, and for ever.
//! So a thread of its own writes them ([`Aside`]), at most [`ROOM`] wait for it, and those that find no room, or that cannot be
//! written, are lost and counted; the next line that is written says how many.

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

/// Lines that can wait to be written.
const ROOM: usize = 1024;

/// How long the end of the process waits for lines that were not written yet.
const PATIENCE: Duration = Duration::from_millis(500);

struct Terminal {
    /// Standard error.
    lines: Aside<Item>,
    /// Standard output, for lines that cannot wait.
    announcements: Aside<String>,
    lost: Arc<AtomicU64>,
    format: LogFormat,
}

static TERMINAL: OnceLock<Terminal> = OnceLock::new();

/// From now on lines are written, and what the library logs is one of them.
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
        // Not through `io::stderr`: whoever panics would wait for its lock.
        let err = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let mut pen = Pen::new(Patient(err), io::stderr().is_terminal(), format, lost.clone());
        let mut out = Patient(File::from(io::stdout().as_fd().try_clone_to_owned()?));
        Ok(Self {
            lines: Aside::start("gannet-log", ROOM, move |item| pen.take(item))?,
            announcements: Aside::start("gannet-out", ROOM, move |line: String| {
                // Nobody reads it any more: nothing to be done about that.
                let _ = out.write_all(line.as_bytes());
            })?,
            lost,
            format,
        })
    }
}

/// Writes `text` and a line end to standard error. Never waits.
pub fn line(mut text: String) {
    let Some(terminal) = TERMINAL.get() else { return };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if terminal.lines.offer(Item::Line(text)).is_err() {
        terminal.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// The same for what is no event of a log: as it is among lines of text, as an event among JSON.
pub fn tell(text: &str) {
    match TERMINAL.get().map(|terminal| terminal.format) {
        Some(LogFormat::Json) => tracing::info!("{}", text.trim_end()),
        Some(LogFormat::Text) => line(text.to_owned()),
        None => {}
    }
}

/// Says why the command failed.
pub fn fail(why: &str) {
    match TERMINAL.get().map(|terminal| terminal.format) {
        Some(LogFormat::Json) => tracing::error!("{why}"),
        Some(LogFormat::Text) => line(format!("gannet: {why}")),
        // There was not even a thread for it.
        None => drop(writeln!(io::stderr(), "gannet: {why}")),
    }
}

/// Shows `text`, of one or more lines, below all others until something else is shown. If standard error is no terminal,
/// it is printed like any other text, or not at all unless `everywhere`.
pub fn status(text: String, everywhere: bool) {
    if let Some(terminal) = TERMINAL.get() {
        // The next one comes soon.
        let _ = terminal.lines.offer(Item::Status { text, everywhere });
    }
}

/// Prints a line on standard output for whoever waits for it. Never waits.
pub fn announce(text: &str) {
    if let Some(terminal) = TERMINAL.get() {
        let _ = terminal.announcements.offer(format!("{text}\n"));
    }
}

/// Rows and columns of the terminal that standard error is, if it is one.
pub fn size() -> Option<(usize, usize)> {
    let term = console::Term::stderr();
    let (rows, columns) = term.is_term().then(|| term.size())?;
    Some((usize::from(rows), usize::from(columns)))
}

/// Lines that were lost so far.
pub fn lost() -> u64 {
    TERMINAL.get().map_or(0, |terminal| terminal.lost.load(Ordering::Relaxed))
}

/// Waits until everything was written, but not for long. Nothing is written any more.
pub fn finish() {
    if let Some(terminal) = TERMINAL.get() {
        terminal.announcements.finish(PATIENCE);
        terminal.lines.finish(PATIENCE);
    }
}
