//! Size classes: powers of two from 1 KiB to 1 GiB.

use super::AllocError;

pub(super) const MIN_SHIFT: u32 = 10;
pub(super) const MAX_SHIFT: u32 = 30;
/// Number of classes.
pub(super) const COUNT: usize = (MAX_SHIFT - MIN_SHIFT + 1) as usize;
/// Size of the regions that small classes are carved from, and the alignment of larger ones: one hugepage.
pub(super) const SLAB: usize = 2 << 20;

/// One size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// The smallest class that holds `len` bytes.
    pub(super) fn for_len(len: usize) -> Result<Self, AllocError> {
        match len {
            0 => Err(AllocError::Empty),
            1..=super::MAX_BUF => Ok(Self(len.next_power_of_two().trailing_zeros().saturating_sub(MIN_SHIFT) as u8)),
            _ => Err(AllocError::TooLarge { wanted: len, max: super::MAX_BUF }),
        }
    }

    /// All classes, smallest first.
    pub(super) fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..COUNT as u8).map(Self)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Size of the class's blocks in bytes.
    pub(super) fn size(self) -> usize {
        1 << (u32::from(self.0) + MIN_SHIFT)
    }

    /// Size in bytes of the regions that this class is carved from: a slab, or the block itself.
    pub(super) fn region_len(self) -> usize {
        self.size().max(SLAB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_class_that_fits() {
        let cases = [
            (1, 1024),
            (1023, 1024),
            (1025, 2048),
            (4096, 4096),
            (4097, 8192),
            (65536, 65536),
            ((1 << 29) + 1, 1 << 30),
        ];
        for (len, size) in cases {
            assert_eq!(Class::for_len(len).unwrap().size(), size, "{len}");
        }
        assert_eq!(Class::for_len(0), Err(AllocError::Empty));
        assert!(matches!(Class::for_len((1 << 30) + 1), Err(AllocError::TooLarge { .. })));
        assert_eq!(Class::all().count(), COUNT);
        assert_eq!(Class::all().next_back().unwrap().size(), super::super::MAX_BUF);
    }

    #[test]
    fn regions_hold_whole_blocks() {
        for class in Class::all() {
            assert_eq!(class.region_len() % class.size(), 0);
            assert_eq!(class.region_len() % SLAB, 0);
        }
    }
}
