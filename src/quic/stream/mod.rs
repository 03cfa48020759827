//! The streams of one connection (RFC 9000 §2, §3): which exist, which may be opened, which have work.

pub(crate) mod chunk;
pub(crate) mod placement;
pub(crate) mod recv;
pub(crate) mod send;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::base::Side;
use crate::quic::event::Dir;
use crate::quic::stream::recv::RecvStream;
use crate::quic::stream::send::SendStream;
use crate::wire::quic::{StreamId, TransportError};

/// Stream IDs are small consecutive numbers within limits that we set: mixing them is enough,
/// and unlike a seeded hash it keeps simulated runs the same.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// One stream; a part that does not exist for its kind is `None`, one that has ended too.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) send: Option<SendStream>,
    pub(crate) recv: Option<RecvStream>,
    in_send_queue: bool,
    in_control_queue: bool,
    pub(crate) dirty: bool,
    /// Contiguous bytes that the last event told of.
    pub(crate) reported: u64,
    /// `Finished` was told.
    pub(crate) finish_reported: bool,
}

/// Windows that new streams start with.
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
    /// How many the peer lets us open.
    limit: u64,
    /// Streams that the peer opened.
    peer_opened: u64,
    /// How many we let it open.
    peer_limit: u64,
    /// How many of its streams have ended for good.
    peer_ended: u64,
    /// How many it may have open at a time.
    concurrent: u64,
    limit_due: bool,
    /// STREAMS_BLOCKED was sent for this limit.
    blocked_at: Option<u64>,
    wants_more: bool,
}

#[derive(Debug)]
pub(crate) struct Streams {
    side: Side,
    map: HashMap<StreamId, Box<Stream>, BuildHasherDefault<IdHasher>>,
    counts: [Count; 2],
    /// What we announced.
    local: Windows,
    /// What the peer announced, from its point of view.
    peer: Windows,
    send_queue: VecDeque<StreamId>,
    control_queue: VecDeque<StreamId>,
    /// Streams with something to tell the application.
    pub(crate) dirty: Vec<StreamId>,
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
            map: HashMap::default(),
            counts: [count(max_bidi), count(max_uni)],
            local,
            peer: Windows::default(),
            send_queue: VecDeque::new(),
            control_queue: VecDeque::new(),
            dirty: Vec::new(),
        }
    }

    /// The peer's transport parameters are known.
    pub(crate) fn set_peer(&mut self, windows: Windows, max_bidi: u64, max_uni: u64) {
        self.peer = windows;
        self.counts[0].limit = self.counts[0].limit.max(max_bidi);
        self.counts[1].limit = self.counts[1].limit.max(max_uni);
    }

    pub(crate) fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.map.get_mut(&id).map(|s| &mut **s)
    }

    pub(crate) fn get_ref(&self, id: StreamId) -> Option<&Stream> {
        self.map.get(&id).map(|s| &**s)
    }

    pub(crate) fn is_local(&self, id: StreamId) -> bool {
        id.initiator() == self.side
    }

    fn insert(&mut self, id: StreamId) {
        let local = self.is_local(id);
        let dir = id.dir();
        let send = (dir == Dir::Bidi || local).then(|| {
            SendStream::new(match (dir, local) {
                (Dir::Uni, _) => self.peer.uni,
                (Dir::Bidi, true) => self.peer.bidi_remote,
                (Dir::Bidi, false) => self.peer.bidi_local,
            })
        });
        let recv = (dir == Dir::Bidi || !local).then(|| {
            RecvStream::new(match (dir, local) {
                (Dir::Uni, _) => self.local.uni,
                (Dir::Bidi, true) => self.local.bidi_local,
                (Dir::Bidi, false) => self.local.bidi_remote,
            })
        });
        let stream = Stream {
            send,
            recv,
            in_send_queue: false,
            in_control_queue: false,
            dirty: false,
            reported: 0,
            finish_reported: false,
        };
        self.map.insert(id, Box::new(stream));
    }

    /// Opens a stream of ours; `None` when the peer's limit is reached.
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

    /// MAX_STREAMS. True if the application waits for it.
    pub(crate) fn raise_limit(&mut self, dir: Dir, limit: u64) -> bool {
        let count = &mut self.counts[slot(dir)];
        let grew = limit > count.limit;
        count.limit = count.limit.max(limit);
        grew && std::mem::take(&mut count.wants_more)
    }

    /// STREAMS_BLOCKED to be sent: (direction, limit).
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

    /// MAX_STREAMS to be sent: (direction, limit).
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

    /// A frame about the peer's sending part (or both) named `id`: makes the streams it opens
    /// (RFC 9000 §2.1, §3.2). `opened` gets each new one. `Ok(false)`: the stream has ended already.
    pub(crate) fn ensure(&mut self, id: StreamId, mut opened: impl FnMut(StreamId)) -> Result<bool, TransportError> {
        let dir = id.dir();
        if self.is_local(id) {
            if id.index() >= self.counts[slot(dir)].opened {
                return Err(TransportError::STREAM_STATE_ERROR);
            }
            return Ok(self.map.contains_key(&id));
        }
        let count = self.counts[slot(dir)];
        if id.index() >= count.peer_limit {
            return Err(TransportError::STREAM_LIMIT_ERROR);
        }
        for index in count.peer_opened..=id.index() {
            let new = StreamId::new(self.side.peer(), dir, index);
            self.insert(new);
            opened(new);
        }
        self.counts[slot(dir)].peer_opened = count.peer_opened.max(id.index() + 1);
        Ok(self.map.contains_key(&id))
    }

    /// Forgets a stream of which both parts have ended, and lets the peer open another.
    pub(crate) fn remove_if_done(&mut self, id: StreamId) {
        let Some(stream) = self.map.get(&id) else { return };
        let send_done = stream.send.as_ref().is_none_or(SendStream::is_done);
        let recv_done = stream.recv.as_ref().is_none_or(RecvStream::is_done);
        if !send_done || !recv_done || stream.dirty {
            return;
        }
        self.map.remove(&id);
        if !self.is_local(id) {
            let count = &mut self.counts[slot(id.dir())];
            count.peer_ended += 1;
            let limit = count.peer_ended + count.concurrent;
            // Half of what may be open is enough news for a frame.
            if limit - count.peer_limit > count.concurrent / 2 {
                count.peer_limit = limit;
                count.limit_due = true;
            }
        }
    }

    /// The stream has data to send.
    pub(crate) fn queue_send(&mut self, id: StreamId) {
        if let Some(stream) = self.map.get_mut(&id)
            && !std::mem::replace(&mut stream.in_send_queue, true)
        {
            self.send_queue.push_back(id);
        }
    }

    /// The stream has a control frame to send.
    pub(crate) fn queue_control(&mut self, id: StreamId) {
        if let Some(stream) = self.map.get_mut(&id)
            && !std::mem::replace(&mut stream.in_control_queue, true)
        {
            self.control_queue.push_back(id);
        }
    }

    /// The stream has something to tell the application.
    pub(crate) fn mark_dirty(&mut self, id: StreamId) {
        if let Some(stream) = self.map.get_mut(&id)
            && !std::mem::replace(&mut stream.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    pub(crate) fn front_send(&self) -> Option<StreamId> {
        self.send_queue.front().copied()
    }

    /// Takes the front stream off the queue.
    pub(crate) fn pop_send(&mut self) {
        if let Some(id) = self.send_queue.pop_front()
            && let Some(stream) = self.map.get_mut(&id)
        {
            stream.in_send_queue = false;
        }
    }

    /// Puts the front stream behind the others, so that all get their turn.
    pub(crate) fn rotate_send(&mut self) {
        if self.send_queue.len() > 1 {
            self.send_queue.rotate_left(1);
        }
    }

    pub(crate) fn send_queue_len(&self) -> usize {
        self.send_queue.len()
    }

    /// Whether any queued stream could send with `connection` bytes of connection credit.
    pub(crate) fn can_send(&self, connection: u64) -> bool {
        self.send_queue
            .iter()
            .any(|id| self.map.get(id).is_some_and(|s| s.send.as_ref().is_some_and(|send| send.can_send(connection))))
    }

    /// Streams wait only for connection credit.
    pub(crate) fn blocked_by_connection(&self) -> bool {
        self.send_queue
            .iter()
            .any(|id| self.map.get(id).is_some_and(|s| s.send.as_ref().is_some_and(|send| send.can_send(u64::MAX))))
    }

    pub(crate) fn front_control(&self) -> Option<StreamId> {
        self.control_queue.front().copied()
    }

    pub(crate) fn pop_control(&mut self) {
        if let Some(id) = self.control_queue.pop_front()
            && let Some(stream) = self.map.get_mut(&id)
        {
            stream.in_control_queue = false;
        }
    }

    /// All streams, to end them with the connection.
    pub(crate) fn drain(&mut self) -> Vec<(StreamId, Box<Stream>)> {
        self.send_queue.clear();
        self.control_queue.clear();
        self.dirty.clear();
        let mut all: Vec<_> = self.map.drain().collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// IDs of all streams that exist.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Streams {
        Streams::new(Side::Server, Windows::default(), 4, 4)
    }

    #[test]
    fn a_late_stream_opens_all_below_it() {
        let mut s = server();
        let id = StreamId::new(Side::Client, Dir::Bidi, 2);
        let mut opened = Vec::new();
        assert_eq!(s.ensure(id, |id| opened.push(id.index())), Ok(true));
        assert_eq!(opened, [0, 1, 2]);
        let beyond = StreamId::new(Side::Client, Dir::Bidi, 4);
        assert_eq!(s.ensure(beyond, |_| {}), Err(TransportError::STREAM_LIMIT_ERROR));
        let ours = StreamId::new(Side::Server, Dir::Bidi, 0);
        assert_eq!(s.ensure(ours, |_| {}), Err(TransportError::STREAM_STATE_ERROR));
    }

    #[test]
    fn ended_streams_raise_the_limit() {
        let mut s = server();
        for index in 0..3 {
            let id = StreamId::new(Side::Client, Dir::Uni, index);
            s.ensure(id, |_| {}).unwrap();
            s.get(id).unwrap().recv.as_mut().unwrap().mark_done();
            s.remove_if_done(id);
            assert_eq!(s.ensure(id, |_| {}), Ok(false));
        }
        assert_eq!(s.max_streams_due(), Some((Dir::Uni, 7)));
        s.max_streams_sent(Dir::Uni);
        assert_eq!(s.max_streams_due(), None);
    }

    #[test]
    fn opening_respects_the_peers_limit() {
        let mut s = server();
        assert_eq!(s.open(Dir::Uni), None);
        assert_eq!(s.streams_blocked_due(), Some((Dir::Uni, 0)));
        s.streams_blocked_sent(Dir::Uni, 0);
        assert_eq!(s.streams_blocked_due(), None);
        assert!(s.raise_limit(Dir::Uni, 1));
        assert_eq!(s.open(Dir::Uni).unwrap().index(), 0);
        assert!(!s.raise_limit(Dir::Uni, 2), "nobody waits");
    }
}
