//! The way out.

use std::net::{IpAddr, SocketAddr};

use crate::base::time::Instant;
use crate::datapath::TxFrame;
use crate::net::addressing::is_station;
use crate::net::neighbor::Lookup;
use crate::net::pending::Queued;
use crate::net::stack::Net;
use crate::net::stats::NetDrop;
use crate::net::template::{FlowKey, Template};
use crate::wire::eth::Mac;

/// What became of a frame to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent<T> {
    /// It has its headers: hand it to the datapath.
    Ready(T),
    /// It is kept until its neighbour is known; [`Net::poll`] gives it back then.
    Pending,
    /// It was dropped.
    Dropped(NetDrop),
}

impl<T: TxFrame> Net<T> {
    /// Puts UDP, IP and Ethernet headers in front of `frame`, whose payload is set.
    ///
    /// `ecn` is the two ECN bits; the scope and flow fields of IPv6 socket addresses do not matter.
    pub fn send(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, ecn: u8, mut frame: T) -> Sent<T> {
        let Some(key) = FlowKey::new(local, remote) else {
            return self.refuse(NetDrop::FamilyMismatch);
        };
        let hash = key.hash(self.seed);
        // Two places for each flow.
        let first = (hash as usize & (self.templates.len() - 1)) & !1;
        let epoch = self.neighbors.epoch();
        let Some(template) = self.templates[first..first + 2].iter().find(|t| t.is_good(&key, epoch, now)) else {
            return self.send_slowly(now, local, remote, ecn, frame, (key, hash, first));
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

    fn refuse(&mut self, reason: NetDrop) -> Sent<T> {
        self.stats.drops[reason] += 1;
        Sent::Dropped(reason)
    }

    /// Without a template that is good: finds the way, asks for the neighbour, makes the template.
    #[cold]
    fn send_slowly(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        ecn: u8,
        mut frame: T,
        (key, hash, first): (FlowKey, u64, usize),
    ) -> Sent<T> {
        self.stats.tx_template_misses += 1;
        let hop = match self.way(local, remote) {
            Ok(hop) => hop,
            Err(reason) => return self.refuse(reason),
        };
        let known = self.templates[first..first + 2].iter().position(|t| t.is_for(&key));
        let free = || self.templates[first..first + 2].iter().position(|t| !t.is_fresh(self.neighbors.epoch(), now));
        // Of two that are in use an unknown flow takes one by chance.
        let slot = first + known.or_else(free).unwrap_or((hash >> 63) as usize);
        if known.is_none() {
            let flow = (hash >> 43) as u32 & 0xf_ffff | 1;
            self.templates[slot] = Template::new(key, local, remote, self.mac, self.vlan, flow, self.caps);
        }
        let payload = frame.data().len();
        if payload > self.templates[slot].max_payload() {
            return self.refuse(NetDrop::TooBig);
        }
        let lookup = self.look_up(now, hop);
        let template = &mut self.templates[slot];
        match lookup {
            Lookup::Known { mac, until } => template.aim(mac, self.neighbors.epoch(), until),
            Lookup::Wait => template.aim(Mac::ZERO, self.neighbors.epoch(), Instant::ZERO),
        }
        template.write(ecn, &mut frame);
        self.stats.tx_udp_software_checksums += u64::from(template.sums_in_software());
        if lookup == Lookup::Wait {
            return self.keep(hop, frame);
        }
        self.stats.tx_udp += 1;
        self.stats.tx_udp_bytes += payload as u64;
        Sent::Ready(frame)
    }

    /// The next hop from `local` to `remote`.
    fn way(&self, local: SocketAddr, remote: SocketAddr) -> Result<IpAddr, NetDrop> {
        if !self.addressing.is_local(local.ip()) {
            return Err(NetDrop::NotOurSource);
        }
        if !is_station(remote.ip()) || remote.port() == 0 || self.addressing.is_local(remote.ip()) {
            return Err(NetDrop::BadDestination);
        }
        self.addressing.next_hop(remote.ip()).ok_or(NetDrop::NoRoute)
    }

    fn look_up(&mut self, now: Instant, hop: IpAddr) -> Lookup {
        let mut evicted = None;
        let (lookup, ask) = self.neighbors.lookup(now, hop, self.addressing.is_gateway(hop), &mut evicted);
        if let Some(ip) = evicted {
            self.stats.neighbor_evicted += 1;
            self.give_up(ip);
        }
        if let Some(ask) = ask {
            self.solicit(ask);
        }
        lookup
    }

    fn keep(&mut self, hop: IpAddr, frame: T) -> Sent<T> {
        match self.pending.push(hop, frame) {
            Queued::Waits => {}
            Queued::PushedOut => self.stats.drops[NetDrop::PendingOverflow] += 1,
            Queued::Full => return self.refuse(NetDrop::PendingFull),
        }
        self.stats.tx_pending += 1;
        Sent::Pending
    }
}
