//! `--live`: shows what the core does, each second.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet::runtime::CoreLive;

use super::page::{self, Counts, Size};
use crate::terminal;

/// The interval between updates.
const EVERY: Duration = Duration::from_secs(1);

/// A view that is updated in place on a terminal, and scrolls elsewhere.
pub struct View {
    source: Arc<CoreLive>,
    title: String,
    start: Instant,
    at: Instant,
    last: Counts,
    /// The command's own line.
    line: Option<String>,
}

impl View {
    /// Creates a view of a core at the port that `title` describes.
    pub fn new(title: String) -> Self {
        let now = Instant::now();
        Self { source: Arc::default(), title, start: now, at: now, last: Counts::new(), line: None }
    }

    /// Where the core publishes its counters.
    pub fn source(&self) -> Arc<CoreLive> {
        self.source.clone()
    }

    /// Draws the view if it is due. `line` is the command's own latest line; `device` reads the counters of the port's
    /// device, which the core does not see.
    pub fn look<I: Iterator<Item = (&'static str, u64)>>(&mut self, line: Option<String>, device: impl FnOnce() -> I) {
        self.line = line.or(self.line.take());
        let passed = self.at.elapsed();
        if passed < EVERY {
            return;
        }
        let now: Counts = self.source.snapshot().into_iter().chain(device()).collect();
        // Lines that are not part of the table: the title, the command's line, and the cursor's.
        let mut size = terminal::size().map_or(Size::ENDLESS, |(rows, columns)| Size { rows, columns });
        size.rows = size.rows.saturating_sub(2 + usize::from(self.line.is_some()));
        let mut page = format!("{} s · {}\n", self.start.elapsed().as_secs(), self.title);
        page.push_str(&page::table(&self.last, &now, passed, size));
        if let Some(line) = &self.line {
            let _ = writeln!(page, "{line}");
        }
        terminal::status(page, true);
        (self.last, self.at) = (now, Instant::now());
    }
}
