//! The congestion control algorithm of a single connection.

use crate::quic::config::CongestionAlgorithm;
use crate::quic::connection::Conn;

impl Conn<'_> {
    /// Uses another congestion control algorithm from now on. It begins with the initial window, so the best moment is
    /// when the connection is accepted or connected. [`TransportConfig::congestion`](crate::quic::TransportConfig) is
    /// what connections have otherwise.
    pub fn set_congestion(&mut self, algorithm: CongestionAlgorithm) {
        // Only moments to probe at depend on the seed, and every connection has other IDs.
        let cid = self.conn.remote_cids.current();
        let seed =
            cid.iter().fold(self.conn.id.index().into(), |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte));
        self.conn.recovery.set_algorithm(algorithm, seed);
    }

    /// The congestion control algorithm in use.
    pub fn congestion(&self) -> CongestionAlgorithm {
        self.conn.recovery.congestion().algorithm()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Instant;
    use crate::quic::TransportConfig;
    use crate::quic::connection::path::recovery_config;
    use crate::quic::recovery::Recovery;

    #[test]
    fn another_algorithm_begins_anew_with_what_is_in_flight() {
        use crate::quic::recovery::{SentPacket, SpaceId};
        let mut recovery = Recovery::<()>::new(&recovery_config(&TransportConfig::default(), 1), Instant::ZERO);
        recovery.on_packet_sent(SpaceId::Data, 0, SentPacket::new(Instant::ZERO, 1200, true, true, ()));
        assert_eq!(recovery.congestion().algorithm(), CongestionAlgorithm::Cubic);
        for algorithm in [CongestionAlgorithm::Bbr, CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
            recovery.set_algorithm(algorithm, 7);
            assert_eq!(recovery.congestion().algorithm(), algorithm);
            assert_eq!((recovery.bytes_in_flight(), recovery.cwnd()), (1200, 12_000));
        }
    }
}
