//! Memory that a peer makes a connection spend on remembering which bytes are missing.

/// What one connection's lists of received ranges may take, in bytes. A burst that overshoots a path of 1 Gbit/s and
/// 200 ms by as much again loses every second of some 50,000 packets: 25,000 gaps, 1.2 MB.
const LIMIT: usize = 2 << 20;

/// The memory of the received ranges of all streams of a connection, counted by [`RangeSet::heap_bytes`]. Bounded in
/// bytes rather than in gaps for each stream, as a peer may open many.
///
/// [`RangeSet::heap_bytes`]: crate::base::range_set::RangeSet::heap_bytes
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    used: usize,
}

impl Gaps {
    /// Bytes in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Whether no new gap may be made: what would make one has to come again later.
    pub(crate) fn is_full(&self) -> bool {
        self.used >= LIMIT
    }

    /// One stream's list takes `after` bytes where it took `before`.
    pub(crate) fn changed(&mut self, before: usize, after: usize) {
        self.used = self.used.saturating_add(after).saturating_sub(before);
    }
}
