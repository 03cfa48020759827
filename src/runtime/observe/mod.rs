//! Observing a running core: stage timers and live counters.
//!
//! The poll loop is compiled twice, with [`Blind`] and with an [`Observer`], and chooses once per turn. So an
//! unobserved core pays nothing.

mod live;
mod stages;

use std::sync::Arc;

use crate::mem::{cycles, cycles_per_ns};
use crate::runtime::CoreStats;

pub use live::CoreLive;
pub use stages::{Stage, Stages};

/// How often live counters are published, in nanoseconds.
const PUBLISH_EVERY: f64 = 20e6;

/// A point in the poll loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A turn begins.
    TurnBegins,
    /// The device has delivered a burst.
    BurstArrived,
    /// The engine starts to handle so many datagrams.
    RunBegins(usize),
    /// The engine has handled them.
    RunEnds,
    /// The application is about to handle an event.
    EventBegins,
    /// The application has handled the event.
    EventEnds,
    /// The engine is about to build datagrams.
    BuildBegins,
    /// The engine has built this many datagrams.
    BuildEnds(usize),
    /// A frame was queued for the device.
    FrameWaits {
        /// It carries the datagram that the engine has just built.
        of_engine: bool,
    },
    /// This many of the queued frames, the oldest, were handed to the device.
    BurstLeft(usize),
    /// The turn is over.
    TurnEnds {
        /// There was work to do.
        busy: bool,
        /// The only work was to send, and the device's ring is full.
        blocked: bool,
    },
}

/// An observer of the poll loop.
pub(super) trait Observe {
    /// Notes that the loop has reached `mark`.
    fn at(&mut self, mark: Mark);
}

/// An observer that does nothing.
pub(super) struct Blind;

impl Observe for Blind {
    #[inline(always)]
    fn at(&mut self, _: Mark) {}
}

/// Observes a running core. See [`Core::observe`](super::Core::observe).
#[derive(Debug)]
pub struct Observer {
    stages: Option<Box<Stages>>,
    live: Option<Arc<CoreLive>>,
    /// CPU cycles between publications.
    interval: u64,
    published: u64,
    turn_began: u64,
    /// Start of the first turn.
    began: Option<u64>,
    /// Cycles spent in turns with work.
    busy: u64,
    /// In the previous turn the device's ring was full and there was nothing else to do.
    was_blocked: bool,
    /// Cycles from the start of such turns to the start of the next.
    blocked: u64,
}

impl Observer {
    /// Creates an observer that times the stages if `stages` is set and publishes counters in `live`. The first call
    /// takes 20 ms.
    pub fn new(stages: bool, live: Option<Arc<CoreLive>>) -> Self {
        let interval = (PUBLISH_EVERY * cycles_per_ns()) as u64;
        let stages = stages.then(Box::default);
        Self {
            stages,
            live,
            interval,
            published: 0,
            turn_began: 0,
            began: None,
            busy: 0,
            was_blocked: false,
            blocked: 0,
        }
    }

    /// The stage timers.
    pub fn stages(&self) -> Option<&Stages> {
        self.stages.as_deref()
    }

    /// Returns where to publish the counters, if that is due.
    pub(super) fn publishes(&mut self) -> Option<Arc<CoreLive>> {
        let live = self.live.as_ref()?;
        if self.turn_began.wrapping_sub(self.published) < self.interval {
            return None;
        }
        self.published = self.turn_began;
        Some(live.clone())
    }
}

impl Observe for Observer {
    #[inline]
    fn at(&mut self, mark: Mark) {
        match mark {
            Mark::TurnBegins => {
                let now = cycles();
                self.began.get_or_insert(now);
                if self.was_blocked {
                    self.blocked += now.wrapping_sub(self.turn_began);
                }
                self.turn_began = now;
            }
            Mark::TurnEnds { busy, blocked } => {
                self.was_blocked = blocked;
                if busy {
                    self.busy += cycles().wrapping_sub(self.turn_began);
                }
            }
            _ => {}
        }
        if let Some(stages) = &mut self.stages {
            stages.at(mark);
        }
    }
}

/// The loop's counters, including those that only an observed core has.
pub(super) fn counters(
    observer: Option<&Observer>,
    stats: &CoreStats,
) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    let observed = observer.map(|observer| {
        let cycles = observer.began.map_or(0, |began| observer.turn_began.wrapping_sub(began));
        [("core_cycles", cycles), ("core_busy_cycles", observer.busy), ("core_blocked_cycles", observer.blocked)]
    });
    stats.iter().chain(observed.into_iter().flatten())
}
