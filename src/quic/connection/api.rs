//! What an application does with a connection.

use std::net::SocketAddr;

use thiserror::Error;

use crate::mem::PinnedBuf;
use crate::quic::connection::Connection;
use crate::quic::event::{Dir, Event, Notify, OutOfSpace, SendData};
use crate::quic::stats::{ConnStats, StreamStats};
use crate::quic::stream::Stream;
use crate::quic::stream::chunk::Chunk;
use crate::quic::stream::placement::Placement;
use crate::quic::stream::priority::Priority;
use crate::wire::quic::{StreamId, varint};

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The peer allows no more streams for now; `StreamsAvailable` tells when it does.
    #[error("the peer's stream limit is reached; wait for StreamsAvailable")]
    StreamsExhausted,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// Why an operation on a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// There is no such stream (any more), or it has no part in this direction.
    #[error("there is no such stream, or it has ended in this direction")]
    NoStream,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// Why `send` did not take the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendErrorKind {
    /// There is no such stream, or it was finished, reset or stopped.
    #[error("the stream does not exist or takes no more data")]
    NoStream,
    /// The send budget is used up; `Writable` tells when there is some again.
    #[error("the stream's send budget is used up; wait for Writable")]
    Blocked,
    /// The stream would become longer than 2^62-1 bytes.
    #[error("the stream would exceed 2^62-1 bytes")]
    TooLong,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// `send` or `send_vectored` failed; the data comes back, all of it.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct SendError<T = SendData> {
    /// Why.
    pub kind: SendErrorKind,
    /// What was to be sent.
    pub data: T,
}

/// Why buffers were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProvideErrorKind {
    /// No buffer was given.
    #[error("the list of buffers is empty")]
    Empty,
    /// A buffer has no bytes.
    #[error("a buffer is empty")]
    EmptyBuffer,
    /// There is no such stream, or it receives nothing (any more).
    #[error("the stream does not exist or receives no more data")]
    NoStream,
    /// Data has arrived in pooled chunks already.
    #[error("data has arrived in pooled chunks; buffers must be provided before")]
    PooledStream,
    /// The peer was allowed to send more than these first buffers hold.
    #[error(
        "the first buffers must hold the {announced} bytes that the peer was allowed to send; set the stream's initial window to 0"
    )]
    TooSmall {
        /// The window that was announced, bytes.
        announced: u64,
    },
    /// The final size is known: no more can arrive.
    #[error("the stream's end is known and fits into what was provided")]
    Finished,
    /// Beyond the largest stream offset.
    #[error("more than 2^62-1 bytes provided")]
    TooMuch,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// Buffers were not taken; they come back.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct ProvideError {
    /// Why.
    pub kind: ProvideErrorKind,
    /// The buffers, in order.
    pub bufs: Vec<PinnedBuf>,
}

/// One connection, for as long as the endpoint is borrowed.
#[derive(Debug)]
pub struct Conn<'a> {
    pub(super) conn: &'a mut Connection,
}

impl<'a> Conn<'a> {
    pub(crate) fn new(conn: &'a mut Connection) -> Self {
        Self { conn }
    }

    /// Opens a stream (RFC 9000 §2.1).
    ///
    /// # Errors
    /// [`OpenError::StreamsExhausted`] when the peer's limit is reached, [`OpenError::Closed`] afterwards.
    pub fn open(&mut self, dir: Dir) -> Result<StreamId, OpenError> {
        if !self.conn.is_active() {
            return Err(OpenError::Closed);
        }
        self.conn.streams.open(dir).ok_or(OpenError::StreamsExhausted)
    }

    /// Queues `data` on a stream, and its end if `fin`. The memory belongs to the engine until it
    /// comes back in [`Event::SendDone`]. Data is taken whole as long as less than the send budget is queued.
    ///
    /// # Errors
    /// The data comes back in the error.
    pub fn send(&mut self, id: StreamId, data: SendData, fin: bool) -> Result<(), SendError> {
        match self.writable(id, data.len() as u64) {
            Err(kind) => Err(SendError { kind, data }),
            Ok(()) => {
                self.queue(id, [data], fin);
                Ok(())
            }
        }
    }

    /// Queues many pieces of memory on a stream as if they were one, and its end if `fin`. It takes all or nothing, by
    /// the same rule as [`Conn::send`]; each piece comes back in an [`Event::SendDone`] of its own.
    ///
    /// # Errors
    /// All pieces come back in the error, in order.
    pub fn send_vectored(
        &mut self,
        id: StreamId,
        data: impl IntoIterator<Item = SendData>,
        fin: bool,
    ) -> Result<(), SendError<Vec<SendData>>> {
        let data: Vec<_> = data.into_iter().collect();
        let len = data.iter().fold(0, |sum: u64, piece| sum.saturating_add(piece.len() as u64));
        match self.writable(id, len) {
            Err(kind) => Err(SendError { kind, data }),
            Ok(()) => {
                self.queue(id, data, fin);
                Ok(())
            }
        }
    }

    /// Whether a stream takes `len` more bytes.
    fn writable(&mut self, id: StreamId, len: u64) -> Result<(), SendErrorKind> {
        let conn = &mut *self.conn;
        if !conn.is_active() {
            return Err(SendErrorKind::Closed);
        }
        let budget = conn.config.send_budget;
        let send = conn.streams.get(id).and_then(|s| s.send.as_mut()).filter(|s| s.is_writable());
        let send = send.ok_or(SendErrorKind::NoStream)?;
        if send.queued() >= budget && len > 0 {
            send.wants_writable = true;
            return Err(SendErrorKind::Blocked);
        }
        let end = send.end().checked_add(len).filter(|end| *end <= varint::MAX);
        end.map(|_| ()).ok_or(SendErrorKind::TooLong)
    }

    /// Queues data on a stream that takes it.
    fn queue(&mut self, id: StreamId, data: impl IntoIterator<Item = SendData>, fin: bool) {
        let conn = &mut *self.conn;
        let Some(send) = conn.streams.get(id).and_then(|s| s.send.as_mut()) else { return };
        for piece in data {
            match piece {
                // Nothing of it will be acknowledged: it can go back now.
                SendData::Pinned(_, 0) => conn.events.push_back(Event::SendDone { id, data: piece, acked: 0 }),
                _ => send.write(piece, false),
            }
        }
        if fin {
            send.write(SendData::Static(&[]), true);
        }
        conn.streams.queue_send(id);
    }

    /// Ranks a stream's data among that of the connection's other streams, from now on (RFC 9218 §4). It decides the
    /// order in which this end sends, also what is sent again, and may be changed at any time.
    ///
    /// # Errors
    /// [`StreamError`] when nothing is sent on the stream (any more).
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) -> Result<(), StreamError> {
        if !self.conn.is_active() {
            return Err(StreamError::Closed);
        }
        if self.conn.streams.set_priority(id, priority) { Ok(()) } else { Err(StreamError::NoStream) }
    }

    /// Chooses when a stream reports received data: as it arrives, or all of it at the end. Only streams with provided
    /// buffers can be silent until the end: pooled bytes have to be taken for more to come, so they are always
    /// reported.
    ///
    /// A call while [`Event::StreamOpened`] is handled comes before all other events of the stream, unless the
    /// connection ends with the same packets: then the call is refused, and the data in them is reported as it is by
    /// default.
    ///
    /// # Errors
    /// [`StreamError`] when nothing is received on the stream (any more).
    pub fn set_notify(&mut self, id: StreamId, notify: Notify) -> Result<(), StreamError> {
        // What it has kept to itself may be told now.
        self.change_receiving(id, |stream| stream.notify = notify)
    }

    /// Chooses what happens to a stream with provided buffers when its peer has more data than they hold: it waits for
    /// more space, or it is stopped. This has no effect on pooled streams.
    ///
    /// # Errors
    /// [`StreamError`] when nothing is received on the stream (any more).
    pub fn set_out_of_space(&mut self, id: StreamId, what: OutOfSpace) -> Result<(), StreamError> {
        // It may have come to that before.
        self.change_receiving(id, |stream| stream.out_of_space = what)
    }

    /// Changes a stream that still receives, and has it looked at again.
    fn change_receiving(&mut self, id: StreamId, change: impl FnOnce(&mut Stream)) -> Result<(), StreamError> {
        if !self.conn.is_active() {
            return Err(StreamError::Closed);
        }
        let stream = self.conn.streams.get(id).filter(|s| s.recv.as_ref().is_some_and(|r| r.is_receiving()));
        change(stream.ok_or(StreamError::NoStream)?);
        self.conn.streams.mark_dirty(id);
        Ok(())
    }

    /// State and counters of a stream; `None` when it is gone. [`Event::Finished`] has the final
    /// [`placement`](StreamStats::placement).
    pub fn stream_stats(&self, id: StreamId) -> Option<StreamStats> {
        let stream = self.conn.streams.get_ref(id)?;
        let mut stats = StreamStats::default();
        if let Some(recv) = &stream.recv {
            recv.add_stats(&mut stats);
        }
        if let Some(send) = &stream.send {
            send.add_stats(&mut stats);
        }
        Some(stats)
    }

    /// Ends a stream behind what was queued.
    ///
    /// # Errors
    /// [`StreamError`] when the stream cannot be written to.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        self.send(id, SendData::Static(&[]), true).map_err(|e| match e.kind {
            SendErrorKind::Closed => StreamError::Closed,
            _ => StreamError::NoStream,
        })
    }

    /// Bytes that `send` takes before it answers `Blocked`; 0 for streams that cannot be written to.
    pub fn send_budget(&self, id: StreamId) -> u64 {
        let send = self.conn.streams.get_ref(id).and_then(|s| s.send.as_ref()).filter(|s| s.is_writable());
        send.map_or(0, |send| self.conn.config.send_budget.saturating_sub(send.queued()))
    }

    /// How many more bytes than are queued the peer's windows take on a stream now (RFC 9000 §4.1): its own, and that
    /// of the connection, which all streams share. What is made or read before it can go only takes memory. When it is
    /// 0, `Writable` tells as soon as it is more; it is 0 as well for streams that cannot be written to.
    pub fn send_window(&mut self, id: StreamId) -> u64 {
        if !self.conn.is_active() {
            return 0;
        }
        self.conn.streams.send_window(id, self.conn.send_credit.available())
    }

    /// Hands receive buffers over: the stream's bytes are decrypted straight into them, strictly in order,
    /// and the peer may send exactly as much as was provided. Each buffer comes back once, in [`Event::Buffer`].
    ///
    /// # Errors
    /// All buffers come back in the error.
    pub fn provide_receive_buffers(&mut self, id: StreamId, bufs: Vec<PinnedBuf>) -> Result<(), ProvideError> {
        match self.check_provide(id, &bufs) {
            Err(kind) => Err(ProvideError { kind, bufs }),
            Ok(()) => {
                self.provide(id, bufs);
                Ok(())
            }
        }
    }

    /// Like [`Conn::provide_receive_buffers`] with one buffer: nothing is allocated, so this is the way to hand
    /// over again what has come back.
    ///
    /// # Errors
    /// The buffer comes back in the error.
    pub fn provide_receive_buffer(&mut self, id: StreamId, buf: PinnedBuf) -> Result<(), ProvideError> {
        match self.check_provide(id, std::slice::from_ref(&buf)) {
            Err(kind) => Err(ProvideError { kind, bufs: vec![buf] }),
            Ok(()) => {
                self.provide(id, [buf]);
                Ok(())
            }
        }
    }

    /// Takes buffers that were checked.
    fn provide(&mut self, id: StreamId, bufs: impl IntoIterator<Item = PinnedBuf>) {
        let Some(recv) = self.conn.streams.get(id).and_then(|s| s.recv.as_mut()) else { return };
        recv.make_provided();
        for buf in bufs {
            recv.provide(buf);
        }
        self.conn.streams.queue_control(id);
        self.conn.streams.mark_dirty(id);
    }

    fn check_provide(&mut self, id: StreamId, bufs: &[PinnedBuf]) -> Result<(), ProvideErrorKind> {
        if !self.conn.is_active() {
            return Err(ProvideErrorKind::Closed);
        }
        if bufs.is_empty() {
            return Err(ProvideErrorKind::Empty);
        }
        if bufs.iter().any(|b| b.is_empty()) {
            return Err(ProvideErrorKind::EmptyBuffer);
        }
        let recv = self.conn.streams.get_ref(id).and_then(|s| s.recv.as_ref());
        let recv = recv.filter(|r| r.is_receiving() && !r.is_stopped()).ok_or(ProvideErrorKind::NoStream)?;
        let total = bufs.iter().try_fold(recv.provided_end(), |sum, b| sum.checked_add(b.len() as u64));
        let total = total.filter(|t| *t <= varint::MAX).ok_or(ProvideErrorKind::TooMuch)?;
        if recv.is_provided() {
            let enough = recv.final_size().is_some_and(|size| size <= recv.provided_end());
            return if enough { Err(ProvideErrorKind::Finished) } else { Ok(()) };
        }
        if recv.high() > 0 {
            return Err(ProvideErrorKind::PooledStream);
        }
        if recv.final_size().is_some() {
            return Err(ProvideErrorKind::Finished);
        }
        if total < recv.announced() {
            return Err(ProvideErrorKind::TooSmall { announced: recv.announced() });
        }
        Ok(())
    }

    /// The next contiguous bytes of a pooled stream, or those that the first provided buffer has so far,
    /// read in place; empty when there are none now.
    pub fn peek(&self, id: StreamId) -> Option<&[u8]> {
        self.conn.streams.get_ref(id).and_then(|s| s.recv.as_ref()).map(|r| r.peek())
    }

    /// The application is done with the next `n` bytes of a pooled stream.
    pub fn consume(&mut self, id: StreamId, n: usize) {
        let Some(recv) = self.conn.streams.get(id).and_then(|s| s.recv.as_mut()) else { return };
        let n = recv.consume(n as u64);
        self.after_consumption(id, n);
    }

    /// The next contiguous bytes of a pooled stream, lent without a copy: a full chunk of the pool as a whole (1 to 64
    /// KiB, by how much came at a time), or the filled part of one that is still being filled. Call it until it gives
    /// `None`, which also stands for streams with provided buffers, and for those that are gone, reset or stopped.
    ///
    /// The bytes count as consumed now: the peer gets new flow-control credit for them (RFC 9000 §4.1) although
    /// they may be kept for long. What limits an application that keeps chunks is the connection's share of the
    /// pool ([`MemoryConfig`](crate::quic::MemoryConfig)): packets beyond it are dropped as if the network had lost
    /// them, so the peer stalls until chunks are given back. It is better
    /// to leave bytes in the stream than to keep them: what is not taken or consumed gives no credit.
    pub fn take(&mut self, id: StreamId) -> Option<Chunk> {
        let chunk = self.conn.streams.get(id)?.recv.as_mut()?.take()?;
        self.after_consumption(id, chunk.len() as u64);
        Some(chunk)
    }

    /// The application has taken `n` more bytes of a pooled stream.
    fn after_consumption(&mut self, id: StreamId, n: u64) {
        self.conn.recv_credit.consume(n);
        let recv = self.conn.streams.get_ref(id).and_then(|s| s.recv.as_ref());
        if recv.is_some_and(|recv| recv.credit_due().is_some()) {
            self.conn.streams.queue_control(id);
        }
        self.conn.streams.remove_if_done(id);
    }

    /// Whether every byte of a pooled stream was consumed and its end seen. True for streams that are gone.
    pub fn is_finished(&self, id: StreamId) -> bool {
        let recv = self.conn.streams.get_ref(id).and_then(|s| s.recv.as_ref());
        recv.is_none_or(|r| r.is_done() || r.final_size() == Some(r.consumed()))
    }

    /// Abandons sending on a stream with RESET_STREAM (RFC 9000 §3.1).
    ///
    /// # Errors
    /// [`StreamError`] when there is nothing to reset.
    pub fn reset(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        let conn = &mut *self.conn;
        if !conn.is_active() {
            return Err(StreamError::Closed);
        }
        let send = conn.streams.get(id).and_then(|s| s.send.as_mut()).ok_or(StreamError::NoStream)?;
        let events = &mut conn.events;
        if !send.reset(code.min(varint::MAX), |data, acked| events.push_back(Event::SendDone { id, data, acked })) {
            return Err(StreamError::NoStream);
        }
        conn.streams.queue_control(id);
        Ok(())
    }

    /// Asks the peer to stop sending; provided buffers come back, later data is dropped (RFC 9000 §3.5).
    ///
    /// # Errors
    /// [`StreamError`] when nothing is being received.
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        let conn = &mut *self.conn;
        if !conn.is_active() {
            return Err(StreamError::Closed);
        }
        if conn.stop_receiving(id, code) { Ok(()) } else { Err(StreamError::NoStream) }
    }

    /// Closes the connection; every buffer and memory comes back in events, then `Closed` (RFC 9000 §10.2).
    pub fn close(&mut self, code: u64, reason: &str) {
        self.conn.close(code.min(varint::MAX), reason);
    }

    /// State and counters.
    pub fn stats(&self) -> ConnStats {
        self.conn.stats()
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        self.conn.remote()
    }

    /// Our address.
    pub fn local(&self) -> SocketAddr {
        self.conn.path.local
    }

    /// The negotiated application protocol, once the handshake is complete.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.conn.complete.then_some(&*self.conn.alpn)
    }

    /// Whether the handshake is complete and the connection not closed.
    pub fn is_established(&self) -> bool {
        self.conn.complete && self.conn.is_active()
    }

    /// Streams that exist now.
    pub fn stream_count(&self) -> usize {
        self.conn.streams.len()
    }

    /// Updates the packet keys now, if the last update is confirmed (RFC 9001 §6.1). True if it was done.
    /// The peer hears of it by a packet that goes out as soon as possible.
    pub fn update_keys(&mut self) -> bool {
        self.conn.is_active() && self.conn.update_keys()
    }
}

impl Connection {
    /// The receiving part of a stream is no longer wanted (RFC 9000 §3.5). False if it has ended.
    pub(super) fn stop_receiving(&mut self, id: StreamId, code: u64) -> bool {
        let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut()) else { return false };
        if !recv.stop(code.min(varint::MAX)) {
            return false;
        }
        let held = if recv.is_pooled() { recv.high() - recv.consumed() } else { 0 };
        while let Some((offset, buf, valid)) = recv.pop_any() {
            self.events.push_back(Event::Buffer { id, buf, offset, valid });
        }
        recv.placement = Placement::Discard;
        self.recv_credit.consume(held);
        self.streams.queue_control(id);
        self.streams.mark_dirty(id);
        true
    }
}

#[cfg(test)]
mod tests;
