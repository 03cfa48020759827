//! A request being received.

use crate::mem::{BufPool, PinnedBuf};
use crate::proto::perf::SIZE_LEN;
use crate::proto::perf::transport::INITIAL_WINDOW;

/// The maximum size of a provided buffer, in bytes.
const MAX_BUFFER: u64 = 1 << 20;

/// The state of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// The size field, as far as it has arrived.
    size: [u8; SIZE_LEN],
    size_len: u8,
    /// It waits for memory.
    pub(super) hungry: bool,
    /// Contiguous bytes received, as last reported.
    pub(super) received: u64,
    /// Bytes of buffers provided so far.
    pub(super) provided: u64,
}

impl Request {
    /// Creates a request of which nothing has arrived yet.
    pub(super) fn new() -> Self {
        Self { size: [0; SIZE_LEN], size_len: 0, hungry: false, received: 0, provided: INITIAL_WINDOW }
    }

    /// Reads the size field from `bytes` at `offset`; to be called in order.
    pub(super) fn take_size(&mut self, offset: u64, bytes: &[u8]) {
        let have = usize::from(self.size_len);
        if have < SIZE_LEN && offset == have as u64 {
            let n = bytes.len().min(SIZE_LEN - have);
            self.size[have..have + n].copy_from_slice(&bytes[..n]);
            self.size_len += n as u8;
        }
    }

    /// The size of the answer, once its 8 bytes have arrived.
    pub(super) fn wanted(&self) -> Option<u64> {
        (usize::from(self.size_len) == SIZE_LEN).then(|| u64::from_be_bytes(self.size))
    }

    /// The space that should be free ahead of the received data: as much as has been received, so that the window keeps
    /// up with a sender that doubles its rate every round trip.
    fn target(&self, max: u64) -> u64 {
        self.received.saturating_mul(2).clamp(INITIAL_WINDOW, max)
    }

    /// Returns whether `left` bytes of free space are so few that more should be provided.
    pub(super) fn wants_more(&self, left: u64, max: u64) -> bool {
        left < self.target(max) / 2
    }

    /// The buffers to provide if `left` bytes are free; empty if that is enough or the pool has none.
    pub(super) fn more_buffers(&self, pool: &BufPool, left: u64, max: u64) -> Vec<PinnedBuf> {
        if !self.wants_more(left, max) {
            return Vec::new();
        }
        let mut missing = self.target(max).saturating_sub(left);
        let mut size = missing.next_power_of_two().clamp(INITIAL_WINDOW, MAX_BUFFER);
        let mut bufs = Vec::with_capacity(missing.div_ceil(size) as usize);
        while missing > 0 {
            match pool.alloc(size as usize) {
                Ok(buf) => {
                    bufs.push(buf);
                    missing = missing.saturating_sub(size);
                }
                // A small buffer keeps the peer going.
                Err(_) if bufs.is_empty() && size > INITIAL_WINDOW => size = INITIAL_WINDOW,
                Err(_) => break,
            }
        }
        bufs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Hugepages, PoolConfig};
    use proptest::prelude::*;

    const MAX: u64 = 4 << 20;

    proptest! {
        #[test]
        fn size_survives_any_split(size: u64, cuts in proptest::collection::vec(0usize..20, 0..5)) {
            let bytes = [&size.to_be_bytes()[..], &[0xee; 12]].concat();
            let mut cuts = cuts;
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut request = Request::new();
            for pair in cuts.windows(2) {
                request.take_size(pair[0] as u64, &bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(request.wanted(), Some(size));
        }

        #[test]
        fn space_keeps_ahead_of_what_comes(steps in proptest::collection::vec(1u64..200_000, 1..200)) {
            let pool = BufPool::heap();
            let mut request = Request::new();
            for step in steps {
                // The peer respects the window.
                request.received = (request.received + step).min(request.provided);
                let left = request.provided - request.received;
                for buf in request.more_buffers(&pool, left, MAX) {
                    request.provided += buf.len() as u64;
                }
                let left = request.provided - request.received;
                prop_assert!(left >= request.received.clamp(INITIAL_WINDOW / 2, MAX / 2), "{left}: {request:?}");
                prop_assert!(left <= MAX + MAX_BUFFER, "{left}: {request:?}");
            }
        }
    }

    #[test]
    fn seven_bytes_are_no_size() {
        let mut request = Request::new();
        request.take_size(0, &[1; 7]);
        assert_eq!(request.wanted(), None);
    }

    #[test]
    fn takes_less_when_the_pool_has_less() {
        let config = PoolConfig { limit_bytes: 128 << 10, hugepages: Hugepages::Never, numa_node: None };
        let pool = BufPool::new(config).unwrap();
        let request = Request { received: 10 << 20, provided: 10 << 20, ..Request::new() };
        let bufs = request.more_buffers(&pool, 0, MAX);
        assert_eq!(bufs.iter().map(|b| b.len()).sum::<usize>(), 128 << 10);
        assert!(request.more_buffers(&pool, 0, MAX).is_empty());
    }
}
