//! The internet checksum (RFC 1071).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A running one's complement sum. The order of additions does not matter.
///
/// Words are added in native byte order, which the checksum allows (RFC 1071 §2 (B)); only the result is swapped. Sums
/// of up to 16 GiB cannot overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds 16 bits.
    #[must_use]
    pub const fn u16(self, value: u16) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// Adds `data`, which must start at an even offset of the summed bytes. An odd last byte is padded with zero.
    #[must_use]
    pub fn bytes(self, data: &[u8]) -> Self {
        // Each half of a 64-bit word goes to a lane of its own: eight independent chains without carries, about 40 ns
        // for 1400 bytes even in scalar code. No lane can overflow.
        let (blocks, rest) = data.as_chunks::<32>();
        let (mut low, mut high) = ([0u64; 4], [0u64; 4]);
        for block in blocks {
            let words: [u64; 4] = std::array::from_fn(|i| u64::from_ne_bytes(block.as_chunks::<8>().0[i]));
            for (lane, word) in low.iter_mut().zip(words) {
                *lane = lane.wrapping_add(word & 0xffff_ffff);
            }
            for (lane, word) in high.iter_mut().zip(words) {
                *lane = lane.wrapping_add(word >> 32);
            }
        }
        let mut sum = self.0 + low.iter().sum::<u64>() + high.iter().sum::<u64>();
        let (pairs, odd) = rest.as_chunks::<2>();
        sum += pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum::<u64>();
        if let [last] = odd {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(sum)
    }

    /// Adds a sum of 32-bit words in native byte order, of data at an even offset.
    #[must_use]
    pub const fn words(self, sum: u64) -> Self {
        Self(self.0 + sum)
    }

    /// Adds the pseudo-header of UDP over IPv4 (RFC 768), or of another protocol that uses the same form.
    #[must_use]
    pub fn pseudo_v4(self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u16) -> Self {
        self.bytes(&src.octets()).bytes(&dst.octets()).u16(u16::from(protocol)).u16(len)
    }

    /// Adds the pseudo-header of upper layers over IPv6 (RFC 8200 §8.1).
    #[must_use]
    pub fn pseudo_v6(self, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> Self {
        let [a, b, c, d] = len.to_be_bytes();
        let len = self.u16(u16::from_be_bytes([a, b])).u16(u16::from_be_bytes([c, d]));
        len.bytes(&src.octets()).bytes(&dst.octets()).u16(u16::from(protocol))
    }

    /// The sum folded to 16 bits, not complemented, as devices expect it in the checksum field.
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the folded sum.
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether data that contains its own checksum is intact.
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 §3: the sum is ddf2.
        let sum = Sum::new().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.fold(), sum.checksum()), (0xddf2, 0x220d));
        assert!(sum.u16(0x220d).is_valid());
        assert!(!sum.u16(0x220e).is_valid());
    }

    #[test]
    fn largest_sums_do_not_overflow() {
        let ones = vec![0xff; 65536];
        assert_eq!(Sum::new().bytes(&ones).bytes(&ones).fold(), 0xffff);
        assert_eq!(Sum(u64::MAX).fold(), 0xffff);
        assert_eq!(Sum::new().fold(), 0);
    }

    proptest! {
        #[test]
        fn matches_the_naive_model(data in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0usize..2000, v: u16) {
            let want = naive(&data);
            prop_assert_eq!(Sum::new().bytes(&data).fold(), want);
            let cut = (cut % (data.len() + 1)) & !1;
            let (a, b) = data.split_at(cut);
            prop_assert_eq!(Sum::new().bytes(b).bytes(a).fold(), want, "order does not matter");
            let mut with = v.to_be_bytes().to_vec();
            with.extend(&data);
            prop_assert_eq!(Sum::new().bytes(&data).u16(v).fold(), naive(&with));
        }

        #[test]
        fn pseudo_headers_match_their_bytes(s: [u8; 16], d: [u8; 16], protocol: u8, len: u32) {
            let mut v6 = [s, d].concat();
            v6.extend(len.to_be_bytes());
            v6.extend([0, 0, 0, protocol]);
            prop_assert_eq!(Sum::new().pseudo_v6(s.into(), d.into(), protocol, len).fold(), naive(&v6));
            let (s, d): ([u8; 4], [u8; 4]) = (s[..4].try_into().unwrap(), d[..4].try_into().unwrap());
            let mut v4 = [s, d].concat();
            v4.extend([0, protocol]);
            v4.extend((len as u16).to_be_bytes());
            prop_assert_eq!(Sum::new().pseudo_v4(s.into(), d.into(), protocol, len as u16).fold(), naive(&v4));
        }
    }
}
