//! Classification of received frames.

use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::datapath::{Checksum, RxFrame, TxFrame};
use crate::mem::sum_words;
use crate::net::addressing::is_station;
use crate::net::packet::{FlowDatagram, IpPacket, Quote, UdpDatagram};
use crate::net::stack::Net;
use crate::net::stats::NetDrop;
use crate::wire::eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthError, EthHeader, Mac};
use crate::wire::icmp::IcmpVersion;
use crate::wire::ipv4::{Ipv4, PROTOCOL_ICMP, PROTOCOL_UDP};
use crate::wire::ipv6::{ALL_NODES, Ipv6, Ipv6Error, PROTOCOL_ICMPV6};
use crate::wire::ndp;
use crate::wire::udp::{UDP_LEN, Udp};

/// The result of receiving a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A UDP datagram for us.
    Udp(UdpDatagram),
    /// A router reports that a datagram of ours was too big (see RFC 9000 §14.2.1).
    PacketTooBig {
        /// The datagram.
        quote: Quote,
        /// The largest UDP payload that fits, in bytes; less than the datagram's.
        max_udp_payload: u16,
    },
    /// A host reports that the destination port of a datagram is closed.
    PortUnreachable {
        /// The datagram.
        quote: Quote,
    },
    /// A router reports that it has no route to a datagram's destination.
    HostUnreachable {
        /// The datagram.
        quote: Quote,
    },
    /// The frame was handled here.
    Consumed,
    /// The frame was dropped.
    Dropped(NetDrop),
}

/// A frame whose checksums were verified.
struct Verified<'a, R>(&'a mut R);

impl<R: RxFrame> RxFrame for Verified<'_, R> {
    fn data_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }

    fn ip_checksum(&self) -> Checksum {
        Checksum::Good
    }

    fn l4_checksum(&self) -> Checksum {
        Checksum::Good
    }
}

impl<T: TxFrame> Net<T> {
    /// Receives one frame. Everything except UDP for us and errors about our UDP datagrams is handled here.
    pub fn receive<R: RxFrame>(&mut self, now: Instant, frame: &mut R) -> Received {
        let found = self.receive_known(frame);
        if let Some((FlowDatagram { ecn, payload: [from, to], .. }, (local, remote))) =
            found.and_then(|found| Some((found, self.flow(found.flow)?)))
        {
            return Received::Udp(UdpDatagram { local, remote, ecn, payload: from.into()..to.into() });
        }
        self.receive_unknown(now, frame)
    }

    /// Processes a received frame if it is a UDP datagram of a known flow. Otherwise, it must be passed to
    /// [`Net::receive_unknown`].
    #[inline]
    pub fn receive_known<R: RxFrame>(&mut self, frame: &mut R) -> Option<FlowDatagram> {
        let (ip, l4) = (frame.ip_checksum(), frame.l4_checksum());
        let (datagram, computed) = self.flows.find(frame.data_mut(), ip, l4)?;
        let [from, to] = datagram.payload;
        self.stats.rx_frames += 1;
        self.stats.rx_udp += 1;
        self.stats.rx_udp_bytes += u64::from(to - from);
        self.stats.rx_udp_software_checksums += u64::from(computed);
        Some(datagram)
    }

    /// Returns the addresses of a flow, ours and the peer's.
    pub fn flow(&self, flow: u8) -> Option<(SocketAddr, SocketAddr)> {
        self.flows.addresses(flow)
    }

    /// Processes a received frame that [`Net::receive_known`] does not know.
    pub fn receive_unknown<R: RxFrame>(&mut self, now: Instant, frame: &mut R) -> Received {
        self.stats.rx_frames += 1;
        let (ip, l4) = (frame.ip_checksum(), frame.l4_checksum());
        self.receive_in_full(now, frame.data_mut(), ip, l4)
    }

    /// The same as [`Net::receive_known`] for a frame that the network layer of another core has already verified and
    /// counted. If it belongs to no known flow, it must be passed to [`Net::receive_handed`].
    #[inline]
    pub fn receive_known_handed<R: RxFrame>(&mut self, frame: &mut R) -> Option<FlowDatagram> {
        self.flows.find(frame.data_mut(), Checksum::Good, Checksum::Good).map(|(datagram, _)| datagram)
    }

    /// Receives a frame that the network layer of another core has already recognised as UDP for us, verified and
    /// counted. `None` if that is no longer the case.
    pub fn receive_handed<R: RxFrame>(&mut self, now: Instant, frame: &mut R) -> Option<UdpDatagram> {
        let (frames, udp, bytes) = (self.stats.rx_frames, self.stats.rx_udp, self.stats.rx_udp_bytes);
        let Received::Udp(datagram) = self.receive(now, &mut Verified(frame)) else { return None };
        (self.stats.rx_frames, self.stats.rx_udp, self.stats.rx_udp_bytes) = (frames, udp, bytes);
        Some(datagram)
    }

    fn receive_in_full(&mut self, now: Instant, frame: &[u8], ip: Checksum, l4: Checksum) -> Received {
        match self.classify(now, frame, ip, l4) {
            Ok(received) => {
                match &received {
                    Received::Udp(datagram) => {
                        self.stats.rx_udp += 1;
                        self.stats.rx_udp_bytes += datagram.payload.len() as u64;
                        self.stats.rx_flow_misses += 1;
                    }
                    Received::PacketTooBig { .. } => self.stats.rx_too_big += 1,
                    Received::PortUnreachable { .. } | Received::HostUnreachable { .. } => {
                        self.stats.rx_unreachable += 1;
                    }
                    Received::Consumed | Received::Dropped(_) => self.stats.rx_handled += 1,
                }
                received
            }
            Err(reason) => {
                self.stats.drops[reason] += 1;
                Received::Dropped(reason)
            }
        }
    }

    fn classify(&mut self, now: Instant, frame: &[u8], ip: Checksum, l4: Checksum) -> Result<Received, NetDrop> {
        let (eth, at) = EthHeader::parse(frame).map_err(|error| match error {
            EthError::DoubleTagged => NetDrop::DoubleTagged,
            EthError::Truncated(_) | EthError::Not2(_) => NetDrop::EthMalformed,
        })?;
        if eth.vlan != self.vlan {
            return Err(NetDrop::WrongVlan);
        }
        let to_us = eth.dst == self.mac;
        if !to_us && !eth.dst.is_group() {
            return Err(NetDrop::ForeignMac);
        }
        // The source is a single station (IEEE 802.3 §3.2.4).
        if !eth.src.is_station() {
            return Err(NetDrop::BadSource);
        }
        match eth.ethertype {
            ETHERTYPE_IPV4 if to_us => self.ipv4(now, &eth, frame, at, ip, l4),
            // We are in no IPv4 groups, and unicast packets in group frames are dropped (RFC 1122 §3.3.6).
            ETHERTYPE_IPV4 => Err(NetDrop::ForeignMac),
            ETHERTYPE_IPV6 => self.ipv6(now, &eth, to_us, frame, at, l4),
            ETHERTYPE_ARP => self.arp(now, &eth, to_us, &frame[at..]),
            _ => Err(NetDrop::EtherType),
        }
    }

    fn ipv4(
        &mut self,
        now: Instant,
        eth: &EthHeader,
        frame: &[u8],
        at: usize,
        ip_checksum: Checksum,
        l4: Checksum,
    ) -> Result<Received, NetDrop> {
        let ip = Ipv4::parse(&frame[at..]).map_err(|_| NetDrop::Ipv4Malformed)?;
        let bytes = &frame[at..at + ip.total_len];
        match ip_checksum {
            Checksum::Good => {}
            Checksum::Unknown if ip.checksum_ok(bytes) => {}
            Checksum::Unknown | Checksum::Bad => return Err(NetDrop::Ipv4Checksum),
        }
        let packet = IpPacket {
            version: IcmpVersion::V4,
            src_mac: eth.src,
            to_us: true,
            src: ip.src.into(),
            dst: ip.dst.into(),
            ecn: ip.ecn,
            hop_limit: ip.ttl,
            at,
            bytes,
            header_len: ip.header_len,
        };
        if !self.addressing.is_local(packet.dst) {
            return Err(NetDrop::NotOurAddress);
        }
        self.check_source(&packet)?;
        match ip.protocol {
            _ if ip.fragment => Err(NetDrop::Fragment),
            PROTOCOL_UDP => self.udp(now, frame, &packet, l4),
            PROTOCOL_ICMP => self.icmp(now, &packet),
            _ => Err(NetDrop::Protocol),
        }
    }

    fn ipv6(
        &mut self,
        now: Instant,
        eth: &EthHeader,
        to_us: bool,
        frame: &[u8],
        at: usize,
        l4: Checksum,
    ) -> Result<Received, NetDrop> {
        let ip = Ipv6::parse(&frame[at..]).map_err(|error| match error {
            Ipv6Error::Extension(_) => NetDrop::Ipv6Extension,
            _ => NetDrop::Ipv6Malformed,
        })?;
        let packet = IpPacket {
            version: IcmpVersion::V6,
            src_mac: eth.src,
            to_us,
            src: ip.src.into(),
            dst: ip.dst.into(),
            ecn: ip.ecn,
            hop_limit: ip.hop_limit,
            at,
            bytes: &frame[at..at + ip.total_len],
            header_len: ip.header_len,
        };
        if ip.dst.is_multicast() {
            let listening = self.addressing.ipv6() && (ip.dst == ALL_NODES || self.addressing.listens_to(ip.dst));
            if !listening || !(to_us || eth.dst == Mac::for_multicast(ip.dst)) {
                return Err(NetDrop::ForeignMac);
            }
        } else if !to_us {
            return Err(NetDrop::ForeignMac);
        } else if !self.addressing.is_local(packet.dst) {
            return Err(NetDrop::NotOurAddress);
        }
        // A host without an address may only probe for one (RFC 4862 §5.4.2). Neighbour discovery from our own address
        // comes from a duplicate: it cannot come from beyond a router.
        let claims = ip.hop_limit == ndp::HOP_LIMIT && self.addressing.is_local(packet.src);
        if !((ip.src.is_unspecified() || claims) && ip.protocol == PROTOCOL_ICMPV6) {
            self.check_source(&packet)?;
        }
        match ip.protocol {
            _ if ip.fragment => Err(NetDrop::Fragment),
            PROTOCOL_ICMPV6 => self.icmp(now, &packet),
            _ if ip.dst.is_multicast() => Err(NetDrop::NotOurAddress),
            PROTOCOL_UDP => self.udp(now, frame, &packet, l4),
            _ => Err(NetDrop::Protocol),
        }
    }

    /// Checks that the source address is valid (RFC 1122 §3.2.1.3). One of our own is not evidence of a duplicate:
    /// anybody can forge it.
    fn check_source(&self, packet: &IpPacket<'_>) -> Result<(), NetDrop> {
        let bad =
            !is_station(packet.src) || self.addressing.is_local(packet.src) || self.addressing.is_edge(packet.src);
        if bad { Err(NetDrop::BadSource) } else { Ok(()) }
    }

    /// Handles UDP in a packet of `frame`.
    fn udp(&mut self, now: Instant, frame: &[u8], packet: &IpPacket<'_>, l4: Checksum) -> Result<Received, NetDrop> {
        let udp = Udp::parse(packet.payload()).map_err(|_| NetDrop::UdpMalformed)?;
        if udp.checksum == 0 {
            if packet.version == IcmpVersion::V6 {
                return Err(NetDrop::UdpNoChecksum);
            }
        } else if l4 == Checksum::Bad {
            return Err(NetDrop::UdpChecksum);
        } else if l4 == Checksum::Unknown {
            self.stats.rx_udp_software_checksums += 1;
            if !packet.pseudo(PROTOCOL_UDP, udp.len).words(sum_words(&packet.payload()[..udp.len])).is_valid() {
                return Err(NetDrop::UdpChecksum);
            }
        }
        if udp.src == 0 || udp.dst == 0 {
            return Err(NetDrop::UdpPortZero);
        }
        if !self.ports.is_open(udp.dst) {
            self.answer_closed_port(now, packet);
            return Err(NetDrop::PortClosed);
        }
        let start = packet.at + packet.header_len;
        let datagram = UdpDatagram {
            local: SocketAddr::new(packet.dst, udp.dst),
            remote: SocketAddr::new(packet.src, udp.src),
            ecn: packet.ecn,
            payload: start + UDP_LEN..start + udp.len,
        };
        self.flows.learn(frame, packet, &datagram);
        Ok(Received::Udp(datagram))
    }
}
