//! A file on its way from the disk to a client.

use std::collections::VecDeque;

use crate::base::time::Instant;
use crate::mem::PinnedBuf;
use crate::proto::hq::files::{Files, JobId, Order};

/// The size of the pieces in which files are read and sent, in bytes.
pub(super) const PIECE: usize = 1 << 20;

/// A file being sent.
pub(super) struct Download {
    pub(super) job: JobId,
    /// The length of the file in bytes; `None` until it is open.
    pub(super) len: Option<u64>,
    /// The offset up to which it has been ordered from the disk.
    pub(super) ordered: u64,
    /// It waits for memory.
    pub(super) waiting: bool,
    /// Pieces that were read and wait for send budget.
    pub(super) ready: VecDeque<PinnedBuf>,
    /// The offset up to which it has been passed to the engine.
    pub(super) sent: u64,
}

impl Download {
    /// Creates a download of a file that is not open yet.
    pub(super) fn new(job: JobId) -> Self {
        Self { job, len: None, ordered: 0, waiting: false, ready: VecDeque::new(), sent: 0 }
    }

    /// Orders the next piece of the file, whose length is `len`, from the disk.
    pub(super) fn order_piece(&mut self, files: &mut Files, now: Instant, len: u64, mut buf: PinnedBuf) {
        let left = len - self.ordered;
        let n = left.min(PIECE as u64).min(buf.capacity() as u64);
        buf.set_len(n as usize);
        files.order(now, self.job, Order::Fill { offset: self.ordered, buf });
        self.ordered += n;
    }
}
