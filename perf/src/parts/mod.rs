//! What is measured, part by part.

pub mod bulk;
pub mod conns;
pub mod handshakes;
pub mod icount;
pub mod kernels;
pub mod packets;
pub mod pair;
pub mod peers;
pub mod placement;
pub mod requests;
pub mod stages;
pub mod transfer;
pub mod veth;

use clap::ValueEnum;

use crate::Failure;
use crate::run::Run;

/// A part of the benchmarks, by the name that `--only` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Three ways for stream bytes into the application's memory.
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
    /// Where a packet's time goes inside the engine.
    Stages,
    /// Handshakes.
    Hps,
    /// Many connections.
    Conns,
    /// Instructions per packet.
    Icount,
    /// Bulk over raw sockets on a veth pair, MTU 1500 and 9000.
    #[value(name = "af_packet")]
    AfPacket,
    /// Bulk over XDP sockets on a veth pair; they carry no jumbo frames there.
    #[value(name = "af_xdp")]
    AfXdp,
    /// Bulk with further peers.
    Peers,
}

impl Part {
    /// All parts, in the order in which they run.
    pub const ALL: [Self; 13] = [
        Self::Placement,
        Self::Packets,
        Self::Bulk1500,
        Self::Bulk9000,
        Self::Rr,
        Self::Rps,
        Self::Stages,
        Self::Hps,
        Self::Conns,
        Self::Icount,
        Self::AfPacket,
        Self::AfXdp,
        Self::Peers,
    ];

    /// Its name.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures it.
    ///
    /// # Errors
    /// Whatever keeps it from being measured.
    pub fn measure(self, run: &mut Run) -> Result<(), Failure> {
        match self {
            Self::Placement => placement::measure(run),
            Self::Packets => packets::measure(run),
            Self::Bulk1500 => bulk::measure(run, 1500),
            Self::Bulk9000 => bulk::measure(run, 9000),
            Self::Rr => requests::round_trips(run),
            Self::Rps => requests::pipelined(run),
            Self::Stages => stages::measure(run),
            Self::Hps => handshakes::measure(run),
            Self::Conns => conns::measure(run),
            Self::Icount => icount::measure(run),
            Self::AfPacket => {
                veth::measure(run, "af-packet", "af_packet", 1500)?;
                veth::measure(run, "af-packet", "af_packet_9000", 9000)
            }
            Self::AfXdp => veth::measure(run, "af-xdp", "af_xdp", 1500),
            Self::Peers => peers::measure(run),
        }
    }
}
