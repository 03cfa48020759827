//! Events from a core to its handles.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::api::handle::{LentChunk, Opening, Ticket};
use crate::mem::PinnedBuf;
use crate::quic::{
    ConnId, DatagramErrorKind, Event, MigrateError, OpenError, ProvideErrorKind, ReceivedDatagram, SendData,
    SendErrorKind, StreamError, StreamId,
};
use crate::runtime::{ConnectFailure, Unreachable};

/// Why no connection was started.
#[derive(Debug, Error)]
pub enum ConnectRefusal {
    /// The core failed to start it.
    #[error(transparent)]
    Failure(#[from] ConnectFailure),
    /// The core is shutting down or has ended.
    #[error("the core is shutting down")]
    ShuttingDown,
}

/// A command on a stream that passes no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Handle::reset`](super::Handle::reset).
    Reset,
    /// [`Handle::reset_at`](super::Handle::reset_at).
    ResetAt,
    /// [`Handle::stop_sending`](super::Handle::stop_sending).
    StopSending,
    /// [`Handle::set_priority`](super::Handle::set_priority).
    SetPriority,
    /// [`Handle::set_notify`](super::Handle::set_notify).
    SetNotify,
    /// [`Handle::set_out_of_space`](super::Handle::set_out_of_space).
    SetOutOfSpace,
}

/// An event reported by a core.
#[derive(Debug)]
pub enum HandleEvent {
    /// A connection is being set up; `Connected` or `Closed` reports the outcome.
    Connecting {
        /// The command's ticket.
        ticket: Ticket,
        /// The new connection.
        conn: ConnId,
    },
    /// No connection was started.
    ConnectFailed {
        /// The command's ticket.
        ticket: Ticket,
        /// The reason.
        why: ConnectRefusal,
    },
    /// A peer has connected to this core; the engine's `Connected` follows.
    Accepted {
        /// The new connection.
        conn: ConnId,
        /// The peer's address.
        remote: SocketAddr,
        /// The local address it connected to.
        local: SocketAddr,
    },
    /// A stream was opened.
    Opened {
        /// The command's ticket.
        ticket: Ticket,
        /// Its connection.
        conn: ConnId,
        /// The new stream.
        id: StreamId,
    },
    /// No stream was opened.
    OpenFailed {
        /// The command's ticket.
        ticket: Ticket,
        /// The connection.
        conn: ConnId,
        /// The reason.
        why: OpenError,
        /// What the stream was to start with.
        opening: Opening,
    },
    /// The next bytes of a pooled stream; [`Chunk::is_last`](crate::quic::Chunk::is_last) marks its end.
    Data {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// The data, in the engine's memory. Dropping it returns the memory to the core and allows it to read on
        /// ([`HandleApp::with_read_ahead`](super::HandleApp::with_read_ahead)).
        chunk: LentChunk,
    },
    /// An event of the engine. `Readable`, `DatagramsReadable` and `Writable` are not passed on: the core itself takes
    /// datagrams and the data of pooled streams, and sends data that had to wait. While events wait, newer `Progress`,
    /// `EarlyBytes` and `ReceiveBufferLow` events replace older ones of the same stream.
    Engine {
        /// The connection.
        conn: ConnId,
        /// What happened.
        event: Event,
    },
    /// Data was not sent. If a vectored send is refused, none of it was sent, and each piece comes in an event of its
    /// own.
    SendRefused {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// The data.
        data: SendData,
        /// Whether the stream was to end after it.
        fin: bool,
        /// The reason; never `Blocked`.
        why: SendErrorKind,
    },
    /// Receive buffers were not accepted.
    ProvideRefused {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// The buffers, in order.
        bufs: Vec<PinnedBuf>,
        /// The reason.
        why: ProvideErrorKind,
    },
    /// A received datagram in the engine's memory. While the event ring is full, datagrams stay in the connection's queue
    /// ([`DatagramConfig::receive_queue`](crate::quic::DatagramConfig::receive_queue)). Those for which buffers were
    /// provided come in the engine's `DatagramBuffer`.
    Datagram {
        /// The connection.
        conn: ConnId,
        /// The datagram. Dropping it returns the memory to the core.
        datagram: ReceivedDatagram,
    },
    /// A datagram was not queued.
    DatagramRefused {
        /// The connection.
        conn: ConnId,
        /// Its data.
        data: SendData,
        /// The reason.
        why: DatagramErrorKind,
    },
    /// Buffers for datagrams were not accepted.
    DatagramBuffersRefused {
        /// The connection.
        conn: ConnId,
        /// The buffers, in order.
        bufs: Vec<PinnedBuf>,
        /// The reason.
        why: ProvideErrorKind,
    },
    /// A command on a stream could not be carried out.
    Refused {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// The command.
        what: Operation,
        /// The reason.
        why: StreamError,
    },
    /// A connection cannot move to another address, or probe one.
    MigrateRefused {
        /// The connection.
        conn: ConnId,
        /// The reason.
        why: MigrateError,
    },
    /// A host cannot be reached, or the router on the way to it.
    Unreachable {
        /// The host.
        remote: IpAddr,
        /// The reason.
        why: Unreachable,
    },
}
