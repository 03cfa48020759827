//! DPDK's log: collected during set-up, so that errors can carry the reason, and otherwise forwarded at level `info`,
//! as peers can make DPDK log and DPDK does not report the severity.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::limit::{LeftOut, Lines};
use crate::base::printable::Printable;
use crate::base::time::{Duration, Instant};

/// The maximum number of lines kept for a set-up step.
const KEEP: usize = 64;

struct State {
    /// The number of steps that are collecting.
    captures: usize,
    /// An unfinished line.
    partial: String,
    lines: VecDeque<String>,
    /// Limits forwarded lines.
    limit: Lines,
}

/// The maximum number of forwarded lines per second, as peers can make DPDK log as often as they like.
const LINES: u32 = 20;

impl State {
    const fn new(captures: usize) -> Self {
        Self { captures, partial: String::new(), lines: VecDeque::new(), limit: Lines::new(LINES) }
    }
}

static STATE: Mutex<State> = Mutex::new(State::new(0));

fn state() -> MutexGuard<'static, State> {
    // A poisoned log is still usable.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes over DPDK's log. If there is no memory for that, DPDK keeps its own.
pub(super) fn take_over() {
    // SAFETY: `sink` is a plain function that lives forever and does not unwind.
    unsafe { dpdk_sys::gannet_log_capture(Some(sink)) };
}

/// Logs a line of our own, about something that was kept from DPDK.
pub(super) fn tell(line: &str) {
    let told = state().line(line.to_owned());
    told.into_iter().for_each(Told::tell);
}

/// A line to be forwarded once the log is unlocked, as the subscriber may be slow.
struct Told(String, LeftOut);

impl Told {
    fn tell(self) {
        tracing::info!(left_out = self.1.count(), "{}", Printable(self.0));
    }
}

/// Called by DPDK from any of its threads.
unsafe extern "C" fn sink(text: *const c_char, len: usize) {
    if text.is_null() || len == 0 {
        return;
    }
    // SAFETY: the shim passes the buffer of one stdio write, valid for `len` bytes during this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let told = state().push(&String::from_utf8_lossy(bytes));
    told.into_iter().for_each(Told::tell);
}

impl State {
    /// Adds `text`, and returns the lines that it completes and that are to be forwarded.
    fn push(&mut self, text: &str) -> Vec<Told> {
        let mut told = Vec::new();
        for piece in text.split_inclusive('\n') {
            self.partial.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') || self.partial.len() > 4096 {
                let line = std::mem::take(&mut self.partial);
                told.extend(self.line(line));
            }
        }
        told
    }

    fn line(&mut self, line: String) -> Option<Told> {
        if self.captures == 0 {
            return self.limit.take(now()).map(|left_out| Told(line, left_out));
        }
        if self.lines.len() == KEEP {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        None
    }
}

/// The time since the first call.
fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let passed = START.get_or_init(std::time::Instant::now).elapsed();
    Instant::ZERO + Duration::from_nanos(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
}

/// Collects the log until dropped or finished.
pub(super) struct Capture(());

impl Capture {
    pub(super) fn start() -> Self {
        let mut state = state();
        if state.captures == 0 {
            state.lines.clear();
        }
        state.captures += 1;
        Self(())
    }

    /// The log so far, as one line for an error message; empty if nothing was logged.
    pub(super) fn summary(&self) -> String {
        let lines: Vec<String> = state().lines.iter().map(|l| tidy(l).to_owned()).collect();
        lines.join("; ")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        state().captures -= 1;
    }
}

/// Strips the name of the C function that logged the line.
fn tidy(line: &str) -> &str {
    match line.split_once("(): ") {
        Some((head, rest)) if head.chars().all(|c| c.is_ascii_alphanumeric() || "_: ".contains(c)) => rest.trim(),
        _ => line.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_bounded() {
        let mut s = State::new(1);
        let told = s.push("EAL: one").len() + s.push(" line\nEAL: two\n").len();
        assert_eq!(told, 0, "kept for the error");
        assert_eq!(s.lines, ["EAL: one line", "EAL: two"]);
        for n in 0..2 * KEEP {
            drop(s.push(&format!("{n}\n")));
        }
        assert_eq!(s.lines.len(), KEEP);
        assert_eq!(s.lines.back().map(String::as_str), Some("127"));
    }

    #[test]
    fn peers_cannot_flood_the_log() {
        let mut s = State::new(0);
        let told: usize = (0..1000).map(|_| s.push("memif: a stranger\n").len()).sum();
        // More if seconds have passed.
        assert!((LINES as usize..500).contains(&told), "{told}");
    }

    #[test]
    fn function_names_are_taken_out() {
        assert_eq!(tidy("memif_socket_create(): NET: bind failed"), "NET: bind failed");
        assert_eq!(tidy("EAL: Cannot open"), "EAL: Cannot open");
        assert_eq!(tidy("rte_pmd_af_packet_probe(): x: y"), "x: y");
    }
}
