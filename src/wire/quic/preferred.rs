//! The preferred_address transport parameter (RFC 9000 §18.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use arrayvec::ArrayVec;

use crate::wire::quic::ConnectionId;
use crate::wire::quic::varint::Reader;

/// Length of the addresses and ports in bytes.
const ADDRESSES: usize = 4 + 2 + 16 + 2;

/// The longest encoding in bytes.
const LONGEST: usize = ADDRESSES + 1 + ConnectionId::MAX + 16;

/// A server's preferred addresses, and an ID with its reset token to use there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preferred {
    /// The IPv4 address, if there is one.
    pub v4: Option<SocketAddrV4>,
    /// The IPv6 address, if there is one.
    pub v6: Option<SocketAddrV6>,
    /// The connection ID with sequence number 1. Never empty.
    pub cid: ConnectionId,
    /// Its stateless reset token.
    pub token: [u8; 16],
}

impl Preferred {
    /// The value of the parameter. An address that is missing is all zeros.
    pub fn to_bytes(&self) -> ArrayVec<u8, LONGEST> {
        let v4 = self.v4.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let v6 = self.v6.unwrap_or(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        let mut out = ArrayVec::new();
        out.extend(v4.ip().octets());
        out.extend(v4.port().to_be_bytes());
        out.extend(v6.ip().octets());
        out.extend(v6.port().to_be_bytes());
        out.push(self.cid.len() as u8);
        out.extend(self.cid.iter().copied());
        out.extend(self.token);
        out
    }

    /// Reads the value of the parameter. `None` if it is malformed, or its connection ID is empty.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut r = Reader::new(value);
        let v4: [u8; 4] = r.bytes(4)?.try_into().ok()?;
        let v4_port = u16::from_be_bytes(r.bytes(2)?.try_into().ok()?);
        let v6: [u8; 16] = r.bytes(16)?.try_into().ok()?;
        let v6_port = u16::from_be_bytes(r.bytes(2)?.try_into().ok()?);
        let len = usize::from(r.u8()?);
        let cid = ConnectionId::new(r.bytes(len)?).filter(|cid| !cid.is_empty())?;
        let token = r.bytes(16)?.try_into().ok()?;
        let v4 = SocketAddrV4::new(v4.into(), v4_port);
        let v6 = SocketAddrV6::new(v6.into(), v6_port, 0, 0);
        let v4 = Some(v4).filter(|addr| !addr.ip().is_unspecified() && addr.port() != 0);
        let v6 = Some(v6).filter(|addr| !addr.ip().is_unspecified() && addr.port() != 0);
        r.is_empty().then_some(Self { v4, v6, cid, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(v4: bool, v6: bool, len: usize) -> Preferred {
        Preferred {
            v4: v4.then(|| "192.0.2.7:443".parse().unwrap()),
            v6: v6.then(|| "[2001:db8::7]:444".parse().unwrap()),
            cid: ConnectionId::new(&vec![9; len]).unwrap(),
            token: [5; 16],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (v4, v6, len) in [(true, true, 1), (true, false, 8), (false, true, 20), (false, false, 20)] {
            let preferred = preferred(v4, v6, len);
            let bytes = preferred.to_bytes();
            assert_eq!(Preferred::decode(&bytes), Some(preferred));
            for cut in 0..bytes.len() {
                assert_eq!(Preferred::decode(&bytes[..cut]), None, "{cut} bytes");
            }
            assert_eq!(Preferred::decode(&[&bytes[..], &[0]].concat()), None, "more than it should be");
        }
    }

    /// "MUST NOT include a zero-length connection ID in this transport parameter."
    #[test]
    fn ids_have_1_to_20_bytes() {
        let with_len = |len: usize| {
            let mut bytes = vec![1; ADDRESSES];
            bytes.push(len as u8);
            bytes.extend(vec![2; len + 16]);
            Preferred::decode(&bytes).is_some()
        };
        assert_eq!([0, 1, 20, 21].map(with_len), [false, true, true, false]);
    }
}
