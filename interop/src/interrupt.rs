//! Converts SIGINT, SIGTERM and SIGHUP to an error, so that processes are ended and namespaces removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::Result;

static CAUGHT: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs the signal handlers.
///
/// # Errors
/// If the system refuses.
pub fn install() -> Result<()> {
    let caught = CAUGHT.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(caught))?;
    }
    Ok(())
}

/// Whether a signal has arrived.
pub fn arrived() -> bool {
    CAUGHT.get().is_some_and(|caught| caught.load(Ordering::Relaxed))
}

/// Checks whether to continue.
///
/// # Errors
/// Once a signal has arrived.
pub fn check() -> Result<()> {
    if arrived() { Err("stopped by a signal".into()) } else { Ok(()) }
}
