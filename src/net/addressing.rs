//! Our addresses, what is on the link, and the way to everything else.

use std::net::{IpAddr, Ipv6Addr};

use crate::net::cidr::Cidr;
use crate::net::config::{NetConfig, NetError, Route};
use crate::wire::eth::Mac;
use crate::wire::ipv6;

/// QUIC datagrams have to reach 1200 bytes (RFC 9000 §14): with IPv4 and UDP headers.
const MIN_MTU_V4: u16 = 1228;

#[derive(Clone, Debug)]
pub(super) struct Addressing {
    locals: Vec<Cidr>,
    /// Their addresses as numbers, for quick comparison.
    numbers: Vec<u128>,
    /// Addresses of IPv4 networks that no station has.
    edges: Vec<IpAddr>,
    /// Longest prefix first, gateways as routes to everything.
    routes: Vec<Route>,
    ipv6: bool,
}

impl Addressing {
    pub(super) fn new(config: &NetConfig, mac: Mac, mtu: u16) -> Result<Self, NetError> {
        let locals = local_addresses(config, mac)?;
        let ipv6 = locals.iter().any(|local| local.addr().is_ipv6());
        let needed = if ipv6 { ipv6::IPV6_MIN_MTU } else { MIN_MTU_V4 };
        if mtu < needed {
            return Err(NetError::MtuTooSmall { mtu, needed });
        }
        let numbers = locals.iter().map(|local| number(local.addr())).collect();
        let edges = locals.iter().filter_map(Cidr::edges).flatten().collect();
        let mut this = Self { locals, numbers, edges, routes: Vec::new(), ipv6 };
        for (n, gateway) in config.gateways.iter().enumerate() {
            if config.gateways[..n].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
                return Err(NetError::SecondGateway(*gateway));
            }
        }
        let defaults = config.gateways.iter().map(|via| Route { dest: Cidr::everything_like(*via), via: *via });
        for route in config.routes.iter().copied().chain(defaults) {
            this.check_route(route)?;
            this.routes.push(route);
        }
        // Stable: of equal prefixes the one configured first wins.
        this.routes.sort_by_key(|route| std::cmp::Reverse(route.dest.prefix_len()));
        Ok(this)
    }

    fn check_route(&self, route: Route) -> Result<(), NetError> {
        if route.dest.addr().is_ipv4() != route.via.is_ipv4() {
            return Err(NetError::RouteMixesVersions(route));
        }
        if self.is_local(route.via) {
            return Err(NetError::GatewayIsUs(route.via));
        }
        if self.on_link(route.via) { Ok(()) } else { Err(NetError::GatewayNotOnLink(route.via)) }
    }

    /// Our addresses.
    pub(super) fn locals(&self) -> &[Cidr] {
        &self.locals
    }

    /// Whether IPv6 is spoken.
    pub(super) fn ipv6(&self) -> bool {
        self.ipv6
    }

    pub(super) fn is_local(&self, addr: IpAddr) -> bool {
        self.numbers.contains(&number(addr))
    }

    /// Whether `addr` is the broadcast or the network address of a network of ours.
    pub(super) fn is_edge(&self, addr: IpAddr) -> bool {
        self.edges.contains(&addr)
    }

    /// Whether we listen to the solicited-node group `group`.
    pub(super) fn listens_to(&self, group: Ipv6Addr) -> bool {
        self.locals.iter().any(|local| matches!(local.addr(), IpAddr::V6(addr) if ipv6::solicited_node(addr) == group))
    }

    /// Whether `addr` is a neighbour's.
    pub(super) fn on_link(&self, addr: IpAddr) -> bool {
        self.locals.iter().any(|local| local.contains(addr)) && !self.is_edge(addr)
    }

    /// Whether some route goes via `addr`.
    pub(super) fn is_gateway(&self, addr: IpAddr) -> bool {
        self.routes.iter().any(|route| route.via == addr)
    }

    /// Number of routes, gateways included.
    pub(super) fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// The neighbour that packets to `remote` go to.
    pub(super) fn next_hop(&self, remote: IpAddr) -> Option<IpAddr> {
        if self.on_link(remote) {
            return Some(remote);
        }
        // Link-local addresses and the edges of our own networks are never routed.
        if is_link_local(remote) || self.is_edge(remote) {
            return None;
        }
        self.routes.iter().find(|route| route.dest.contains(remote)).map(|route| route.via)
    }

    /// Which of our addresses talks to `remote` (RFC 6724 in spirit: same scope, then the longest shared network).
    pub(super) fn local_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let hop = self.next_hop(remote)?;
        let scope = is_link_local(remote);
        let of_scope =
            |local: &&Cidr| local.addr().is_ipv4() == remote.is_ipv4() && is_link_local(local.addr()) == scope;
        let near = self
            .locals
            .iter()
            .filter(of_scope)
            .filter(|local| local.contains(hop))
            .max_by_key(|local| local.prefix_len());
        near.or_else(|| self.locals.iter().find(of_scope)).map(Cidr::addr)
    }

    /// Which of our addresses asks for the neighbour `target`.
    pub(super) fn asks_for(&self, target: IpAddr) -> Option<IpAddr> {
        let near = self.locals.iter().filter(|local| local.contains(target)).max_by_key(|local| local.prefix_len());
        near.map(Cidr::addr)
    }
}

/// An address as a number; IPv4 addresses are mapped to where no IPv6 address of ours can be (RFC 4291 §2.5.5.2).
fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => 0xffff_0000_0000 | u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// Whether `addr` has meaning on one link only (RFC 4291 §2.5.6, RFC 3927).
pub(super) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// Whether `addr` can be one station's.
pub(super) fn is_station(addr: IpAddr) -> bool {
    match addr {
        // 0.0.0.0/8 and 240.0.0.0/4, broadcast among them, are nobody's (RFC 6890).
        IpAddr::V4(a) => !a.is_loopback() && !a.is_multicast() && a.octets()[0] != 0 && a.octets()[0] < 240,
        IpAddr::V6(a) => !a.is_loopback() && !a.is_multicast() && !a.is_unspecified() && a.to_ipv4_mapped().is_none(),
    }
}

fn local_addresses(config: &NetConfig, mac: Mac) -> Result<Vec<Cidr>, NetError> {
    if config.addrs.is_empty() {
        return Err(NetError::NoAddress);
    }
    if config.addrs.len() > NetConfig::MAX_ADDRS {
        return Err(NetError::TooManyAddresses(config.addrs.len()));
    }
    let mut locals: Vec<Cidr> = Vec::new();
    for cidr in &config.addrs {
        if !is_station(cidr.addr()) || cidr.edges().is_some_and(|edges| edges.contains(&cidr.addr())) {
            return Err(NetError::BadAddress(*cidr));
        }
        if locals.iter().any(|other| other.addr() == cidr.addr()) {
            return Err(NetError::TwiceTheSame(cidr.addr()));
        }
        locals.push(*cidr);
    }
    let own_link_local = locals.iter().any(|local| local.addr().is_ipv6() && is_link_local(local.addr()));
    if locals.iter().any(|local| local.addr().is_ipv6()) && !own_link_local {
        let link_local = Cidr::new(mac.link_local().into(), 64);
        locals.extend(link_local.ok());
    }
    Ok(locals)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn config(addrs: &[&str], gateways: &[&str], routes: &[(&str, &str)]) -> NetConfig {
        NetConfig {
            addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
            gateways: gateways.iter().map(|a| ip(a)).collect(),
            routes: routes.iter().map(|(d, v)| Route { dest: d.parse().unwrap(), via: ip(v) }).collect(),
            ..NetConfig::default()
        }
    }

    fn build(addrs: &[&str], gateways: &[&str], routes: &[(&str, &str)]) -> Result<Addressing, NetError> {
        Addressing::new(&config(addrs, gateways, routes), MAC, 1500)
    }

    #[test]
    fn finds_next_hops_and_sources() {
        let a = build(
            &["10.0.0.2/24", "10.0.1.2/24", "2001:db8::2/64"],
            &["10.0.0.1", "fe80::1"],
            &[("10.9.0.0/16", "10.0.1.1"), ("10.9.9.0/24", "10.0.1.9")],
        )
        .unwrap();
        let hop = |to: &str| a.next_hop(ip(to));
        assert_eq!(hop("10.0.1.77"), Some(ip("10.0.1.77")));
        assert_eq!(hop("8.8.8.8"), Some(ip("10.0.0.1")));
        assert_eq!(hop("10.9.1.1"), Some(ip("10.0.1.1")));
        assert_eq!(hop("10.9.9.1"), Some(ip("10.0.1.9")), "the longest prefix wins");
        assert_eq!(hop("10.0.0.255"), None, "directed broadcast");
        assert_eq!(hop("2001:db8:1::1"), Some(ip("fe80::1")));
        assert_eq!(hop("fe80::9"), Some(ip("fe80::9")));
        let local = |to: &str| a.local_for(ip(to));
        assert_eq!(local("8.8.8.8"), Some(ip("10.0.0.2")));
        assert_eq!(local("10.9.1.1"), Some(ip("10.0.1.2")));
        assert_eq!(local("2001:db8:1::1"), Some(ip("2001:db8::2")), "not the link-local one, though the gateway is");
        assert_eq!(local("fe80::9"), Some(ip("fe80::ff:fe00:1")));
        assert_eq!(a.asks_for(ip("fe80::1")), Some(ip("fe80::ff:fe00:1")));
        assert!(a.listens_to("ff02::1:ff00:2".parse().unwrap()) && !a.listens_to("ff02::1:ff00:3".parse().unwrap()));
        assert!(a.is_gateway(ip("10.0.1.9")) && !a.is_gateway(ip("10.0.1.8")));
    }

    #[test]
    fn without_a_gateway_only_the_link_is_reached() {
        let a = build(&["10.0.0.2/24"], &[], &[]).unwrap();
        assert_eq!((a.next_hop(ip("8.8.8.8")), a.local_for(ip("8.8.8.8"))), (None, None));
        assert_eq!(a.next_hop(ip("2001:db8::1")), None);
        assert_eq!(a.locals().len(), 1, "no link-local address without IPv6");
    }

    #[test]
    fn names_what_cannot_work() {
        let err = |addrs: &[&str], gateways: &[&str]| build(addrs, gateways, &[]).unwrap_err();
        assert_eq!(err(&[], &[]), NetError::NoAddress);
        assert_eq!(err(&["10.0.0.2/24"], &["10.0.1.1"]), NetError::GatewayNotOnLink(ip("10.0.1.1")));
        assert_eq!(err(&["10.0.0.2/24"], &["10.0.0.2"]), NetError::GatewayIsUs(ip("10.0.0.2")));
        assert_eq!(err(&["10.0.0.2/24"], &["10.0.0.1", "10.0.0.3"]), NetError::SecondGateway(ip("10.0.0.3")));
        assert_eq!(err(&["10.0.0.2/24", "10.0.0.2/16"], &[]), NetError::TwiceTheSame(ip("10.0.0.2")));
        for bad in
            ["10.0.0.0/24", "224.0.0.1/4", "127.0.0.1/8", "0.0.0.0/0", "::/0", "ff02::1/64", "255.255.255.255/32"]
        {
            assert_eq!(err(&[bad], &[]), NetError::BadAddress(bad.parse().unwrap()));
        }
        let mixed = build(&["10.0.0.2/24"], &[], &[("::/0", "10.0.0.1")]).unwrap_err();
        assert!(mixed.to_string().contains("::/0 via 10.0.0.1"));
        let mtu = |addr: &str, mtu| Addressing::new(&config(&[addr], &[], &[]), MAC, mtu).err();
        assert_eq!(mtu("2001:db8::1/64", 1279), Some(NetError::MtuTooSmall { mtu: 1279, needed: 1280 }));
        assert_eq!(mtu("10.0.0.2/24", 1228), None);
        let many = config(&[], &[], &[]);
        let many = NetConfig { addrs: (0..65).map(|n| format!("10.0.0.1{n:02}/8").parse().unwrap()).collect(), ..many };
        assert_eq!(Addressing::new(&many, MAC, 1500).err(), Some(NetError::TooManyAddresses(65)));
    }
}
