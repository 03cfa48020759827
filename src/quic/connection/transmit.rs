//! Selects what to send next and packs it into datagrams (RFC 9000 §12.2, §13, §14).

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use crate::base::Side;
use crate::base::time::Instant;
use crate::quic::cid::IdMaker;
use crate::quic::connection::closing::{Close, Fault};
use crate::quic::connection::packet::{Head, Outline, PacketBuilder, TAG_LEN};
use crate::quic::connection::sent::SentFrame;
use crate::quic::connection::{Connection, Cx, Scratch};
use crate::quic::event::{ConnId, Dir};
use crate::quic::path::MIN_MTU;
use crate::quic::recovery::{Permit, SentPacket, SpaceId};
use crate::quic::space::MAX_ACK_RANGES;
use crate::quic::stream::Introduced;
use crate::quic::stream::recv::RecvStream;
use crate::wire::quic::frame::{self, Frame, StreamHeader};
use crate::wire::quic::header::{self, PacketType};
use crate::wire::quic::{ConnectionId, StreamId, TransportError, varint};

/// Minimum room for another coalesced packet, to be worth its header and tag, in bytes.
pub(super) const COALESCE_ROOM: usize = 160;

/// Minimum data of a STREAM frame, to be worth its header, unless there is no more data.
const MIN_STREAM_ROOM: usize = 32;

/// Room for the MAX_STREAM_DATA frame of a stream with a small ID, in bytes.
const MAX_STREAM_DATA_ROOM: usize = 1 + 4 + 8;

/// Maximum number of ranges in an acknowledgement sent with a close.
const LAST_RANGES: usize = 4;

/// Maximum size of that acknowledgement in bytes: type, largest, delay, count, two numbers per range, ECN counts.
const LAST_ACK: usize = 1 + 8 * (3 + 2 * LAST_RANGES + 3);

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

/// Where datagrams are written to, one after the other.
pub trait Slots {
    /// The slot for the next datagram; the same one until it is kept. `None`: there are no more.
    fn next(&mut self) -> Option<&mut [u8]>;

    /// The slot has a datagram of `len` bytes now.
    fn keep(&mut self, len: usize);

    /// The datagram `i` of the last `of` that were kept.
    fn kept(&mut self, i: usize, of: usize) -> &mut [u8];
}

/// What a packet may carry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carry {
    /// Only acknowledgements, as congestion control or pacing holds the rest back.
    Acks,
    /// Whatever is due.
    All,
    /// Only stream data, as nothing else is due; this stream's first.
    Streams(StreamId),
}

/// How a packet may be filled.
#[derive(Clone, Copy)]
struct Fill {
    carry: Carry,
    /// Pad the packet to this size.
    pad_to: usize,
    /// Pad to this size if the packet carries a frame that requires a full-sized datagram.
    expand_to: usize,
}

impl Connection {
    /// Writes the next datagram into `slot`; `None` if there is nothing to send now.
    pub(crate) fn poll_transmit(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<Transmit> {
        let len = if self.is_active() { self.build_datagram(cx, slot) } else { None };
        // This may have changed in `build_datagram`, if nothing else may be sent any more.
        let len = if self.is_active() { len? } else { len.or_else(|| self.build_close(cx, slot))? };
        self.path.on_sent(len);
        self.stats.tx_bytes += len as u64;
        Some(Transmit { conn: Some(self.id), local: self.path.local, remote: self.path.remote, ecn: 0, len })
    }

    fn build_datagram(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        if self.steady {
            if let Some(len) = self.build_steady(cx, slot) {
                return Some(len);
            }
            self.steady = false;
        }
        let len = self.build_whatever_is_due(cx, slot)?;
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
            && !self.at_amplification_limit()
            && self.path.mtu.probe_due(now).is_none()
            && SpaceId::ALL.into_iter().all(quiet)
            && !self.control_pending()
            && !self.streams.has_turns()
    }

    /// Builds the next datagram of a burst without checking what else is due; the datagram before it had that check.
    fn build_steady(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        let mtu = self.path.mtu.current();
        let max = slot.len().min(usize::from(mtu));
        if max < COALESCE_ROOM || self.recovery.permit(cx.now, mtu) != Permit::Send {
            return None;
        }
        let fill = Fill { carry: Carry::Streams(self.next_stream()?), pad_to: 0, expand_to: 0 };
        self.build_packet(cx, SpaceId::Data, &mut slot[..max], fill)
    }

    fn build_whatever_is_due(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        if let Some(size) = self.path.mtu.probe_due(cx.now)
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
        let wants = SpaceId::ALL.map(|space| self.wants(cx, space, blocked));
        let Some(last) = wants.iter().rposition(|want| *want) else {
            self.note_idle(permit);
            return None;
        };
        let pad = wants[0] && (self.side == Side::Client || !self.only_acks(SpaceId::Initial));
        if max < if pad { usize::from(MIN_MTU) } else { COALESCE_ROOM } {
            return None;
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
            let expand_to = usize::from(MIN_MTU).saturating_sub(pos);
            let fill = Fill { carry, pad_to: pad_to.saturating_sub(pos), expand_to };
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
        SpaceId::ALL.iter().any(|s| self.spaces[s.index()].crypto_tx.has_pending()) || self.data_pending()
    }

    fn data_pending(&self) -> bool {
        self.one_rtt.is_some() && self.complete && self.streams.wants_to_send()
    }

    /// The stream whose data is sent next, once data may be sent at all.
    fn next_stream(&mut self) -> Option<StreamId> {
        if self.one_rtt.is_none() || !self.complete {
            return None;
        }
        self.streams.next_send(self.send_credit.available())
    }

    fn only_acks(&self, space: SpaceId) -> bool {
        let space = &self.spaces[space.index()];
        !space.crypto_tx.has_pending() && space.probes == 0
    }

    /// Whether a packet of this space has to be built now.
    fn wants(&self, cx: &Cx<'_>, id: SpaceId, blocked: bool) -> bool {
        let space = &self.spaces[id.index()];
        let has_keys = match id {
            SpaceId::Data => self.one_rtt.is_some() && self.complete,
            _ => space.keys.is_some(),
        };
        if !has_keys {
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
        self.one_rtt.is_some() && self.complete && self.control_pending()
    }

    /// Whether control frames of the Data space are waiting.
    fn control_pending(&self) -> bool {
        self.handshake_done_due
            || self.ping_due
            || self.recv_credit.update_due().is_some()
            || self.path.response_due().is_some()
            || self.local_cids.due().is_some()
            || self.remote_cids.retire_due().is_some()
            || self.streams.front_control().is_some()
            || self.streams.max_streams_due().is_some()
            || self.streams.streams_blocked_due().is_some()
            || self.connection_blocked()
    }

    fn connection_blocked(&self) -> bool {
        let mut credit = self.send_credit;
        credit.take_blocked().is_some() && self.streams.blocked_by_connection()
    }

    /// Builds one packet at the front of `slot`. `None` if there is nothing to put into it.
    fn build_packet(&mut self, cx: &mut Cx<'_>, space: SpaceId, slot: &mut [u8], fill: Fill) -> Option<usize> {
        let pn = self.next_pn(cx, space);
        if space == SpaceId::Data && !self.use_key()? {
            let why = "the packet keys are exhausted and could not be updated";
            self.fail(Fault::new(TransportError::AEAD_LIMIT_REACHED, 0, why));
            return None;
        }
        let outline = self.start_packet(cx, space, pn, slot)?;
        let mut builder = PacketBuilder::new(slot, outline, &mut cx.scratch.building);
        self.fill_packet(cx, space, &mut builder, fill);
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
        builder.pad_to(if builder.expand { fill.expand_to } else { fill.pad_to });
        self.space(space).probes = self.space(space).probes.saturating_sub(u8::from(builder.eliciting));
        Some(self.finish_packet(cx, space, pn, &mut builder, true))
    }

    /// The number of the next packet.
    #[inline]
    fn next_pn(&mut self, cx: &mut Cx<'_>, space: SpaceId) -> u64 {
        let pn = self.space(space).next_pn;
        if pn == self.skip_at && space == SpaceId::Data { self.skip_pn(cx, pn) } else { pn }
    }

    /// Skips the packet number `pn` and chooses the next one to skip. A peer that acknowledges packets before it has
    /// received them, to make us send faster than the path allows, does not know which numbers exist (RFC 9000 §21.4):
    /// within about two windows, it acknowledges one that was skipped.
    #[cold]
    fn skip_pn(&mut self, cx: &mut Cx<'_>, pn: u64) -> u64 {
        // The first packet only chooses.
        let next = if pn == 0 { 0 } else { pn + 1 };
        let window = self.recovery.cwnd() / u64::from(self.path.mtu.current());
        self.skip_at = next + 1 + cx.rng.below(2 * window.max(MIN_SKIP));
        self.space(SpaceId::Data).next_pn = next;
        next
    }

    /// Counts a 1-RTT packet that will be sealed: false if the key is exhausted, `None` if there is none.
    fn use_key(&mut self) -> Option<bool> {
        if self.one_rtt.as_ref()?.update_due() {
            self.update_keys();
        }
        Some(self.one_rtt.as_mut()?.before_send())
    }

    /// Writes a packet's header. `None` if `slot` is too small for a packet.
    #[inline]
    fn start_packet(&self, cx: &Cx<'_>, space: SpaceId, pn: u64, slot: &mut [u8]) -> Option<Outline> {
        let pn_len = header::pn_len(pn, self.recovery.largest_acked(space));
        let dcid = self.remote_cids.current();
        // Hardly any packet needs this.
        let scid = &if space == SpaceId::Data { ConnectionId::default() } else { self.handshake_cid(cx.ids) };
        let head = match space {
            SpaceId::Initial => Head::Long { kind: PacketType::Initial, dcid, scid, token: &self.token },
            SpaceId::Handshake => Head::Long { kind: PacketType::Handshake, dcid, scid, token: &[] },
            SpaceId::Data => Head::Short { dcid, key_phase: self.one_rtt.as_ref().is_some_and(|keys| keys.phase()) },
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
        if eliciting && !std::mem::replace(&mut self.eliciting_since_receive, true) {
            self.reset_idle(cx.now);
        }
        len
    }

    fn fill_packet(&mut self, cx: &mut Cx<'_>, space: SpaceId, builder: &mut PacketBuilder<'_>, fill: Fill) {
        if let Carry::Streams(first) = fill.carry {
            self.put_streams(cx, builder, Some(first));
            return;
        }
        self.put_ack(cx, space, builder);
        if fill.carry == Carry::Acks {
            return;
        }
        if self.space(space).probes > 0 && !self.has_new(space) {
            self.requeue_oldest(cx, space);
        }
        self.put_crypto(space, builder);
        if space == SpaceId::Data {
            self.put_control(cx, builder);
            self.put_stream_control(builder);
            if self.streams.has_turns() && self.streams.held_up() {
                self.put_stream_alone(cx, builder);
            } else {
                self.put_streams(cx, builder, None);
            }
        }
    }

    /// Whether a probe can carry data that was not sent before.
    fn has_new(&self, space: SpaceId) -> bool {
        self.spaces[space.index()].crypto_tx.has_pending() || (space == SpaceId::Data && self.data_pending())
    }

    /// Queues the oldest packet in flight again, for a probe without new data (RFC 9002 §6.2.4).
    fn requeue_oldest(&mut self, cx: &mut Cx<'_>, space: SpaceId) {
        let Some((pn, packet)) = self.recovery.oldest_unacked(space) else { return };
        let mut frames = std::mem::take(&mut cx.scratch.repeating);
        frames.extend(packet.frames.iter());
        for frame in frames.drain(..) {
            self.frame_lost(cx.now, space, pn, frame);
        }
        cx.scratch.repeating = frames;
    }

    fn put_ack(&mut self, cx: &Cx<'_>, space: SpaceId, builder: &mut PacketBuilder<'_>) {
        let exponent = if space == SpaceId::Data { 3 } else { 0 };
        let acks = &mut self.spaces[space.index()].acks;
        let Some(largest) = acks.largest().filter(|_| acks.is_pending() || acks.is_due(cx.now)) else { return };
        let held = cx.now.saturating_since(acks.largest_time()).as_micros() as u64;
        let delay = (held >> exponent).min(varint::MAX);
        let fits = builder.write_with(|w| frame::encode_ack(w, acks.received(), delay, acks.ecn(), MAX_ACK_RANGES) > 0);
        if fits {
            builder.frames.push(SentFrame::Ack { largest });
            acks.on_ack_sent();
        }
    }

    fn put_crypto(&mut self, space: SpaceId, builder: &mut PacketBuilder<'_>) {
        let crypto = &mut self.spaces[space.index()].crypto_tx;
        // Type, offset and a two-byte length.
        while let Some(overhead) = Some(1 + 8 + 2).filter(|n| builder.room() > n + 16) {
            let Some(range) = crypto.pick(builder.room() - overhead) else { break };
            let data = crypto.bytes(&range);
            let sent = SentFrame::Crypto { start: range.start, len: data.len() as u32 };
            if !builder.put(&Frame::Crypto { offset: range.start, data }, Some(sent)) {
                break;
            }
            crypto.sent(&range);
        }
    }

    /// Appends connection-level control frames. Frames that do not fit wait for the next packet.
    fn put_control(&mut self, cx: &Cx<'_>, builder: &mut PacketBuilder<'_>) {
        if self.handshake_done_due && builder.put(&Frame::HandshakeDone, Some(SentFrame::HandshakeDone)) {
            self.handshake_done_due = false;
        }
        while let Some(data) = self.path.response_due()
            && builder.put(&Frame::PathResponse(data), None)
        {
            self.path.response_sent();
            // It proves that the path carries datagrams of this size (RFC 9000 §8.2.2).
            builder.expand = true;
        }
        let due = self.recv_credit.update_due();
        if due.is_some() {
            // The memory available for it may have changed.
            self.recv_credit.set_window(cx.memory.window(self.config.max_data, self.account.is_some()));
        }
        if let Some(limit) = self.recv_credit.update_due().or(due.map(|_| self.recv_credit.announced()))
            && builder.put(&Frame::MaxData(limit), Some(SentFrame::MaxData))
        {
            self.recv_credit.announce(limit);
        }
        if let Some((dir, max)) = self.streams.max_streams_due()
            && builder.put(&Frame::MaxStreams { bidi: dir == Dir::Bidi, max }, Some(SentFrame::MaxStreams(dir)))
        {
            self.streams.max_streams_sent(dir);
        }
        if let Some((dir, limit)) = self.streams.streams_blocked_due()
            && builder
                .put(&Frame::StreamsBlocked { bidi: dir == Dir::Bidi, limit }, Some(SentFrame::StreamsBlocked(dir)))
        {
            self.streams.streams_blocked_sent(dir, limit);
        }
        if self.connection_blocked()
            && builder.put(&Frame::DataBlocked(self.send_credit.limit()), Some(SentFrame::DataBlocked))
        {
            self.send_credit.take_blocked();
        }
        self.put_cids(cx.ids, builder);
        if self.ping_due && (builder.eliciting || builder.put(&Frame::Ping, None)) {
            self.ping_due = false;
        }
    }

    fn put_cids(&mut self, ids: &IdMaker, builder: &mut PacketBuilder<'_>) {
        while let Some(sequence) = self.local_cids.due() {
            let (seq, cid) = (u64::from(sequence), ids.cid(self.id, sequence));
            let reset_token = ids.token(&cid);
            let frame = Frame::NewConnectionId { seq, retire_prior_to: 0, cid, reset_token };
            if !builder.put(&frame, Some(SentFrame::NewConnectionId(seq))) {
                break;
            }
            self.local_cids.announced(sequence);
        }
        while let Some(seq) = self.remote_cids.retire_due() {
            if !builder.put(&Frame::RetireConnectionId { seq }, Some(SentFrame::RetireConnectionId(seq))) {
                break;
            }
            self.remote_cids.retire_sent(seq);
        }
    }

    /// Appends RESET_STREAM, STOP_SENDING, MAX_STREAM_DATA and STREAM_DATA_BLOCKED frames that are due.
    fn put_stream_control(&mut self, builder: &mut PacketBuilder<'_>) {
        while let Some(id) = self.streams.front_control() {
            if self.introduce(builder, id) && !self.put_control_of(builder, id) {
                break;
            }
            self.streams.pop_control();
        }
    }

    /// Ensures that the peer knows the stream `id` before any other frame refers to it ([`Introduced`]). False if its
    /// first STREAM frame is still to be sent, which takes the other frames along.
    fn introduce(&mut self, builder: &mut PacketBuilder<'_>, id: StreamId) -> bool {
        let credit = self.send_credit.available();
        let Some(stream) = self.streams.get(id) else { return true };
        let Some((send, next)) = stream.send.as_ref().and_then(|send| Some((send, send.next()?))) else { return true };
        match stream.introduced {
            Introduced::Yes | Introduced::Overtaken => {}
            Introduced::Sent => stream.introduced = Introduced::Overtaken,
            Introduced::No if send.can_send(credit) => {
                self.streams.queue_send(id);
                return false;
            }
            // There is no data to send or it may not be sent, so an empty frame is used.
            Introduced::No => {
                if builder.put_stream(id, &(next..next), false) {
                    stream.introduced = Introduced::Sent;
                }
            }
        }
        true
    }

    /// Appends the control frames of one stream. False if they do not fit.
    fn put_control_of(&mut self, builder: &mut PacketBuilder<'_>, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(id) else { return true };
        let mut fits = stream.introduced != Introduced::No || stream.send.as_ref().is_none_or(|s| s.next().is_none());
        if let Some(send) = &mut stream.send {
            if let Some((code, final_size)) = send.reset_due() {
                let frame = Frame::ResetStream { id, code, final_size };
                fits = fits && builder.put(&frame, Some(SentFrame::ResetStream(id)));
                if fits {
                    send.reset_sent();
                }
            } else if fits
                && send.is_blocked()
                && let Some(limit) = send.credit.take_blocked()
            {
                let frame = Frame::StreamDataBlocked { id, limit };
                fits = builder.put(&frame, Some(SentFrame::StreamDataBlocked(id)));
                if !fits {
                    send.credit.blocked_lost();
                }
            }
        }
        if let Some(recv) = &mut stream.recv {
            if let Some(code) = recv.stop_due() {
                fits = fits && builder.put(&Frame::StopSending { id, code }, Some(SentFrame::StopSending(id)));
                if fits {
                    recv.stop_sent();
                }
            }
            if let Some(max) = recv.credit_due() {
                fits = fits && builder.put(&Frame::MaxStreamData { id, max }, Some(SentFrame::MaxStreamData(id)));
                if fits {
                    recv.credit_sent(max);
                }
            }
        }
        fits
    }

    /// Appends STREAM frames by priority until the packet is full. `first` is the stream whose turn it is, if already
    /// known.
    fn put_streams(&mut self, cx: &mut Cx<'_>, builder: &mut PacketBuilder<'_>, mut first: Option<StreamId>) {
        while builder.takes_stream() && builder.room() >= MIN_STREAM_ROOM {
            let Some(id) = first.take().or_else(|| self.next_stream()) else { return };
            match self.put_frame_of(cx, builder, id, false) {
                None => return,
                Some(true) => self.streams.rotate_send(),
                Some(false) => {}
            }
        }
    }

    /// Appends one STREAM frame of the next stream, while the peer refuses a stream. Refused data is sent alone, as
    /// everything else in the same packet would be lost along with it each time
    /// ([`turns`](crate::quic::stream::turns)).
    #[cold]
    fn put_stream_alone(&mut self, cx: &mut Cx<'_>, builder: &mut PacketBuilder<'_>) {
        let Some(first) = self.next_stream().filter(|_| builder.room() >= MIN_STREAM_ROOM) else { return };
        let refused = self.streams.is_refused(first);
        if refused && !builder.is_empty() {
            return;
        }
        if refused && let Some(id) = self.streams.take_turn(first) {
            self.put_frame_of(cx, builder, id, true);
        } else if self.put_frame_of(cx, builder, first, true) == Some(true) {
            self.streams.rotate_send();
        }
    }

    /// Appends the next STREAM frame of a stream, if it has one that fits. `alone` means that no other frame will
    /// follow in this packet. True if the stream has more data for another packet.
    #[inline(always)]
    fn put_frame_of(
        &mut self,
        cx: &mut Cx<'_>,
        builder: &mut PacketBuilder<'_>,
        id: StreamId,
        alone: bool,
    ) -> Option<bool> {
        let credit = self.send_credit.available();
        let stream = self.streams.get(id)?;
        let introduces = stream.introduced == Introduced::No;
        let send = stream.send.as_mut()?;
        // A control frame that waited for this one must fit after it.
        let room = builder.room() - if introduces { MAX_STREAM_DATA_ROOM } else { 0 };
        let shape = StreamHeader { id, offset: send.end(), len: Some(room as u64), fin: false };
        let room = room.saturating_sub(shape.encoded_len()) as u64;
        let pick = send.pick(room, credit)?;
        let len = pick.range.end - pick.range.start;
        if !builder.put_stream(id, &pick.range, pick.fin) {
            return None;
        }
        send.sent(&pick);
        self.send_credit.consume(pick.new);
        cx.stats.bytes_resent += len - pick.new;
        let more = (alone || builder.room() < MIN_STREAM_ROOM) && send.can_send(self.send_credit.available());
        if introduces {
            stream.introduced = Introduced::Sent;
            if stream.recv.as_ref().is_some_and(RecvStream::has_due) && !self.put_control_of(builder, id) {
                self.streams.queue_control(id);
            }
        }
        Some(more)
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
        let pn = self.next_pn(cx, SpaceId::Data);
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

    /// Builds CONNECTION_CLOSE in every space whose keys the peer may have (RFC 9000 §10.2.3).
    fn build_close(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        self.start_closing(cx.now);
        let close = self.close_due()?;
        let mtu = usize::from(self.path.mtu.current());
        let max = slot.len().min(mtu).min(usize::try_from(self.path.budget()).unwrap_or(usize::MAX));
        let mut pos = 0;
        for space in SpaceId::ALL.into_iter().filter(|space| self.closes_in(*space)).collect::<ArrayVec<_, 3>>() {
            let pad = !self.closes_above(space) && self.side == Side::Client && self.closes_in(SpaceId::Initial);
            let pad_to = if pad { usize::from(MIN_MTU).min(max).saturating_sub(pos) } else { 0 };
            pos += self.close_packet(cx, space, &close, &mut slot[pos..max], pad_to).unwrap_or(0);
        }
        if pos == 0 {
            // The close stays due: the client's next packet increases the budget.
            return None;
        }
        self.close_sent();
        Some(pos)
    }

    /// Whether the close is sent in `space`: there are keys for it, and the peer may have no later ones.
    fn closes_in(&self, space: SpaceId) -> bool {
        let has_keys = |space: SpaceId| self.spaces[space.index()].keys.is_some();
        match space {
            // A client with Handshake keys has received the server's, so the server has them as well.
            SpaceId::Initial => has_keys(space) && !(self.side == Side::Client && has_keys(SpaceId::Handshake)),
            SpaceId::Handshake => has_keys(space) && !self.confirmed,
            SpaceId::Data => {
                self.one_rtt.as_ref().is_some_and(|keys| keys.may_close())
                    && (self.complete || self.side == Side::Server)
            }
        }
    }

    fn closes_above(&self, space: SpaceId) -> bool {
        SpaceId::ALL.into_iter().any(|above| above > space && self.closes_in(above))
    }

    /// Appends what the server still needs of a client's handshake to the close, so that the server can complete it:
    /// the client considers itself connected and may have sent data. True if the peer can then read 1-RTT packets.
    fn put_last_crypto(&mut self, builder: &mut PacketBuilder<'_>) -> bool {
        let crypto = &self.spaces[SpaceId::Handshake.index()].crypto_tx;
        let range = crypto.unacked();
        let whole = !range.is_empty();
        whole && builder.put(&Frame::Crypto { offset: range.start, data: crypto.bytes(&range) }, None)
    }

    fn close_packet(
        &mut self,
        cx: &mut Cx<'_>,
        space: SpaceId,
        close: &Close,
        slot: &mut [u8],
        pad_to: usize,
    ) -> Option<usize> {
        let pn = self.space(space).next_pn;
        let outline = self.start_packet(cx, space, pn, slot)?;
        let mut builder = PacketBuilder::new(slot, outline, &mut cx.scratch.building);
        let completes = space == SpaceId::Handshake && self.side == Side::Client && self.complete;
        // The application's reason is in the 1-RTT packet that follows, which can then be read.
        if !(completes && self.put_last_crypto(&mut builder)) {
            let reason = close.reason.as_bytes();
            let frame = match close.frame_type {
                Some(frame_type) => Frame::ConnectionClose { code: close.code, frame_type, reason },
                None if space == SpaceId::Data => Frame::ApplicationClose { code: close.code, reason },
                // The application's reason must not be revealed to an unauthenticated peer (RFC 9000 §10.2.3).
                None => {
                    Frame::ConnectionClose { code: TransportError::APPLICATION_ERROR.0, frame_type: 0, reason: b"" }
                }
            };
            // An acknowledgement tells the peer what arrived last. It comes first, as the peer stops reading at the
            // close.
            let acks = &self.spaces[space.index()].acks;
            if acks.received().len() <= LAST_RANGES && builder.room() >= LAST_ACK + frame.encoded_len() {
                self.put_ack(cx, space, &mut builder);
            }
            // Without the reason rather than not at all.
            let bare = match frame {
                Frame::ConnectionClose { code, frame_type, .. } => {
                    Frame::ConnectionClose { code, frame_type, reason: b"" }
                }
                _ => Frame::ApplicationClose { code: close.code, reason: b"" },
            };
            if !builder.put(&frame, None) && !builder.put(&bare, None) {
                cx.scratch.building = std::mem::take(&mut builder.frames);
                cx.scratch.building.clear();
                return None;
            }
        }
        builder.pad_to(pad_to);
        self.space(space).next_pn += 1;
        if let (SpaceId::Data, Some(keys)) = (space, &mut self.one_rtt) {
            keys.before_close();
        }
        let len = self.seal(cx, space, pn, &mut builder);
        cx.scratch.building.clear();
        Some(len)
    }

    /// Protects a packet and leaves its frames in `building` of the scratch. Returns its length.
    fn seal(&mut self, cx: &mut Cx<'_>, space: SpaceId, pn: u64, builder: &mut PacketBuilder<'_>) -> usize {
        let len = match space {
            SpaceId::Data => {
                let keys = self.one_rtt.as_ref().expect("checked by the caller");
                builder.finish(pn, &keys.local, &keys.local_header, &self.streams)
            }
            _ => {
                let keys = self.spaces[space.index()].keys.as_ref().expect("checked by the caller");
                builder.finish(pn, &keys.local.packet, &keys.local.header, &self.streams)
            }
        };
        cx.scratch.building = std::mem::take(&mut builder.frames);
        len
    }
}

const _: () = assert!(COALESCE_ROOM > 2 * TAG_LEN + 64);
