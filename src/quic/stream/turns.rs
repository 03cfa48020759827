//! Turns of other streams while the peer refuses one: priorities keep no stream from repeating what it lost for ever.
//!
//! A receiver that has no memory for what comes drops the packet, and acknowledges nothing. If it lets bytes beyond a gap
//! stay once they are acknowledged (RFC 9000 §2.2), its memory may be in the chunks of streams that have gaps, and comes
//! back only when these are filled. A sender with strict priorities (RFC 9218 §10) repeats the urgent stream's bytes first,
//! which are refused for as long as the gaps are open, and the gaps are never filled.
//!
//! So, when the first byte that the peer lacks of a stream was lost [`REFUSALS`] times in a row, others that have something
//! to repeat get turns before that stream goes on: one packet for all of them together, and after each further loss of that
//! byte twice as many. They take them in the order of their priorities, a packet each, round and round. As soon as the byte
//! is acknowledged, priorities are strict again; they always are for what was never sent before.
//!
//! A packet is refused whole. As long as a stream is held up like this, its data thus travels alone: neither
//! acknowledgements nor control frames, such as the credit or the reset that the peer may be waiting for, nor data of other
//! streams go into the same packet.
//!
//! Three losses of the same byte by chance are not rare at high loss rates; what that costs is one packet.

use std::collections::VecDeque;
use std::ops::Range;

use crate::quic::stream::Streams;
use crate::wire::quic::StreamId;

/// Losses in a row of the first byte that the peer lacks, after which it counts as refused.
pub(crate) const REFUSALS: u8 = 3;

/// At most two to the power of this many packets come before the next attempt: everything that others have to repeat.
const MAX_DOUBLINGS: u8 = 20;

/// A stream is held up.
#[derive(Debug)]
pub(crate) struct Turns {
    /// This one.
    refused: StreamId,
    /// Packets of others that come before its next one.
    left: u32,
    /// Who has yet to have a turn in this round, the next one in front.
    queue: VecDeque<StreamId>,
    /// Who has had one.
    served: VecDeque<StreamId>,
    /// There was a loss: for the next round, all streams are looked at.
    stale: bool,
}

impl Turns {
    fn new(refused: StreamId) -> Self {
        Self { refused, left: 0, queue: VecDeque::new(), served: VecDeque::new(), stale: true }
    }
}

impl Streams {
    /// A packet with `range` of a stream, and its FIN or not, was declared lost.
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

    /// Whether the peer refuses what it lacks first of a stream.
    pub(crate) fn is_refused(&self, id: StreamId) -> bool {
        self.get_ref(id).and_then(|stream| stream.send.as_ref()).is_some_and(|send| send.refusals() >= REFUSALS)
    }

    /// The stream that has a turn before `first`, which is refused and would be next. Looks at all streams that have
    /// something to send, once for each loss of what is refused.
    pub(crate) fn take_turn(&mut self, first: StreamId) -> Option<StreamId> {
        let mut turns = self.turns.take()?;
        let repeats = |id: &StreamId| {
            *id != first && self.get_ref(*id).and_then(|s| s.send.as_ref()).is_some_and(|send| send.repeats())
        };
        let mut next = None;
        // What is left of this round, and another one.
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
