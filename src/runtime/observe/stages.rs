//! Timers of the stages that a packet passes through.

use arrayvec::ArrayVec;

use crate::crypto::take_spent;
use crate::datapath::BURST;
use crate::mem::{cycles, cycles_per_ns};
use crate::report::Latency;
use crate::runtime::observe::Mark;

/// A stage in the processing of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// From the arrival of the burst to the start of the engine's work on the datagram: the packets before it, and the
    /// network layer.
    Wait,
    /// Verifying the tag.
    Verify,
    /// Decrypting frame headers, and stream bytes to their final place.
    Place,
    /// The engine's remaining work on a received datagram.
    Engine,
    /// From the arrival of the burst to the delivery of an event to the application.
    Event,
    /// The application's handling of an event.
    App,
    /// Building a datagram, except encryption.
    Build,
    /// Encrypting it, including the tag.
    Seal,
    /// From the end of building a datagram to its acceptance by the device.
    Tx,
}

impl Stage {
    /// All stages with their names, in the order in which a packet passes them.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Wait, "nic_to_engine"),
        (Self::Verify, "aead_verify"),
        (Self::Place, "placement"),
        (Self::Engine, "engine"),
        (Self::Event, "event"),
        (Self::App, "app"),
        (Self::Build, "build"),
        (Self::Seal, "seal"),
        (Self::Tx, "tx"),
    ];
}

/// A histogram of each stage, in nanoseconds. The figures include the 10 to 20 ns that reading the clock takes.
#[derive(Clone, Debug)]
pub struct Stages {
    histograms: [Latency; Stage::ALL.len()],
    ns_per_cycle: f64,
    /// When the current burst arrived; 0 if there was none in this turn.
    arrived: u64,
    /// When the stage being timed began.
    began: u64,
    /// The number of datagrams that the engine is handling.
    run: u64,
    /// When the queued frames were built, oldest first; 0 for frames of the network layer.
    waiting: ArrayVec<u64, BURST>,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            histograms: std::array::from_fn(|_| Latency::new()),
            ns_per_cycle: 1.0 / cycles_per_ns(),
            arrived: 0,
            began: 0,
            run: 0,
            waiting: ArrayVec::new(),
        }
    }
}

impl Stages {
    /// The histogram of `stage`.
    pub fn latency(&self, stage: Stage) -> &Latency {
        &self.histograms[stage as usize]
    }

    fn record(&mut self, stage: Stage, cycles: u64) {
        self.histograms[stage as usize].record((cycles as f64 * self.ns_per_cycle) as u64);
    }

    pub(super) fn at(&mut self, mark: Mark) {
        match mark {
            Mark::TurnBegins => self.arrived = 0,
            Mark::BurstArrived => self.arrived = cycles(),
            Mark::RunBegins(datagrams) => self.run_begins(datagrams),
            Mark::RunEnds => self.run_ends(),
            Mark::EventBegins => self.event_begins(),
            Mark::EventEnds => self.record(Stage::App, cycles().wrapping_sub(self.began)),
            Mark::BuildBegins => {
                take_spent();
                self.began = cycles();
            }
            Mark::BuildEnds(datagrams) => self.build_ends(datagrams),
            // This list has as much room as the burst that is queued.
            Mark::FrameWaits { of_engine } => {
                let _ = self.waiting.try_push(if of_engine { cycles() } else { 0 });
            }
            Mark::BurstLeft(frames) => self.burst_left(frames),
            Mark::TurnEnds { .. } => {}
        }
    }

    fn run_begins(&mut self, datagrams: usize) {
        take_spent();
        self.run = datagrams as u64;
        self.began = cycles();
        self.record_each(Stage::Wait, self.began.wrapping_sub(self.arrived) * self.run);
        // Exclude the cost of recording.
        self.began = cycles();
    }

    fn run_ends(&mut self) {
        let took = cycles().wrapping_sub(self.began);
        let spent = take_spent();
        if spent.verify > 0 {
            self.record_each(Stage::Verify, spent.verify);
        }
        if spent.place > 0 {
            self.record_each(Stage::Place, spent.place);
        }
        // A handshake's answer may have been sealed already.
        self.record_each(Stage::Engine, took.saturating_sub(spent.verify + spent.place + spent.seal));
    }

    /// Divides `cycles` equally among the datagrams of the run.
    fn record_each(&mut self, stage: Stage, cycles: u64) {
        for _ in 0..self.run {
            self.record(stage, cycles / self.run);
        }
    }

    fn event_begins(&mut self) {
        self.began = cycles();
        // Timers and the application itself cause events too.
        if self.arrived != 0 {
            self.record(Stage::Event, self.began.wrapping_sub(self.arrived));
            self.began = cycles();
        }
    }

    fn build_ends(&mut self, datagrams: usize) {
        let now = cycles();
        let spent = take_spent();
        self.run = datagrams as u64;
        self.record_each(Stage::Build, now.wrapping_sub(self.began).saturating_sub(spent.seal));
        if spent.seal > 0 {
            self.record_each(Stage::Seal, spent.seal);
        }
    }

    fn burst_left(&mut self, frames: usize) {
        let now = cycles();
        let mut waiting = std::mem::take(&mut self.waiting);
        for built in waiting.drain(..frames.min(waiting.len())).filter(|built| *built != 0) {
            self.record(Stage::Tx, now.wrapping_sub(built));
        }
        self.waiting = waiting;
    }
}
