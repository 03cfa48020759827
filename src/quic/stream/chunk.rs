//! Data of a pooled stream that is lent to the application.

use std::fmt;
use std::ops::{Deref, Range};

use crate::mem::PinnedBuf;

/// The next bytes of a pooled stream, lent to the application without a copy.
///
/// It dereferences to the bytes where they were decrypted. It may be sent to other threads and kept beyond the life of
/// its connection and core; dropping it on any thread returns the memory to the core's pool. A chunk has 1 to 64 KiB,
/// all of which is held even if only a part of it is used. The memory is charged to the connection, which can receive
/// less until the chunk is dropped.
pub struct Chunk {
    buf: PinnedBuf,
    /// Number of bytes at the front of `buf` that were consumed before.
    skip: usize,
    offset: u64,
    fin: bool,
}

impl Chunk {
    /// The bytes of `buf` after the first `skip`, which start at `offset` of the stream.
    pub(crate) fn new(buf: PinnedBuf, skip: usize, offset: u64, fin: bool) -> Self {
        debug_assert!(skip <= buf.len());
        Self { buf, skip, offset, fin }
    }

    /// Offset of the first byte in its stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Range of the bytes in their stream.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len() as u64
    }

    /// Whether the stream ends after these bytes. This is true for exactly one chunk of a stream that ends normally;
    /// that chunk may be empty.
    pub fn is_last(&self) -> bool {
        self.fin
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[self.skip..]
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.fin { ", the last" } else { "" };
        write!(f, "Chunk({:?}{end})", self.range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_was_not_consumed_before() {
        fn sendable<T: Send + Sync + 'static>(_: &T) {}
        let mut buf = PinnedBuf::unpinned(4);
        buf.copy_from_slice(b"abcd");
        let chunk = Chunk::new(buf, 1, 101, true);
        sendable(&chunk);
        assert_eq!((&chunk[..], chunk.offset(), chunk.range(), chunk.is_last()), (&b"bcd"[..], 101, 101..104, true));
        assert_eq!(format!("{chunk:?}"), "Chunk(101..104, the last)");
    }
}
