//! Kinds of pages, requested and actual.

/// Whether regions are made of hugepages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hugepages {
    /// Use hugepages if the system has free ones; otherwise ordinary locked pages, with one warning per process.
    #[default]
    Auto,
    /// Use ordinary locked pages.
    Never,
    /// Use hugepages only; fail if there are none.
    Require,
}

/// The kind of pages of a memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backing {
    /// Hugepages of 1 GiB.
    Huge1G,
    /// Hugepages of 2 MiB.
    Huge2M,
    /// Ordinary pages, locked in RAM.
    Locked,
    /// Ordinary pages that the system may move or swap out.
    Unlocked,
}

impl Backing {
    /// All kinds, in the order of their discriminants.
    pub(super) const ALL: [Self; 4] = [Self::Huge1G, Self::Huge2M, Self::Locked, Self::Unlocked];
}
