//! Memory accounting: the chunks of pooled streams are charged to the connection that holds them and to its peer's
//! address. The limits ensure that no connection can take the memory that others need.
//!
//! # What is counted
//! Each connection that holds chunks has a part of the engine's pool ([`BufPool::part`]). It is nested in a part for
//! its peer's address, which is nested in a part for the engine. A chunk is taken from the connection's part and counts
//! in all three until its memory is back in the pool, even while it is lent to the application, which may drop it on
//! another thread and after the connection has ended. Thus exactly the bytes held are charged, by construction;
//! [`Endpoint::memory_charged`](crate::quic::Endpoint::memory_charged) returns them, and the simulator compares them
//! with what the streams and the application hold.
//!
//! # What a connection may take
//! Let the pool have `limit` bytes, of which `free` bytes are not in use by anyone. For the next bytes in order of a
//! stream, a connection may take a chunk of `n` bytes if, including it,
//! 1. the connection holds at most its share ([`MemoryConfig::connection`]) and its address at most the address's
//!    share;
//! 2. the connection holds at most [`AT_ONCE`] bytes, or beyond that [`PER_BYTE`] times the bytes received from it in
//!    datagrams: memory has to be paid for on the wire;
//! 3. the connection's memory for bytes in order is at most half of what is free, and the pool keeps its reserve
//!    ([`MemoryConfig::reserve`]). Neither applies to a *newcomer*, which holds at most [`FLOOR`] bytes for them, and
//!    whose address holds at most as many or a sixteenth of the reserve.
//!
//! Rule 3 is the dynamic threshold of shared-memory switches (Choudhury and Hahne, 1998). A connection that takes all
//! it may leaves twice as much as it took. The rule needs no record of who holds how much, and under pressure those who
//! hold most get nothing more while others still do.
//!
//! For chunks for bytes *beyond a gap*, each limit is half as large, and they must leave twice the reserve.
//!
//! # Streams cannot deadlock each other
//! Bytes beyond a gap cannot be discarded once acknowledged (RFC 9000 §2.2), and the application cannot take them
//! before the gap is filled. If they could use up the memory for the bytes in the gap, all would wait forever. The
//! rules keep that memory free:
//!
//! *Claim.* If a connection is refused memory for the next bytes of a stream, then it has bytes in order whose memory
//! is returned when the application reads them, or gaps whose bytes already have memory and will be accepted when the
//! peer retransmits them, or the memory is held by other connections or the application.
//!
//! *Proof.* There are three kinds of chunks: those taken for bytes beyond a gap (`far`), those taken in order that hold
//! unread bytes in order, and those taken in order whose bytes in order were read. The last hold bytes after a gap
//! inside the chunk, or else they are returned ([`Pooled::rest`](crate::quic::stream::placement::Pooled::rest)). The
//! gap of such a chunk needs no more memory: of a frame that extends beyond it, the part inside is accepted. It thus
//! suffices to show that after a refusal there are chunks taken in order. By rules 1 and 2, `far` has at most half of
//! what the connection, or its address, may hold, so that after a refusal by them, chunks other than `far` have the
//! other half, less `n`. In rule 3, `far` does not count for the connection, so that a refusal means that it has more
//! than `FLOOR - n` bytes of chunks taken in order, or that others hold what is not free. ∎
//!
//! # No stream waits for the gaps of another
//! A peer may never retransmit what a gap lacks: with strict priorities, it first sends the next bytes of an urgent
//! stream, which are refused while the gaps of less urgent streams hold the memory. Therefore a connection that may
//! take no more has one *spare* chunk in addition to its share: exactly as long as the received bytes that are next in
//! order, and at most [`MIN_CHUNK`]. As it is full at once, it never contains a gap, and it is returned when the
//! application has read it. With it, a refusal means that there are bytes that the application can read, or that others
//! have reduced the pool to half of its reserve.
//!
//! Peers may have no such chunk. As a sender, we still give them the bytes that their gaps lack
//! ([`turns`](crate::quic::stream::turns)).
//!
//! What others hold permanently is bounded by their shares, and the reserve lets newcomers proceed beside them. No
//! connection is closed because of the memory that it holds: unread bytes in order may be the fault of the local
//! application, and bytes beyond a gap that of a temporary network outage.
//!
//! A chunk that was taken for bytes beyond a gap still counts as such when the gap is filled; this only relaxes the
//! rules. `tests` has a model with random streams, gaps and sizes that always terminates.
//!
//! # Windows
//! A connection's window (RFC 9000 §4.1) is at most what it could take at the time of the announcement: half of its
//! share and half of what is free, but at least [`FLOOR`]. A connection that never had a chunk gets its whole window:
//! its bytes go to buffers of the application, which count as consumed when they arrive. Windows are promises, not
//! reservations: many connections may be promised the same free memory, and announcements cannot be revoked. The rules
//! above then decide whose bytes are accepted; packets of the others count as lost, and their senders slow down.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::mem::{BufPool, PinnedBuf};
use crate::quic::config::MemoryConfig;

/// Minimum size of a pooled stream's chunks, in bytes: that of the pool's smallest class.
pub(crate) const MIN_CHUNK: u64 = 1 << 10;

/// There is no memory for received bytes, neither in the pool nor in provided buffers, or none to record their ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// Number of bytes that a connection may hold for bytes in order, regardless of others.
pub(crate) const FLOOR: usize = 16 << 10;

/// Number of bytes that a connection may hold before it has sent anything for them.
pub(crate) const AT_ONCE: usize = 64 << 10;

/// Number of bytes that a connection may hold per byte received from it.
pub(crate) const PER_BYTE: usize = 16;

/// A request of a stream for a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Minimum size, more than 0.
    pub(crate) least: usize,
    /// Maximum useful size.
    pub(crate) most: usize,
    /// Whether it is for the next bytes in order.
    pub(crate) in_order: bool,
}

/// Lends memory to pooled streams.
pub(crate) trait Lender {
    /// A buffer of `least` to `most` bytes.
    fn lend(&mut self, want: Want) -> Result<PinnedBuf, NoMemory>;

    /// After a refusal, lends the one spare buffer, of `len` bytes, at most [`MIN_CHUNK`]. It is for the next bytes in
    /// order of a stream, which have arrived and fill it.
    fn lend_spare(&mut self, len: usize) -> Result<PinnedBuf, NoMemory>;
}

/// The unit that addresses are accounted by: an IPv6 host usually has all addresses with the same first 64 bits (RFC
/// 4291 §2.5.4).
fn origin(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        },
    }
}

/// The account of a connection.
#[derive(Debug)]
pub(crate) struct Account {
    /// All of its chunks.
    all: BufPool,
    /// Those of them that were taken for bytes beyond a gap.
    far: BufPool,
    /// The address's part of the pool, which contains `all`.
    origin: BufPool,
    /// The part for the spare chunk, once one was needed.
    spare: Option<BufPool>,
}

/// The memory of one endpoint.
#[derive(Debug)]
pub(crate) struct Memory {
    pool: BufPool,
    /// The part that the connections hold.
    lent: BufPool,
    config: MemoryConfig,
    origins: BTreeMap<IpAddr, BufPool>,
    /// Number of origins at which those without chunks are removed.
    sweep_at: usize,
}

impl Memory {
    pub(crate) fn new(pool: BufPool, config: MemoryConfig) -> Self {
        let lent = pool.part(usize::MAX);
        Self { pool, lent, config, origins: BTreeMap::new(), sweep_at: 64 }
    }

    pub(crate) fn pool(&self) -> &BufPool {
        &self.pool
    }

    /// Number of bytes of chunks that streams and the application hold.
    pub(crate) fn charged(&self) -> usize {
        self.lent.in_use()
    }

    fn free(&self) -> usize {
        self.pool.limit().saturating_sub(self.pool.in_use())
    }

    /// Opens an account for a connection from `remote`.
    fn open(&mut self, remote: IpAddr) -> Box<Account> {
        if self.origins.len() >= self.sweep_at {
            self.origins.retain(|_, part| part.is_shared());
            self.sweep_at = 2 * self.origins.len().max(32);
        }
        let limit = self.pool.limit();
        let share = self.config.address(limit);
        let origin = self.origins.entry(origin(remote)).or_insert_with(|| self.lent.part(share)).clone();
        let all = origin.part(self.config.connection(limit));
        Box::new(Account { far: all.part(usize::MAX), all, origin, spare: None })
    }

    /// Whether `account` may take `n` more bytes after its peer has sent `came` bytes.
    fn allows(&self, account: &Account, n: usize, in_order: bool, came: usize) -> bool {
        let (has, far) = (account.all.in_use() + n, account.far.in_use());
        let (free, limit) = (self.free(), self.pool.limit());
        let paid = paid(came);
        if in_order {
            let (ours, reserve) = (has - far.min(has), self.config.reserve(limit));
            let enough = ours <= free / 2 && free.saturating_sub(n) >= reserve;
            let newcomer = ours <= FLOOR && account.origin.in_use() + n <= FLOOR.max(reserve / 16);
            has <= paid && (newcomer || enough)
        } else {
            has <= paid.min(account.all.limit()) / 2
                && account.origin.in_use() + n <= account.origin.limit() / 2
                && far + n <= free / 4
                && free.saturating_sub(n) >= 2 * self.config.reserve(limit)
        }
    }

    /// The window to announce to a connection's peer: `max` if its data goes to the application's buffers, or less if
    /// it goes to the pool (`pooled`).
    pub(crate) fn window(&self, max: u64, pooled: bool) -> u64 {
        if !pooled {
            return max;
        }
        let share = self.config.connection(self.pool.limit()) / 2;
        max.min(share.min(self.free() / 2).max(FLOOR) as u64)
    }
}

/// What a connection may hold after its peer has sent `came` bytes (rule 2).
fn paid(came: usize) -> usize {
    AT_ONCE.saturating_add(came.saturating_mul(PER_BYTE))
}

/// The source of a connection's chunks while it reads a packet.
pub(crate) struct Purse<'a> {
    pub(crate) memory: &'a mut Memory,
    pub(crate) account: &'a mut Option<Box<Account>>,
    pub(crate) remote: &'a SocketAddr,
    /// Number of bytes received from the peer in datagrams.
    pub(crate) came: u64,
}

impl Lender for Purse<'_> {
    #[cold]
    fn lend(&mut self, want: Want) -> Result<PinnedBuf, NoMemory> {
        let account = match &mut *self.account {
            Some(account) => account,
            none => none.insert(self.memory.open(self.remote.ip())),
        };
        let part = if want.in_order { &account.all } else { &account.far };
        let mut len = want.most;
        loop {
            let class = len.next_power_of_two().max(MIN_CHUNK as usize);
            if self.memory.allows(account, class, want.in_order, self.came as usize)
                && let Ok(buf) = part.alloc(len)
            {
                return Ok(buf);
            }
            if len <= want.least {
                return Err(NoMemory);
            }
            len = (class / 2).clamp(want.least, len - 1);
        }
    }

    #[cold]
    fn lend_spare(&mut self, len: usize) -> Result<PinnedBuf, NoMemory> {
        let (account, memory) = (self.account.as_mut().ok_or(NoMemory)?, &self.memory);
        let left = memory.free().saturating_sub(MIN_CHUNK as usize);
        // Rule 2 still applies: a connection that it refuses pays with each retransmission.
        let has = account.all.in_use() + MIN_CHUNK as usize;
        if len > MIN_CHUNK as usize
            || has > paid(self.came as usize)
            || left < memory.config.reserve(memory.pool.limit()) / 2
        {
            return Err(NoMemory);
        }
        let spare = account.spare.get_or_insert_with(|| memory.lent.part(MIN_CHUNK as usize));
        spare.alloc(len).map_err(|_| NoMemory)
    }
}

#[cfg(test)]
impl Lender for &BufPool {
    fn lend(&mut self, want: Want) -> Result<PinnedBuf, NoMemory> {
        self.alloc(want.most).or_else(|_| self.alloc(want.least)).map_err(|_| NoMemory)
    }

    fn lend_spare(&mut self, _: usize) -> Result<PinnedBuf, NoMemory> {
        Err(NoMemory)
    }
}

#[cfg(test)]
mod tests;
