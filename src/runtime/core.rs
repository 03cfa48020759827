//! The poll loop.

mod config;
mod link;
mod notes;
mod notify;
mod receive;
mod rest;
mod run;
mod send;

use std::net::IpAddr;

use crate::base::limit::Lines;
use crate::base::time::{Duration, Instant};
use crate::crypto::time_keys;
use crate::datapath::exchange::{Alone, Exchange, Handed};
use crate::datapath::{Burst, Datapath, DatapathStats};
use crate::net::{Cidr, Net, NetConfig, NetError, NetStats};
use crate::quic::{Endpoint, EndpointConfig, EndpointStats};
use crate::runtime::context::ClientPorts;
use crate::runtime::idle::Rest;
use crate::runtime::notes::Note;
use crate::runtime::observe::{self, Blind, Mark, Observe};
use crate::runtime::{App, Clock, CoreStats, Observer, Seat, Stages, Waker};
use crate::wire::eth::Mac;

pub use config::{CoreConfig, RunError};

/// One core: a queue pair, the network layer, the engine and an application.
pub struct Core<D: Datapath, A, X = Alone> {
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
    client_ports: ClientPorts,
    rx: Burst<D::Rx>,
    tx: Burst<D::Tx>,
    /// A frame that was allocated for sending and not used yet.
    spare: Option<D::Tx>,
    /// The send queue is jammed: since when the port has taken none of the frames to be sent.
    jammed: Option<Instant>,
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
    /// No more connections are accepted, and the core ends with the last one that there is.
    draining: bool,
    /// Since when only connections that this end has closed are left.
    closing: Option<Instant>,
    /// Limits log lines about duplicate addresses, which anybody on the link can provoke.
    duplicates: Lines,
    seat: Seat<X>,
    /// Frames for each of the other cores.
    leaving: Box<[Burst<Handed<D::Rx>>]>,
}

impl<D: Datapath, A: App> Core<D, A> {
    /// Creates a core that belongs to no group.
    ///
    /// # Errors
    /// [`NetError`] if the network settings contradict each other or do not suit the port.
    pub fn new(datapath: D, config: CoreConfig, app: A) -> Result<Self, NetError> {
        Self::in_group(datapath, config, app, Seat::alone())
    }
}

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    /// Creates a core of a group. Its connection IDs contain the seat's core number, whatever
    /// [`EndpointConfig::core`] is.
    ///
    /// # Errors
    /// [`NetError`] if the network settings contradict each other or do not suit the port.
    pub fn in_group(mut datapath: D, config: CoreConfig, app: A, seat: Seat<X>) -> Result<Self, NetError> {
        let clock = Clock::new();
        let caps = datapath.caps();
        let place = if seat.cores > 1 { (seat.core, seat.cores) } else { (config.net.core, config.net.cores) };
        let net = NetConfig { core: place.0, cores: place.1, ..config.net };
        let net = Net::new(&net, &caps, clock.now())?;
        datapath.set_multicast(&net.groups());
        // Without an exchange, something else may distribute the frames of several cores.
        let configured = (config.endpoint.core, config.endpoint.cores);
        let (core, cores) = if X::ALONE { configured } else { (seat.core, seat.cores) };
        Ok(Self {
            net,
            endpoint: Endpoint::new(
                EndpointConfig { core, cores, time_base: clock.wall_base(), ..config.endpoint },
                config.server,
                config.pool,
            ),
            datapath,
            app,
            clock,
            rest: Rest::new(config.idle),
            waker: Waker::new(),
            listen: config.listen,
            client_ports: ClientPorts::new(config.client_ports),
            rx: Burst::new(),
            tx: Burst::new(),
            spare: None,
            jammed: None,
            link_up: false,
            link_lost: None,
            taken: None,
            link_patience: config.link_patience,
            stats: CoreStats::default(),
            observer: None,
            app_failed: false,
            draining: false,
            closing: None,
            duplicates: Lines::new(1),
            leaving: (0..if X::ALONE { 0 } else { cores }).map(|_| Burst::new()).collect(),
            seat,
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

    /// Stops the clock, so that nothing depends on how long the machine takes for something.
    #[cfg(test)]
    pub(super) fn stop_clock(&mut self) {
        self.clock.stop();
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
        let received = self.receive(now, seen) | self.call_others() | self.take_notes(now);
        self.poll_net(now);
        let due = self.endpoint.next_timeout().is_some_and(|at| at <= now);
        if due {
            self.endpoint.handle_timeout(now);
            while let Some(peer) = self.endpoint.poll_doubt() {
                self.net.suspect(now, peer);
            }
        }
        let events = self.run_app(now, seen);
        let sent = self.send(now, seen) | self.call_others();
        let busy = received || due || events || sent;
        let mut blocked = false;
        if !busy {
            // Without a link no frames are taken, which does not count as blocked.
            blocked = !self.tx.is_empty() && self.link_up;
            self.stats.blocked_turns += u64::from(blocked);
            self.stats.idle_turns += u64::from(!blocked);
            self.watch_link(now);
            self.endpoint.rest(now);
        }
        seen.at(Mark::TurnEnds { busy, blocked });
        busy
    }

    /// The time at which [`Core::turn_at`] next has work to do, if no frame arrives before.
    pub fn next_timeout(&self) -> Option<Instant> {
        let (app, end) = (self.app.next_timeout(), self.closing.map(|since| since + run::CLOSING));
        self.endpoint.next_timeout().into_iter().chain(self.net.next_timeout()).chain(app).chain(end).min()
    }

    /// Adds an address, for example that of a failed host whose work this one takes over.
    ///
    /// # Errors
    /// [`NetError`] if this port cannot have the address.
    pub fn add_address(&mut self, addr: Cidr) -> Result<(), NetError> {
        self.use_address(self.clock.now(), addr)?;
        self.tell(&Note::AddAddress(addr));
        Ok(())
    }

    fn use_address(&mut self, now: Instant, addr: Cidr) -> Result<(), NetError> {
        self.net.add_address(now, addr)?;
        self.datapath.set_multicast(&self.net.groups());
        Ok(())
    }

    /// Removes an address. Its connections end by their idle timeouts.
    pub fn remove_address(&mut self, addr: IpAddr) {
        self.leave_address(addr);
        self.tell(&Note::RemoveAddress(addr));
    }

    fn leave_address(&mut self, addr: IpAddr) {
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

    /// The number of the core in its group.
    pub fn number(&self) -> u8 {
        self.seat.core
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

#[cfg(test)]
mod tests;
