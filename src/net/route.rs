//! Selection of source address and next hop.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};

use crate::net::addressing::{Addressing, is_link_local, is_station};
use crate::net::cidr::{Cidr, shared_bits};
use crate::net::config::{NetConfig, NetError};
use crate::wire::eth::Mac;

/// The reason why a host cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Not the address of a single host: multicast, broadcast, unspecified or loopback.
    #[error("{0} is not the address of a single host")]
    NotOneHost(IpAddr),
    /// The network or broadcast address of an IPv4 network on the link.
    #[error("{0} is not the address of a host: it is a network's own or its broadcast address")]
    Edge(IpAddr),
    /// One of our own addresses.
    #[error("{0} is this port's own --addr")]
    Ourselves(IpAddr),
    /// None of our addresses has its IP version and a suitable scope.
    #[error("{0} cannot be reached without an {v} address of this port: give one with --addr", v = version(.0))]
    NoAddress(IpAddr),
    /// It is not on the link, and there is no route.
    #[error("there is no route to {0}: add --gateway, or --route for its network")]
    NoRoute(IpAddr),
}

/// The reason why a configuration cannot reach a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WayError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] NetError),
    /// The configuration is valid, but there is no route.
    #[error(transparent)]
    Route(#[from] RouteError),
}

impl NetConfig {
    /// The source address for `remote`, independent of the port. The link-local address derived from a port's MAC
    /// address is not known here.
    ///
    /// # Errors
    /// [`WayError`] if there is no route or the settings contradict each other.
    pub fn source_for(&self, remote: IpAddr) -> Result<IpAddr, WayError> {
        let addressing = Addressing::new(self, Mac([2, 0, 0, 0, 0, 1]), u16::MAX)?;
        Ok(addressing.source_for(remote, addressing.next_hop(remote, |_| false)?)?)
    }
}

fn version(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Selects source addresses.
pub trait Sources {
    /// The source address for `remote` (RFC 6724 §5).
    ///
    /// # Errors
    /// [`RouteError`] if there is no route, or `remote` is not the address of another host.
    fn local_for(&self, remote: IpAddr) -> Result<IpAddr, RouteError>;
}

impl Addressing {
    /// The next hop for `remote`: `remote` itself if on the link, otherwise the router of the longest matching prefix.
    /// Among several with that prefix it is the first that is not `dead`, or the first if all are (RFC 4861 §6.3.6).
    pub(super) fn next_hop(&self, remote: IpAddr, dead: impl Fn(IpAddr) -> bool) -> Result<IpAddr, RouteError> {
        if !is_station(remote) {
            return Err(RouteError::NotOneHost(remote));
        }
        if self.is_edge(remote) {
            return Err(RouteError::Edge(remote));
        }
        if !self.locals().iter().any(|local| local.addr().is_ipv4() == remote.is_ipv4()) {
            return Err(RouteError::NoAddress(remote));
        }
        let near = self.nearest_network(remote).map(|network| network.prefix_len());
        // Link-local addresses are never routed.
        let mut routes = self.routes().iter().filter(|route| !is_link_local(remote) && route.dest.contains(remote));
        let Some(best) = routes.next().filter(|route| near.is_none_or(|near| route.dest.prefix_len() > near)) else {
            return near.map(|_| remote).ok_or(RouteError::NoRoute(remote));
        };
        if !dead(best.via) {
            return Ok(best.via);
        }
        let equal = routes.take_while(|route| route.dest.prefix_len() == best.dest.prefix_len());
        Ok(equal.map(|route| route.via).find(|via| !dead(*via)).unwrap_or(best.via))
    }

    /// The source address for `remote` via `hop`: preferably in the next hop's network, then by RFC 6724 §5. Rules 1,
    /// 3, 4 and 7 never apply here: our own addresses are rejected as destinations, and none is deprecated, mobile or
    /// temporary. There is only one interface (rule 5).
    pub(super) fn source_for(&self, remote: IpAddr, hop: IpAddr) -> Result<IpAddr, RouteError> {
        if self.is_local(remote) {
            return Err(RouteError::Ourselves(remote));
        }
        let family = self.locals().iter().filter(|local| local.addr().is_ipv4() == remote.is_ipv4());
        // A link-local source is useless beyond the link.
        let usable = family.filter(|local| !is_link_local(local.addr()) || is_link_local(remote));
        let rank = |local: &&Cidr| {
            let from = local.addr();
            let scope = scope_rank(from, remote);
            // Rule 5.5, as far as the networks of a router are known.
            let near = if local.contains(hop) { local.prefix_len() } else { 0 };
            let label = remote.is_ipv6() && label(from) == label(remote);
            let shared = shared_bits(from, remote).min(local.prefix_len());
            (scope, near, label, shared)
        };
        // Among equals the one configured first wins.
        let best = usable.min_by_key(|local| Reverse(rank(local)));
        best.map(Cidr::addr).ok_or(RouteError::NoAddress(remote))
    }

    /// The source address of solicitations for `target`.
    pub(super) fn asks_for(&self, target: IpAddr) -> Option<IpAddr> {
        self.source_for(target, target).ok()
    }
}

/// Rule 2: how well the scope of `from` suits `to`. The best scope is the smallest that is not smaller than the
/// destination's; if there is none, the largest.
fn scope_rank(from: IpAddr, to: IpAddr) -> i8 {
    let (from, to) = (scope(from), scope(to));
    if from >= to { 32 - from } else { from - 32 }
}

/// The scope of a unicast address (RFC 6724 §3.1; RFC 4291 §2.7 for the numbers, §3.2 for IPv4).
fn scope(addr: IpAddr) -> i8 {
    match addr {
        _ if is_link_local(addr) => 2,
        IpAddr::V6(addr) if addr.segments()[0] & 0xffc0 == 0xfec0 => 5,
        _ => 14,
    }
}

/// The label of an address by the default policy table (RFC 6724 §2.1), longest prefixes first.
fn label(addr: IpAddr) -> u8 {
    const fn prefix(a: u16, b: u16) -> u128 {
        Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0).to_bits()
    }
    const MAPPED: u128 = 0xffff_0000_0000;
    const TABLE: [(u128, u32, u8); 8] = [
        (1, 128, 0),
        (MAPPED, 96, 4),
        (0, 96, 3),
        (prefix(0x2001, 0), 32, 5),
        (prefix(0x2002, 0), 16, 2),
        (prefix(0x3ffe, 0), 16, 12),
        (prefix(0xfec0, 0), 10, 11),
        (prefix(0xfc00, 0), 7, 13),
    ];
    let bits = match addr {
        IpAddr::V4(addr) => MAPPED | u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let found = TABLE.iter().find(|(prefix, len, _)| (prefix ^ bits) >> (128 - len) == 0);
    found.map_or(1, |(_, _, label)| *label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::config::Route;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn build(addrs: &[&str], gateways: &[&str], routes: &[(&str, &str)]) -> Addressing {
        let config = NetConfig {
            addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
            gateways: gateways.iter().map(|a| ip(a)).collect(),
            routes: routes.iter().map(|(d, v)| Route { dest: d.parse().unwrap(), via: ip(v) }).collect(),
            ..NetConfig::default()
        };
        Addressing::new(&config, Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap()
    }

    fn hop(a: &Addressing, to: &str) -> Result<IpAddr, RouteError> {
        a.next_hop(ip(to), |_| false)
    }

    fn source(a: &Addressing, to: &str) -> Result<IpAddr, RouteError> {
        a.source_for(ip(to), hop(a, to)?)
    }

    #[test]
    fn finds_next_hops_and_sources() {
        let a = build(
            &["10.0.0.2/24", "10.0.1.2/24", "2001:db8::2/64"],
            &["10.0.0.1", "fe80::1"],
            &[("10.9.0.0/16", "10.0.1.1"), ("10.9.9.0/24", "10.0.1.9"), ("10.0.1.128/25", "10.0.1.3")],
        );
        for (to, want) in [
            ("10.0.1.77", "10.0.1.77"),
            ("10.0.1.177", "10.0.1.3"),
            ("8.8.8.8", "10.0.0.1"),
            ("10.9.1.1", "10.0.1.1"),
            ("10.9.9.1", "10.0.1.9"),
            ("2001:db8:1::1", "fe80::1"),
            ("fe80::9", "fe80::9"),
        ] {
            assert_eq!(hop(&a, to), Ok(ip(want)), "{to}: the longest prefix wins");
        }
        for (to, want) in [
            ("8.8.8.8", "10.0.0.2"),
            ("10.9.1.1", "10.0.1.2"),
            ("2001:db8:1::1", "2001:db8::2"),
            ("fe80::9", "fe80::ff:fe00:1"),
        ] {
            assert_eq!(source(&a, to), Ok(ip(want)), "{to}");
        }
        assert_eq!(a.asks_for(ip("fe80::1")), Some(ip("fe80::ff:fe00:1")));
    }

    /// Each of these used to end in a connection timeout after 10 s.
    #[test]
    fn where_no_way_leads_is_known_at_once() {
        let a = build(&["10.0.0.2/24"], &[], &[]);
        for (to, want) in [
            ("8.8.8.8", RouteError::NoRoute as fn(IpAddr) -> RouteError),
            ("10.0.0.255", RouteError::Edge),
            ("10.0.0.0", RouteError::Edge),
            ("10.0.0.2", RouteError::Ourselves),
            ("255.255.255.255", RouteError::NotOneHost),
            ("224.0.0.1", RouteError::NotOneHost),
            ("0.0.0.0", RouteError::NotOneHost),
            ("127.0.0.1", RouteError::NotOneHost),
            ("ff02::1", RouteError::NotOneHost),
            ("::", RouteError::NotOneHost),
            ("2001:db8::1", RouteError::NoAddress),
        ] {
            assert_eq!(source(&a, to), Err(want(ip(to))), "{to}");
        }
        let link_local_only = build(&["fe80::2/64"], &["fe80::1"], &[]);
        let to = "2001:db8::1";
        assert_eq!(
            source(&link_local_only, to),
            Err(RouteError::NoAddress(ip(to))),
            "an address of wider scope is needed"
        );
        assert!(RouteError::NoRoute(ip("192.0.2.1")).to_string().contains("no route to 192.0.2.1: add --gateway"));
    }

    /// RFC 6724 §10.1, as far as we can have the addresses.
    #[test]
    fn sources_as_in_the_examples_of_rfc_6724() {
        for (to, addrs, want) in [
            // The same scope rather than a larger one.
            ("2001:db8:1::1", &["2001:db8:3::1/64", "fe80::1/64"][..], "2001:db8:3::1"),
            ("fe80::5", &["2001:db8:2::1/64", "fe80::1/64"], "fe80::1"),
            ("fec0:0:0:1::1", &["fe80::1/64", "2001:db8::2/64", "fec0::2/64"], "fec0::2"),
            // Matching label: 6to4 for 6to4, unique local for unique local.
            ("2002:c633:6401::1", &["2001:db8::2/64", "2002:c633:6401:1::d5e3/64"], "2002:c633:6401:1::d5e3"),
            ("2606:4700::1", &["fd00::2/64", "2001:db8::2/64"], "2001:db8::2"),
            ("2606:4700::1", &["2001:db8::2/64", "fd00::2/64"], "2001:db8::2"),
            ("fd00:1::1", &["2001:db8::2/64", "fd00::2/64"], "fd00::2"),
            ("fd00:1::1", &["fd00::2/64", "2001:db8::2/64"], "fd00::2"),
            // Longest matching prefix.
            ("2001:db8:1::1", &["2001:db8:2::2/64", "2001:db8:1:5::2/64"], "2001:db8:1:5::2"),
        ] {
            let a = build(addrs, &["fe80::1:1"], &[]);
            assert_eq!(source(&a, to), Ok(ip(want)), "{to} from {addrs:?}");
        }
        // The route takes precedence over labels and prefixes: another network's router may refuse to forward.
        let a = build(&["2001:db8:1::2/64", "2001:db8:2::2/64"], &["2001:db8:2::1"], &[]);
        assert_eq!(source(&a, "2001:db8:1:5::1"), Ok(ip("2001:db8:2::2")));
    }

    #[test]
    fn routers_of_equal_worth_stand_in_for_each_other() {
        let a = build(&["10.0.0.2/24"], &["10.0.0.254", "10.0.0.253", "10.0.0.252"], &[("9.0.0.0/8", "10.0.0.9")]);
        let with_dead = |dead: &[&str]| a.next_hop(ip("8.8.8.8"), |via| dead.iter().any(|d| ip(d) == via));
        assert_eq!(with_dead(&[]), Ok(ip("10.0.0.254")));
        assert_eq!(with_dead(&["10.0.0.254"]), Ok(ip("10.0.0.253")));
        assert_eq!(with_dead(&["10.0.0.254", "10.0.0.253"]), Ok(ip("10.0.0.252")));
        let all = ["10.0.0.254", "10.0.0.253", "10.0.0.252"];
        assert_eq!(with_dead(&all), Ok(ip("10.0.0.254")));
        let special = a.next_hop(ip("9.9.9.9"), |_| true);
        assert_eq!(special, Ok(ip("10.0.0.9")), "a less specific route is none of equal worth");
        assert_eq!((a.router(ip("10.0.0.254")), a.router(ip("10.0.0.9"))), (Some(true), Some(false)));
    }

    /// As hosting providers assign it: a single address, and a gateway outside all our networks.
    #[test]
    fn a_gateway_beyond_our_networks() {
        let a = build(&["203.0.113.7/32", "2001:db8::7/128"], &["172.31.1.1", "fe80::1"], &[]);
        assert_eq!((hop(&a, "8.8.8.8"), source(&a, "8.8.8.8")), (Ok(ip("172.31.1.1")), Ok(ip("203.0.113.7"))));
        assert_eq!(hop(&a, "172.31.1.1"), Ok(ip("172.31.1.1")), "the gateway itself is on the link");
        assert_eq!(a.asks_for(ip("172.31.1.1")), Some(ip("203.0.113.7")));
        assert_eq!(source(&a, "2606:4700::1"), Ok(ip("2001:db8::7")));
        assert_eq!(hop(&a, "172.31.1.2"), Ok(ip("172.31.1.1")));
    }

    #[test]
    fn networks_on_the_link_without_an_address_in_them() {
        let config = NetConfig {
            addrs: vec!["10.0.0.2/24".parse().unwrap()],
            on_link: vec!["192.168.7.0/24".parse().unwrap()],
            gateways: vec![ip("192.168.7.1")],
            ..NetConfig::default()
        };
        let a = Addressing::new(&config, Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        assert_eq!(hop(&a, "192.168.7.9"), Ok(ip("192.168.7.9")));
        assert_eq!((hop(&a, "8.8.8.8"), source(&a, "8.8.8.8")), (Ok(ip("192.168.7.1")), Ok(ip("10.0.0.2"))));
    }
}
