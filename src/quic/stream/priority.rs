//! The order in which streams send: the scheme of RFC 9218 §4, with a queue per urgency.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::mem::prefetch_line;
use crate::wire::quic::StreamId;

/// Number of urgency levels.
const LEVELS: usize = 8;

/// The priority of a stream's data among the connection's streams, in the terms of RFC 9218 §4.
///
/// It determines the order in which this end sends, including retransmissions; it is not sent to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority {
    /// From 0, sent first, to 7, sent last; larger values count as 7. Nothing is sent on a stream while one with a
    /// lower value can send.
    pub urgency: u8,
    /// Streams of one urgency that are not incremental send one after the other, in the order of their IDs. Incremental
    /// streams come after them and are interleaved packet by packet.
    pub incremental: bool,
}

impl Default for Priority {
    /// Urgency 3, not incremental (RFC 9218 §4.1, §4.2).
    fn default() -> Self {
        Self { urgency: 3, incremental: false }
    }
}

impl Priority {
    fn level(self) -> usize {
        usize::from(self.urgency).min(LEVELS - 1)
    }
}

/// Streams that want to send, in order.
///
/// Finding the next one takes two look-ups, whatever the number of streams. Nothing is allocated once the queues have
/// grown to their maximum size.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    /// Streams that are not incremental, by urgency and ID.
    ordered: BinaryHeap<Reverse<(u8, StreamId)>>,
    /// Incremental streams, by urgency. Few connections have any, so the list is only as long as the highest urgency in
    /// use.
    rotating: Vec<VecDeque<StreamId>>,
    /// Bit `n` is set if `rotating[n]` is not empty.
    occupied: u8,
}

impl SendQueue {
    /// Prefetches the list of streams.
    pub(crate) fn prefetch(&self) {
        prefetch_line(self.ordered.as_slice().as_ptr());
    }

    /// Adds a stream that is not in the queue.
    pub(crate) fn push(&mut self, id: StreamId, priority: Priority) {
        let level = priority.level();
        if priority.incremental {
            if self.rotating.len() <= level {
                self.rotating.resize_with(level + 1, VecDeque::new);
            }
            self.rotating[level].push_back(id);
            self.occupied |= 1 << level;
        } else {
            self.ordered.push(Reverse((level as u8, id)));
        }
    }

    /// The urgency of the incremental streams whose turn it is; `None` if a non-incremental stream is next, or none.
    fn rotation(&self) -> Option<usize> {
        let level = self.occupied.trailing_zeros() as usize;
        let ordered = self.ordered.peek().map_or(LEVELS, |Reverse((urgency, _))| usize::from(*urgency));
        (level < LEVELS && level < ordered).then_some(level)
    }

    /// The stream that sends next.
    pub(crate) fn front(&self) -> Option<StreamId> {
        match self.rotation() {
            Some(level) => self.rotating[level].front().copied(),
            None => self.ordered.peek().map(|Reverse((_, id))| *id),
        }
    }

    /// Whether [`SendQueue::rotate`] leaves the front stream in its place.
    pub(crate) fn keeps_front(&self) -> bool {
        self.rotation().is_none_or(|level| self.rotating[level].len() == 1)
    }

    /// Removes the front stream.
    pub(crate) fn pop(&mut self) {
        match self.rotation() {
            Some(level) => {
                self.rotating[level].pop_front();
                self.note(level);
            }
            None => drop(self.ordered.pop()),
        }
    }

    /// Ends the turn of the front stream: if it is incremental, it moves behind the others.
    pub(crate) fn rotate(&mut self) {
        if let Some(level) = self.rotation() {
            self.rotating[level].rotate_left(1);
        }
    }

    /// Removes a stream from any position. Looks at all streams of the priority that it was added with.
    pub(crate) fn remove(&mut self, id: StreamId, priority: Priority) {
        if priority.incremental {
            let level = priority.level();
            if let Some(queue) = self.rotating.get_mut(level) {
                queue.retain(|other| *other != id);
                self.note(level);
            }
        } else {
            self.ordered.retain(|Reverse((_, other))| *other != id);
        }
    }

    /// All streams in order.
    pub(crate) fn ranked(&self) -> VecDeque<StreamId> {
        let mut ordered: Vec<_> = self.ordered.iter().map(|Reverse(entry)| *entry).collect();
        ordered.sort_unstable();
        let mut ordered = ordered.into_iter().peekable();
        let mut all = VecDeque::with_capacity(ordered.len());
        for level in 0..LEVELS {
            while let Some((_, id)) = ordered.next_if(|(urgency, _)| usize::from(*urgency) == level) {
                all.push_back(id);
            }
            all.extend(self.rotating.get(level).into_iter().flatten());
        }
        all
    }

    fn note(&mut self, level: usize) {
        let bit = 1 << level;
        self.occupied = if self.rotating[level].is_empty() { self.occupied & !bit } else { self.occupied | bit };
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::base::Side;
    use crate::quic::event::Dir;

    fn stream(n: u64) -> StreamId {
        StreamId::new(Side::Client, Dir::Bidi, n)
    }

    fn priority(urgency: u8, incremental: bool) -> Priority {
        Priority { urgency, incremental }
    }

    /// The streams that send the next `n` packets.
    fn turns(queue: &mut SendQueue, n: usize) -> Vec<u64> {
        (0..n)
            .map(|_| {
                let id = queue.front().unwrap();
                queue.rotate();
                id.index()
            })
            .collect()
    }

    #[test]
    fn urgent_ones_first_then_by_id_then_in_turn() {
        let mut queue = SendQueue::default();
        let streams =
            [(0, 3, true), (1, 3, true), (2, 3, false), (4, 3, false), (3, 3, false), (5, 0, true), (6, 255, false)];
        for (id, urgency, incremental) in streams {
            queue.push(stream(id), priority(urgency, incremental));
        }
        assert_eq!(queue.ranked().iter().map(|id| id.index()).collect::<Vec<_>>(), [5, 2, 3, 4, 0, 1, 6]);
        let mut order = Vec::new();
        for packets in [2, 2, 2, 2] {
            order.extend(turns(&mut queue, packets));
            queue.pop();
        }
        assert_eq!(order, [5, 5, 2, 2, 3, 3, 4, 4]);
        assert_eq!(turns(&mut queue, 4), [0, 1, 0, 1]);
        queue.remove(stream(0), priority(3, true));
        assert_eq!(turns(&mut queue, 2), [1, 1]);
        queue.pop();
        assert_eq!(queue.front(), Some(stream(6)));
        queue.remove(stream(6), priority(7, false));
        assert_eq!(queue.front(), None);
        queue.pop();
        queue.rotate();
    }

    proptest! {
        /// Compares with a list that is sorted each time.
        #[test]
        fn behaves_like_a_sorted_list(
            ops in proptest::collection::vec((0u8..4, 0u64..12, 0u8..9, any::<bool>()), 1..200),
        ) {
            let mut queue = SendQueue::default();
            // (level, incremental, ID or turn, stream) and the priority that it was added with.
            let mut list: Vec<((usize, bool, u64), StreamId, Priority)> = Vec::new();
            for (turn, (op, index, urgency, incremental)) in (1 << 32..).zip(ops) {
                let (id, priority) = (stream(index), priority(urgency, incremental));
                list.sort_by_key(|(key, ..)| *key);
                match op {
                    0 | 1 if list.iter().all(|(_, other, _)| *other != id) => {
                        queue.push(id, priority);
                        let order = if incremental { turn } else { id.0 };
                        list.push(((priority.level(), incremental, order), id, priority));
                    }
                    2 => {
                        if let Some(((_, incremental, order), ..)) = list.first_mut().filter(|((_, i, _), ..)| *i) {
                            debug_assert!(*incremental);
                            *order = turn;
                        }
                        queue.rotate();
                    }
                    3 if index % 2 == 0 => {
                        queue.pop();
                        list.drain(..list.len().min(1));
                    }
                    _ => {
                        if let Some(at) = list.iter().position(|(_, other, _)| *other == id) {
                            let (_, id, priority) = list.remove(at);
                            queue.remove(id, priority);
                        }
                    }
                }
                let first = list.iter().min_by_key(|(key, ..)| *key).map(|(_, id, _)| *id);
                prop_assert_eq!(queue.front(), first);
            }
        }
    }
}
