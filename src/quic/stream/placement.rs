//! Where a stream's bytes go: into buffers that the application provided, or into pooled chunks.
//!
//! Both answer one question, "which memory is stream range R?", so that a packet's bytes are
//! decrypted straight to where they stay.

use std::collections::VecDeque;
use std::ops::Range;

use crate::mem::{BufPool, PinnedBuf, prefetch_write};
use crate::quic::stream::recv::NoMemory;

/// Size of the chunks that a pooled stream takes from the engine's pool, in bytes.
pub(crate) const CHUNK: usize = 64 << 10;

/// Application buffers in the order they were provided.
#[derive(Debug, Default)]
pub(crate) struct Provided {
    bufs: VecDeque<(u64, PinnedBuf)>,
    end: u64,
}

impl Provided {
    /// Adds a buffer behind the others.
    pub(crate) fn push(&mut self, buf: PinnedBuf) {
        let start = self.end;
        self.end += buf.len() as u64;
        self.bufs.push_back((start, buf));
    }

    /// Stream offset behind the last provided byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The first buffer, when all its bytes lie below `contiguous`.
    pub(crate) fn pop_filled(&mut self, contiguous: u64) -> Option<(u64, PinnedBuf)> {
        self.bufs.pop_front_if(|(start, buf)| *start + buf.len() as u64 <= contiguous)
    }

    /// What of the first buffer lies below `contiguous`.
    pub(crate) fn peek(&self, contiguous: u64) -> &[u8] {
        let Some((start, buf)) = self.bufs.front() else { return &[] };
        let n = contiguous.saturating_sub(*start).min(buf.len() as u64) as usize;
        &buf[..n]
    }

    /// The first buffer, whatever is in it.
    pub(crate) fn pop(&mut self) -> Option<(u64, PinnedBuf)> {
        self.bufs.pop_front()
    }

    /// Calls `fill(stream range, memory)` for each piece of memory that `range` covers, in order.
    fn place(&mut self, range: Range<u64>, mut fill: impl FnMut(u64, &mut [u8])) {
        let ends_below = |(start, buf): &(u64, PinnedBuf)| start + buf.len() as u64 <= range.start;
        // Most often it is the first one: those that are full are gone.
        let first = if self.bufs.front().is_some_and(ends_below) { self.bufs.partition_point(ends_below) } else { 0 };
        let mut at = range.start;
        for (start, buf) in self.bufs.range_mut(first..) {
            if at >= range.end {
                break;
            }
            let from = (at - *start) as usize;
            let to = (range.end - *start).min(buf.len() as u64) as usize;
            fill(at, &mut buf[from..to]);
            // What comes next most likely: as much again.
            let next = buf.len().min(to + (to - from));
            prefetch_write(&mut buf[to..next]);
            at = *start + to as u64;
        }
    }
}

/// Chunks of the engine's pool, taken when the first byte for them arrives.
///
/// Chunks are taken in order: whoever holds bytes behind a gap has the memory for the gap as well. So streams that
/// share an empty pool cannot wait for each other with all its memory behind gaps.
#[derive(Debug, Default)]
pub(crate) struct Pooled {
    /// Chunk `i` holds stream offsets `(base + i) * CHUNK ..`, the first one perhaps without those that were
    /// lent out. Each with the offset that its memory starts at.
    chunks: VecDeque<(u64, PinnedBuf)>,
    base: u64,
}

impl Pooled {
    /// Takes memory for everything below `end`; or for nothing more, when the pool has not enough.
    fn reserve(&mut self, end: u64, pool: &BufPool) -> Result<(), NoMemory> {
        let have = self.chunks.len();
        loop {
            let start = (self.base + self.chunks.len() as u64) * CHUNK as u64;
            if start >= end {
                return Ok(());
            }
            let Ok(buf) = pool.alloc(CHUNK) else {
                self.chunks.truncate(have);
                return Err(NoMemory);
            };
            self.chunks.push_back((start, buf));
        }
    }

    /// Like [`Provided::place`].
    fn place(&mut self, range: Range<u64>, mut fill: impl FnMut(u64, &mut [u8])) {
        const SIZE: u64 = CHUNK as u64;
        let mut at = range.start;
        while at < range.end {
            let index = at / SIZE;
            let to = range.end.min((index + 1) * SIZE);
            let Some((start, buf)) = self.chunks.get_mut((index - self.base) as usize) else { return };
            fill(at, &mut buf[(at - *start) as usize..(to - *start) as usize]);
            at = to;
        }
    }

    /// Bytes `from..to`, as far as they lie in one chunk.
    pub(crate) fn peek(&self, from: u64, to: u64) -> &[u8] {
        let index = from / CHUNK as u64;
        let end = to.min((index + 1) * CHUNK as u64);
        match self.chunks.get((index - self.base) as usize) {
            Some((start, buf)) if from < end => &buf[(from - start) as usize..(end - start) as usize],
            _ => &[],
        }
    }

    /// Moves bytes `from..to` out, as far as they lie in one chunk: memory that ends with them, and how many
    /// bytes it has before them. Everything below `from` is released, and with `last` all that is behind, too;
    /// otherwise, the rest of a chunk that is not full stays for later bytes.
    pub(crate) fn take(&mut self, from: u64, to: u64, last: bool) -> Option<(PinnedBuf, usize)> {
        self.release_below(from);
        let end = to.min((self.base + 1) * CHUNK as u64);
        if from >= end {
            return None;
        }
        let (start, mut buf) = self.chunks.pop_front()?;
        let (before, len) = ((from - start) as usize, (end - start) as usize);
        if len < buf.len() && !last {
            let (front, back) = buf.split(len);
            buf = front;
            self.chunks.push_front((end, back));
        } else {
            buf.truncate(len);
            self.base += 1;
        }
        Some((buf, before))
    }

    /// Gives chunks that lie wholly below `consumed` back to the pool.
    pub(crate) fn release_below(&mut self, consumed: u64) {
        while (self.base + 1) * CHUNK as u64 <= consumed {
            self.chunks.pop_front();
            self.base += 1;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
    }
}

/// Which of the two a stream uses; it never changes once data has arrived.
#[derive(Debug)]
pub(crate) enum Placement {
    /// The application's buffers.
    Provided(Provided),
    /// The engine's chunks.
    Pooled(Pooled),
    /// The application does not want the data any more (STOP_SENDING or RESET_STREAM).
    Discard,
}

impl Default for Placement {
    fn default() -> Self {
        Self::Pooled(Pooled::default())
    }
}

impl Placement {
    /// Starts anew as the chunks of another stream; the list of buffers keeps its memory.
    pub(crate) fn renew(&mut self) {
        if let Self::Provided(provided) = self {
            *self = Self::Pooled(Pooled { chunks: std::mem::take(&mut provided.bufs), base: 0 });
        }
        match self {
            Self::Pooled(pooled) => {
                pooled.chunks.clear();
                pooled.base = 0;
            }
            _ => *self = Self::default(),
        }
    }

    /// Turns chunks, none of which holds anything yet, into a place for the application's buffers.
    pub(crate) fn make_provided(&mut self) {
        self.renew();
        if let Self::Pooled(pooled) = self {
            *self = Self::Provided(Provided { bufs: std::mem::take(&mut pooled.chunks), end: 0 });
        }
    }

    /// As if buffers of `end` bytes had been provided and had all come back.
    #[cfg(test)]
    pub(crate) fn provided_up_to(end: u64) -> Self {
        Self::Provided(Provided { bufs: VecDeque::new(), end })
    }

    /// Makes sure that there is memory for all bytes below `end`.
    pub(crate) fn reserve(&mut self, end: u64, pool: &BufPool) -> Result<(), NoMemory> {
        match self {
            Self::Provided(provided) if end > provided.end => Err(NoMemory),
            Self::Pooled(pooled) => pooled.reserve(end, pool),
            Self::Provided(_) | Self::Discard => Ok(()),
        }
    }

    /// Calls `fill(stream offset, memory)` for each piece of `range` in order. Its memory was reserved before.
    pub(crate) fn place(&mut self, range: Range<u64>, fill: impl FnMut(u64, &mut [u8])) {
        match self {
            Self::Provided(provided) => provided.place(range, fill),
            Self::Pooled(pooled) => pooled.place(range, fill),
            Self::Discard => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Hugepages, PoolConfig};

    #[test]
    fn provided_splits_a_range_across_buffers() {
        let mut p = Provided::default();
        for n in [4, 1, 8] {
            p.push(PinnedBuf::unpinned(n));
        }
        let mut pieces = Vec::new();
        p.place(2..9, |at, memory| {
            memory.fill(at as u8);
            pieces.push((at, memory.len()));
        });
        assert_eq!(pieces, [(2, 2), (4, 1), (5, 4)]);
        assert!(p.pop_filled(3).is_none());
        let (start, buf) = p.pop_filled(5).unwrap();
        assert_eq!((start, &buf[..]), (0, &[0, 0, 2, 2][..]));
        assert_eq!(p.pop_filled(5).unwrap().0, 4);
        assert!(p.pop_filled(5).is_none());
        let (start, buf) = p.pop().unwrap();
        assert_eq!((start, &buf[..]), (5, &[5, 5, 5, 5, 0, 0, 0, 0][..]));
    }

    #[test]
    fn pooled_reads_back_across_chunks_and_releases() {
        let pool = BufPool::heap();
        let mut p = Pooled::default();
        let start = CHUNK as u64 - 3;
        p.reserve(start + 10, &pool).unwrap();
        p.place(start..start + 10, |at, memory| {
            for (i, b) in memory.iter_mut().enumerate() {
                *b = (at + i as u64 - start) as u8;
            }
        });
        assert_eq!(p.peek(start, start + 10), [0, 1, 2]);
        assert_eq!(p.peek(start + 3, start + 10), [3, 4, 5, 6, 7, 8, 9]);
        p.release_below(start + 5);
        assert_eq!(p.peek(start + 5, start + 10), [5, 6, 7, 8, 9]);
    }
    #[test]
    fn who_holds_bytes_behind_a_gap_has_memory_for_the_gap() {
        const SIZE: u64 = CHUNK as u64;
        let pool = BufPool::new(PoolConfig { limit_bytes: 3 * CHUNK, hugepages: Hugepages::Never, numa_node: None });
        let pool = pool.unwrap();
        let (mut a, mut b) = (Pooled::default(), Pooled::default());
        a.reserve(SIZE + 1, &pool).unwrap();
        assert_eq!(pool.stats().in_use, 2 * CHUNK);
        assert_eq!(b.reserve(SIZE + 1, &pool), Err(NoMemory));
        assert_eq!(pool.stats().in_use, 2 * CHUNK, "what is not enough is not kept");
        b.reserve(1, &pool).unwrap();
        a.reserve(2 * SIZE, &pool).unwrap();
        let (front, _) = a.take(0, SIZE + 1, false).unwrap();
        assert_eq!(b.reserve(SIZE + 1, &pool), Err(NoMemory));
        drop(front);
        b.reserve(SIZE + 1, &pool).unwrap();
    }
}
