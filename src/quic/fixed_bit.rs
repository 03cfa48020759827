//! Greasing of the fixed bit (RFC 9287).

use crate::wire::quic::header::FIXED_BIT;

/// The values of the fixed bit in packets to send: 1, until the peer has said that it accepts any.
///
/// From then on, it is taken from random bits, those of 64 packets at a time, so that a packet costs no random number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedBit(u64);

impl Default for FixedBit {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

impl FixedBit {
    /// The bit in packet `pn`, at its place in the first byte.
    #[inline(always)]
    pub(crate) fn of(self, pn: u64) -> u8 {
        self.0.rotate_left(pn as u32) as u8 & FIXED_BIT
    }

    /// The peer accepts any value: they follow `random` from now on.
    pub(crate) fn grease(&mut self, random: u64) {
        self.0 = random;
    }

    /// Takes other `random` bits, if the peer accepts any value.
    pub(crate) fn renew(&mut self, random: u64) {
        if self.0 != u64::MAX {
            self.0 = random;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_is_one_until_it_is_greased_and_follows_the_random_bits() {
        let mut bit = FixedBit::default();
        bit.renew(7);
        assert!((0..1000).all(|pn| bit.of(pn) == FIXED_BIT));
        bit.grease(0x0123_4567_89ab_cdef);
        for pn in 0..1000u64 {
            assert_eq!(bit.of(pn) & !FIXED_BIT, 0);
            assert_eq!(bit.of(pn), bit.of(pn + 64));
        }
        assert_eq!((0..64).filter(|pn| bit.of(*pn) != 0).count(), 32);
        let before = bit.0;
        bit.renew(9);
        assert_ne!(bit.0, before);
    }
}
