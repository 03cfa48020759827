//! What an application on a core is, and what it may use.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::base::time::Instant;
use crate::mem::BufPool;
use crate::quic::{ClientConfig, Conn, ConnId, ConnectError, Endpoint, EndpointStats, Event};

/// An application that runs on a core: its methods are called between receiving and sending, and must
/// return soon.
pub trait App {
    /// Something happened on a connection.
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event);

    /// Called once a turn, for what comes from other threads or from the clock.
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// The network cannot reach `remote`, or the router on the way to it.
    fn on_unreachable(&mut self, cx: &mut Context<'_>, remote: IpAddr, why: Unreachable) {
        let _ = (cx, remote, why);
    }

    /// Whether the core may stop as soon as all its connections are gone.
    fn is_done(&self) -> bool {
        false
    }
}

/// Why a host cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreachable {
    /// No host answered for the address (ARP, NDP).
    #[error("no host answers for its address (or its router's): is it up, and on this network?")]
    NoAnswer,
    /// The host says that nobody listens. Anybody can say so: it counts only before a connection stands.
    #[error("nobody listens at that port")]
    PortClosed,
}

/// Why no connection could be started.
#[derive(Debug, Error)]
pub enum ConnectFailure {
    /// No address of ours can talk to that one.
    #[error("no local address can reach {0}: give one of the same family with --addr")]
    NoLocalAddress(IpAddr),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] ConnectError),
}

/// What an application may use while it is called.
#[derive(Debug)]
pub struct Context<'a> {
    now: Instant,
    endpoint: &'a mut Endpoint,
    local_v4: Option<SocketAddr>,
    local_v6: Option<SocketAddr>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        now: Instant,
        endpoint: &'a mut Endpoint,
        local_v4: Option<SocketAddr>,
        local_v6: Option<SocketAddr>,
    ) -> Self {
        Self { now, endpoint, local_v4, local_v6 }
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A connection; `None` when it is gone.
    pub fn conn(&mut self, id: ConnId) -> Option<Conn<'_>> {
        self.endpoint.conn(id)
    }

    /// Starts a connection to `remote`, whose certificate must be for `server_name`.
    ///
    /// # Errors
    /// [`ConnectFailure`] when there is no address to connect from, or the engine refuses.
    pub fn connect(
        &mut self,
        config: &ClientConfig,
        server_name: &str,
        remote: SocketAddr,
    ) -> Result<ConnId, ConnectFailure> {
        let local = if remote.is_ipv4() { self.local_v4 } else { self.local_v6 };
        let local = local.ok_or(ConnectFailure::NoLocalAddress(remote.ip()))?;
        Ok(self.endpoint.connect(self.now, config, server_name, local, remote)?)
    }

    /// Closes a connection; its memory comes back in events.
    pub fn close(&mut self, id: ConnId, code: u64, reason: &str) {
        if let Some(mut conn) = self.endpoint.conn(id) {
            conn.close(code, reason);
        }
    }

    /// Pinned memory of this core.
    pub fn pool(&self) -> &BufPool {
        self.endpoint.pool()
    }

    /// The engine's counters.
    pub fn stats(&self) -> &EndpointStats {
        self.endpoint.stats()
    }

    /// Connections that exist.
    pub fn connection_count(&self) -> usize {
        self.endpoint.connection_count()
    }
}
