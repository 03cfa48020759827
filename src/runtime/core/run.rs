//! Running a core, from its first turn to its end.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Core, RunError};
use crate::base::time::{Duration, Instant};
use crate::datapath::Datapath;
use crate::datapath::exchange::Exchange;
use crate::runtime::App;

/// How long a stopping core waits for its last packets to be sent.
const LINGER: Duration = Duration::from_millis(500);

/// How long a core that has nothing else to do waits for connections that it has closed. They would answer late packets
/// for three probe timeouts (RFC 9000 §10.2), in case the CONNECTION_CLOSE frame was lost; nobody waits that long for a
/// program to end.
pub(super) const CLOSING: Duration = Duration::from_secs(1);

/// The number of turns between two looks at the link while the core is busy.
const BUSY_LOOK: u64 = 256;

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    /// Polls until `stop` is set or the application is done, then closes the remaining connections. On return, for
    /// whatever reason, the application has received `Closed` for every connection and has all its memory back. The
    /// last call is [`App::on_end`].
    ///
    /// # Errors
    /// [`RunError`] if the link is down for too long, the port is gone, or the last address is lost to another station.
    ///
    /// # Panics
    /// Resumes a panic of the application. All connections are closed with INTERNAL_ERROR first (RFC 9000 §20.1), which
    /// tells peers not to wait for answers, and the memory that they hold is released. The application is notified only
    /// by [`App::on_end`].
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        // State that a panic left inconsistent is not used further: connections are closed and memory is given back.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let outcome = self.poll(stop);
            self.shut_down();
            outcome
        }));
        if ran.is_err() {
            // The first panic is the one to report.
            let _ = catch_unwind(AssertUnwindSafe(|| self.shut_down_after_panic()));
        }
        let ended = catch_unwind(AssertUnwindSafe(|| self.app.on_end()));
        let outcome = ran.unwrap_or_else(|panic| resume_unwind(panic));
        ended.unwrap_or_else(|panic| resume_unwind(panic));
        outcome
    }

    fn poll(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        self.await_link(stop)?;
        self.await_addresses(stop)?;
        let _precise = self.prepare_rest();
        while !stop.load(Ordering::Relaxed) && !self.is_over() {
            if self.turn() {
                self.rest.busy();
                // Otherwise only idle turns look.
                if self.stats.turns.is_multiple_of(BUSY_LOOK) {
                    self.look_at_link()?;
                }
                continue;
            }
            self.check_link()?;
            self.check_addresses()?;
            self.rest(stop);
        }
        Ok(())
    }

    /// Whether there is nothing more to do: not here, and not on any other core of the group, for which frames may still
    /// arrive here.
    pub(super) fn is_over(&mut self) -> bool {
        let over = (self.app.is_done() || self.draining) && self.is_alone(None);
        self.seat.notes.as_ref().map_or(over, |notes| notes.all_over(over))
    }

    /// Whether there are no connections left to wait for. Those that were closed long enough ago are given up.
    /// The time is read if `now` is not given.
    pub(super) fn is_alone(&mut self, now: Option<Instant>) -> bool {
        let count = self.endpoint.connection_count();
        if count == self.endpoint.draining_count() {
            self.closing = None;
            return true;
        }
        if count > self.endpoint.ended_count() {
            self.closing = None;
            return false;
        }
        let now = now.unwrap_or_else(|| self.clock.now());
        if now.saturating_since(*self.closing.get_or_insert(now)) >= CLOSING {
            self.endpoint.abandon_all();
        }
        false
    }

    /// Closes every connection and sends the last packets.
    fn shut_down(&mut self) {
        let start = self.clock.now();
        self.endpoint.close_all(0, "shutting down");
        self.linger(start);
        self.give_back();
    }

    /// Runs until two successive turns had nothing to send, and all cores that send through this one have ended, for at
    /// most [`LINGER`], but at least one turn, however late it is.
    fn linger(&mut self, start: Instant) {
        let mut quiet = 0;
        loop {
            let ended = self.seat.notes.as_ref().is_none_or(|notes| notes.others_rest());
            let busy = self.turn() || !self.tx.is_empty();
            let needed = self.datapath.is_needed(ended);
            quiet = if busy || needed { 0 } else { quiet + 1 };
            if needed && !busy {
                // The cores that it waits for may need this CPU.
                std::thread::yield_now();
            }
            if quiet == 2 || self.clock.now().saturating_since(start) >= LINGER {
                return;
            }
        }
    }

    /// Like `shut_down`, without calling the application, which has panicked.
    #[cold]
    fn shut_down_after_panic(&mut self) {
        self.app_failed = true;
        let start = self.clock.now();
        tracing::error!(connections = self.endpoint.connection_count(), "the application has panicked: closing");
        self.endpoint.fail_all("the application failed");
        self.linger(start);
        self.endpoint.abandon_all();
        self.discard_events();
    }
}
