//! `--live`: shows what the cores do, each second.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet::runtime::CoreLive;

use super::page::{self, Counts, Size};
use super::report::sum;
use crate::terminal;

/// The interval between updates.
const EVERY: Duration = Duration::from_secs(1);

/// A view that is updated in place on a terminal, and scrolls elsewhere.
pub struct View {
    sources: Vec<Arc<CoreLive>>,
    title: String,
    start: Instant,
    at: Instant,
    last: Counts,
    /// Of each core.
    last_each: Vec<Counts>,
    /// The command's own line.
    line: Option<String>,
}

impl View {
    /// Creates a view of `cores` cores at the port that `title` describes.
    pub fn new(title: String, cores: usize) -> Self {
        let (now, last_each) = (Instant::now(), vec![Counts::new(); cores]);
        let sources = (0..cores).map(|_| Arc::default()).collect();
        Self { sources, title, start: now, at: now, last: Counts::new(), last_each, line: None }
    }

    /// Where each core publishes its counters.
    pub fn sources(&self) -> Vec<Arc<CoreLive>> {
        self.sources.clone()
    }

    /// Draws the view if it is due. `line` is the command's own latest line; `device` reads the counters of the port's
    /// device, which the core does not see.
    pub fn look<I: Iterator<Item = (&'static str, u64)>>(&mut self, line: Option<String>, device: impl FnOnce() -> I) {
        self.line = line.or(self.line.take());
        let passed = self.at.elapsed();
        if passed < EVERY {
            return;
        }
        let snapshots: Vec<_> = self.sources.iter().map(|source| source.snapshot()).collect();
        let now: Counts = sum(snapshots.iter().map(Vec::as_slice)).into_iter().chain(device()).collect();
        let each: Vec<Counts> = snapshots.into_iter().map(|counters| counters.into_iter().collect()).collect();
        // Lines that are not part of the table: the title, the command's line, and the cursor's.
        let mut size = terminal::size().map_or(Size::ENDLESS, |(rows, columns)| Size { rows, columns });
        size.rows = size.rows.saturating_sub(2 + usize::from(self.line.is_some()));
        let mut page = format!("{} s · {}\n", self.start.elapsed().as_secs(), self.title);
        if each.len() > 1 {
            let list = page::cores(&self.last_each, &each, passed, size);
            size.rows = size.rows.saturating_sub(list.lines().count());
            page.push_str(&list);
        }
        page.push_str(&page::table(each.len(), &self.last, &now, passed, size));
        if let Some(line) = &self.line {
            let _ = writeln!(page, "{line}");
        }
        terminal::status(page, true);
        (self.last, self.last_each, self.at) = (now, each, Instant::now());
    }
}
