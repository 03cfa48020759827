//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use crate::wire::eth::Mac;

/// Length of an ARP packet for IPv4 over Ethernet, in bytes.
pub const ARP_LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const PREFIX: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// Operation of an ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOp {
    /// Asks who has the target address.
    Request,
    /// States that the sender has its address.
    Reply,
}

/// Why an ARP packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// Shorter than [`ARP_LEN`].
    #[error("ARP packet of {0} bytes is shorter than {ARP_LEN}")]
    Truncated(usize),
    /// The hardware or protocol is not Ethernet or IPv4.
    #[error("ARP packet for hardware or protocol other than Ethernet and IPv4")]
    Kind,
    /// The operation is neither request nor reply.
    #[error("ARP operation {0} is neither request nor reply")]
    Operation(u16),
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub op: ArpOp,
    /// Sender's MAC address.
    pub sender_mac: Mac,
    /// Sender's IPv4 address; unspecified in a probe (RFC 5227 §1.1).
    pub sender_ip: Ipv4Addr,
    /// Target's MAC address; meaningless in a request.
    pub target_mac: Mac,
    /// Target's IPv4 address.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Parses a packet. Bytes after it are padding.
    ///
    /// # Errors
    /// [`ArpError`] if it is not ARP for IPv4 over Ethernet.
    pub fn parse(packet: &[u8]) -> Result<Self, ArpError> {
        let Some(bytes) = packet.first_chunk::<ARP_LEN>() else {
            return Err(ArpError::Truncated(packet.len()));
        };
        if !bytes.starts_with(&PREFIX) {
            return Err(ArpError::Kind);
        }
        let op = match u16::from_be_bytes([bytes[6], bytes[7]]) {
            1 => ArpOp::Request,
            2 => ArpOp::Reply,
            op => return Err(ArpError::Operation(op)),
        };
        let mac = |at: usize| Mac(std::array::from_fn(|i| bytes[at + i]));
        let ip = |at: usize| Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| bytes[at + i]));
        Ok(Self { op, sender_mac: mac(8), sender_ip: ip(14), target_mac: mac(18), target_ip: ip(24) })
    }

    /// The encoded packet.
    pub fn to_bytes(&self) -> [u8; ARP_LEN] {
        let mut out = [0; ARP_LEN];
        out[..6].copy_from_slice(&PREFIX);
        out[7] = if self.op == ArpOp::Request { 1 } else { 2 };
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender_ip.octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..].copy_from_slice(&self.target_ip.octets());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REQUEST: [u8; 28] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 10, 0, 2, 15, 0, 0, 0, 0,
        0, 0, 10, 0, 2, 2,
    ];

    #[test]
    fn reads_and_writes() {
        let arp = Arp::parse(&REQUEST).unwrap();
        assert_eq!(arp.op, ArpOp::Request);
        assert_eq!(arp.sender_mac.to_string(), "52:54:00:12:34:56");
        assert_eq!((arp.sender_ip, arp.target_ip), ([10, 0, 2, 15].into(), [10, 0, 2, 2].into()));
        assert_eq!(arp.to_bytes(), REQUEST);
    }

    #[test]
    fn refuses_other_kinds() {
        assert_eq!(Arp::parse(&REQUEST[..27]), Err(ArpError::Truncated(27)));
        let mut other = REQUEST;
        other[1] = 6;
        assert_eq!(Arp::parse(&other), Err(ArpError::Kind));
        other = REQUEST;
        other[7] = 3;
        assert_eq!(Arp::parse(&other), Err(ArpError::Operation(3)));
    }

    proptest! {
        #[test]
        fn what_parses_is_written_back(mut bytes: [u8; 28], keep: bool, len in 0usize..29) {
            if keep {
                bytes[..7].copy_from_slice(&REQUEST[..7]);
                bytes[7] = bytes[7] % 2 + 1;
            }
            if let Ok(arp) = Arp::parse(&bytes) {
                prop_assert_eq!(arp.to_bytes(), bytes);
            } else {
                prop_assert!(!keep);
            }
            let _ = Arp::parse(&bytes[..len]);
        }
    }
}
