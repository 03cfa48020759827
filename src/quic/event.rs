//! Events for the application.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::mem::PinnedBuf;
use crate::quic::StreamId;
use crate::quic::early::EarlyData;
use crate::quic::stats::PlacementStats;
use crate::quic::tls::TlsInfo;
use crate::wire::quic::TransportError;

/// Identifies a connection among those of all cores of a process. Never reused for another connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// Number of bits of a [`ConnId`] for the place in its core's table. The next eight bits are the core, the rest the
/// generation.
const INDEX_BITS: u32 = 24;

impl ConnId {
    /// The last place that has a name.
    pub(crate) const MAX_INDEX: u32 = (1 << INDEX_BITS) - 1;

    /// A connection of core 0.
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        debug_assert!(index <= Self::MAX_INDEX);
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    /// The connection with this place and generation on `core`.
    #[must_use]
    pub(crate) fn on(self, core: u8) -> Self {
        debug_assert_eq!(self.core(), 0);
        Self(self.0 | u64::from(core) << INDEX_BITS)
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0 as u32 & Self::MAX_INDEX
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The core that owns the connection ([`EndpointConfig::core`](crate::quic::EndpointConfig::core)).
    pub fn core(self) -> u8 {
        (self.0 >> INDEX_BITS) as u8
    }
}

impl fmt::Display for ConnId {
    /// As in logs: the place in the connection table and the number of the connection in that place, such as `17.0`. On
    /// cores other than 0, the core comes first: `2:17.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.core() != 0 {
            write!(f, "{}:", self.core())?;
        }
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

pub use crate::wire::quic::Dir;

/// Memory to send from. The engine owns it until it is acknowledged, and then returns it in an event.
#[derive(Debug)]
pub enum SendData {
    /// The first `usize` bytes of a pinned buffer.
    Pinned(PinnedBuf, usize),
    /// Reference-counted bytes.
    Bytes(Bytes),
    /// Static bytes.
    Static(&'static [u8]),
}

/// When a stream with provided buffers reports received data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Notify {
    /// As it arrives: `Progress` when there are new contiguous bytes, and each buffer as soon as it is full.
    #[default]
    Progress,
    /// Not before all data has arrived: then every buffer, and `Finished`. `ReceiveBufferLow` is still raised when more
    /// space is needed, and a stream that ends early returns its buffers at once.
    WhenComplete,
}

/// What happens to a stream if its peer has more data than the provided buffers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutOfSpace {
    /// The stream waits: the peer stalls, and continues when there is space.
    #[default]
    Stall,
    /// The stream is stopped with this application error code (RFC 9000 §3.5) as soon as the peer sends more, reports
    /// that it is blocked, or announces an end beyond the provided space. All buffers are returned, followed by
    /// [`Event::OutOfSpace`]. The connection stays open.
    Stop(u64),
}

/// Identifies a datagram that was queued for sending, among those of its connection. Later ones have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatagramId(pub u64);

/// What became of a datagram that was queued for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramOutcome {
    /// It was sent.
    Sent,
    /// It was not sent before its deadline.
    Expired,
    /// The queue was full, and it was the oldest in it ([`DropPolicy::Oldest`](crate::quic::DropPolicy::Oldest)).
    Overflow,
    /// It no longer fits into a packet, as the path carries only smaller ones than when it was queued.
    TooLarge,
    /// The connection ended.
    Closed,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The application called `close`.
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
    /// The peer closed it with a transport error.
    PeerTransport {
        /// Transport error code (RFC 9000 §20.1).
        code: u64,
        /// The peer's reason phrase.
        reason: String,
    },
    /// This end closed it because of a protocol or TLS error.
    Transport {
        /// Transport error code (RFC 9000 §20.1).
        code: u64,
        /// What was wrong.
        reason: String,
    },
    /// Nothing was received for the idle timeout.
    IdleTimeout,
    /// The handshake was not completed in time.
    HandshakeTimeout,
    /// The peer has lost the connection's state (RFC 9000 §10.3).
    StatelessReset,
    /// The server speaks none of our versions.
    VersionMismatch,
    /// The endpoint shut down.
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
                write!(f, "the peer closed it: {}", transport(*code))
            }
            Self::PeerTransport { code, reason } => {
                write!(f, "the peer closed it: {} ({reason})", transport(*code))
            }
            Self::Transport { code, reason } => write!(f, "closed by this end: {reason} ({})", transport(*code)),
            Self::IdleTimeout => f.write_str("idle timeout: the peer is gone or the network is down"),
            Self::HandshakeTimeout => f.write_str("handshake timeout: is the server running at that port?"),
            // A server also sends one if it stopped waiting for the end of the handshake, or if its idle timeout
            // expired.
            Self::StatelessReset => f.write_str(
                "the peer no longer knows the connection (stateless reset): it was restarted, or gave up while the \
                 network was down",
            ),
            Self::VersionMismatch => f.write_str("the server speaks no version of QUIC that is spoken here"),
            Self::Shutdown => f.write_str("the endpoint shut down"),
        }
    }
}

/// An event on a connection.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete (RFC 9001 §4.1.1).
    Connected {
        /// The negotiated application protocol.
        alpn: Vec<u8>,
        /// What else TLS negotiated, and the peer's certificates.
        tls: Arc<TlsInfo>,
    },
    /// News of 0-RTT (RFC 9001 §4.6), before [`Event::Connected`].
    EarlyData {
        /// What has become of it.
        state: EarlyData,
    },
    /// On a server: data of a stream has arrived as 0-RTT data. Comes before the events that report the data, and only
    /// before [`Event::Connected`]: until then, the packets may be copies of those of a client that is not there. With
    /// the end of the handshake, the client confirms that it has sent them now.
    EarlyBytes {
        /// The stream.
        id: StreamId,
        /// Bytes before this offset are meant, unless they arrive after [`Event::Connected`].
        until: u64,
    },
    /// The peer opened a stream. This is raised for the first frame that refers to the stream; because of loss and
    /// reordering, streams may be reported in another order than that of their IDs.
    StreamOpened {
        /// The stream.
        id: StreamId,
    },
    /// The peer raised its stream limit.
    StreamsAvailable {
        /// The kind of streams.
        dir: Dir,
    },
    /// A pooled stream has new contiguous bytes (or its end) to read. When the connection ends other than by a local
    /// `close`, this is raised again for every stream with untaken bytes: they can be read until the application has
    /// received `Closed` and polls the next event.
    #[non_exhaustive]
    Readable {
        /// The stream.
        id: StreamId,
    },
    /// A stream with provided buffers has received new contiguous bytes.
    #[non_exhaustive]
    Progress {
        /// The stream.
        id: StreamId,
        /// Number of contiguous bytes from the start of the stream.
        contiguous: u64,
    },
    /// A provided buffer is returned. This happens exactly once for every buffer.
    #[non_exhaustive]
    Buffer {
        /// The stream.
        id: StreamId,
        /// The buffer.
        buf: PinnedBuf,
        /// Stream offset of its first byte.
        offset: u64,
        /// Number of contiguous valid bytes at its front.
        valid: usize,
    },
    /// All bytes up to the final size have arrived (and, with provided buffers, were returned in `Buffer`s).
    #[non_exhaustive]
    Finished {
        /// The stream.
        id: StreamId,
        /// Final size in bytes.
        size: u64,
        /// The stream's bytes by kind of placement.
        placement: PlacementStats,
    },
    /// The peer reset its sending part of the stream.
    Reset {
        /// The stream.
        id: StreamId,
        /// Application error code.
        code: u64,
        /// Final size in bytes.
        size: u64,
    },
    /// Provided space runs low: the peer will stall unless more is provided. Raised when fewer than
    /// [`receive_low_water`](crate::quic::TransportConfig::receive_low_water) bytes, and less than half of all provided
    /// bytes, are unfilled; earlier on paths with a rate and a round-trip time that need more space
    /// ([`max_window`](crate::quic::TransportConfig::max_window)). Raised again only when the peer has used some of the space provided since, or reports that
    /// it is blocked. Not raised once the end of the stream is known to fit into the provided space.
    ReceiveBufferLow {
        /// The stream.
        id: StreamId,
        /// Number of provided bytes that are not yet filled.
        provided_left: u64,
        /// Number of bytes to provide to reach the low-water mark, or the space that the path needs if that is more.
        wanted: u64,
    },
    /// The peer had more data than space was provided on a stream with [`OutOfSpace::Stop`], so the stream was stopped.
    /// Its buffers were returned before.
    #[non_exhaustive]
    OutOfSpace {
        /// The stream.
        id: StreamId,
        /// Total number of bytes provided.
        provided: u64,
    },
    /// The peer asked to stop sending; the stream was reset with this code.
    Stopped {
        /// The stream.
        id: StreamId,
        /// Application error code.
        code: u64,
    },
    /// There is send budget again after `send` returned `Blocked`, or the peer's window has opened after `send_window`
    /// returned 0.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// Data passed to `send` is returned, because it was acknowledged or the stream ended before. A pinned buffer with
    /// no bytes to send is returned immediately.
    SendDone {
        /// The stream.
        id: StreamId,
        /// The data.
        data: SendData,
        /// Number of acknowledged bytes.
        acked: usize,
    },
    /// All data and the FIN were acknowledged.
    SendFinished {
        /// The stream.
        id: StreamId,
    },
    /// Received datagrams wait to be taken ([`Conn::take_datagram`](crate::quic::Conn::take_datagram)). Raised again only
    /// when another one arrives after one was taken. If the connection ends other than by a local `close`, those not
    /// taken remain until the application has received `Closed` and polls the next event.
    DatagramsReadable,
    /// A buffer provided for datagrams is returned. This happens exactly once for every buffer.
    #[non_exhaustive]
    DatagramBuffer {
        /// The buffer.
        buf: PinnedBuf,
        /// Length of the datagram at its front; `None` if the connection ended before one arrived. What lies behind it is
        /// undefined.
        received: Option<usize>,
    },
    /// Few of the buffers provided for datagrams are unused; datagrams for which there is none are dropped. Raised once
    /// until more are provided.
    DatagramSpaceLow {
        /// Number of unused buffers.
        left: usize,
    },
    /// The memory of a datagram is returned. This happens exactly once for each that was accepted for sending, as soon
    /// as it was encrypted into a packet, or dropped.
    DatagramDone {
        /// The datagram.
        id: DatagramId,
        /// Its memory.
        data: SendData,
        /// What became of it.
        outcome: DatagramOutcome,
    },
    /// The peer has acknowledged the packet with a datagram that was sent. Whether its application has received the
    /// datagram is another matter (RFC 9221 §5.2).
    DatagramAcked {
        /// The datagram.
        id: DatagramId,
    },
    /// The packet with a datagram that was sent is considered lost. The datagram is not sent again. If the packet turns
    /// out to have arrived late, `DatagramAcked` follows (RFC 9221 §5.2); this is remembered for the last 256 losses.
    /// Otherwise, each datagram sent is reported either as acknowledged or as lost, unless the connection ends before.
    DatagramLost {
        /// The datagram.
        id: DatagramId,
    },
    /// There is room in the queue of datagrams to send after one was refused.
    DatagramsWritable,
    /// A path that this end probes is valid (RFC 9000 §8.2).
    PathValidated {
        /// The local address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// The validation of a path has failed. The connection goes on without it.
    PathFailed {
        /// The local address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// This end has moved to another path (RFC 9000 §9.2): from another local address, or to the server's preferred
    /// address.
    Migrated {
        /// The local address in use.
        local: SocketAddr,
        /// The peer's address in use.
        remote: SocketAddr,
    },
    /// The peer has moved to another address, which is validated, or has returned to an earlier one (RFC 9000 §9.3).
    PeerMigrated {
        /// The local address in use.
        local: SocketAddr,
        /// The peer's address in use.
        remote: SocketAddr,
    },
    /// The connection has ended. This is always its last event.
    Closed {
        /// The reason.
        reason: CloseReason,
    },
}
