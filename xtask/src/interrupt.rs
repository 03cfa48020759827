//! Converts SIGINT, SIGTERM and SIGHUP to an error, so that guards are dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Error, Result};

/// How long a signal may remain unnoticed.
const POLL: Duration = Duration::from_millis(100);

static CAUGHT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Installs the signal handlers. If that fails, signals end the process.
pub fn install() {
    let caught = CAUGHT.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let number = usize::try_from(signal).unwrap_or_default();
        if let Err(error) = signal_hook::flag::register_usize(signal, Arc::clone(caught), number) {
            eprintln!("warning: cannot catch signal {signal}: {error}");
        }
    }
}

/// Checks whether to continue.
///
/// # Errors
/// [`Error::Interrupted`] once a signal has arrived.
pub fn check() -> Result<()> {
    match CAUGHT.get().map_or(0, |caught| caught.load(Ordering::Relaxed)) {
        0 => Ok(()),
        number => Err(Error::Interrupted(i32::try_from(number).unwrap_or(SIGTERM))),
    }
}

/// Waits, unless a signal arrives.
///
/// # Errors
/// If a signal arrives.
pub fn pause(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    loop {
        check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(POLL));
    }
}
