//! Selects what to send next and packs it into datagrams (RFC 9000 §12.2, §13, §14).

use std::net::SocketAddr;

use crate::base::Side;
use crate::base::time::Instant;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::packet::{Head, LAST_PN, Outline, PacketBuilder, TAG_LEN};
use crate::quic::connection::sent::SentFrame;
use crate::quic::connection::{Connection, Cx, Scratch};
use crate::quic::event::{CloseReason, ConnId};
use crate::quic::path::MIN_MTU;
use crate::quic::recovery::{Permit, SentPacket, SpaceId};
use crate::wire::quic::frame::Frame;
use crate::wire::quic::header::{self, PacketType};
use crate::wire::quic::{ConnectionId, StreamId, TransportError};

/// Minimum room for another coalesced packet, to be worth its header and tag, in bytes.
pub(super) const COALESCE_ROOM: usize = 160;

/// Number of consecutive packets without ack-eliciting frames before a PING asks for an acknowledgement, so that a pure
/// receiver learns which of its ACKs arrived (RFC 9000 §13.2.4).
const MAX_BARE: u32 = 64;

/// Minimum average distance of skipped packet numbers; it is a window if that is more.
const MIN_SKIP: u64 = 128;

/// A datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The connection; `None` for an answer to a packet without a connection.
    pub conn: Option<ConnId>,
    /// The local address.
    pub local: SocketAddr,
    /// The destination.
    pub remote: SocketAddr,
    /// ECN codepoint for the IP header.
    pub ecn: u8,
    /// Length of the UDP payload in bytes.
    pub len: usize,
}

/// The slots that datagrams are written to, one after another.
pub trait Slots {
    /// The slot for the next datagram: the same one until it is kept. `None` if there are no more.
    fn next(&mut self) -> Option<&mut [u8]>;

    /// Keeps the slot, which now contains a datagram of `len` bytes.
    fn keep(&mut self, len: usize);

    /// Datagram `i` of the last `of` that were kept.
    fn kept(&mut self, i: usize, of: usize) -> &mut [u8];
}

/// What a packet may carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carry {
    /// Only acknowledgements, as congestion control or pacing holds the rest back.
    Acks,
    /// Whatever is due.
    All,
    /// Only stream data, as nothing else is due; this stream's first.
    Streams(StreamId),
}

/// How a packet may be filled.
#[derive(Clone, Copy)]
pub(super) struct Fill {
    pub(super) carry: Carry,
    /// Pad the packet to this size.
    pub(super) pad_to: usize,
}

impl Connection {
    /// Writes the next datagram into `slot`; `None` if there is nothing to send now.
    pub(crate) fn poll_transmit(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<Transmit> {
        if self.path_work
            && self.is_active()
            && let Some(transmit) = self.transmit_on_path(cx, slot)
        {
            return Some(transmit);
        }
        // The packets may be the last ones with marks.
        let ecn = self.path.ecn.codepoint();
        let len = if self.is_active() { self.build_datagram(cx, slot) } else { None };
        // This may have changed in `build_datagram`, if nothing else may be sent any more.
        let len = if self.is_active() { len? } else { len.or_else(|| self.build_close(cx, slot))? };
        self.path.on_sent(len);
        self.stats.tx_bytes += len as u64;
        Some(Transmit { conn: Some(self.id), local: self.path.local, remote: self.path.remote, ecn, len })
    }

    fn build_datagram(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        if self.steady {
            if let Some(len) = self.build_steady(cx, slot) {
                return Some(len);
            }
            self.steady = false;
        }
        let testing = self.path.ecn.is_testing();
        let len = self.build_whatever_is_due(cx, slot)?;
        if testing {
            // Datagrams that are sent together have the same mark, and this may be the last one that has it.
            self.count_marked();
            return Some(len);
        }
        // The check is worth its cost only if more packets follow.
        self.steady = self.streams.wants_to_send() && self.is_steady(cx.now);
        Some(len)
    }

    /// Whether only stream data is to be sent.
    fn is_steady(&self, now: Instant) -> bool {
        let quiet = |space: SpaceId| {
            let space = &self.spaces[space.index()];
            space.acks.deadline().is_none() && space.probes == 0 && !space.crypto_tx.has_pending()
        };
        self.confirmed
            && self.data_pending()
            && self.path.is_validated()
            && self.path.mtu.probe_due(now).is_none()
            && SpaceId::in_use(self.confirmed).iter().all(|space| quiet(*space))
            && !self.control_pending()
            && !self.streams.has_turns()
            && !self.starves_for_acks()
    }

    /// Builds the next datagram of a burst without checking what else is due; the datagram before it had that check.
    fn build_steady(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        let mtu = self.path.mtu.current();
        let max = slot.len().min(usize::from(mtu));
        if max < COALESCE_ROOM || self.recovery.permit(cx.now, mtu) != Permit::Send {
            return None;
        }
        let fill = Fill { carry: Carry::Streams(self.next_stream()?), pad_to: 0 };
        self.build_packet(cx, SpaceId::Data, &mut slot[..max], fill)
    }

    fn build_whatever_is_due(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        if let Some(size) = self.path.mtu.probe_due(cx.now)
            && self.recovery.takes_datagrams_of(size)
            && self.path.is_validated()
            && let Some(len) = self.build_mtu_probe(cx, slot, usize::from(size))
        {
            return Some(len);
        }
        let mtu = usize::from(self.path.mtu.current());
        if self.at_amplification_limit() {
            self.pacing_until = None;
            return None;
        }
        let max = slot.len().min(mtu);
        // Removes streams that cannot send from the queue, so that the rest can.
        self.next_stream();
        let permit = self.recovery.permit(cx.now, mtu as u16);
        let blocked = permit != Permit::Send;
        if permit == Permit::Congested && !self.confirmed {
            self.send_handshake_anyway();
        }
        let wants = if self.confirmed {
            // The other spaces are gone (RFC 9001 §4.9).
            [false, false, self.wants(cx, SpaceId::Data, blocked)]
        } else {
            SpaceId::ALL.map(|space| self.wants(cx, space, blocked))
        };
        let Some(last) = wants.iter().rposition(|want| *want) else {
            self.note_idle(permit);
            return None;
        };
        let pad = !self.confirmed && self.is_padded(wants);
        if max < if pad { usize::from(MIN_MTU) } else { COALESCE_ROOM } {
            return None;
        }
        if !blocked && self.starves_for_acks() {
            self.hurry_window();
        }
        let mut pos = 0;
        for space in SpaceId::ALL {
            let i = space.index();
            if !wants[i] || max - pos < COALESCE_ROOM {
                continue;
            }
            // The last packet takes the padding, so packets before it leave room for it.
            let end = if i == last { max } else { max - COALESCE_ROOM };
            if end <= pos + COALESCE_ROOM / 2 {
                continue;
            }
            let pad_to = if pad && i == last { usize::from(MIN_MTU) } else { 0 };
            let carry = match self.space(space).probes {
                // The second of two probes is a PING. It is acknowledged even if the first is not because of its size
                // (RFC 8899 §4.3) or because the peer has no memory for its data.
                1 if space == SpaceId::Data => Carry::Acks,
                0 if blocked => Carry::Acks,
                _ => Carry::All,
            };
            let fill = Fill { carry, pad_to: pad_to.saturating_sub(pos) };
            pos += self.build_packet(cx, space, &mut slot[pos..end], fill).unwrap_or(0);
            if space == SpaceId::Handshake && self.side == Side::Client {
                self.discard_space(SpaceId::Initial);
            }
        }
        (pos > 0).then_some(pos)
    }

    /// Records, when nothing is sent, until when pacing delays the next packet, or that the application is the limit.
    fn note_idle(&mut self, permit: Permit) {
        let more = self.has_data();
        match permit {
            Permit::PacedUntil(at) if more || self.control_waits() => self.pacing_until = Some(at),
            _ => self.pacing_until = None,
        }
        self.recovery.set_app_limited(!more);
    }

    /// Whether data that is subject to congestion control is waiting.
    fn has_data(&self) -> bool {
        let crypto = |space: &SpaceId| self.spaces[space.index()].crypto_tx.has_pending();
        SpaceId::in_use(self.confirmed).iter().any(crypto) || self.data_pending() || self.datagrams_wait()
    }

    pub(super) fn data_pending(&self) -> bool {
        self.may_send_data() && self.streams.wants_to_send()
    }

    /// Whether packets of the Data space can be sent.
    pub(super) fn may_send_data(&self) -> bool {
        if self.complete { self.one_rtt.is_some() } else { self.sends_early() }
    }

    /// The stream whose data is sent next, once data may be sent at all.
    pub(super) fn next_stream(&mut self) -> Option<StreamId> {
        if !self.may_send_data() {
            return None;
        }
        self.streams.next_send(self.send_credit.available())
    }

    /// Lets a packet with handshake data go although the window is full, if none of its space is in flight. The window is
    /// full of 0-RTT or 1-RTT packets then, which may be lost or unreadable until the handshake goes on: nothing else would
    /// be acknowledged, and no probe timeout runs for them (RFC 9002 §6.2.1).
    #[cold]
    fn send_handshake_anyway(&mut self) {
        for id in [SpaceId::Initial, SpaceId::Handshake] {
            if self.spaces[id.index()].crypto_tx.has_pending() && !self.recovery.is_eliciting_in_flight(id) {
                let probes = &mut self.space(id).probes;
                *probes = 1.max(*probes);
            }
        }
    }

    /// Whether a datagram with packets of the spaces that want to send is padded to the least MTU: those with Initial
    /// packets of a client, or with ack-eliciting ones of a server (RFC 9000 §14.1).
    #[cold]
    fn is_padded(&self, wants: [bool; 3]) -> bool {
        wants[0] && (self.side == Side::Client || !self.only_acks(SpaceId::Initial))
    }

    fn only_acks(&self, space: SpaceId) -> bool {
        let space = &self.spaces[space.index()];
        !space.crypto_tx.has_pending() && space.probes == 0
    }

    /// Whether packets of this space may be sent.
    pub(super) fn has_keys(&self, id: SpaceId) -> bool {
        match id {
            SpaceId::Data => self.may_send_data(),
            _ => self.spaces[id.index()].keys.is_some(),
        }
    }

    /// Whether a packet of this space has to be built now.
    fn wants(&self, cx: &Cx<'_>, id: SpaceId, blocked: bool) -> bool {
        let space = &self.spaces[id.index()];
        if !self.has_keys(id) {
            return false;
        }
        if space.acks.is_due(cx.now) || space.probes > 0 {
            return true;
        }
        if blocked {
            return false;
        }
        space.crypto_tx.has_pending() || (id == SpaceId::Data && (self.control_pending() || self.data_pending()))
    }

    /// Whether control frames of the Data space are waiting and there are keys for them.
    fn control_waits(&self) -> bool {
        self.may_send_data() && self.control_pending()
    }

    /// Whether control frames of the Data space or datagrams are waiting.
    fn control_pending(&self) -> bool {
        self.handshake_done_due
            || self.new_tokens_due > 0
            || self.ping_due
            || self.recv_credit.update_due().is_some()
            || self.local_cids.due().is_some()
            || self.remote_cids.retire_due().is_some()
            || self.streams.front_control().is_some()
            || self.streams.max_streams_due().is_some()
            || self.streams.streams_blocked_due().is_some()
            || self.connection_blocked()
            || self.datagrams_pending()
            || self.ack_request_due()
    }

    pub(super) fn connection_blocked(&self) -> bool {
        let mut credit = self.send_credit;
        credit.take_blocked().is_some() && self.streams.blocked_by_connection()
    }

    /// Builds one packet at the front of `slot`. `None` if there is nothing to put into it.
    fn build_packet(&mut self, cx: &mut Cx<'_>, space: SpaceId, slot: &mut [u8], fill: Fill) -> Option<usize> {
        let pn = self.next_pn(cx, space)?;
        if space == SpaceId::Data && !self.use_key()? {
            let why = "the packet keys are exhausted and could not be updated";
            self.fail(Fault::new(TransportError::AEAD_LIMIT_REACHED, 0, why));
            return None;
        }
        let outline = self.start_packet(cx, space, pn, slot)?;
        let mut builder = PacketBuilder::new(slot, outline, &mut cx.scratch.building);
        self.fill_packet(cx, space, &mut builder, fill);
        if self.ack_frequency.is_some() && builder.eliciting && !self.has_data() {
            self.hurry_last(space, &mut builder);
        }
        let probing = self.space(space).probes > 0;
        // A probe with nothing to carry is a PING (RFC 9002 §6.2.4).
        if builder.is_empty() && fill.pad_to == 0 && !probing {
            cx.scratch.building = builder.frames;
            return None;
        }
        let bare = !builder.eliciting && space == SpaceId::Data;
        self.bare_packets = if bare { self.bare_packets + 1 } else { 0 };
        if (probing && !builder.eliciting) || builder.is_empty() || self.bare_packets >= MAX_BARE {
            builder.put(&Frame::Ping, None);
            self.bare_packets = 0;
        }
        let least = cx.ids.least_packet();
        if !builder.eliciting && builder.is_below(least) && space == SpaceId::Data {
            self.widen_ack(cx, space, &mut builder);
        }
        builder.pad_to(least.max(fill.pad_to));
        self.space(space).probes = self.space(space).probes.saturating_sub(u8::from(builder.eliciting));
        let len = self.finish_packet(cx, space, pn, &mut builder, true);
        if self.datagrams.is_some() {
            self.datagrams_sealed(cx);
        }
        Some(len)
    }

    /// The number of the next packet; `None` if there is none, so that the connection is over.
    #[inline]
    pub(super) fn next_pn(&mut self, cx: &mut Cx<'_>, space: SpaceId) -> Option<u64> {
        let pn = self.space(space).next_pn;
        // Only packets of the Data space can be that many.
        if pn == self.skip_at && space == SpaceId::Data { self.skip_pn(cx, pn) } else { Some(pn) }
    }

    /// Skips the packet number `pn` and chooses the next one to skip. A peer that acknowledges packets before it has
    /// received them, to make us send faster than the path allows, does not know which numbers exist (RFC 9000 §21.4):
    /// within about two windows, it acknowledges one that was skipped.
    #[cold]
    fn skip_pn(&mut self, cx: &mut Cx<'_>, pn: u64) -> Option<u64> {
        // The first packet only chooses.
        let next = if pn == 0 { 0 } else { pn + 1 };
        if next >= LAST_PN {
            self.abandon(CloseReason::Transport {
                code: TransportError::INTERNAL_ERROR.0,
                reason: "the packet numbers are used up".to_owned(),
            });
            return None;
        }
        let window = self.window_in_packets();
        // The last number is one to skip, so it is noticed here.
        self.skip_at = (next + 1 + cx.rng.below(2 * window.max(MIN_SKIP))).min(LAST_PN);
        self.fixed_bit.renew(cx.rng.next_u64());
        self.space(SpaceId::Data).next_pn = next;
        Some(next)
    }

    /// The congestion window in packets.
    pub(super) fn window_in_packets(&self) -> u64 {
        self.recovery.cwnd() / u64::from(self.path.mtu.current())
    }

    /// Counts a 1-RTT packet that will be sealed: false if the key is exhausted, `None` if there is none.
    pub(super) fn use_key(&mut self) -> Option<bool> {
        if self.one_rtt.is_none() && self.sends_early() {
            return Some(true);
        }
        if self.one_rtt.as_ref()?.update_due() {
            self.update_keys();
        }
        Some(self.one_rtt.as_mut()?.before_send())
    }

    /// Writes a packet's header. `None` if `slot` is too small for a packet.
    #[inline]
    pub(super) fn start_packet(&self, cx: &Cx<'_>, space: SpaceId, pn: u64, slot: &mut [u8]) -> Option<Outline> {
        let pn_len = header::pn_len(pn, self.recovery.largest_acked(space));
        let dcid = self.remote_cids.current();
        // Hardly any packet needs this.
        let short = space == SpaceId::Data && self.one_rtt.is_some();
        let scid = &if short { ConnectionId::default() } else { self.handshake_cid(cx.ids) };
        let (version, fixed_bit) = (self.version, self.fixed_bit.of(pn));
        let head = match space {
            SpaceId::Initial => {
                Head::Long { fixed_bit, version, kind: PacketType::Initial, dcid, scid, token: self.token() }
            }
            SpaceId::Handshake => {
                Head::Long { fixed_bit, version, kind: PacketType::Handshake, dcid, scid, token: &[] }
            }
            SpaceId::Data if !short => {
                let version = self.early.as_ref()?.version();
                Head::Long { fixed_bit, version, kind: PacketType::ZeroRtt, dcid, scid, token: &[] }
            }
            SpaceId::Data => {
                let phase = self.one_rtt.as_ref().is_some_and(|keys| keys.phase());
                Head::Short { bits: fixed_bit | self.path.spin.bits() | header::key_phase(phase), dcid }
            }
        };
        Outline::new(slot, head, pn, pn_len)
    }

    /// Seals the packet and hands it to loss recovery. `in_flight` says whether it counts for congestion control.
    fn finish_packet(
        &mut self,
        cx: &mut Cx<'_>,
        space: SpaceId,
        pn: u64,
        builder: &mut PacketBuilder<'_>,
        count: bool,
    ) -> usize {
        let eliciting = builder.eliciting;
        let in_flight = count && (eliciting || builder.padded);
        let len = self.seal(cx, space, pn, builder);
        let Scratch { lists, building, .. } = &mut *cx.scratch;
        let frames = lists.store(building);
        self.space(space).next_pn = pn + 1;
        self.stats.tx_packets += 1;
        let packet = SentPacket::new(cx.now, len as u16, eliciting, in_flight, frames);
        self.recovery.on_packet_sent(space, pn, packet);
        if eliciting {
            self.reset_idle_after_sending(cx.now);
        }
        len
    }

    /// Builds a probe for a larger datagram size: PING and padding, not subject to congestion control (RFC 9000 §14.4).
    fn build_mtu_probe(&mut self, cx: &mut Cx<'_>, slot: &mut [u8], size: usize) -> Option<usize> {
        if slot.len() < size {
            self.path.mtu.limit(slot.len() as u16);
            return None;
        }
        if !self.complete || self.one_rtt.is_none() {
            return None;
        }
        let pn = self.next_pn(cx, SpaceId::Data)?;
        if !self.use_key()? {
            return None;
        }
        let slot = &mut slot[..size];
        let outline = self.start_packet(cx, SpaceId::Data, pn, slot)?;
        let mut builder = PacketBuilder::new(slot, outline, &mut cx.scratch.building);
        builder.put(&Frame::Ping, Some(SentFrame::MtuProbe));
        builder.pad_to(size);
        let len = self.finish_packet(cx, SpaceId::Data, pn, &mut builder, false);
        self.path.mtu.probe_sent(pn, size as u16);
        Some(len)
    }

    /// Protects a packet and leaves its frames in `building` of the scratch. Returns its length.
    #[inline(always)]
    pub(super) fn seal(&mut self, cx: &mut Cx<'_>, space: SpaceId, pn: u64, builder: &mut PacketBuilder<'_>) -> usize {
        if self.traced {
            self.trace_sent(cx, space, pn, builder);
        }
        let (key, header) = match (space, &self.one_rtt) {
            (SpaceId::Data, Some(keys)) => (&keys.local, &keys.local_header),
            (SpaceId::Data, None) => {
                let keys = self.early.as_ref().and_then(|early| early.keys()).expect("checked by the caller");
                (&keys.packet, &keys.header)
            }
            _ => {
                let keys = self.spaces[space.index()].keys.as_ref().expect("checked by the caller");
                (&keys.local.packet, &keys.local.header)
            }
        };
        let len = builder.finish(pn, key, header, &self.streams, self.datagrams.as_deref());
        cx.scratch.building = std::mem::take(&mut builder.frames);
        len
    }
}

const _: () = assert!(COALESCE_ROOM > 2 * TAG_LEN + 64);
