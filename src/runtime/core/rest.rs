//! What a core does when it is idle.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Core;
use crate::base::time::Duration;
use crate::datapath::Datapath;
use crate::datapath::exchange::Exchange;
use crate::runtime::App;
use crate::runtime::idle::{self, Precise, SETTLE, SHORT, Step, Woken};

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    /// Prepares the core for sleeping, if it ever sleeps, until the returned guard is dropped.
    pub(super) fn prepare_rest(&mut self) -> Option<Precise> {
        self.rest.may_sleep().then(|| {
            self.waker = self.app.waker().unwrap_or_default();
            self.waker.prepare();
            if let Some(notes) = &self.seat.notes {
                notes.woken_by(&self.waker);
            }
            Precise::new()
        })
    }

    /// Polls on, yields or sleeps, after a turn without work.
    pub(super) fn rest(&mut self, stop: &AtomicBool) {
        let clock = &self.clock;
        match self.rest.step(|| clock.now()) {
            Step::Poll => std::hint::spin_loop(),
            Step::Yield => {
                let start = self.clock.now();
                std::thread::yield_now();
                self.rest.yielded(start, self.clock.now());
            }
            Step::Sleep => self.sleep(stop),
        }
    }

    /// Arms the wake-ups, polls once more, and sleeps.
    fn sleep(&mut self, stop: &AtomicBool) {
        self.waker.fall_asleep();
        let armed = self.datapath.arm();
        // Frames that arrived before wake-ups were armed have woken nobody.
        let start = self.clock.now();
        let mut busy = false;
        while !busy && (self.clock.now().saturating_since(start) < SETTLE) {
            busy = self.turn() || self.is_over() || stop.load(Ordering::Relaxed);
        }
        if busy {
            self.rest.busy();
            self.datapath.disarm();
            self.waker.awake();
            return;
        }
        let start = self.clock.now();
        let wakes = self.datapath.wakes(armed, self.is_called());
        let time = self.sleep_time(wakes);
        let woken = idle::sleep(self.datapath.wake_file(), &self.waker, time);
        self.datapath.disarm();
        self.waker.awake();
        self.stats.sleeps += 1;
        self.rest.slept(self.clock.now().saturating_since(start));
        if woken == Woken::Time && wakes && time == idle::LONGEST {
            // Frames that have arrived by now should have woken the core.
            let before = self.stats.rx_bursts;
            self.turn();
            self.stats.late_wakeups += self.stats.rx_bursts - before;
        }
    }

    /// Whether other cores can wake this one. Its waker may lack a file.
    pub(super) fn is_called(&self) -> bool {
        self.seat.notes.is_some() && self.waker.file().is_some()
    }

    /// Wakes cores to which the queue pair has passed frames. Returns whether there was work for other cores.
    #[inline]
    pub(super) fn call_others(&mut self) -> bool {
        let notes = self.seat.notes.as_ref();
        self.datapath.passed_on(|core| notes.into_iter().for_each(|notes| notes.wake(core)))
    }

    /// How long the core may sleep.
    fn sleep_time(&mut self, wakes: bool) -> Duration {
        let up = self.datapath.link_up();
        // Without a link nothing comes and nothing can leave.
        let looks = if up && (!wakes || !self.tx.is_empty()) { SHORT } else { idle::LONGEST };
        let now = self.clock.now();
        self.next_timeout().map_or(looks, |at| at.saturating_since(now).min(looks))
    }
}
