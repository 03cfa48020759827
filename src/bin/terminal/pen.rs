//! The writer of lines, on a thread of its own.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use console::Term;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::log;
use crate::args::log::LogFormat;

/// An item to be written.
#[derive(Debug)]
pub enum Item {
    /// Text that ends with a line feed.
    Line(String),
    /// A status shown below all lines, until the next one.
    Status {
        /// The text; if empty, the status disappears.
        text: String,
        /// If there is no terminal, print it like other text.
        everywhere: bool,
    },
}

/// A file that another process may have made non-blocking: writes wait for up to a second.
#[derive(Debug)]
pub struct Patient(pub File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                    if poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], Some(&second)) == Ok(0) {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes items and the number of lost lines to `out`.
pub struct Pen<W: Write> {
    out: W,
    is_terminal: bool,
    format: LogFormat,
    status: String,
    /// The number of status lines on the terminal.
    drawn: usize,
    /// The last line may be incomplete.
    torn: bool,
    lost: Arc<AtomicU64>,
    /// The number of lost lines already reported.
    told: u64,
}

impl<W: Write> Pen<W> {
    /// Creates a pen. `lost` counts lost lines, here and elsewhere.
    pub fn new(out: W, is_terminal: bool, format: LogFormat, lost: Arc<AtomicU64>) -> Self {
        Self { out, is_terminal, format, status: String::new(), drawn: 0, torn: false, lost, told: 0 }
    }

    /// Writes one item.
    pub fn take(&mut self, item: Item) {
        match item {
            Item::Line(text) => self.write(&text),
            Item::Status { text, .. } if self.is_terminal => {
                self.status = text;
                self.write("");
            }
            // It would not be valid in JSON format.
            Item::Status { text, everywhere: true } if self.format == LogFormat::Text => self.write(&text),
            Item::Status { .. } => {}
        }
    }

    fn write(&mut self, text: &str) {
        let mut page = String::new();
        if self.drawn > 0 {
            // Move to the first line of the status and erase from there.
            let _ = write!(page, "\r\x1b[{}A\x1b[J", self.drawn);
        }
        if self.torn {
            page.push('\n');
        }
        let lost = self.lost.load(Ordering::Relaxed) - self.told;
        if lost > 0 {
            page.push_str(&log::lost_line(lost, self.format));
        }
        page.push_str(text);
        let drawn = self.draw_status(&mut page);
        match self.out.write_all(page.as_bytes()) {
            Ok(()) => (self.told, self.drawn, self.torn) = (self.told + lost, drawn, false),
            Err(_) => {
                self.lost.fetch_add(u64::from(!text.is_empty()), Ordering::Relaxed);
                (self.drawn, self.torn) = (0, true);
            }
        }
    }

    /// Appends the status to `page` and returns its number of lines.
    fn draw_status(&self, page: &mut String) -> usize {
        if !self.is_terminal {
            return 0;
        }
        let (rows, columns) = Term::stderr().size();
        // A wrapped line would be two to erase, and lines that have scrolled off cannot be erased.
        let lines = self.status.lines().take(usize::from(rows).saturating_sub(1).max(1));
        lines
            .map(|line| {
                page.push_str(&console::truncate_str(line, usize::from(columns), "…"));
                page.push('\n');
            })
            .count()
    }
}

impl<W: Write> Drop for Pen<W> {
    /// Reports the last lost lines.
    fn drop(&mut self) {
        if self.lost.load(Ordering::Relaxed) > self.told {
            self.write("");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A disk that can be switched to full.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Disk {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }

        fn fill(&self, full: bool) {
            self.0.lock().unwrap().1 = full;
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            if disk.1 {
                return Err(ErrorKind::StorageFull.into());
            }
            disk.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(text: &str) -> Item {
        Item::Line(format!("{text}\n"))
    }

    fn status(text: &str, everywhere: bool) -> Item {
        Item::Status { text: text.to_owned(), everywhere }
    }

    #[test]
    fn lost_lines_are_told_when_the_log_flows_again_and_in_the_end() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (disk, lost) = (Disk::default(), Arc::<AtomicU64>::default());
            let mut pen = Pen::new(disk.clone(), false, format, lost.clone());
            pen.take(line("one"));
            disk.fill(true);
            pen.take(line("two"));
            pen.take(line("three"));
            // A line that found no room in the queue.
            lost.fetch_add(1, Ordering::Relaxed);
            disk.fill(false);
            pen.take(line("four"));
            disk.fill(true);
            pen.take(line("five"));
            disk.fill(false);
            assert_eq!(lost.load(Ordering::Relaxed), 4);
            drop(pen);
            let text = disk.text();
            let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!((lines.len(), lines[0], lines[2]), (4, "one", "four"), "{text}");
            let tells = |line: &str, n: u64| match format {
                LogFormat::Text => line.contains("WARN") && line.contains(&format!("lost={n}")),
                LogFormat::Json => {
                    let event: serde_json::Value = serde_json::from_str(line).unwrap();
                    event["level"] == "WARN" && event["lost"] == n && event["timestamp"].is_string()
                }
            };
            assert!(tells(lines[1], 3) && tells(lines[3], 1), "{text}");
        }
    }

    #[test]
    fn on_a_terminal_the_status_stays_below_the_lines() {
        let disk = Disk::default();
        let mut pen = Pen::new(disk.clone(), true, LogFormat::Text, Arc::default());
        pen.take(status("1 MB\n2 s", false));
        pen.take(line("a line"));
        pen.take(status("", false));
        pen.take(line("another"));
        let up = "\r\x1b[2A\x1b[J";
        assert_eq!(disk.text(), format!("1 MB\n2 s\n{up}a line\n1 MB\n2 s\n{up}another\n"));
    }

    #[test]
    fn elsewhere_a_status_is_a_line_or_nothing() {
        let disk = Disk::default();
        let mut pen = Pen::new(disk.clone(), false, LogFormat::Text, Arc::default());
        pen.take(status("1 MB", false));
        pen.take(status("core 0\n", true));
        assert_eq!(disk.text(), "core 0\n");
    }

    #[test]
    fn a_file_that_never_waits_is_waited_for() {
        let (reader, writer) = io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut out = Patient(File::from(std::os::fd::OwnedFd::from(writer)));
        let bytes = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut all = Vec::new();
                io::Read::read_to_end(&mut { reader }, &mut all).map(|_| all)
            });
            out.write_all(&bytes).unwrap();
            drop(out);
            assert_eq!(reading.join().unwrap().unwrap(), bytes);
        });
    }
}
