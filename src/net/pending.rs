//! Frames that wait for their neighbour's MAC address.

use std::collections::VecDeque;

use crate::datapath::TxFrame;
use crate::wire::eth::Mac;

/// No frame.
const NONE: u32 = u32::MAX;

/// The frames that wait for one neighbour, oldest first.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
    len: u32,
}

/// Frames that wait for neighbours, and those that are ready. Operations on one neighbour's frames do not depend on the
/// number of others.
#[derive(Debug)]
pub(super) struct Pending<T> {
    /// Frames, each linked to the next one of the same neighbour.
    frames: Vec<(Option<T>, u32)>,
    free: Vec<u32>,
    /// Indexed by the neighbour's slot in the table.
    queues: Box<[Queue]>,
    ready: VecDeque<T>,
    max_each: usize,
}

/// The outcome of queueing a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// It was queued.
    Waits,
    /// It was queued, and an older one was dropped.
    PushedOut,
    /// It was dropped: too many frames wait in total, each for a different neighbour.
    Full,
}

impl<T: TxFrame> Pending<T> {
    /// Creates queues for `max` frames in total, with `max_each` for each of `places` neighbours.
    pub(super) fn new(max: usize, max_each: usize, places: usize) -> Self {
        Self {
            frames: (0..max).map(|_| (None, NONE)).collect(),
            free: (0..max as u32).rev().collect(),
            queues: vec![Queue { first: NONE, last: NONE, len: 0 }; places].into(),
            ready: VecDeque::with_capacity(max),
            max_each,
        }
    }

    /// Returns whether a frame for `place`, which may have one more, needs another frame to be dropped.
    pub(super) fn wants_room(&self, place: u32) -> bool {
        self.is_full() && self.waiting(place) < self.max_each
    }

    /// The number of frames that wait at `place`.
    pub(super) fn waiting(&self, place: u32) -> usize {
        self.queues[place as usize].len as usize
    }

    fn is_full(&self) -> bool {
        self.free.len() <= self.ready.len()
    }

    /// Queues `frame`, complete except for its destination MAC address. The newest frames matter most (RFC 4861
    /// §7.2.2): if there is no room, the neighbour with the most frames loses its oldest one, if it has at least two.
    pub(super) fn push(&mut self, place: u32, frame: T) -> Queued {
        let own = self.waiting(place);
        let full = self.is_full();
        if own >= self.max_each || full {
            // Ready frames count too, and cannot be dropped.
            let loser = if own > 0 { Some(place) } else { self.longest() };
            let loser = loser.filter(|_| self.free.len() >= self.ready.len());
            if loser.and_then(|loser| self.pop_of(loser)).is_none() {
                return Queued::Full;
            }
        }
        let Some(at) = self.free.pop() else { return Queued::Full };
        self.frames[at as usize] = (Some(frame), NONE);
        let queue = &mut self.queues[place as usize];
        let last = std::mem::replace(&mut queue.last, at);
        queue.len += 1;
        if last == NONE {
            queue.first = at;
        } else {
            self.frames[last as usize].1 = at;
        }
        if own >= self.max_each || full { Queued::PushedOut } else { Queued::Waits }
    }

    fn longest(&self) -> Option<u32> {
        let (place, longest) = self.queues.iter().enumerate().max_by_key(|(_, queue)| queue.len)?;
        (longest.len > 1).then_some(place as u32)
    }

    fn pop_of(&mut self, place: u32) -> Option<T> {
        let queue = &mut self.queues[place as usize];
        let (frame, next) = self.frames.get_mut(queue.first as usize)?;
        let frame = frame.take();
        self.free.push(queue.first);
        queue.first = *next;
        queue.len -= 1;
        if queue.first == NONE {
            queue.last = NONE;
        }
        frame
    }

    /// Makes the frames that wait at `place` ready; returns their number.
    pub(super) fn release(&mut self, place: u32, mac: Mac) -> usize {
        let before = self.ready.len();
        while let Some(mut frame) = self.pop_of(place) {
            if let Some(dst) = frame.data_mut().first_chunk_mut() {
                *dst = mac.0;
            }
            self.ready.push_back(frame);
        }
        self.ready.len() - before
    }

    /// Drops the frames that wait at `place`; returns their number.
    pub(super) fn give_up(&mut self, place: u32) -> usize {
        std::iter::from_fn(|| self.pop_of(place)).count()
    }

    /// The next ready frame.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.ready.pop_front()
    }
}
