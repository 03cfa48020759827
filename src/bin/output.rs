//! Output of the commands. A reader that has gone is not a failure; a full disk under standard output is.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::terminal;

/// The first error in writing results.
static PROBLEM: Mutex<Option<io::Error>> = Mutex::new(None);

/// Standard output is used for the contents of a file.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Redirects results to standard error, since standard output takes the contents of a file.
pub fn stdout_is_taken() {
    TAKEN.store(true, Ordering::Relaxed);
}

/// Prints a line of the results and flushes it.
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

/// Prints a line on standard error. Never waits: the line is lost if standard error does not accept it.
pub fn tell(line: &str) {
    terminal::tell(line);
}

/// Takes the first error in writing results, if there was one.
pub fn problem() -> Option<io::Error> {
    PROBLEM.lock().unwrap_or_else(PoisonError::into_inner).take()
}
