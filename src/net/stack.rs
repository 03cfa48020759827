//! The parts put together.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::base::limit::Limit;
use crate::base::time::Instant;
use crate::datapath::{Caps, TxFrame};
use crate::net::addressing::Addressing;
use crate::net::cidr::Cidr;
use crate::net::config::{NetConfig, NetError};
use crate::net::flows::Flows;
use crate::net::neighbor::{Learned, Neighbors, News, Scan, Timeout};
use crate::net::outbox::Outbox;
use crate::net::pending::Pending;
use crate::net::ports::Ports;
use crate::net::stats::{NetDrop, NetStats};
use crate::net::template::{Template, TxCaps};
use crate::wire::eth::Mac;
use crate::wire::ipv4::IPV4_LEN;
use crate::wire::ipv6::IPV6_LEN;
use crate::wire::udp::UDP_LEN;

/// Events kept for who asks.
const MAX_EVENTS: usize = 64;

/// Something that others may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A neighbour's MAC address became known or changed. Other cores take it with [`Net::share_neighbor`].
    Neighbor {
        /// Its address.
        ip: IpAddr,
        /// Its MAC address.
        mac: Mac,
    },
    /// A neighbour did not answer; frames for it were dropped.
    Unreachable {
        /// Its address.
        ip: IpAddr,
    },
    /// Another station uses one of our addresses.
    Duplicate {
        /// The address.
        ip: IpAddr,
        /// The other station.
        mac: Mac,
    },
}

/// One core's network layer. `T` is the datapath's frame, of which some wait here for their neighbour.
#[derive(Debug)]
pub struct Net<T> {
    pub(super) mac: Mac,
    pub(super) vlan: Option<u16>,
    pub(super) caps: TxCaps,
    pub(super) seed: u64,
    pub(super) addressing: Addressing,
    pub(super) ports: Ports,
    pub(super) flows: Flows,
    pub(super) neighbors: Neighbors,
    pub(super) pending: Pending<T>,
    pub(super) templates: Box<[Template]>,
    pub(super) outbox: Outbox,
    pub(super) echo_limit: Limit,
    pub(super) error_limit: Limit,
    pub(super) too_big_limit: Limit,
    /// The next of our addresses to announce, and to report as listened to.
    pub(super) announced: usize,
    pub(super) reported: usize,
    pub(super) stats: NetStats,
    events: VecDeque<NetEvent>,
}

impl<T: TxFrame> Net<T> {
    /// The network layer for a port with `caps`.
    ///
    /// # Errors
    /// [`NetError`] names what in `config` cannot work, alone or on this port.
    pub fn new(config: &NetConfig, caps: &Caps, now: Instant) -> Result<Self, NetError> {
        let mac = Mac(caps.mac);
        if !mac.is_station() {
            return Err(NetError::BadMac);
        }
        if let Some(vlan) = config.vlan.filter(|id| !(1..=4094).contains(id)) {
            return Err(NetError::BadVlan(vlan));
        }
        let addressing = Addressing::new(config, mac, caps.mtu)?;
        let least = |what, value, least| {
            if value < least { Err(NetError::LimitTooSmall { what, value, least }) } else { Ok(()) }
        };
        least("max_neighbors", config.max_neighbors, 8 + addressing.route_count())?;
        least("pending_frames", config.pending_frames, 1)?;
        least("max_pending", config.max_pending, config.pending_frames)?;
        least("templates", config.templates, 2)?;
        let quiet = if config.announce { 0 } else { usize::MAX };
        Ok(Self {
            mac,
            vlan: config.vlan,
            caps: TxCaps { mtu: caps.mtu, ip_checksum: caps.tx_ip_checksum, udp_checksum: caps.tx_udp_checksum },
            seed: config.seed,
            addressing,
            ports: Ports::new(config.ports.as_deref()),
            flows: Flows::default(),
            neighbors: Neighbors::new(config.max_neighbors, config.neighbor_ttl),
            pending: Pending::new(config.max_pending, config.pending_frames),
            templates: vec![Template::none(); config.templates.next_power_of_two()].into(),
            outbox: Outbox::new(caps.mtu),
            echo_limit: Limit::new(config.echo_per_second, now),
            error_limit: Limit::new(config.errors_per_second, now),
            too_big_limit: Limit::new(config.too_big_per_second, now),
            announced: quiet,
            reported: quiet,
            stats: NetStats::default(),
            events: VecDeque::with_capacity(MAX_EVENTS),
        })
    }

    /// The next frame that `net` itself has to send: released frames, ARP, neighbour discovery, ICMP.
    /// `alloc` gives an empty frame, or `None`; then what is left waits for the next call.
    pub fn poll(&mut self, now: Instant, mut alloc: impl FnMut() -> Option<T>) -> Option<T> {
        self.run_timers(now);
        if let Some(frame) = self.pending.pop() {
            return Some(frame);
        }
        loop {
            if self.outbox.is_empty() && !self.announce_next() {
                return None;
            }
            let mut frame = alloc()?;
            if self.outbox.pop_into(&mut frame) {
                self.stats.tx_control += 1;
                return Some(frame);
            }
            self.stats.drops[NetDrop::FrameTooSmall] += 1;
        }
    }

    /// When [`Net::poll`] has something to do that time brings; it may be early. Frames, events and
    /// announcements that wait already are not meant: poll until `None` after each turn.
    pub fn next_timeout(&self) -> Option<Instant> {
        Some(self.neighbors.deadline()).filter(|at| *at != Instant::MAX)
    }

    /// The next event. Up to 64 are kept.
    pub fn poll_event(&mut self) -> Option<NetEvent> {
        self.events.pop_front()
    }

    /// Takes over what another core's [`NetEvent::Neighbor`] said.
    pub fn share_neighbor(&mut self, now: Instant, ip: IpAddr, mac: Mac) {
        if self.addressing.on_link(ip) && !self.addressing.is_local(ip) && mac.is_station() {
            let learned = self.neighbors.share(now, ip, mac);
            // No event: what came from another core must not go round in circles.
            self.apply(learned, ip, mac);
        }
    }

    /// Largest UDP payload that fits the port's MTU, in bytes.
    pub fn max_udp_payload(&self, ipv6: bool) -> u16 {
        self.caps.mtu - (if ipv6 { IPV6_LEN } else { IPV4_LEN } + UDP_LEN) as u16
    }

    /// Our address for talking to `remote`; `None` without a route there.
    pub fn local_for(&self, remote: IpAddr) -> Option<IpAddr> {
        self.addressing.local_for(remote)
    }

    /// Our addresses, the link-local one included.
    pub fn addresses(&self) -> &[Cidr] {
        self.addressing.locals()
    }

    /// Opens a UDP port; without effect if the configuration named no ports, as then all are open.
    pub fn open_port(&mut self, port: u16) {
        self.ports.set(port, true);
    }

    /// Closes a UDP port; without effect if the configuration named no ports, as then all are open.
    pub fn close_port(&mut self, port: u16) {
        self.ports.set(port, false);
        self.flows.clear();
    }

    /// Number of neighbours in the table.
    pub fn neighbor_count(&self) -> usize {
        self.neighbors.len()
    }

    /// Counters since start.
    pub fn stats(&self) -> &NetStats {
        &self.stats
    }

    fn run_timers(&mut self, now: Instant) {
        let mut scan = Scan::new();
        while let Some(timeout) = self.neighbors.expire(now, &mut scan) {
            match timeout {
                Timeout::Ask(ask) => self.solicit(ask),
                Timeout::Failed(ip) => {
                    self.stats.neighbor_failed += 1;
                    self.give_up(ip);
                    self.event(NetEvent::Unreachable { ip });
                }
            }
        }
    }

    /// Drops the frames that wait for `ip`.
    pub(super) fn give_up(&mut self, ip: IpAddr) {
        self.stats.drops[NetDrop::NeighborUnreachable] += self.pending.give_up(ip) as u64;
    }

    /// Takes news of a neighbour.
    pub(super) fn learn(&mut self, now: Instant, ip: IpAddr, mac: Option<Mac>, news: News) -> Learned {
        // Routers ask and speak like any neighbour; who is not on the link cannot be one.
        if !self.addressing.on_link(ip) {
            return Learned::Nothing;
        }
        let learned = self.neighbors.learn(now, ip, mac, news);
        if let (Learned::Resolved | Learned::Changed, Some(mac)) = (learned, mac) {
            self.apply(learned, ip, mac);
            self.event(NetEvent::Neighbor { ip, mac });
        }
        learned
    }

    fn apply(&mut self, learned: Learned, ip: IpAddr, mac: Mac) {
        match learned {
            Learned::Nothing => {}
            Learned::Changed => self.stats.neighbor_changed += 1,
            Learned::Resolved => {
                self.stats.neighbor_resolved += 1;
                self.stats.tx_released += self.pending.release(ip, mac) as u64;
            }
        }
    }

    pub(super) fn event(&mut self, event: NetEvent) {
        if self.events.len() < MAX_EVENTS { self.events.push_back(event) } else { self.stats.events_lost += 1 }
    }
}
