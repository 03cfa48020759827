//! `--live`: what the core does, each second.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet::runtime::CoreLive;

use super::page::{self, Counts, Size};
use crate::terminal;

/// How often the view is drawn anew.
const EVERY: Duration = Duration::from_secs(1);

/// A view that stays in place on a terminal, and scrolls elsewhere.
pub struct View {
    source: Arc<CoreLive>,
    title: String,
    start: Instant,
    at: Instant,
    last: Counts,
    /// What the command has to say.
    line: Option<String>,
}

impl View {
    /// A view of a core at the port that `title` describes.
    pub fn new(title: String) -> Self {
        let now = Instant::now();
        Self { source: Arc::default(), title, start: now, at: now, last: Counts::new(), line: None }
    }

    /// Where the core publishes.
    pub fn source(&self) -> Arc<CoreLive> {
        self.source.clone()
    }

    /// Draws the view if it is time to. `line` is what the command itself has to say since; `device` reads the counters of
    /// the port's device, which the core does not see.
    pub fn look<I: Iterator<Item = (&'static str, u64)>>(&mut self, line: Option<String>, device: impl FnOnce() -> I) {
        self.line = line.or(self.line.take());
        let passed = self.at.elapsed();
        if passed < EVERY {
            return;
        }
        let now: Counts = self.source.snapshot().into_iter().chain(device()).collect();
        // The view's own lines: the title, what the command says, and the one that the cursor is in.
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
