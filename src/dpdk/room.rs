//! The sizes of mempool caches and of rings between cores, which determine how many of a core's buffers others can
//! hold.

/// The number of objects that a registered thread caches, per mempool.
pub(super) const CACHE: u32 = 256;

/// The number of objects at which DPDK flushes such a cache.
pub(super) const CACHE_LIMIT: u32 = CACHE * 3 / 2;

/// The maximum number of cores in a group: a word has one bit for each.
pub const MAX_CORES: u8 = 64;

/// The maximum number of frames in one ring, and in all rings that one core fills. Whatever other cores do, they keep
/// no more than this many of a core's buffers.
const RING: u32 = 512;
const ALL_RINGS: u32 = 4096;

/// The number of slots of the ring from one of `cores` cores to another. It holds one frame fewer.
pub(super) const fn slots(cores: u8) -> u32 {
    let others = if cores > 1 { cores as u32 - 1 } else { 1 };
    let share = ALL_RINGS / others;
    // Rounded down, as the size of a ring must be a power of two.
    let power = 1 << share.ilog2();
    if power < RING { power } else { RING }
}

/// The maximum number of frames that wait in all rings from one of `cores` cores to the others.
pub(super) const fn in_flight(cores: u16) -> u32 {
    if cores < 2 {
        return 0;
    }
    let cores = if cores > MAX_CORES as u16 { MAX_CORES } else { cores as u8 };
    (cores as u32 - 1) * slots(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_core_can_have_in_its_rings_is_bounded() {
        for cores in 2..=MAX_CORES {
            let slots = slots(cores);
            assert!(slots.is_power_of_two() && (64..=RING).contains(&slots), "{cores}");
            assert!(in_flight(cores.into()) <= ALL_RINGS);
        }
        assert_eq!((slots(2), slots(9), slots(10), slots(64)), (512, 512, 256, 64));
        assert_eq!((in_flight(0), in_flight(1), in_flight(4), in_flight(1000)), (0, 0, 3 * 512, 63 * 64));
    }
}
