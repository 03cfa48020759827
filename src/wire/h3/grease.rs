//! Numbers that mean nothing, so that peers keep ignoring unknown ones.

/// The largest of the numbers that are reserved to exercise unknown ones, counted from 0: `0x1f * N + 0x21` has to fit
/// 62 bits (RFC 9114 §7.2.8).
const MAX_RESERVED: u64 = (((1 << 62) - 1) - 0x21) / 0x1f;

/// The reserved frame type, stream type, setting, error code or capsule type that `random` selects
/// (RFC 9114 §6.2.3, §7.2.4.1, §7.2.8, §8.1; for capsules see [`reserved`](super::capsule::reserved)).
pub const fn reserved(random: u64) -> u64 {
    0x1f * (random % (MAX_RESERVED + 1)) + 0x21
}

/// Whether `number` is one of those that [`reserved`] selects from.
pub const fn is_reserved(number: u64) -> bool {
    number >= 0x21 && (number - 0x21).is_multiple_of(0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::quic::varint;

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
