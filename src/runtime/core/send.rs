//! Sending frames.

use super::Core;
use crate::base::time::{Duration, Instant};
use crate::datapath::exchange::Exchange;
use crate::datapath::{Burst, Datapath, TxFrame};
use crate::net::{Sent, Standing};
use crate::quic::{Slots, Transmit};
use crate::runtime::App;
use crate::runtime::observe::{Mark, Observe};

/// How long frames wait for a port that takes none. A peer that is merely slow empties its ring sooner.
const PATIENCE: Duration = Duration::from_secs(1);

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    /// Sends one burst per turn, which keeps sending in step with incoming acknowledgements.
    pub(super) fn send(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        self.fill(now, seen);
        if self.tx.is_empty() {
            return false;
        }
        self.stats.tx_bursts += 1;
        let sent = self.datapath.tx_burst(&mut self.tx);
        seen.at(Mark::BurstLeft(sent));
        self.stats.tx_held += u64::from(!self.tx.is_empty());
        if sent == 0 {
            self.jam(now);
        } else {
            self.jammed = None;
        }
        sent > 0
    }

    /// The port takes nothing: its link is down, or nobody empties its ring. After [`PATIENCE`], frames are dropped, as a
    /// network without a way drops them: connections with packets to send would otherwise wait for ever, whatever their
    /// timeouts, and never end.
    #[cold]
    fn jam(&mut self, now: Instant) {
        let since = *self.jammed.get_or_insert(now);
        if now.saturating_since(since) >= PATIENCE {
            self.stats.tx_jammed += self.tx.len() as u64;
            self.tx.clear();
        }
    }

    /// Fills the burst with packets of the network layer and the engine.
    fn fill(&mut self, now: Instant, seen: &mut impl Observe) {
        let (datapath, spare) = (&mut self.datapath, &mut self.spare);
        while !self.tx.is_full() {
            let alloc = || spare.take().or_else(|| datapath.tx_alloc());
            let Some(frame) = self.net.poll(now, alloc) else { break };
            self.tx.push(frame);
            seen.at(Mark::FrameWaits { of_engine: false });
        }
        while !self.tx.is_full() && self.endpoint.may_transmit() {
            let before = self.tx.len();
            seen.at(Mark::BuildBegins);
            let mut slots =
                Frames { datapath: &mut self.datapath, spare: &mut self.spare, frames: &mut self.tx, full: false };
            let built = self.endpoint.poll_transmit_run(now, &mut slots);
            seen.at(Mark::BuildEnds(self.tx.len() - before));
            let Some(transmit) = built else { return };
            self.address(now, transmit, before);
            (before..self.tx.len()).for_each(|_| seen.at(Mark::FrameWaits { of_engine: true }));
        }
    }

    /// Prepends headers to the payloads in the burst from frame `first` on. Frames that cannot be sent now are removed.
    fn address(&mut self, now: Instant, transmit: Transmit, first: usize) {
        let Transmit { conn, local, remote, ecn, .. } = transmit;
        if self.net.write_headers(now, local, remote, ecn, &mut self.tx[first..]) {
            return;
        }
        let endpoint = &self.endpoint;
        let standing = || match conn {
            None => Standing::Stranger { via: endpoint.answer_origin() },
            Some(id) => match endpoint.standing(id) {
                Some(peer) if !peer.validated => Standing::Unproven,
                peer => Standing::Proven { progress: peer.and_then(|peer| peer.progress) },
            },
        };
        let frames: Burst<D::Tx> = self.tx.drain(first..).collect();
        let mut held = false;
        for frame in frames {
            match self.net.send_to(now, local, remote, ecn, frame, standing) {
                Sent::Ready(frame) => self.tx.push(frame),
                Sent::Pending => held = true,
                Sent::Dropped(_) => {}
            }
        }
        if held && let Some(id) = conn {
            self.endpoint.on_held(now, id);
        }
    }
}

/// The rest of a burst, as the engine fills it.
struct Frames<'a, D: Datapath> {
    datapath: &'a mut D,
    /// A frame that was allocated but has not been needed yet.
    spare: &'a mut Option<D::Tx>,
    frames: &'a mut Burst<D::Tx>,
    /// Whether there are no more frames.
    full: bool,
}

impl<D: Datapath> Slots for Frames<'_, D> {
    #[inline]
    fn next(&mut self) -> Option<&mut [u8]> {
        if self.spare.is_none() {
            if self.full || self.frames.is_full() {
                return None;
            }
            *self.spare = self.datapath.tx_alloc();
            self.full = self.spare.is_none();
        }
        self.spare.as_mut().filter(|_| !self.frames.is_full()).map(TxFrame::payload_mut)
    }

    #[inline]
    fn keep(&mut self, len: usize) {
        if let Some(mut frame) = self.spare.take() {
            frame.set_payload_len(len);
            self.frames.push(frame);
        }
    }

    #[inline]
    fn kept(&mut self, i: usize, of: usize) -> &mut [u8] {
        let first = self.frames.len() - of;
        self.frames[first + i].data_mut()
    }
}
