//! Resets of streams that leave the first bytes reliable (draft-ietf-quic-reliable-stream-reset-11).

use crate::quic::connection::{Connection, Cx};
use crate::quic::event::{Dir, Event};
use crate::wire::quic::{StreamId, TransportError};

impl Connection {
    /// Handles RESET_STREAM_AT: the stream ends when its reliable bytes were delivered.
    pub(super) fn on_reset_stream_at(
        &mut self,
        cx: &mut Cx<'_>,
        id: StreamId,
        code: u64,
        size: u64,
        reliable: u64,
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
        let new = recv.reset_at(code, size, reliable)?;
        let pooled = recv.is_pooled();
        if !self.recv_credit.receive(new) {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        if !pooled {
            self.recv_credit.consume(new);
        }
        self.streams.mark_dirty(id);
        Ok(())
    }

    /// Ends a stream whose reliable bytes were delivered.
    #[cold]
    pub(super) fn end_by_reset(&mut self, id: StreamId, code: u64) {
        let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut()) else { return };
        let unread = if recv.is_pooled() { recv.high() - recv.consumed() } else { 0 };
        let size = recv.high();
        while let Some((offset, buf, valid)) = recv.pop_any() {
            self.events.push_back(Event::Buffer { id, buf, offset, valid });
        }
        recv.mark_reset();
        self.recv_credit.consume(unread);
        self.events.push_back(Event::Reset { id, code, size });
    }

    /// Handles the acknowledgement of a RESET_STREAM_AT frame with this reliable size.
    pub(super) fn reset_at_acked(&mut self, id: StreamId, reliable: u64) {
        let Some(send) = self.streams.get(id).and_then(|s| s.send.as_mut()) else { return };
        let events = &mut self.events;
        send.reset_at_acked(reliable, |data, acked| events.push_back(Event::SendDone { id, data, acked }));
        self.streams.remove_if_done(id);
    }

    /// Handles the loss of a RESET_STREAM_AT frame with this reliable size.
    pub(super) fn reset_at_lost(&mut self, id: StreamId, reliable: u64) {
        if let Some(send) = self.streams.get(id).and_then(|s| s.send.as_mut()) {
            send.reset_at_lost(reliable);
            self.streams.queue_control(id);
        }
    }
}
