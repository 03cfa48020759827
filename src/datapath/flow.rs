//! Which flow a frame belongs to.

use std::net::{IpAddr, SocketAddr};

use crate::wire::eth::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, VLAN_LEN};
use crate::wire::ipv4::{IPV4_LEN, PROTOCOL_UDP};
use crate::wire::ipv6::IPV6_LEN;

/// Spreads flows (the UDP datagrams between two addresses and ports) evenly over cores. The hash is keyed, so peers
/// cannot choose the core that serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash([u64; 3]);

impl FlowHash {
    /// A hash with this key, which should be kept secret.
    pub fn new(key: [u64; 3]) -> Self {
        // An even factor loses bits, and 0 all of them.
        Self(key.map(|part| part | 1))
    }

    /// Which of `cores` cores the flow of `frame` belongs to. Everything but UDP over IP belongs to core 0.
    #[inline]
    pub fn core(&self, frame: &[u8], cores: u8) -> u8 {
        flow(frame).map_or(0, |flow| self.core_of(flow, cores))
    }

    /// Which of `cores` cores datagrams from `remote` to `local` belong to. `None` if the two differ in IP version.
    pub fn home(&self, local: SocketAddr, remote: SocketAddr, cores: u8) -> Option<u8> {
        let ports = u32::from(remote.port()) << 16 | u32::from(local.port());
        let flow = match (remote.ip(), local.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                Flow::V4 { addresses: u64::from(from.to_bits()) << 32 | u64::from(to.to_bits()), ports }
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => Flow::V6 { source: from.to_bits(), destination: to.to_bits(), ports },
            _ => return None,
        };
        Some(self.core_of(flow, cores))
    }

    fn core_of(&self, flow: Flow, cores: u8) -> u8 {
        let hash = match flow {
            Flow::V4 { addresses, ports } => mix(addresses ^ self.0[0], u64::from(ports) ^ self.0[1]),
            Flow::V6 { source, destination, ports } => {
                let [a, b] = halves(source);
                let [c, d] = halves(destination);
                let first = mix(a ^ self.0[0], b ^ self.0[1]);
                mix(first ^ c ^ u64::from(ports), d ^ self.0[2])
            }
        };
        // The upper half of a product with a random factor depends on all bits below.
        (((mix(hash, self.0[2]) >> 32) * u64::from(cores)) >> 32) as u8
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

/// Addresses and ports of a datagram, in the order of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    V4 { addresses: u64, ports: u32 },
    V6 { source: u128, destination: u128, ports: u32 },
}

/// The flow of a frame with a whole UDP datagram directly after its IP header. Headers are not verified: at worst, the
/// frame goes to the wrong core.
fn flow(frame: &[u8]) -> Option<Flow> {
    let ethertype = |at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (kind, at) = match ethertype(ETH_LEN - 2)? {
        0x8100 => (ethertype(ETH_LEN + VLAN_LEN - 2)?, ETH_LEN + VLAN_LEN),
        kind => (kind, ETH_LEN),
    };
    let packet = frame.get(at..)?;
    let ports = |at: usize| Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    match kind {
        ETHERTYPE_IPV4 => {
            let head: &[u8; IPV4_LEN] = packet.first_chunk()?;
            // Only the first fragment has ports.
            let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
            let addresses = u64::from_be_bytes(*head.last_chunk()?);
            (head[9] == PROTOCOL_UDP && !fragment)
                .then(|| Some(Flow::V4 { addresses, ports: ports(usize::from(head[0] & 15) * 4)? }))?
        }
        ETHERTYPE_IPV6 => {
            let head: &[u8; IPV6_LEN] = packet.first_chunk()?;
            let source = u128::from_be_bytes(*head[8..].first_chunk()?);
            let destination = u128::from_be_bytes(*head.last_chunk()?);
            (head[6] == PROTOCOL_UDP).then(|| Some(Flow::V6 { source, destination, ports: ports(IPV6_LEN)? }))?
        }
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::udp::{UDP_LEN, Udp};
    use crate::wire::{ipv4, ipv6};

    /// A frame with an empty datagram, in a VLAN or not.
    pub(crate) fn frame(from: SocketAddr, to: SocketAddr, vlan: bool) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if vlan {
            frame.extend([0x81, 0x00, 0, 7]);
        }
        let udp = Udp { src: from.port(), dst: to.port(), len: UDP_LEN, checksum: 0 };
        match (from.ip(), to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                frame.extend(ETHERTYPE_IPV4.to_be_bytes());
                frame.extend(ipv4::header(a, b, PROTOCOL_UDP, 64, 0, UDP_LEN));
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                frame.extend(ETHERTYPE_IPV6.to_be_bytes());
                frame.extend(ipv6::header(a, b, PROTOCOL_UDP, 64, 0, 0, UDP_LEN));
            }
            _ => panic!("of two kinds"),
        }
        frame.extend(udp.to_bytes());
        frame
    }

    #[test]
    fn flows_are_found_behind_every_header_and_nowhere_else() {
        for (from, to) in [("10.0.0.1:5", "10.0.0.2:4433"), ("[fd00::1]:5", "[fd00::2]:4433")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let plain = frame(from, to, false);
            assert!(flow(&plain).is_some() && flow(&plain) == flow(&frame(from, to, true)));
            for cut in 0..plain.len() - 4 {
                assert_eq!(flow(&plain[..cut]), None, "{cut}");
            }
            let mut other = plain.clone();
            other[12..14].copy_from_slice(&[0x08, 0x06]);
            assert_eq!((flow(&other), FlowHash::new([1, 2, 3]).core(&other, 64)), (None, 0));
        }
        let plain = frame("10.0.0.1:5".parse().unwrap(), "10.0.0.2:4433".parse().unwrap(), false);
        for (at, value) in [(14 + 9, 6), (14 + 6, 0x20), (14 + 7, 1)] {
            let mut other = plain.clone();
            other[at] = value;
            assert_eq!(flow(&other), None, "TCP, or a fragment");
        }
    }

    #[test]
    fn flows_stay_and_spread_evenly() {
        let hash = FlowHash::new([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321, 0x5555_aaaa_1111_7777]);
        for (ip, to) in [("10.0.0.1", "10.0.0.2:4433"), ("fd00::1", "[fd00::2]:4433")] {
            for cores in [1, 2, 3, 4, 7, 64] {
                let mut share = vec![0; usize::from(cores)];
                let flows = 200 * usize::from(cores);
                for port in 0..flows {
                    let from = SocketAddr::new(ip.parse().unwrap(), 1024 + port as u16);
                    let frame = frame(from, to.parse().unwrap(), false);
                    let core = hash.core(&frame, cores);
                    assert_eq!(hash.home(to.parse().unwrap(), from, cores), Some(core), "computed beforehand");
                    share[usize::from(core)] += 1;
                }
                // 200 each are expected, with a deviation of 14.
                assert!(share.iter().all(|n| (130..270).contains(n)), "{cores} cores: {share:?}");
            }
        }
    }

    /// With another key, other flows share a core: no list of ports overloads one core of every server.
    #[test]
    fn the_key_decides() {
        let core = |key: u64, port| {
            let from = SocketAddr::new([10, 0, 0, 1].into(), port);
            FlowHash::new([key, key << 7, !key]).core(&frame(from, "10.0.0.2:4433".parse().unwrap(), false), 4)
        };
        let same = (1000..2000).filter(|&port| core(0x1234_5678_9abc, port) == core(0xfeed_f00d_0011, port)).count();
        assert!((180..320).contains(&same), "{same} of 1000, a quarter is expected");
    }
}
