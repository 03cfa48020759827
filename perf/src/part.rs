//! The parts of the benchmarks.

use clap::ValueEnum;

/// A part of the benchmarks, with its name for `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Three ways of delivering stream bytes to the application's memory.
    Placement,
    /// Nanoseconds per packet of receiver and sender, allocations and copies.
    Packets,
    /// One connection, one stream, over memif, MTU 1500.
    #[value(name = "bulk_1500")]
    Bulk1500,
    /// The same with MTU 9000.
    #[value(name = "bulk_9000")]
    Bulk9000,
    /// One small request after another.
    Rr,
    /// Small requests, pipelined.
    Rps,
    /// Poll loops that spin, yield and sleep: the first packet after a pause, and overcommitted CPUs.
    Idle,
    /// Where a packet's time goes inside the engine.
    Stages,
    /// Handshakes.
    Hps,
    /// Many connections.
    Conns,
    /// Two cores at once: how throughput grows, and packets that arrive at the wrong core.
    Cores,
    /// Floods: the cost of an attacker's byte.
    Floods,
    /// Instructions per packet.
    Icount,
    /// Links of the Internet, in virtual time.
    Wan,
    /// Bulk over raw sockets on a veth pair, MTU 1500 and 9000.
    #[value(name = "af_packet")]
    AfPacket,
    /// Bulk over XDP sockets on a veth pair, which do not support jumbo frames there.
    #[value(name = "af_xdp")]
    AfXdp,
    /// Bulk with more implementations.
    Peers,
}

impl Part {
    /// All parts, in the order in which they run.
    pub const ALL: [Self; 17] = [
        Self::Placement,
        Self::Packets,
        Self::Bulk1500,
        Self::Bulk9000,
        Self::Rr,
        Self::Rps,
        Self::Idle,
        Self::Stages,
        Self::Hps,
        Self::Conns,
        Self::Cores,
        Self::Floods,
        Self::Icount,
        Self::Wan,
        Self::AfPacket,
        Self::AfXdp,
        Self::Peers,
    ];

    /// Its name.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
