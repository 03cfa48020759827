//! Events on their way from a core to its handles: a bounded ring, and an overflow queue behind it.

use std::collections::{HashMap, VecDeque};

use crossbeam::channel::{Sender, TrySendError};

use crate::api::handle::HandleEvent;
use crate::quic::{ConnId, Event, StreamId};

/// Identifies the older event that a newer one replaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    conn: ConnId,
    id: StreamId,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Progress,
    ReceiveBufferLow,
    EarlyBytes,
}

impl Key {
    fn of(event: &HandleEvent) -> Option<Self> {
        let HandleEvent::Engine { conn, event } = event else { return None };
        let (id, kind) = match event {
            Event::Progress { id, .. } => (*id, Kind::Progress),
            Event::ReceiveBufferLow { id, .. } => (*id, Kind::ReceiveBufferLow),
            Event::EarlyBytes { id, .. } => (*id, Kind::EarlyBytes),
            _ => return None,
        };
        Some(Self { conn: *conn, id, kind })
    }
}

pub(super) struct Outbox {
    /// `None` after [`Outbox::close`] or if there are no handles.
    ring: Option<Sender<HandleEvent>>,
    /// Events for which the ring had no room, in order.
    waiting: VecDeque<HandleEvent>,
    /// Number of events that have left `waiting`.
    left: u64,
    /// Events in `waiting` that newer ones replace, by their number since the start.
    replaceable: HashMap<Key, u64>,
}

impl Outbox {
    pub(super) fn new(ring: Sender<HandleEvent>) -> Self {
        Self { ring: Some(ring), waiting: VecDeque::new(), left: 0, replaceable: HashMap::new() }
    }

    /// Sends an event to the handles without blocking. Without handles, it is dropped, which returns its memory.
    pub(super) fn push(&mut self, event: HandleEvent) {
        let Some(ring) = &self.ring else { return };
        if !self.waiting.is_empty() {
            return self.wait(event);
        }
        match ring.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(event)) => self.wait(event),
            Err(TrySendError::Disconnected(_)) => self.ring = None,
        }
    }

    fn wait(&mut self, event: HandleEvent) {
        if let Some(key) = Key::of(&event) {
            let place = self.replaceable.entry(key).or_insert(self.left + self.waiting.len() as u64);
            if let Some(older) = self.waiting.get_mut((*place - self.left) as usize) {
                *older = event;
                return;
            }
        }
        self.waiting.push_back(event);
    }

    /// Moves waiting events into the ring as long as it has room.
    pub(super) fn flush(&mut self) {
        while let Some(ring) = &self.ring
            && let Some(event) = self.waiting.pop_front()
        {
            let key = Key::of(&event);
            match ring.try_send(event) {
                Ok(()) => {
                    self.left += 1;
                    key.and_then(|key| self.replaceable.remove(&key));
                }
                Err(TrySendError::Full(event)) => return self.waiting.push_front(event),
                Err(TrySendError::Disconnected(_)) => {
                    self.ring = None;
                    self.waiting.clear();
                    self.replaceable.clear();
                }
            }
        }
    }

    /// Whether the next event would go directly into the ring.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.ring.as_ref().is_none_or(|ring| !ring.is_full())
    }

    /// Number of events that wait behind the ring.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Closes the ring: its readers see the end after the events in it.
    pub(super) fn close(&mut self) {
        self.ring = None;
    }

    /// Takes all waiting events.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = HandleEvent> {
        self.replaceable.clear();
        self.left += self.waiting.len() as u64;
        self.waiting.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::{Receiver, bounded};

    use super::*;
    use crate::base::Side;
    use crate::quic::Dir;

    fn progress(stream: u64, contiguous: u64) -> HandleEvent {
        let (conn, id) = (ConnId::new(1, 0), StreamId::new(Side::Client, Dir::Bidi, stream));
        HandleEvent::Engine { conn, event: Event::Progress { id, contiguous } }
    }

    fn finished(stream: u64, size: u64) -> HandleEvent {
        let (conn, id) = (ConnId::new(1, 0), StreamId::new(Side::Client, Dir::Bidi, stream));
        HandleEvent::Engine { conn, event: Event::Finished { id, size, placement: Default::default() } }
    }

    /// (stream, bytes) of all events in the ring.
    fn read(ring: &Receiver<HandleEvent>) -> Vec<(u64, u64)> {
        let told = |event| match event {
            HandleEvent::Engine { event: Event::Progress { id, contiguous }, .. } => (id.index(), contiguous),
            HandleEvent::Engine { event: Event::Finished { id, size, .. }, .. } => (id.index(), size),
            other => panic!("{other:?}"),
        };
        ring.try_iter().map(told).collect()
    }

    #[test]
    fn events_keep_their_order() {
        let (sender, ring) = bounded(2);
        let mut outbox = Outbox::new(sender);
        for size in 0..5 {
            outbox.push(finished(0, size));
        }
        assert_eq!((outbox.waiting(), outbox.has_room()), (3, false));
        assert_eq!(read(&ring), [(0, 0), (0, 1)]);
        outbox.push(finished(0, 5));
        assert!(read(&ring).is_empty(), "nothing overtakes what waits");
        outbox.flush();
        assert_eq!(read(&ring), [(0, 2), (0, 3)]);
        outbox.flush();
        assert!(!outbox.has_room(), "two are in a ring of two");
        assert_eq!(read(&ring), [(0, 4), (0, 5)]);
        assert!(outbox.has_room());
    }

    #[test]
    fn younger_progress_replaces_older_that_waits() {
        let (sender, ring) = bounded(1);
        let mut outbox = Outbox::new(sender);
        for n in 1..100 {
            outbox.push(progress(0, n));
            outbox.push(progress(1, n * 10));
        }
        assert_eq!(outbox.waiting(), 2);
        assert_eq!(read(&ring), [(0, 1)]);
        outbox.flush();
        outbox.push(progress(1, 2000));
        assert_eq!(outbox.waiting(), 2, "the one in the ring is not replaced");
        assert_eq!(read(&ring), [(1, 990)]);
        outbox.flush();
        assert_eq!(read(&ring), [(0, 99)]);
        outbox.push(progress(1, 3000));
        outbox.flush();
        assert_eq!(read(&ring), [(1, 3000)]);
    }

    #[test]
    fn without_handles_nothing_is_kept() {
        let (sender, ring) = bounded(1);
        let mut outbox = Outbox::new(sender);
        outbox.push(finished(0, 1));
        outbox.push(finished(0, 2));
        drop(ring);
        outbox.flush();
        outbox.push(finished(0, 3));
        assert_eq!(outbox.waiting(), 0);
    }
}
