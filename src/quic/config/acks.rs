//! What is asked of the peer's acknowledgements (draft-ietf-quic-ack-frequency-14).

use crate::base::time::Duration;

/// What we ask the peer's acknowledgements for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckRequests {
    /// Nothing: the peer acknowledges as it likes.
    #[default]
    Never,
    /// At least eight acknowledgements for each congestion window and four for each round-trip time, once slow start is
    /// over: fewer than usual on fast paths.
    Adaptive,
    /// Always the same.
    Fixed {
        /// Maximum number of packets received without an acknowledgement.
        threshold: u32,
        /// Maximum delay. The peer's minimum is used instead if that is more.
        max_delay: Duration,
        /// By how many packets a packet has to be out of order to be acknowledged at once; 0 for never.
        reordering: u32,
    },
}
