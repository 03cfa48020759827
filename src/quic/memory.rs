//! Whose memory it is: the chunks of pooled streams are charged to the connection that pins them and to its address, and
//! what they may take is bounded so that nobody can take what others need.
//!
//! # What is counted
//! Each connection that holds chunks has a part of the engine's pool ([`BufPool::part`]); its address has one that this is
//! a part of, and the engine has one of which all these are parts. A chunk is taken from the connection's part, so that it
//! counts in all three from the moment it is taken until its memory is back in the pool: also when it is lent to the
//! application meanwhile, which may drop it on another thread and after its connection. What is charged is thus what is
//! held, to the byte, by construction; [`Endpoint::memory_charged`](crate::quic::Endpoint::memory_charged) tells it, and
//! the simulator compares it with what the streams and the application have in hand.
//!
//! # What a connection may take
//! Let the pool have `limit` bytes, of which `free` are not in use, by whomever. For the next bytes in order of a stream a
//! connection may take a chunk of `n` bytes if with it
//! 1. it has at most its share ([`MemoryConfig::connection`]) and its address the address's share;
//! 2. it has at most [`AT_ONCE`] bytes, or [`PER_BYTE`] times what has come from it in datagrams beyond that: memory has to
//!    be paid for on the wire;
//! 3. what it has for bytes in order is at most half of what is free; and the pool keeps its reserve
//!    ([`MemoryConfig::reserve`]). Neither holds for a *newcomer*, who has at most [`FLOOR`] bytes for them, and
//!    whose address has at most as many or a sixteenth of the reserve.
//!
//! Rule 3 is the dynamic threshold of shared-memory switches (Choudhury and Hahne, 1998). Whoever takes all that it may
//! leaves twice as much as it took. It needs no list of who has how much, and under pressure those who have most get
//! nothing more while the others still do.
//!
//! Chunks for bytes *beyond a gap* may take half as much by each of these rules, and leave twice the reserve.
//!
//! # Streams cannot lock each other up
//! Bytes beyond a gap, once acknowledged, have to stay (RFC 9000 §2.2), and the application cannot take them before the gap
//! is filled. If they could use up what the bytes in the gap need, all would wait for ever. Before, the gap's memory was
//! taken along with them; now it is kept free by the rules:
//!
//! *Claim.* If a connection is refused memory for the next bytes of a stream, then it has bytes in order whose memory comes
//! back when the application reads them, or gaps whose bytes have memory already and will get in when the peer sends them
//! again, or the memory is with other connections or the application.
//!
//! *Proof.* Chunks are of three kinds: those taken beyond a gap (`far`), those taken in order that hold bytes in order
//! which were not read yet, and those taken in order whose bytes in order were read; the last hold bytes behind a gap
//! inside of them, or else they are given back ([`Pooled::rest`](crate::quic::stream::placement::Pooled::rest)). The gap of
//! such a chunk needs no more memory: of a frame that goes beyond it, what lies in it is taken. So it is enough to show
//! that a refusal means that there are chunks taken in order. By each of the rules 1 and 2 `far` has at most half of what
//! the connection, or its address, may have, so that after a refusal by them others than `far` have the other half, less
//! `n`. In rule 3 `far` does not count for the connection, so that a refusal by it means that it has more than
//! `FLOOR - n` bytes of chunks taken in order, or that others have what is not free. ∎
//!
//! # No stream waits for the gaps of another
//! That a peer sends again what a gap lacks may take for ever: one with strict priorities first sends the next bytes of an
//! urgent stream, which are refused as long as the gaps of lesser ones hold the memory. So a connection that may take no
//! more has one *spare* chunk beside its share: exactly as long as the bytes that are here, which are the next in order, and
//! at most [`MIN_CHUNK`]. It is full at once, so that there never is a gap in it, and comes back when the application has
//! read it. With it, a refusal means that there are bytes that the application can read, or that others have the pool
//! down to half of its reserve.
//!
//! Peers may have no such chunk. Of us as the sender, they get what the gaps lack all the same
//! ([`turns`](crate::quic::stream::turns)).
//!
//! What others pin for ever is bounded by their shares, and that newcomers get on beside them is what the reserve is for. No
//! connection is closed for the memory that it holds: bytes in order that nobody reads may be the fault of the application
//! here, and those beyond a gap of a network that is down for a while.
//!
//! A chunk that was taken beyond a gap still counts as such when the gap is filled; this only makes the rules milder.
//! `tests` has a model with random streams, gaps and sizes that always comes to its end.
//!
//! # Windows
//! A connection's window (RFC 9000 §4.1) is at most what it could take at the moment of the announcement: half
//! of its share and half of what is free, and at least [`FLOOR`]. One that never had a chunk has its whole window: its bytes
//! go to buffers of the application, which count as consumed when they arrive. Windows are promises, not reservations: many
//! connections may be promised the same free memory, and what was announced cannot be taken back. Then the rules above
//! decide whose bytes get in; the others' packets count as lost, which their senders answer by slowing down.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::mem::{BufPool, PinnedBuf};
use crate::quic::config::MemoryConfig;

/// Size of the smallest chunks that a pooled stream takes, in bytes: that of the pool's smallest class.
pub(crate) const MIN_CHUNK: u64 = 1 << 10;

/// There is no memory for received bytes: neither in the pool nor provided, or none to remember where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// Bytes that a connection may have for bytes in order whatever others have.
pub(crate) const FLOOR: usize = 16 << 10;

/// Bytes that a connection may hold before it has to have sent something for them.
pub(crate) const AT_ONCE: usize = 64 << 10;

/// Bytes that a connection may hold for each byte that came from it.
pub(crate) const PER_BYTE: usize = 16;

/// A chunk that a stream wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Bytes that it needs, more than 0.
    pub(crate) least: usize,
    /// Bytes that are of use.
    pub(crate) most: usize,
    /// It is for the next bytes in order.
    pub(crate) in_order: bool,
}

/// Who gives memory to pooled streams.
pub(crate) trait Lender {
    /// A buffer of `least` to `most` bytes.
    fn lend(&mut self, want: Want) -> Result<PinnedBuf, NoMemory>;

    /// After a refusal, the one spare buffer, of `len` bytes, at most [`MIN_CHUNK`]: for the next bytes in order of a stream,
    /// which are here and fill it.
    fn lend_spare(&mut self, len: usize) -> Result<PinnedBuf, NoMemory>;
}

/// Where a connection comes from, as far as its address can be told from those of others: a host with an IPv6 address
/// usually has all that share its first 64 bits (RFC 4291 §2.5.4).
fn origin(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        },
    }
}

/// What a connection is charged.
#[derive(Debug)]
pub(crate) struct Account {
    /// All its chunks.
    all: BufPool,
    /// Of these, the chunks that were taken for bytes beyond a gap.
    far: BufPool,
    /// What it is a part of.
    origin: BufPool,
    /// Beside its share: the spare chunk, once one was needed.
    spare: Option<BufPool>,
}

/// The memory of one endpoint.
#[derive(Debug)]
pub(crate) struct Memory {
    pool: BufPool,
    /// What the endpoint's connections have of it.
    lent: BufPool,
    config: MemoryConfig,
    origins: BTreeMap<IpAddr, BufPool>,
    /// Number of origins at which those without any chunk are forgotten.
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

    /// Bytes of chunks that streams and the application hold.
    pub(crate) fn charged(&self) -> usize {
        self.lent.in_use()
    }

    fn free(&self) -> usize {
        self.pool.limit().saturating_sub(self.pool.in_use())
    }

    /// An account for a connection from `remote`.
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

    /// Whether `account` may take `n` more bytes; `came` bytes came from its peer.
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

    /// The window that may be announced to a connection's peer: `max`, if what comes goes to the application's buffers,
    /// or less, if it goes to the pool (`pooled`).
    pub(crate) fn window(&self, max: u64, pooled: bool) -> u64 {
        if !pooled {
            return max;
        }
        let share = self.config.connection(self.pool.limit()) / 2;
        max.min(share.min(self.free() / 2).max(FLOOR) as u64)
    }
}

/// What a connection may hold for the `came` bytes that its peer has sent: rule 2.
fn paid(came: usize) -> usize {
    AT_ONCE.saturating_add(came.saturating_mul(PER_BYTE))
}

/// What a connection takes chunks from while it reads a packet.
pub(crate) struct Purse<'a> {
    pub(crate) memory: &'a mut Memory,
    pub(crate) account: &'a mut Option<Box<Account>>,
    pub(crate) remote: &'a SocketAddr,
    /// Bytes that came from the peer in datagrams.
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
        // Rule 2 is kept: who is refused by it pays with each packet that is sent again.
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
