//! What an application on a core is, and what it may use.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::base::time::Instant;
use crate::mem::BufPool;
use crate::net::{RouteError, Sources};
use crate::quic::{ClientConfig, Conn, ConnId, ConnectError, Endpoint, EndpointStats, Event};
use crate::runtime::Waker;

/// An application that runs on a core: its methods are called between receiving and sending, and must
/// return soon.
pub trait App {
    /// Something happened on a connection.
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event);

    /// Called once a turn, for what comes from other threads or from the clock.
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// What other threads wake the core with when there is something for [`App::on_turn`]. A core that sleeps
    /// ([`Idle`](super::Idle)) looks every 10 ms without it. Asked once, when the core begins to run.
    fn waker(&self) -> Option<Waker> {
        None
    }

    /// When [`App::on_turn`] has something to do that time alone brings. A core that sleeps looks every 10 ms without it.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// The network cannot reach `remote`, or the router on the way to it.
    fn on_unreachable(&mut self, cx: &mut Context<'_>, remote: IpAddr, why: Unreachable) {
        let _ = (cx, remote, why);
    }

    /// [`Core::run`](super::Core::run) is about to return, whatever the reason; nothing follows. Also after a panic of
    /// this application.
    fn on_end(&mut self) {}

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
    /// The host says that nobody listens, and quotes a packet of a handshake that is in flight. It is not told of
    /// connections that are established.
    #[error("nobody listens at that port")]
    PortClosed,
    /// A router on the way says that it knows no way to the host, and quotes a packet of a handshake that is in flight. That
    /// may be so for a moment only (RFC 1122 §4.2.3.9): it explains a handshake that fails, and is no reason to give it up.
    #[error("a router on the way says that the host cannot be reached")]
    NoPath,
}

/// Why no connection could be started.
#[derive(Debug, Error)]
pub enum ConnectFailure {
    /// There is no way there: no route, no address of ours that suits, or not the address of a host.
    #[error(transparent)]
    NoWay(#[from] RouteError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] ConnectError),
}

/// What an application may use while it is called.
pub struct Context<'a> {
    now: Instant,
    endpoint: &'a mut Endpoint,
    sources: &'a dyn Sources,
    client_port: u16,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(now: Instant, endpoint: &'a mut Endpoint, sources: &'a dyn Sources, client_port: u16) -> Self {
        Self { now, endpoint, sources, client_port }
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A connection; `None` when it is gone.
    pub fn conn(&mut self, id: ConnId) -> Option<Conn<'_>> {
        self.endpoint.conn(id)
    }

    /// Starts a connection to `remote`, whose certificate must be for `server_name`. It comes from the address of ours that
    /// suits the route and the destination best (RFC 6724 §5).
    ///
    /// # Errors
    /// [`ConnectFailure`] when no way leads there, or the engine refuses.
    pub fn connect(
        &mut self,
        config: &ClientConfig,
        server_name: &str,
        remote: SocketAddr,
    ) -> Result<ConnId, ConnectFailure> {
        let local = SocketAddr::new(self.sources.local_for(remote.ip())?, self.client_port);
        Ok(self.endpoint.connect(self.now, config, server_name, local, remote)?)
    }

    /// Closes a connection; its memory comes back in events.
    pub fn close(&mut self, id: ConnId, code: u64, reason: &str) {
        if let Some(mut conn) = self.endpoint.conn(id) {
            conn.close(code, reason);
        }
    }

    /// The peer's address of a connection; `None` when it is gone. Looking at it does nothing to the connection, unlike
    /// [`Context::conn`].
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.endpoint.remote(id)
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
