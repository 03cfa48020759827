//! What the commands print. A reader that has gone is no reason to fail; a full disk under standard output is.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::terminal;

/// Why results did not get out.
static PROBLEM: Mutex<Option<io::Error>> = Mutex::new(None);

/// Standard output is for something else.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// From now on results go to standard error, since standard output takes a file's bytes.
pub fn stdout_is_taken() {
    TAKEN.store(true, Ordering::Relaxed);
}

/// Prints a line of the results, for whoever waits for it at the other end of a pipe.
pub fn say(line: &str) {
    print(&format!("{line}\n"));
}

/// Prints results.
pub fn print(text: &str) {
    if TAKEN.load(Ordering::Relaxed) {
        return tell(text.trim_end_matches('\n'));
    }
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        PROBLEM.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Prints a line on standard error, if it takes it. Never waits.
pub fn tell(line: &str) {
    terminal::tell(line);
}

/// Why results did not get out, if there is a reason that its user has to know of.
pub fn problem() -> Option<io::Error> {
    PROBLEM.lock().unwrap_or_else(PoisonError::into_inner).take()
}
