//! The network layer as a whole.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::base::limit::Limit;
use crate::base::time::Instant;
use crate::datapath::{Caps, TxFrame};
use crate::net::addressing::Addressing;
use crate::net::cidr::Cidr;
use crate::net::claim::{Claims, Other, Step, Verdict, Voice};
use crate::net::config::{NetConfig, NetError};
use crate::net::flows::Flows;
use crate::net::listener::Reports;
use crate::net::neighbor::{Account, Learned, Neighbors, News, Timeout};
use crate::net::news::GroupNews;
use crate::net::outbox::Outbox;
use crate::net::pending::Pending;
use crate::net::ports::Ports;
use crate::net::route::{RouteError, Sources};
use crate::net::stats::{NetDrop, NetStats};
use crate::net::template::{Template, TxCaps};
use crate::wire::eth::Mac;
use crate::wire::ipv4::IPV4_LEN;
use crate::wire::ipv6::{self, IPV6_LEN};
use crate::wire::udp::UDP_LEN;

/// The maximum number of queued events.
const MAX_EVENTS: usize = 64;

/// An event of the network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// News for the other cores on the port. Only if there are any ([`NetConfig::cores`]).
    Group(GroupNews),
    /// A neighbour did not answer; frames for it were dropped.
    Unreachable {
        /// Its address.
        ip: IpAddr,
    },
    /// A router does not answer, and another one is used meanwhile.
    RouterSilent {
        /// Its address.
        ip: IpAddr,
    },
    /// Another station uses one of our addresses, which was defended. Reported at most once in ten seconds for each
    /// address.
    Duplicate {
        /// The address.
        ip: IpAddr,
        /// The other station.
        mac: Mac,
    },
    /// Another station already has one of our addresses, which is given up.
    AddressLost {
        /// The address.
        ip: IpAddr,
        /// The other station.
        mac: Mac,
    },
}

impl<T: TxFrame> Sources for Net<T> {
    fn local_for(&self, remote: IpAddr) -> Result<IpAddr, RouteError> {
        self.addressing.source_for(remote, self.next_hop(remote)?)
    }
}

/// The network layer of one core. `T` is the datapath's frame type.
#[derive(Debug)]
pub struct Net<T> {
    pub(super) mac: Mac,
    pub(super) vlan: Option<u16>,
    pub(super) caps: TxCaps,
    pub(super) seed: u64,
    pub(super) core: u8,
    pub(super) cores: u8,
    pub(super) addressing: Addressing,
    pub(super) ports: Ports,
    pub(super) flows: Flows,
    pub(super) neighbors: Neighbors,
    pub(super) pending: Pending<T>,
    pub(super) templates: Box<[Template]>,
    pub(super) outbox: Outbox,
    pub(super) echo_limit: Limit,
    pub(super) error_limit: Limit,
    pub(super) unreachable_limit: Limit,
    pub(super) claims: Claims,
    pub(super) reports: Reports,
    pub(super) stats: NetStats,
    events: VecDeque<NetEvent>,
}

impl<T: TxFrame> Net<T> {
    /// Creates the network layer for a port with `caps`.
    ///
    /// # Errors
    /// [`NetError`] if `config` cannot work, by itself or on this port.
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
        least("max_neighbors", config.max_neighbors, 8 + addressing.routes().len())?;
        least("pending_frames", config.pending_frames, 1)?;
        least("max_pending", config.max_pending, config.pending_frames)?;
        least("templates", config.templates, 2)?;
        let all = addressing.all().iter().map(Cidr::addr);
        let voice = match (config.announce, config.core) {
            (false, _) => Voice::Nobody,
            (true, 0) => Voice::Ours,
            (true, _) => Voice::First,
        };
        let claims = Claims::new(all, config.detect, voice, config.seed ^ u64::from(mac.0[5]));
        let mut this = Self {
            mac,
            vlan: config.vlan,
            caps: TxCaps { mtu: caps.mtu, ip_checksum: caps.tx_ip_checksum, udp_checksum: caps.tx_udp_checksum },
            seed: config.seed,
            core: config.core,
            cores: config.cores,
            addressing,
            ports: Ports::new(config.ports.as_deref()),
            flows: Flows::new(config.seed),
            neighbors: Neighbors::new(config.max_neighbors, config.neighbor_ttl, config.solicits_per_second, now),
            pending: Pending::new(config.max_pending, config.pending_frames, config.max_neighbors),
            templates: vec![Template::none(); config.templates.next_power_of_two()].into(),
            outbox: Outbox::new(caps.mtu),
            echo_limit: Limit::new(config.echo_per_second, now),
            error_limit: Limit::new(config.errors_per_second, now),
            unreachable_limit: Limit::new(config.unreachable_per_second, now),
            claims,
            reports: Reports::new(config.seed ^ u64::from(mac.0[5])),
            stats: NetStats::default(),
            events: VecDeque::with_capacity(MAX_EVENTS),
        };
        if this.claims.are_strict() {
            let all: Vec<_> = this.addressing.all().iter().map(Cidr::addr).collect();
            all.into_iter().for_each(|addr| this.addressing.set_used(addr, false));
        }
        Ok(this)
    }

    /// The multicast MAC addresses that the device must accept: all nodes, and the solicited-node groups of our
    /// addresses (RFC 4291 §2.8, RFC 2464 §7). Empty without IPv6.
    pub fn groups(&self) -> Vec<[u8; 6]> {
        let ours = self.addressing.all().iter().filter_map(|local| match local.addr() {
            IpAddr::V6(addr) => Some(ipv6::solicited_node(addr)),
            IpAddr::V4(_) => None,
        });
        let nodes = self.addressing.ipv6().then_some(ipv6::ALL_NODES);
        let mut groups: Vec<[u8; 6]> = ours.chain(nodes).map(|group| Mac::for_multicast(group).0).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The next frame that the network layer has to send: resolved frames, ARP, neighbour discovery, ICMP. `alloc`
    /// returns an empty frame, or `None` to leave the rest for the next call.
    pub fn poll(&mut self, now: Instant, mut alloc: impl FnMut() -> Option<T>) -> Option<T> {
        self.run_timers(now);
        if let Some(frame) = self.pending.pop() {
            return Some(frame);
        }
        loop {
            if self.outbox.is_empty() {
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

    /// The time at which [`Net::poll`] next has work to do; it may be early. Frames and events that are already queued
    /// are not considered: poll until `None` in each turn.
    pub fn next_timeout(&self) -> Option<Instant> {
        Some(self.neighbors.deadline().min(self.claims.deadline()).min(self.reports.deadline()))
            .filter(|at| *at != Instant::MAX)
    }

    /// Notes that the link is up, even if it was before. Our addresses are checked and announced, and neighbours have
    /// to be confirmed, as they may have changed. Before the first call, nothing is announced.
    pub fn link_up(&mut self, now: Instant) {
        self.neighbors.doubt_all(now);
        self.claims.link_up(now);
        self.report_all(now);
    }

    /// Notes that the link is down, and stops announcements.
    pub fn link_down(&mut self, now: Instant) {
        for ip in self.claims.link_down(now) {
            self.tell(GroupNews::AddressHeld { ip });
        }
        self.reports.hush();
    }

    /// Returns whether our addresses may be used. `false` only with [`Detect::Strict`](super::Detect::Strict), while
    /// duplicate address detection is in progress.
    pub fn is_ready(&self) -> bool {
        self.claims.are_settled()
    }

    /// Adds an address. It is checked and announced like those of the configuration.
    ///
    /// # Errors
    /// [`NetError`] if this port cannot have the address.
    pub fn add_address(&mut self, now: Instant, addr: Cidr) -> Result<(), NetError> {
        self.addressing.add(addr)?;
        self.claims.add(now, addr.addr());
        if !self.claims.are_strict() {
            self.addressing.set_used(addr.addr(), true);
        }
        self.report_all(now);
        Ok(())
    }

    /// Removes an address; packets to and from it are dropped from now on.
    pub fn remove_address(&mut self, addr: IpAddr) {
        self.addressing.remove(addr);
        self.claims.remove(addr);
        self.flows.forget_address(addr);
        self.neighbors.shut_all();
    }

    fn report_all(&mut self, now: Instant) {
        if self.claims.speak() {
            self.reports.tell(now);
        }
    }

    /// Notes that a packet from `remote` came via the MAC address `via` and starts a connection. If `remote` is on the
    /// link and unknown, it is solicited there by unicast: whoever forged the address gets that, not everyone.
    pub fn heard_from(&mut self, now: Instant, remote: IpAddr, via: [u8; 6]) {
        let via = Mac(via);
        let direct = self.next_hop(remote).is_ok_and(|hop| hop == remote) && !self.addressing.is_gateway(remote);
        if direct && via.is_station() && via != self.mac && !self.neighbors.has(remote) {
            self.look_up(now, remote, Account::Newcomer, Some(via));
        }
    }

    /// Notes that a connection with `remote` gets no answers in spite of several probes, so the next hop is probed (RFC
    /// 4861 §7.3.1).
    pub fn suspect(&mut self, now: Instant, remote: IpAddr) {
        let Ok(hop) = self.next_hop(remote) else { return };
        if let Some(ask) = self.neighbors.suspect(now, hop) {
            self.stats.neighbor_suspected += 1;
            self.solicit(ask);
        }
    }

    /// The next event. At most 64 are queued.
    pub fn poll_event(&mut self) -> Option<NetEvent> {
        self.events.pop_front()
    }

    /// Takes over the content of another core's [`GroupNews::Neighbor`].
    pub fn share_neighbor(&mut self, now: Instant, ip: IpAddr, mac: Mac) {
        if self.addressing.on_link(ip) && !self.addressing.is_local(ip) && mac.is_station() {
            let learned = self.neighbors.share(now, ip, mac);
            // No event, or cores would send each other the same entry for ever.
            self.apply(learned, mac);
        }
    }

    /// The largest UDP payload that fits the port's MTU, in bytes.
    pub fn max_udp_payload(&self, ipv6: bool) -> u16 {
        self.caps.mtu - (if ipv6 { IPV6_LEN } else { IPV4_LEN } + UDP_LEN) as u16
    }

    /// Returns whether any configured address is left, rather than lost to other stations.
    pub fn has_addresses(&self) -> bool {
        self.addressing.has_any()
    }

    /// Our addresses in use, including the link-local one.
    pub fn addresses(&self) -> &[Cidr] {
        self.addressing.locals()
    }

    /// Opens a UDP port; no effect if the configuration names no ports, as all are then open.
    pub fn open_port(&mut self, port: u16) {
        self.ports.set(port, true);
    }

    /// Closes a UDP port; no effect if the configuration names no ports, as all are then open.
    pub fn close_port(&mut self, port: u16) {
        self.ports.set(port, false);
        self.flows.forget_port(port);
    }

    /// The number of neighbours in the table.
    pub fn neighbor_count(&self) -> usize {
        self.neighbors.len()
    }

    /// Counters since start.
    pub fn stats(&self) -> &NetStats {
        &self.stats
    }

    fn run_timers(&mut self, now: Instant) {
        // Reports come first, so that answers to probes reach us (RFC 4862 §5.4.2).
        if now >= self.reports.deadline() {
            self.report(now);
        }
        if now >= self.claims.deadline() {
            self.run_claims(now);
        }
        if now >= self.neighbors.deadline()
            && let Some(until) = self.claims.settle_soon(now)
        {
            self.neighbors.defer(until);
        }
        while let Some(timeout) = self.neighbors.expire(now) {
            match timeout {
                Timeout::Ask(ask) => self.solicit(ask),
                Timeout::Failed { ip, place } => {
                    self.stats.neighbor_failed += 1;
                    self.give_up(place);
                    let rerouted = self.addressing.router(ip) == Some(true)
                        && self.addressing.can_do_without(ip, |via| self.neighbors.is_dead(via));
                    let event = if rerouted { NetEvent::RouterSilent { ip } } else { NetEvent::Unreachable { ip } };
                    self.event(event);
                }
            }
        }
    }

    /// Sends due probes and announcements, while there is room.
    #[cold]
    fn run_claims(&mut self, now: Instant) {
        while self.outbox.has_room()
            && let Some(step) = self.claims.due(now)
        {
            match step {
                Step::Probe(ip) => {
                    self.stats.address_probes += 1;
                    self.probe_address(ip);
                }
                Step::Take(ip) => {
                    self.addressing.set_used(ip, true);
                    self.tell(GroupNews::AddressHeld { ip });
                }
                Step::Announce(ip) => {
                    self.stats.address_announcements += 1;
                    self.announce(ip);
                }
            }
        }
    }

    /// Handles another station's claim to `ip`, by ARP or neighbour discovery.
    pub(super) fn claimed(&mut self, now: Instant, ip: IpAddr, mac: Mac, other: Other) {
        if mac == self.mac {
            return;
        }
        self.stats.duplicate_address += u64::from(other == Other::Uses);
        if self.core == 0 {
            self.judge_claim(now, ip, mac, other);
        } else if self.claims.has(ip) {
            self.tell(GroupNews::Claimed { ip, mac, uses: other == Other::Uses });
        }
    }

    /// Decides what to do about another station's claim to `ip`. Core 0 does it for all.
    pub(super) fn judge_claim(&mut self, now: Instant, ip: IpAddr, mac: Mac, other: Other) {
        match self.claims.heard(now, ip, other) {
            Verdict::None => {}
            Verdict::Defend => {
                self.stats.address_defended += 1;
                self.announce(ip);
                self.event(NetEvent::Duplicate { ip, mac });
            }
            Verdict::Lost => {
                self.stats.address_lost += 1;
                self.remove_address(ip);
                self.tell(GroupNews::AddressLost { ip, mac });
                self.event(NetEvent::AddressLost { ip, mac });
            }
        }
    }

    /// Drops the frames that wait at `place`.
    pub(super) fn give_up(&mut self, place: u32) {
        self.stats.drops[NetDrop::NeighborUnreachable] += self.pending.give_up(place) as u64;
    }

    /// Handles evidence about a neighbour.
    pub(super) fn learn(&mut self, now: Instant, ip: IpAddr, mac: Option<Mac>, news: News) -> Learned {
        let Some(learned) = self.learn_quietly(now, ip, mac, news) else { return Learned::Nothing };
        match (learned, mac) {
            (Learned::Resolved(_), Some(mac)) if matches!(news, News::Answer { .. }) => {
                self.tell(GroupNews::Neighbor { ip, mac });
            }
            _ => self.overhear(ip, mac, news),
        }
        learned
    }

    /// The same without telling other cores. `None` if it is not about a neighbour.
    pub(super) fn learn_quietly(&mut self, now: Instant, ip: IpAddr, mac: Option<Mac>, news: News) -> Option<Learned> {
        // A neighbour is on the link and does not use our own MAC address. Routers are neighbours too.
        if !self.addressing.on_link(ip) || mac == Some(self.mac) {
            return None;
        }
        let learned = self.neighbors.learn(now, ip, mac, news);
        if let Some(mac) = mac {
            self.apply(learned, mac);
        }
        Some(learned)
    }

    fn apply(&mut self, learned: Learned, mac: Mac) {
        match learned {
            Learned::Nothing => {}
            Learned::Changed => self.stats.neighbor_changed += 1,
            Learned::Resolved(place) => {
                self.stats.neighbor_resolved += 1;
                self.stats.tx_released += self.pending.release(place, mac) as u64;
            }
        }
    }

    pub(super) fn event(&mut self, event: NetEvent) {
        if self.events.len() < MAX_EVENTS { self.events.push_back(event) } else { self.stats.events_lost += 1 }
    }
}
