//! Resets that leave the first bytes of a stream reliable.

use super::{Conn, StreamError};
use crate::quic::event::Event;
use crate::quic::stream::send::ResetAtError;
use crate::wire::quic::{StreamId, varint};

impl Conn<'_> {
    /// Abandons sending on a stream, but still delivers its first `reliable` bytes
    /// (draft-ietf-quic-reliable-stream-reset-11 §5). These have to be queued; nothing more can be. Memory that is not
    /// needed for them is returned at once. The peer's application gets the reset after those bytes.
    ///
    /// If the stream was reset like this before, the number of bytes is reduced to `reliable` if it was larger, and
    /// `code` has no effect: the code of a stream never changes. [`Conn::reset`] reduces the number to 0. With 0, this
    /// is [`Conn::reset`], which every peer supports.
    ///
    /// # Errors
    /// [`StreamError`] if there is nothing to reset, fewer bytes are queued, or the peer does not support it.
    pub fn reset_at(&mut self, id: StreamId, code: u64, reliable: u64) -> Result<(), StreamError> {
        if reliable == 0 {
            return self.reset(id, code);
        }
        let conn = &mut *self.conn;
        if !conn.is_active() {
            return Err(StreamError::Closed);
        }
        if !conn.peer.reset_stream_at {
            return Err(StreamError::Unsupported);
        }
        let send = conn.streams.get(id).and_then(|s| s.send.as_mut()).ok_or(StreamError::NoStream)?;
        let events = &mut conn.events;
        let done = |data, acked| events.push_back(Event::SendDone { id, data, acked });
        send.reset_at(code.min(varint::MAX), reliable, done).map_err(|why| match why {
            ResetAtError::Ended => StreamError::NoStream,
            ResetAtError::TooFar => StreamError::TooFar,
        })?;
        conn.streams.queue_send(id);
        conn.streams.queue_control(id);
        Ok(())
    }
}
