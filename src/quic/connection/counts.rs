//! State and counters of a connection.

use crate::quic::connection::Connection;
use crate::quic::stats::{ConnStats, EndpointStats, PlacementStats};

impl Connection {
    /// Number of packets received and authenticated.
    pub(crate) fn packets_read(&self) -> u64 {
        self.stats.rx_packets
    }

    /// UDP payload bytes sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.stats.tx_bytes
    }

    /// State and counters.
    pub(crate) fn stats(&self) -> ConnStats {
        let rtt = self.recovery.rtt();
        ConnStats {
            srtt: rtt.smoothed(),
            min_rtt: rtt.min(),
            cwnd: self.recovery.cwnd(),
            bytes_in_flight: self.recovery.bytes_in_flight(),
            mtu: self.path.mtu.current(),
            version: self.version,
            ecn: self.path.ecn.is_capable(),
            migrations: self.moves,
            ..self.stats
        }
    }

    pub(crate) fn add_placement(&mut self, stats: &mut EndpointStats, placed: &PlacementStats) {
        self.stats.placement.add(placed);
        stats.placement.add(placed);
    }
}
