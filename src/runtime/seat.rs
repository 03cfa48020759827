//! The place of a core in its group.

use crate::datapath::exchange::Alone;
use crate::runtime::Notes;

/// The place of a core in its group, with its access to the other cores.
#[derive(Debug)]
pub struct Seat<X = Alone> {
    /// The number of the core, from 0.
    pub core: u8,
    /// The number of cores.
    pub cores: u8,
    /// Hands frames over to other cores.
    pub exchange: X,
    /// Exchanges notes with other cores, and wakes those that sleep. Without it, an ARP or NDP answer serves only the core
    /// that it reaches, and frames from other cores do not wake this one.
    pub notes: Option<Notes>,
}

impl Seat {
    /// The seat of a core that belongs to no group.
    pub fn alone() -> Self {
        Self { core: 0, cores: 1, exchange: Alone, notes: None }
    }
}
