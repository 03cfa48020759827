//! Errors of memory allocation.

use std::fmt;

/// Why a buffer could not be allocated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// A buffer of 0 bytes was requested.
    #[error("a buffer of 0 bytes was requested; request at least 1")]
    Empty,
    /// A buffer larger than the largest size class was requested.
    #[error("a buffer of {wanted} bytes was requested, but the maximum is {max} bytes; use several")]
    TooLarge {
        /// Bytes requested.
        wanted: usize,
        /// Size of the largest class in bytes.
        max: usize,
    },
    /// The pool's limit is reached.
    #[error(
        "buffer pool exhausted: {wanted} bytes wanted, {in_use} bytes in use, the limit is {limit}; drop buffers that are no longer needed or raise the pool's limit"
    )]
    Exhausted {
        /// The pool's limit in bytes.
        limit: usize,
        /// Bytes in use, counted in whole size classes.
        in_use: usize,
        /// Bytes requested, rounded up to a size class.
        wanted: usize,
    },
    /// Hugepages are required, but none (or no more) are available.
    #[error("no hugepages for {wanted} bytes; {remedy}")]
    NoHugepages {
        /// Size of the region that could not be mapped, in bytes.
        wanted: usize,
        /// What the operator can do about it.
        remedy: String,
    },
    /// The system is out of memory.
    #[error("the system cannot provide {wanted} bytes of memory (errno {errno}); free some or lower the pool's limit")]
    System {
        /// Size of the region that could not be mapped, in bytes.
        wanted: usize,
        /// The system's error number.
        errno: i32,
    },
}

/// An empty mapping was registered. Contains its owner.
#[derive(thiserror::Error)]
#[error("the registered mapping is empty; it must have at least 1 byte")]
pub struct EmptyMapping<T>(
    /// The registered object.
    pub T,
);

impl<T> fmt::Debug for EmptyMapping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmptyMapping")
    }
}
