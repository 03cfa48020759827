//! What happens to a connection, told to whoever wants to record it: packets with their frames, and changes of state.
//!
//! The engine knows nothing of files or formats. A [`Tracer`] makes a [`TraceSink`] for each core, which decides which
//! connections are traced and is told their [`TraceEvent`]s. Without a tracer, a connection has one flag that is looked
//! at where the usual path has branches anyway; the fast paths for runs and bursts know nothing of it, as traced
//! connections do not take them. Events are typed; whatever has no fixed size, such as the frames of a packet, is passed
//! along as bytes, so that nothing is allocated for a packet.
//!
//! Application data is never part of an event, and neither are keys.

pub mod frames;
mod watch;

use std::fmt;
use std::net::SocketAddr;

use crate::base::Side;
use crate::base::time::{Duration, Instant};
use crate::quic::event::{CloseReason, ConnId};
use crate::quic::stats::DropReason;
use crate::wire::quic::header::PacketType;
use crate::wire::quic::params::TransportParameters;
use crate::wire::quic::{ConnectionId, StreamId};

pub(crate) use watch::{Moment, Seen, Watch};

/// Maximum number of versions of a Version Negotiation packet that are told.
pub(crate) const MAX_VERSIONS: usize = 64;

/// Makes the sinks of all cores.
pub trait Tracer: fmt::Debug + Send + Sync {
    /// The sink of one core's engine. It is called when the engine is made.
    fn sink(&self) -> Box<dyn TraceSink>;
}

/// Takes the events of traced connections. Its methods are called in the poll loop, so they must not wait.
pub trait TraceSink: fmt::Debug + Send {
    /// Whether a new connection is traced.
    fn begin(&mut self, now: Instant, start: &TraceStart) -> bool;

    /// Takes an event of a traced connection. `bytes` is the part of it that has no fixed size, as [`TraceEvent`] says
    /// for each. `now` is earlier than that of the event before if a packet is handled as of the time when it arrived.
    fn record(&mut self, now: Instant, conn: ConnId, event: TraceEvent, bytes: &[u8]);

    /// Whether nothing more of the connection is wanted, so that its tracing, and what it costs, can end.
    fn is_full(&self, conn: ConnId) -> bool;

    /// Takes note of a traced connection's end.
    fn end(&mut self, now: Instant, conn: ConnId);

    /// Called from time to time, when the core is idle.
    fn rest(&mut self, now: Instant);
}

/// What is known of a connection when its trace begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceStart {
    /// The connection.
    pub conn: ConnId,
    /// Our role.
    pub side: Side,
    /// The destination ID of the client's first packet. The client has chosen it.
    pub original_dcid: ConnectionId,
    /// The time on the wall clock, since 1970, as far as the endpoint knows it
    /// ([`EndpointConfig::time_base`](crate::quic::EndpointConfig::time_base)).
    pub wall: Duration,
}

/// A packet that was sent or received. The bytes are its header without protection, followed by its frames
/// ([`frames::squeeze`]). Those of a Retry or Version Negotiation packet are the whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedPacket {
    /// Whether it was sent.
    pub sent: bool,
    /// Its type.
    pub kind: PacketType,
    /// The packet number; 0 if the type has none.
    pub pn: u64,
    /// Length of the encoded packet number in bytes.
    pub pn_len: u8,
    /// Length of the packet with its authentication tag, in bytes.
    pub len: u16,
    /// Length of its header in the bytes.
    pub header_len: u16,
    /// The number of the datagram that it was in, among those sent or those received.
    pub datagram: u32,
    /// The exponent of the ACK Delay field in its frames.
    pub ack_delay_exponent: u8,
    /// Why it was sent or handled now.
    pub cause: PacketCause,
    /// Our address and the peer's, if they are not those of the path in use.
    pub elsewhere: Option<(SocketAddr, SocketAddr)>,
}

/// Why a packet was sent or handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketCause {
    /// The usual.
    #[default]
    None,
    /// It is sent as a probe timeout has expired (RFC 9002 §6.2.4).
    ProbeTimeout,
    /// It is sent to find out whether the path carries datagrams of this size (RFC 9000 §14.4).
    MtuProbe,
    /// It arrived before its keys.
    KeysAvailable,
}

/// The metrics of loss recovery and congestion control on the path in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Smallest round-trip time; `None` before the first sample, as for the other three.
    pub min_rtt: Option<Duration>,
    /// Smoothed round-trip time.
    pub smoothed_rtt: Option<Duration>,
    /// Latest round-trip time.
    pub latest_rtt: Option<Duration>,
    /// Variation of the round-trip time.
    pub rtt_variance: Option<Duration>,
    /// Number of probe timeouts in a row.
    pub pto_count: Option<u32>,
    /// Congestion window in bytes.
    pub congestion_window: Option<u64>,
    /// Bytes in flight.
    pub bytes_in_flight: Option<u64>,
    /// Slow start threshold in bytes; `None` before the first reduction.
    pub ssthresh: Option<u64>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionState {
    /// The first packet was sent or received.
    Attempted,
    /// There are Handshake keys.
    HandshakeStarted,
    /// The handshake is complete (RFC 9001 §4.1.1).
    HandshakeComplete,
    /// It is confirmed (RFC 9001 §4.1.2).
    HandshakeConfirmed,
    /// Closed by this end.
    Closing,
    /// Closed by the peer.
    Draining,
    /// Over.
    Closed,
}

/// Keys by their level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLevel {
    /// Of Initial packets.
    Initial,
    /// Of Handshake packets.
    Handshake,
    /// Of 0-RTT packets.
    ZeroRtt,
    /// Of 1-RTT packets.
    OneRtt,
}

/// Why keys have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCause {
    /// As TLS says.
    Tls,
    /// This end has begun an update.
    Local,
    /// The peer has begun an update.
    Remote,
}

/// State of congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CongestionState {
    /// RFC 9002 §7.3.1.
    SlowStart,
    /// RFC 9002 §7.3.3.
    Avoidance,
    /// RFC 9002 §7.3.2.
    Recovery,
}

/// State of ECN on a path (RFC 9000 §A.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcnState {
    /// The first datagrams are marked.
    Testing,
    /// The test is over, and no mark is confirmed yet.
    Unknown,
    /// It does not work.
    Failed,
    /// It works.
    Capable,
}

/// Why a packet is considered lost (RFC 9002 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// Later packets were acknowledged.
    Reordering,
    /// It took too long.
    Time,
}

/// What the timer of loss recovery does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerChange {
    /// It expires after this time.
    Set(Duration),
    /// It has expired.
    Expired,
    /// It is off.
    Cancelled,
}

/// A change of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamChange {
    /// Its sending side was opened.
    SendOpened,
    /// Its receiving side was opened.
    ReceiveOpened,
    /// Sending is over: everything was acknowledged, or the peer wants no more.
    SendClosed,
    /// Receiving is over: everything has arrived, or was given up.
    ReceiveClosed,
}

/// What happened to a connection. Where nothing is said of the bytes passed along, there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// The connection began.
    Started {
        /// Our address.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
    },
    /// Versions that are spoken: the bytes are the numbers of the server's, then the client's, four bytes each.
    Versions {
        /// How many are the server's.
        server: u8,
        /// The version to use; `None` if there is none in common.
        chosen: Option<u32>,
    },
    /// Application protocols: the bytes are those of the list, then the chosen one, each after a byte with its length.
    Alpn {
        /// Whose list it is.
        list: Option<Side>,
        /// Whether one was chosen.
        chosen: bool,
    },
    /// Transport parameters.
    Parameters {
        /// Whether they are ours.
        local: bool,
        /// The parameters.
        params: Box<TransportParameters>,
    },
    /// A client sends 0-RTT packets under these limits of an earlier connection, by the names of transport parameters.
    Restored(Vec<(&'static str, u64)>),
    /// The cipher suite is known by this name.
    Cipher(&'static str),
    /// Parameters of loss recovery (RFC 9002 §A.2, §B.2).
    RecoveryParameters {
        /// Assumed round-trip time.
        initial_rtt: Duration,
        /// Datagram size in bytes.
        max_datagram: u16,
        /// Part of the window that remains after a loss, in percent.
        reduction: u8,
    },
    /// A packet was sent or received.
    Packet(TracedPacket),
    /// A packet was dropped.
    Dropped {
        /// Why.
        reason: DropReason,
        /// Its type, if it is known to be the only packet of its datagram.
        kind: Option<PacketType>,
        /// Length of the datagram in bytes.
        len: u16,
    },
    /// A packet is kept until there are keys for it.
    Buffered {
        /// Its type.
        kind: PacketType,
        /// Its length in bytes.
        len: u16,
    },
    /// The ECN codepoint of datagrams has changed, beginning with one.
    Ecn {
        /// Whether they are sent.
        sent: bool,
        /// The codepoint.
        codepoint: u8,
        /// The number of the first such datagram.
        datagram: u32,
    },
    /// Packets of the space of this type were acknowledged for the first time. The bytes are their numbers, eight bytes
    /// each.
    Acked(PacketType),
    /// A packet is considered lost.
    Lost {
        /// The type of the packets of its space; 0-RTT packets are in that of 1-RTT packets.
        space: PacketType,
        /// Its number.
        pn: u64,
        /// Whether it was a probe for a larger datagram size.
        mtu_probe: bool,
        /// Why.
        cause: LossCause,
    },
    /// Data will be sent again. The bytes are the frames that it was sent in ([`frames::push`]).
    Retransmit,
    /// Metrics have changed: those that have are present.
    Metrics(Metrics),
    /// Congestion control is in another state.
    Congestion {
        /// The state before.
        old: Option<CongestionState>,
        /// The state.
        new: CongestionState,
    },
    /// The connection is in another state.
    State {
        /// The state before.
        old: Option<ConnectionState>,
        /// The state.
        new: ConnectionState,
    },
    /// The peer's address was validated (RFC 9000 §8.1).
    PeerValidated,
    /// There are new keys.
    KeyUpdated {
        /// Whose packets they protect.
        of: Side,
        /// The level.
        level: KeyLevel,
        /// The number of updates since the first 1-RTT keys.
        phase: u64,
        /// The cause.
        cause: KeyCause,
    },
    /// Keys were discarded.
    KeyDiscarded {
        /// Whose packets they protect.
        of: Side,
        /// The level.
        level: KeyLevel,
        /// The number of updates since the first 1-RTT keys.
        phase: u64,
        /// The cause.
        cause: KeyCause,
    },
    /// Another connection ID is in use.
    ConnectionId {
        /// Whether it is an ID of ours, in packets of the peer.
        local: bool,
        /// The ID before.
        old: ConnectionId,
        /// The ID.
        new: ConnectionId,
    },
    /// The spin bit of packets to send has changed.
    Spin(bool),
    /// The size of datagrams has changed, or the search for it has ended.
    Mtu {
        /// The size before, in bytes.
        old: u16,
        /// The size.
        new: u16,
        /// Whether the search is over.
        done: bool,
    },
    /// ECN on the path in use is in another state.
    EcnState {
        /// The state before.
        old: Option<EcnState>,
        /// The state.
        new: EcnState,
    },
    /// The connection uses this path from now on.
    Path {
        /// Our address.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
    },
    /// A path was probed.
    Probed {
        /// Our address.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// Whether the peer has answered.
        valid: bool,
    },
    /// The timer of loss recovery has changed.
    Timer(TimerChange),
    /// Whether the peer's limit on the data of all streams holds us up.
    Blocked(bool),
    /// A stream has changed.
    Stream {
        /// The stream.
        id: StreamId,
        /// What has changed.
        change: StreamChange,
        /// Whether this end has caused it.
        local: bool,
    },
    /// The connection was closed.
    Closed(Box<CloseReason>),
}

/// Two cache lines and a bit: it is copied for every packet.
const _: () = assert!(size_of::<TraceEvent>() <= 136);

/// The sink of an engine, and what it has been told of each connection.
#[derive(Debug)]
pub(crate) struct Tracing {
    sink: Box<dyn TraceSink>,
    /// [`EndpointConfig::time_base`](crate::quic::EndpointConfig::time_base).
    pub(crate) time_base: Duration,
    watches: std::collections::HashMap<ConnId, Watch>,
    /// The latest time of an event.
    latest: Instant,
    /// Bytes of the event being made, and a packet's contents.
    bytes: Vec<u8>,
    plain: Vec<u8>,
    /// Whether packets are handled that arrived before their keys.
    pub(crate) replays: bool,
    /// Addresses of the packet that is about to be sealed, if it may go by another path than the one in use. It is not
    /// marked for ECN.
    pub(crate) stray: Option<(SocketAddr, SocketAddr)>,
}

impl Tracing {
    pub(crate) fn new(sink: Box<dyn TraceSink>, time_base: Duration) -> Self {
        Self {
            sink,
            time_base,
            watches: std::collections::HashMap::new(),
            latest: Instant::ZERO,
            bytes: Vec::new(),
            plain: Vec::new(),
            replays: false,
            stray: None,
        }
    }

    /// Begins the trace of a connection, if the sink wants it.
    pub(crate) fn begin(&mut self, now: Instant, start: &TraceStart) -> bool {
        let wanted = self.sink.begin(now, start);
        if wanted {
            self.watches.insert(start.conn, Watch::new(start.side));
        }
        wanted
    }

    /// Records an event without bytes.
    pub(crate) fn record(&mut self, now: Instant, conn: ConnId, event: TraceEvent) {
        self.latest = self.latest.max(now);
        self.sink.record(now, conn, event, &[]);
    }

    /// Records an event where only a time not later than the present is known: `now`.
    pub(crate) fn record_late(&mut self, now: Instant, conn: ConnId, event: TraceEvent) {
        self.record(now.max(self.latest), conn, event);
    }

    /// Records an event with the bytes that `write` appends.
    pub(crate) fn record_with(
        &mut self,
        now: Instant,
        conn: ConnId,
        event: TraceEvent,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.bytes.clear();
        write(&mut self.bytes);
        self.latest = self.latest.max(now);
        self.sink.record(now, conn, event, &self.bytes);
    }

    /// Records a packet whose frames are in `payload`.
    pub(crate) fn record_packet(
        &mut self,
        now: Instant,
        conn: ConnId,
        packet: TracedPacket,
        header: &[u8],
        payload: &[u8],
    ) {
        self.record_with(now, conn, TraceEvent::Packet(packet), |bytes| {
            bytes.extend_from_slice(header);
            frames::squeeze(payload, bytes);
        });
    }

    /// Compares a connection with what the sink was told, and tells what has changed.
    pub(crate) fn compare(&mut self, now: Instant, conn: ConnId, seen: &Seen, moment: Moment) {
        let Some(watch) = self.watches.get_mut(&conn) else { return };
        let sink = &mut self.sink;
        self.latest = self.latest.max(now);
        watch.compare(now, seen, moment, |event| sink.record(now, conn, event, &[]));
    }

    /// What the sink was told of a connection.
    pub(crate) fn watch(&mut self, conn: ConnId) -> Option<&mut Watch> {
        self.watches.get_mut(&conn)
    }

    /// Room for the contents of a packet of `len` bytes, to be returned to [`Tracing::return_room`].
    pub(crate) fn borrow_room(&mut self, len: usize) -> Vec<u8> {
        let mut room = std::mem::take(&mut self.plain);
        room.clear();
        room.resize(len, 0);
        room
    }

    /// Takes room back.
    pub(crate) fn return_room(&mut self, room: Vec<u8>) {
        self.plain = room;
    }

    /// Whether the trace of a connection is to end before the connection.
    pub(crate) fn is_full(&self, conn: ConnId) -> bool {
        self.sink.is_full(conn)
    }

    /// Ends the trace of a connection.
    pub(crate) fn end(&mut self, now: Instant, conn: ConnId) {
        if self.watches.remove(&conn).is_some() {
            self.sink.end(now, conn);
        }
    }

    /// Called when the core is idle.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.sink.rest(now);
    }
}
