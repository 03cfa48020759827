//! Shares of a server's file memory.

use std::collections::VecDeque;

use crate::base::id_map::IdMap;
use crate::mem::{BufPool, PinnedBuf};
use crate::quic::{ConnId, StreamId};

/// The minimum buffer size for a piece of a file, in bytes; smaller files get a smaller one.
pub(super) const MIN_PIECE: usize = 64 << 10;

/// The reason why memory is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The connection has its share; it gets more when some of it comes back.
    Share,
    /// The connection has none, and no memory is left.
    Empty,
}

/// One client.
#[derive(Debug)]
struct Client {
    memory: BufPool,
    /// Streams that wait for memory of the connection's share.
    waiting: VecDeque<StreamId>,
}

/// The least number of pieces of [`MIN_PIECE`] that a connection needs to have a full window in flight: one that waits for
/// the acknowledgement of a packet that was lost, one being sent, one being read.
const LEAST_PIECES: usize = 3;

/// The number of bytes that a download uses, with a congestion window of `cwnd` bytes: what is in flight, what was lost,
/// what is being read, and the rest of pieces of which most has been acknowledged.
pub(super) fn used(cwnd: usize) -> usize {
    (4 * cwnd).max(LEAST_PIECES * MIN_PIECE)
}

/// A part of a pool that connections share. Each may have [`MIN_PIECE`] bytes while there are any. Beyond that, it is
/// limited to an eighth of the part, half of what is left, or what its caller says it uses, whichever is least; a
/// quarter of the part is reserved for connections with next to nothing.
#[derive(Debug)]
pub(super) struct Shares {
    pool: BufPool,
    part: BufPool,
    clients: IdMap<ConnId, Client>,
}

impl Shares {
    /// Creates shares of `parts` eighths of what is left of `pool`.
    pub(super) fn new(pool: &BufPool, parts: usize) -> Self {
        let left = pool.limit().saturating_sub(pool.in_use());
        Self { pool: pool.clone(), part: pool.part(left / 8 * parts), clients: IdMap::default() }
    }

    /// Bytes in use.
    #[cfg(test)]
    fn in_use(&self) -> usize {
        self.part.in_use()
    }

    fn client(&mut self, conn: ConnId) -> &mut Client {
        let part = &self.part;
        let new = || Client { memory: part.part(part.limit() / 8), waiting: VecDeque::new() };
        self.clients.entry(conn).or_insert_with(new)
    }

    /// Allocates a buffer of up to `most` bytes, but at least [`MIN_PIECE`], for a connection that uses `used` bytes in
    /// total.
    pub(super) fn take(&mut self, conn: ConnId, most: usize, used: usize) -> Result<PinnedBuf, Denied> {
        let left = |pool: &BufPool| pool.limit().saturating_sub(pool.in_use());
        let free = left(&self.pool).min(left(&self.part));
        let reserve = self.part.limit() / 4;
        let memory = &self.client(conn).memory;
        let has = memory.in_use();
        let mut len = most;
        loop {
            let class = len.next_power_of_two();
            let more = has + class <= used.min(free / 2) && free.saturating_sub(class) >= reserve;
            if (has + class <= MIN_PIECE || more)
                && let Ok(buf) = memory.alloc(len)
            {
                return Ok(buf);
            }
            if len <= MIN_PIECE {
                return Err(if has > 0 { Denied::Share } else { Denied::Empty });
            }
            len = (class / 2).clamp(MIN_PIECE, len - 1);
        }
    }

    /// Lets a stream wait until memory of its connection comes back.
    pub(super) fn wait(&mut self, conn: ConnId, id: StreamId) {
        self.client(conn).waiting.push_back(id);
    }

    /// The connection's stream that has waited longest.
    pub(super) fn next_waiting(&mut self, conn: ConnId) -> Option<StreamId> {
        self.clients.get_mut(&conn)?.waiting.pop_front()
    }

    /// Connections with waiting streams but no outstanding memory, which came back in another way than by being sent.
    pub(super) fn stalled(&self) -> impl Iterator<Item = ConnId> {
        let stalled = |client: &Client| !client.waiting.is_empty() && client.memory.in_use() == 0;
        self.clients.iter().filter(move |(_, client)| stalled(client)).map(|(conn, _)| *conn)
    }

    /// Removes an ended connection; its outstanding memory comes back by itself.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.clients.remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Hugepages, PoolConfig};

    const MIB: usize = 1 << 20;

    fn conn(n: u32) -> ConnId {
        ConnId::new(n, 0)
    }

    fn fill(shares: &mut Shares, n: u32) -> (Vec<PinnedBuf>, Denied) {
        let mut bufs = Vec::new();
        loop {
            match shares.take(conn(n), MIB, usize::MAX) {
                Ok(buf) => bufs.push(buf),
                Err(denied) => return (bufs, denied),
            }
        }
    }

    /// With a single piece, nothing could be sent from when the piece had been sent until all of it was acknowledged.
    #[test]
    fn small_windows_are_filled_while_a_packet_is_lost() {
        let pool = BufPool::new(PoolConfig { hugepages: Hugepages::Never, ..PoolConfig::default() }).unwrap();
        let mut shares = Shares::new(&pool, 4);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(shares.take(conn(1), MIN_PIECE, used(12_000)).unwrap());
        }
        assert_eq!(shares.take(conn(1), MIN_PIECE, used(12_000)).unwrap_err(), Denied::Share);
        assert_eq!(used(1 << 20), 4 << 20);
    }

    #[test]
    fn something_is_left_for_the_next() {
        let config = PoolConfig { limit_bytes: 64 * MIB, hugepages: Hugepages::Never, numa_node: None };
        let pool = BufPool::new(config).unwrap();
        let mut shares = Shares::new(&pool, 4);
        let mut held = Vec::new();
        for n in 0..100 {
            let (bufs, denied) = fill(&mut shares, n);
            let sum: usize = bufs.iter().map(|buf| buf.capacity()).sum();
            assert!((MIN_PIECE..=4 * MIB).contains(&sum), "connection {n} got {sum}");
            assert_eq!(denied, Denied::Share);
            held.push(bufs);
        }
        assert_eq!(shares.in_use(), pool.in_use());
        let mut small = Vec::new();
        small.extend(std::iter::from_fn(|| shares.take(conn(500), MIB, 300_000).ok()));
        assert_eq!(
            small.iter().map(|buf| buf.capacity()).sum::<usize>(),
            MIN_PIECE,
            "the reserve is for the first piece"
        );
        assert!(pool.in_use() <= 32 * MIB);
        // If nothing is left at all, it says so.
        let rest: Vec<_> = std::iter::from_fn(|| pool.alloc(1024).ok()).collect();
        assert_eq!(shares.take(conn(1000), 10, 0).unwrap_err(), Denied::Empty);
        assert_eq!(shares.take(conn(0), 10, 0).unwrap_err(), Denied::Share);
        drop(rest);
        assert!(shares.take(conn(1000), 10, 0).is_ok());
        shares.forget(conn(0));
        drop((held, small));
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn streams_wait_for_their_own_connection() {
        let mut shares = Shares::new(&BufPool::heap(), 6);
        shares.wait(conn(1), StreamId(4));
        shares.wait(conn(1), StreamId(8));
        assert_eq!(shares.next_waiting(conn(2)), None);
        let buf = shares.take(conn(1), 10, 0).unwrap();
        assert_eq!(shares.stalled().collect::<Vec<_>>(), []);
        drop(buf);
        assert_eq!(shares.stalled().collect::<Vec<_>>(), [conn(1)]);
        assert_eq!(
            [shares.next_waiting(conn(1)), shares.next_waiting(conn(1))],
            [Some(StreamId(4)), Some(StreamId(8))]
        );
        assert_eq!(shares.next_waiting(conn(1)), None);
    }
}
