//! Numbers that mean nothing, so that peers keep ignoring unknown ones.

use crate::wire::quic::varint;

/// The number of the form `step * N + first` that `random` selects. All of them that have an encoding are used.
pub(super) const fn select(random: u64, step: u64, first: u64) -> u64 {
    step * (random % ((varint::MAX - first) / step + 1)) + first
}

/// The reserved frame type, stream type, setting, error code or capsule type that `random` selects
/// (RFC 9114 §6.2.3, §7.2.4.1, §7.2.8, §8.1; for capsules see [`reserved`](super::capsule::reserved)).
pub const fn reserved(random: u64) -> u64 {
    select(random, 0x1f, 0x21)
}

/// Whether `number` is one of those that [`reserved`] selects from.
pub const fn is_reserved(number: u64) -> bool {
    number >= 0x21 && (number - 0x21).is_multiple_of(0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest N: `0x1f * N + 0x21` has to fit 62 bits (RFC 9114 §7.2.8).
    const MAX_RESERVED: u64 = (((1 << 62) - 1) - 0x21) / 0x1f;

    #[test]
    fn reserved_numbers_have_an_encoding() {
        assert_eq!((reserved(0), reserved(1), reserved(2)), (0x21, 0x40, 0x5f));
        for random in [MAX_RESERVED - 1, MAX_RESERVED, MAX_RESERVED + 1, u64::MAX] {
            assert!(reserved(random) <= varint::MAX && is_reserved(reserved(random)));
        }
        assert!(reserved(MAX_RESERVED) + 0x1f > varint::MAX, "all of them are used");
        assert!([0, 1, 0x20, 0x22, 0x41].iter().all(|n| !is_reserved(*n)));
    }
}
