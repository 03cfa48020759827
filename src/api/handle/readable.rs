//! A queue of pooled streams with data to take, each at most once.

use std::collections::{HashSet, VecDeque};

use crate::quic::{ConnId, StreamId};

#[derive(Default)]
pub(super) struct Readable {
    queue: VecDeque<(ConnId, StreamId)>,
    members: HashSet<(ConnId, StreamId)>,
}

impl Readable {
    /// Queues a stream unless it is already queued.
    pub(super) fn add(&mut self, conn: ConnId, id: StreamId) {
        if self.members.insert((conn, id)) {
            self.queue.push_back((conn, id));
        }
    }

    /// Takes the next stream.
    pub(super) fn pop(&mut self) -> Option<(ConnId, StreamId)> {
        let next = self.queue.pop_front()?;
        self.members.remove(&next);
        Some(next)
    }

    /// Takes all streams of a connection, in order.
    pub(super) fn take_all(&mut self, conn: ConnId) -> Vec<StreamId> {
        let of = |(c, _): &(ConnId, StreamId)| *c == conn;
        let all = self.queue.iter().copied().filter(of).map(|(_, id)| id).collect();
        self.queue.retain(|place| !of(place));
        self.members.retain(|place| !of(place));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Side;
    use crate::quic::Dir;

    #[test]
    fn streams_take_turns() {
        let conn = ConnId::new(0, 0);
        let stream = |n| StreamId::new(Side::Client, Dir::Uni, n);
        let mut readable = Readable::default();
        [0, 1, 0, 1].into_iter().for_each(|n| readable.add(conn, stream(n)));
        assert_eq!(readable.pop(), Some((conn, stream(0))));
        readable.add(conn, stream(0));
        assert_eq!(readable.pop(), Some((conn, stream(1))));
        readable.add(ConnId::new(1, 0), stream(7));
        readable.add(conn, stream(1));
        assert_eq!(readable.take_all(conn), [stream(0), stream(1)]);
        assert_eq!(readable.pop(), Some((ConnId::new(1, 0), stream(7))));
        assert_eq!(readable.pop(), None);
    }
}
