//! ARP, neighbour discovery and ICMP: answers, and messages of our own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::base::time::Instant;
use crate::datapath::TxFrame;
use crate::net::addressing::{is_link_local, is_station};
use crate::net::claim::Other;
use crate::net::neighbor::{Learned, News, Solicit};
use crate::net::news::GroupNews;
use crate::net::packet::{IpPacket, Quote};
use crate::net::receive::Received;
use crate::net::stack::Net;
use crate::net::stats::NetDrop;
use crate::net::template::TTL;
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthHeader, Mac};
use crate::wire::icmp::{self, Icmp, IcmpVersion, QuotedUdp};
use crate::wire::ipv4::{self, PROTOCOL_ICMP};
use crate::wire::ipv6::{self, ALL_NODES, IPV6_MIN_MTU, PROTOCOL_ICMPV6};
use crate::wire::ndp::{self, ListenerQuery, Ndp, NdpError};

/// Smallest MTU of an IPv4 link (RFC 791 §3.2).
const IPV4_MIN_MTU: u32 = 68;
/// The maximum length of an ICMP error, including the IP header (RFC 1812 §4.3.2.3).
const MAX_ERROR_V4: usize = 576;

impl<T: TxFrame> Net<T> {
    pub(super) fn arp(
        &mut self,
        now: Instant,
        eth: &EthHeader,
        to_us: bool,
        bytes: &[u8],
    ) -> Result<Received, NetDrop> {
        if !to_us && eth.dst != Mac::BROADCAST {
            return Err(NetDrop::ForeignMac);
        }
        let arp = Arp::parse(bytes).map_err(|_| NetDrop::ArpMalformed)?;
        if !arp.sender_mac.is_station() {
            return Err(NetDrop::ArpMalformed);
        }
        let (sender, target) = (IpAddr::V4(arp.sender_ip), IpAddr::V4(arp.target_ip));
        if self.claims.has(sender) {
            self.claimed(now, sender, arp.sender_mac, Other::Uses);
            return Err(NetDrop::BadSource);
        }
        // Probes have no sender address (RFC 5227 §1.1).
        if arp.sender_ip.is_unspecified() && arp.op == ArpOp::Request {
            self.claimed(now, target, arp.sender_mac, Other::Probes);
        }
        let for_us = self.addressing.is_local(target);
        let news = match arp.op {
            ArpOp::Request if for_us => News::Question,
            ArpOp::Reply if for_us && to_us => News::Answer { replace: true },
            _ => News::Hint { replace: true },
        };
        let learned = self.learn(now, sender, Some(arp.sender_mac), news);
        if news == News::Question {
            let ours = Arp {
                op: ArpOp::Reply,
                sender_mac: self.mac,
                sender_ip: arp.target_ip,
                target_mac: arp.sender_mac,
                target_ip: arp.sender_ip,
            };
            self.push_eth(arp.sender_mac, ETHERTYPE_ARP, &[&ours.to_bytes()])?;
        } else if learned == Learned::Nothing && !for_us {
            return Err(NetDrop::ArpForeign);
        }
        Ok(Received::Consumed)
    }

    /// Handles ICMP of either version. Its checksum is always verified here, as devices differ in what they report as
    /// good.
    pub(super) fn icmp(&mut self, now: Instant, packet: &IpPacket<'_>) -> Result<Received, NetDrop> {
        let message = packet.payload();
        let pseudo = match packet.version {
            IcmpVersion::V4 => Sum::new(),
            IcmpVersion::V6 => packet.pseudo(PROTOCOL_ICMPV6, message.len()),
        };
        if !pseudo.bytes(message).is_valid() {
            return Err(NetDrop::IcmpChecksum);
        }
        match Icmp::parse(packet.version, message).map_err(|_| NetDrop::IcmpMalformed)? {
            Icmp::Ndp(message) => self.ndp(now, packet, message),
            _ if self.addressing.is_local(packet.src) => Err(NetDrop::BadSource),
            Icmp::ListenerQuery(query) => self.listener_query(now, packet, &query),
            _ if !self.addressing.is_local(packet.dst) => Err(NetDrop::IcmpIgnored),
            _ if packet.src.is_unspecified() => Err(NetDrop::BadSource),
            Icmp::EchoRequest { rest } => self.answer_echo(now, packet, rest),
            Icmp::PacketTooBig { mtu, quoted } => self.too_big(packet, mtu, quoted),
            Icmp::PortUnreachable { quoted } => {
                Ok(Received::PortUnreachable { quote: self.undelivered(now, packet, quoted)? })
            }
            Icmp::HostUnreachable { quoted } => {
                Ok(Received::HostUnreachable { quote: self.undelivered(now, packet, quoted)? })
            }
            Icmp::EchoReply | Icmp::OtherError { .. } | Icmp::Other { .. } => Err(NetDrop::IcmpIgnored),
        }
    }

    /// The datagram that an error quotes, if it can be ours (RFC 8085 §5.2): from the address that the error was sent
    /// to and an open port, to a valid destination, and not too long.
    fn quote(&self, packet: &IpPacket<'_>, quoted: &[u8]) -> Result<Quote, NetDrop> {
        let most = self.max_udp_payload(packet.version == IcmpVersion::V6);
        let udp = QuotedUdp::parse(packet.version, quoted)
            .filter(|udp| udp.src.ip() == packet.dst && self.ports.is_open(udp.src.port()))
            .filter(|udp| is_station(udp.dst.ip()) && !self.addressing.is_local(udp.dst.ip()))
            .filter(|udp| udp.src.port() != 0 && udp.dst.port() != 0 && udp.len <= most)
            .ok_or(NetDrop::IcmpUnrelated)?;
        let start = packet.at + packet.header_len + icmp::ICMP_LEN;
        let Range { start: from, end: to } = udp.payload;
        let payload = if from == to { 0..0 } else { start + from..start + to };
        Ok(Quote { local: udp.src, remote: udp.dst, len: udp.len, payload })
    }

    /// Handles "packet too big". Anybody can forge it, so the quoted datagram is passed on to the engine, which knows
    /// what was sent (RFC 9000 §14.2.1). There is no limit that forged messages could exhaust.
    fn too_big(&mut self, packet: &IpPacket<'_>, mtu: u32, quoted: &[u8]) -> Result<Received, NetDrop> {
        let quote = self.quote(packet, quoted)?;
        let v6 = packet.version == IcmpVersion::V6;
        // Anything below the protocol's minimum MTU is an attack (RFC 8201 §4).
        let least = if v6 { u32::from(IPV6_MIN_MTU) } else { IPV4_MIN_MTU };
        let own = u32::from(self.caps.mtu);
        if mtu < least || mtu >= own {
            return Err(NetDrop::TooBigUnusable);
        }
        // Both are above the size of the headers, and below our own MTU.
        let max_udp_payload = self.max_udp_payload(v6) - (own - mtu) as u16;
        if quote.len != 0 && quote.len <= max_udp_payload {
            return Err(NetDrop::TooBigUnusable);
        }
        Ok(Received::PacketTooBig { quote, max_udp_payload })
    }

    /// Handles "unreachable". If something was sent on the flow recently, it is passed on. Of the others, most of which
    /// are forged, a limited number is passed on too, as headers are cached for a limited number of flows only.
    fn undelivered(&mut self, now: Instant, packet: &IpPacket<'_>, quoted: &[u8]) -> Result<Quote, NetDrop> {
        let quote = self.quote(packet, quoted)?;
        if self.has_template(quote.local, quote.remote) || self.unreachable_limit.take(now) {
            Ok(quote)
        } else {
            Err(NetDrop::RateLimited)
        }
    }

    /// Sends an echo reply back to where the request came from, without route or neighbour lookup, so a flood of
    /// requests fills no table.
    fn answer_echo(&mut self, now: Instant, packet: &IpPacket<'_>, rest: &[u8]) -> Result<Received, NetDrop> {
        if !packet.to_us || !packet.src_mac.is_station() {
            return Err(NetDrop::IcmpIgnored);
        }
        if !self.echo_limit.take(now) {
            return Err(NetDrop::RateLimited);
        }
        let first = icmp::echo_reply(packet.version, reply_pseudo(packet, 4 + rest.len()), rest);
        self.push_reply(packet, &[&first, rest])?;
        Ok(Received::Consumed)
    }

    /// Sends "port unreachable" (RFC 1122 §3.2.2.1, RFC 4443 §3.1), as often as the limit allows.
    pub(super) fn answer_closed_port(&mut self, now: Instant, packet: &IpPacket<'_>) {
        if !packet.src_mac.is_station() || !self.error_limit.take(now) {
            return;
        }
        let (max, header) = match packet.version {
            IcmpVersion::V4 => (MAX_ERROR_V4, ipv4::IPV4_LEN),
            IcmpVersion::V6 => (usize::from(IPV6_MIN_MTU), ipv6::IPV6_LEN),
        };
        let quoted = &packet.bytes[..packet.bytes.len().min(max - header - icmp::ICMP_LEN)];
        let pseudo = reply_pseudo(packet, icmp::ICMP_LEN + quoted.len());
        let first = icmp::port_unreachable(packet.version, pseudo, quoted);
        // If there is no room, the error is not sent: the drop that caused it is already counted.
        let _ = self.push_reply(packet, &[&first, quoted]);
    }

    fn ndp(&mut self, now: Instant, packet: &IpPacket<'_>, message: &[u8]) -> Result<Received, NetDrop> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else {
            return Err(NetDrop::NdpInvalid);
        };
        if packet.hop_limit != ndp::HOP_LIMIT {
            return Err(NetDrop::NdpInvalid);
        }
        let ndp = Ndp::parse(message).map_err(|error| match error {
            NdpError::Kind(_) => NetDrop::IcmpIgnored,
            _ => NetDrop::NdpInvalid,
        })?;
        if self.claims.has(packet.src) {
            self.claimed(now, packet.src, packet.src_mac, Other::Uses);
            return Err(NetDrop::BadSource);
        }
        match ndp {
            Ndp::NeighborSolicit { target, options } => {
                self.neighbor_solicit(now, packet, (src, dst), target, options.source)
            }
            _ if src.is_unspecified() => Err(NetDrop::NdpInvalid),
            Ndp::NeighborAdvert { target, solicited, replace, options, .. } => {
                if solicited && dst.is_multicast() || options.target.is_some_and(|mac| !mac.is_station()) {
                    return Err(NetDrop::NdpInvalid);
                }
                if self.claims.has(target.into()) {
                    self.claimed(now, target.into(), options.target.unwrap_or(packet.src_mac), Other::Uses);
                    return Err(NetDrop::BadSource);
                }
                let news = if solicited { News::Answer { replace } } else { News::Hint { replace } };
                let learned = self.learn(now, target.into(), options.target, news);
                if learned == Learned::Nothing && !solicited {
                    Err(NetDrop::NdpForeign)
                } else {
                    Ok(Received::Consumed)
                }
            }
            Ndp::RouterAdvert { .. } if src.is_unicast_link_local() => {
                self.stats.rx_router_adverts += 1;
                Ok(Received::Consumed)
            }
            Ndp::RouterAdvert { .. } => Err(NetDrop::NdpInvalid),
            Ndp::RouterSolicit { .. } => Err(NetDrop::NdpForeign),
        }
    }

    fn neighbor_solicit(
        &mut self,
        now: Instant,
        packet: &IpPacket<'_>,
        (src, dst): (Ipv6Addr, Ipv6Addr),
        target: Ipv6Addr,
        source_mac: Option<Mac>,
    ) -> Result<Received, NetDrop> {
        if !self.claims.has(target.into()) {
            return Err(NetDrop::NdpForeign);
        }
        let mac = source_mac.unwrap_or(packet.src_mac);
        if !mac.is_station() {
            return Err(NetDrop::NdpInvalid);
        }
        if src.is_unspecified() {
            // Somebody else probes for our address: the answer goes to all nodes (RFC 4861 §7.2.4).
            if source_mac.is_some() || dst != ipv6::solicited_node(target) {
                return Err(NetDrop::NdpInvalid);
            }
            self.claimed(now, target.into(), packet.src_mac, Other::Probes);
            if self.addressing.is_local(target.into()) {
                self.advertise(target, ALL_NODES, Mac::for_multicast(ALL_NODES), false)?;
            }
        } else if self.addressing.is_local(target.into()) {
            self.learn(now, src.into(), source_mac, News::Question);
            self.advertise(target, src, mac, true)?;
        } else {
            // The address is not ours yet (RFC 4862 §5.4.3).
            return Err(NetDrop::NdpForeign);
        }
        Ok(Received::Consumed)
    }

    /// Handles a multicast listener query: our groups are reported again (RFC 3810 §6.2). It shares no limit with other
    /// messages, since a host that does not report becomes unreachable behind switches with MLD snooping.
    fn listener_query(
        &mut self,
        now: Instant,
        packet: &IpPacket<'_>,
        query: &ListenerQuery,
    ) -> Result<Received, NetDrop> {
        let ours = query.group.is_unspecified() || self.addressing.listens_to(query.group);
        if !ours || !is_link_local(packet.src) || packet.hop_limit != 1 {
            return Err(NetDrop::IcmpIgnored);
        }
        if self.core == 0 {
            self.reports.asked(now, query.max_delay);
        } else {
            self.tell(GroupNews::ListenerQuery { max_delay: query.max_delay });
        }
        Ok(Received::Consumed)
    }

    /// Sends a solicitation for a neighbour.
    pub(super) fn solicit(&mut self, ask: Solicit) {
        self.stats.neighbor_solicits += 1;
        self.tell(GroupNews::Asked { ip: ask.target });
        let mac = self.mac;
        // If there is no room, it is sent again in a second.
        let _ = match (ask.target, self.addressing.asks_for(ask.target)) {
            (IpAddr::V4(target), Some(IpAddr::V4(own))) => self.arp_request(own, target, ask.to),
            (IpAddr::V6(target), Some(IpAddr::V6(own))) => {
                let group = ipv6::solicited_node(target);
                let (dst, dst_mac) = ask.to.map_or((group, Mac::for_multicast(group)), |mac| (target, mac));
                if self.claims.is_held(own.into()) {
                    let message = ndp::neighbor_solicit(own, dst, target, mac);
                    self.push_ndp(own, dst, dst_mac, &message)
                } else {
                    // The address may be another station's, so nobody may learn a link-layer address from this (RFC
                    // 4429 §3.2).
                    self.push_ndp(own, dst, dst_mac, &ndp::neighbor_query(own, dst, target))
                }
            }
            _ => Ok(()),
        };
    }

    fn arp_request(&mut self, own: Ipv4Addr, target: Ipv4Addr, to: Option<Mac>) -> Result<(), NetDrop> {
        let request =
            Arp { op: ArpOp::Request, sender_mac: self.mac, sender_ip: own, target_mac: Mac::ZERO, target_ip: target };
        self.push_eth(to.unwrap_or(Mac::BROADCAST), ETHERTYPE_ARP, &[&request.to_bytes()])
    }

    fn advertise(&mut self, own: Ipv6Addr, dst: Ipv6Addr, dst_mac: Mac, solicited: bool) -> Result<(), NetDrop> {
        // Tentative addresses do not override (RFC 4429 §3.3).
        let replace = self.claims.is_held(own.into());
        let message = ndp::neighbor_advert(own, dst, own, self.mac, solicited, replace);
        self.push_ndp(own, dst, dst_mac, &message)
    }

    /// Sends listener reports while there is room; the others follow later.
    #[cold]
    pub(super) fn report(&mut self, now: Instant) {
        while self.outbox.has_room() {
            let all = self.addressing.all();
            match self.reports.next(now, all.len()).map(|n| all[n].addr()) {
                Some(IpAddr::V6(own)) => self.report_group(own),
                Some(IpAddr::V4(_)) => {}
                None => return,
            }
        }
    }

    /// Sends a probe for our address `own` (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
    pub(super) fn probe_address(&mut self, own: IpAddr) {
        // If there is no room, the probe is as good as lost on the link.
        let _ = match own {
            IpAddr::V4(own) => self.arp_request(Ipv4Addr::UNSPECIFIED, own, None),
            IpAddr::V6(own) => {
                let group = ipv6::solicited_node(own);
                let message = ndp::neighbor_query(Ipv6Addr::UNSPECIFIED, group, own);
                self.push_ndp(Ipv6Addr::UNSPECIFIED, group, Mac::for_multicast(group), &message)
            }
        };
    }

    /// Announces our address `own` (RFC 5227 §2.3, RFC 4861 §7.2.6).
    pub(super) fn announce(&mut self, own: IpAddr) {
        let _ = match own {
            IpAddr::V4(own) => self.arp_request(own, own, None),
            IpAddr::V6(own) => self.advertise(own, ALL_NODES, Mac::for_multicast(ALL_NODES), false),
        };
    }

    /// Reports the solicited-node group of `own`, from a link-local address (RFC 3810 §5.2.13).
    fn report_group(&mut self, own: Ipv6Addr) {
        let link_local =
            self.addressing.all().iter().map(|own| own.addr()).find(|ip| is_link_local(*ip) && ip.is_ipv6());
        let Some(IpAddr::V6(src)) = link_local else { return };
        let message = ndp::listener_report(src, own);
        let len = ndp::ROUTER_ALERT.len() + message.len();
        let ip = ipv6::header(src, ndp::ALL_MLDV2_ROUTERS, 0, 1, 0, 0, len);
        let dst_mac = Mac::for_multicast(ndp::ALL_MLDV2_ROUTERS);
        // The caller has checked for room.
        let _ = self.push_eth(dst_mac, ETHERTYPE_IPV6, &[&ip, &ndp::ROUTER_ALERT, &message]);
    }

    fn push_ndp(&mut self, src: Ipv6Addr, dst: Ipv6Addr, dst_mac: Mac, message: &[u8]) -> Result<(), NetDrop> {
        let ip = ipv6::header(src, dst, PROTOCOL_ICMPV6, ndp::HOP_LIMIT, 0, 0, message.len());
        self.push_eth(dst_mac, ETHERTYPE_IPV6, &[&ip, message])
    }

    /// Queues an ICMP message, given in two parts, to the sender of `packet`.
    fn push_reply(&mut self, packet: &IpPacket<'_>, parts: &[&[u8]; 2]) -> Result<(), NetDrop> {
        let len = parts[0].len() + parts[1].len();
        match (packet.src, packet.dst) {
            (IpAddr::V4(to), IpAddr::V4(from)) => {
                let ip = ipv4::header(from, to, PROTOCOL_ICMP, TTL, 0, len);
                self.push_eth(packet.src_mac, ETHERTYPE_IPV4, &[&ip, parts[0], parts[1]])
            }
            (IpAddr::V6(to), IpAddr::V6(from)) => {
                let ip = ipv6::header(from, to, PROTOCOL_ICMPV6, TTL, 0, 0, len);
                self.push_eth(packet.src_mac, ETHERTYPE_IPV6, &[&ip, parts[0], parts[1]])
            }
            _ => Ok(()),
        }
    }

    fn push_eth(&mut self, dst: Mac, ethertype: u16, parts: &[&[u8]]) -> Result<(), NetDrop> {
        let eth = EthHeader { dst, src: self.mac, vlan: self.vlan, ethertype }.to_bytes();
        let mut all: arrayvec::ArrayVec<&[u8], 4> = arrayvec::ArrayVec::new();
        all.push(&eth);
        all.extend(parts.iter().copied());
        if self.outbox.push(&all) {
            return Ok(());
        }
        self.stats.tx_control_overflow += 1;
        Err(NetDrop::RateLimited)
    }
}

/// The pseudo-header checksum of the answer to `packet`, which has the same addresses, swapped.
fn reply_pseudo(packet: &IpPacket<'_>, len: usize) -> Sum {
    match packet.version {
        IcmpVersion::V4 => Sum::new(),
        IcmpVersion::V6 => packet.pseudo(PROTOCOL_ICMPV6, len),
    }
}
