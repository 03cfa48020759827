//! The streams of one connection (RFC 9000 §2, §3): which exist, may be opened, and have work to do.

pub(crate) mod chunk;
pub(crate) mod gaps;
pub(crate) mod placement;
pub(crate) mod priority;
pub(crate) mod recv;
mod restart;
pub(crate) mod send;
pub(crate) mod turns;

use std::cell::Cell;
use std::collections::VecDeque;

use crate::base::Side;
use crate::base::id_map::IdMap;
use crate::base::range_set::RangeSet;
use crate::mem::{prefetch_line, prefetch_object};
use crate::quic::event::{Dir, Notify, OutOfSpace};
use crate::quic::flow::{SendCredit, is_update_due};
use crate::quic::stream::gaps::Gaps;
use crate::quic::stream::priority::{Priority, SendQueue};
use crate::quic::stream::recv::RecvStream;
use crate::quic::stream::send::{SendStream, Wants};
use crate::quic::stream::turns::Turns;
use crate::wire::quic::{StreamId, TransportError};

/// Maximum number of ended streams whose memory is kept for new ones.
const MAX_SPARE: usize = 256;

/// Maximum number of streams of one kind (RFC 9000 §4.6).
const MAX_STREAMS: u64 = 1 << 60;

/// No slot of the slab.
const NO_SLOT: u32 = u32::MAX;

/// Whether the peer knows of a stream.
///
/// For the peer, a stream of ours begins with the first frame that refers to it, whatever its type (RFC 9000 §3.2). But
/// widely used implementations ignore frames before the first STREAM frame, and wait forever for credit that they were
/// given. Therefore no other frame about a stream is sent before a STREAM frame, and those that may have overtaken it
/// are repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Introduced {
    /// No STREAM frame was sent, or it was lost.
    #[default]
    No,
    /// A STREAM frame was sent.
    Sent,
    /// Later packets, which may arrive before it, referred to the stream as well.
    Overtaken,
    /// A STREAM frame was acknowledged, or the stream is the peer's.
    Yes,
}

/// One stream. A part that does not exist for its kind is `None`.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) send: Option<SendStream>,
    pub(crate) recv: Option<RecvStream>,
    priority: Priority,
    in_send_queue: bool,
    /// Whether it is in the list of streams that wait for connection credit.
    starved: bool,
    pub(crate) notify: Notify,
    pub(crate) out_of_space: OutOfSpace,
    in_control_queue: bool,
    pub(crate) introduced: Introduced,
    pub(crate) dirty: bool,
    /// Number of contiguous bytes reported by the last event.
    pub(crate) reported: u64,
    /// Whether `Finished` was reported.
    pub(crate) finish_reported: bool,
}

impl Stream {
    /// A stream with these send and receive windows; `None` for a part that it does not have.
    fn new(send: Option<u64>, recv: Option<u64>) -> Self {
        Self {
            send: send.map(SendStream::new),
            recv: recv.map(RecvStream::new),
            priority: Priority::default(),
            in_send_queue: false,
            starved: false,
            notify: Notify::default(),
            out_of_space: OutOfSpace::default(),
            in_control_queue: false,
            introduced: Introduced::No,
            dirty: false,
            reported: 0,
            finish_reported: false,
        }
    }

    /// Resets everything but its memory, for [`Stream::reopen`].
    fn clear(&mut self) {
        // In place, as a stream is too large to be moved for each request.
        let Self {
            send,
            recv,
            priority,
            in_send_queue,
            starved,
            notify,
            out_of_space,
            in_control_queue,
            introduced,
            dirty,
            reported,
            finish_reported,
        } = self;
        if let Some(send) = send {
            send.clear();
        }
        if let Some(recv) = recv {
            recv.clear();
        }
        *priority = Priority::default();
        *notify = Notify::default();
        *out_of_space = OutOfSpace::default();
        (*in_send_queue, *starved, *in_control_queue, *dirty) = (false, false, false, false);
        (*reported, *finish_reported, *introduced) = (0, false, Introduced::No);
    }

    fn gap_bytes(&self) -> usize {
        self.recv.as_ref().map_or(0, RecvStream::gap_bytes)
    }

    /// Makes a new stream of a cleared one.
    fn reopen(&mut self, send: Option<u64>, recv: Option<u64>) {
        match (&mut self.send, send) {
            (Some(old), Some(limit)) => old.credit = SendCredit::new(limit),
            (old, send) => *old = send.map(SendStream::new),
        }
        match (&mut self.recv, recv) {
            (Some(old), Some(window)) => old.set_window(window),
            (old, recv) => *old = recv.map(RecvStream::new),
        }
    }
}

/// Initial windows of new streams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Windows {
    /// Bidirectional, opened by us.
    pub(crate) bidi_local: u64,
    /// Bidirectional, opened by the peer.
    pub(crate) bidi_remote: u64,
    pub(crate) uni: u64,
}

/// Stream counts of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Streams that we opened.
    opened: u64,
    /// Maximum set by the peer.
    limit: u64,
    /// Number of streams that the peer opened.
    peer_opened: u64,
    /// Maximum that we set.
    peer_limit: u64,
    /// Number of the peer's streams that have ended.
    peer_ended: u64,
    /// Maximum number of the peer's concurrent streams.
    concurrent: u64,
    limit_due: bool,
    /// The limit for which STREAMS_BLOCKED was sent.
    blocked_at: Option<u64>,
    wants_more: bool,
}

impl Count {
    /// The total number of streams that the peer may open, so that at most `concurrent` are open at a time.
    fn next_peer_limit(&self) -> u64 {
        (self.peer_ended + self.concurrent).min(MAX_STREAMS)
    }

    /// Raises the peer's limit if the difference is worth a frame.
    fn raise_if_due(&mut self) {
        let limit = self.next_peer_limit();
        if is_update_due(self.peer_opened, self.peer_limit, limit) {
            self.peer_limit = limit;
            self.limit_due = true;
        }
    }
}

/// State of a stream that a frame refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// It was created.
    New,
    /// It exists.
    Known,
    /// It has ended.
    Ended,
}

#[derive(Debug)]
pub(crate) struct Streams {
    side: Side,
    /// The slot of each stream in the slab.
    map: IdMap<StreamId, u32>,
    /// The streams, and ended ones to be reused.
    slab: Vec<Option<Box<Stream>>>,
    /// Slots of the slab without a stream.
    free: Vec<u32>,
    /// Number of them that hold the memory of an ended stream.
    spare: usize,
    /// The stream last looked up, which is often looked up next.
    last: Cell<(StreamId, u32)>,
    counts: [Count; 2],
    /// Streams of the peer that are open because it used one above them, but that no frame has referred to yet, by
    /// kind. They count against the peer's limit, which bounds them; most connections never have any.
    unnamed: Option<Box<[RangeSet; 2]>>,
    /// The windows that we announced.
    local: Windows,
    /// What the windows of pooled streams have grown to, or less than their initial sizes.
    sliding: u64,
    /// The windows that the peer announced, from its point of view.
    peer: Windows,
    send_queue: SendQueue,
    /// Streams that lack only connection credit; some no longer do.
    starved: Vec<StreamId>,
    /// Streams whose application waits for connection credit to send more than is queued.
    window_waits: Vec<StreamId>,
    control_queue: VecDeque<StreamId>,
    /// Streams with something to report to the application.
    pub(crate) dirty: Vec<StreamId>,
    /// Memory for the gaps of all streams.
    gaps: Gaps,
    /// Present while the peer refuses what a stream repeats.
    turns: Option<Box<Turns>>,
    /// Streams that wait for a higher limit after 0-RTT was rejected.
    withheld: Option<Box<restart::Withheld>>,
}

const fn slot(dir: Dir) -> usize {
    match dir {
        Dir::Bidi => 0,
        Dir::Uni => 1,
    }
}

impl Streams {
    pub(crate) fn new(side: Side, local: Windows, max_bidi: u64, max_uni: u64) -> Self {
        let count = |n| Count { peer_limit: n, concurrent: n, ..Count::default() };
        Self {
            side,
            map: IdMap::default(),
            slab: Vec::new(),
            free: Vec::new(),
            spare: 0,
            last: Cell::new((StreamId(0), NO_SLOT)),
            counts: [count(max_bidi), count(max_uni)],
            unnamed: None,
            local,
            sliding: 0,
            peer: Windows::default(),
            send_queue: SendQueue::default(),
            starved: Vec::new(),
            window_waits: Vec::new(),
            control_queue: VecDeque::new(),
            dirty: Vec::new(),
            gaps: Gaps::default(),
            turns: None,
            withheld: None,
        }
    }

    /// Applies the peer's transport parameters. Returns the kinds of streams that the application waits for and may
    /// open now.
    pub(crate) fn set_peer(&mut self, windows: Windows, max_bidi: u64, max_uni: u64) -> [Option<Dir>; 2] {
        self.peer = windows;
        let bidi = self.raise_limit(Dir::Bidi, max_bidi).then_some(Dir::Bidi);
        let uni = self.raise_limit(Dir::Uni, max_uni).then_some(Dir::Uni);
        [bidi, uni]
    }

    /// Has the windows of pooled streams grow to `window`, or become as small again.
    pub(crate) fn set_sliding_window(&mut self, window: u64) {
        self.sliding = window;
    }

    /// The size of windows for [`RecvStream::slide`].
    pub(crate) fn sliding_window(&self) -> u64 {
        self.sliding
    }

    /// Prefetches the lists.
    pub(crate) fn prefetch_lists(&self) {
        prefetch_line(self.slab.as_ptr());
        prefetch_line(self.free.as_ptr());
        prefetch_line(self.dirty.as_ptr());
        self.send_queue.prefetch();
    }

    /// Prefetches the first streams, once the lists are in the cache.
    pub(crate) fn prefetch_streams(&self) {
        for stream in self.slab.iter().take(2).flatten() {
            prefetch_object(&**stream);
        }
    }

    /// The slot of `id` in the slab.
    fn find(&self, id: StreamId) -> Option<usize> {
        let (last, slot) = self.last.get();
        if last == id && slot != NO_SLOT {
            return Some(slot as usize);
        }
        let slot = *self.map.get(&id)?;
        self.last.set((id, slot));
        Some(slot as usize)
    }

    pub(crate) fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        let slot = self.find(id)?;
        self.slab[slot].as_deref_mut()
    }

    /// The receiving part of `id`, and the counter of its gaps.
    pub(crate) fn receiver(&mut self, id: StreamId) -> Option<(&mut RecvStream, &mut Gaps)> {
        let slot = self.find(id)?;
        Some((self.slab[slot].as_deref_mut()?.recv.as_mut()?, &mut self.gaps))
    }

    /// The stream that was looked up last, if it receives.
    pub(crate) fn latest_receiver(&mut self) -> Option<(StreamId, &mut RecvStream)> {
        let (id, slot) = self.last.get();
        let stream = self.slab.get_mut(slot as usize)?.as_deref_mut()?;
        Some((id, stream.recv.as_mut()?))
    }

    /// Size of the lists of received ranges of all streams, in bytes.
    #[cfg(test)]
    pub(crate) fn gap_bytes(&self) -> usize {
        self.gaps.used()
    }

    pub(crate) fn get_ref(&self, id: StreamId) -> Option<&Stream> {
        self.slab[self.find(id)?].as_deref()
    }

    pub(crate) fn is_local(&self, id: StreamId) -> bool {
        id.initiator() == self.side
    }

    /// Initial send and receive windows of a new stream, for the parts that it has.
    fn windows(&self, id: StreamId) -> (Option<u64>, Option<u64>) {
        match (id.dir(), self.is_local(id)) {
            (Dir::Bidi, true) => (Some(self.peer.bidi_remote), Some(self.local.bidi_local)),
            (Dir::Bidi, false) => (Some(self.peer.bidi_local), Some(self.local.bidi_remote)),
            (Dir::Uni, true) => (Some(self.peer.uni), None),
            (Dir::Uni, false) => (None, Some(self.local.uni)),
        }
    }

    /// A free slot of the slab.
    fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() as u32 - 1
        })
    }

    fn insert(&mut self, id: StreamId) {
        let (send, recv) = self.windows(id);
        let introduced = if self.is_local(id) { Introduced::No } else { Introduced::Yes };
        let slot = self.free_slot();
        let place = &mut self.slab[slot as usize];
        match place {
            Some(old) => {
                let before = old.gap_bytes();
                self.spare -= 1;
                old.reopen(send, recv);
                self.gaps.changed(before, old.gap_bytes());
            }
            None => *place = Some(Box::new(Stream::new(send, recv))),
        }
        if let Some(stream) = place {
            stream.introduced = introduced;
        }
        self.map.insert(id, slot);
    }

    /// Removes a stream; its memory may be reused.
    fn remove(&mut self, id: StreamId) {
        let Some(slot) = self.map.remove(&id) else { return };
        self.last.set((id, NO_SLOT));
        let place = &mut self.slab[slot as usize];
        let before = place.as_ref().map_or(0, |stream| stream.gap_bytes());
        match place {
            Some(stream) if self.spare < MAX_SPARE => {
                // Releases all memory of the application and the pool.
                stream.clear();
                self.spare += 1;
            }
            _ => *place = None,
        }
        self.gaps.changed(before, place.as_ref().map_or(0, |stream| stream.gap_bytes()));
        self.free.push(slot);
    }

    /// Number of streams that we have opened.
    pub(crate) fn opened(&self, dir: Dir) -> u64 {
        self.counts[slot(dir)].opened
    }

    /// Opens a stream of ours; `None` if the peer's limit is reached.
    pub(crate) fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let count = &mut self.counts[slot(dir)];
        if count.opened >= count.limit {
            count.wants_more = true;
            return None;
        }
        let id = StreamId::new(self.side, dir, count.opened);
        count.opened += 1;
        self.insert(id);
        Some(id)
    }

    /// Handles MAX_STREAMS. True if the application waits for it.
    pub(crate) fn raise_limit(&mut self, dir: Dir, limit: u64) -> bool {
        let count = &mut self.counts[slot(dir)];
        let grew = limit > count.limit;
        count.limit = count.limit.max(limit);
        let wanted = grew && std::mem::take(&mut count.wants_more);
        if self.withheld.is_some() {
            self.release_withheld();
        }
        wanted
    }

    /// Direction and limit of a STREAMS_BLOCKED frame to send.
    pub(crate) fn streams_blocked_due(&self) -> Option<(Dir, u64)> {
        [Dir::Bidi, Dir::Uni].into_iter().find_map(|dir| {
            let c = &self.counts[slot(dir)];
            (c.wants_more && c.blocked_at != Some(c.limit)).then_some((dir, c.limit))
        })
    }

    pub(crate) fn streams_blocked_sent(&mut self, dir: Dir, limit: u64) {
        self.counts[slot(dir)].blocked_at = Some(limit);
    }

    pub(crate) fn streams_blocked_lost(&mut self, dir: Dir) {
        self.counts[slot(dir)].blocked_at = None;
    }

    /// Direction and limit of a MAX_STREAMS frame to send.
    pub(crate) fn max_streams_due(&self) -> Option<(Dir, u64)> {
        [Dir::Bidi, Dir::Uni].into_iter().find_map(|dir| {
            let c = &self.counts[slot(dir)];
            c.limit_due.then_some((dir, c.peer_limit))
        })
    }

    pub(crate) fn max_streams_sent(&mut self, dir: Dir) {
        self.counts[slot(dir)].limit_due = false;
    }

    pub(crate) fn max_streams_lost(&mut self, dir: Dir) {
        self.counts[slot(dir)].limit_due = true;
    }

    /// Handles a reference to `id` in a frame: creates the stream if it is one of the peer's to which no frame has
    /// referred yet (RFC 9000 §3.2).
    ///
    /// All lower streams of the same kind then count as open (RFC 9000 §2.1), but each is created only when a frame
    /// refers to it, so that the cost of a frame does not depend on how many streams it opens.
    ///
    /// # Errors
    /// If the stream is beyond the peer's limit, or only we may open it.
    pub(crate) fn ensure(&mut self, id: StreamId) -> Result<Named, TransportError> {
        let (dir, index) = (id.dir(), id.index());
        let known = |this: &Self| if this.find(id).is_some() { Named::Known } else { Named::Ended };
        let count = &mut self.counts[slot(dir)];
        if id.initiator() == self.side {
            return if index < count.opened { Ok(known(self)) } else { Err(TransportError::STREAM_STATE_ERROR) };
        }
        if index >= count.peer_limit {
            return Err(TransportError::STREAM_LIMIT_ERROR);
        }
        if index >= count.peer_opened {
            let skipped = count.peer_opened..index;
            count.peer_opened = index + 1;
            if !skipped.is_empty() {
                self.unnamed.get_or_insert_default()[slot(dir)].insert(skipped);
            }
            self.insert(id);
            return Ok(Named::New);
        }
        if let Some(unnamed) = &mut self.unnamed
            && unnamed[slot(dir)].contains(index)
        {
            unnamed[slot(dir)].remove(index..index + 1);
            self.insert(id);
            return Ok(Named::New);
        }
        Ok(known(self))
    }

    /// Removes a stream if both of its parts have ended, and lets the peer open another.
    pub(crate) fn remove_if_done(&mut self, id: StreamId) {
        let Some(stream) = self.get_ref(id) else { return };
        let send_done = stream.send.as_ref().is_none_or(SendStream::is_done);
        let recv_done = stream.recv.as_ref().is_none_or(RecvStream::is_done);
        if !send_done || !recv_done || stream.dirty {
            return;
        }
        self.remove(id);
        if !self.is_local(id) {
            let count = &mut self.counts[slot(id.dir())];
            count.peer_ended += 1;
            count.raise_if_due();
        }
    }

    /// Handles STREAMS_BLOCKED at `limit`: if our limit is newer, it is announced again (RFC 9000 §4.6), once per such
    /// frame. The peer may be blocked by streams that it has opened without sending anything on them.
    pub(crate) fn peer_blocked(&mut self, dir: Dir, limit: u64) {
        let count = &mut self.counts[slot(dir)];
        count.peer_limit = count.peer_limit.max(count.next_peer_limit());
        count.limit_due |= limit < count.peer_limit;
    }

    /// Queues the stream, which has data to send.
    pub(crate) fn queue_send(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id)
            && !std::mem::replace(&mut stream.in_send_queue, true)
        {
            let priority = stream.priority;
            self.send_queue.push(id, priority);
        }
    }

    /// Changes the priority of a stream in the send queue. False if there is no such stream.
    pub(crate) fn set_priority(&mut self, id: StreamId, priority: Priority) -> bool {
        let Some(stream) = self.get(id).filter(|s| s.send.is_some()) else { return false };
        let old = std::mem::replace(&mut stream.priority, priority);
        let withheld = self.withheld.as_ref().is_some_and(|withheld| withheld.contains(&id));
        let Some(stream) = self.get(id).filter(|_| !withheld) else { return true };
        if old != priority && stream.in_send_queue {
            self.send_queue.remove(id, old);
            self.send_queue.push(id, priority);
        }
        true
    }

    /// Queues the stream, which has a control frame to send.
    pub(crate) fn queue_control(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id)
            && !std::mem::replace(&mut stream.in_control_queue, true)
        {
            self.control_queue.push_back(id);
        }
    }

    /// Queues the stream, which has something to report to the application.
    pub(crate) fn mark_dirty(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id)
            && !std::mem::replace(&mut stream.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// The stream that sends next, given `credit` bytes of connection credit. Streams that cannot send are moved to the
    /// list for what they lack.
    pub(crate) fn next_send(&mut self, credit: u64) -> Option<StreamId> {
        while let Some(id) = self.send_queue.front() {
            let Some(stream) = self.get(id) else {
                self.send_queue.pop();
                continue;
            };
            let send = stream.send.as_ref();
            if send.is_some_and(|send| send.can_send(credit)) {
                return Some(id);
            }
            let starved = send.is_some_and(SendStream::is_starved);
            let blocked = send.is_some_and(SendStream::is_blocked);
            let resets = send.is_some_and(|send| send.reset_at_due().is_some());
            stream.in_send_queue = false;
            let starves = starved && !std::mem::replace(&mut stream.starved, true);
            self.send_queue.pop();
            if starves {
                self.starved.push(id);
            }
            if blocked || resets {
                self.queue_control(id);
            }
        }
        None
    }

    /// Whether any stream is in the queue; the last call of [`Streams::next_send`] has removed those that cannot send.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.send_queue.front().is_some()
    }

    /// The stream that sends next, if it remains the next one after sending a packet.
    pub(crate) fn front_alone(&self) -> Option<StreamId> {
        self.send_queue.front().filter(|_| self.send_queue.keeps_front())
    }

    /// Ends the turn of the stream in front.
    pub(crate) fn rotate_send(&mut self) {
        self.send_queue.rotate();
    }

    /// Number of bytes, beyond those queued, that the peer accepts on a stream, given `credit` bytes of connection
    /// credit. If it is 0, the application is notified when the window opens ([`Streams::window_opened`]).
    pub(crate) fn send_window(&mut self, id: StreamId, credit: u64) -> u64 {
        let Some(send) = self.get(id).and_then(|s| s.send.as_mut()).filter(|s| s.is_writable()) else { return 0 };
        let window = send.window(credit);
        if window > 0 || send.wants_window == Wants::Connection {
            return window;
        }
        if send.window(u64::MAX) > 0 {
            send.wants_window = Wants::Connection;
            self.window_waits.push(id);
        } else {
            send.wants_window = Wants::Stream;
        }
        0
    }

    /// Checks whether the application waits for a window that may have opened and has to be notified.
    pub(crate) fn window_opened(&mut self, id: StreamId, credit: u64) -> bool {
        let Some(send) = self.get(id).and_then(|s| s.send.as_mut()) else { return false };
        if send.wants_window == Wants::Nothing || !send.is_writable() {
            return false;
        }
        if send.window(credit) > 0 {
            send.wants_window = Wants::Nothing;
            return true;
        }
        // It may now lack something that it did not lack before.
        send.wants_window = Wants::Stream;
        self.send_window(id, credit);
        false
    }

    /// Takes the streams that wait for connection credit, to check them when there is more.
    pub(crate) fn take_window_waits(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.window_waits)
    }

    /// Queues the streams that wait for connection credit, when there is more.
    pub(crate) fn credit_raised(&mut self) {
        let mut starved = std::mem::take(&mut self.starved);
        for id in starved.drain(..) {
            if let Some(stream) = self.get(id) {
                stream.starved = false;
                self.queue_send(id);
            }
        }
        self.starved = starved;
    }

    /// Whether a stream's data waits only for connection credit.
    pub(crate) fn blocked_by_connection(&self) -> bool {
        let send = |id| self.get_ref(id).and_then(|s| s.send.as_ref());
        self.starved.iter().any(|id| send(*id).is_some_and(SendStream::is_starved))
    }

    /// Marks streams that wait for stream credit to report that again. False if there are none. Looks at all streams.
    pub(crate) fn repeat_blocked(&mut self) -> bool {
        let mut ids = Vec::new();
        let withheld = self.withheld.as_deref();
        for (id, slot) in self.map.iter().filter(|(id, _)| !withheld.is_some_and(|ids| ids.contains(id))) {
            let send = self.slab[*slot as usize].as_mut().and_then(|stream| stream.send.as_mut());
            if let Some(send) = send.filter(|send| send.is_blocked()) {
                send.credit.blocked_lost();
                ids.push(*id);
            }
        }
        ids.sort_unstable();
        ids.iter().for_each(|id| self.queue_control(*id));
        !ids.is_empty()
    }

    /// Whether the peer has used up all credit of a stream and may be waiting for more. Looks at all streams.
    pub(crate) fn owes_credit(&self) -> bool {
        self.slab.iter().flatten().any(|stream| stream.recv.as_ref().is_some_and(RecvStream::owes_credit))
    }

    /// Whether the peer can send data of any stream that has not come yet. Looks at all streams.
    pub(crate) fn expects_data(&self) -> bool {
        self.slab.iter().flatten().any(|stream| stream.recv.as_ref().is_some_and(RecvStream::expects_data))
    }

    pub(crate) fn front_control(&self) -> Option<StreamId> {
        self.control_queue.front().copied()
    }

    pub(crate) fn pop_control(&mut self) {
        if let Some(id) = self.control_queue.pop_front()
            && let Some(stream) = self.get(id)
        {
            stream.in_control_queue = false;
        }
    }

    /// Reports to the application once more every pooled stream that is not read to its end.
    pub(crate) fn tell_again(&mut self) {
        let mut ids: Vec<_> = Vec::new();
        for (id, slot) in &self.map {
            let Some(stream) = &mut self.slab[*slot as usize] else { continue };
            if let Some(recv) = stream.recv.as_ref().filter(|r| r.is_readable()) {
                stream.reported = stream.reported.min(recv.consumed());
                stream.finish_reported = false;
                ids.push(*id);
            }
        }
        ids.sort_unstable();
        // The last one marked is reported first.
        ids.iter().rev().for_each(|id| self.mark_dirty(*id));
    }

    /// Reinserts a drained stream, which is kept until it is read.
    pub(crate) fn put_back(&mut self, id: StreamId, stream: Box<Stream>) {
        let slot = self.free_slot();
        self.slab[slot as usize] = Some(stream);
        self.map.insert(id, slot);
    }

    /// Removes all streams, to end them with the connection.
    pub(crate) fn drain(&mut self) -> Vec<(StreamId, Box<Stream>)> {
        self.send_queue.clear();
        self.starved.clear();
        self.window_waits.clear();
        self.control_queue.clear();
        self.dirty.clear();
        self.last.set((StreamId(0), NO_SLOT));
        let slab = &mut self.slab;
        let streams = self.map.drain().filter_map(|(id, slot)| Some((id, slab[slot as usize].take()?)));
        let mut all: Vec<_> = streams.collect();
        all.sort_by_key(|(id, _)| *id);
        self.slab.clear();
        self.free.clear();
        self.spare = 0;
        self.gaps = Gaps::default();
        self.turns = None;
        self.withheld = None;
        all
    }

    /// Number of bytes of pool memory that streams hold.
    pub(crate) fn held(&self) -> usize {
        self.slab.iter().flatten().filter_map(|stream| stream.recv.as_ref()).map(RecvStream::held).sum()
    }

    /// Number of streams.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests;
