//! What a core tells its handles.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::api::handle::{LentChunk, Opening, Ticket};
use crate::mem::PinnedBuf;
use crate::quic::{ConnId, Event, OpenError, ProvideErrorKind, SendData, SendErrorKind, StreamError, StreamId};
use crate::runtime::{ConnectFailure, Unreachable};

/// Why no connection was started.
#[derive(Debug, Error)]
pub enum ConnectRefusal {
    /// The core could not.
    #[error(transparent)]
    Failure(#[from] ConnectFailure),
    /// The core is shutting down, or has.
    #[error("the core is shutting down")]
    ShuttingDown,
}

/// A command that carries no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Handle::reset`](super::Handle::reset).
    Reset,
    /// [`Handle::stop_sending`](super::Handle::stop_sending).
    StopSending,
    /// [`Handle::set_priority`](super::Handle::set_priority).
    SetPriority,
    /// [`Handle::set_notify`](super::Handle::set_notify).
    SetNotify,
    /// [`Handle::set_out_of_space`](super::Handle::set_out_of_space).
    SetOutOfSpace,
}

/// One thing that a core tells.
#[derive(Debug)]
pub enum HandleEvent {
    /// A connection is being set up; `Connected` or `Closed` says how that ends.
    Connecting {
        /// Of the command.
        ticket: Ticket,
        /// The new connection.
        conn: ConnId,
    },
    /// No connection was started.
    ConnectFailed {
        /// Of the command.
        ticket: Ticket,
        /// Why.
        why: ConnectRefusal,
    },
    /// A peer has connected to this core; the engine's `Connected` follows.
    Accepted {
        /// The new connection.
        conn: ConnId,
        /// The peer's address.
        remote: SocketAddr,
        /// The address that it connected to.
        local: SocketAddr,
    },
    /// A stream was opened.
    Opened {
        /// Of the command.
        ticket: Ticket,
        /// Its connection.
        conn: ConnId,
        /// The new stream.
        id: StreamId,
    },
    /// No stream was opened.
    OpenFailed {
        /// Of the command.
        ticket: Ticket,
        /// The connection.
        conn: ConnId,
        /// Why.
        why: OpenError,
        /// What the stream was to start with.
        opening: Opening,
    },
    /// The next bytes of a pooled stream; [`Chunk::is_last`](crate::quic::Chunk::is_last) tells its end.
    Data {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// Its next bytes. They are read where they lie; dropping them gives the memory back to the core, and lets the stream
        /// be read on ([`HandleApp::with_read_ahead`](super::HandleApp::with_read_ahead)).
        chunk: LentChunk,
    },
    /// What the engine tells, as it is. `Readable` and `Writable` are not passed on: the core itself takes the
    /// bytes of pooled streams and sends data that had to wait. While events wait, younger `Progress` and
    /// `ReceiveBufferLow` events take the place of older ones of their stream.
    Engine {
        /// The connection.
        conn: ConnId,
        /// What happened.
        event: Event,
    },
    /// Data was not sent; of a vectored send, none of it, and each piece comes in an event of its own.
    SendRefused {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// The data.
        data: SendData,
        /// The stream was to end behind it.
        fin: bool,
        /// Why; never `Blocked`.
        why: SendErrorKind,
    },
    /// Receive buffers were not taken.
    ProvideRefused {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// The buffers, in order.
        bufs: Vec<PinnedBuf>,
        /// Why.
        why: ProvideErrorKind,
    },
    /// A command on a stream could not be carried out.
    Refused {
        /// The connection.
        conn: ConnId,
        /// The stream.
        id: StreamId,
        /// What was to be done.
        what: Operation,
        /// Why.
        why: StreamError,
    },
    /// The network cannot reach a host, or the router on the way to it.
    Unreachable {
        /// The host.
        remote: IpAddr,
        /// Why.
        why: Unreachable,
    },
}
