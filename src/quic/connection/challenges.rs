//! Sending what validates paths: challenges and answers, in datagrams of their own (RFC 9000 §8.2).

use crate::quic::connection::packet::{Head, Outline, PacketBuilder};
use crate::quic::connection::{Connection, Cx, Scratch, Transmit};
use crate::quic::path::{MIN_MTU, Paths, Place};
use crate::quic::recovery::{SentPacket, SpaceId};
use crate::wire::quic::frame::Frame;
use crate::wire::quic::header;

impl Connection {
    /// Whether everything about other paths is settled, so that their memory can be freed.
    fn are_paths_settled(&self) -> bool {
        let settled = |paths: &Paths| paths.is_idle() && paths.announced == self.path.remote && paths.told.is_empty();
        self.complete && self.paths.as_deref().is_some_and(settled)
    }

    /// Writes a datagram with challenges and answers into `slot`. They are exempt from congestion control (RFC 9000
    /// §9.4), as are acknowledgements, but not from the anti-amplification limit.
    #[cold]
    #[inline(never)]
    pub(super) fn transmit_on_path(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<Transmit> {
        if !self.complete || self.one_rtt.is_none() {
            return None;
        }
        self.take_wish(cx);
        let Some(job) = self.paths.as_ref().and_then(|paths| paths.due(&self.path)) else {
            self.path_work = self.paths.as_ref().is_some_and(|paths| paths.waits_for_budget());
            if self.are_paths_settled() {
                self.paths = None;
            }
            return None;
        };
        let pn = self.next_pn(cx, SpaceId::Data)?;
        if !self.use_key()? {
            return None;
        }
        let (path, dcid) = match job.place {
            Place::Active => (&self.path, self.remote_cids.current()),
            Place::Other(index) => {
                let other = self.paths.as_ref()?.others().get(index)?;
                (&other.path, self.remote_cids.get(other.cid?)?)
            }
        };
        let (local, remote) = (path.local, path.remote);
        let most = slot.len().min(usize::from(MIN_MTU)).min(usize::try_from(path.budget()).unwrap_or(usize::MAX));
        let slot = &mut slot[..most];
        let pn_len = header::pn_len(pn, self.recovery.largest_acked(SpaceId::Data));
        let phase = self.one_rtt.as_ref().is_some_and(|keys| keys.phase());
        let bits = self.fixed_bit.of(pn) | path.spin.bits() | header::key_phase(phase);
        let outline = Outline::new(slot, Head::Short { bits, dcid }, pn, pn_len)?;
        let mut builder = PacketBuilder::new(slot, outline, &mut cx.scratch.building);
        if job.place == Place::Active {
            // This makes it a non-probing packet, which keeps the peer on this path (RFC 9000 §9.3.3).
            self.put_ack(cx, SpaceId::Data, &mut builder);
        }
        let answered = job.responses.iter().take_while(|data| builder.put(&Frame::PathResponse(**data), None)).count();
        let mut challenge = [0; 8];
        cx.rng.fill(&mut challenge);
        let challenge = Some(challenge).filter(|data| job.challenge && builder.put(&Frame::PathChallenge(*data), None));
        // Without the budget for 1200 bytes, it is not padded at all (RFC 9000 §8.2.1, §8.2.2).
        let expanded = most >= usize::from(MIN_MTU);
        builder.pad_to(if expanded { most } else { cx.ids.least_packet() });
        self.trace_stray(cx, local, remote);
        let len = self.seal(cx, SpaceId::Data, pn, &mut builder);
        let Scratch { lists, building, .. } = &mut *cx.scratch;
        let frames = lists.store(building);
        self.space(SpaceId::Data).next_pn = pn + 1;
        let sent = match job.place {
            Place::Active => SentPacket::new(cx.now, len as u16, false, false, frames),
            Place::Other(_) => SentPacket::elsewhere(cx.now, len as u16, frames),
        };
        self.recovery.on_packet_sent(SpaceId::Data, pn, sent);
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += len as u64;
        self.challenged |= challenge.is_some();
        cx.stats.path_challenges += u64::from(challenge.is_some());
        cx.stats.path_responses += answered as u64;
        self.steady = false;
        self.path.ecn.on_stray();
        let paths = self.paths.as_mut()?;
        paths.sent(job.place, cx.now, answered, challenge, expanded);
        match job.place {
            Place::Active => self.path.on_sent(len),
            Place::Other(index) => paths.other(index)?.path.on_sent(len),
        }
        Some(Transmit { conn: Some(self.id), local, remote, ecn: 0, len })
    }

    /// Moves to a path that is valid already, as the application has asked for.
    fn take_wish(&mut self, cx: &mut Cx<'_>) {
        let Some(paths) = &self.paths else { return };
        let ready = paths.others().iter().position(|other| other.valid && other.go);
        if let Some(index) = ready {
            self.move_to(cx, index);
        }
    }
}
