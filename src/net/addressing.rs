//! Our addresses, the networks on the link, and routes to all others.

use std::net::{IpAddr, Ipv6Addr};

use crate::net::cidr::Cidr;
use crate::net::config::{NetConfig, NetError, Route};
use crate::wire::eth::Mac;
use crate::wire::ipv6;

/// QUIC datagrams have to reach 1200 bytes (RFC 9000 §14): with IPv4 and UDP headers.
const MIN_MTU_V4: u16 = 1228;

#[derive(Clone, Debug)]
pub(super) struct Addressing {
    /// Addresses that are ours, or will be if nobody else has them.
    all: Vec<Cidr>,
    /// The addresses in use.
    locals: Vec<Cidr>,
    /// The link-local address derived from the MAC address, if none was configured.
    derived: Option<IpAddr>,
    /// The addresses in use as numbers, for quick comparison.
    numbers: Vec<u128>,
    /// The networks on the link.
    networks: Vec<Cidr>,
    /// Network and broadcast addresses of IPv4 networks.
    edges: Vec<IpAddr>,
    /// Routes, longest prefix first; gateways are routes to everything.
    routes: Vec<Route>,
    /// The routers of all routes, each with whether every route via it has an alternative of the same prefix.
    routers: Vec<(IpAddr, bool)>,
    ipv6: bool,
}

impl Addressing {
    pub(super) fn new(config: &NetConfig, mac: Mac, mtu: u16) -> Result<Self, NetError> {
        let (locals, derived) = local_addresses(config, mac)?;
        let ipv6 = locals.iter().any(|local| local.addr().is_ipv6());
        let needed = if ipv6 { ipv6::IPV6_MIN_MTU } else { MIN_MTU_V4 };
        if mtu < needed {
            return Err(NetError::MtuTooSmall { mtu, needed });
        }
        let numbers = locals.iter().map(|local| number(local.addr())).collect();
        let edges = locals.iter().filter_map(Cidr::edges).flatten().collect();
        let networks = locals.iter().chain(&config.on_link).copied().collect();
        let (all, routes, routers) = (locals.clone(), Vec::new(), Vec::new());
        let mut this = Self { all, locals, derived, numbers, networks, edges, routes, routers, ipv6 };
        for (n, gateway) in config.gateways.iter().enumerate() {
            if config.gateways[..n].contains(gateway) {
                return Err(NetError::GatewayTwice(*gateway));
            }
            this.reach_beyond(*gateway);
        }
        let defaults = config.gateways.iter().map(|via| Route { dest: Cidr::everything_like(*via), via: *via });
        for route in config.routes.iter().copied().chain(defaults) {
            this.check_route(route)?;
            this.routes.push(route);
        }
        // A stable sort: among equal prefixes the one configured first wins.
        this.routes.sort_by_key(|route| std::cmp::Reverse(route.dest.prefix_len()));
        for Route { via, .. } in &this.routes {
            if !this.is_gateway(*via) {
                let mut routes = this.routes.iter().filter(|route| route.via == *via);
                this.routers.push((*via, routes.all(|route| this.equals(route).next().is_some())));
            }
        }
        Ok(this)
    }

    /// A single address (/32 or /128) has no network, so its gateway can only be on the link. With networks, a gateway
    /// outside them is more likely a mistake.
    fn reach_beyond(&mut self, gateway: IpAddr) {
        let mut family = self.networks.iter().filter(|network| network.addr().is_ipv4() == gateway.is_ipv4());
        let alone = family.all(|network| network.is_host() || is_link_local(network.addr()));
        if alone && !self.is_local(gateway) && !self.on_link(gateway) && is_station(gateway) {
            self.networks.extend(Cidr::host(gateway));
        }
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

    /// Our addresses in use.
    pub(super) fn locals(&self) -> &[Cidr] {
        &self.locals
    }

    /// Returns whether any configured address is left, in use or not.
    pub(super) fn has_any(&self) -> bool {
        self.all.iter().any(|own| Some(own.addr()) != self.derived)
    }

    /// Our addresses, including those not yet in use.
    pub(super) fn all(&self) -> &[Cidr] {
        &self.all
    }

    /// Starts or stops using `addr`. Addresses in use are kept in the order of configuration.
    pub(super) fn set_used(&mut self, addr: IpAddr, used: bool) {
        let was = |other: &Cidr| self.locals.iter().any(|local| local == other);
        let now = |other: &&Cidr| if other.addr() == addr { used } else { was(other) };
        self.locals = self.all.iter().filter(now).copied().collect();
        self.numbers = self.locals.iter().map(|local| number(local.addr())).collect();
    }

    /// Removes `addr`.
    pub(super) fn remove(&mut self, addr: IpAddr) {
        self.set_used(addr, false);
        self.all.retain(|other| other.addr() != addr);
    }

    /// Adds an address, which is not in use yet.
    pub(super) fn add(&mut self, addr: Cidr) -> Result<(), NetError> {
        check_address(&self.all, addr)?;
        if addr.addr().is_ipv6() && !self.ipv6 {
            return Err(NetError::BadAddress(addr));
        }
        self.all.push(addr);
        self.networks.push(addr);
        self.edges.extend(addr.edges().into_iter().flatten());
        Ok(())
    }

    /// Returns whether there are IPv6 addresses.
    pub(super) fn ipv6(&self) -> bool {
        self.ipv6
    }

    pub(super) fn is_local(&self, addr: IpAddr) -> bool {
        self.numbers.contains(&number(addr))
    }

    /// Returns whether `addr` is the broadcast or network address of one of our networks.
    pub(super) fn is_edge(&self, addr: IpAddr) -> bool {
        self.edges.contains(&addr)
    }

    /// Returns whether we are in the solicited-node group `group`.
    pub(super) fn listens_to(&self, group: Ipv6Addr) -> bool {
        self.all.iter().any(|local| matches!(local.addr(), IpAddr::V6(addr) if ipv6::solicited_node(addr) == group))
    }

    /// The smallest network on the link that contains `addr`.
    pub(super) fn nearest_network(&self, addr: IpAddr) -> Option<&Cidr> {
        let around = self.networks.iter().filter(|network| network.contains(addr));
        around.filter(|_| !self.is_edge(addr)).max_by_key(|network| network.prefix_len())
    }

    /// Returns whether `addr` is on the link.
    pub(super) fn on_link(&self, addr: IpAddr) -> bool {
        self.nearest_network(addr).is_some()
    }

    /// Returns whether any route goes via `addr`.
    pub(super) fn is_gateway(&self, addr: IpAddr) -> bool {
        self.router(addr).is_some()
    }

    /// Routes to the same destinations as `route` via other routers.
    fn equals(&self, route: &Route) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |other| other.dest.is_same_network(&route.dest) && other.via != route.via)
    }

    /// If routes go via `addr`, returns whether each of them has an alternative of the same prefix.
    pub(super) fn router(&self, addr: IpAddr) -> Option<bool> {
        self.routers.iter().find(|(router, _)| *router == addr).map(|(_, substitute)| *substitute)
    }

    /// Returns whether every destination reached via `addr` can be reached via other routers that are not `dead`.
    pub(super) fn can_do_without(&self, addr: IpAddr, dead: impl Fn(IpAddr) -> bool) -> bool {
        let mut routes = self.routes.iter().filter(|route| route.via == addr);
        routes.all(|route| self.equals(route).any(|other| !dead(other.via)))
    }

    /// Routes including gateways, longest prefix first.
    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// An address as a number. IPv4 addresses are mapped to a range that no IPv6 address of ours can be in (RFC 4291
/// §2.5.5.2).
fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => 0xffff_0000_0000 | u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// Returns whether `addr` is link-local (RFC 4291 §2.5.6, RFC 3927).
pub(super) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// Returns whether `addr` can be the address of a single station.
pub(super) fn is_station(addr: IpAddr) -> bool {
    match addr {
        // 0.0.0.0/8 and 240.0.0.0/4, which includes broadcast, are not assigned to hosts (RFC 6890).
        IpAddr::V4(a) => !a.is_loopback() && !a.is_multicast() && a.octets()[0] != 0 && a.octets()[0] < 240,
        IpAddr::V6(a) => !a.is_loopback() && !a.is_multicast() && !a.is_unspecified() && a.to_ipv4_mapped().is_none(),
    }
}

/// Our addresses, and the derived one among them.
fn local_addresses(config: &NetConfig, mac: Mac) -> Result<(Vec<Cidr>, Option<IpAddr>), NetError> {
    if config.addrs.is_empty() {
        return Err(NetError::NoAddress);
    }
    if config.addrs.len() > NetConfig::MAX_ADDRS {
        return Err(NetError::TooManyAddresses(config.addrs.len()));
    }
    let mut locals: Vec<Cidr> = Vec::new();
    for cidr in &config.addrs {
        check_address(&locals, *cidr)?;
        locals.push(*cidr);
    }
    let own_link_local = locals.iter().any(|local| local.addr().is_ipv6() && is_link_local(local.addr()));
    if locals.iter().any(|local| local.addr().is_ipv6()) && !own_link_local {
        let link_local = Cidr::new(mac.link_local().into(), 64).ok();
        locals.extend(link_local);
        return Ok((locals, link_local.map(|own| own.addr())));
    }
    Ok((locals, None))
}

/// Checks that `new` can be an address of ours in addition to `others`.
fn check_address(others: &[Cidr], new: Cidr) -> Result<(), NetError> {
    if !is_station(new.addr()) || new.edges().is_some_and(|edges| edges.contains(&new.addr())) {
        return Err(NetError::BadAddress(new));
    }
    if others.iter().any(|other| other.addr() == new.addr()) {
        return Err(NetError::TwiceTheSame(new.addr()));
    }
    Ok(())
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
    fn knows_its_neighbourhood() {
        let mut a = build(&["10.0.0.2/24", "2001:db8::2/64"], &["10.0.0.1", "fe80::1"], &[]).unwrap();
        assert!(a.listens_to("ff02::1:ff00:2".parse().unwrap()) && !a.listens_to("ff02::1:ff00:3".parse().unwrap()));
        assert!(a.is_gateway(ip("10.0.0.1")) && !a.is_gateway(ip("10.0.0.9")));
        assert!(a.on_link(ip("10.0.0.9")) && !a.on_link(ip("10.0.0.255")) && !a.on_link(ip("10.0.1.9")));
        assert_eq!(build(&["10.0.0.2/24"], &[], &[]).unwrap().locals().len(), 1, "no link-local address without IPv6");
        a.set_used(ip("10.0.0.2"), false);
        assert!(!a.is_local(ip("10.0.0.2")) && a.is_local(ip("2001:db8::2")) && a.on_link(ip("10.0.0.9")));
        assert_eq!((a.all().len(), a.locals().len()), (3, 2));
        a.set_used(ip("10.0.0.2"), true);
        assert_eq!(a.locals()[0].addr(), ip("10.0.0.2"), "in the order of configuration");
        a.remove(ip("10.0.0.2"));
        assert_eq!((a.all().len(), a.locals().len()), (2, 2));
        a.add("10.0.0.3/24".parse().unwrap()).unwrap();
        assert!(!a.is_local(ip("10.0.0.3")), "not yet");
    }

    #[test]
    fn names_what_cannot_work() {
        let err = |addrs: &[&str], gateways: &[&str]| build(addrs, gateways, &[]).unwrap_err();
        assert_eq!(err(&[], &[]), NetError::NoAddress);
        assert_eq!(err(&["10.0.0.2/24"], &["10.0.1.1"]), NetError::GatewayNotOnLink(ip("10.0.1.1")));
        assert_eq!(err(&["10.0.0.2/24"], &["10.0.0.2"]), NetError::GatewayIsUs(ip("10.0.0.2")));
        assert_eq!(err(&["10.0.0.2/24"], &["10.0.0.1", "10.0.0.1"]), NetError::GatewayTwice(ip("10.0.0.1")));
        assert_eq!(err(&["10.0.0.2/32"], &["10.0.0.2"]), NetError::GatewayIsUs(ip("10.0.0.2")));
        assert_eq!(err(&["10.0.0.2/32"], &["127.0.0.1"]), NetError::GatewayNotOnLink(ip("127.0.0.1")));
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
