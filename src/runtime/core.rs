//! The poll loop.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::base::limit::Lines;
use crate::base::time::{Duration, Instant};
use crate::crypto::time_keys;
use crate::datapath::{BURST, Burst, Datapath, DatapathStats, RxFrame, TxFrame};
use crate::mem::BufPool;
use crate::net::{Cidr, Net, NetConfig, NetError, NetEvent, NetStats, Quote, Received, Sent, Standing, UdpDatagram};
use crate::quic::{
    Arrival, Endpoint, EndpointConfig, EndpointStats, RxMeta, ServerConfig, TooBig, Transmit, Undelivered,
};
use crate::runtime::idle::Rest;
use crate::runtime::observe::{self, Blind, Mark, Observe};
use crate::runtime::{App, Clock, Context, CoreStats, Idle, Observer, Stages, Unreachable, Waker};
use crate::wire::eth::Mac;

/// The maximum number of events per turn. Bounds how long packets wait for a busy application.
const EVENT_BUDGET: usize = 256;

/// How long a stopping core waits for its last packets to be sent.
const LINGER: Duration = Duration::from_millis(500);

/// Up to this many connections are assumed to stay in the CPU's caches.
const FEW: usize = 32;

/// The maximum number of further panics tolerated while memory is given back after a panic.
const MORE_PANICS: usize = 1000;

/// How long a client waits at start for its link to come up, by default.
const LINK_START: Duration = Duration::from_secs(5);

/// The configuration of a [`Core`].
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
    /// The UDP port from which connections are opened.
    pub client_port: u16,
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
            client_port: 50_000,
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
    /// Another station on the link already uses the last of the core's addresses.
    #[error("{ip} is already in use by {mac}: choose another address, or turn the check off (--dad off)")]
    AddressTaken {
        /// The address.
        ip: IpAddr,
        /// The MAC address of the other station.
        mac: Mac,
    },
}

/// One core: a queue pair, the network layer, the engine and an application.
pub struct Core<D: Datapath, A> {
    datapath: D,
    net: Net<D::Tx>,
    endpoint: Endpoint,
    /// The application.
    pub app: A,
    clock: Clock,
    rest: Rest,
    /// Wakes the sleeping core, besides its port and its timers.
    waker: Waker,
    listen: Option<u16>,
    client_port: u16,
    rx: Burst<D::Rx>,
    tx: Burst<D::Tx>,
    /// A frame that was allocated for sending and not used yet.
    spare: Option<D::Tx>,
    /// The link was up when it was last checked.
    link_up: bool,
    link_lost: Option<Instant>,
    /// The address that was most recently lost to another station.
    taken: Option<(IpAddr, Mac)>,
    link_patience: Option<Duration>,
    stats: CoreStats,
    observer: Option<Box<Observer>>,
    /// The application has panicked and is not called any more.
    app_failed: bool,
    /// Limits log lines about duplicate addresses, which anybody on the link can provoke.
    duplicates: Lines,
}

impl<D: Datapath, A: App> Core<D, A> {
    /// Creates a core.
    ///
    /// # Errors
    /// [`NetError`] if the network settings contradict each other or do not suit the port.
    pub fn new(mut datapath: D, config: CoreConfig, app: A) -> Result<Self, NetError> {
        let clock = Clock::new();
        let caps = datapath.caps();
        let net = Net::new(&config.net, &caps, clock.now())?;
        datapath.set_multicast(&net.groups());
        Ok(Self {
            net,
            endpoint: Endpoint::new(
                EndpointConfig { time_base: clock.wall_base(), ..config.endpoint },
                config.server,
                config.pool,
            ),
            datapath,
            app,
            clock,
            rest: Rest::new(config.idle),
            waker: Waker::new(),
            listen: config.listen,
            client_port: config.client_port,
            rx: Burst::new(),
            tx: Burst::new(),
            spare: None,
            link_up: false,
            link_lost: None,
            taken: None,
            link_patience: config.link_patience,
            stats: CoreStats::default(),
            observer: None,
            app_failed: false,
            duplicates: Lines::new(1),
        })
    }

    /// Attaches an observer. With stage timers, this must happen before there are connections and on the thread that
    /// runs the core, as only keys created afterwards are timed. Stage timers cost some 100 ns per packet, an observer
    /// without them next to nothing, and no observer nothing.
    pub fn observe(&mut self, observer: Observer) {
        time_keys(observer.stages().is_some());
        self.observer = Some(Box::new(observer));
    }

    /// The stage timers, if an observer has them.
    pub fn stages(&self) -> Option<&Stages> {
        self.observer.as_ref()?.stages()
    }

    /// Polls until `stop` is set or the application is done, then closes the remaining connections. On return, for
    /// whatever reason, the application has received `Closed` for every connection and has all its memory back. The
    /// last call is [`App::on_end`].
    ///
    /// # Errors
    /// [`RunError`] if the link is down for too long or the last address is lost to another station.
    ///
    /// # Panics
    /// Resumes a panic of the application. All connections are closed with INTERNAL_ERROR first (RFC 9000 §20.1), which
    /// tells peers not to wait for answers, and the memory that they hold is released. The application is notified only
    /// by [`App::on_end`].
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        // State that a panic left inconsistent is not used further: connections are closed and memory is given back.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let outcome = self.poll(stop);
            self.shut_down();
            outcome
        }));
        if ran.is_err() {
            // The first panic is the one to report.
            let _ = catch_unwind(AssertUnwindSafe(|| self.shut_down_after_panic()));
        }
        let ended = catch_unwind(AssertUnwindSafe(|| self.app.on_end()));
        let outcome = ran.unwrap_or_else(|panic| resume_unwind(panic));
        ended.unwrap_or_else(|panic| resume_unwind(panic));
        outcome
    }

    fn poll(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        self.await_link(stop)?;
        self.await_addresses(stop)?;
        let _precise = self.prepare_rest();
        while !stop.load(Ordering::Relaxed) && !self.is_over() {
            if self.turn() {
                self.rest.busy();
                continue;
            }
            self.check_link()?;
            self.check_addresses()?;
            self.rest(stop);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.app.is_done() && self.endpoint.connection_count() == self.endpoint.draining_count()
    }

    /// Waits for the link: a client that starts before its link is up would lose its first packets. A server does not
    /// wait, as on some ports its link comes and goes with its clients.
    fn await_link(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        let start = self.clock.now();
        while self.listen.is_none() && !self.datapath.link_up() && !stop.load(Ordering::Relaxed) {
            let patience = self.link_patience.unwrap_or(LINK_START);
            if self.clock.now().saturating_since(start) > patience {
                let why = self.datapath.link_problem();
                let usual = || "is the cable plugged in, or the peer process running?".to_owned();
                return Err(RunError::NoLink(patience, why.unwrap_or_else(usual)));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Waits until duplicate address detection has finished: an application that connects needs an address.
    fn await_addresses(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        while !self.net.is_ready() && !stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.watch_link(now);
            self.receive(now, &mut Blind);
            self.poll_net(now);
            self.send(now, &mut Blind);
            self.check_link()?;
            std::thread::yield_now();
        }
        self.check_addresses()
    }

    /// Fails if no address is left.
    fn check_addresses(&self) -> Result<(), RunError> {
        match self.taken {
            Some((ip, mac)) if !self.net.has_addresses() => Err(RunError::AddressTaken { ip, mac }),
            _ => Ok(()),
        }
    }

    /// Closes every connection and sends the last packets.
    fn shut_down(&mut self) {
        let start = self.clock.now();
        self.endpoint.close_all(0, "shutting down");
        self.linger(start);
        self.give_back();
    }

    /// Runs until two successive turns had nothing to send, for at most [`LINGER`].
    fn linger(&mut self, start: Instant) {
        let mut quiet = 0;
        while quiet < 2 && self.clock.now().saturating_since(start) < LINGER {
            quiet = if self.turn() || !self.tx.is_empty() { 0 } else { quiet + 1 };
        }
    }

    /// Like `shut_down`, without calling the application, which has panicked.
    #[cold]
    fn shut_down_after_panic(&mut self) {
        self.app_failed = true;
        let start = self.clock.now();
        tracing::error!(connections = self.endpoint.connection_count(), "the application has panicked: closing");
        self.endpoint.fail_all("the application failed");
        self.linger(start);
        self.endpoint.abandon_all();
        self.discard_events();
    }

    /// Drops all events, and with them the memory that they return.
    #[cold]
    fn discard_events(&mut self) -> bool {
        let (mut any, mut panics) = (false, 0);
        while panics < MORE_PANICS {
            // Dropping application memory runs application code, which may panic too; so may application callbacks in
            // the engine when a new connection arrives.
            match catch_unwind(AssertUnwindSafe(|| self.endpoint.poll_event().map(drop))) {
                Ok(Some(())) => any = true,
                Ok(None) => break,
                Err(_) => panics += 1,
            }
        }
        any
    }

    /// Delivers all remaining events to the application.
    fn give_back(&mut self) {
        let now = self.clock.now();
        if self.app_failed {
            return;
        }
        // The second pass is for connections that the application opens in response to the closing of others.
        for _ in 0..2 {
            self.endpoint.abandon_all();
            while let Some((id, event)) = self.endpoint.poll_event() {
                let mut cx = Context::new(now, &mut self.endpoint, &self.net, self.client_port);
                self.app.on_event(&mut cx, id, event);
                self.stats.events += 1;
            }
        }
    }

    /// Reports link changes to the network layer, which checks and announces addresses at each link-up.
    fn watch_link(&mut self, now: Instant) {
        let up = self.datapath.link_up();
        if up != self.link_up {
            self.link_up = up;
            if up {
                self.net.link_up(now);
            } else {
                self.net.link_down(now);
            }
        }
    }

    fn check_link(&mut self) -> Result<(), RunError> {
        if self.link_up {
            self.link_lost = None;
            return Ok(());
        }
        let Some(patience) = self.link_patience.filter(|_| self.listen.is_none()) else { return Ok(()) };
        let now = self.clock.now();
        let down = now.saturating_since(*self.link_lost.get_or_insert(now));
        if down < patience {
            return Ok(());
        }
        let why = self.datapath.link_problem();
        Err(RunError::LinkDown(
            down,
            why.unwrap_or_else(|| "the cable is unplugged, or the peer process has ended".to_owned()),
        ))
    }

    /// Runs one turn. Returns `false` if there was nothing to do.
    pub fn turn(&mut self) -> bool {
        self.turn_at(self.clock.now())
    }

    /// Runs one turn at the time `now`, which must never go back, for reproducible simulations and measurements.
    /// Returns `false` if there was nothing to do.
    pub fn turn_at(&mut self, now: Instant) -> bool {
        let Some(mut observer) = self.observer.take() else { return self.observed_turn(now, &mut Blind) };
        let busy = self.observed_turn(now, &mut *observer);
        let publishes = observer.publishes();
        self.observer = Some(observer);
        if let Some(live) = publishes {
            live.publish(self.counters());
        }
        busy
    }

    fn observed_turn(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        seen.at(Mark::TurnBegins);
        self.stats.turns += 1;
        let received = self.receive(now, seen);
        self.poll_net(now);
        let due = self.endpoint.next_timeout().is_some_and(|at| at <= now);
        if due {
            self.endpoint.handle_timeout(now);
            while let Some(peer) = self.endpoint.poll_doubt() {
                self.net.suspect(now, peer);
            }
        }
        let events = self.run_app(now, seen);
        let sent = self.send(now, seen);
        let busy = received || due || events || sent;
        let mut blocked = false;
        if !busy {
            // Without a link no frames are taken, which does not count as blocked.
            blocked = !self.tx.is_empty() && self.link_up;
            self.stats.blocked_turns += u64::from(blocked);
            self.stats.idle_turns += u64::from(!blocked);
            self.watch_link(now);
        }
        seen.at(Mark::TurnEnds { busy, blocked });
        busy
    }

    fn receive(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        if self.datapath.rx_burst(&mut self.rx) == 0 {
            return false;
        }
        seen.at(Mark::BurstArrived);
        self.stats.rx_bursts += 1;
        let mut rx = std::mem::take(&mut self.rx);
        if self.endpoint.connection_count() > FEW {
            self.receive_in_stages(now, &mut rx, seen);
        } else {
            for i in 0..rx.len() {
                if let Some(udp) = self.receive_frame(now, &mut rx, i) {
                    self.deliver(now, &udp, &mut rx[i], seen);
                }
            }
        }
        self.datapath.release(&mut rx);
        self.rx = rx;
        true
    }

    /// Receives in several passes, for when there are so many connections that most are not cached. Each pass
    /// prefetches, for all packets, what the next pass needs, so the waits for memory overlap.
    fn receive_in_stages(&mut self, now: Instant, rx: &mut Burst<D::Rx>, seen: &mut impl Observe) {
        let mut datagrams = ArrayVec::<_, BURST>::new();
        for i in 0..rx.len() {
            if let Some(udp) = self.receive_frame(now, rx, i) {
                let conn = self.endpoint.prefetch(&rx[i].data_mut()[udp.payload.clone()]);
                datagrams.push((i, udp, conn));
            }
        }
        for (_, _, conn) in &datagrams {
            self.endpoint.prefetch_near(*conn);
        }
        for (_, _, conn) in &datagrams {
            self.endpoint.prefetch_far(*conn);
        }
        for (i, udp, _) in datagrams {
            self.deliver(now, &udp, &mut rx[i], seen);
        }
    }

    /// Returns the UDP datagram in frame `i` of a burst, and handles any other frame.
    fn receive_frame(&mut self, now: Instant, rx: &mut Burst<D::Rx>, i: usize) -> Option<UdpDatagram> {
        // Fetch the next frame into the cache while this one is processed.
        if let Some(next) = rx.get(i + 1) {
            next.prefetch();
        }
        match self.net.receive(now, &mut rx[i]) {
            Received::Udp(udp) => return Some(udp),
            Received::PacketTooBig { quote, max_udp_payload: max } => {
                let Quote { local, remote, len, payload } = quote;
                let quoted = &rx[i].data_mut()[payload];
                self.endpoint.packet_too_big(now, &TooBig { local, remote, max, len, quoted });
            }
            Received::PortUnreachable { quote } => self.undelivered(now, &quote, &mut rx[i], Unreachable::PortClosed),
            Received::HostUnreachable { quote } => self.undelivered(now, &quote, &mut rx[i], Unreachable::NoPath),
            Received::Consumed | Received::Dropped(_) => {}
        }
        None
    }

    fn deliver(&mut self, now: Instant, udp: &UdpDatagram, frame: &mut D::Rx, seen: &mut impl Observe) {
        let meta = RxMeta { local: udp.local, remote: udp.remote, ecn: udp.ecn };
        seen.at(Mark::DatagramBegins);
        match self.endpoint.handle_datagram(now, &meta, &mut frame.data_mut()[udp.payload.clone()]) {
            Arrival::Handled => {}
            arrival => self.note_origin(now, arrival, udp, frame),
        }
        seen.at(Mark::DatagramEnds);
    }

    /// Notes the MAC address that a datagram came from. Answers to unvalidated addresses go back to it, and unknown
    /// neighbours are solicited there by unicast, so strangers cannot cause broadcasts.
    #[cold]
    fn note_origin(&mut self, now: Instant, arrival: Arrival, udp: &UdpDatagram, frame: &mut D::Rx) {
        let Some(via) = frame.data_mut().get(6..12).and_then(|mac| mac.first_chunk::<6>()).copied() else { return };
        match arrival {
            Arrival::Answered => self.endpoint.set_answer_origin(via),
            Arrival::Accepted => self.net.heard_from(now, udp.remote.ip(), via),
            Arrival::Handled => {}
        }
    }

    fn poll_net(&mut self, now: Instant) {
        while let Some(event) = self.net.poll_event() {
            match event {
                NetEvent::Unreachable { ip } => self.unreachable(now, ip, Unreachable::NoAnswer),
                NetEvent::Duplicate { ip, mac } => {
                    if let Some(left_out) = self.duplicates.take(now) {
                        let left_out = left_out.count();
                        tracing::warn!(%ip, %mac, left_out, "another host also uses our address; packets may go to it");
                    }
                }
                NetEvent::AddressLost { ip, mac } => {
                    tracing::error!(%ip, %mac, "another host has our address; no longer using it");
                    self.taken = Some((ip, mac));
                }
                NetEvent::RouterSilent { ip } => {
                    tracing::warn!(%ip, "a router does not answer; using another one meanwhile");
                }
                NetEvent::Group(_) => {}
            }
        }
    }

    /// Handles an ICMP message that a datagram was not delivered. The application is notified if the engine finds the
    /// message credible.
    fn undelivered(&mut self, now: Instant, quote: &Quote, frame: &mut D::Rx, why: Unreachable) {
        let Quote { local, remote, len, ref payload } = *quote;
        let quoted = &frame.data_mut()[payload.clone()];
        let port_closed = why == Unreachable::PortClosed;
        if self.endpoint.is_undelivered(&Undelivered { local, remote, port_closed, len, quoted }) {
            self.unreachable(now, remote.ip(), why);
        }
    }

    fn unreachable(&mut self, now: Instant, remote: IpAddr, why: Unreachable) {
        if self.app_failed {
            return;
        }
        let mut cx = Context::new(now, &mut self.endpoint, &self.net, self.client_port);
        self.app.on_unreachable(&mut cx, remote, why);
    }

    fn run_app(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        if self.app_failed {
            return self.discard_events();
        }
        let mut count = 0;
        while count < EVENT_BUDGET
            && let Some((id, event)) = self.endpoint.poll_event()
        {
            seen.at(Mark::EventBegins);
            let mut cx = Context::new(now, &mut self.endpoint, &self.net, self.client_port);
            self.app.on_event(&mut cx, id, event);
            seen.at(Mark::EventEnds);
            count += 1;
        }
        let mut cx = Context::new(now, &mut self.endpoint, &self.net, self.client_port);
        self.app.on_turn(&mut cx);
        self.stats.events += count as u64;
        count > 0
    }

    /// Sends one burst per turn, which keeps sending in step with incoming acknowledgements.
    fn send(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        self.fill(now, seen);
        if self.tx.is_empty() {
            return false;
        }
        self.stats.tx_bursts += 1;
        let sent = self.datapath.tx_burst(&mut self.tx);
        seen.at(Mark::BurstLeft(sent));
        self.stats.tx_held += u64::from(!self.tx.is_empty());
        sent > 0
    }

    /// Fills the burst with packets of the network layer and the engine.
    fn fill(&mut self, now: Instant, seen: &mut impl Observe) {
        let (datapath, spare) = (&mut self.datapath, &mut self.spare);
        while !self.tx.is_full() {
            let alloc = || spare.take().or_else(|| datapath.tx_alloc());
            let Some(frame) = self.net.poll(now, alloc) else { break };
            self.tx.push(frame);
            seen.at(Mark::FrameWaits { of_engine: false });
        }
        while !self.tx.is_full() {
            let Some(mut frame) = self.spare.take().or_else(|| self.datapath.tx_alloc()) else { return };
            seen.at(Mark::BuildBegins);
            let Some(transmit) = self.endpoint.poll_transmit(now, frame.payload_mut()) else {
                self.spare = Some(frame);
                return;
            };
            seen.at(Mark::BuildEnds);
            frame.set_payload_len(transmit.len);
            let Transmit { conn, local, remote, ecn, .. } = transmit;
            let endpoint = &self.endpoint;
            let standing = || match conn {
                None => Standing::Stranger { via: endpoint.answer_origin() },
                Some(id) => match endpoint.standing(id) {
                    Some(peer) if !peer.validated => Standing::Unproven,
                    peer => Standing::Proven { progress: peer.and_then(|peer| peer.progress) },
                },
            };
            match self.net.send_to(now, local, remote, ecn, frame, standing) {
                Sent::Ready(frame) => {
                    self.tx.push(frame);
                    seen.at(Mark::FrameWaits { of_engine: true });
                }
                Sent::Pending | Sent::Dropped(_) => {}
            }
        }
    }

    /// The time at which [`Core::turn_at`] next has work to do, if no frame arrives before.
    pub fn next_timeout(&self) -> Option<Instant> {
        let app = self.app.next_timeout();
        self.endpoint.next_timeout().into_iter().chain(self.net.next_timeout()).chain(app).min()
    }

    /// Adds an address, for example that of a failed host whose work this one takes over.
    ///
    /// # Errors
    /// [`NetError`] if this port cannot have the address.
    pub fn add_address(&mut self, addr: Cidr) -> Result<(), NetError> {
        self.net.add_address(self.clock.now(), addr)?;
        self.datapath.set_multicast(&self.net.groups());
        Ok(())
    }

    /// Removes an address. Its connections end by their idle timeouts.
    pub fn remove_address(&mut self, addr: IpAddr) {
        self.net.remove_address(addr);
        self.datapath.set_multicast(&self.net.groups());
    }

    /// The queue pair.
    pub fn datapath_mut(&mut self) -> &mut D {
        &mut self.datapath
    }

    /// Consumes the core and returns the application, after delivering all remaining events, which give back its
    /// memory. Peers of remaining connections are not notified.
    pub fn into_app(mut self) -> A {
        self.give_back();
        self.app
    }

    /// The engine's counters.
    pub fn endpoint_stats(&self) -> &EndpointStats {
        self.endpoint.stats()
    }

    /// The network layer's counters.
    pub fn net_stats(&self) -> &NetStats {
        self.net.stats()
    }

    /// The queue pair's counters.
    pub fn datapath_stats(&self) -> DatapathStats {
        self.datapath.stats()
    }

    /// The loop's counters.
    pub fn stats(&self) -> &CoreStats {
        &self.stats
    }

    /// Every counter of the core with its name: the loop's, the port's, the network layer's and the engine's.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        observe::counters(self.observer.as_deref(), &self.stats)
            .chain(self.datapath.stats().iter())
            .chain(self.net.stats().iter())
            .chain(self.endpoint.stats().iter())
            .chain([
                ("quic_connections", self.endpoint.connection_count() as u64),
                ("quic_memory_charged", self.endpoint.memory_charged() as u64),
            ])
    }

    /// The UDP port that the core listens on.
    pub fn listen_port(&self) -> Option<u16> {
        self.listen
    }

    /// What the device can do.
    pub fn caps(&self) -> crate::datapath::Caps {
        self.datapath.caps()
    }
}

mod rest;
#[cfg(test)]
mod tests;
