//! Counters of the network layer.

use std::ops::{Index, IndexMut};

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// The reason why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum NetDrop { $($(#[$doc])* $name,)* }

        impl NetDrop {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in reports, with the prefix `rx_` for received frames and `tx_` for frames to be sent.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

drops! {
    /// Not Ethernet II, or truncated.
    EthMalformed = "rx_eth_malformed",
    /// More than one VLAN tag.
    DoubleTagged = "rx_double_tagged",
    /// A VLAN other than the configured one, or a tag where none is configured.
    WrongVlan = "rx_wrong_vlan",
    /// For another station, or for a group that we are not in.
    ForeignMac = "rx_foreign_mac",
    /// Neither ARP nor IP.
    EtherType = "rx_ethertype",
    /// ARP that is not for IPv4 over Ethernet, or is inconsistent.
    ArpMalformed = "rx_arp_malformed",
    /// ARP that does not concern us.
    ArpForeign = "rx_arp_foreign",
    /// IPv4 header malformed.
    Ipv4Malformed = "rx_ipv4_malformed",
    /// IPv4 header checksum wrong.
    Ipv4Checksum = "rx_ipv4_checksum",
    /// IPv6 header malformed.
    Ipv6Malformed = "rx_ipv6_malformed",
    /// An IPv6 extension header that cannot be skipped, or too many headers, options or padding.
    Ipv6Extension = "rx_ipv6_extension",
    /// A fragment, as reassembly is not supported.
    Fragment = "rx_fragment",
    /// For another address.
    NotOurAddress = "rx_not_our_address",
    /// From an invalid source: multicast, broadcast, unspecified, loopback, our own, or a group's MAC address.
    BadSource = "rx_bad_source",
    /// Neither UDP nor ICMP.
    Protocol = "rx_protocol",
    /// UDP header malformed.
    UdpMalformed = "rx_udp_malformed",
    /// UDP checksum wrong.
    UdpChecksum = "rx_udp_checksum",
    /// UDP over IPv6 without a checksum.
    UdpNoChecksum = "rx_udp_no_checksum",
    /// UDP from or to port 0.
    UdpPortZero = "rx_udp_port_zero",
    /// UDP to a port that is not open.
    PortClosed = "rx_port_closed",
    /// ICMP malformed.
    IcmpMalformed = "rx_icmp_malformed",
    /// ICMP checksum wrong.
    IcmpChecksum = "rx_icmp_checksum",
    /// An ICMP error about a packet that cannot be ours: not UDP, not from an open port of ours, or too long.
    IcmpUnrelated = "rx_icmp_unrelated",
    /// An ICMP message that is ignored.
    IcmpIgnored = "rx_icmp_ignored",
    /// "Packet too big" without an MTU, or with one that is no news, is below the protocol's minimum, or is large
    /// enough for the quoted packet.
    TooBigUnusable = "rx_too_big_unusable",
    /// Neighbour discovery that must be discarded by RFC 4861.
    NdpInvalid = "rx_ndp_invalid",
    /// Neighbour discovery that does not concern us.
    NdpForeign = "rx_ndp_foreign",
    /// A request or an "unreachable" message about an unused flow over its rate limit, or too many answers are queued.
    RateLimited = "rx_rate_limited",

    /// From an address that is not ours.
    NotOurSource = "tx_not_our_source",
    /// From IPv4 to IPv6 or vice versa.
    FamilyMismatch = "tx_family_mismatch",
    /// To an invalid destination: multicast, broadcast, unspecified, loopback, our own, or port 0.
    BadDestination = "tx_bad_destination",
    /// No route to the destination.
    NoRoute = "tx_no_route",
    /// Payload above [`max_udp_payload`](super::Net::max_udp_payload).
    TooBig = "tx_too_big",
    /// Replaced by a newer frame while its neighbour is being resolved.
    PendingOverflow = "tx_pending_overflow",
    /// Too many frames wait for neighbours in total.
    PendingFull = "tx_pending_full",
    /// An answer to a stranger whose neighbour is unknown and whose packet has no usable source MAC address.
    StrangerUnknown = "tx_stranger_unknown",
    /// All neighbours in the table are in use, and there is no room for one whose address may be forged.
    NeighborTableFull = "tx_neighbor_table_full",
    /// The neighbour did not answer.
    NeighborUnreachable = "tx_neighbor_unreachable",
    /// A frame of the network layer does not fit the datapath's frames.
    FrameTooSmall = "tx_frame_too_small",
}

/// Drops by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops([u64; NetDrop::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; NetDrop::ALL.len()])
    }
}

impl Drops {
    /// The total of dropped received frames.
    pub fn received(&self) -> u64 {
        NetDrop::ALL.iter().filter(|d| d.label().starts_with("rx_")).map(|d| self[*d]).sum()
    }

    /// The total of dropped frames to be sent.
    pub fn sent(&self) -> u64 {
        NetDrop::ALL.iter().filter(|d| d.label().starts_with("tx_")).map(|d| self[*d]).sum()
    }
}

impl Index<NetDrop> for Drops {
    type Output = u64;
    fn index(&self, reason: NetDrop) -> &u64 {
        &self.0[reason as usize]
    }
}

impl IndexMut<NetDrop> for Drops {
    fn index_mut(&mut self, reason: NetDrop) -> &mut u64 {
        &mut self.0[reason as usize]
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one core's network layer. Every received frame is in exactly one of `rx_udp`,
        /// `rx_too_big`, `rx_unreachable`, `rx_handled` and the `rx_` drops.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct NetStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Drops by reason.
            pub drops: Drops,
        }

        impl NetStats {
            /// All counters with their names, drops last.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                let plain = [$((stringify!($name), self.$name),)*];
                plain.into_iter().chain(NetDrop::ALL.iter().map(|d| (d.label(), self.drops[*d])))
            }
        }
    };
}

counters! {
    /// Frames received.
    rx_frames,
    /// UDP datagrams passed on.
    rx_udp,
    /// Their payload, in bytes.
    rx_udp_bytes,
    /// UDP checksums verified in software.
    rx_udp_software_checksums,
    /// UDP datagrams parsed in full, because their flow was not cached.
    rx_flow_misses,
    /// "Packet too big" messages passed on.
    rx_too_big,
    /// "Port unreachable" and "host unreachable" messages passed on.
    rx_unreachable,
    /// Frames handled here: ARP, neighbour discovery, echo.
    rx_handled,
    /// Router advertisements, which are only counted. Included in `rx_handled`.
    rx_router_adverts,
    /// UDP datagrams whose next hop was known, so that they could be sent at once.
    tx_udp,
    /// Their payload in bytes.
    tx_udp_bytes,
    /// UDP checksums computed in software.
    tx_udp_software_checksums,
    /// Sends without a cached header template.
    tx_template_misses,
    /// Frames that waited for their neighbour to be resolved.
    tx_pending,
    /// Of those, frames that were sent.
    tx_released,
    /// Answers to strangers, sent to the MAC address that their packet came from.
    tx_reflected,
    /// Frames of the network layer: ARP, neighbour discovery, ICMP.
    tx_control,
    /// Frames of the network layer lost because too many were queued.
    tx_control_overflow,
    /// Solicitations sent for neighbours.
    neighbor_solicits,
    /// Neighbours resolved.
    neighbor_resolved,
    /// Neighbours whose MAC address changed.
    neighbor_changed,
    /// Neighbours that did not answer.
    neighbor_failed,
    /// Neighbours evicted from a full table.
    neighbor_evicted,
    /// Times that another station claimed one of our addresses, by ARP or neighbour discovery.
    duplicate_address,
    /// Times that we defended an address.
    address_defended,
    /// Addresses given up because another station already had them.
    address_lost,
    /// Probes for our addresses.
    address_probes,
    /// Announcements of our addresses.
    address_announcements,
    /// Times that a neighbour was suspected because connections through it got no answers.
    neighbor_suspected,
    /// Events lost because the queue was full.
    events_lost,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_values_arrive() {
        let mut stats = NetStats { rx_udp: 3, ..NetStats::default() };
        stats.drops[NetDrop::NoRoute] += 2;
        stats.drops[NetDrop::Fragment] += 1;
        let all: Vec<_> = stats.iter().collect();
        let names: HashSet<_> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.contains(&("rx_udp", 3)) && all.contains(&("tx_no_route", 2)) && all.contains(&("rx_fragment", 1)));
        assert_eq!((stats.drops.received(), stats.drops.sent()), (1, 2));
        assert_eq!(stats.drops.received() + stats.drops.sent(), 3, "every label has a direction");
        assert!(NetDrop::ALL.iter().all(|d| d.label().starts_with("rx_") || d.label().starts_with("tx_")));
    }
}
