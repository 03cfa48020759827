//! Receive buffers of a client: allocated at start and reused.

use crate::mem::{AllocError, BufPool, PinnedBuf};
use crate::proto::perf::plan::ReceiveShape;

#[derive(Debug)]
pub(super) struct Buffers {
    pool: BufPool,
    shape: ReceiveShape,
    free: Vec<PinnedBuf>,
}

impl Buffers {
    /// Allocates buffers for `answers` answers at a time.
    pub(super) fn new(pool: BufPool, shape: ReceiveShape, answers: u64) -> Result<Self, AllocError> {
        // Too large a number fails at the first allocation that does not fit.
        let count = usize::try_from(answers).unwrap_or(usize::MAX).saturating_mul(shape.count);
        let free = (0..count).map(|_| pool.alloc(shape.buffer)).collect::<Result<_, _>>()?;
        Ok(Self { pool, shape, free })
    }

    /// Takes buffers for one answer.
    pub(super) fn take(&mut self) -> Result<Vec<PinnedBuf>, AllocError> {
        let count = self.shape.count;
        while self.free.len() < count {
            // Needed only while buffers of a failed answer have not come back.
            self.free.push(self.pool.alloc(self.shape.buffer)?);
        }
        Ok(self.free.split_off(self.free.len() - count))
    }

    /// Returns a buffer.
    pub(super) fn put(&mut self, buf: PinnedBuf) {
        self.free.push(buf);
    }

    /// Returns all buffers to the pool.
    pub(super) fn clear(&mut self) {
        self.free = Vec::new();
    }
}
