//! Operations on datagrams (RFC 9221).

use super::{Conn, DatagramError, DatagramErrorKind, ProvideError, ProvideErrorKind};
use crate::mem::PinnedBuf;
use crate::quic::datagram::{DatagramOptions, DatagramStats, ReceivedDatagram, Refusal};
use crate::quic::event::{DatagramId, DatagramOutcome, SendData};

impl Conn<'_> {
    /// The length of the longest datagram that can be sent at present, in bytes. It depends on the peer's limit and on
    /// the path MTU, so it may change. `None` if there are no datagrams in our settings, the peer accepts none, or the
    /// handshake is not complete yet and there is no 0-RTT.
    pub fn max_datagram_len(&self) -> Option<usize> {
        self.conn.max_datagram_len().filter(|_| self.conn.is_active())
    }

    /// Queues a datagram, which is sent at most once (RFC 9221 §5). It is subject to congestion control and pacing. The
    /// memory is owned by the engine until it is returned in [`Event::DatagramDone`](crate::quic::Event::DatagramDone).
    ///
    /// # Errors
    /// [`DatagramError`], which returns the data.
    pub fn send_datagram(&mut self, data: SendData, options: DatagramOptions) -> Result<DatagramId, DatagramError> {
        let conn = &mut *self.conn;
        let refuse = |kind, data| Err(DatagramError { kind, data });
        if !conn.is_active() {
            return refuse(DatagramErrorKind::Closed, data);
        }
        let (Some(max), Some(config)) = (conn.max_datagram_len(), &conn.config.datagrams) else {
            return refuse(DatagramErrorKind::Unsupported, data);
        };
        if data.len() > max {
            return refuse(DatagramErrorKind::TooLarge { max }, data);
        }
        let mut dropped = None;
        let send = &mut conn.datagrams.get_or_insert_default().send;
        let queued = send.push(data, options, config, |id, data| dropped = Some((id, data)));
        if let Some((id, data)) = dropped {
            conn.datagram_dropped(id, data, DatagramOutcome::Overflow);
        }
        queued.or_else(|Refusal(data)| refuse(DatagramErrorKind::Full, data))
    }

    /// Number of datagrams that wait to be sent.
    pub fn datagrams_queued(&self) -> usize {
        self.conn.datagrams.as_ref().map_or(0, |datagrams| datagrams.send.len())
    }

    /// Provides buffers for received datagrams. Each datagram is decrypted directly to the next unused buffer, and
    /// dropped if it is longer than that buffer. From the first call on, datagrams for which there is no buffer are
    /// dropped as well, rather than kept for [`Conn::take_datagram`]. Each buffer is returned once, in
    /// [`Event::DatagramBuffer`](crate::quic::Event::DatagramBuffer).
    ///
    /// # Errors
    /// [`ProvideError`], which returns all buffers.
    pub fn provide_datagram_buffers(&mut self, bufs: Vec<PinnedBuf>) -> Result<(), ProvideError> {
        let kind = if bufs.is_empty() { Some(ProvideErrorKind::Empty) } else { self.refuses(&bufs) };
        match kind {
            Some(kind) => Err(ProvideError { kind, bufs }),
            None => {
                let recv = &mut self.conn.datagrams.get_or_insert_default().recv;
                bufs.into_iter().for_each(|buf| recv.provide(buf));
                Ok(())
            }
        }
    }

    /// Like [`Conn::provide_datagram_buffers`] with one buffer. As nothing is allocated, this is the preferred way to
    /// provide a returned buffer again.
    ///
    /// # Errors
    /// [`ProvideError`], which returns the buffer.
    pub fn provide_datagram_buffer(&mut self, buf: PinnedBuf) -> Result<(), ProvideError> {
        match self.refuses(std::slice::from_ref(&buf)) {
            Some(kind) => Err(ProvideError { kind, bufs: vec![buf] }),
            None => {
                self.conn.datagrams.get_or_insert_default().recv.provide(buf);
                Ok(())
            }
        }
    }

    /// Why these buffers are not accepted.
    fn refuses(&self, bufs: &[PinnedBuf]) -> Option<ProvideErrorKind> {
        let accepts = self.conn.config.datagrams.as_ref().is_some_and(|config| config.max_frame_size > 0);
        match () {
            () if !self.conn.is_active() => Some(ProvideErrorKind::Closed),
            () if !accepts => Some(ProvideErrorKind::NoDatagrams),
            () if bufs.iter().any(|buf| buf.is_empty()) => Some(ProvideErrorKind::EmptyBuffer),
            () => None,
        }
    }

    /// Takes the next received datagram from the engine's memory without copying. `None` if there is none at present.
    /// Datagrams in provided buffers are not taken, but come in events.
    pub fn take_datagram(&mut self) -> Option<ReceivedDatagram> {
        self.conn.datagrams.as_mut()?.recv.take()
    }

    /// Counters of the connection's datagrams.
    pub fn datagram_stats(&self) -> DatagramStats {
        self.conn.datagrams.as_ref().map_or_else(DatagramStats::default, |datagrams| datagrams.stats)
    }
}
