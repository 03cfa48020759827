//! Operations of applications on a connection.

mod congestion;
mod datagrams;
mod errors;
mod resets;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::mem::PinnedBuf;
use crate::quic::connection::Connection;
use crate::quic::connection::migrate::MigrateError;
use crate::quic::early::EarlyData;
use crate::quic::event::{Dir, Event, Notify, OutOfSpace, SendData};
use crate::quic::stats::{ConnStats, StreamStats};
use crate::quic::stream::Stream;
use crate::quic::stream::chunk::Chunk;
use crate::quic::stream::placement::Placement;
use crate::quic::stream::priority::Priority;
use crate::quic::tls::{ExportError, TlsInfo};
use crate::wire::quic::{StreamId, Version, varint};

pub use errors::{
    DatagramError, DatagramErrorKind, OpenError, ProvideError, ProvideErrorKind, SendError, SendErrorKind, StreamError,
};

/// Access to one connection, borrowed from its endpoint.
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
    /// [`OpenError::StreamsExhausted`] if the peer's limit is reached, [`OpenError::Closed`] if the connection is
    /// closed.
    pub fn open(&mut self, dir: Dir) -> Result<StreamId, OpenError> {
        if !self.conn.is_active() {
            return Err(OpenError::Closed);
        }
        self.conn.streams.open(dir).ok_or(OpenError::StreamsExhausted)
    }

    /// Queues `data` on a stream, and its end if `fin`. The memory is owned by the engine until it is returned in
    /// [`Event::SendDone`]. Data of any length is accepted while fewer bytes than the send budget are queued.
    ///
    /// # Errors
    /// [`SendError`], which returns the data.
    pub fn send(&mut self, id: StreamId, data: SendData, fin: bool) -> Result<(), SendError> {
        match self.writable(id, data.len() as u64) {
            Err(kind) => Err(SendError { kind, data }),
            Ok(()) => {
                self.queue(id, [data], fin);
                Ok(())
            }
        }
    }

    /// Queues several pieces of memory on a stream as if they were one, and its end if `fin`. Either all pieces are
    /// accepted or none, by the same rule as in [`Conn::send`]. Each piece is returned in an [`Event::SendDone`] of its
    /// own.
    ///
    /// # Errors
    /// [`SendError`], which returns all pieces in order.
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

    /// Whether a stream accepts `len` more bytes.
    fn writable(&mut self, id: StreamId, len: u64) -> Result<(), SendErrorKind> {
        let conn = &mut *self.conn;
        if !conn.is_active() {
            return Err(SendErrorKind::Closed);
        }
        let budgets = conn.send_budgets();
        let send = conn.streams.get(id).and_then(|s| s.send.as_mut()).filter(|s| s.is_writable());
        let send = send.ok_or(SendErrorKind::NoStream)?;
        if send.queued() >= send.budget(budgets) && len > 0 {
            send.wants_writable = true;
            return Err(SendErrorKind::Blocked);
        }
        let end = send.end().checked_add(len).filter(|end| *end <= varint::MAX);
        end.map(|_| ()).ok_or(SendErrorKind::TooLong)
    }

    /// Queues data on a stream that accepts it.
    fn queue(&mut self, id: StreamId, data: impl IntoIterator<Item = SendData>, fin: bool) {
        let conn = &mut *self.conn;
        let Some(send) = conn.streams.get(id).and_then(|s| s.send.as_mut()) else { return };
        for piece in data {
            match piece {
                // Nothing of it will be acknowledged, so it is returned now.
                SendData::Pinned(_, 0) => conn.events.push_back(Event::SendDone { id, data: piece, acked: 0 }),
                _ => send.write(piece, false),
            }
        }
        if fin {
            send.write(SendData::Static(&[]), true);
        }
        conn.streams.queue_send(id);
    }

    /// Sets a stream's priority among the connection's streams that have data to send (RFC 9218 §4). It determines the
    /// order in which this end sends, including retransmissions, and may be changed at any time.
    ///
    /// # Errors
    /// [`StreamError`] if nothing (more) is sent on the stream.
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) -> Result<(), StreamError> {
        if !self.conn.is_active() {
            return Err(StreamError::Closed);
        }
        if self.conn.streams.set_priority(id, priority) { Ok(()) } else { Err(StreamError::NoStream) }
    }

    /// Chooses whether a stream reports received data as it arrives, or once when all has arrived. The latter requires
    /// provided buffers: data of pooled streams is always reported, as it must be taken for more to arrive.
    ///
    /// A call while [`Event::StreamOpened`] is handled takes effect before any other event of the stream, unless the
    /// connection ends with the same packets: then the call is refused, and their data is reported as by default.
    ///
    /// # Errors
    /// [`StreamError`] if nothing (more) is received on the stream.
    pub fn set_notify(&mut self, id: StreamId, notify: Notify) -> Result<(), StreamError> {
        // Data held back so far may have to be reported now.
        self.change_receiving(id, |stream| stream.notify = notify)
    }

    /// Chooses what happens if the peer has more data than a stream's provided buffers hold: the stream waits for more
    /// space, or it is stopped. This has no effect on pooled streams.
    ///
    /// # Errors
    /// [`StreamError`] if nothing (more) is received on the stream.
    pub fn set_out_of_space(&mut self, id: StreamId, what: OutOfSpace) -> Result<(), StreamError> {
        // The stream may already be out of space.
        self.change_receiving(id, |stream| stream.out_of_space = what)
    }

    /// Changes a stream that still receives, and has it checked for events.
    fn change_receiving(&mut self, id: StreamId, change: impl FnOnce(&mut Stream)) -> Result<(), StreamError> {
        if !self.conn.is_active() {
            return Err(StreamError::Closed);
        }
        let stream = self.conn.streams.get(id).filter(|s| s.recv.as_ref().is_some_and(|r| r.is_receiving()));
        change(stream.ok_or(StreamError::NoStream)?);
        self.conn.streams.mark_dirty(id);
        Ok(())
    }

    /// The version in use. It is settled when the handshake is complete.
    pub fn version(&self) -> Version {
        self.conn.version()
    }

    /// State and counters of a stream; `None` if it is gone. The final [`placement`](StreamStats::placement) is in
    /// [`Event::Finished`].
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

    /// Ends a stream after the queued data.
    ///
    /// # Errors
    /// [`StreamError`] if the stream cannot be written to.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        self.send(id, SendData::Static(&[]), true).map_err(|e| match e.kind {
            SendErrorKind::Closed => StreamError::Closed,
            _ => StreamError::NoStream,
        })
    }

    /// Number of bytes that may be queued before `send` returns `Blocked`; 0 for streams that cannot be written to.
    pub fn send_budget(&self, id: StreamId) -> u64 {
        let send = self.conn.streams.get_ref(id).and_then(|s| s.send.as_ref()).filter(|s| s.is_writable());
        send.map_or(0, |send| send.budget(self.conn.send_budgets()).saturating_sub(send.queued()))
    }

    /// Number of bytes, beyond those queued, that the peer's flow control currently allows on a stream (RFC 9000 §4.1):
    /// the minimum of the stream's window and the connection's, which all streams share. Data that is produced or read
    /// earlier only occupies memory. If this returns 0, `Writable` is raised when the window opens. It is also 0 for
    /// streams that cannot be written to.
    pub fn send_window(&mut self, id: StreamId) -> u64 {
        if !self.conn.is_active() {
            return 0;
        }
        self.conn.streams.send_window(id, self.conn.send_credit.available())
    }

    /// Provides receive buffers for a stream. Its data is decrypted directly into them, strictly in order, and the peer
    /// may send as many bytes as were provided. Each buffer is returned once, in [`Event::Buffer`].
    ///
    /// Until buffers are provided, a stream is like any other: if it turns out to be empty, [`Event::Readable`] tells of
    /// its end, and buffers are refused.
    ///
    /// # Errors
    /// [`ProvideError`], which returns all buffers.
    pub fn provide_receive_buffers(&mut self, id: StreamId, bufs: Vec<PinnedBuf>) -> Result<(), ProvideError> {
        match self.check_provide(id, &bufs) {
            Err(kind) => Err(ProvideError { kind, bufs }),
            Ok(()) => {
                self.provide(id, bufs);
                Ok(())
            }
        }
    }

    /// Like [`Conn::provide_receive_buffers`] with one buffer. As nothing is allocated, this is the preferred way to
    /// provide a returned buffer again.
    ///
    /// # Errors
    /// [`ProvideError`], which returns the buffer.
    pub fn provide_receive_buffer(&mut self, id: StreamId, buf: PinnedBuf) -> Result<(), ProvideError> {
        match self.check_provide(id, std::slice::from_ref(&buf)) {
            Err(kind) => Err(ProvideError { kind, bufs: vec![buf] }),
            Ok(()) => {
                self.provide(id, [buf]);
                Ok(())
            }
        }
    }

    /// Adds buffers that were checked.
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

    /// The next contiguous bytes of a pooled stream, or the bytes received so far in the first provided buffer, without
    /// taking them. Empty if there are none at present.
    pub fn peek(&self, id: StreamId) -> Option<&[u8]> {
        self.conn.streams.get_ref(id).and_then(|s| s.recv.as_ref()).map(|r| r.peek())
    }

    /// Marks the next `n` bytes of a pooled stream as consumed.
    pub fn consume(&mut self, id: StreamId, n: usize) {
        let Some(recv) = self.conn.streams.get(id).and_then(|s| s.recv.as_mut()) else { return };
        let n = recv.consume(n as u64);
        self.after_consumption(id, n);
    }

    /// Takes the next contiguous bytes of a pooled stream without copying: a full chunk of the pool (1 to 64 KiB,
    /// depending on the rate of arrival) or the filled part of one that is still being filled. Call it until it returns
    /// `None`. It also returns `None` for streams with provided buffers, and for streams that are gone, reset or
    /// stopped.
    ///
    /// The bytes count as consumed: the peer gets new flow-control credit for them (RFC 9000 §4.1) even if they are
    /// kept for long. An application that keeps chunks is limited by the connection's share of the pool
    /// ([`MemoryConfig`](crate::quic::MemoryConfig)): packets beyond it are dropped as if lost by the network, and the
    /// peer stalls until chunks are dropped. It is better to leave data in the stream than to keep chunks, as data that
    /// is not taken or consumed gives no credit.
    pub fn take(&mut self, id: StreamId) -> Option<Chunk> {
        let chunk = self.conn.streams.get(id)?.recv.as_mut()?.take()?;
        self.after_consumption(id, chunk.len() as u64);
        Some(chunk)
    }

    /// Handles the consumption of `n` more bytes of a pooled stream.
    fn after_consumption(&mut self, id: StreamId, n: u64) {
        self.conn.recv_credit.consume(n);
        let recv = self.conn.streams.get_ref(id).and_then(|s| s.recv.as_ref());
        let recv_resets = recv.is_some_and(|recv| recv.is_resetting());
        if recv.is_some_and(|recv| recv.credit_due().is_some()) {
            self.conn.streams.queue_control(id);
        }
        if recv_resets {
            self.conn.streams.mark_dirty(id);
        }
        self.conn.streams.remove_if_done(id);
    }

    /// Whether all bytes of a pooled stream were consumed and its end was seen. True for streams that are gone.
    pub fn is_finished(&self, id: StreamId) -> bool {
        let recv = self.conn.streams.get_ref(id).and_then(|s| s.recv.as_ref());
        recv.is_none_or(|r| r.is_done() || r.is_read())
    }

    /// Abandons sending on a stream with RESET_STREAM (RFC 9000 §3.1).
    ///
    /// # Errors
    /// [`StreamError`] if there is nothing to reset.
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

    /// Asks the peer to stop sending (RFC 9000 §3.5). Provided buffers are returned and later data is dropped.
    ///
    /// # Errors
    /// [`StreamError`] if nothing is being received.
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        let conn = &mut *self.conn;
        if !conn.is_active() {
            return Err(StreamError::Closed);
        }
        if conn.stop_receiving(id, code) { Ok(()) } else { Err(StreamError::NoStream) }
    }

    /// Closes the connection (RFC 9000 §10.2). All memory is returned in events, followed by `Closed`.
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

    /// The local address.
    pub fn local(&self) -> SocketAddr {
        self.conn.path.local
    }

    /// The negotiated application protocol, once the handshake is complete, or the server has accepted 0-RTT.
    pub fn alpn(&self) -> Option<&[u8]> {
        (self.conn.complete || !self.conn.alpn.is_empty()).then_some(&*self.conn.alpn)
    }

    /// Whether the handshake, which is complete, resumed a session of an earlier connection (RFC 8446 §2.2).
    pub fn is_resumed(&self) -> bool {
        self.conn.stats.resumed
    }

    /// What has become of 0-RTT; `None` if it was not possible, or a server refused it.
    pub fn early_data(&self) -> Option<EarlyData> {
        self.conn.early.as_ref().map(|early| early.state)
    }

    /// On a server: the end of the last byte of stream `id` that arrived as 0-RTT data before the handshake was complete,
    /// as in [`Event::EarlyBytes`]; 0 if there is none.
    pub fn early_until(&self, id: StreamId) -> u64 {
        self.conn.early_until(id)
    }

    /// What TLS negotiated, and the peer's certificates, as in [`Event::Connected`]: available from then on until that
    /// event has been handled; afterwards, only with [`keep_tls_info`](crate::quic::TransportConfig::keep_tls_info).
    pub fn tls_info(&self) -> Option<&Arc<TlsInfo>> {
        self.conn.tls_info.as_ref()
    }

    /// Fills `out` with keying material that only the two ends of this connection can compute
    /// ([`TlsInfo::export_keying_material`]).
    ///
    /// # Errors
    /// [`ExportError`], also if [`Conn::tls_info`] is no longer available.
    pub fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> Result<(), ExportError> {
        self.tls_info().ok_or(ExportError::NotKept)?.export_keying_material(out, label, context)
    }

    /// Whether the handshake is complete and the connection not closed.
    pub fn is_established(&self) -> bool {
        self.conn.complete && self.conn.is_active()
    }

    /// Number of streams.
    pub fn stream_count(&self) -> usize {
        self.conn.streams.len()
    }

    /// Updates the packet keys if the previous update is confirmed (RFC 9001 §6.1); returns whether it did. A packet
    /// that tells the peer is sent as soon as possible.
    pub fn update_keys(&mut self) -> bool {
        self.conn.is_active() && self.conn.update_keys()
    }
}

impl Conn<'_> {
    /// Moves a client to another local address (RFC 9000 §9.2): validates the path from there, with a connection ID of
    /// its own, and uses it if the server answers ([`Event::Migrated`]). Otherwise the connection stays where it is
    /// ([`Event::PathFailed`]). Datagrams to `local` have to reach the endpoint. A later call takes the place of an
    /// earlier one.
    ///
    /// # Errors
    /// [`MigrateError`] if the connection cannot move, or not now.
    pub fn migrate(&mut self, local: SocketAddr) -> Result<(), MigrateError> {
        self.conn.use_local(local, true)
    }

    /// Validates the path from another local address without using it (RFC 9000 §9.1): [`Event::PathValidated`] or
    /// [`Event::PathFailed`] follows. For the next 10 s, [`Conn::migrate`] then moves there at once.
    ///
    /// # Errors
    /// [`MigrateError`] if there cannot be another path, or not now.
    pub fn probe(&mut self, local: SocketAddr) -> Result<(), MigrateError> {
        self.conn.use_local(local, false)
    }

    /// Asks the peer to use other connection IDs from now on (RFC 9000 §5.1.2), so that observers cannot link what it
    /// sends to what it has sent before. Nothing happens while the peer has yet to follow an earlier request.
    pub fn rotate_ids(&mut self) {
        if self.is_established() {
            self.conn.local_cids.ask_to_rotate();
            self.conn.ping_due = true;
        }
    }
}

impl Connection {
    /// Stops the receiving part of a stream (RFC 9000 §3.5). False if it has ended.
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
