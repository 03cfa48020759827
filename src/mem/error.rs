//! What can go wrong.

use std::fmt;

/// Why there is no buffer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// A buffer of 0 bytes was asked for.
    #[error("a buffer of 0 bytes was asked for; ask for at least 1")]
    Empty,
    /// More than the largest size class was asked for.
    #[error("a buffer of {wanted} bytes was asked for, the largest is {max} bytes; use several")]
    TooLarge {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes of the largest class.
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
        /// Bytes wanted, as a whole size class.
        wanted: usize,
    },
    /// Hugepages are required and there are none (left).
    #[error("no hugepages for {wanted} bytes; {remedy}")]
    NoHugepages {
        /// Bytes of the region that could not be mapped.
        wanted: usize,
        /// What an operator can do about it.
        remedy: String,
    },
    /// The system has no memory.
    #[error("the system has no memory for {wanted} bytes (errno {errno}); free some, or lower the pool's limit")]
    System {
        /// Bytes of the region that could not be mapped.
        wanted: usize,
        /// The system's error number.
        errno: i32,
    },
}

/// A mapping without a single byte was registered; holds the owner.
#[derive(thiserror::Error)]
#[error("the mapping to be registered is empty; give one of at least 1 byte")]
pub struct EmptyMapping<T>(
    /// The object that was to be registered.
    pub T,
);

impl<T> fmt::Debug for EmptyMapping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmptyMapping")
    }
}
