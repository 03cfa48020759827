//! The receive fast path: headers of flows that were parsed recently.
//!
//! Nearly every packet belongs to a recent flow. Its headers equal those of the previous packet, except for lengths,
//! checksums and a few fields that do not matter, so one comparison replaces parsing. Packets that do not match, or
//! have anything unusual, are parsed in full.

use std::net::{IpAddr, SocketAddr};

use crate::datapath::Checksum;
use crate::mem;
use crate::net::packet::{FlowDatagram, IpPacket, UdpDatagram};
use crate::wire::be16;
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETH_LEN, VLAN_LEN};
use crate::wire::icmp::IcmpVersion;
use crate::wire::ipv4::{IPV4_LEN, PROTOCOL_UDP};
use crate::wire::ipv6::IPV6_LEN;
use crate::wire::udp::UDP_LEN;

/// The number of bytes compared: Ethernet with a tag, IPv6, and UDP ports.
const SPAN: usize = 64;

/// The number of cached flows: as many as [`Flows::last`] can index.
const FLOWS: usize = 1 << u8::BITS;

/// The number of slots that a flow may be in.
const WAYS: usize = 2;

/// The offset of the tag's type, and the tag bits besides the VLAN ID: priority and drop eligibility (IEEE 802.1Q
/// §9.6).
const TAG: usize = 12;
const TAG_PRIORITY: u8 = 0xf0;

/// The header fields that all packets of a flow share.
#[derive(Clone, Debug)]
struct Flow {
    /// The bits to compare.
    mask: [u64; SPAN / 8],
    /// Their values.
    want: [u64; SPAN / 8],
    version: IcmpVersion,
    /// Offsets of the IP header and the UDP header.
    ip: usize,
    udp: usize,
    local: SocketAddr,
    remote: SocketAddr,
}

/// The flows of recent packets.
#[derive(Debug)]
pub(super) struct Flows {
    /// Adjacent slots are for flows with the same hash.
    recent: [Option<Box<Flow>>; FLOWS],
    /// The flow of the previous packet, which is compared first.
    last: u8,
    seed: u64,
}

fn words(bytes: &[u8; SPAN]) -> [u64; SPAN / 8] {
    std::array::from_fn(|i| u64::from_ne_bytes(bytes.as_chunks::<8>().0[i]))
}

impl Flow {
    fn matches(&self, head: &[u8; SPAN]) -> bool {
        let head = words(head);
        (0..SPAN / 8).fold(0, |differ, i| differ | (head[i] ^ self.want[i]) & self.mask[i]) == 0
    }
}

impl Flows {
    /// Creates an empty cache. `seed` is secret, so that nobody can choose which flow's slot a flow takes.
    pub(super) fn new(seed: u64) -> Self {
        Self { recent: [const { None }; FLOWS], last: 0, seed }
    }

    /// The first slot of a packet's flow: a hash of both addresses and both ports, wherever a tag and the IP version
    /// put them.
    fn first_place(&self, head: &[u8; SPAN]) -> usize {
        let ip = if head[TAG..TAG + 2] == [0x81, 0x00] { ETH_LEN + VLAN_LEN } else { ETH_LEN };
        let (addresses, ports) =
            if head[ip] >> 4 == 6 { (&head[ip + 8..ip + 40], ip + 40) } else { (&head[ip + 12..ip + 20], ip + 20) };
        let ports = u32::from_ne_bytes(std::array::from_fn(|i| head[ports + i]));
        let words = addresses.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        let hash = words.fold(self.seed ^ u64::from(ports), |hash, word| mix(hash ^ word));
        // The upper bits of a product depend on all bits of its factors.
        (mix(hash) >> (u64::BITS - u8::BITS)) as usize & !(WAYS - 1)
    }

    /// Caches the flow of a valid datagram.
    pub(super) fn learn(&mut self, frame: &[u8], packet: &IpPacket<'_>, datagram: &UdpDatagram) {
        let Some(head) = frame.first_chunk::<SPAN>() else { return };
        let ip = packet.at;
        let udp = ip + packet.header_len;
        // Packets with options or extension headers are always parsed in full.
        let plain = match packet.version {
            IcmpVersion::V4 => IPV4_LEN,
            IcmpVersion::V6 => IPV6_LEN,
        };
        if packet.header_len != plain || udp + 4 > SPAN {
            return;
        }
        let mut mask = [0; SPAN];
        mask[..udp + 4].fill(0xff);
        if ip > ETH_LEN {
            mask[ETH_LEN] = !TAG_PRIORITY;
        }
        match packet.version {
            IcmpVersion::V4 => {
                // Type of service, length and identification; "don't fragment"; time to live and checksum.
                mask[ip + 1..ip + 6].fill(0);
                mask[ip + 6] = 0x3f;
                mask[ip + 8] = 0;
                mask[ip + 10..ip + 12].fill(0);
            }
            IcmpVersion::V6 => {
                // Traffic class, flow label and length; hop limit.
                mask[ip] = 0xf0;
                mask[ip + 1..ip + 6].fill(0);
                mask[ip + 7] = 0;
            }
        }
        let flow = Flow {
            mask: words(&mask),
            want: words(head),
            version: packet.version,
            ip,
            udp,
            local: datagram.local,
            remote: datagram.remote,
        };
        let first = self.first_place(head);
        let mut ways = self.recent[first..first + WAYS].iter();
        let place = first
            + ways.position(|flow| flow.as_deref().is_some_and(|flow| flow.matches(head))).unwrap_or_else(|| {
                // New flows take the first slot. The others move on, and the oldest is forgotten.
                self.recent[first..first + WAYS].rotate_right(1);
                0
            });
        self.last = place as u8;
        // A slot is allocated once and then overwritten.
        match &mut self.recent[place] {
            Some(place) => **place = flow,
            place => *place = Some(Box::new(flow)),
        }
    }

    /// The datagram in `frame`, if its flow is cached and it has nothing unusual, and whether its checksum was verified
    /// here.
    #[inline(always)]
    pub(super) fn find(&mut self, frame: &[u8], ip: Checksum, l4: Checksum) -> Option<(FlowDatagram, bool)> {
        let head = frame.first_chunk::<SPAN>()?;
        if !self.recent[usize::from(self.last)].as_deref().is_some_and(|flow| flow.matches(head)) {
            self.last = self.look_up(head)?;
        }
        let flow = self.recent[usize::from(self.last)].as_deref()?;
        if ip == Checksum::Bad || l4 == Checksum::Bad {
            return None;
        }
        let (ecn, end) = match flow.version {
            IcmpVersion::V4 => (head[flow.ip + 1] & 3, flow.ip + usize::from(be16(head, flow.ip + 2)?)),
            IcmpVersion::V6 => (head[flow.ip + 1] >> 4 & 3, flow.udp + usize::from(be16(head, flow.ip + 4)?)),
        };
        let datagram = frame.get(flow.udp..end)?;
        let (len, checksum) = (be16(datagram, 4)?, be16(datagram, 6)?);
        if usize::from(len) != datagram.len() || datagram.len() < UDP_LEN || checksum == 0 {
            return None;
        }
        if flow.version == IcmpVersion::V4
            && ip == Checksum::Unknown
            && !Sum::new().bytes(&frame[flow.ip..flow.udp]).is_valid()
        {
            return None;
        }
        let unknown = l4 == Checksum::Unknown;
        if unknown && !checksum_ok(flow, datagram) {
            return None;
        }
        let payload = [(flow.udp + UDP_LEN) as u16, u16::try_from(end).ok()?];
        Some((FlowDatagram { flow: self.last, ecn, payload }, unknown))
    }

    /// The addresses, ours and the sender's, of a flow that was found.
    pub(super) fn addresses(&self, flow: u8) -> Option<(SocketAddr, SocketAddr)> {
        self.recent[usize::from(flow)].as_deref().map(|flow| (flow.local, flow.remote))
    }

    /// Looks up a packet's flow, which differs from the previous packet's.
    #[inline(never)]
    fn look_up(&self, head: &[u8; SPAN]) -> Option<u8> {
        let first = self.first_place(head);
        let known = |place: &usize| self.recent[*place].as_deref().is_some_and(|flow| flow.matches(head));
        (first..first + WAYS).find(known).map(|place| place as u8)
    }

    /// Forgets the flows to a port that was closed.
    pub(super) fn forget_port(&mut self, port: u16) {
        self.forget(|flow| flow.local.port() == port);
    }

    /// Forgets the flows to an address that was removed.
    pub(super) fn forget_address(&mut self, addr: IpAddr) {
        self.forget(|flow| flow.local.ip() == addr);
    }

    fn forget(&mut self, which: impl Fn(&Flow) -> bool) {
        for place in &mut self.recent {
            place.take_if(|flow| which(flow));
        }
    }
}

/// Spreads the bits of `word` upwards.
const fn mix(word: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    (word ^ (word >> 32)).wrapping_mul(ODD)
}

fn checksum_ok(flow: &Flow, datagram: &[u8]) -> bool {
    let sum = match (flow.remote, flow.local) {
        (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
            Sum::new().pseudo_v4(*src.ip(), *dst.ip(), PROTOCOL_UDP, datagram.len() as u16)
        }
        (SocketAddr::V6(src), SocketAddr::V6(dst)) => {
            Sum::new().pseudo_v6(*src.ip(), *dst.ip(), PROTOCOL_UDP, datagram.len() as u32)
        }
        _ => return false,
    };
    sum.words(mem::sum_words(datagram)).is_valid()
}
