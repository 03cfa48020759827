//! Handling of received frames (RFC 9000 §19).

use crate::base::Side;
use crate::base::time::Duration;
use crate::crypto::Opened;
use crate::mem::PinnedBuf;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::{Connection, Cx, Scratch};
use crate::quic::event::{CloseReason, Dir, Event};
use crate::quic::memory::Purse;
use crate::quic::path::Report;
use crate::quic::recovery::SpaceId;
use crate::quic::stats::PlacementStats;
use crate::quic::stream::Named;
use crate::wire::quic::frame::{AckFrame, Frame, StreamHeader};
use crate::wire::quic::{StreamId, TransportError, varint};

/// Acknowledgements are slow if this many of their delays are as long as a round trip.
const SLOW_ACKS: u64 = 8;

impl Connection {
    pub(super) fn on_frame(
        &mut self,
        cx: &mut Cx<'_>,
        space: SpaceId,
        dcid: &[u8],
        frame: &Frame<'_>,
    ) -> Result<(), Fault> {
        let fault = |code: TransportError| Fault::new(code, frame.frame_type(), code.to_string());
        match frame {
            Frame::Padding(_) | Frame::Ping => {}
            Frame::Ack(ack) => self.on_ack(cx, space, ack)?,
            Frame::Crypto { offset, data } => {
                // TLS reads once per packet, after all of its frames.
                self.space(space).crypto_rx.insert(space, *offset, data).map_err(fault)?;
            }
            Frame::NewToken { token } => self.on_new_token(cx, token)?,
            // They are read by `read_frames`, as their data is still to be decrypted.
            Frame::Stream(_) | Frame::Datagram { .. } => return Err(fault(TransportError::PROTOCOL_VIOLATION)),
            Frame::AckFrequency { seq, threshold, max_delay, reordering } if self.config.min_ack_delay.is_some() => {
                self.on_ack_frequency(*seq, *threshold, *max_delay, *reordering).map_err(fault)?;
            }
            Frame::ImmediateAck if self.config.min_ack_delay.is_some() => self.space(space).acks.expedite(),
            Frame::ResetStream { id, code, final_size } => {
                self.on_reset_stream(cx, *id, *code, *final_size, None).map_err(fault)?
            }
            Frame::ResetStreamAt { id, code, final_size, reliable_size } if self.config.reset_stream_at => {
                self.on_reset_stream(cx, *id, *code, *final_size, Some(*reliable_size)).map_err(fault)?;
            }
            Frame::StopSending { id, code } => self.on_stop_sending(cx, *id, *code).map_err(fault)?,
            Frame::MaxData(limit) => self.raise_credit(*limit),
            Frame::MaxStreamData { id, max } => self.on_max_stream_data(cx, *id, *max).map_err(fault)?,
            Frame::MaxStreams { bidi, max } => self.on_max_streams(if *bidi { Dir::Bidi } else { Dir::Uni }, *max),
            Frame::DataBlocked(limit) => self.recv_credit.peer_blocked(*limit),
            Frame::StreamDataBlocked { id, limit } => self.on_stream_data_blocked(cx, *id, *limit).map_err(fault)?,
            Frame::StreamsBlocked { bidi, limit } => {
                self.streams.peer_blocked(if *bidi { Dir::Bidi } else { Dir::Uni }, *limit);
            }
            Frame::NewConnectionId { seq, retire_prior_to, cid, reset_token } => {
                let former = self.remote_cids.current_seq();
                self.remote_cids.insert(*seq, *retire_prior_to, *cid, *reset_token).map_err(fault)?;
                if self.remote_cids.current_seq() != former {
                    self.path.spin.restart(cx.rng);
                }
                self.on_remote_ids();
            }
            Frame::RetireConnectionId { seq } => {
                // Packets to the retired ID may be in flight for as long (RFC 9000 §9.5 explains the 3 PTO).
                let until = cx.now + 3 * self.pto();
                self.local_cids.retire(*seq, cx.ids.sequence(dcid), cx.now, until).map_err(fault)?;
                self.local_cids.issue(cx.ids.most_active(self.peer.active_connection_id_limit));
                if self.local_cids.is_exhausted() {
                    // IDs are never reused, and the peer cannot give up its last one.
                    let why = "no more connection IDs for this connection";
                    return Err(Fault::new(TransportError::NO_ERROR, frame.frame_type(), why));
                }
            }
            Frame::PathChallenge(data) => self.on_path_challenge(cx, *data),
            Frame::PathResponse(data) => self.on_path_response(cx, data)?,
            Frame::ConnectionClose { code, reason, .. } => {
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.on_peer_close(cx, CloseReason::PeerTransport { code: *code, reason });
            }
            Frame::ApplicationClose { code, reason } => {
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.on_peer_close(cx, CloseReason::Application { code: *code, reason });
            }
            Frame::HandshakeDone if self.side == Side::Client => self.on_confirmed(cx),
            Frame::HandshakeDone => return Err(fault(TransportError::PROTOCOL_VIOLATION)),
            // Extensions that are not offered (RFC 9000 §12.4).
            Frame::ResetStreamAt { .. } | Frame::AckFrequency { .. } | Frame::ImmediateAck => {
                return Err(fault(TransportError::FRAME_ENCODING_ERROR));
            }
        }
        Ok(())
    }

    fn on_ack(&mut self, cx: &mut Cx<'_>, space: SpaceId, ack: &AckFrame<'_>) -> Result<(), Fault> {
        let exponent = if space == SpaceId::Data { u32::from(self.peer.ack_delay_exponent) } else { 3 };
        let micros = ack.delay.checked_shl(exponent).filter(|d| d >> exponent == ack.delay).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(micros.min(1 << 40));
        if space == SpaceId::Data && self.early.is_some() {
            let lowest = ack.ranges().last().map_or(ack.largest, |range| *range.start());
            if self.acks_rejected(lowest) {
                let why = "acknowledgement of a 0-RTT packet although 0-RTT was rejected";
                return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, 0x02, why));
            }
        }
        let context = self.context();
        let (lowest, before) = (self.recovery.lowest_in_flight(space), self.recovery.largest_acked(space));
        let Scratch { acked, lost, .. } = &mut *cx.scratch;
        let outcome = self.recovery.on_ack(
            cx.now,
            space,
            ack.ranges(),
            delay,
            &context,
            |pn, packet| acked.push((pn, packet.frames)),
            |pn, frames| lost.push((space, pn, frames)),
        );
        if outcome.is_err() {
            // The lists are shared by all connections of the core, so nothing may be left in them.
            acked.clear();
            lost.clear();
        }
        let outcome = outcome.map_err(|_| {
            Fault::new(TransportError::PROTOCOL_VIOLATION, 0x02, "acknowledgement of a packet that was not sent")
        })?;
        if space == SpaceId::Data {
            self.slow_acks |= outcome.rtt_sampled && self.recovery.rtt().is_exceeded(micros.saturating_mul(SLOW_ACKS));
            self.key_ack = self.key_ack.max(outcome.largest_newly_acked);
            if self.datagrams.is_some() {
                self.datagrams_late(ack);
            }
        }
        if outcome.largest_newly_acked.is_some() && self.path.ecn.wants_reports() {
            let advances = self.recovery.largest_acked(space) > before;
            self.on_ecn(cx, &Report { space: space.index(), counts: ack.ecn, advances }, lowest, outcome.sent);
        }
        self.apply_acked(cx, space);
        self.apply_lost(cx);
        if self.ack_frequency.is_some() && space == SpaceId::Data {
            self.consider_ack_requests();
        }
        Ok(())
    }

    /// Raises the limit of bytes that we may send on all streams together.
    pub(super) fn raise_credit(&mut self, limit: u64) {
        if self.send_credit.raise(limit) {
            self.streams.credit_raised();
            for id in self.streams.take_window_waits() {
                if self.streams.window_opened(id, self.send_credit.available()) {
                    self.events.push_back(Event::Writable { id });
                }
            }
        }
    }

    /// Ensures that the stream `id` exists, if the peer may refer to it. False if it has ended.
    fn ensure_stream(&mut self, cx: &mut Cx<'_>, id: StreamId) -> Result<bool, TransportError> {
        if self.streams.get_ref(id).is_some() {
            return Ok(true);
        }
        let named = self.streams.ensure(id)?;
        if named == Named::New {
            self.events.push_back(Event::StreamOpened { id });
            self.ask_provider(cx, id)?;
        }
        Ok(named != Named::Ended)
    }

    /// Gives a new stream of the peer the buffers of the listener's provider. If there are none, the stream is pooled.
    /// If they hold less than the peer was promised, the application is asked for more, and data without space has to
    /// be retransmitted.
    fn ask_provider(&mut self, cx: &mut Cx<'_>, id: StreamId) -> Result<(), TransportError> {
        let Some(provider) = &self.config.provider else { return Ok(()) };
        let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut()) else { return Ok(()) };
        let mut give = |buf: PinnedBuf| {
            let fits = (buf.len() as u64) <= varint::MAX - recv.provided_end();
            if !buf.is_empty() && fits && recv.make_provided() {
                recv.provide(buf);
            }
        };
        cx.scratch.guests.call(|| provider.provide(id, &mut give))?;
        if !recv.is_provided() {
            return Ok(());
        }
        let (more, less) = (recv.credit_due().is_some(), recv.provided_end() < recv.announced());
        if more {
            self.streams.queue_control(id);
        } else if less {
            recv.space_missing();
            self.streams.mark_dirty(id);
        }
        Ok(())
    }

    /// Handles a STREAM frame whose data starts at `at` in the payload; the data is decrypted directly to its place.
    /// False if there is no memory for it, so that it has to be retransmitted.
    pub(super) fn on_stream(
        &mut self,
        cx: &mut Cx<'_>,
        header: &StreamHeader,
        at: usize,
        len: usize,
        opened: &Opened<'_>,
    ) -> Result<bool, Fault> {
        let id = header.id;
        let fault = |code: TransportError| Fault::new(code, 0x08, format!("stream {}: {code}", id.0));
        if self.streams.is_local(id) && id.dir() == Dir::Uni {
            return Err(fault(TransportError::STREAM_STATE_ERROR));
        }
        let mut range = header.offset..header.offset.saturating_add(len as u64);
        if !self.ensure_stream(cx, id).map_err(fault)? {
            // Nothing is known of the stream any more, but no stream reaches so far (RFC 9000 §19.8).
            let possible = range.end <= varint::MAX;
            return if possible { Ok(true) } else { Err(fault(TransportError::FRAME_ENCODING_ERROR)) };
        }
        let Some((recv, gaps)) = self.streams.receiver(id) else { return Ok(true) };
        if recv.is_done() {
            return recv.check_end(&range, header.fin).map(|()| true).map_err(fault);
        }
        let accepted = recv.accept(&mut range, header.fin).map_err(fault)?;
        if !self.recv_credit.receive(accepted.new_high) {
            return Err(fault(TransportError::FLOW_CONTROL_ERROR));
        }
        if !recv.is_pooled() {
            // The memory is the application's; the engine holds nothing.
            self.recv_credit.consume(accepted.new_high);
        }
        let mut placed = PlacementStats::default();
        let ahead_at = recv.ahead_at();
        let came = self.stats.rx_bytes;
        let purse = Purse { memory: cx.memory, account: &mut self.account, remote: &self.path.remote, came };
        let in_place = recv.place(range, purse, gaps, |offset, memory| {
            let from = at + (offset - header.offset) as usize;
            if offset == ahead_at {
                placed.staged += 1;
            } else {
                placed.count(opened.way(), from, memory.len());
            }
            opened.decrypt_at(from, memory);
        });
        recv.add_placed(&placed);
        if in_place.is_err() {
            recv.space_missing();
        }
        self.streams.mark_dirty(id);
        self.add_placement(cx.stats, &placed);
        Ok(in_place.is_ok())
    }

    /// Handles MAX_STREAMS.
    fn on_max_streams(&mut self, dir: Dir, limit: u64) {
        if self.streams.raise_limit(dir, limit) {
            self.event(Event::StreamsAvailable { dir });
        }
    }

    /// Handles RESET_STREAM, or RESET_STREAM_AT, which lets the first `reliable` bytes be delivered before.
    fn on_reset_stream(
        &mut self,
        cx: &mut Cx<'_>,
        id: StreamId,
        code: u64,
        size: u64,
        reliable: Option<u64>,
    ) -> Result<(), TransportError> {
        if self.streams.is_local(id) && id.dir() == Dir::Uni {
            return Err(TransportError::STREAM_STATE_ERROR);
        }
        if !self.ensure_stream(cx, id)? {
            return Ok(());
        }
        let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut()) else { return Ok(()) };
        if recv.is_done() {
            return recv.check_end(&(size..size), true);
        }
        // All data has arrived, so the application gets it (RFC 9000 §3.2, "Data Recvd").
        if recv.is_complete() && recv.final_size() == Some(size) {
            return Ok(());
        }
        recv.check_code(code)?;
        let new = match reliable {
            Some(reliable) => recv.reset_at(code, size, reliable)?,
            None => recv.reset(size)?,
        };
        let pooled = recv.is_pooled();
        if !self.recv_credit.receive(new) {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        if !pooled {
            self.recv_credit.consume(new);
        }
        if reliable.is_some() {
            self.streams.mark_dirty(id);
        } else {
            self.end_by_reset(id, code);
            self.streams.remove_if_done(id);
        }
        Ok(())
    }

    fn on_stop_sending(&mut self, cx: &mut Cx<'_>, id: StreamId, code: u64) -> Result<(), TransportError> {
        if !self.streams.is_local(id) && id.dir() == Dir::Uni {
            return Err(TransportError::STREAM_STATE_ERROR);
        }
        if !self.ensure_stream(cx, id)? {
            return Ok(());
        }
        let Some(send) = self.streams.get(id).and_then(|s| s.send.as_mut()) else { return Ok(()) };
        let events = &mut self.events;
        if send.reset(code, |data, acked| events.push_back(Event::SendDone { id, data, acked })) {
            events.push_back(Event::Stopped { id, code });
            self.streams.queue_control(id);
        }
        Ok(())
    }

    fn on_max_stream_data(&mut self, cx: &mut Cx<'_>, id: StreamId, max: u64) -> Result<(), TransportError> {
        if !self.streams.is_local(id) && id.dir() == Dir::Uni {
            return Err(TransportError::STREAM_STATE_ERROR);
        }
        if self.ensure_stream(cx, id)?
            && let Some(send) = self.streams.get(id).and_then(|s| s.send.as_mut())
            && send.credit.raise(max)
        {
            self.streams.queue_send(id);
            if self.streams.window_opened(id, self.send_credit.available()) {
                self.events.push_back(Event::Writable { id });
            }
        }
        Ok(())
    }

    fn on_stream_data_blocked(&mut self, cx: &mut Cx<'_>, id: StreamId, limit: u64) -> Result<(), TransportError> {
        if self.streams.is_local(id) && id.dir() == Dir::Uni {
            return Err(TransportError::STREAM_STATE_ERROR);
        }
        if self.ensure_stream(cx, id)?
            && let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut())
        {
            recv.peer_blocked(limit);
            if recv.credit_due().is_some() {
                self.streams.queue_control(id);
            }
            self.streams.mark_dirty(id);
        }
        Ok(())
    }
}
