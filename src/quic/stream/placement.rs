//! Where a stream's bytes go: into buffers that the application provided, or into pooled chunks.
//!
//! Both answer one question, "which memory is stream range R?", so that a packet's bytes are
//! decrypted straight to where they stay.

use std::collections::VecDeque;
use std::ops::Range;

use crate::mem::{BufPool, PinnedBuf};

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
    ///
    /// # Panics
    /// If part of `range` was never provided: flow control is checked before.
    fn place(&mut self, range: Range<u64>, mut fill: impl FnMut(u64, &mut [u8])) {
        assert!(range.end <= self.end, "placement beyond what was provided");
        let first = self.bufs.partition_point(|(start, buf)| start + buf.len() as u64 <= range.start);
        let mut at = range.start;
        for (start, buf) in self.bufs.range_mut(first..) {
            if at >= range.end {
                break;
            }
            let from = (at - *start) as usize;
            let to = (range.end - *start).min(buf.len() as u64) as usize;
            fill(at, &mut buf[from..to]);
            at = *start + to as u64;
        }
    }
}

/// Chunks of the engine's pool, taken when the first byte for them arrives.
#[derive(Debug, Default)]
pub(crate) struct Pooled {
    /// Chunk `i` holds stream offsets `(base + i) * CHUNK ..`.
    chunks: VecDeque<Option<PinnedBuf>>,
    base: u64,
    /// Bytes of the first chunk that were lent out: its memory starts behind them.
    lent: usize,
}

impl Pooled {
    fn slot(&mut self, index: u64) -> &mut Option<PinnedBuf> {
        let i = (index - self.base) as usize;
        if self.chunks.len() <= i {
            self.chunks.resize_with(i + 1, || None);
        }
        &mut self.chunks[i]
    }

    /// Stream offset of the first byte of a chunk's memory.
    fn start_of(&self, index: u64) -> u64 {
        index * CHUNK as u64 + if index == self.base { self.lent as u64 } else { 0 }
    }

    /// Like [`Provided::place`]. False when the pool has no memory for it; nothing is placed then.
    fn place(&mut self, range: Range<u64>, pool: &BufPool, mut fill: impl FnMut(u64, &mut [u8])) -> bool {
        const SIZE: u64 = CHUNK as u64;
        for index in range.start / SIZE..=(range.end - 1) / SIZE {
            let slot = self.slot(index);
            if slot.is_none() {
                match pool.alloc(CHUNK) {
                    Ok(buf) => *slot = Some(buf),
                    Err(_) => return false,
                }
            }
        }
        let mut at = range.start;
        while at < range.end {
            let index = at / SIZE;
            let to = range.end.min((index + 1) * SIZE);
            let skip = self.start_of(index);
            let buf = self.slot(index).as_mut().expect("taken above");
            fill(at, &mut buf[(at - skip) as usize..(to - skip) as usize]);
            at = to;
        }
        true
    }

    /// Bytes `from..to`, as far as they lie in one chunk.
    pub(crate) fn peek(&self, from: u64, to: u64) -> &[u8] {
        let index = from / CHUNK as u64;
        let end = to.min((index + 1) * CHUNK as u64);
        let skip = self.start_of(index);
        match self.chunks.get((index - self.base) as usize) {
            Some(Some(buf)) if from < end => &buf[(from - skip) as usize..(end - skip) as usize],
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
        let skip = self.start_of(self.base);
        let slot = self.chunks.front_mut()?;
        let mut buf = slot.take()?;
        let (before, len) = ((from - skip) as usize, (end - skip) as usize);
        if len < buf.len() && !last {
            let (front, back) = buf.split(len);
            (buf, *slot) = (front, Some(back));
            self.lent += len;
        } else {
            buf.truncate(len);
            self.chunks.pop_front();
            self.base += 1;
            self.lent = 0;
        }
        Some((buf, before))
    }

    /// Gives chunks that lie wholly below `consumed` back to the pool.
    pub(crate) fn release_below(&mut self, consumed: u64) {
        while (self.base + 1) * CHUNK as u64 <= consumed {
            self.chunks.pop_front();
            self.base += 1;
            self.lent = 0;
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

impl Placement {
    /// Calls `fill(stream offset, memory)` for each piece of `range` in order.
    /// False when there is no memory for it.
    pub(crate) fn place(&mut self, range: Range<u64>, pool: &BufPool, fill: impl FnMut(u64, &mut [u8])) -> bool {
        if range.is_empty() {
            return true;
        }
        match self {
            Self::Provided(provided) => {
                provided.place(range, fill);
                true
            }
            Self::Pooled(pooled) => pooled.place(range, pool, fill),
            Self::Discard => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(p.place(start..start + 10, &pool, |at, memory| {
            for (i, b) in memory.iter_mut().enumerate() {
                *b = (at + i as u64 - start) as u8;
            }
        }));
        assert_eq!(p.peek(start, start + 10), [0, 1, 2]);
        assert_eq!(p.peek(start + 3, start + 10), [3, 4, 5, 6, 7, 8, 9]);
        p.release_below(start + 5);
        assert_eq!(p.peek(start + 5, start + 10), [5, 6, 7, 8, 9]);
    }
}
