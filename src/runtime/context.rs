//! The interface between a core and its application.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::base::time::Instant;
use crate::mem::BufPool;
use crate::net::{RouteError, Sources};
use crate::quic::{ClientConfig, Conn, ConnId, ConnectError, Endpoint, EndpointStats, Event, MigrateError};
use crate::runtime::Waker;

/// An application that runs on a core. Its methods are called from the poll loop and must not block.
pub trait App {
    /// Handles an event of a connection.
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event);

    /// Called once per turn, for work that other threads or the clock bring.
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// The waker that other threads use when there is work for [`App::on_turn`]. Without one, a sleeping core
    /// ([`Idle`](super::Idle)) calls `on_turn` every 10 ms. Called once, when the core starts to run.
    fn waker(&self) -> Option<Waker> {
        None
    }

    /// The time at which [`App::on_turn`] next has work. Without one, a sleeping core calls it every 10 ms.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Called when `remote`, or the router on the way to it, cannot be reached.
    fn on_unreachable(&mut self, cx: &mut Context<'_>, remote: IpAddr, why: Unreachable) {
        let _ = (cx, remote, why);
    }

    /// Called last, when [`Core::run`](super::Core::run) is about to return for whatever reason, including a panic of
    /// this application.
    fn on_end(&mut self) {}

    /// Returns whether the core may stop once all its connections are gone.
    fn is_done(&self) -> bool {
        false
    }
}

/// An application that may be missing. A core without one opens no connections and accepts none, but passes on packets of
/// the other cores of its group that arrive at its queue.
impl<A: App> App for Option<A> {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        if let Some(app) = self {
            app.on_event(cx, conn, event);
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if let Some(app) = self {
            app.on_turn(cx);
        }
    }

    fn waker(&self) -> Option<Waker> {
        self.as_ref().and_then(A::waker)
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.as_ref().and_then(A::next_timeout)
    }

    fn on_unreachable(&mut self, cx: &mut Context<'_>, remote: IpAddr, why: Unreachable) {
        if let Some(app) = self {
            app.on_unreachable(cx, remote, why);
        }
    }

    fn on_end(&mut self) {
        if let Some(app) = self {
            app.on_end();
        }
    }

    fn is_done(&self) -> bool {
        self.as_ref().is_none_or(A::is_done)
    }
}

/// The reason why a host cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreachable {
    /// Nobody answered ARP requests or NDP solicitations for the address.
    #[error("no host answers for its address (or its router's): is it up, and on this network?")]
    NoAnswer,
    /// The host sent an ICMP port unreachable message that quotes a packet of a handshake in flight. Such messages are
    /// not reported for established connections.
    #[error("nobody listens on that port")]
    PortClosed,
    /// A router sent an ICMP message that it has no route to the host, quoting a packet of a handshake in flight. The
    /// condition may be temporary (RFC 1122 §4.2.3.9): it explains a handshake that fails, but is no reason to abandon
    /// it.
    #[error("a router on the way says that the host cannot be reached")]
    NoPath,
}

/// The reason why a connection could not be started.
#[derive(Debug, Error)]
pub enum ConnectFailure {
    /// No route, no suitable source address, or a destination that is not the address of a host.
    #[error(transparent)]
    NoWay(#[from] RouteError),
    /// The engine refused the connection.
    #[error(transparent)]
    Engine(#[from] ConnectError),
}

/// The UDP ports from which a core opens connections, used in turn.
#[derive(Debug)]
pub(super) struct ClientPorts {
    ports: Vec<u16>,
    /// The index of the next.
    next: usize,
}

impl ClientPorts {
    /// The port used if none is configured.
    const DEFAULT: u16 = 50_000;

    pub(super) fn new(mut ports: Vec<u16>) -> Self {
        if ports.is_empty() {
            ports.push(Self::DEFAULT);
        }
        Self { ports, next: 0 }
    }

    fn next(&self) -> u16 {
        self.ports[self.next]
    }

    /// The next port other than `port`, if there is one.
    fn other_than(&mut self, port: u16) -> Option<u16> {
        let at = (0..self.ports.len()).map(|n| (self.next + n) % self.ports.len());
        let at = at.into_iter().find(|at| self.ports[*at] != port)?;
        self.next = (at + 1) % self.ports.len();
        Some(self.ports[at])
    }

    /// A connection was opened from the next port.
    fn take(&mut self) {
        self.next = (self.next + 1) % self.ports.len();
    }
}

/// The facilities of the core that an application may use during a call.
pub struct Context<'a> {
    now: Instant,
    endpoint: &'a mut Endpoint,
    sources: &'a dyn Sources,
    ports: &'a mut ClientPorts,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(
        now: Instant,
        endpoint: &'a mut Endpoint,
        sources: &'a dyn Sources,
        ports: &'a mut ClientPorts,
    ) -> Self {
        Self { now, endpoint, sources, ports }
    }

    /// The time at which this turn began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The number of this core; 0 if it is alone.
    pub fn core(&self) -> u8 {
        self.endpoint.core()
    }

    /// A connection, or `None` if it is gone.
    pub fn conn(&mut self, id: ConnId) -> Option<Conn<'_>> {
        self.endpoint.conn(id)
    }

    /// Starts a connection to `remote`, whose certificate must be valid for `server_name`. The source address is chosen
    /// by route and by RFC 6724 §5, the source port is the next of [`CoreConfig::client_ports`](super::CoreConfig).
    ///
    /// # Errors
    /// [`ConnectFailure`] if there is no route to `remote` or the engine refuses the connection.
    pub fn connect(
        &mut self,
        config: &ClientConfig,
        server_name: &str,
        remote: SocketAddr,
    ) -> Result<ConnId, ConnectFailure> {
        let local = SocketAddr::new(self.sources.local_for(remote.ip())?, self.ports.next());
        let id = self.endpoint.connect(self.now, config, server_name, local, remote)?;
        self.ports.take();
        Ok(id)
    }

    /// Moves a client's connection to another local address ([`Conn::migrate`]): to `to`, which must be an address of
    /// this port, or by default to the next source port of [`CoreConfig::client_ports`](super::CoreConfig), whose
    /// answers arrive at this core if the port's steering is known.
    ///
    /// # Errors
    /// [`MigrateError`] if the connection cannot move, or not now.
    pub fn migrate(&mut self, id: ConnId, to: Option<SocketAddr>) -> Result<(), MigrateError> {
        let mut conn = self.endpoint.conn(id).ok_or(MigrateError::Closed)?;
        let local = conn.local();
        let next = || Some(SocketAddr::new(local.ip(), self.ports.other_than(local.port())?));
        conn.migrate(to.or_else(next).ok_or(MigrateError::InUse)?)
    }

    /// Closes a connection. Its memory comes back in events.
    pub fn close(&mut self, id: ConnId, code: u64, reason: &str) {
        if let Some(mut conn) = self.endpoint.conn(id) {
            conn.close(code, reason);
        }
    }

    /// The peer's address, or `None` if the connection is gone. Unlike [`Context::conn`], this does not touch the
    /// connection.
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.endpoint.remote(id)
    }

    /// The core's pool of pinned memory.
    pub fn pool(&self) -> &BufPool {
        self.endpoint.pool()
    }

    /// The engine's counters.
    pub fn stats(&self) -> &EndpointStats {
        self.endpoint.stats()
    }

    /// The number of connections.
    pub fn connection_count(&self) -> usize {
        self.endpoint.connection_count()
    }
}
