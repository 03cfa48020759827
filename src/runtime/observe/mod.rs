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

/// What the poll loop tells of itself. Whoever does not listen costs nothing.
pub(super) trait Observe {
    /// A turn begins.
    #[inline]
    fn turn_begins(&mut self) {}
    /// The device has handed over a burst.
    #[inline]
    fn burst_arrived(&mut self) {}
    /// The engine is given a datagram.
    #[inline]
    fn datagram_begins(&mut self) {}
    /// The engine is done with it.
    #[inline]
    fn datagram_ends(&mut self) {}
    /// The application is given an event.
    #[inline]
    fn event_begins(&mut self) {}
    /// It is done with it.
    #[inline]
    fn event_ends(&mut self) {}
    /// The engine is asked for a datagram.
    #[inline]
    fn build_begins(&mut self) {}
    /// It made one.
    #[inline]
    fn build_ends(&mut self) {}
    /// A frame joins those that wait for the device; it may be the datagram that was just made.
    #[inline]
    fn frame_waits(&mut self, of_engine: bool) {
        let _ = of_engine;
    }
    /// `frames` were handed to the device, the first ones that wait.
    #[inline]
    fn burst_left(&mut self, frames: usize) {
        let _ = frames;
    }
    /// The turn is over.
    #[inline]
    fn turn_ends(&mut self, busy: bool) {
        let _ = busy;
    }
}

/// Looks at nothing.
pub(super) struct Blind;

impl Observe for Blind {}

/// Looks on while a core works. See [`Core::observe`](super::Core::observe).
#[derive(Debug)]
pub struct Observer {
    stages: Option<Box<Stages>>,
    live: Option<Arc<CoreLive>>,
    /// Cycles between two times that counters are published.
    interval: u64,
    published: u64,
    turn_began: u64,
    /// Cycles of turns that had something to do.
    busy: u64,
}

impl Observer {
    /// Times the stages if `stages`, and publishes counters in `live`. Takes 20 ms the first time.
    pub fn new(stages: bool, live: Option<Arc<CoreLive>>) -> Self {
        let interval = (PUBLISH_EVERY * cycles_per_ns()) as u64;
        let stages = stages.then(Box::default);
        Self { stages, live, interval, published: 0, turn_began: 0, busy: 0 }
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
    fn turn_begins(&mut self) {
        self.turn_began = cycles();
    }

    fn burst_arrived(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.burst_arrived();
        }
    }

    fn datagram_begins(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.datagram_begins();
        }
    }

    fn datagram_ends(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.datagram_ends();
        }
    }

    fn event_begins(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.event_begins();
        }
    }

    fn event_ends(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.event_ends();
        }
    }

    fn build_begins(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.build_begins();
        }
    }

    fn build_ends(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.build_ends();
        }
    }

    fn frame_waits(&mut self, of_engine: bool) {
        if let Some(stages) = &mut self.stages {
            stages.frame_waits(of_engine);
        }
    }

    fn burst_left(&mut self, frames: usize) {
        if let Some(stages) = &mut self.stages {
            stages.burst_left(frames);
        }
    }

    fn turn_ends(&mut self, busy: bool) {
        if busy {
            self.busy += cycles().wrapping_sub(self.turn_began);
        }
        if let Some(stages) = &mut self.stages {
            stages.turn_ends();
        }
    }
}

/// The loop's counters, with those that only an observed core has.
pub(super) fn counters(
    observer: Option<&Observer>,
    stats: &CoreStats,
) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    stats.iter().chain(observer.map(|observer| ("core_busy_cycles", observer.busy)))
}
