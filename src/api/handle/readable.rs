//! A queue of pooled streams, or connections, with data to take, each at most once.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

pub(super) struct Readable<K> {
    queue: VecDeque<K>,
    members: HashSet<K>,
}

impl<K: Copy + Eq + Hash> Readable<K> {
    /// Queues a member unless it is already queued.
    pub(super) fn add(&mut self, key: K) {
        if self.members.insert(key) {
            self.queue.push_back(key);
        }
    }

    /// Takes the next member.
    pub(super) fn pop(&mut self) -> Option<K> {
        let next = self.queue.pop_front()?;
        self.members.remove(&next);
        Some(next)
    }

    /// Takes all members that are `wanted`, in order.
    pub(super) fn take_all(&mut self, wanted: impl Fn(&K) -> bool) -> Vec<K> {
        let all = self.queue.iter().copied().filter(&wanted).collect();
        self.queue.retain(|key| !wanted(key));
        self.members.retain(|key| !wanted(key));
        all
    }
}

impl<K> Default for Readable<K> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), members: HashSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Side;
    use crate::quic::{ConnId, Dir, StreamId};

    #[test]
    fn streams_take_turns() {
        let conn = ConnId::new(0, 0);
        let stream = |n| StreamId::new(Side::Client, Dir::Uni, n);
        let mut readable = Readable::default();
        [0, 1, 0, 1].into_iter().for_each(|n| readable.add((conn, stream(n))));
        assert_eq!(readable.pop(), Some((conn, stream(0))));
        readable.add((conn, stream(0)));
        assert_eq!(readable.pop(), Some((conn, stream(1))));
        readable.add((ConnId::new(1, 0), stream(7)));
        readable.add((conn, stream(1)));
        assert_eq!(readable.take_all(|(of, _)| *of == conn), [(conn, stream(0)), (conn, stream(1))]);
        assert_eq!(readable.pop(), Some((ConnId::new(1, 0), stream(7))));
        assert_eq!(readable.pop(), None);
    }
}
