//! Counters of the engine.

use crate::base::time::Duration;
use crate::crypto::Way;

/// Why the engine dropped a datagram or a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// The header could not be read.
    Malformed,
    /// An ID of this core, but its connection is gone.
    UnknownConnection,
    /// An Initial packet came to a server in a datagram below 1200 bytes (RFC 9000 §14.1).
    ShortInitial,
    /// A version that we do not speak.
    Version,
    /// The tag does not match: forged, corrupted or for keys that are gone.
    Authentication,
    /// No keys (yet, or any more) for this packet type.
    NoKeys,
    /// A packet number that was received before.
    Duplicate,
    /// From an address that is not the connection's.
    WrongPath,
    /// Too many connections or handshakes.
    Overload,
    /// For a connection that has ended.
    Closed,
    /// A packet type that has no meaning here.
    Unexpected,
    /// An authentic packet with stream data that there was no memory for: it is not acknowledged, so that the peer
    /// sends the data again.
    NoMemory,
    /// A Retry whose token leaves no room in an Initial packet.
    LongToken,
    /// An ID that is not of our form, or of another core or server.
    ForeignId,
    /// An ID of a connection that has retired it.
    RetiredId,
    /// A first packet with a Retry token that is forged, expired, or of another client.
    BadToken,
}

impl DropReason {
    /// All reasons with their names.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::Malformed, "quic_malformed"),
        (Self::UnknownConnection, "quic_unknown_connection"),
        (Self::ShortInitial, "quic_short_initial"),
        (Self::Version, "quic_version"),
        (Self::Authentication, "quic_authentication"),
        (Self::NoKeys, "quic_no_keys"),
        (Self::Duplicate, "quic_duplicate"),
        (Self::WrongPath, "quic_wrong_path"),
        (Self::Overload, "quic_overload"),
        (Self::Closed, "quic_closed"),
        (Self::Unexpected, "quic_unexpected"),
        (Self::NoMemory, "quic_no_memory"),
        (Self::LongToken, "quic_long_token"),
        (Self::ForeignId, "quic_foreign_id"),
        (Self::RetiredId, "quic_retired_id"),
        (Self::BadToken, "quic_bad_token"),
    ];
}

/// Bytes of STREAM data by the way they took to the application's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacementStats {
    /// Decrypted from the packet straight to their final address by the bulk kernel.
    pub direct: u64,
    /// Decrypted through a stack block, because their range does not start or end on a cipher block.
    pub staged: u64,
    /// Copied after decryption. Stays 0 but in benchmarks of what other stacks do.
    pub copied: u64,
}

/// Cipher block of every suite's keystream that matters for placement, in bytes.
const BLOCK: usize = 16;

impl PlacementStats {
    /// Counts `len` bytes from offset `from` of a packet.
    pub(crate) fn count(&mut self, way: Way, from: usize, len: usize) {
        let edge = match way {
            Way::Direct => 0,
            Way::StagedEdge => from.next_multiple_of(BLOCK).min(from + len) - from,
            Way::Copied => {
                self.copied += len as u64;
                return;
            }
        };
        self.staged += edge as u64;
        self.direct += (len - edge) as u64;
    }

    /// Adds what another counter has.
    pub fn add(&mut self, other: &Self) {
        self.direct += other.direct;
        self.staged += other.staged;
        self.copied += other.copied;
    }
}

/// State and counters of one stream. Parts that the stream does not have, or has no more, count 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Received bytes by the way they took.
    pub placement: PlacementStats,
    /// Contiguous bytes received from the start of the stream.
    pub contiguous: u64,
    /// Bytes that the application consumed or took (of a pooled stream).
    pub consumed: u64,
    /// Bytes provided so far; 0 for a pooled stream.
    pub provided: u64,
    /// The limit that the peer was told, bytes from the start of the stream.
    pub announced: u64,
    /// The stream's size, once known.
    pub size: Option<u64>,
    /// Bytes handed over to be sent.
    pub queued: u64,
    /// Bytes sent at least once.
    pub sent: u64,
    /// Bytes acknowledged.
    pub acked: u64,
}

/// Counters of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointStats {
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// Bytes of these.
    pub rx_bytes: u64,
    /// QUIC packets authenticated.
    pub rx_packets: u64,
    /// Datagrams sent.
    pub tx_datagrams: u64,
    /// Bytes of these.
    pub tx_bytes: u64,
    /// Connections that began.
    pub connections_opened: u64,
    /// Handshakes that completed.
    pub handshakes: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// Bytes of STREAM data sent that had been sent before.
    pub bytes_resent: u64,
    /// Stateless resets sent.
    pub resets_sent: u64,
    /// "Packet too big" messages that quote nothing a connection can have sent.
    pub too_big_ignored: u64,
    /// "Unreachable" messages that quote nothing a handshake in flight can have sent, or say it again.
    pub undelivered_ignored: u64,
    /// Retry packets sent.
    pub retries_sent: u64,
    /// First packets with a good address token.
    pub tokens_accepted: u64,
    /// Packets kept for a while, as they came before their keys.
    pub packets_kept: u64,
    /// Drops by reason, indexed by [`DropReason`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Received STREAM bytes by the way they took.
    pub placement: PlacementStats,
}

impl EndpointStats {
    pub(crate) fn drop(&mut self, why: DropReason) {
        self.drops[why as usize] += 1;
    }

    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let plain = [
            ("quic_rx_datagrams", self.rx_datagrams),
            ("quic_rx_bytes", self.rx_bytes),
            ("quic_rx_packets", self.rx_packets),
            ("quic_tx_datagrams", self.tx_datagrams),
            ("quic_tx_bytes", self.tx_bytes),
            ("quic_connections_opened", self.connections_opened),
            ("quic_handshakes", self.handshakes),
            ("quic_lost_packets", self.lost_packets),
            ("quic_bytes_resent", self.bytes_resent),
            ("quic_resets_sent", self.resets_sent),
            ("quic_packets_kept", self.packets_kept),
            ("quic_too_big_ignored", self.too_big_ignored),
            ("quic_undelivered_ignored", self.undelivered_ignored),
            ("quic_retries_sent", self.retries_sent),
            ("quic_tokens_accepted", self.tokens_accepted),
            ("quic_bytes_direct", self.placement.direct),
            ("quic_bytes_staged", self.placement.staged),
            ("quic_bytes_copied", self.placement.copied),
        ];
        plain.into_iter().chain(DropReason::ALL.iter().map(|(why, name)| (*name, self.drops[*why as usize])))
    }
}

/// State and counters of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnStats {
    /// Smoothed round-trip time.
    pub srtt: Duration,
    /// Lowest round-trip time seen.
    pub min_rtt: Duration,
    /// Congestion window, bytes.
    pub cwnd: u64,
    /// Bytes sent and neither acknowledged nor lost.
    pub bytes_in_flight: u64,
    /// Largest UDP payload in use, bytes.
    pub mtu: u16,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// Packets received and authenticated.
    pub rx_packets: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// Key updates, by either side.
    pub key_updates: u64,
    /// From the first packet to handshake completion.
    pub handshake_time: Option<Duration>,
    /// Received STREAM bytes by the way they took.
    pub placement: PlacementStats,
}
