//! What the network layer is told at start.

use std::net::IpAddr;

use crate::base::time::Duration;
use crate::net::cidr::Cidr;

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations it is for.
    pub dest: Cidr,
    /// The neighbour that forwards to them.
    pub via: IpAddr,
}

/// Duplicate address detection: whether another station is asked for before an address is taken (RFC 5227 for IPv4, RFC
/// 4862 §5.4 for IPv6). Each time that the link comes up it is done anew, without giving up addresses that were in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detect {
    /// Not at all: addresses are announced at once. For those that move between hosts.
    Off,
    /// Addresses are used at once and announced after a second in which nobody claimed them (in the spirit of RFC 4429).
    /// One that is claimed in that second is given up.
    #[default]
    Optimistic,
    /// Addresses are used only when nobody has claimed them: after four to seven seconds for IPv4 and one to two for IPv6.
    Strict,
}

/// Configuration of one core's network layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Our addresses, each with the network that is on the link. At most [`NetConfig::MAX_ADDRS`].
    /// With any IPv6 address the link-local one made from the MAC address is ours too.
    pub addrs: Vec<Cidr>,
    /// Networks that are on the link beside those of `addrs`.
    pub on_link: Vec<Cidr>,
    /// Default gateways. Of several for an IP version the first one is used, and the next while that one does not answer.
    /// If all our addresses of its IP version are single ones (/32, /128), a gateway is on the link whatever it is.
    pub gateways: Vec<IpAddr>,
    /// More specific routes; the longest prefix wins. Of equal ones the first is used, and the next while its router
    /// does not answer.
    pub routes: Vec<Route>,
    /// The VLAN that frames are tagged with, 1 to 4094; `None` for untagged.
    pub vlan: Option<u16>,
    /// UDP ports that are open; `None` for all. See also [`super::Net::open_port`].
    pub ports: Option<Vec<u16>>,
    /// For how long a neighbour that answered is trusted without asking again. After the same time
    /// again it is forgotten.
    pub neighbor_ttl: Duration,
    /// Neighbours known at a time.
    pub max_neighbors: usize,
    /// Questions for neighbours that go to everyone on the link, per second (RFC 1122 §2.3.2.1). Packets from made-up
    /// addresses can use up a quarter of them; routers are asked for regardless.
    pub solicits_per_second: u32,
    /// Frames that wait for one neighbour to be resolved; the oldest are given up for younger ones.
    pub pending_frames: usize,
    /// Frames that wait in all.
    pub max_pending: usize,
    /// Flows for which headers are kept ready; rounded up to a power of two.
    pub templates: usize,
    /// Echo replies per second.
    pub echo_per_second: u32,
    /// "Port unreachable" messages per second; 0 for none.
    pub errors_per_second: u32,
    /// "Unreachable" messages per second that are passed on although they are about flows on which nothing was sent
    /// lately. Those about other flows do not count.
    pub unreachable_per_second: u32,
    /// Tell the link about our addresses whenever it comes up: ARP announcements, unsolicited advertisements, and
    /// listener reports, without which switches that snoop may keep solicitations from us. Without it, `detect` has no
    /// effect either: one core of several speaks for all.
    pub announce: bool,
    /// What is done to find out whether another station has an address of ours.
    pub detect: Detect,
    /// Secret that IPv6 flow labels are made with; a random number.
    pub seed: u64,
}

impl NetConfig {
    /// Most addresses that one core's network layer can have.
    pub const MAX_ADDRS: usize = 64;
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
            seed: 0,
        }
    }
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// No address.
    #[error("no address configured: give at least one as address/length")]
    NoAddress,
    /// More addresses than there is room for.
    #[error("{0} addresses configured: at most {max} are possible", max = NetConfig::MAX_ADDRS)]
    TooManyAddresses(usize),
    /// An address that no interface can have.
    #[error("address {0} cannot be an interface's: it is multicast, unspecified, loopback, or names the network")]
    BadAddress(Cidr),
    /// The same address twice.
    #[error("address {0} is configured twice")]
    TwiceTheSame(IpAddr),
    /// A gateway that no address of ours shares a network with.
    #[error("gateway {0} is not on the link: no configured address/length contains it, nor any network on the link")]
    GatewayNotOnLink(IpAddr),
    /// A gateway that is ourselves.
    #[error("gateway {0} is one of our own addresses")]
    GatewayIsUs(IpAddr),
    /// The same default gateway twice.
    #[error("gateway {0} is given twice")]
    GatewayTwice(IpAddr),
    /// A route whose two ends are of different IP versions.
    #[error("route to {dest} via {via} mixes IPv4 and IPv6", dest = .0.dest, via = .0.via)]
    RouteMixesVersions(Route),
    /// Not a VLAN.
    #[error("VLAN {0} is out of range: use 1 to 4094")]
    BadVlan(u16),
    /// MTU too small for what is configured.
    #[error("MTU of {mtu} bytes is below the {needed} that QUIC over the configured addresses needs")]
    MtuTooSmall {
        /// The device's MTU in bytes.
        mtu: u16,
        /// What is needed, in bytes.
        needed: u16,
    },
    /// The device's MAC address is none.
    #[error("the device's MAC address is multicast or zero: set a station address on the port")]
    BadMac,
    /// A limit that leaves no room to work.
    #[error("{what} is {value}: give at least {least}")]
    LimitTooSmall {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The least that works.
        least: usize,
    },
}
