//! What the network layers of several cores on one port tell each other.

use std::net::IpAddr;

use crate::base::time::Duration;
use crate::net::neighbor::News;
use crate::wire::eth::Mac;

/// A message about a neighbour that the receiving core did not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overheard {
    pub(super) ip: IpAddr,
    pub(super) mac: Option<Mac>,
    pub(super) news: News,
}

impl Overheard {
    /// The neighbour.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether it answers a question, which another core may have asked.
    pub fn is_answer(&self) -> bool {
        matches!(self.news, News::Answer { .. })
    }
}

/// News for the other cores of a group. They take it with [`Net::take_news`](super::Net::take_news).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupNews {
    /// A neighbour is asked for its MAC address. The answer may reach any core.
    Asked {
        /// Its address.
        ip: IpAddr,
    },
    /// A neighbour has answered this core, or has another MAC address than before.
    Neighbor {
        /// Its address.
        ip: IpAddr,
        /// Its MAC address.
        mac: Mac,
    },
    /// A neighbour has sent a message that may matter to other cores.
    Overheard(Overheard),
    /// Another station claims one of our addresses. For core 0.
    Claimed {
        /// The address.
        ip: IpAddr,
        /// The other station.
        mac: Mac,
        /// It uses the address; otherwise, it asks whether it may.
        uses: bool,
    },
    /// An address is ours: nobody else has claimed it. From core 0.
    AddressHeld {
        /// The address.
        ip: IpAddr,
    },
    /// An address was given up, as another station has it. From core 0.
    AddressLost {
        /// The address.
        ip: IpAddr,
        /// The other station.
        mac: Mac,
    },
    /// A multicast router asks for reports. For core 0.
    ListenerQuery {
        /// When the report is due at the latest.
        max_delay: Duration,
    },
}
