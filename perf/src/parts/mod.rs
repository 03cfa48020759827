//! The measurements of each part.

pub mod alone;
pub mod bulk;
pub mod conns;
pub mod cores;
pub mod floods;
pub mod handshakes;
pub mod icount;
pub mod idle;
pub mod kernels;
pub mod packets;
pub mod pair;
pub mod peers;
pub mod placement;
pub mod requests;
pub mod stages;
pub mod transfer;
pub mod veth;

use crate::Failure;
use crate::part::Part;
use crate::run::Run;

impl Part {
    /// Measures the part.
    ///
    /// # Errors
    /// If the measurement fails.
    pub fn measure(self, run: &mut Run) -> Result<(), Failure> {
        match self {
            Self::Placement => placement::measure(run),
            Self::Packets => packets::measure(run),
            Self::Bulk1500 => bulk::measure(run, 1500),
            Self::Bulk9000 => bulk::measure(run, 9000),
            Self::Rr => requests::round_trips(run),
            Self::Rps => requests::pipelined(run),
            Self::Idle => idle::measure(run),
            Self::Stages => stages::measure(run),
            Self::Hps => handshakes::measure(run),
            Self::Conns => conns::measure(run),
            Self::Cores => cores::measure(run),
            Self::Floods => floods::measure(run),
            Self::Icount => icount::measure(run),
            Self::Wan => crate::wan::measure(run),
            Self::AfPacket => {
                veth::measure(run, "af-packet", "af_packet", 1500)?;
                veth::measure(run, "af-packet", "af_packet_9000", 9000)
            }
            Self::AfXdp => veth::measure(run, "af-xdp", "af_xdp", 1500),
            Self::Peers => peers::measure(run),
        }
    }
}
