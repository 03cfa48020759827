//! A file on its way from the disk to a client.

use std::collections::VecDeque;

use crate::base::time::Instant;
use crate::mem::PinnedBuf;
use crate::proto::hq::files::{Files, JobId, Order};

/// Pieces in which files are read and sent, bytes.
pub(super) const PIECE: usize = 1 << 20;

/// A file that is sent.
pub(super) struct Download {
    pub(super) job: JobId,
    /// Bytes of the file; `None` until it is open.
    pub(super) len: Option<u64>,
    /// Up to here has been ordered from the disk.
    pub(super) ordered: u64,
    /// It waits for memory.
    pub(super) waiting: bool,
    /// Pieces that have been read and wait for send budget.
    pub(super) ready: VecDeque<PinnedBuf>,
    /// Up to here has been handed to the engine.
    pub(super) sent: u64,
}

impl Download {
    /// Nothing of it is known yet.
    pub(super) fn new(job: JobId) -> Self {
        Self { job, len: None, ordered: 0, waiting: false, ready: VecDeque::new(), sent: 0 }
    }

    /// Orders the next piece of the file, which has `len` bytes, from the disk.
    pub(super) fn order_piece(&mut self, files: &mut Files, now: Instant, len: u64, mut buf: PinnedBuf) {
        let left = len - self.ordered;
        let n = left.min(PIECE as u64).min(buf.capacity() as u64);
        buf.set_len(n as usize);
        files.order(now, self.job, Order::Fill { offset: self.ordered, buf });
        self.ordered += n;
    }
}
