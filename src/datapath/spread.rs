//! Received frames that change cores before the engine sees them.
//!
//! To the engine, it looks as if the device had steered them there. Handing a frame over to the core that its
//! connection ID names is a separate step ([`super::exchange`]), and still happens at most once.

use std::os::fd::BorrowedFd;

use super::exchange::{Exchange, Handed};
pub use super::flow::FlowHash;
use super::{BURST, Burst, Caps, Datapath, DatapathStats, Refused, RxFrame, TxFrame};
use crate::base::rng::Rng;

/// Frames for one of the other cores, on their way to its ring.
type Outgoing<F> = Vec<Burst<Handed<F>>>;

fn outgoing<F>(cores: u8) -> Outgoing<F> {
    (0..cores).map(|_| Burst::new()).collect()
}

fn handed<F>(frame: F) -> Handed<F> {
    Handed { frame, tag: None }
}

/// The queue pair of a core in a group that shares a port with a single queue pair: memif, AF_XDP, the NICs of some
/// clouds.
///
/// Core 0, the [`Host`], polls the port, and spreads what it receives by flow. The others are [`Guest`]s: they receive
/// from the host and send through it. So the engines, where the time goes, run on all cores.
pub enum Spread<D: Datapath, G: Datapath, X, Y> {
    /// Core 0.
    Host(Host<D, X, Y>),
    /// Another core.
    Guest(Guest<G, X, Y>),
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    frames: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// The core that polls the port.
pub struct Host<D: Datapath, X, Y> {
    port: D,
    received: X,
    sent: Y,
    hash: FlowHash,
    /// Received but not yet spread.
    arrived: Burst<D::Rx>,
    out: Outgoing<D::Rx>,
    /// From the guests, to be sent.
    taken: Burst<Handed<D::Tx>>,
    tx: Burst<D::Tx>,
    /// Frames that the port counts, and a guest counts as well.
    theirs: [Sum; 2],
    dropped: u64,
    /// Guests that have been given frames and may have to be woken, and whether there are any.
    fed: Box<[bool]>,
    fed_any: bool,
    /// Frames of guests have been sent.
    served: bool,
}

/// A core without a queue of its own.
pub struct Guest<G: Datapath, X, Y> {
    /// Provides frames and knows the port, but neither receives nor sends.
    source: G,
    received: X,
    sent: Y,
    taken: Burst<Handed<G::Rx>>,
    out: Burst<Handed<G::Tx>>,
    stats: DatapathStats,
    /// Frames at the front of a burst that were refused before.
    refused: Refused,
    /// The host has been given frames and may have to be woken.
    fed: bool,
}

impl<D: Datapath, X: Exchange<D::Rx>, Y: Exchange<D::Tx>> Host<D, X, Y> {
    /// Spreads what `port` receives over the cores of `received` by `hash`, and sends what arrives through `sent`. Both
    /// are the ends of core 0.
    pub fn new(port: D, received: X, sent: Y, hash: FlowHash) -> Self {
        let cores = received.cores();
        Self {
            port,
            received,
            sent,
            hash,
            arrived: Burst::new(),
            out: outgoing(cores),
            taken: Burst::new(),
            tx: Burst::new(),
            theirs: Default::default(),
            dropped: 0,
            fed: vec![false; cores.into()].into(),
            fed_any: false,
            served: false,
        }
    }

    fn receive(&mut self, burst: &mut Burst<D::Rx>) -> usize {
        self.send_theirs();
        if self.arrived.is_empty() {
            self.port.rx_burst(&mut self.arrived);
        }
        let (before, cores) = (burst.len(), self.received.cores());
        let mut done = 0;
        // No more than there is room for if all of them are for this core.
        for mut frame in self.arrived.drain(..self.arrived.len().min(BURST - before)) {
            done += 1;
            match self.hash.core(frame.data_mut(), cores) {
                0 => burst.push(frame),
                core => {
                    self.theirs[0].add(frame.data_mut().len());
                    self.out[usize::from(core)].push(handed(frame));
                }
            }
        }
        if done > burst.len() - before {
            self.hand_out();
        }
        burst.len() - before
    }

    /// Frames for which a guest's ring has no room are lost, as they are when a device's ring is full.
    fn hand_out(&mut self) {
        for (core, frames) in (0..).zip(&mut self.out) {
            if !frames.is_empty() {
                if self.received.offer(core, frames) > 0 {
                    (self.fed[usize::from(core)], self.fed_any) = (true, true);
                }
                for Handed { mut frame, .. } in frames.drain(..) {
                    self.dropped += 1;
                    // The port has received it, and no guest will count it.
                    self.theirs[0].frames -= 1;
                    self.theirs[0].bytes -= frame.data_mut().len() as u64;
                }
            }
        }
    }

    /// Sends what the guests have built. Frames that the port does not take wait here.
    fn send_theirs(&mut self) {
        if self.tx.is_empty() {
            self.sent.take(&mut self.taken);
            self.tx.extend(self.taken.drain(..).map(|handed| handed.frame));
            if self.tx.is_empty() {
                return;
            }
        }
        let lengths: Burst<usize> = self.tx.iter().map(|frame| frame.data().len()).collect();
        let sent = self.port.tx_burst(&mut self.tx);
        self.served |= sent > 0;
        for bytes in &lengths[..sent] {
            self.theirs[1].add(*bytes);
        }
    }

    /// Whether frames wait here for the next turn.
    fn holds_frames(&self) -> bool {
        !self.arrived.is_empty() || !self.tx.is_empty()
    }

    fn passed_on(&mut self, mut wake: impl FnMut(u8)) -> bool {
        let served = std::mem::take(&mut self.served);
        if !std::mem::take(&mut self.fed_any) {
            return served;
        }
        for (core, fed) in (0..).zip(&mut self.fed) {
            if std::mem::take(fed) {
                wake(core);
            }
        }
        true
    }

    fn stats(&self) -> DatapathStats {
        let mut stats = self.port.stats();
        let [rx, tx] = self.theirs;
        stats.rx_frames -= rx.frames;
        stats.rx_bytes -= rx.bytes;
        stats.tx_frames -= tx.frames;
        stats.tx_bytes -= tx.bytes;
        stats.spread_full = self.dropped;
        stats
    }
}

impl<G: Datapath, X: Exchange<G::Rx>, Y: Exchange<G::Tx>> Guest<G, X, Y> {
    /// Receives through `received` and sends through `sent`, which are the ends of this core. `source` provides frames
    /// to send and describes the host's port; it neither receives nor sends.
    pub fn new(source: G, received: X, sent: Y) -> Self {
        Self {
            source,
            received,
            sent,
            taken: Burst::new(),
            out: Burst::new(),
            stats: DatapathStats::default(),
            refused: Refused::default(),
            fed: false,
        }
    }

    fn receive(&mut self, burst: &mut Burst<G::Rx>) -> usize {
        let room = burst.remaining_capacity();
        if self.taken.is_empty() && self.received.take(&mut self.taken) == 0 {
            return 0;
        }
        let got = self.taken.len().min(room);
        for Handed { mut frame, .. } in self.taken.drain(..got) {
            frame.prefetch();
            self.stats.rx_bytes += frame.data_mut().len() as u64;
            burst.push(frame);
        }
        self.stats.rx_frames += got as u64;
        got
    }

    fn send(&mut self, burst: &mut Burst<G::Tx>) -> usize {
        let len = burst.len();
        if len == 0 {
            return 0;
        }
        let lengths: Burst<usize> = burst.iter().map(|frame| frame.data().len()).collect();
        self.out.extend(burst.drain(..).map(handed));
        let sent = self.sent.offer(0, &mut self.out);
        burst.extend(self.out.drain(..).map(|handed| handed.frame));
        self.fed |= sent > 0;
        self.stats.tx_frames += sent as u64;
        self.stats.tx_bytes += lengths[..sent].iter().sum::<usize>() as u64;
        if sent < len || self.refused.any() {
            self.stats.tx_full += self.refused.count(sent, len - sent);
        }
        sent
    }

    fn stats(&self) -> DatapathStats {
        let DatapathStats { tx_no_frame, .. } = self.source.stats();
        DatapathStats { tx_no_frame, ..self.stats }
    }
}

impl<D, G, X, Y> Datapath for Spread<D, G, X, Y>
where
    D: Datapath,
    G: Datapath<Rx = D::Rx, Tx = D::Tx>,
    X: Exchange<D::Rx>,
    Y: Exchange<D::Tx>,
{
    type Rx = D::Rx;
    type Tx = D::Tx;

    fn caps(&self) -> Caps {
        match self {
            Self::Host(host) => host.port.caps(),
            Self::Guest(guest) => guest.source.caps(),
        }
    }

    fn link_up(&mut self) -> bool {
        match self {
            Self::Host(host) => host.port.link_up(),
            Self::Guest(guest) => guest.source.link_up(),
        }
    }

    fn link_problem(&self) -> Option<String> {
        match self {
            Self::Host(host) => host.port.link_problem(),
            Self::Guest(guest) => guest.source.link_problem(),
        }
    }

    fn removed(&self) -> Option<String> {
        match self {
            Self::Host(host) => host.port.removed(),
            Self::Guest(guest) => guest.source.removed(),
        }
    }

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        if let Self::Host(host) = self {
            host.port.set_multicast(groups);
        }
    }

    fn arm(&mut self) -> bool {
        match self {
            Self::Host(host) => host.port.arm(),
            // What a guest waits for comes from the host.
            Self::Guest(_) => true,
        }
    }

    fn wake_file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Host(host) => host.port.wake_file(),
            Self::Guest(_) => None,
        }
    }

    fn disarm(&mut self) {
        if let Self::Host(host) = self {
            host.port.disarm();
        }
    }

    fn wakes(&self, armed: bool, called: bool) -> bool {
        // If nobody calls, both sleep only briefly.
        called
            && match self {
                Self::Host(host) => host.port.wakes(armed, called) && !host.holds_frames(),
                Self::Guest(_) => armed,
            }
    }

    fn is_needed(&self, ended: bool) -> bool {
        match self {
            // A guest's last frames, which close its connections, are in a ring until the next poll.
            Self::Host(host) => !ended || host.holds_frames(),
            Self::Guest(_) => false,
        }
    }

    fn passed_on(&mut self, mut wake: impl FnMut(u8)) -> bool {
        match self {
            Self::Host(host) => host.passed_on(wake),
            Self::Guest(guest) => {
                if std::mem::take(&mut guest.fed) {
                    wake(0);
                }
                // The host sends it.
                false
            }
        }
    }

    fn rx_burst(&mut self, burst: &mut Burst<D::Rx>) -> usize {
        match self {
            Self::Host(host) => host.receive(burst),
            Self::Guest(guest) => guest.receive(burst),
        }
    }

    fn release(&mut self, burst: &mut Burst<D::Rx>) {
        match self {
            Self::Host(host) => host.port.release(burst),
            Self::Guest(guest) => guest.source.release(burst),
        }
    }

    fn tx_alloc(&mut self) -> Option<D::Tx> {
        match self {
            Self::Host(host) => host.port.tx_alloc(),
            Self::Guest(guest) => guest.source.tx_alloc(),
        }
    }

    fn tx_burst(&mut self, burst: &mut Burst<D::Tx>) -> usize {
        match self {
            Self::Host(host) => host.port.tx_burst(burst),
            Self::Guest(guest) => guest.send(burst),
        }
    }

    fn stats(&self) -> DatapathStats {
        match self {
            Self::Host(host) => host.stats(),
            Self::Guest(guest) => guest.stats(),
        }
    }
}

/// A queue pair whose received frames go to a random core first: the worst that a device's steering could do. For
/// tests: whichever core a frame reaches, it must find its connection.
pub struct Scatter<D: Datapath, X> {
    port: D,
    others: X,
    core: u8,
    rng: Rng,
    arrived: Burst<D::Rx>,
    out: Outgoing<D::Rx>,
    taken: Burst<Handed<D::Rx>>,
    /// Frames that went to another core.
    scattered: u64,
}

impl<D: Datapath, X: Exchange<D::Rx>> Scatter<D, X> {
    /// Scatters what `port`, the queue pair of `core`, receives over the cores of `others`.
    pub fn new(port: D, others: X, core: u8, rng: Rng) -> Self {
        let out = outgoing(others.cores());
        Self { port, others, core, rng, arrived: Burst::new(), out, taken: Burst::new(), scattered: 0 }
    }

    /// Frames that went to another core.
    pub fn scattered(&self) -> u64 {
        self.scattered
    }

    /// The underlying queue pair.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.port
    }

    /// Takes frames that others have sent here: at most `most`, and no more than there is room for.
    fn take(&mut self, burst: &mut Burst<D::Rx>, most: usize) {
        if self.taken.is_empty() {
            self.others.take(&mut self.taken);
        }
        let fit = self.taken.len().min(burst.remaining_capacity()).min(most);
        burst.extend(self.taken.drain(..fit).map(|handed| handed.frame));
    }
}

impl<D: Datapath, X: Exchange<D::Rx>> Datapath for Scatter<D, X> {
    type Rx = D::Rx;
    type Tx = D::Tx;

    fn caps(&self) -> Caps {
        self.port.caps()
    }

    fn link_up(&mut self) -> bool {
        self.port.link_up()
    }

    fn link_problem(&self) -> Option<String> {
        self.port.link_problem()
    }

    fn removed(&self) -> Option<String> {
        self.port.removed()
    }

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        self.port.set_multicast(groups);
    }

    fn rx_burst(&mut self, burst: &mut Burst<D::Rx>) -> usize {
        let before = burst.len();
        // At most half a burst, so that the port is not neglected.
        self.take(burst, BURST / 2);
        if self.arrived.is_empty() {
            self.port.rx_burst(&mut self.arrived);
        }
        let fit = self.arrived.len().min(burst.remaining_capacity());
        for frame in self.arrived.drain(..fit) {
            let to = self.rng.below(self.out.len() as u64) as u8;
            if to == self.core {
                burst.push(frame);
            } else {
                self.out[usize::from(to)].push(handed(frame));
            }
        }
        for (core, frames) in (0..).zip(&mut self.out) {
            if !frames.is_empty() {
                self.scattered += self.others.offer(core, frames) as u64;
                // A full ring loses nothing here: the frames stay on this core.
                burst.extend(frames.drain(..).map(|handed| handed.frame));
            }
        }
        self.take(burst, BURST);
        burst.len() - before
    }

    fn release(&mut self, burst: &mut Burst<D::Rx>) {
        self.port.release(burst);
    }

    fn tx_alloc(&mut self) -> Option<D::Tx> {
        self.port.tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<D::Tx>) -> usize {
        self.port.tx_burst(burst)
    }

    fn stats(&self) -> DatapathStats {
        self.port.stats()
    }
}

#[cfg(test)]
mod tests;
