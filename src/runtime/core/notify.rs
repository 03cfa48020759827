//! Calling the application.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Core;
use crate::base::time::Instant;
use crate::datapath::Datapath;
use crate::datapath::exchange::Exchange;
use crate::runtime::observe::{Mark, Observe};
use crate::runtime::{App, Context, Unreachable};

/// The maximum number of events per turn. Bounds how long packets wait for a busy application.
const EVENT_BUDGET: usize = 256;

/// The maximum number of further panics tolerated while memory is given back after a panic.
const MORE_PANICS: usize = 1000;

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    pub(super) fn run_app(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        if self.app_failed {
            return self.discard_events();
        }
        let mut count = 0;
        while count < EVENT_BUDGET
            && let Some((id, event)) = self.endpoint.poll_event()
        {
            seen.at(Mark::EventBegins);
            let mut cx = Context::new(now, &mut self.endpoint, &self.net, &mut self.client_ports);
            self.app.on_event(&mut cx, id, event);
            seen.at(Mark::EventEnds);
            count += 1;
        }
        let mut cx = Context::new(now, &mut self.endpoint, &self.net, &mut self.client_ports);
        self.app.on_turn(&mut cx);
        self.stats.events += count as u64;
        count > 0
    }

    pub(super) fn unreachable(&mut self, now: Instant, remote: IpAddr, why: Unreachable) {
        if self.app_failed {
            return;
        }
        let mut cx = Context::new(now, &mut self.endpoint, &self.net, &mut self.client_ports);
        self.app.on_unreachable(&mut cx, remote, why);
    }

    /// Drops all events, and with them the memory that they return.
    #[cold]
    pub(super) fn discard_events(&mut self) -> bool {
        let (mut any, mut panics) = (false, 0);
        while panics < MORE_PANICS {
            // Dropping application memory runs application code, which may panic too; so may application callbacks in
            // the engine when a new connection arrives.
            match catch_unwind(AssertUnwindSafe(|| self.endpoint.poll_event().map(drop))) {
                Ok(Some(())) => any = true,
                Ok(None) => break,
                Err(_) => panics += 1,
            }
        }
        any
    }

    /// Delivers all remaining events to the application.
    pub(super) fn give_back(&mut self) {
        let now = self.clock.now();
        if self.app_failed {
            return;
        }
        // The second pass is for connections that the application opens in response to the closing of others.
        for _ in 0..2 {
            self.endpoint.abandon_all();
            while let Some((id, event)) = self.endpoint.poll_event() {
                let mut cx = Context::new(now, &mut self.endpoint, &self.net, &mut self.client_ports);
                self.app.on_event(&mut cx, id, event);
                self.stats.events += 1;
            }
        }
    }
}
