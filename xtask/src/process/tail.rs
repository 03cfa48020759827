//! The last lines that a program has written.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format_tail;

/// The last lines of a program. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    most: usize,
}

impl Tail {
    /// Keeps the last `most` lines.
    pub(super) fn new(most: usize) -> Self {
        Self { lines: Arc::default(), most }
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub(super) fn push(&self, line: String) {
        let mut lines = self.lines();
        if lines.len() == self.most {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, for an error.
    pub(super) fn text(&self) -> String {
        format_tail(self.lines().iter().map(String::as_str))
    }
}
