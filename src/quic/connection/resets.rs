//! The effects of resets, of which some leave the first bytes reliable (draft-ietf-quic-reliable-stream-reset-11).

use crate::quic::connection::Connection;
use crate::quic::event::Event;
use crate::wire::quic::StreamId;

impl Connection {
    /// Ends a stream that the peer has reset, once its reliable bytes, if any, were delivered.
    #[cold]
    pub(super) fn end_by_reset(&mut self, id: StreamId, code: u64) {
        let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut()) else { return };
        let unread = if recv.is_pooled() { recv.high() - recv.consumed() } else { 0 };
        let (size, stopped) = (recv.high(), recv.is_stopped());
        while let Some((offset, buf, valid)) = recv.pop_any() {
            self.events.push_back(Event::Buffer { id, buf, offset, valid });
        }
        recv.mark_reset();
        self.recv_credit.consume(unread);
        if !stopped {
            self.events.push_back(Event::Reset { id, code, size });
        }
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
