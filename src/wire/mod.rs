//! Packet formats: codecs over byte slices, without unsafe code or allocation.
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod eth;
pub mod h3;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod qpack;
pub mod quic;
pub mod udp;

/// The big-endian 16 bits at `at`, or `None` if `bytes` is too short.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// The big-endian 32 bits at `at`, or `None` if `bytes` is too short.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}
