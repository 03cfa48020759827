//! Turns for other streams while the peer refuses one, so that priorities cannot keep a stream from retransmitting
//! forever.
//!
//! A receiver without memory for a packet's data drops the packet and does not acknowledge it. If it keeps acknowledged
//! bytes beyond gaps (RFC 9000 §2.2), its memory may be held by streams with gaps, and is freed only when these are
//! filled. A sender with strict priorities (RFC 9218 §10) retransmits the urgent stream's bytes first, which are
//! refused as long as the gaps exist, and so the gaps are never filled.
//!
//! Therefore, when the first byte of a stream that the peer lacks was lost [`REFUSALS`] times in a row, other streams
//! with data to retransmit get turns before that stream continues: one packet for all of them together, and twice as
//! many after each further loss of that byte. They are served in the order of their priorities, a packet each, in
//! rounds. As soon as the byte is acknowledged, priorities are strict again; for data that was never sent, they always
//! are.
//!
//! A packet is refused as a whole. While a stream is held up, its data is therefore sent alone: the packet contains
//! neither acknowledgements nor control frames, such as credit or a reset that the peer may be waiting for, nor data of
//! other streams.
//!
//! At high loss rates, three losses of the same byte by chance are not rare; they cost one packet.

use std::collections::VecDeque;
use std::ops::Range;

use crate::quic::stream::Streams;
use crate::wire::quic::StreamId;

/// Number of consecutive losses of the first byte that the peer lacks, after which it counts as refused.
pub(crate) const REFUSALS: u8 = 3;

/// At most two to the power of this many packets come before the next attempt, which is everything that others have to
/// retransmit.
const MAX_DOUBLINGS: u8 = 20;

/// State while a stream is held up.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The refused stream.
    refused: StreamId,
    /// Number of packets of others before its next one.
    left: u32,
    /// Streams that have yet to get a turn in this round, in order.
    queue: VecDeque<StreamId>,
    /// Streams that have had their turn.
    served: VecDeque<StreamId>,
    /// Whether there was a loss, so that all streams are considered for the next round.
    stale: bool,
}

impl Turns {
    fn new(refused: StreamId) -> Self {
        Self { refused, left: 0, queue: VecDeque::new(), served: VecDeque::new(), stale: true }
    }
}

impl Streams {
    /// Handles the loss of a packet with `range` of a stream, and its FIN if `fin`.
    #[cold]
    pub(crate) fn packet_lost(&mut self, id: StreamId, range: &Range<u64>, fin: bool) {
        let Some(send) = self.get(id).and_then(|stream| stream.send.as_mut()) else { return };
        let Some(more) = send.first_lost(range, fin).checked_sub(REFUSALS) else { return };
        let left = 1 << more.min(MAX_DOUBLINGS);
        let turns = self.turns.get_or_insert_with(|| Box::new(Turns::new(id)));
        (turns.refused, turns.left, turns.stale) = (id, turns.left.max(left), true);
    }

    /// Whether a stream may be held up ([`Streams::held_up`] finds out).
    pub(crate) fn has_turns(&self) -> bool {
        self.turns.is_some()
    }

    /// Whether a stream is still held up. If not, no more turns are given.
    pub(crate) fn held_up(&mut self) -> bool {
        let held_up = self.turns.as_ref().is_some_and(|turns| self.is_refused(turns.refused));
        if !held_up {
            self.turns = None;
        }
        held_up
    }

    /// Whether the peer refuses the first byte of a stream that it lacks.
    pub(crate) fn is_refused(&self, id: StreamId) -> bool {
        self.get_ref(id).and_then(|stream| stream.send.as_ref()).is_some_and(|send| send.refusals() >= REFUSALS)
    }

    /// The stream that gets a turn before `first`, which is refused and would be next. Looks at all streams with
    /// something to send, once per loss of the refused byte.
    pub(crate) fn take_turn(&mut self, first: StreamId) -> Option<StreamId> {
        let mut turns = self.turns.take()?;
        let repeats = |id: &StreamId| {
            *id != first && self.get_ref(*id).and_then(|s| s.send.as_ref()).is_some_and(|send| send.repeats())
        };
        let mut next = None;
        // The rest of this round, and another one.
        for _ in 0..2 {
            if next.is_some() || turns.left == 0 {
                break;
            }
            next = std::iter::from_fn(|| turns.queue.pop_front()).find(repeats);
            if next.is_none() {
                let served = std::mem::take(&mut turns.served);
                turns.queue = if std::mem::take(&mut turns.stale) { self.send_queue.ranked() } else { served };
            }
        }
        match next {
            Some(id) => {
                turns.left -= 1;
                turns.served.push_back(id);
            }
            None => turns.left = 0,
        }
        self.turns = Some(turns);
        next
    }
}

#[cfg(test)]
mod tests;
