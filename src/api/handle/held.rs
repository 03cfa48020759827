//! Data that waits because its stream's send budget is used up.

use std::collections::{HashMap, VecDeque};

use crate::api::handle::command::Pieces;
use crate::quic::{ConnId, StreamId};

/// Waiting sends of one stream in order, each with its `fin`.
pub(super) type Queue = VecDeque<(Pieces, bool)>;

#[derive(Default)]
pub(super) struct Held {
    streams: HashMap<(ConnId, StreamId), Queue>,
    /// Empty queues, kept to reuse their memory.
    spare: Vec<Queue>,
    count: usize,
}

/// Maximum number of spare queues.
const MAX_SPARE: usize = 64;

impl Held {
    /// Number of waiting sends.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether data of this stream waits, so that more data must wait behind it.
    pub(super) fn has(&self, conn: ConnId, id: StreamId) -> bool {
        self.count > 0 && self.streams.contains_key(&(conn, id))
    }

    /// Adds data behind the waiting data.
    pub(super) fn push(&mut self, conn: ConnId, id: StreamId, data: Pieces, fin: bool) {
        let queue = self.streams.entry((conn, id)).or_insert_with(|| self.spare.pop().unwrap_or_default());
        queue.push_back((data, fin));
        self.count += 1;
    }

    /// Takes the waiting data of a stream; [`Held::put`] returns what still has to wait.
    pub(super) fn take(&mut self, conn: ConnId, id: StreamId) -> Queue {
        let queue = self.streams.remove(&(conn, id)).unwrap_or_default();
        self.count -= queue.len();
        queue
    }

    /// Returns a queue taken with [`Held::take`].
    pub(super) fn put(&mut self, conn: ConnId, id: StreamId, queue: Queue) {
        self.count += queue.len();
        if !queue.is_empty() {
            self.streams.insert((conn, id), queue);
        } else if queue.capacity() > 0 && self.spare.len() < MAX_SPARE {
            self.spare.push(queue);
        }
    }

    /// Streams with waiting data, of one connection or of all, in order.
    pub(super) fn streams(&self, conn: Option<ConnId>) -> Vec<(ConnId, StreamId)> {
        let mut all: Vec<_> = self.streams.keys().copied().filter(|key| conn.is_none_or(|c| c == key.0)).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Side;
    use crate::quic::{Dir, SendData};

    fn pieces(data: impl Into<SendData>) -> Pieces {
        Pieces::One(data.into())
    }

    #[test]
    fn counts_and_keeps_order() {
        let stream = |n| StreamId::new(Side::Client, Dir::Bidi, n);
        let (a, b) = (ConnId::new(0, 0), ConnId::new(1, 0));
        let mut held = Held::default();
        for (conn, n) in [(b, 1), (a, 2), (b, 0)] {
            held.push(conn, stream(n), pieces("x"), false);
            held.push(conn, stream(n), Pieces::Many(vec!["y".into(), "y".into()]), true);
        }
        assert_eq!((held.len(), held.has(a, stream(2)), held.has(a, stream(1))), (6, true, false));
        assert_eq!(held.streams(Some(b)), [(b, stream(0)), (b, stream(1))]);
        assert_eq!(held.streams(None).len(), 3);
        let mut queue = held.take(a, stream(2));
        let fins: Vec<_> = queue.iter().map(|(_, fin)| *fin).collect();
        assert_eq!((held.len(), fins), (4, vec![false, true]));
        assert_eq!(queue.pop_back().unwrap().0.many().len(), 2, "pieces of one send stay together");
        queue.push_back((pieces("z"), true));
        queue.pop_front();
        held.put(a, stream(2), queue);
        assert_eq!((held.len(), held.has(a, stream(2))), (5, true));
        let mut queue = held.take(a, stream(2));
        queue.clear();
        held.put(a, stream(2), queue);
        assert_eq!((held.len(), held.has(a, stream(2)), held.take(a, stream(2)).len()), (4, false, 0));
    }
}
