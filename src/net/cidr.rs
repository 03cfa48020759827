//! Addresses with a prefix length.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and its prefix length: `10.0.0.7/24`.
///
/// The host bits are kept: for an interface it gives both the address and the network on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

/// The reason why a value is not a valid [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// The prefix is longer than the address.
    #[error("prefix length {len} of {addr} is above {max}")]
    Length {
        /// The address.
        addr: IpAddr,
        /// The requested prefix length.
        len: u8,
        /// The length of such an address in bits.
        max: u8,
    },
    /// The text is not of the form address/length.
    #[error("`{0}` is not of the form address/length, for example 192.0.2.1/24 or 2001:db8::1/64")]
    Syntax(String),
}

/// The address as a number, left-aligned in 128 bits.
fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
        IpAddr::V6(a) => u128::from(a),
    }
}

/// The number of leading bits that two addresses share; 0 if they are of different families.
pub(super) fn shared_bits(a: IpAddr, b: IpAddr) -> u8 {
    let most = if a.is_ipv4() { 32 } else { 128 };
    if a.is_ipv4() == b.is_ipv4() { (bits(a) ^ bits(b)).leading_zeros().min(most) as u8 } else { 0 }
}

impl Cidr {
    /// Creates `addr`/`len`.
    ///
    /// # Errors
    /// If `len` is above 32 (IPv4) or 128 (IPv6).
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, CidrError> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        if len > max { Err(CidrError::Length { addr, len, max }) } else { Ok(Self { addr, len }) }
    }

    /// The network of all addresses of the same family as `addr`.
    pub const fn everything_like(addr: IpAddr) -> Self {
        Self { addr, len: 0 }
    }

    /// The network of `addr` alone.
    pub fn host(addr: IpAddr) -> Option<Self> {
        Self::new(addr, if addr.is_ipv4() { 32 } else { 128 }).ok()
    }

    /// Returns whether it is a single address.
    pub fn is_host(&self) -> bool {
        self.len == if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// Returns whether both are the same network, ignoring host bits.
    pub fn is_same_network(&self, other: &Self) -> bool {
        self.len == other.len && self.contains(other.addr)
    }

    /// The address, including host bits.
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    pub const fn prefix_len(&self) -> u8 {
        self.len
    }

    fn mask(&self) -> u128 {
        if self.len == 0 { 0 } else { u128::MAX << (128 - u32::from(self.len)) }
    }

    /// Returns whether `addr` is in this network.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && (bits(self.addr) ^ bits(addr)) & self.mask() == 0
    }

    /// The network address and the directed broadcast address, for IPv4 prefixes shorter than /31 (RFC 3021). No
    /// station has them.
    pub fn edges(&self) -> Option<[IpAddr; 2]> {
        let IpAddr::V4(addr) = self.addr else { return None };
        if self.len >= 31 {
            return None;
        }
        let host = u32::MAX >> self.len;
        Some([u32::from(addr) & !host, u32::from(addr) | host].map(|edge| IpAddr::V4(edge.into())))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let (addr, len) = text.split_once('/').ok_or_else(syntax)?;
        Self::new(addr.parse().map_err(|_| syntax())?, len.parse().map_err(|_| syntax())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_tells_what_is_inside() {
        assert_eq!(cidr("10.1.2.3/24").to_string(), "10.1.2.3/24");
        assert!(cidr("10.1.2.3/24").contains(ip("10.1.2.255")) && !cidr("10.1.2.3/24").contains(ip("10.1.3.0")));
        assert!(cidr("2001:db8::1/64").contains(ip("2001:db8::ffff")));
        assert!(!cidr("::/0").contains(ip("1.2.3.4")) && cidr("0.0.0.0/0").contains(ip("1.2.3.4")));
        assert!(cidr("10.0.0.1/32").contains(ip("10.0.0.1")) && !cidr("10.0.0.1/32").contains(ip("10.0.0.0")));
        assert!(matches!("10.0.0.1/33".parse::<Cidr>(), Err(CidrError::Length { max: 32, .. })));
        for bad in ["10.0.0.1", "10.0.0/24", "x/1", "::1/-1", "::1/300"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError::Syntax(bad.to_owned())));
        }
    }

    #[test]
    fn compares_networks() {
        assert!(cidr("10.0.0.1/24").is_same_network(&cidr("10.0.0.9/24")));
        assert!(
            !cidr("10.0.0.1/24").is_same_network(&cidr("10.0.0.1/25"))
                && !cidr("::/0").is_same_network(&cidr("0.0.0.0/0"))
        );
        assert!(cidr("10.0.0.1/32").is_host() && cidr("::1/128").is_host() && !cidr("10.0.0.1/31").is_host());
        assert_eq!(Cidr::host(ip("10.0.0.1")), Some(cidr("10.0.0.1/32")));
        assert_eq!(shared_bits(ip("10.0.0.1"), ip("10.0.0.1")), 32);
        assert_eq!(shared_bits(ip("2001:db8::"), ip("2001:db9::")), 31);
        assert_eq!(shared_bits(ip("10.0.0.1"), ip("::")), 0);
    }

    #[test]
    fn edges_of_ipv4_networks() {
        assert_eq!(cidr("10.0.0.9/28").edges(), Some([ip("10.0.0.0"), ip("10.0.0.15")]));
        assert_eq!(cidr("10.0.0.9/0").edges(), Some([ip("0.0.0.0"), ip("255.255.255.255")]));
        assert_eq!((cidr("10.0.0.0/31").edges(), cidr("::/64").edges()), (None, None));
    }

    proptest! {
        #[test]
        fn contains_agrees_with_comparing_bit_by_bit(a: u32, flip in 0u32..33, len in 0u8..=32) {
            let b = if flip == 32 { a } else { a ^ (0x8000_0000 >> flip) };
            let net = Cidr::new(IpAddr::V4(a.into()), len).unwrap();
            prop_assert_eq!(net.contains(IpAddr::V4(b.into())), flip >= u32::from(len));
        }
    }
}
