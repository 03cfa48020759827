//! The short way in: headers of packets that were looked at in full not long ago.
//!
//! Nearly all packets are the next one of a flow. Its headers are those of the one before, but for lengths, checksums
//! and a few fields that nobody looks at; so one comparison says all that parsing would. What does not match, or has
//! anything odd about it, goes the long way and is judged there.

use std::net::{IpAddr, SocketAddr};

use crate::datapath::Checksum;
use crate::mem;
use crate::net::packet::{IpPacket, UdpDatagram};
use crate::wire::be16;
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETH_LEN, VLAN_LEN};
use crate::wire::icmp::IcmpVersion;
use crate::wire::ipv4::{IPV4_LEN, PROTOCOL_UDP};
use crate::wire::ipv6::IPV6_LEN;
use crate::wire::udp::UDP_LEN;

/// Bytes that are compared: Ethernet with a tag, IPv6, and UDP ports.
const SPAN: usize = 64;

/// Flows that are remembered: as many as [`Flows::last`] can name.
const FLOWS: usize = 1 << u8::BITS;

/// Places that a flow may have.
const WAYS: usize = 2;

/// Where the tag's type is, and what is in a tag besides the VLAN: priority and drop eligibility (IEEE 802.1Q §9.6).
const TAG: usize = 12;
const TAG_PRIORITY: u8 = 0xf0;

/// What packets of a flow have in common.
#[derive(Clone, Debug)]
struct Flow {
    /// Bits that have to be the same.
    mask: [u64; SPAN / 8],
    /// Their values.
    want: [u64; SPAN / 8],
    version: IcmpVersion,
    /// Where the IP header is, and where the UDP header.
    ip: usize,
    udp: usize,
    local: SocketAddr,
    remote: SocketAddr,
}

/// The flows that packets came from most recently.
#[derive(Debug)]
pub(super) struct Flows {
    /// Neighbouring places are for flows with the same hash.
    recent: [Option<Box<Flow>>; FLOWS],
    /// The flow of the packet before, which is looked at first.
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
    /// Remembers nothing yet. `seed` is secret, so that nobody can choose whose place a flow takes.
    pub(super) fn new(seed: u64) -> Self {
        Self { recent: [const { None }; FLOWS], last: 0, seed }
    }

    /// The first of the places of a packet's flow: a hash of all that tells flows apart, that is both addresses and both
    /// ports, wherever a tag and the IP version put them.
    fn first_place(&self, head: &[u8; SPAN]) -> usize {
        let ip = if head[TAG..TAG + 2] == [0x81, 0x00] { ETH_LEN + VLAN_LEN } else { ETH_LEN };
        let (addresses, ports) =
            if head[ip] >> 4 == 6 { (&head[ip + 8..ip + 40], ip + 40) } else { (&head[ip + 12..ip + 20], ip + 20) };
        let ports = u32::from_ne_bytes(std::array::from_fn(|i| head[ports + i]));
        let words = addresses.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        let hash = words.fold(self.seed ^ u64::from(ports), |hash, word| mix(hash ^ word));
        // The upper bits of a product know all bits of its factors.
        (mix(hash) >> (u64::BITS - u8::BITS)) as usize & !(WAYS - 1)
    }

    /// Remembers the flow of a datagram that was found good.
    pub(super) fn learn(&mut self, frame: &[u8], packet: &IpPacket<'_>, datagram: &UdpDatagram) {
        let Some(head) = frame.first_chunk::<SPAN>() else { return };
        let ip = packet.at;
        let udp = ip + packet.header_len;
        // Options and extension headers are looked at in full each time.
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
                // Newcomers take the first place. Who was there moves on, and the oldest is forgotten.
                self.recent[first..first + WAYS].rotate_right(1);
                0
            });
        self.last = place as u8;
        // A place is allocated once: with more flows than places, one is taken over for each packet.
        match &mut self.recent[place] {
            Some(place) => **place = flow,
            place => *place = Some(Box::new(flow)),
        }
    }

    /// The datagram in `frame`, if it is of a flow that is known and nothing is odd about it. Tells also whether its
    /// checksum was computed here.
    #[inline]
    pub(super) fn find(&mut self, frame: &[u8], ip: Checksum, l4: Checksum) -> Option<(UdpDatagram, bool)> {
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
        let payload = flow.udp + UDP_LEN..end;
        Some((UdpDatagram { local: flow.local, remote: flow.remote, ecn, payload }, unknown))
    }

    /// The place of a packet's flow that is not the one of the packet before.
    #[inline(never)]
    fn look_up(&self, head: &[u8; SPAN]) -> Option<u8> {
        let first = self.first_place(head);
        let known = |place: &usize| self.recent[*place].as_deref().is_some_and(|flow| flow.matches(head));
        (first..first + WAYS).find(known).map(|place| place as u8)
    }

    /// Forgets the flows to a port, as it was closed.
    pub(super) fn forget_port(&mut self, port: u16) {
        self.forget(|flow| flow.local.port() == port);
    }

    /// Forgets the flows to an address, as it is not ours any more.
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
