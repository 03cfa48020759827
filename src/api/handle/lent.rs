//! Bytes of pooled streams that the handles hold, and the read-ahead limit of each stream.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam::queue::SegQueue;

use crate::quic::{Chunk, ConnId, StreamId};
use crate::runtime::Waker;

/// Minimum number of bytes that a chunk is charged: the smallest piece of memory that it may hold.
const LEAST: usize = 1 << 10;

/// Streams that may be read again since chunks were returned, and the waker of the core.
type Resumed = Arc<(SegQueue<(ConnId, StreamId)>, Waker)>;

/// Bytes of one stream that the handles hold.
struct Demand {
    lent: AtomicUsize,
    /// The limit, beyond which the core takes no more from the stream.
    ahead: usize,
    /// Whether the core waits for chunks to be returned.
    waits: AtomicBool,
    stream: (ConnId, StreamId),
    resumed: Resumed,
}

impl Demand {
    fn is_used_up(&self) -> bool {
        self.lent.load(Ordering::SeqCst) >= self.ahead
    }

    /// Whether the core may take more. If not, it is notified when it may.
    fn may_take(&self) -> bool {
        if !self.is_used_up() {
            return true;
        }
        self.waits.store(true, Ordering::SeqCst);
        // Chunks may have been returned before `waits` was set, without notifying the core.
        !self.is_used_up() && self.waits.swap(false, Ordering::SeqCst)
    }

    fn give_back(&self, weight: usize) {
        self.lent.fetch_sub(weight, Ordering::SeqCst);
        if !self.is_used_up() && self.waits.swap(false, Ordering::SeqCst) {
            self.resumed.0.push(self.stream);
            self.resumed.1.wake();
        }
    }
}

/// The next bytes of a pooled stream, as in [`HandleEvent::Data`](super::HandleEvent::Data): a [`Chunk`] that limits
/// how far the stream is read ahead until it is dropped.
pub struct LentChunk {
    chunk: Chunk,
    weight: usize,
    /// `None` for a stream's last chunk, whose return nobody waits for.
    demand: Option<Arc<Demand>>,
}

impl Deref for LentChunk {
    type Target = Chunk;

    fn deref(&self) -> &Chunk {
        &self.chunk
    }
}

impl AsRef<[u8]> for LentChunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl fmt::Debug for LentChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chunk.fmt(f)
    }
}

impl Drop for LentChunk {
    fn drop(&mut self) {
        if let Some(demand) = &self.demand {
            demand.give_back(self.weight);
        }
    }
}

/// The core's side: the read-ahead of every stream.
pub(super) struct Lending {
    ahead: usize,
    streams: HashMap<(ConnId, StreamId), Arc<Demand>>,
    resumed: Resumed,
}

impl Lending {
    /// Allows `ahead` bytes of each stream to be with the handles. `waker` is the core's.
    pub(super) fn new(ahead: usize, waker: Waker) -> Self {
        Self { ahead, streams: HashMap::new(), resumed: Arc::new((SegQueue::new(), waker)) }
    }

    /// Sets the limit for streams from which nothing was taken yet.
    pub(super) fn set_ahead(&mut self, ahead: usize) {
        self.ahead = ahead;
    }

    /// Whether more of a stream may be taken. If not, [`Lending::resumed`] returns it once it may.
    pub(super) fn may_take(&self, conn: ConnId, id: StreamId) -> bool {
        self.streams.get(&(conn, id)).is_none_or(|demand| demand.may_take())
    }

    /// Lends a chunk of a stream.
    pub(super) fn lend(&mut self, conn: ConnId, id: StreamId, chunk: Chunk) -> LentChunk {
        let weight = chunk.len().max(LEAST);
        if chunk.is_last() {
            self.forget(conn, id);
            return LentChunk { weight, demand: None, chunk };
        }
        let demand = self.streams.entry((conn, id)).or_insert_with(|| {
            Arc::new(Demand {
                lent: AtomicUsize::new(0),
                ahead: self.ahead,
                waits: AtomicBool::new(false),
                stream: (conn, id),
                resumed: self.resumed.clone(),
            })
        });
        demand.lent.fetch_add(weight, Ordering::SeqCst);
        LentChunk { weight, demand: Some(demand.clone()), chunk }
    }

    /// The next stream that may be read again.
    pub(super) fn resumed(&self) -> Option<(ConnId, StreamId)> {
        self.resumed.0.pop()
    }

    /// Streams of a connection whose reading is suspended, in order.
    pub(super) fn waiting(&self, conn: ConnId) -> Vec<StreamId> {
        let waits = |demand: &Demand| demand.waits.load(Ordering::SeqCst);
        let of = self.streams.iter().filter(|((of, _), demand)| *of == conn && waits(demand));
        let mut all: Vec<_> = of.map(|((_, id), _)| *id).collect();
        all.sort_unstable();
        all
    }

    /// Removes a stream that yields no more data.
    pub(super) fn forget(&mut self, conn: ConnId, id: StreamId) {
        self.streams.remove(&(conn, id));
    }

    /// Removes all streams of a connection.
    pub(super) fn forget_all(&mut self, conn: ConnId) {
        if !self.streams.is_empty() {
            self.streams.retain(|(of, _), _| *of != conn);
        }
    }

    /// Number of streams with lent chunks that have not ended.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.streams.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Side;
    use crate::mem::PinnedBuf;
    use crate::quic::Dir;

    fn chunk(len: usize, last: bool) -> Chunk {
        Chunk::new(PinnedBuf::unpinned(len), 0, 0, last)
    }

    #[test]
    fn a_stream_is_read_as_far_ahead_as_allowed_and_on_when_some_came_back() {
        let (conn, id) = (ConnId::new(1, 1), StreamId::new(Side::Client, Dir::Uni, 1));
        let other = StreamId::new(Side::Client, Dir::Uni, 2);
        let mut lending = Lending::new(10_000, Waker::new());
        assert!(lending.may_take(conn, id));
        let one = lending.lend(conn, id, chunk(9_999, false));
        assert!(lending.may_take(conn, id));
        let two = lending.lend(conn, id, chunk(1, false));
        assert!(!lending.may_take(conn, id) && lending.may_take(conn, other), "a byte holds a kilobyte");
        assert_eq!((lending.resumed(), lending.waiting(conn)), (None, vec![id]));
        drop(two);
        assert_eq!((lending.resumed(), lending.resumed()), (Some((conn, id)), None), "told once");
        assert_eq!(lending.waiting(conn), []);
        drop(one);
        assert_eq!(lending.resumed(), None, "nobody waits");
        let last = lending.lend(conn, id, chunk(0, true));
        assert_eq!(lending.len(), 0);
        drop((last, lending.lend(conn, other, chunk(5, false))));
        lending.forget_all(ConnId::new(2, 0));
        assert_eq!(lending.len(), 1);
        lending.forget_all(conn);
        assert_eq!(lending.len(), 0);
    }

    /// No wake-up is lost if chunks are returned while the core checks.
    #[test]
    fn no_wake_up_is_lost() {
        let (conn, id) = (ConnId::new(1, 1), StreamId::new(Side::Client, Dir::Uni, 1));
        let mut lending = Lending::new(1, Waker::new());
        for _ in 0..10_000 {
            let lent = lending.lend(conn, id, chunk(1, false));
            std::thread::scope(|scope| {
                scope.spawn(move || drop(lent));
                if !lending.may_take(conn, id) {
                    while lending.resumed().is_none() {
                        std::thread::yield_now();
                    }
                }
            });
            assert!(lending.may_take(conn, id) && lending.resumed().is_none());
        }
    }
}
