//! What the engine tells the application.

use std::fmt;

use bytes::Bytes;

use crate::mem::PinnedBuf;
use crate::quic::StreamId;
use crate::quic::stats::PlacementStats;
use crate::wire::quic::TransportError;

/// Names a connection of one endpoint. Never reused for another connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for ConnId {
    /// As logs have it: the place in the connection table, and the how many-eth connection it is there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

pub use crate::wire::quic::Dir;

/// Memory to send from. It is owned by the engine until acknowledged, then comes back in an event.
#[derive(Debug)]
pub enum SendData {
    /// The first `usize` bytes of a pinned buffer.
    Pinned(PinnedBuf, usize),
    /// Reference-counted bytes.
    Bytes(Bytes),
    /// Bytes that are never freed.
    Static(&'static [u8]),
}

/// What a stream with provided buffers tells of its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Notify {
    /// `Progress` when there are new contiguous bytes, and each buffer as soon as it is full.
    #[default]
    Progress,
    /// Nothing until all has arrived: then every buffer and `Finished`. `ReceiveBufferLow` still tells when more space
    /// is needed, and what ends a stream early gives the buffers back at once.
    WhenComplete,
}

/// What happens to a stream when its peer has more data than the provided buffers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutOfSpace {
    /// It waits: the peer stalls, and continues when there is space.
    #[default]
    Stall,
    /// It is stopped with this application error code (RFC 9000 §3.5) as soon as the peer sends more, says that it has
    /// more, or announces an end beyond what was provided. Everything comes back, followed by [`Event::OutOfSpace`].
    /// The connection stays open.
    Stop(u64),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// `close` was called here.
    Local {
        /// Application error code.
        code: u64,
    },
    /// The peer's application closed it.
    Application {
        /// Application error code.
        code: u64,
        /// The peer's reason phrase.
        reason: String,
    },
    /// The peer's transport closed it.
    PeerTransport {
        /// Transport error code (RFC 9000 §20.1).
        code: u64,
        /// The peer's reason phrase.
        reason: String,
    },
    /// We closed it because of a protocol or TLS error.
    Transport {
        /// Transport error code (RFC 9000 §20.1).
        code: u64,
        /// What was wrong.
        reason: String,
    },
    /// Nothing was heard for the idle timeout.
    IdleTimeout,
    /// The handshake did not finish in time.
    HandshakeTimeout,
    /// The peer has lost the connection's state (RFC 9000 §10.3).
    StatelessReset,
    /// The server speaks none of our versions.
    VersionMismatch,
    /// The endpoint is going away.
    Shutdown,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = |code: u64| TransportError(code);
        match self {
            Self::Local { code } => write!(f, "closed here with code {code}"),
            Self::Application { code, reason } if reason.is_empty() => {
                write!(f, "the peer closed it with code {code}")
            }
            Self::Application { code, reason } => write!(f, "the peer closed it with code {code}: {reason}"),
            Self::PeerTransport { code, reason } if reason.is_empty() => {
                write!(f, "the peer ended it: {}", transport(*code))
            }
            Self::PeerTransport { code, reason } => {
                write!(f, "the peer ended it: {} ({reason})", transport(*code))
            }
            Self::Transport { code, reason } => write!(f, "closed by this end: {reason} ({})", transport(*code)),
            Self::IdleTimeout => f.write_str("the peer fell silent (idle timeout): it is gone, or the network is down"),
            Self::HandshakeTimeout => f.write_str("no answer to the handshake: is the server running, at that port?"),
            Self::StatelessReset => f.write_str("the peer has lost the connection's state; it was restarted"),
            Self::VersionMismatch => f.write_str("the server does not speak QUIC version 1"),
            Self::Shutdown => f.write_str("this end shut down"),
        }
    }
}

/// One thing that happened on a connection.
///
/// The kinds that tell of received data may get more fields, for data that arrived before the handshake was complete
/// (0-RTT): match them with `..`.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete (RFC 9001 §4.1.1).
    Connected {
        /// The negotiated application protocol.
        alpn: Vec<u8>,
    },
    /// The peer opened a stream. It comes with the first frame that names the stream: packets that were lost or
    /// overtaken may bring streams in another order than that of their IDs.
    StreamOpened {
        /// Which.
        id: StreamId,
    },
    /// The peer raised its stream limit.
    StreamsAvailable {
        /// For which kind.
        dir: Dir,
    },
    /// A pooled stream has new contiguous bytes (or its end) to read. When the connection ends otherwise than by
    /// `close` here, every stream tells once more of bytes that were not taken yet: they can be read until the
    /// application has got `Closed` and asks for the next event.
    #[non_exhaustive]
    Readable {
        /// Which stream.
        id: StreamId,
    },
    /// A stream with provided buffers got new contiguous bytes.
    #[non_exhaustive]
    Progress {
        /// Which stream.
        id: StreamId,
        /// Contiguous bytes from the start of the stream.
        contiguous: u64,
    },
    /// A provided buffer comes back; every one does, exactly once.
    #[non_exhaustive]
    Buffer {
        /// Which stream.
        id: StreamId,
        /// The buffer.
        buf: PinnedBuf,
        /// Stream offset of its first byte.
        offset: u64,
        /// Contiguous valid bytes at its front.
        valid: usize,
    },
    /// Every byte up to the final size has arrived (and, on a provided stream, come back in `Buffer`s).
    #[non_exhaustive]
    Finished {
        /// Which stream.
        id: StreamId,
        /// Final size in bytes.
        size: u64,
        /// The stream's bytes by the way they took.
        placement: PlacementStats,
    },
    /// The peer reset its sending part.
    Reset {
        /// Which stream.
        id: StreamId,
        /// Application error code.
        code: u64,
        /// Final size in bytes.
        size: u64,
    },
    /// Provided space runs low: provide more, or the peer will stall. Told once fewer than
    /// [`receive_low_water`](crate::quic::TransportConfig::receive_low_water) bytes, and less than half of what was
    /// provided, are unfilled; again only when the peer has used some of what was provided after it, or says that it is
    /// blocked. Never told once the stream's end is known to fit into what was provided.
    ReceiveBufferLow {
        /// Which stream.
        id: StreamId,
        /// Provided bytes not yet filled.
        provided_left: u64,
        /// Bytes wanted to get above the low-water mark.
        wanted: u64,
    },
    /// The peer had more data than a stream with [`OutOfSpace::Stop`] had space for, so the stream was stopped. Its
    /// buffers have come back.
    #[non_exhaustive]
    OutOfSpace {
        /// Which stream.
        id: StreamId,
        /// Bytes that were provided in all.
        provided: u64,
    },
    /// The peer asks us to stop sending; the stream has been reset with this code.
    Stopped {
        /// Which stream.
        id: StreamId,
        /// Application error code.
        code: u64,
    },
    /// Send budget is available again after `send` answered `Blocked`, or the peer's window has opened after
    /// `send_window` answered 0.
    Writable {
        /// Which stream.
        id: StreamId,
    },
    /// Data handed to `send` comes back: acknowledged, or the stream ended before. A pinned buffer without bytes to
    /// send comes back at once.
    SendDone {
        /// Which stream.
        id: StreamId,
        /// What was handed over.
        data: SendData,
        /// How many of its bytes were acknowledged.
        acked: usize,
    },
    /// All data and the FIN were acknowledged.
    SendFinished {
        /// Which stream.
        id: StreamId,
    },
    /// The connection is over. Always the last event of a connection.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}
