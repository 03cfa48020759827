//! UDP headers (RFC 768).

/// Length of a UDP header, in bytes.
pub const UDP_LEN: usize = 8;

/// Why a UDP datagram is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// The datagram ends inside its header.
    #[error("datagram of {0} bytes ends inside its UDP header")]
    Truncated(usize),
    /// The length is less than the header's, or more than the available bytes.
    #[error("UDP length {0} does not fit the datagram")]
    Length(u16),
}

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Length of header and payload, in bytes.
    pub len: usize,
    /// Checksum; 0 means none, which IPv6 forbids (RFC 8200 §8.1).
    pub checksum: u16,
}

impl Udp {
    /// Parses the header of `datagram`.
    ///
    /// # Errors
    /// [`UdpError`] if lengths do not fit `datagram`.
    pub fn parse(datagram: &[u8]) -> Result<Self, UdpError> {
        let Some(&[s0, s1, d0, d1, l0, l1, c0, c1]) = datagram.first_chunk::<UDP_LEN>() else {
            return Err(UdpError::Truncated(datagram.len()));
        };
        let len = u16::from_be_bytes([l0, l1]);
        if usize::from(len) < UDP_LEN || usize::from(len) > datagram.len() {
            return Err(UdpError::Length(len));
        }
        Ok(Self {
            src: u16::from_be_bytes([s0, s1]),
            dst: u16::from_be_bytes([d0, d1]),
            len: usize::from(len),
            checksum: u16::from_be_bytes([c0, c1]),
        })
    }

    /// The encoded header.
    pub const fn to_bytes(&self) -> [u8; UDP_LEN] {
        let [s0, s1] = self.src.to_be_bytes();
        let [d0, d1] = self.dst.to_be_bytes();
        let [l0, l1] = (self.len as u16).to_be_bytes();
        let [c0, c1] = self.checksum.to_be_bytes();
        [s0, s1, d0, d1, l0, l1, c0, c1]
    }
}

/// `checksum` as it is sent: zero, which would mean that there is none, is sent as all ones (RFC 768).
pub const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::Sum;
    use crate::wire::ipv4::PROTOCOL_UDP;
    use proptest::prelude::*;

    #[test]
    fn known_datagram() {
        // From 152.1.51.27:41103 to 152.14.94.75:9876, payload 62 62: a textbook example with checksum 14de.
        let bytes = [0xa0, 0x8f, 0x26, 0x94, 0x00, 0x0a, 0x14, 0xde, 0x62, 0x62];
        let udp = Udp::parse(&bytes).unwrap();
        assert_eq!(udp, Udp { src: 41103, dst: 9876, len: 10, checksum: 0x14de });
        assert_eq!(udp.to_bytes(), bytes[..8]);
        let sum = Sum::new().pseudo_v4([0x98, 1, 0x33, 0x1b].into(), [0x98, 0x0e, 0x5e, 0x4b].into(), PROTOCOL_UDP, 10);
        assert!(sum.bytes(&bytes).is_valid());
        assert!(!sum.bytes(&bytes[..9]).is_valid());
        assert_eq!((never_zero(0), never_zero(5)), (0xffff, 5));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            match Udp::parse(&bytes) {
                Ok(udp) => prop_assert!(udp.len >= 8 && udp.len <= bytes.len()),
                Err(UdpError::Truncated(n)) => prop_assert!(n < 8),
                Err(UdpError::Length(n)) => prop_assert!(usize::from(n) < 8 || usize::from(n) > bytes.len()),
            }
        }
    }
}
