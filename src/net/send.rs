//! Sending: headers, next hops, and frames that wait for neighbours.

use std::net::{IpAddr, SocketAddr};

use crate::base::time::Instant;
use crate::datapath::TxFrame;
use crate::net::neighbor::{Account, Lookup, Role};
use crate::net::pending::Queued;
use crate::net::route::RouteError;
use crate::net::stack::Net;
use crate::net::stats::NetDrop;
use crate::net::template::{FlowKey, Template};
use crate::wire::eth::Mac;

/// The outcome of sending a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent<T> {
    /// The headers are complete: hand it to the datapath.
    Ready(T),
    /// It waits until its neighbour is resolved; [`Net::poll`] then returns it.
    Pending,
    /// It was dropped.
    Dropped(NetDrop),
}

/// What is known about a frame's destination, which determines what may be sent to resolve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// We opened the connection, or the peer's address is validated.
    Proven {
        /// When it last acknowledged new data, which confirms reachability (RFC 4861 §7.3.1).
        progress: Option<Instant>,
    },
    /// A connection is starting, but the peer's address may be forged. Solicitations for it are limited.
    Unproven,
    /// A single answer to a packet from an address that may be forged. Nothing is solicited: it goes back to where the
    /// packet came from.
    Stranger {
        /// The source MAC address of that packet.
        via: Option<[u8; 6]>,
    },
}

impl<T: TxFrame> Net<T> {
    /// Prepends UDP, IP and Ethernet headers to `frame`, whose payload is set.
    ///
    /// `ecn` is the two ECN bits; scope ID and flow info of IPv6 socket addresses are ignored.
    pub fn send(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, ecn: u8, frame: T) -> Sent<T> {
        self.send_to(now, local, remote, ecn, frame, || Standing::Proven { progress: None })
    }

    /// Like [`Net::send`], with the standing of `remote`, which is called only if the next hop is not cached.
    #[inline]
    pub fn send_to(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        ecn: u8,
        mut frame: T,
        standing: impl FnOnce() -> Standing,
    ) -> Sent<T> {
        let Some(key) = FlowKey::new(local, remote) else {
            return self.refuse(NetDrop::FamilyMismatch);
        };
        let hash = key.hash(self.seed);
        let first = self.first_place(hash);
        let found = self.templates[first..first + 2].iter().find(|t| t.is_good(&key, &self.neighbors, now));
        let Some(template) = found else {
            return self.send_slowly(now, (local, remote), ecn, frame, (key, hash, first), standing());
        };
        let payload = frame.data().len();
        if payload > template.max_payload() {
            return self.refuse(NetDrop::TooBig);
        }
        template.write(ecn, &mut frame);
        self.stats.tx_udp_software_checksums += u64::from(template.sums_in_software());
        self.stats.tx_udp += 1;
        self.stats.tx_udp_bytes += payload as u64;
        Sent::Ready(frame)
    }

    /// Prepends headers to `frames`, whose payloads are set, if all of them may be sent like the previous ones.
    /// Otherwise returns false and changes nothing: [`Net::send_to`] then decides for each frame.
    #[inline]
    pub fn write_headers(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        ecn: u8,
        frames: &mut [T],
    ) -> bool {
        let Some(key) = FlowKey::new(local, remote) else { return false };
        let first = self.first_place(key.hash(self.seed));
        let found = self.templates[first..first + 2].iter().find(|t| t.is_good(&key, &self.neighbors, now));
        let Some(template) = found.filter(|t| frames.iter().all(|f| f.data().len() <= t.max_payload())) else {
            return false;
        };
        let bytes: usize = frames.iter().map(|frame| frame.data().len()).sum();
        template.write_all(ecn, frames);
        let count = frames.len() as u64;
        self.stats.tx_udp_software_checksums += count * u64::from(template.sums_in_software());
        self.stats.tx_udp += count;
        self.stats.tx_udp_bytes += bytes as u64;
        true
    }

    /// Returns whether headers from `local` to `remote` are cached, because something was sent there recently.
    pub(super) fn has_template(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let Some(key) = FlowKey::new(local, remote) else { return false };
        let first = self.first_place(key.hash(self.seed));
        self.templates[first..first + 2].iter().any(|template| template.is_for(&key))
    }

    /// The first of the two slots for flows with this hash.
    fn first_place(&self, hash: u64) -> usize {
        (hash as usize & (self.templates.len() - 1)) & !1
    }

    fn refuse(&mut self, reason: NetDrop) -> Sent<T> {
        self.stats.drops[reason] += 1;
        Sent::Dropped(reason)
    }

    /// Sends without a valid template: finds the next hop, solicits it if needed, and makes a template. Only flows with
    /// a known next hop get a slot, and answers to strangers do not: they would displace others.
    #[cold]
    fn send_slowly(
        &mut self,
        now: Instant,
        (local, remote): (SocketAddr, SocketAddr),
        ecn: u8,
        mut frame: T,
        (key, hash, first): (FlowKey, u64, usize),
        standing: Standing,
    ) -> Sent<T> {
        self.stats.tx_template_misses += 1;
        let hop = match self.way(local, remote) {
            Ok(hop) => hop,
            Err(reason) => return self.refuse(reason),
        };
        let known = self.templates[first..first + 2].iter().position(|t| t.is_for(&key));
        let mut template = match known {
            Some(slot) => self.templates[first + slot].clone(),
            None => {
                let flow = (hash >> 43) as u32 & 0xf_ffff | 1;
                Template::new(key, local, remote, self.mac, self.vlan, flow, self.caps)
            }
        };
        let payload = frame.data().len();
        if payload > template.max_payload() {
            return self.refuse(NetDrop::TooBig);
        }
        let (account, progress) = match standing {
            Standing::Proven { progress } => (Account::Own, progress),
            Standing::Unproven => (Account::Newcomer, None),
            Standing::Stranger { via } => {
                let Some(mac) = self.neighbors.peek(now, hop).or_else(|| self.reflect_to(via)) else {
                    return self.refuse(NetDrop::StrangerUnknown);
                };
                template.aim_once(mac);
                template.write(ecn, &mut frame);
                return self.count_sent(&template, payload, frame);
            }
        };
        if let Some(at) = progress {
            self.neighbors.confirm(hop, at);
        }
        match self.look_up(now, hop, account, None) {
            Lookup::Refused => self.refuse(NetDrop::NeighborTableFull),
            Lookup::Wait { place } => {
                template.write(ecn, &mut frame);
                self.stats.tx_udp_software_checksums += u64::from(template.sums_in_software());
                self.keep(place, account, frame)
            }
            Lookup::Known { mac, aim } => {
                template.aim(mac, aim);
                template.write(ecn, &mut frame);
                let free = || self.templates[first..first + 2].iter().position(|t| !t.is_fresh(&self.neighbors, now));
                // If both slots are in use, an unknown flow takes one at random.
                let slot = first + known.or_else(free).unwrap_or((hash >> 63) as usize);
                let sent = self.count_sent(&template, payload, frame);
                self.templates[slot] = template;
                sent
            }
        }
    }

    fn count_sent(&mut self, template: &Template, payload: usize, frame: T) -> Sent<T> {
        self.stats.tx_udp_software_checksums += u64::from(template.sums_in_software());
        self.stats.tx_udp += 1;
        self.stats.tx_udp_bytes += payload as u64;
        Sent::Ready(frame)
    }

    /// Allows an answer to go back to the MAC address that its cause came from. That costs the link one frame for one
    /// and leaves no state here. It goes to whoever forged the address, or to the router that forwarded the packet.
    fn reflect_to(&mut self, via: Option<[u8; 6]>) -> Option<Mac> {
        let mac = via.map(Mac).filter(|mac| mac.is_station() && *mac != self.mac)?;
        self.stats.tx_reflected += 1;
        Some(mac)
    }

    /// The next hop from `local` to `remote`.
    fn way(&self, local: SocketAddr, remote: SocketAddr) -> Result<IpAddr, NetDrop> {
        if !self.addressing.is_local(local.ip()) {
            return Err(NetDrop::NotOurSource);
        }
        if remote.port() == 0 || self.addressing.is_local(remote.ip()) {
            return Err(NetDrop::BadDestination);
        }
        self.next_hop(remote.ip()).map_err(|error| match error {
            RouteError::NotOneHost(_) => NetDrop::BadDestination,
            _ => NetDrop::NoRoute,
        })
    }

    pub(super) fn next_hop(&self, remote: IpAddr) -> Result<IpAddr, RouteError> {
        self.addressing.next_hop(remote, |via| self.neighbors.is_dead(via))
    }

    pub(super) fn look_up(&mut self, now: Instant, hop: IpAddr, account: Account, origin: Option<Mac>) -> Lookup {
        let role = self.addressing.router(hop).map_or(Role::Host, |substitute| Role::Router { substitute });
        let found = self.neighbors.lookup(now, hop, role, account, origin);
        if let Some(place) = found.evicted {
            self.stats.neighbor_evicted += 1;
            self.give_up(place);
        }
        if let Some(ask) = found.ask {
            self.solicit(ask);
        }
        found.lookup
    }

    /// Queues a frame until the neighbour at `place` is resolved. If there is no room, frames for addresses that may be
    /// forged are dropped first, the oldest before others.
    fn keep(&mut self, place: u32, account: Account, frame: T) -> Sent<T> {
        while self.pending.wants_room(place)
            && let Some(oldest) = self.neighbors.oldest_newcomer().filter(|oldest| *oldest != place)
        {
            self.neighbors.remove(oldest);
            self.stats.neighbor_evicted += 1;
            self.give_up(oldest);
        }
        if account == Account::Newcomer && self.pending.wants_room(place) && self.pending.waiting(place) == 0 {
            return self.refuse(NetDrop::PendingFull);
        }
        match self.pending.push(place, frame) {
            Queued::Waits => {}
            Queued::PushedOut => self.stats.drops[NetDrop::PendingOverflow] += 1,
            Queued::Full => return self.refuse(NetDrop::PendingFull),
        }
        self.stats.tx_pending += 1;
        Sent::Pending
    }
}
