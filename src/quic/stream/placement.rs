//! The destination of a stream's data: buffers provided by the application, or pooled chunks.
//!
//! Both map a range of the stream to memory, so that a packet's data is decrypted directly to its final place.

use std::collections::VecDeque;
use std::ops::Range;

use smallvec::SmallVec;

use crate::base::range_set::RangeSet;
use crate::mem::{PinnedBuf, prefetch_write};
use crate::quic::memory::{Lender, MIN_CHUNK, NoMemory, Want};

/// Maximum size of a pooled stream's chunks, in bytes.
pub(crate) const CHUNK: u64 = 64 << 10;

/// Maximum number of chunks that are moved to insert another one between them. It is exceeded only by streams in more
/// than twice as many stretches, whose new data then has to be retransmitted.
const MAX_MOVED: usize = 1024;

/// For each so many chunks beyond a gap,
const CROWD: usize = 16;

/// further ones have so many bytes more, up to [`CHUNK`].
const CROWD_CHUNK: u64 = CHUNK / 4;

/// Number of bytes accepted beyond the last provided one.
///
/// A peer whose data ends exactly there still has credit. Some implementations ask their application for more data, and
/// thus learn of the end, only while they have credit. Buffers of exactly the right size therefore cause no stall. If
/// there is more data, its first byte is held until a buffer is provided for it.
pub(crate) const AHEAD: u64 = 1;

/// Application buffers in the order in which they were provided.
#[derive(Debug, Default)]
pub(crate) struct Provided {
    bufs: VecDeque<(u64, PinnedBuf)>,
    end: u64,
    /// The byte at `end`, if received, held for the next buffer.
    ahead: Option<u8>,
}

impl Provided {
    /// Appends a buffer.
    pub(crate) fn push(&mut self, mut buf: PinnedBuf) {
        let start = self.end;
        self.end += buf.len() as u64;
        if let Some(first) = buf.first_mut()
            && let Some(byte) = self.ahead.take()
        {
            *first = byte;
        }
        self.bufs.push_back((start, buf));
    }

    /// Stream offset after the last provided byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether the byte after the last provided one was received.
    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Takes the first buffer, if all its bytes lie below `contiguous`.
    pub(crate) fn pop_filled(&mut self, contiguous: u64) -> Option<(u64, PinnedBuf)> {
        self.bufs.pop_front_if(|(start, buf)| *start + buf.len() as u64 <= contiguous)
    }

    /// The part of the first buffer below `contiguous`.
    pub(crate) fn peek(&self, contiguous: u64) -> &[u8] {
        let Some((start, buf)) = self.bufs.front() else { return &[] };
        let n = contiguous.saturating_sub(*start).min(buf.len() as u64) as usize;
        &buf[..n]
    }

    /// Takes the first buffer in any case.
    pub(crate) fn pop(&mut self) -> Option<(u64, PinnedBuf)> {
        self.bufs.pop_front()
    }

    /// Index of the first buffer that ends beyond `at`.
    #[inline]
    fn first_beyond(&self, at: u64) -> usize {
        let ends_below = |(start, buf): &(u64, PinnedBuf)| start + buf.len() as u64 <= at;
        // Usually it is the first one, as full ones are removed.
        if self.bufs.front().is_some_and(ends_below) { self.bufs.partition_point(ends_below) } else { 0 }
    }

    /// The memory at `at`, up to the end of its buffer.
    fn memory_at(&mut self, at: u64) -> Option<&mut [u8]> {
        let first = self.first_beyond(at);
        let (start, buf) = self.bufs.get_mut(first)?;
        buf.get_mut(usize::try_from(at.checked_sub(*start)?).ok()?..)
    }

    /// Calls `fill(stream range, memory)` for each piece of memory that `range` covers, in order. This includes the
    /// byte after the last provided one.
    fn place(&mut self, range: Range<u64>, mut fill: impl FnMut(u64, &mut [u8])) {
        let first = self.first_beyond(range.start);
        let mut at = range.start;
        for (start, buf) in self.bufs.range_mut(first..) {
            if at >= range.end {
                break;
            }
            let from = (at - *start) as usize;
            let to = (range.end - *start).min(buf.len() as u64) as usize;
            fill(at, &mut buf[from..to]);
            // Most likely, the same amount follows.
            let next = buf.len().min(to + (to - from));
            prefetch_write(&mut buf[to..next]);
            at = *start + to as u64;
        }
        if range.end > self.end {
            let mut byte = [0];
            fill(self.end, &mut byte);
            self.ahead = Some(byte[0]);
        }
    }
}

/// Chunks of the engine's pool, taken when data arrives and returned when it was read.
///
/// # Memory is proportional to what arrives
/// Bytes beyond a gap get chunks of their own; the gap takes no memory. A chunk is never much larger than the
/// contiguous data before it: the first chunk of a stream has what the packet needs, at least [`MIN_CHUNK`], and each
/// further one as much as there is already, up to [`CHUNK`]. The chunks of a stream thus exceed its data by at most a
/// factor of two, plus [`MIN_CHUNK`] for each stretch. A stream that was read completely holds nothing; its next chunk
/// is as large as the data received since it last held nothing.
///
/// The lender of the memory ([`crate::quic::memory`]) prevents deadlocks of streams that hold data beyond gaps: it
/// reserves some memory for the next bytes in order.
#[derive(Debug, Default)]
pub(crate) struct Pooled {
    /// Consecutive chunks, each with the offset at which its memory starts. The first one contains the first byte not
    /// consumed, or lies after it.
    run: VecDeque<(u64, PinnedBuf)>,
    /// End of the run, or where it will begin if it is empty.
    end: u64,
    /// Chunks after a gap in the memory, by the offset at which their memory starts.
    far: VecDeque<(u64, PinnedBuf)>,
    /// Where the run began when it was last empty.
    base: u64,
    /// Number of bytes received between the last two times that it was empty.
    burst: u64,
}

impl Pooled {
    /// Takes memory for the part of `range` that has none, or no memory at all if not all can be had. `contiguous` is
    /// the end of the data received in order, `received` all ranges received.
    fn reserve(
        &mut self,
        range: &Range<u64>,
        contiguous: u64,
        received: &RangeSet,
        lender: impl Lender,
    ) -> Result<(), NoMemory> {
        // The run contains what is not consumed yet, so this covers most packets.
        if range.end <= self.end {
            return Ok(());
        }
        if range.start <= contiguous {
            self.reserve_next(range, contiguous, lender)
        } else {
            self.reserve_far(range, received, lender)
        }
    }

    /// Extends the run to the end of `range`, which has the next bytes in order, or as far as possible.
    fn reserve_next(&mut self, range: &Range<u64>, contiguous: u64, mut lender: impl Lender) -> Result<(), NoMemory> {
        while self.end < range.end {
            let room = self.far.front().map_or(u64::MAX, |(start, _)| start - self.end);
            let need = (range.end - self.end).min(room);
            let most = chunk_len(need.max(self.burst).max(contiguous - self.base)).min(room);
            let least = need.min(MIN_CHUNK);
            let want = Want { least: least as usize, most: most as usize, in_order: true };
            let buf = match lender.lend(want) {
                Err(NoMemory) => lender.lend_spare(want.least)?,
                lent => lent?,
            };
            let start = self.end;
            self.end += buf.len() as u64;
            self.run.push_back((start, buf));
            self.join();
        }
        Ok(())
    }

    /// Takes memory for the part of `range`, which lies after a gap, that has none.
    fn reserve_far(
        &mut self,
        range: &Range<u64>,
        received: &RangeSet,
        mut lender: impl Lender,
    ) -> Result<(), NoMemory> {
        let mut new = SmallVec::<[u64; 4]>::new();
        let mut at = range.start.max(self.end);
        let mut place = self.far.partition_point(|(start, _)| *start <= at);
        while at < range.end {
            let before = place.checked_sub(1).and_then(|before| self.far.get(before));
            if let Some((start, buf)) = before.filter(|(start, buf)| at < start + buf.len() as u64) {
                at = start + buf.len() as u64;
                continue;
            }
            let room = self.far.get(place).map_or(u64::MAX, |(start, _)| start - at);
            if room > 0 {
                let need = (range.end - at).min(room);
                let stretch = received.last().filter(|last| last.end == at).map_or(0, |last| last.end - last.start);
                // On a path that loses packets all the time, stretches never get long, but there are many of them. If each
                // began with small chunks, there would soon be too many to insert those for the gaps.
                let crowd = (self.far.len() / CROWD) as u64 * CROWD_CHUNK;
                let most = chunk_len(need.max(stretch).max(crowd)).min(room);
                let want = Want { least: need.min(most) as usize, most: most as usize, in_order: false };
                let movable = place.min(self.far.len() - place) <= MAX_MOVED;
                let Some(buf) = movable.then(|| lender.lend(want).ok()).flatten() else {
                    // Chunks that hold nothing are returned.
                    self.far.retain(|(start, _)| !new.contains(start));
                    return Err(NoMemory);
                };
                new.push(at);
                self.far.insert(place, (at, buf));
            }
            place += 1;
        }
        self.join();
        Ok(())
    }

    /// Appends chunks to the run that it has reached.
    fn join(&mut self) {
        while let Some((start, buf)) = self.far.pop_front_if(|(start, _)| *start == self.end) {
            self.end += buf.len() as u64;
            self.run.push_back((start, buf));
        }
    }

    /// The memory at `at`, up to the end of its chunk, if that is the last one of the run.
    fn memory_at(&mut self, at: u64) -> Option<&mut [u8]> {
        let (start, buf) = self.run.back_mut().filter(|(start, _)| *start <= at && at < self.end)?;
        buf.get_mut((at - *start) as usize..)
    }

    /// Like [`Provided::place`].
    fn place(&mut self, range: Range<u64>, mut fill: impl FnMut(u64, &mut [u8])) {
        let mut at = range.start;
        let mut piece = |start: u64, buf: &mut PinnedBuf| {
            if at < range.end {
                let to = range.end.min(start + buf.len() as u64);
                fill(at, &mut buf[(at - start) as usize..(to - start) as usize]);
                at = to;
            }
        };
        if range.start < self.end {
            // Usually it is the last one.
            let last = self.run.len().saturating_sub(1);
            let first = match self.run.back() {
                Some((start, _)) if *start <= range.start => last,
                _ => self.run.partition_point(|(start, buf)| start + buf.len() as u64 <= range.start),
            };
            self.run.range_mut(first..).for_each(|(start, buf)| piece(*start, buf));
        }
        if range.end > self.end {
            let first = self.far.partition_point(|(start, buf)| start + buf.len() as u64 <= range.start);
            let pieces = self.far.range_mut(first..).take_while(|(start, _)| *start < range.end);
            pieces.for_each(|(start, buf)| piece(*start, buf));
        }
    }

    /// Bytes `from..to`, as far as they lie in one chunk.
    pub(crate) fn peek(&self, from: u64, to: u64) -> &[u8] {
        let Some((start, buf)) = self.run.front() else { return &[] };
        let end = to.min(start + buf.len() as u64);
        if from < end { &buf[(from - start) as usize..(end - start) as usize] } else { &[] }
    }

    /// Takes bytes `from..to`, as far as they lie in one chunk: returns memory that ends with them, and the number of
    /// bytes before them. Everything below `from` is released and, if `last`, everything after them too; otherwise the
    /// rest of a chunk that is not full is kept for later bytes.
    pub(crate) fn take(&mut self, from: u64, to: u64, last: bool) -> Option<(PinnedBuf, usize)> {
        self.release_below(from);
        let (start, buf) = self.run.front()?;
        let end = to.min(start + buf.len() as u64);
        if from >= end {
            return None;
        }
        let (start, mut buf) = self.run.pop_front()?;
        let (before, len) = ((from - start) as usize, (end - start) as usize);
        if len < buf.len() && !last {
            let (front, back) = buf.split(len);
            buf = front;
            self.run.push_front((end, back));
        } else {
            buf.truncate(len);
        }
        Some((buf, before))
    }

    /// Returns chunks that lie completely below `consumed` to the pool.
    pub(crate) fn release_below(&mut self, consumed: u64) {
        while self.run.pop_front_if(|(start, buf)| *start + buf.len() as u64 <= consumed).is_some() {}
    }

    /// Returns all memory: all received bytes, up to `consumed`, were read.
    pub(crate) fn rest(&mut self, consumed: u64) {
        self.run.clear();
        self.far.clear();
        self.burst = consumed - self.base;
        (self.base, self.end) = (consumed, consumed);
    }

    pub(crate) fn clear(&mut self) {
        self.run.clear();
        self.far.clear();
    }

    /// Number of bytes of memory held, without lent chunks.
    pub(crate) fn held(&self) -> usize {
        self.run.iter().chain(&self.far).map(|(_, buf)| buf.capacity()).sum()
    }
}

/// Size of a chunk for a stretch of `len` bytes, or for as many bytes as there are already.
fn chunk_len(len: u64) -> u64 {
    len.clamp(MIN_CHUNK, CHUNK).next_power_of_two()
}

/// Where a stream's data goes; the kind never changes once data has arrived.
#[derive(Debug)]
pub(crate) enum Placement {
    /// The application's buffers.
    Provided(Provided),
    /// The engine's chunks.
    Pooled(Pooled),
    /// Nowhere: the application no longer wants the data (STOP_SENDING or RESET_STREAM).
    Discard,
}

impl Default for Placement {
    fn default() -> Self {
        Self::Pooled(Pooled::default())
    }
}

impl Placement {
    /// Resets to empty chunks for another stream; the lists keep their memory.
    pub(crate) fn renew(&mut self) {
        let (mut run, mut far) = match self {
            Self::Pooled(pooled) => (std::mem::take(&mut pooled.run), std::mem::take(&mut pooled.far)),
            Self::Provided(provided) => (std::mem::take(&mut provided.bufs), VecDeque::new()),
            Self::Discard => <(VecDeque<_>, VecDeque<_>)>::default(),
        };
        run.clear();
        far.clear();
        *self = Self::Pooled(Pooled { run, far, ..Pooled::default() });
    }

    /// Turns empty chunks into a place for the application's buffers.
    pub(crate) fn make_provided(&mut self) {
        self.renew();
        if let Self::Pooled(pooled) = self {
            *self = Self::Provided(Provided { bufs: std::mem::take(&mut pooled.run), end: 0, ahead: None });
        }
    }

    /// As if buffers of `end` bytes had been provided and returned.
    #[cfg(test)]
    pub(crate) fn provided_up_to(end: u64) -> Self {
        Self::Provided(Provided { bufs: VecDeque::new(), end, ahead: None })
    }

    /// Ensures that there is memory for `range`. `contiguous` is the end of the data received in order, `received` all
    /// ranges received.
    #[inline(always)]
    pub(crate) fn reserve(
        &mut self,
        range: &Range<u64>,
        contiguous: u64,
        received: &RangeSet,
        lender: impl Lender,
    ) -> Result<(), NoMemory> {
        match self {
            Self::Provided(provided) if range.end > provided.end + AHEAD => Err(NoMemory),
            Self::Pooled(pooled) => pooled.reserve(range, contiguous, received, lender),
            Self::Provided(_) | Self::Discard => Ok(()),
        }
    }

    /// Where the memory for the next bytes in order ends, if not all of `range` could be reserved.
    pub(crate) fn end_in_order(&self, range: &Range<u64>, contiguous: u64) -> u64 {
        match self {
            Self::Pooled(pooled) if range.start <= contiguous => pooled.end.clamp(range.start, range.end),
            _ => range.start,
        }
    }

    /// Memory from offset `at` on that need not be reserved.
    pub(crate) fn memory_at(&mut self, at: u64) -> Option<&mut [u8]> {
        match self {
            Self::Provided(provided) => provided.memory_at(at),
            Self::Pooled(pooled) => pooled.memory_at(at),
            Self::Discard => None,
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
    use crate::mem::{BufPool, Hugepages, PoolConfig};

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

    /// Reserves and fills `range`, each byte with the low bits of its offset.
    fn put(p: &mut Pooled, range: Range<u64>, received: &mut RangeSet, pool: &BufPool) -> Result<(), NoMemory> {
        let contiguous = received.first().filter(|first| first.start == 0).map_or(0, |first| first.end);
        p.reserve(&range, contiguous, received, pool)?;
        let mut next = range.start;
        p.place(range.clone(), |at, memory| {
            assert_eq!(at, next);
            next += memory.len() as u64;
            memory.iter_mut().zip(at..).for_each(|(b, at)| *b = at as u8);
        });
        assert_eq!(next, range.end);
        received.insert(range);
        Ok(())
    }

    /// 2 % of the packets are lost, and the first of them again and again: 100 MB arrive before it. Until 2026-11, there
    /// were so many small chunks beyond the gap after 20 MB that there was no more memory for the other gaps.
    #[test]
    fn many_gaps_take_few_chunks() {
        const PACKET: u64 = 1441;
        let (pool, mut p, mut received) = (BufPool::heap(), Pooled::default(), RangeSet::default());
        let packet = |i: u64| i * PACKET..(i + 1) * PACKET;
        let is_lost = |i: &u64| i % 50 == 3;
        for i in (0..70_000).filter(|i| !is_lost(i)) {
            put(&mut p, packet(i), &mut received, &pool).unwrap();
        }
        assert!(p.far.len() < 70_000 * PACKET as usize / CHUNK as usize + 100, "{} chunks", p.far.len());
        // In any order.
        for i in (0..70_000).filter(is_lost).skip(1).step_by(2).chain((0..70_000).filter(is_lost).step_by(2)) {
            put(&mut p, packet(i), &mut received, &pool).unwrap();
        }
        assert_eq!((received.len(), p.far.len()), (1, 0));
    }

    #[test]
    fn the_byte_behind_the_last_buffer_waits_for_the_next_one() {
        let mut p = Provided::default();
        p.push(PinnedBuf::unpinned(4));
        for range in [2..5, 0..2] {
            p.place(range, |at, memory| memory.fill(at as u8 + 1));
        }
        assert!(p.is_ahead() && p.end() == 4);
        p.push(PinnedBuf::unpinned(2));
        assert!(!p.is_ahead());
        assert_eq!(p.pop().unwrap().1[..], [1, 1, 3, 3]);
        assert_eq!(p.pop().unwrap().1[..], [5, 0]);
        // The byte ahead may arrive alone.
        p.place(6..7, |_, memory| memory.fill(9));
        p.push(PinnedBuf::unpinned(1));
        assert_eq!(p.pop().unwrap().1[..], [9]);
    }

    #[test]
    fn pooled_reads_back_across_chunks_and_releases() {
        let (pool, mut p, mut received) = (BufPool::heap(), Pooled::default(), RangeSet::default());
        for at in (0..200_000).step_by(1000) {
            put(&mut p, at..at + 1000, &mut received, &pool).unwrap();
        }
        let mut at = 0;
        while at < 200_000 {
            let n = {
                let bytes = p.peek(at, 200_000);
                assert!(bytes.iter().zip(at..).all(|(b, at)| *b == at as u8));
                bytes.len().div_ceil(2)
            };
            assert!(n > 0);
            at += n as u64;
            p.release_below(at);
        }
        assert!(pool.in_use() <= CHUNK as usize && p.held() == pool.in_use());
        p.rest(at);
        assert_eq!((p.held(), pool.in_use()), (0, 0));
    }

    #[test]
    fn chunks_grow_with_what_has_arrived() {
        let (pool, mut p, mut received) = (BufPool::heap(), Pooled::default(), RangeSet::default());
        let mut sizes = Vec::new();
        for at in (0..400_000).step_by(500) {
            put(&mut p, at..at + 500, &mut received, &pool).unwrap();
            let arrived = at as usize + 500;
            assert!(pool.in_use() <= 2 * arrived.max(1024), "{} bytes for {arrived}", pool.in_use());
        }
        sizes.extend(p.run.iter().map(|(_, buf)| buf.len()));
        assert_eq!(sizes[..9], [1024, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 65536]);
        // Read memory is returned completely, and the next chunk is as large as the data received until then.
        p.rest(400_000);
        assert_eq!(pool.in_use(), 0);
        put(&mut p, 400_000..400_010, &mut received, &pool).unwrap();
        assert_eq!(pool.in_use(), 64 << 10);
        p.rest(400_010);
        put(&mut p, 400_010..400_020, &mut received, &pool).unwrap();
        assert_eq!(pool.in_use(), 1 << 10);
    }

    /// Before 2026-11-26, every chunk up to the highest offset was taken: 64 MiB for the last of these bytes.
    #[test]
    fn gaps_take_no_memory() {
        let (pool, mut p, mut received) = (BufPool::heap(), Pooled::default(), RangeSet::default());
        for at in [100, 1 << 20, 64 << 20] {
            put(&mut p, at..at + 1, &mut received, &pool).unwrap();
        }
        assert_eq!((pool.in_use(), p.held()), (3 << 10, 3 << 10));
        // A long stretch after a gap grows like one in order.
        for at in (2_000_000..2_300_000).step_by(1000) {
            put(&mut p, at..at + 1000, &mut received, &pool).unwrap();
        }
        assert!(pool.in_use() <= 3 * 300_000, "{}", pool.in_use());
    }

    #[test]
    fn random_pieces_find_their_place() {
        use crate::base::rng::Rng;
        for seed in 0..200 {
            let mut rng = Rng::from_u64(seed);
            let (pool, mut p, mut received) = (BufPool::heap(), Pooled::default(), RangeSet::default());
            const LEN: u64 = 100_000;
            let mut read = 0;
            while received.first() != Some(0..LEN) {
                let start = rng.below(LEN);
                let range = start..(start + 1 + rng.below(3000)).min(LEN);
                let missing: Vec<_> = received.missing_in(range).collect();
                missing.into_iter().for_each(|range| put(&mut p, range, &mut received, &pool).unwrap());
                let contiguous = received.first().filter(|first| first.start == 0).map_or(0, |first| first.end);
                let bytes = p.peek(read, contiguous);
                assert_eq!(bytes.is_empty(), contiguous == read);
                assert!(bytes.iter().zip(read..).all(|(b, at)| *b == at as u8));
                read += rng.below(bytes.len() as u64 + 1);
                p.release_below(read);
                if received.last().is_some_and(|last| last.end == read) {
                    p.rest(read);
                }
                assert_eq!(p.held(), pool.in_use());
                let held = received.iter().map(|r| r.end.saturating_sub(r.start.max(read)) as usize).sum::<usize>();
                assert!(pool.in_use() <= 4 * held + 2048 * received.len() + CHUNK as usize, "{}", pool.in_use());
            }
        }
    }

    #[test]
    fn what_is_not_enough_behind_a_gap_is_not_kept() {
        let config = PoolConfig { limit_bytes: 2 << 10, hugepages: Hugepages::Never, numa_node: None };
        let (pool, mut p, mut received) = (BufPool::new(config).unwrap(), Pooled::default(), RangeSet::default());
        put(&mut p, 11_500..11_600, &mut received, &pool).unwrap();
        assert_eq!(p.reserve(&(10_500..13_000), 0, &received, &pool), Err(NoMemory));
        assert_eq!(pool.in_use(), 1 << 10);
        put(&mut p, 10_900..11_500, &mut received, &pool).unwrap();
    }
}
