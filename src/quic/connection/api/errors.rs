//! Why operations of applications on a connection fail.

use thiserror::Error;

use crate::mem::PinnedBuf;
use crate::quic::event::SendData;

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The peer's stream limit is reached; `StreamsAvailable` reports when it is raised.
    #[error("the peer's stream limit is reached; wait for StreamsAvailable")]
    StreamsExhausted,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// Why an operation on a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The stream does not exist, has ended, or has no part in this direction.
    #[error("there is no such stream, or it has ended in this direction")]
    NoStream,
    /// Fewer bytes are queued on the stream than are to be delivered.
    #[error("fewer bytes are queued than are to be delivered")]
    TooFar,
    /// The peer does not support the operation.
    #[error("the peer does not support it")]
    Unsupported,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// Why `send` did not accept the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendErrorKind {
    /// The stream does not exist, or it was finished, reset or stopped.
    #[error("the stream does not exist or takes no more data")]
    NoStream,
    /// The send budget is used up; `Writable` reports when there is room again.
    #[error("the stream's send budget is exhausted; wait for Writable")]
    Blocked,
    /// The stream would exceed 2^62-1 bytes.
    #[error("the stream would exceed 2^62-1 bytes")]
    TooLong,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// `send` or `send_vectored` failed. All of the data is returned.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct SendError<T = SendData> {
    /// The reason.
    pub kind: SendErrorKind,
    /// The data.
    pub data: T,
}

/// Why receive buffers were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProvideErrorKind {
    /// The list of buffers is empty.
    #[error("the list of buffers is empty")]
    Empty,
    /// A buffer is empty.
    #[error("a buffer is empty")]
    EmptyBuffer,
    /// The stream does not exist or receives no more data.
    #[error("the stream does not exist or receives no more data")]
    NoStream,
    /// Data has already arrived in pooled chunks.
    #[error("data has arrived in pooled chunks; buffers must be provided before")]
    PooledStream,
    /// The first buffers hold less than the peer was already allowed to send.
    #[error(
        "the first buffers must hold the {announced} bytes that the peer was allowed to send; set the stream's initial window to 0"
    )]
    TooSmall {
        /// The announced window in bytes.
        announced: u64,
    },
    /// The final size is known and fits into the buffers provided before.
    #[error("the stream's end is known and fits into what was provided")]
    Finished,
    /// The buffers would exceed the maximum stream offset.
    #[error("more than 2^62-1 bytes provided")]
    TooMuch,
    /// The connection's settings accept no datagrams.
    #[error("the connection accepts no datagrams")]
    NoDatagrams,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// Receive buffers were not accepted. They are returned.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct ProvideError {
    /// The reason.
    pub kind: ProvideErrorKind,
    /// The buffers, in order.
    pub bufs: Vec<PinnedBuf>,
}

/// Why a datagram was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DatagramErrorKind {
    /// The connection's settings have no datagrams, the peer accepts none, or the handshake is not complete yet.
    #[error("the peer accepts no datagrams, or is not connected yet")]
    Unsupported,
    /// It does not fit into a packet, or the peer accepts only smaller ones.
    #[error("the datagram is too long; the limit is {max} bytes")]
    TooLarge {
        /// The maximum length at present, in bytes.
        max: usize,
    },
    /// The queue is full; `DatagramsWritable` reports when there is room again.
    #[error("the queue of datagrams is full; wait for DatagramsWritable")]
    Full,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// A datagram was not queued. Its data is returned.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct DatagramError {
    /// The reason.
    pub kind: DatagramErrorKind,
    /// The data.
    pub data: SendData,
}
