//! Looking on while a core works: stage timers and live counters.
//!
//! The poll loop is compiled twice, with [`Blind`] and with an [`Observer`]; which of the two runs is decided once a
//! turn. So nobody pays for what nobody looks at.

mod live;
mod stages;

use std::sync::Arc;

use crate::mem::{cycles, cycles_per_ns};
use crate::runtime::CoreStats;

pub use live::CoreLive;
pub use stages::{Stage, Stages};

/// How often live counters are published, in nanoseconds.
const PUBLISH_EVERY: f64 = 20e6;

/// Where the poll loop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A turn begins.
    TurnBegins,
    /// The device has handed over a burst.
    BurstArrived,
    /// The engine is given a datagram.
    DatagramBegins,
    /// The engine is done with it.
    DatagramEnds,
    /// The application is given an event.
    EventBegins,
    /// It is done with it.
    EventEnds,
    /// The engine is asked for a datagram.
    BuildBegins,
    /// It made one.
    BuildEnds,
    /// A frame joins those that wait for the device; it may be the datagram that was just made.
    FrameWaits {
        /// It is.
        of_engine: bool,
    },
    /// So many frames were handed to the device, the first ones that wait.
    BurstLeft(usize),
    /// The turn is over.
    TurnEnds {
        /// There was something to do.
        busy: bool,
        /// There was, but the device's ring is full.
        blocked: bool,
    },
}

/// What the poll loop tells where it is. Whoever does not listen costs nothing.
pub(super) trait Observe {
    /// The loop is at `mark`.
    fn at(&mut self, mark: Mark);
}

/// Looks at nothing.
pub(super) struct Blind;

impl Observe for Blind {
    #[inline(always)]
    fn at(&mut self, _: Mark) {}
}

/// Looks on while a core works. See [`Core::observe`](super::Core::observe).
#[derive(Debug)]
pub struct Observer {
    stages: Option<Box<Stages>>,
    live: Option<Arc<CoreLive>>,
    /// Cycles between two times that counters are published.
    interval: u64,
    published: u64,
    turn_began: u64,
    /// When the first turn began.
    began: Option<u64>,
    /// Cycles of turns that had something to do.
    busy: u64,
    /// The turn before found the device's ring full, and nothing else to do.
    was_blocked: bool,
    /// Cycles from the beginning of such turns to that of the next.
    blocked: u64,
}

impl Observer {
    /// Times the stages if `stages`, and publishes counters in `live`. Takes 20 ms the first time.
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

    /// Where to publish the counters, if that is due.
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

/// The loop's counters, with those that only an observed core has.
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
