//! Header templates: the fields that are the same in every packet of a flow are computed once.

use std::net::{IpAddr, SocketAddr};

use crate::base::time::Instant;
use crate::datapath::{TxFrame, TxOffload};
use crate::mem::sum_words;
use crate::net::neighbor::{Aim, Neighbors};
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthHeader, Mac, VLAN_LEN};
use crate::wire::ipv4::{self, IPV4_LEN, PROTOCOL_UDP};
use crate::wire::ipv6::{self, IPV6_LEN};
use crate::wire::udp::{UDP_LEN, never_zero};

/// Hop limit and time to live of everything except neighbour discovery.
pub(super) const TTL: u8 = 64;
/// The length of the longest headers: VLAN-tagged Ethernet, IPv6, UDP.
const MAX_LEN: usize = ETH_LEN + VLAN_LEN + IPV6_LEN + UDP_LEN;

/// A flow in a form that is quick to compare and hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowKey {
    src: u128,
    dst: u128,
    ports: u32,
    ipv6: bool,
}

impl FlowKey {
    /// The key of a flow; `None` if the addresses are of different families.
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        let ports = u32::from(local.port()) << 16 | u32::from(remote.port());
        match (local.ip(), remote.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Some(Self { src: u32::from(src).into(), dst: u32::from(dst).into(), ports, ipv6: false })
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Self { src: src.into(), dst: dst.into(), ports, ipv6: true }),
            _ => None,
        }
    }

    /// Hashes the flow. A peer that causes collisions only slows down the packets sent to itself.
    pub(super) fn hash(&self, seed: u64) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let words =
            [self.src as u64, (self.src >> 64) as u64, self.dst as u64, (self.dst >> 64) as u64, self.ports.into()];
        let hash = words.iter().fold(seed, |hash, word| (hash.rotate_left(23) ^ word).wrapping_mul(ODD));
        // The low bits of a product depend only on the low bits of its factors.
        (hash ^ (hash >> 32)).wrapping_mul(ODD).rotate_left(32)
    }
}

/// The device's offloads and limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxCaps {
    pub(super) mtu: u16,
    pub(super) ip_checksum: bool,
    pub(super) udp_checksum: bool,
}

/// The headers of one flow.
#[derive(Clone, Debug)]
pub(super) struct Template {
    key: FlowKey,
    /// The table slot of its next hop.
    aim: Aim,
    max_payload: u16,
    l2_len: u8,
    len: u8,
    bytes: [u8; MAX_LEN],
    /// The checksum of the IPv4 header except ECN and total length.
    ip_sum: Sum,
    /// The checksum of the pseudo-header except the length.
    pseudo_sum: Sum,
    offload: TxOffload,
}

impl Template {
    /// A template that matches no flow.
    pub(super) fn none() -> Self {
        Self {
            key: FlowKey::default(),
            aim: Aim::NONE,
            max_payload: 0,
            l2_len: 0,
            len: 0,
            bytes: [0; MAX_LEN],
            ip_sum: Sum::new(),
            pseudo_sum: Sum::new(),
            offload: TxOffload::default(),
        }
    }

    /// Creates the headers from `local` to `remote`, with the link layer from `eth`. `flow` is the IPv6 flow label.
    pub(super) fn new(
        key: FlowKey,
        local: SocketAddr,
        remote: SocketAddr,
        src_mac: Mac,
        vlan: Option<u16>,
        flow: u32,
        caps: TxCaps,
    ) -> Self {
        let ethertype = if key.ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        let eth = EthHeader { dst: Mac::ZERO, src: src_mac, vlan, ethertype }.to_bytes();
        let mut this = Self::none();
        this.key = key;
        this.l2_len = eth.len() as u8;
        let mut put = |part: &[u8]| {
            let at = usize::from(this.len);
            this.bytes[at..at + part.len()].copy_from_slice(part);
            this.len += part.len() as u8;
        };
        put(&eth);
        let l3_len = match (local.ip(), remote.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = ipv4::header(src, dst, PROTOCOL_UDP, TTL, 0, 0);
                // Length and checksum are filled in for each packet.
                header[2..4].fill(0);
                header[10..12].fill(0);
                put(&header);
                this.ip_sum = Sum::new().bytes(&header);
                this.pseudo_sum = Sum::new().pseudo_v4(src, dst, PROTOCOL_UDP, 0);
                IPV4_LEN
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                put(&ipv6::header(src, dst, PROTOCOL_UDP, TTL, 0, flow, 0));
                this.pseudo_sum = Sum::new().pseudo_v6(src, dst, PROTOCOL_UDP, 0);
                IPV6_LEN
            }
            // A key has only one address family.
            _ => return Self::none(),
        };
        put(&local.port().to_be_bytes());
        put(&remote.port().to_be_bytes());
        put(&[0; 4]);
        this.max_payload = caps.mtu.saturating_sub((l3_len + UDP_LEN) as u16);
        this.offload = TxOffload {
            l2_len: this.l2_len,
            l3_len: l3_len as u8,
            ipv6: key.ipv6,
            ip_checksum: caps.ip_checksum && !key.ipv6,
            udp_checksum: caps.udp_checksum,
        };
        this
    }

    /// Sets the next hop to `mac`, valid as long as `aim` is.
    pub(super) fn aim(&mut self, mac: Mac, aim: Aim) {
        self.bytes[..6].copy_from_slice(&mac.0);
        self.aim = aim;
    }

    /// Sets the next hop for one frame.
    pub(super) fn aim_once(&mut self, mac: Mac) {
        self.aim(mac, Aim::NONE);
    }

    /// Returns whether it is for this flow and its next hop is valid. A change of one neighbour invalidates only
    /// templates that use it.
    #[inline]
    pub(super) fn is_good(&self, key: &FlowKey, neighbors: &Neighbors, now: Instant) -> bool {
        self.key == *key && self.is_fresh(neighbors, now)
    }

    /// Returns whether its next hop is valid, whatever the flow.
    #[inline]
    pub(super) fn is_fresh(&self, neighbors: &Neighbors, now: Instant) -> bool {
        neighbors.is_current(self.aim, now)
    }

    /// Returns whether it is for this flow, whatever the next hop.
    pub(super) fn is_for(&self, key: &FlowKey) -> bool {
        self.len != 0 && self.key == *key
    }

    /// The largest payload that fits, in bytes.
    pub(super) fn max_payload(&self) -> usize {
        usize::from(self.max_payload)
    }

    /// Returns whether [`Template::write`] computes the checksum of the payload.
    pub(super) fn sums_in_software(&self) -> bool {
        !self.offload.udp_checksum
    }

    /// Prepends the headers to `frame`'s payload, which is at most [`Template::max_payload`] bytes.
    pub(super) fn write<T: TxFrame>(&self, ecn: u8, frame: &mut T) {
        let payload_len = frame.data().len();
        let udp_len = (UDP_LEN + payload_len) as u16;
        // In software, the checksum is computed before the headers are prepended; the ports are in the template.
        let mut sum = self.pseudo_sum.u16(udp_len);
        if !self.offload.udp_checksum {
            let udp = &self.bytes[usize::from(self.len) - UDP_LEN..usize::from(self.len)];
            sum = sum.bytes(udp).u16(udp_len).words(sum_words(frame.data()));
        }
        let udp_checksum = if self.offload.udp_checksum { sum.fold() } else { never_zero(sum.checksum()) };
        let header = self.copy_headers(&self.bytes, frame);
        let ip = &mut header[usize::from(self.l2_len)..];
        let ecn = ecn & 3;
        let udp = if self.key.ipv6 {
            ip[1] |= ecn << 4;
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
            &mut ip[IPV6_LEN..]
        } else {
            let total = IPV4_LEN as u16 + udp_len;
            ip[1] = ecn;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            if !self.offload.ip_checksum {
                let checksum = self.ip_sum.u16(total).u16(u16::from(ecn)).checksum();
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            &mut ip[IPV4_LEN..]
        };
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        udp[6..8].copy_from_slice(&udp_checksum.to_be_bytes());
        if self.offload.ip_checksum || self.offload.udp_checksum {
            frame.set_offload(self.offload);
        }
    }

    /// The same for `frames`. Those of one length share their headers, as long as the device computes checksums.
    pub(super) fn write_all<T: TxFrame>(&self, ecn: u8, frames: &mut [T]) {
        let Some((first, others)) = frames.split_first_mut() else { return };
        let len = first.data().len();
        self.write(ecn, first);
        // Bytes that were just written one by one are slow to read back, so this does not pay for few frames.
        let shared = others.len() >= 3 && self.offload.udp_checksum;
        let header: Option<[u8; MAX_LEN]> = shared.then(|| {
            let mut header = [0; MAX_LEN];
            let n = usize::from(self.len);
            header[..n].copy_from_slice(&first.data()[..n]);
            header
        });
        for frame in others {
            match &header {
                Some(header) if frame.data().len() == len => {
                    self.copy_headers(header, frame);
                    frame.set_offload(self.offload);
                }
                _ => self.write(ecn, frame),
            }
        }
    }

    /// Prepends room for headers to `frame`, and copies `from` there.
    #[inline]
    fn copy_headers<'f, T: TxFrame>(&self, from: &[u8; MAX_LEN], frame: &'f mut T) -> &'f mut [u8] {
        let header = frame.prepend(usize::from(self.len));
        // Copies of constant length compile to a few moves rather than a call.
        match self.len {
            42 => copy::<42>(header, from),
            46 => copy::<46>(header, from),
            62 => copy::<62>(header, from),
            _ => copy::<66>(header, from),
        }
        header
    }
}

fn copy<const N: usize>(to: &mut [u8], from: &[u8; MAX_LEN]) {
    to[..N].copy_from_slice(&from[..N]);
}
