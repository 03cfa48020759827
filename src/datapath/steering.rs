//! Computes in advance which receive queue a device steers a packet to.
//!
//! Devices with receive side scaling hash a packet's addresses and ports with the Toeplitz function, and look up the
//! result in a table of queues. The key of the function and the table can be read back. A client that knows both
//! chooses its source port so that answers arrive at the core that sends: no packet has to change cores.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::flow::FlowHash;
use crate::base::hex;
use crate::base::rng::Rng;

/// The Toeplitz hash with a device's key (Microsoft, "RSS hashing functions").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toeplitz(Vec<u8>);

impl Toeplitz {
    /// A hash with `key`, which usually has 40 bytes. Zeros follow its end.
    pub fn new(key: &[u8]) -> Self {
        Self(key.to_vec())
    }

    /// The 32 bits of the key from bit `at` on.
    fn window(&self, at: usize) -> u32 {
        let byte = |i: usize| u64::from(self.0.get(i).copied().unwrap_or(0));
        let first = at / 8;
        let bits = (0..5).fold(0, |bits, i| bits << 8 | byte(first + i));
        (bits >> (8 - at % 8)) as u32
    }

    /// The hash of `input` with `before` zero bytes in front of it. The exclusive or of the hashes of all parts, each
    /// at its offset, is the hash of the whole.
    fn part(&self, before: usize, input: &[u8]) -> u32 {
        let mut hash = 0;
        for (i, byte) in input.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte >> (7 - bit) & 1 != 0) {
                hash ^= self.window((before + i) * 8 + bit);
            }
        }
        hash
    }

    /// The hash of `input`.
    pub fn hash(&self, input: &[u8]) -> u32 {
        self.part(0, input)
    }
}

/// The fields that a device hashes in packets of one IP version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fields {
    /// Nothing: all packets go to the queue of hash 0.
    #[default]
    None,
    /// Both addresses.
    Addresses,
    /// Both addresses and, for UDP, both ports.
    Ports,
}

/// How received packets are steered to the queues of a device, or to the cores that share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering(Way);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Device(Device),
    /// By one of our cores, to this many ([`super::spread`]).
    Spread(FlowHash, u8),
}

/// A device with receive side scaling.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    toeplitz: Toeplitz,
    /// The queue for each remainder of the hash.
    table: Vec<u16>,
    v4: Fields,
    v6: Fields,
}

impl Steering {
    /// A device with this key and this table, which hashes these fields. `None` if the table is empty.
    pub fn of_device(key: &[u8], table: Vec<u16>, v4: Fields, v6: Fields) -> Option<Self> {
        let device = Device { toeplitz: Toeplitz::new(key), table, v4, v6 };
        (!device.table.is_empty()).then_some(Self(Way::Device(device)))
    }

    /// A queue whose frames `hash` spreads over this many cores.
    pub fn of_spread(hash: FlowHash, cores: u8) -> Self {
        Self(Way::Spread(hash, cores))
    }

    /// The queue, or core, at which UDP datagrams from `remote` to `local` arrive. `None` if the two differ in IP
    /// version.
    pub fn home(&self, local: SocketAddr, remote: SocketAddr) -> Option<u16> {
        self.homes(local.ip(), remote).map(|home| home(local.port()))
    }

    /// The first of `candidates` at which datagrams from `remote` to `local` arrive at `queue`. `None` if there is none, for
    /// instance because the device does not look at ports.
    pub fn source_port(
        &self,
        queue: u16,
        local: IpAddr,
        remote: SocketAddr,
        candidates: impl IntoIterator<Item = u16>,
    ) -> Option<u16> {
        let home = self.homes(local, remote)?;
        candidates.into_iter().find(|&candidate| home(candidate) == queue)
    }

    /// The home of each local port.
    fn homes(&self, local: IpAddr, remote: SocketAddr) -> Option<Box<dyn Fn(u16) -> u16 + '_>> {
        match &self.0 {
            Way::Device(device) => {
                let home = device.homes(local, remote)?;
                Some(Box::new(home))
            }
            Way::Spread(hash, cores) => {
                hash.home(SocketAddr::new(local, 0), remote, *cores)?;
                Some(Box::new(move |port| hash.home(SocketAddr::new(local, port), remote, *cores).map_or(0, u16::from)))
            }
        }
    }
}

/// All that decides where a packet goes: the key in hex, the queue for each remainder, and the fields. A secret key of
/// ours is left out.
impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Device { toeplitz: Toeplitz(key), table, v4, v6 } = match &self.0 {
            Way::Device(device) => device,
            Way::Spread(_, cores) => return write!(f, "spread over {cores} cores"),
        };
        let key = hex::encode(&key[..]);
        let table: Vec<_> = table.iter().map(u16::to_string).collect();
        write!(f, "key {key}, table {}, IPv4 {v4}, IPv6 {v6}", table.join(" "))
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "nothing",
            Self::Addresses => "addresses",
            Self::Ports => "ports",
        })
    }
}

impl Device {
    /// The home of each local port, in a few operations each.
    fn homes(&self, local: IpAddr, remote: SocketAddr) -> Option<impl Fn(u16) -> u16> {
        let Known { hash, port_at } = self.known(local, remote)?;
        // What each bit of the port contributes.
        let bits: [u32; 16] = std::array::from_fn(|bit| port_at.map_or(0, |at| self.toeplitz.window(at * 8 + bit)));
        Some(move |port: u16| {
            let set = (0..16).filter(|bit| port >> (15 - bit) & 1 != 0);
            let hash = set.fold(hash, |sum, bit| sum ^ bits[bit]);
            self.table[hash as usize % self.table.len()]
        })
    }

    /// The hash of everything but the local port. In packets that arrive, the remote end is the source, which comes
    /// first.
    fn known(&self, local: IpAddr, remote: SocketAddr) -> Option<Known> {
        let (addresses, fields) = match (remote.ip(), local) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ([from.octets(), to.octets()].concat(), self.v4),
            (IpAddr::V6(from), IpAddr::V6(to)) => ([from.octets(), to.octets()].concat(), self.v6),
            _ => return None,
        };
        let (hash, len) = (self.toeplitz.hash(&addresses), addresses.len());
        Some(match fields {
            Fields::None => Known { hash: 0, port_at: None },
            Fields::Addresses => Known { hash, port_at: None },
            Fields::Ports => {
                let hash = hash ^ self.toeplitz.part(len, &remote.port().to_be_bytes());
                Known { hash, port_at: Some(len + 2) }
            }
        })
    }
}

/// The first of the dynamic ports (RFC 6335 §6).
const DYNAMIC: u16 = 49_152;

/// A random dynamic port: the first for [`client_ports`].
///
/// # Errors
/// If the system provides no random numbers.
pub fn first_client_port() -> io::Result<u16> {
    Ok(DYNAMIC + Rng::from_os()?.below(16_384) as u16)
}

/// `each` source ports for each of `cores` cores, from `first` on and all different, so that answers from `remote` arrive
/// at the core that sends. If `steering` is unknown or leaves no choice, they are the next free ports: answers may then
/// arrive at another core, and are handed over. Cores get fewer ports, but at least one, if there are not as many.
pub fn client_ports(
    steering: Option<&Steering>,
    (cores, each): (u16, u16),
    local: IpAddr,
    remote: SocketAddr,
    first: u16,
) -> Vec<Vec<u16>> {
    let low = DYNAMIC.min(first);
    let candidates = (first..=u16::MAX).chain(low..first).chain(1024..low);
    let each = usize::from(each.clamp(1, (u16::MAX - 1024) / cores.max(1)));
    let mut ports = vec![Vec::new(); cores.into()];
    let mut rest = Vec::new();
    let home = steering.and_then(|steering| steering.homes(local, remote));
    for port in candidates {
        if ports.iter().all(|ports| ports.len() == each) {
            break;
        }
        match home.as_ref().and_then(|home| ports.get_mut(usize::from(home(port)))) {
            Some(ports) if ports.len() < each => ports.push(port),
            _ => rest.push(port),
        }
    }
    // Dealt in turn, so that each core gets one before any gets two.
    let mut rest = rest.into_iter();
    for count in 1..=each {
        for ports in ports.iter_mut().filter(|ports| ports.len() < count) {
            ports.extend(rest.next());
        }
    }
    ports
}

/// The hash without the local port, and the offset of that port in the input, if it is hashed.
struct Known {
    hash: u32,
    port_at: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of Microsoft's verification suite.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Destination, source, hash of the addresses, hash with ports ("Verifying the RSS hash calculation").
    const SUITE: [(&str, &str, u32, u32); 6] = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
        ("[fe80::200:f8ff:fe21:67cf]:38024", "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", 0x4b61_e985, 0x02d1_feef),
    ];

    /// A table that shows the whole remainder.
    fn steering(fields: Fields) -> Steering {
        Steering::of_device(&KEY, (0..128).collect(), fields, fields).unwrap()
    }

    #[test]
    fn hashes_are_those_of_the_verification_suite() {
        for (to, from, addresses, ports) in SUITE {
            let (to, from): (SocketAddr, SocketAddr) = (to.parse().unwrap(), from.parse().unwrap());
            let mut input = match (from.ip(), to.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
                (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
                _ => unreachable!(),
            };
            let toeplitz = Toeplitz::new(&KEY);
            assert_eq!(toeplitz.hash(&input), addresses, "{from}");
            input.extend([from.port().to_be_bytes(), to.port().to_be_bytes()].concat());
            assert_eq!(toeplitz.hash(&input), ports, "{from}");
            for (fields, hash) in [(Fields::None, 0), (Fields::Addresses, addresses), (Fields::Ports, ports)] {
                assert_eq!(steering(fields).home(to, from), Some(hash as u16 % 128), "{from} {fields:?}");
            }
        }
    }

    #[test]
    fn ports_are_chosen_for_a_queue() {
        let table = (0..128).map(|i| i % 4).collect();
        let steering = Steering::of_device(&KEY, table, Fields::Ports, Fields::Addresses).unwrap();
        let remote = "10.0.0.1:4433".parse().unwrap();
        let local: IpAddr = "10.0.0.2".parse().unwrap();
        for queue in 0..4 {
            let port = steering.source_port(queue, local, remote, 50_000..50_100).unwrap();
            assert_eq!(steering.home(SocketAddr::new(local, port), remote), Some(queue));
            let before = (50_000..port).map(|port| steering.home(SocketAddr::new(local, port), remote));
            assert!(before.into_iter().all(|home| home != Some(queue)), "the first that fits");
        }
        assert_eq!(steering.source_port(4, local, remote, 1..=u16::MAX), None);
        // If ports are not hashed, either all fit or none.
        let (local, remote): (IpAddr, SocketAddr) = ("fd00::2".parse().unwrap(), "[fd00::1]:4433".parse().unwrap());
        let home = steering.home(SocketAddr::new(local, 1), remote).unwrap();
        assert_eq!(steering.source_port(home, local, remote, 7..9), Some(7));
        assert_eq!(steering.source_port((home + 1) % 4, local, remote, 1..=u16::MAX), None);
        assert_eq!(steering.home("10.0.0.2:1".parse().unwrap(), remote), None, "of two kinds");
    }

    #[test]
    fn each_core_has_a_port_of_its_own() {
        let remote = "10.0.0.1:4433".parse().unwrap();
        let local: IpAddr = "10.0.0.2".parse().unwrap();
        let device = Steering::of_device(&KEY, (0..128).map(|i| i % 4).collect(), Fields::Ports, Fields::Ports);
        let spread = Steering::of_spread(FlowHash::new([11, 1 << 40, 77 << 20]), 4);
        for steering in [device.as_ref(), Some(&spread)] {
            for each in [1, 16] {
                let ports = client_ports(steering, (4, each), local, remote, 50_000);
                for (core, port) in (0..).zip(&ports).flat_map(|(core, ports)| ports.iter().map(move |p| (core, p))) {
                    let home = steering.and_then(|s| s.home(SocketAddr::new(local, *port), remote));
                    assert_eq!(home, Some(core), "{ports:?}");
                }
                assert!(ports.iter().all(|ports| ports.len() == usize::from(each)), "{ports:?}");
                assert!(ports.iter().flatten().all(|port| (50_000..50_400).contains(port)));
            }
        }
        let any = client_ports(None, (3, 2), local, remote, 50_000);
        assert_eq!(any, [[50_000, 50_003], [50_001, 50_004], [50_002, 50_005]]);
        // More cores than the device has queues: any port will do.
        let five = client_ports(device.as_ref(), (5, 2), local, remote, u16::MAX);
        let mut all = five.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!((five.len(), all.len()), (5, 10), "{five:?}");
        assert!(all.iter().all(|port| *port >= DYNAMIC), "{five:?}");
        // Ports that all have one home.
        let one = Steering::of_device(&KEY, vec![2; 128], Fields::Ports, Fields::Ports);
        let ports = client_ports(one.as_ref(), (4, 3), local, remote, 50_000);
        assert!(ports.iter().all(|ports| ports.len() == 3), "{ports:?}");
        // More than there are.
        let many = client_ports(None, (64, u16::MAX), local, remote, 50_000);
        assert!(many.iter().all(|ports| ports.len() == 1007), "{}", many[0].len());
    }

    #[test]
    fn the_description_has_all_that_decides() {
        let device = Steering::of_device(&[0x6d, 0x0a], vec![0, 3, 1], Fields::Ports, Fields::None).unwrap();
        assert_eq!(device.to_string(), "key 6d0a, table 0 3 1, IPv4 ports, IPv6 nothing");
        let spread = Steering::of_spread(FlowHash::new([11, 12, 13]), 4);
        assert_eq!(spread.to_string(), "spread over 4 cores");
    }

    #[test]
    fn short_keys_and_empty_tables() {
        assert!(Steering::of_device(&KEY, Vec::new(), Fields::Ports, Fields::Ports).is_none());
        assert_eq!(Toeplitz::new(&[]).hash(&[0xff; 36]), 0);
        assert_eq!(Toeplitz::new(&KEY).hash(&[]), 0);
    }
}
