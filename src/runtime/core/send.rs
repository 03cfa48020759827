//! Sending frames.

use super::Core;
use crate::base::time::Instant;
use crate::datapath::exchange::Exchange;
use crate::datapath::{Datapath, TxFrame};
use crate::net::{Sent, Standing};
use crate::quic::Transmit;
use crate::runtime::App;
use crate::runtime::observe::{Mark, Observe};

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
        sent > 0
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
        while !self.tx.is_full() {
            let Some(mut frame) = self.spare.take().or_else(|| self.datapath.tx_alloc()) else { return };
            seen.at(Mark::BuildBegins);
            let Some(transmit) = self.endpoint.poll_transmit(now, frame.payload_mut()) else {
                self.spare = Some(frame);
                return;
            };
            seen.at(Mark::BuildEnds);
            frame.set_payload_len(transmit.len);
            let Transmit { conn, local, remote, ecn, .. } = transmit;
            let endpoint = &self.endpoint;
            let standing = || match conn {
                None => Standing::Stranger { via: endpoint.answer_origin() },
                Some(id) => match endpoint.standing(id) {
                    Some(peer) if !peer.validated => Standing::Unproven,
                    peer => Standing::Proven { progress: peer.and_then(|peer| peer.progress) },
                },
            };
            match self.net.send_to(now, local, remote, ecn, frame, standing) {
                Sent::Ready(frame) => {
                    self.tx.push(frame);
                    seen.at(Mark::FrameWaits { of_engine: true });
                }
                Sent::Pending | Sent::Dropped(_) => {}
            }
        }
    }
}
