//! Receive buffers of a client: taken from the pool at the start, used again and again.

use crate::mem::{AllocError, BufPool, PinnedBuf};
use crate::proto::perf::plan::ReceiveShape;

#[derive(Debug)]
pub(super) struct Buffers {
    pool: BufPool,
    shape: ReceiveShape,
    free: Vec<PinnedBuf>,
}

impl Buffers {
    /// Buffers for `answers` answers at a time.
    pub(super) fn new(pool: BufPool, shape: ReceiveShape, answers: u64) -> Result<Self, AllocError> {
        // More than the pool has ends at the first that it has not.
        let count = usize::try_from(answers).unwrap_or(usize::MAX).saturating_mul(shape.count);
        let free = (0..count).map(|_| pool.alloc(shape.buffer)).collect::<Result<_, _>>()?;
        Ok(Self { pool, shape, free })
    }

    /// Buffers for one answer.
    pub(super) fn take(&mut self) -> Result<Vec<PinnedBuf>, AllocError> {
        let count = self.shape.count;
        while self.free.len() < count {
            // Only while those of an answer that failed are on their way back.
            self.free.push(self.pool.alloc(self.shape.buffer)?);
        }
        Ok(self.free.split_off(self.free.len() - count))
    }

    /// A buffer came back.
    pub(super) fn put(&mut self, buf: PinnedBuf) {
        self.free.push(buf);
    }

    /// Everything goes back to the pool.
    pub(super) fn clear(&mut self) {
        self.free = Vec::new();
    }
}
