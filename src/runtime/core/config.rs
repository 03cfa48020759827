//! The configuration of a core, and the reasons why it stops.

use std::net::IpAddr;

use thiserror::Error;

use crate::base::time::Duration;
use crate::mem::BufPool;
use crate::net::{Cidr, NetConfig};
use crate::quic::{EndpointConfig, ServerConfig};
use crate::runtime::Idle;
use crate::wire::eth::Mac;

/// The configuration of a [`Core`](super::Core).
#[derive(Debug)]
pub struct CoreConfig {
    /// The network layer's settings.
    pub net: NetConfig,
    /// The engine's settings.
    pub endpoint: EndpointConfig,
    /// The configuration of accepted connections; `None` for pure clients.
    pub server: Option<ServerConfig>,
    /// The UDP port to listen on.
    pub listen: Option<u16>,
    /// The UDP ports from which connections are opened, in turn. A device that spreads packets over cores by their flow
    /// then spreads the connections too. If there is none, port 50,000 is used.
    pub client_ports: Vec<u16>,
    /// The pool of pinned memory.
    pub pool: BufPool,
    /// What the core does when it is idle.
    pub idle: Idle,
    /// How long the link may be down if the core does not listen. `None` means 5 s at start, when there are no
    /// connections, and no limit afterwards, as connections have idle timeouts. A core that listens has no limit, since
    /// on some ports the link of a server comes and goes with its clients.
    pub link_patience: Option<Duration>,
}

impl CoreConfig {
    /// A configuration with the address `addr`, memory from the heap and default settings, for a core that does not
    /// accept connections.
    pub fn new(addr: Cidr, endpoint: EndpointConfig) -> Self {
        Self {
            net: NetConfig { addrs: vec![addr], ..NetConfig::default() },
            endpoint,
            server: None,
            listen: None,
            client_ports: Vec::new(),
            pool: BufPool::heap(),
            idle: Idle::default(),
            link_patience: None,
        }
    }

    /// Makes the core accept connections on UDP port `port`.
    #[must_use]
    pub fn serving(self, port: u16, server: ServerConfig) -> Self {
        Self { server: Some(server), listen: Some(port), ..self }
    }
}

/// The reason why a core stopped before its application was done.
#[derive(Debug, Error)]
pub enum RunError {
    /// The link of a client never came up.
    #[error("the link has not come up within {0:?}: {1}")]
    NoLink(Duration, String),
    /// The link went down and stayed down.
    #[error("the link has been down for {0:?}: {1}")]
    LinkDown(Duration, String),
    /// The port's device was removed. It will not come back, so a server does not wait for it either.
    #[error("the port is gone: {0}")]
    PortGone(String),
    /// Another station on the link already uses the last of the core's addresses.
    #[error("{ip} is already in use by {mac}: choose another address, or turn the check off (--dad off)")]
    AddressTaken {
        /// The address.
        ip: IpAddr,
        /// The MAC address of the other station.
        mac: Mac,
    },
}
