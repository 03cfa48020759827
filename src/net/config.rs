//! Configuration of the network layer.

use std::net::IpAddr;

use crate::base::share;
use crate::base::time::Duration;
use crate::net::cidr::Cidr;

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations.
    pub dest: Cidr,
    /// The next hop, a neighbour.
    pub via: IpAddr,
}

/// Duplicate address detection: whether to check that no other station has an address before it is used (RFC 5227 for
/// IPv4, RFC 4862 §5.4 for IPv6). It is repeated at each link-up, when addresses that were already in use are not given
/// up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detect {
    /// No detection: addresses are announced at once. For addresses that move between hosts.
    Off,
    /// Addresses are used at once, and announced if nobody claims them within a second (similar to RFC 4429). An
    /// address claimed within that second is given up.
    #[default]
    Optimistic,
    /// Addresses are used once nobody has claimed them, after four to seven seconds for IPv4 and one to two for IPv6.
    Strict,
}

/// Configuration of one core's network layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Our addresses, each with the prefix of its network on the link. At most [`NetConfig::MAX_ADDRS`]. With any IPv6
    /// address, the link-local address derived from the MAC address is ours too.
    pub addrs: Vec<Cidr>,
    /// Networks on the link in addition to those of `addrs`.
    pub on_link: Vec<Cidr>,
    /// Default gateways. For each IP version the first one is used, and the next while it does not answer. If all our
    /// addresses of an IP version are single ones (/32, /128), any gateway is taken to be on the link.
    pub gateways: Vec<IpAddr>,
    /// More specific routes; the longest prefix wins. Among equal prefixes the first is used, and the next while its
    /// router does not answer.
    pub routes: Vec<Route>,
    /// The VLAN ID of frames, 1 to 4094; `None` for untagged frames.
    pub vlan: Option<u16>,
    /// The open UDP ports; `None` for all. See also [`super::Net::open_port`].
    pub ports: Option<Vec<u16>>,
    /// How long a neighbour's answer is trusted before it is probed again. An entry unused for twice that time is
    /// forgotten.
    pub neighbor_ttl: Duration,
    /// The maximum number of neighbours in the table.
    pub max_neighbors: usize,
    /// The maximum number of broadcast or multicast solicitations per second (RFC 1122 §2.3.2.1). Packets from
    /// unvalidated addresses can use up to a quarter of them; solicitations of routers are not limited.
    pub solicits_per_second: u32,
    /// The maximum number of frames that wait for one neighbour to be resolved; newer frames replace older ones.
    pub pending_frames: usize,
    /// The maximum number of waiting frames in total.
    pub max_pending: usize,
    /// The number of flows whose headers are cached, rounded up to a power of two.
    pub templates: usize,
    /// The maximum number of echo replies per second.
    pub echo_per_second: u32,
    /// The maximum number of "port unreachable" messages sent per second; 0 for none.
    pub errors_per_second: u32,
    /// The maximum number of "unreachable" messages per second that are passed on although nothing was sent on their
    /// flow recently. Messages about recent flows are not limited.
    pub unreachable_per_second: u32,
    /// Announce our addresses at each link-up: ARP announcements, unsolicited advertisements, and multicast listener
    /// reports, without which switches with MLD snooping may not forward solicitations to us. If off, `detect` has no
    /// effect either: of several cores, one does this for all.
    pub announce: bool,
    /// How to check whether another station has one of our addresses.
    pub detect: Detect,
    /// Which of the cores that share the port this is, and how many there are. Core 0 speaks for all: only it announces,
    /// checks and defends our addresses. Cores of [`runtime`](crate::runtime) set both themselves.
    pub core: u8,
    /// The number of cores that share the port. See [`NetEvent::Group`](super::NetEvent::Group).
    pub cores: u8,
    /// A secret random number from which IPv6 flow labels are derived.
    pub seed: u64,
}

impl NetConfig {
    /// The maximum number of addresses.
    pub const MAX_ADDRS: usize = 64;

    /// The settings of core `core` of `of` that share a port: the limits on what is sent in a second are totals here, of
    /// which each core has its part, but at least one.
    ///
    /// # Panics
    /// If `core` is not below `of`.
    #[must_use]
    pub fn for_core(&self, core: u8, of: u8) -> Self {
        assert!(core < of, "core {core} of {of}");
        let part = |total: u32| share(total as usize, core, of) as u32;
        Self {
            core,
            cores: of,
            solicits_per_second: part(self.solicits_per_second),
            echo_per_second: part(self.echo_per_second),
            errors_per_second: part(self.errors_per_second),
            unreachable_per_second: part(self.unreachable_per_second),
            ..self.clone()
        }
    }
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            addrs: Vec::new(),
            on_link: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            vlan: None,
            ports: None,
            neighbor_ttl: Duration::from_secs(60),
            max_neighbors: 1024,
            solicits_per_second: 200,
            pending_frames: 16,
            max_pending: 256,
            templates: 4096,
            echo_per_second: 100,
            errors_per_second: 10,
            unreachable_per_second: 100,
            announce: true,
            detect: Detect::default(),
            core: 0,
            cores: 1,
            seed: 0,
        }
    }
}

/// The reason why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// There is no address.
    #[error("no address configured: give at least one as address/length")]
    NoAddress,
    /// There are more than [`NetConfig::MAX_ADDRS`] addresses.
    #[error("{0} addresses configured: at most {max} are possible", max = NetConfig::MAX_ADDRS)]
    TooManyAddresses(usize),
    /// An interface cannot have this address.
    #[error(
        "address {0} cannot be an interface's: it is multicast, unspecified, loopback, or the network's own address"
    )]
    BadAddress(Cidr),
    /// An address is configured twice.
    #[error("address {0} is configured twice")]
    TwiceTheSame(IpAddr),
    /// A gateway is in none of the networks on the link.
    #[error("gateway {0} is not on the link: no configured address/length contains it, nor any network on the link")]
    GatewayNotOnLink(IpAddr),
    /// A gateway is one of our own addresses.
    #[error("gateway {0} is one of our own addresses")]
    GatewayIsUs(IpAddr),
    /// A default gateway is given twice.
    #[error("gateway {0} is given twice")]
    GatewayTwice(IpAddr),
    /// A route's destination and next hop are of different IP versions.
    #[error("route to {dest} via {via} mixes IPv4 and IPv6", dest = .0.dest, via = .0.via)]
    RouteMixesVersions(Route),
    /// The VLAN ID is out of range.
    #[error("VLAN {0} is out of range: use 1 to 4094")]
    BadVlan(u16),
    /// The MTU is too small for QUIC over the configured addresses.
    #[error("MTU of {mtu} bytes is below the {needed} that QUIC over the configured addresses needs")]
    MtuTooSmall {
        /// The device's MTU in bytes.
        mtu: u16,
        /// The minimum in bytes.
        needed: u16,
    },
    /// The device's MAC address is not a station's.
    #[error("the device's MAC address is multicast or zero: set a station address on the port")]
    BadMac,
    /// A limit is too small.
    #[error("{what} is {value}: give at least {least}")]
    LimitTooSmall {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The minimum.
        least: usize,
    },
}
