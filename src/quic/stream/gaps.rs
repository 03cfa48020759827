//! Memory that records which bytes of streams are missing.

/// Maximum size of one connection's lists of received ranges, in bytes. A burst that overshoots a path of 1 Gbit/s and
/// 200 ms by the same amount loses every second of about 50,000 packets: 25,000 gaps, 1.2 MB.
const LIMIT: usize = 2 << 20;

/// Memory of the received ranges of all streams of a connection, as counted by [`RangeSet::heap_bytes`]. The limit is
/// in bytes, not in gaps per stream, as a peer may open many streams.
///
/// [`RangeSet::heap_bytes`]: crate::base::range_set::RangeSet::heap_bytes
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    used: usize,
}

impl Gaps {
    /// Number of bytes in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Whether no new gap may be made; data that would make one has to be retransmitted later.
    pub(crate) fn is_full(&self) -> bool {
        self.used >= LIMIT
    }

    /// Records that one stream's list takes `after` bytes instead of `before`.
    pub(crate) fn changed(&mut self, before: usize, after: usize) {
        self.used = self.used.saturating_add(after).saturating_sub(before);
    }
}
