//! Counters of the engine.

use crate::base::time::Duration;
use crate::crypto::Way;
use crate::wire::quic::Version;

/// Why the engine dropped a datagram or a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// The header could not be parsed.
    Malformed,
    /// The ID belongs to this core, but its connection is gone.
    UnknownConnection,
    /// An Initial packet came to a server in a datagram below 1200 bytes (RFC 9000 §14.1).
    ShortInitial,
    /// A version that is not supported, or not the connection's.
    Version,
    /// Authentication failed: the packet is forged, corrupted, or for discarded keys.
    Authentication,
    /// There are no keys (yet, or any more) for this packet type.
    NoKeys,
    /// The packet number was received before.
    Duplicate,
    /// The addresses are not those of a path of the connection, and cannot become one.
    WrongPath,
    /// There are too many connections or handshakes.
    Overload,
    /// The connection has ended.
    Closed,
    /// The packet type is not expected here.
    Unexpected,
    /// There is no memory for the stream data of an authentic packet. The packet is not acknowledged, so that the peer
    /// retransmits the data.
    NoMemory,
    /// A Retry token that leaves no room in an Initial packet.
    LongToken,
    /// The ID is not of our form, or belongs to another core or server.
    ForeignId,
    /// The connection has retired this ID.
    RetiredId,
    /// A Retry token that is forged, expired, or of another client.
    BadToken,
    /// A client that was refused, as no more connections are accepted.
    Refused,
    /// A received DATAGRAM frame for which there is no buffer or no memory (RFC 9221 §5.3).
    DatagramNoBuffer,
    /// A received DATAGRAM frame, or an older one, when the queue is full of datagrams that were not taken.
    DatagramOverflow,
}

impl DropReason {
    /// All reasons with their names.
    pub const ALL: [(Self, &'static str); 19] = [
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
        (Self::Refused, "quic_refused"),
        (Self::DatagramNoBuffer, "quic_datagram_no_buffer"),
        (Self::DatagramOverflow, "quic_datagram_overflow"),
    ];
}

/// Received data of STREAM and DATAGRAM frames in bytes, by how it was placed in the application's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacementStats {
    /// Decrypted from the packet directly to the final address by the bulk cipher.
    pub direct: u64,
    /// Decrypted through a block on the stack, because the range does not start or end at a cipher block.
    pub staged: u64,
    /// Copied after decryption. Always 0, except in benchmarks that imitate other stacks.
    pub copied: u64,
}

/// Length of a cipher block, in bytes, as far as it matters for placement; the same for all suites.
const BLOCK: usize = 16;

impl PlacementStats {
    /// Counts `len` bytes at offset `from` of a packet.
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

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        self.direct += other.direct;
        self.staged += other.staged;
        self.copied += other.copied;
    }
}

/// State and counters of one stream. Values of a direction that the stream does not have, or that has ended, are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Received bytes by kind of placement.
    pub placement: PlacementStats,
    /// Number of contiguous bytes received from the start of the stream.
    pub contiguous: u64,
    /// Number of bytes of a pooled stream that the application consumed or took.
    pub consumed: u64,
    /// Number of bytes provided so far; 0 for a pooled stream.
    pub provided: u64,
    /// The flow-control limit announced to the peer, in bytes from the start of the stream.
    pub announced: u64,
    /// The stream's size, once known.
    pub size: Option<u64>,
    /// Bytes queued by the application.
    pub queued: u64,
    /// Bytes sent at least once.
    pub sent: u64,
    /// Bytes acknowledged.
    pub acked: u64,
}

/// Counters of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// Bytes in these datagrams.
    pub rx_bytes: u64,
    /// QUIC packets authenticated.
    pub rx_packets: u64,
    /// Datagrams sent.
    pub tx_datagrams: u64,
    /// Bytes in these datagrams.
    pub tx_bytes: u64,
    /// Connections started or accepted.
    pub connections_opened: u64,
    /// Handshakes that completed.
    pub handshakes: u64,
    /// Those of version 2.
    pub handshakes_v2: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// Retransmitted bytes of STREAM data.
    pub bytes_resent: u64,
    /// Stateless resets sent.
    pub resets_sent: u64,
    /// Ignored "packet too big" messages, which quote no packet that a connection can have sent.
    pub too_big_ignored: u64,
    /// Ignored "unreachable" messages, which quote no packet that a handshake in flight can have sent, or repeat an
    /// earlier report.
    pub undelivered_ignored: u64,
    /// Paths on which marking packets for ECN has proved to work (RFC 9000 §13.4.2).
    pub ecn_validated: u64,
    /// Paths on which marks are lost, changed or not reported, so that nothing is marked any more.
    pub ecn_failed: u64,
    /// Packets received that the network has marked, as it is congested.
    pub ecn_ce: u64,
    /// Reductions of a congestion window because peers have received such packets.
    pub ecn_congestion: u64,
    /// Version Negotiation packets sent.
    pub negotiations_sent: u64,
    /// Clients that began again with another version after a Version Negotiation packet.
    pub negotiations_followed: u64,
    /// Retry packets sent.
    pub retries_sent: u64,
    /// First packets with a valid address token, from a Retry packet or an earlier connection.
    pub tokens_accepted: u64,
    /// Tokens for later connections sent in NEW_TOKEN frames.
    pub new_tokens_sent: u64,
    /// Handshakes that resumed a session of an earlier connection.
    pub handshakes_resumed: u64,
    /// Session tickets sent.
    pub tickets_sent: u64,
    /// Connections on which 0-RTT was accepted.
    pub early_data_accepted: u64,
    /// Connections on which 0-RTT was attempted and rejected.
    pub early_data_rejected: u64,
    /// 0-RTT packets authenticated.
    pub early_packets: u64,
    /// Packets that arrived before their keys and were kept.
    pub packets_kept: u64,
    /// DATAGRAM frames sent.
    pub dgram_frames_sent: u64,
    /// DATAGRAM frames received, including those dropped for lack of space.
    pub dgram_frames_received: u64,
    /// DATAGRAM frames sent and considered lost.
    pub dgram_frames_lost: u64,
    /// Other paths by which authentic packets of peers came.
    pub paths_seen: u64,
    /// PATH_CHALLENGE frames sent.
    pub path_challenges: u64,
    /// PATH_RESPONSE frames sent.
    pub path_responses: u64,
    /// Paths that were validated.
    pub paths_validated: u64,
    /// Paths that were not: their challenges were not answered in time.
    pub paths_failed: u64,
    /// Packets of peers that had moved to a path for which they had provided no connection ID, so that they were not
    /// followed (RFC 9000 §9.5).
    pub moves_without_id: u64,
    /// Drops by reason, indexed by [`DropReason`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Received STREAM and DATAGRAM bytes by kind of placement.
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
            ("quic_handshakes_v2", self.handshakes_v2),
            ("quic_lost_packets", self.lost_packets),
            ("quic_bytes_resent", self.bytes_resent),
            ("quic_resets_sent", self.resets_sent),
            ("quic_packets_kept", self.packets_kept),
            ("quic_dgram_frames_sent", self.dgram_frames_sent),
            ("quic_dgram_frames_received", self.dgram_frames_received),
            ("quic_dgram_frames_lost", self.dgram_frames_lost),
            ("quic_too_big_ignored", self.too_big_ignored),
            ("quic_undelivered_ignored", self.undelivered_ignored),
            ("quic_ecn_validated", self.ecn_validated),
            ("quic_ecn_failed", self.ecn_failed),
            ("quic_ecn_ce", self.ecn_ce),
            ("quic_ecn_congestion", self.ecn_congestion),
            ("quic_negotiations_sent", self.negotiations_sent),
            ("quic_negotiations_followed", self.negotiations_followed),
            ("quic_retries_sent", self.retries_sent),
            ("quic_tokens_accepted", self.tokens_accepted),
            ("quic_new_tokens_sent", self.new_tokens_sent),
            ("quic_handshakes_resumed", self.handshakes_resumed),
            ("quic_tickets_sent", self.tickets_sent),
            ("quic_early_data_accepted", self.early_data_accepted),
            ("quic_early_data_rejected", self.early_data_rejected),
            ("quic_early_packets", self.early_packets),
            ("quic_paths_seen", self.paths_seen),
            ("quic_path_challenges", self.path_challenges),
            ("quic_path_responses", self.path_responses),
            ("quic_paths_validated", self.paths_validated),
            ("quic_paths_failed", self.paths_failed),
            ("quic_moves_without_id", self.moves_without_id),
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
    /// Bytes in flight, neither acknowledged nor lost.
    pub bytes_in_flight: u64,
    /// Maximum UDP payload in use, in bytes.
    pub mtu: u16,
    /// The version in use. It is settled when the handshake is complete.
    pub version: Version,
    /// Whether packets are marked for ECN, as the path has proved to be capable.
    pub ecn: bool,
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
    /// Key updates by either side.
    pub key_updates: u64,
    /// Whether the handshake resumed a session of an earlier connection.
    pub resumed: bool,
    /// Changes of the path by either side.
    pub migrations: u32,
    /// Time from the first packet to the completion of the handshake.
    pub handshake_time: Option<Duration>,
    /// Received STREAM bytes by kind of placement.
    pub placement: PlacementStats,
}
