//! What is known of the peer.

use crate::wire::quic::params::TransportParameters;

/// The peer's transport parameters that matter after the handshake.
#[derive(Debug)]
pub(super) struct PeerLimits {
    /// Whether the peer's parameters have arrived; until then, these are the defaults.
    pub(super) known: bool,
    pub(super) max_idle_timeout: u64,
    /// In microseconds: what it has announced, or what we have asked for since.
    pub(super) max_ack_delay: u64,
    pub(super) ack_delay_exponent: u8,
    pub(super) active_connection_id_limit: u64,
    /// Maximum size of DATAGRAM frames in bytes; 0 if it accepts none. Larger values than the maximum mean the same.
    pub(super) max_datagram: u16,
    /// Whether it accepts RESET_STREAM_AT frames.
    pub(super) reset_stream_at: bool,
    /// The shortest delay that may be requested for its acknowledgements, in microseconds; [`NO_REQUESTS`] if it heeds
    /// no requests.
    pub(super) min_ack_delay: u32,
    pub(super) max_udp_payload: u16,
    /// Whether the peer asks us to stay at our address (RFC 9000 §9).
    pub(super) disable_active_migration: bool,
}

/// The peer does not support draft-ietf-quic-ack-frequency.
pub(super) const NO_REQUESTS: u32 = u32::MAX;

impl PeerLimits {
    pub(super) fn of(params: &TransportParameters, known: bool) -> Self {
        Self {
            known,
            max_idle_timeout: params.max_idle_timeout,
            max_ack_delay: params.max_ack_delay.saturating_mul(1000),
            ack_delay_exponent: params.ack_delay_exponent as u8,
            active_connection_id_limit: params.active_connection_id_limit,
            max_datagram: params.max_datagram_frame_size.min(u16::MAX.into()) as u16,
            reset_stream_at: params.reset_stream_at,
            min_ack_delay: params.min_ack_delay.and_then(|min| u32::try_from(min).ok()).unwrap_or(NO_REQUESTS),
            max_udp_payload: params.max_udp_payload_size.min(u64::from(u16::MAX)) as u16,
            disable_active_migration: params.disable_active_migration,
        }
    }
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self::of(&TransportParameters::default(), false)
    }
}
