//! Filling a packet with frames (RFC 9000 §12.4, §13).

use crate::base::time::Duration;
use crate::quic::cid::IdMaker;
use crate::quic::connection::packet::PacketBuilder;
use crate::quic::connection::sent::{SentFrame, SentFrames};
use crate::quic::connection::transmit::{Carry, Fill};
use crate::quic::connection::{Connection, Cx};
use crate::quic::event::Dir;
use crate::quic::recovery::SpaceId;
use crate::quic::space::MAX_ACK_RANGES;
use crate::quic::stream::Introduced;
use crate::quic::stream::recv::RecvStream;
use crate::quic::stream::send::SendStream;
use crate::wire::quic::frame::{self, Frame, StreamHeader};
use crate::wire::quic::{StreamId, varint};

/// Minimum data of a STREAM frame, to be worth its header, unless there is no more data.
const MIN_STREAM_ROOM: usize = 32;

/// Room for the MAX_STREAM_DATA frame of a stream with a small ID, in bytes.
const MAX_STREAM_DATA_ROOM: usize = 1 + 4 + 8;

impl Connection {
    pub(super) fn fill_packet(&mut self, cx: &mut Cx<'_>, space: SpaceId, builder: &mut PacketBuilder<'_>, fill: Fill) {
        if let Carry::Streams(first) = fill.carry {
            self.put_streams(cx, builder, Some(first));
            return;
        }
        self.put_ack(cx, space, builder);
        if fill.carry == Carry::Acks {
            return;
        }
        if self.space(space).probes > 0 {
            if !self.has_new(space) {
                self.requeue_oldest(cx, space);
            }
            self.hurry(space, builder);
        }
        self.put_crypto(space, builder);
        if space == SpaceId::Data {
            self.put_control(cx, builder);
            self.put_stream_control(builder);
            if self.datagrams_pending() {
                self.put_data(cx, builder);
            } else if self.streams.has_turns() && self.streams.held_up() {
                self.put_stream_alone(cx, builder);
            } else {
                self.put_streams(cx, builder, None);
            }
        }
    }

    /// Whether a probe can carry data that was not sent before.
    fn has_new(&self, space: SpaceId) -> bool {
        self.spaces[space.index()].crypto_tx.has_pending()
            || (space == SpaceId::Data && (self.data_pending() || self.datagrams_wait()))
    }

    /// Queues the oldest packet in flight again, for a probe without new data (RFC 9002 §6.2.4).
    fn requeue_oldest(&mut self, cx: &mut Cx<'_>, space: SpaceId) {
        let Some((pn, frames)) = self.recovery.oldest_unacked(space, SentFrames::is_worth_repeating) else { return };
        let mut repeating = std::mem::take(&mut cx.scratch.repeating);
        frames.repeat(&mut repeating);
        for frame in repeating.drain(..) {
            self.frame_lost(cx.now, space, pn, frame);
        }
        cx.scratch.repeating = repeating;
    }

    pub(super) fn put_ack(&mut self, cx: &Cx<'_>, space: SpaceId, builder: &mut PacketBuilder<'_>) {
        let acks = &self.spaces[space.index()].acks;
        let Some(largest) = acks.largest().filter(|_| acks.is_pending() || acks.is_due(cx.now)) else { return };
        if self.write_ack(cx, space, builder, false) {
            builder.frames.push(SentFrame::Ack { largest });
            self.space(space).acks.on_ack_sent();
            if space == SpaceId::Data {
                self.measure_intake(cx);
            }
        }
    }

    #[inline(always)]
    fn write_ack(&self, cx: &Cx<'_>, space: SpaceId, builder: &mut PacketBuilder<'_>, long: bool) -> bool {
        let acks = &self.spaces[space.index()].acks;
        // Initial and Handshake packets are acknowledged at once, and the peer ignores their delay (RFC 9000 §13.2.5).
        let held = if space == SpaceId::Data { cx.now.saturating_since(acks.largest_time()) } else { Duration::ZERO };
        let delay = (held.as_micros() as u64 >> 3).min(varint::MAX);
        let (received, ecn) = (acks.received(), acks.ecn());
        builder.write_with(|w| match long {
            true => frame::encode_long_ack(w, received, delay, ecn, MAX_ACK_RANGES) > 0,
            false => frame::encode_ack(w, received, delay, ecn, MAX_ACK_RANGES) > 0,
        })
    }

    /// Makes the ACK frame of a packet that carries nothing else longer, so that the packet is not so short that the
    /// peer cannot answer it with a stateless reset (RFC 9000 §10.3). Padding would count as in flight (RFC 9002 §2),
    /// for ever if the peer acknowledges nothing else.
    #[cold]
    pub(super) fn widen_ack(&self, cx: &Cx<'_>, space: SpaceId, builder: &mut PacketBuilder<'_>) {
        builder.rewrite();
        let _ = self.write_ack(cx, space, builder, true) || self.write_ack(cx, space, builder, false);
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
    fn put_control(&mut self, cx: &mut Cx<'_>, builder: &mut PacketBuilder<'_>) {
        if self.handshake_done_due && builder.put(&Frame::HandshakeDone, Some(SentFrame::HandshakeDone)) {
            self.handshake_done_due = false;
        }
        self.put_new_tokens(cx, builder);
        let due = self.recv_credit.update_due();
        if due.is_some() {
            // The memory available for it may have changed.
            self.resize_window(cx);
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
        if self.ack_frequency.is_some() {
            self.put_ack_request(builder);
        }
        if self.ping_due && (builder.eliciting || builder.put(&Frame::Ping, None)) {
            self.ping_due = false;
        }
    }

    fn put_cids(&mut self, ids: &IdMaker, builder: &mut PacketBuilder<'_>) {
        if self.local_cids.take_rotation() {
            self.local_cids.rotate(ids.most_active(self.peer.active_connection_id_limit));
        }
        while let Some(sequence) = self.local_cids.due() {
            let (seq, cid) = (u64::from(sequence), ids.cid(self.id, sequence));
            let reset_token = ids.token(&cid);
            let retire_prior_to = self.local_cids.retire_prior_to().min(sequence).into();
            let frame = Frame::NewConnectionId { seq, retire_prior_to, cid, reset_token };
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
        let sliding = self.streams.sliding_window();
        let Some(stream) = self.streams.get(id) else { return true };
        let mut fits = stream.introduced != Introduced::No || stream.send.as_ref().is_none_or(|s| s.next().is_none());
        if let Some(send) = &mut stream.send {
            if let Some((code, final_size)) = send.reset_due() {
                let frame = Frame::ResetStream { id, code, final_size };
                fits = fits && builder.put(&frame, Some(SentFrame::ResetStream(id)));
                if fits {
                    send.reset_sent();
                }
            } else if let Some((code, final_size, reliable_size)) = send.reset_at_due() {
                let frame = Frame::ResetStreamAt { id, code, final_size, reliable_size };
                fits = fits && builder.put(&frame, Some(SentFrame::ResetStreamAt { id, reliable: reliable_size }));
                if fits {
                    send.reset_at_sent();
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
            recv.slide(sliding);
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
    pub(super) fn put_streams(
        &mut self,
        cx: &mut Cx<'_>,
        builder: &mut PacketBuilder<'_>,
        mut first: Option<StreamId>,
    ) {
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
    pub(super) fn put_stream_alone(&mut self, cx: &mut Cx<'_>, builder: &mut PacketBuilder<'_>) {
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
        let pick = send.pick(data_room(id, send, room) as u64, credit)?;
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
}

/// Maximum number of data bytes in a STREAM frame of at most `room` bytes, at any offset of the data queued.
#[inline(always)]
pub(super) fn data_room(id: StreamId, send: &SendStream, room: usize) -> usize {
    let widest = StreamHeader { id, offset: send.end(), len: Some(room as u64), fin: false };
    room.saturating_sub(widest.encoded_len())
}
