//! The short way in: headers of packets that were looked at in full not long ago.
//!
//! Nearly all packets are the next one of a flow. Its headers are those of the one before, but for lengths, checksums
//! and a few fields that nobody looks at; so one comparison says all that parsing would. What does not match, or has
//! anything odd about it, goes the long way and is judged there.

use std::net::SocketAddr;

use crate::datapath::Checksum;
use crate::mem;
use crate::net::packet::{IpPacket, UdpDatagram};
use crate::wire::be16;
use crate::wire::checksum::Sum;
use crate::wire::icmp::IcmpVersion;
use crate::wire::ipv4::{IPV4_LEN, PROTOCOL_UDP};
use crate::wire::ipv6::IPV6_LEN;
use crate::wire::udp::UDP_LEN;

/// Bytes that are compared: Ethernet with a tag, IPv6, and UDP ports.
const SPAN: usize = 64;

/// Flows that are remembered. A power of two.
const FLOWS: usize = 16;

/// Bytes that tell flows apart: the source port over IPv4, the end of the source address over IPv6.
const KEY: usize = 35;

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
#[derive(Debug, Default)]
pub(super) struct Flows {
    recent: [Option<Box<Flow>>; FLOWS],
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
    fn slot(head: &[u8; SPAN]) -> usize {
        usize::from(head[KEY]) % FLOWS
    }

    /// Remembers the flow of a datagram that was found good; `ip` is where its IP packet begins.
    pub(super) fn learn(&mut self, frame: &[u8], ip: usize, packet: &IpPacket<'_>, datagram: &UdpDatagram) {
        let Some(head) = frame.first_chunk::<SPAN>() else { return };
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
        // A place is allocated once: with more flows than places, one is taken over for each packet.
        match &mut self.recent[Self::slot(head)] {
            Some(place) => **place = flow,
            place => *place = Some(Box::new(flow)),
        }
    }

    /// The datagram in `frame`, if it is of a flow that is known and nothing is odd about it. Tells also whether its
    /// checksum was computed here.
    #[inline]
    pub(super) fn find(&self, frame: &[u8], ip: Checksum, l4: Checksum) -> Option<(UdpDatagram, bool)> {
        let head = frame.first_chunk::<SPAN>()?;
        let flow = self.recent[Self::slot(head)].as_deref()?;
        if !flow.matches(head) || ip == Checksum::Bad || l4 == Checksum::Bad {
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

    /// Forgets all, as what made them good may have changed.
    pub(super) fn clear(&mut self) {
        self.recent = Default::default();
    }
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
