//! The progress of a transfer, on a terminal.

use std::time::{Duration, Instant};

use gannet::report::text::with_unit;

/// The interval between updates.
const EVERY: Duration = Duration::from_millis(200);

/// A line with the bytes received, the rate and the time passed.
#[derive(Debug)]
pub struct ProgressLine {
    start: Instant,
    /// When it was last drawn; `None` if it is hidden.
    at: Option<Instant>,
}

impl ProgressLine {
    /// Creates a line. Unless `hidden`, it is drawn from the first [`ProgressLine::set_position`] on.
    pub fn new(hidden: bool) -> Self {
        let now = Instant::now();
        Self { start: now, at: (!hidden).then_some(now) }
    }

    /// Sets the number of bytes received.
    pub fn set_position(&mut self, bytes: u64) {
        if self.at.is_some_and(|at| at.elapsed() >= EVERY) {
            self.at = Some(Instant::now());
            super::status(line(bytes, self.start.elapsed()), false);
        }
    }

    /// Removes the line.
    pub fn finish_and_clear(&mut self) {
        if self.at.take().is_some() {
            super::status(String::new(), false);
        }
    }
}

fn line(bytes: u64, passed: Duration) -> String {
    let rate = 8.0 * bytes as f64 / passed.as_secs_f64().max(1e-9);
    format!("{} received, {}, {} s", with_unit(bytes as f64, "B"), with_unit(rate, "bit/s"), passed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_much_how_fast_and_for_how_long() {
        assert_eq!(line(5_000_000_000, Duration::from_secs(10)), "5.00 GB received, 4.00 Gbit/s, 10 s");
        assert_eq!(line(0, Duration::ZERO), "0 B received, 0 bit/s, 0 s");
    }
}
