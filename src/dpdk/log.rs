//! What DPDK logs: collected while something is set up, so that an error can carry the reason, and
//! written to standard error as warnings at all other times.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::limit::Limit;
use crate::base::time::{Duration, Instant};

/// Lines kept of one set-up step.
const KEEP: usize = 64;

struct State {
    /// Steps that collect at the moment.
    captures: usize,
    /// An unfinished line.
    partial: String,
    lines: VecDeque<String>,
    /// How many lines may be written, and how many were not.
    limit: Option<Limit>,
    dropped: u64,
}

/// Lines a second on standard error. Peers make DPDK log, and may come as often as they like.
const LINES: u32 = 20;

static STATE: Mutex<State> =
    Mutex::new(State { captures: 0, partial: String::new(), lines: VecDeque::new(), limit: None, dropped: 0 });

fn state() -> MutexGuard<'static, State> {
    // A poisoned log is still a log.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes over DPDK's log from now on. Without memory for it DPDK keeps its own.
pub(super) fn take_over() {
    // SAFETY: `sink` is a plain function that lives forever and does not unwind.
    unsafe { dpdk_sys::gannet_log_capture(Some(sink)) };
}

/// A line of our own, about what DPDK was kept from.
pub(super) fn tell(line: &str) {
    state().line(line.to_owned());
}

/// Called by DPDK from any of its threads.
unsafe extern "C" fn sink(text: *const c_char, len: usize) {
    if text.is_null() || len == 0 {
        return;
    }
    // SAFETY: the shim passes the buffer of one stdio write, valid for `len` bytes during this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    state().push(&String::from_utf8_lossy(bytes));
}

impl State {
    fn push(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            self.partial.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') || self.partial.len() > 4096 {
                let line = std::mem::take(&mut self.partial);
                self.line(line);
            }
        }
    }

    fn line(&mut self, line: String) {
        if self.captures == 0 {
            if self.may_write(now()) {
                let more = std::mem::take(&mut self.dropped);
                let note = if more > 0 { format!("dpdk: ({more} lines left out)\n") } else { String::new() };
                // Nobody to tell when standard error is gone.
                let _ = writeln!(std::io::stderr(), "{note}dpdk: {line}");
            }
            return;
        }
        if self.lines.len() == KEEP {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

impl State {
    fn may_write(&mut self, now: Instant) -> bool {
        let fine = self.limit.get_or_insert_with(|| Limit::new(LINES, now)).take(now);
        self.dropped += u64::from(!fine);
        fine
    }
}

/// Time since the first call.
fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let passed = START.get_or_init(std::time::Instant::now).elapsed();
    Instant::ZERO + Duration::from_nanos(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
}

/// Collects the log until it is dropped or finished.
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

    /// What was logged so far, in one line for an error message; empty when nothing was.
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

/// Without the name of the C function that logged.
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
        let mut s = State { captures: 1, partial: String::new(), lines: VecDeque::new(), limit: None, dropped: 0 };
        s.push("EAL: one");
        s.push(" line\nEAL: two\n");
        assert_eq!(s.lines, ["EAL: one line", "EAL: two"]);
        for n in 0..2 * KEEP {
            s.push(&format!("{n}\n"));
        }
        assert_eq!(s.lines.len(), KEEP);
        assert_eq!(s.lines.back().map(String::as_str), Some("127"));
    }

    #[test]
    fn peers_cannot_flood_standard_error() {
        let mut s = State { captures: 0, partial: String::new(), lines: VecDeque::new(), limit: None, dropped: 0 };
        let written = (0..1000).filter(|_| s.may_write(Instant::ZERO)).count();
        assert_eq!((written, s.dropped), (LINES as usize, 1000 - u64::from(LINES)));
        assert!(s.may_write(Instant::ZERO + Duration::from_secs(1)));
    }

    #[test]
    fn function_names_are_taken_out() {
        assert_eq!(tidy("memif_socket_create(): NET: bind failed"), "NET: bind failed");
        assert_eq!(tidy("EAL: Cannot open"), "EAL: Cannot open");
        assert_eq!(tidy("rte_pmd_af_packet_probe(): x: y"), "x: y");
    }
}
