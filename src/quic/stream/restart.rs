//! Streams of a client whose 0-RTT data is accepted or rejected (RFC 9001 §4.6.2).

use crate::quic::stream::{Introduced, Streams, Windows, slot};
use crate::wire::quic::{Dir, StreamId};

/// Streams opened under a limit that no longer holds. They wait for a higher one.
pub(super) type Withheld = Vec<StreamId>;

impl Streams {
    /// All open streams that we opened.
    fn local_ids(&self) -> Vec<StreamId> {
        let mut ids: Vec<_> = self.map.keys().copied().filter(|id| self.is_local(*id)).collect();
        ids.sort_unstable();
        ids
    }

    /// Applies higher windows of the peer to the streams that are open. Returns those that got more.
    pub(crate) fn raise_windows(&mut self) -> Vec<StreamId> {
        let mut ids = self.local_ids();
        ids.retain(|id| {
            let (window, _) = self.windows(*id);
            let send = self.get(*id).and_then(|stream| stream.send.as_mut());
            send.zip(window).is_some_and(|(send, window)| send.credit.raise(window))
        });
        ids.iter().for_each(|id| self.queue_send(*id));
        ids
    }

    /// Begins all streams anew, as the peer knows none of them: under its windows, and with nothing sent. Streams beyond
    /// its limits send nothing before the limit is raised.
    pub(crate) fn restart(&mut self, windows: Windows, max_bidi: u64, max_uni: u64) {
        self.peer = windows;
        for (dir, limit) in [(Dir::Bidi, max_bidi), (Dir::Uni, max_uni)] {
            let count = &mut self.counts[slot(dir)];
            (count.limit, count.blocked_at) = (limit, None);
        }
        self.credit_raised();
        let mut withheld = Withheld::new();
        for id in self.local_ids() {
            let (window, _) = self.windows(id);
            let limit = self.counts[slot(id.dir())].limit;
            let Some(stream) = self.get(id) else { continue };
            stream.introduced = Introduced::No;
            if let (Some(send), Some(window)) = (&mut stream.send, window) {
                send.restart(window);
            }
            if let Some(recv) = &mut stream.recv {
                recv.tell_again();
            }
            if id.index() < limit {
                self.queue_send(id);
                self.queue_control(id);
            } else {
                withheld.push(id);
            }
        }
        self.withhold(withheld);
    }

    /// Takes streams out of the queues. They count as queued, so that nothing queues them again.
    fn withhold(&mut self, ids: Withheld) {
        if ids.is_empty() {
            return;
        }
        for id in &ids {
            let Some(stream) = self.get(*id) else { continue };
            let priority = stream.priority;
            (stream.in_send_queue, stream.in_control_queue) = (true, true);
            self.send_queue.remove(*id, priority);
        }
        self.control_queue.retain(|id| !ids.contains(id));
        for id in &ids {
            // The application has opened all that it may.
            self.counts[slot(id.dir())].wants_more = true;
        }
        self.withheld = Some(Box::new(ids));
    }

    /// Lets the streams go on that a higher limit allows.
    #[cold]
    pub(super) fn release_withheld(&mut self) {
        let Some(withheld) = self.withheld.take() else { return };
        let (go, wait): (Withheld, Withheld) =
            withheld.into_iter().partition(|id| id.index() < self.counts[slot(id.dir())].limit);
        for id in go {
            if let Some(stream) = self.get(id) {
                (stream.in_send_queue, stream.in_control_queue) = (false, false);
                self.queue_send(id);
                self.queue_control(id);
            }
        }
        self.withheld = (!wait.is_empty()).then(|| Box::new(wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Side;
    use crate::quic::event::SendData;

    const WINDOWS: Windows = Windows { bidi_local: 10, bidi_remote: 10, uni: 10 };

    fn streams(limit: u64) -> Streams {
        let mut streams = Streams::new(Side::Client, Windows::default(), 0, 0);
        streams.set_peer(WINDOWS, limit, limit);
        streams
    }

    fn write(streams: &mut Streams, id: StreamId) {
        streams.get(id).unwrap().send.as_mut().unwrap().write(SendData::Static(b"0123456789abcdef"), true);
        streams.queue_send(id);
    }

    /// Sends what may be sent of the next stream.
    fn send(streams: &mut Streams) -> Option<(StreamId, std::ops::Range<u64>, bool)> {
        let id = streams.next_send(u64::MAX)?;
        let send = streams.get(id)?.send.as_mut()?;
        let pick = send.pick(100, u64::MAX)?;
        send.sent(&pick);
        Some((id, pick.range, pick.fin))
    }

    #[test]
    fn accepted_streams_go_on_under_higher_limits() {
        let mut streams = streams(1);
        let id = streams.open(Dir::Bidi).unwrap();
        write(&mut streams, id);
        assert_eq!((send(&mut streams), send(&mut streams)), (Some((id, 0..10, false)), None));
        streams.set_peer(Windows { bidi_remote: 20, ..WINDOWS }, 2, 2);
        assert_eq!(streams.raise_windows(), [id]);
        assert_eq!(send(&mut streams), Some((id, 10..16, true)));
        assert!(streams.open(Dir::Bidi).is_some());
    }

    #[test]
    fn rejected_streams_begin_anew_under_lower_limits() {
        let mut streams = streams(3);
        let ids: Vec<_> = (0..3).map(|_| streams.open(Dir::Bidi).unwrap()).collect();
        ids.iter().for_each(|id| write(&mut streams, *id));
        assert_eq!(
            (0..3).filter_map(|_| send(&mut streams)).map(|sent| sent.1).collect::<Vec<_>>(),
            [0..10, 0..10, 0..10]
        );
        streams.restart(Windows { bidi_remote: 4, ..WINDOWS }, 1, 0);
        assert_eq!((send(&mut streams), send(&mut streams)), (Some((ids[0], 0..4, false)), None));
        // Whatever happens to them, streams beyond the limit wait.
        streams.queue_send(ids[1]);
        streams.queue_control(ids[1]);
        streams.set_priority(ids[1], crate::quic::Priority { urgency: 1, ..Default::default() });
        assert_eq!((send(&mut streams), streams.open(Dir::Bidi)), (None, None));
        while streams.front_control().is_some_and(|id| id == ids[0]) {
            streams.pop_control();
        }
        assert_eq!(streams.front_control(), None);
        assert_eq!(streams.streams_blocked_due(), Some((Dir::Bidi, 1)));
        streams.raise_limit(Dir::Bidi, 2);
        assert_eq!((send(&mut streams), send(&mut streams)), (Some((ids[1], 0..4, false)), None));
        streams.raise_limit(Dir::Bidi, 9);
        assert_eq!(send(&mut streams), Some((ids[2], 0..4, false)));
        assert!(streams.withheld.is_none() && streams.open(Dir::Bidi).is_some());
    }

    /// Who asks for more credit for them would be silent: nothing is sent of a stream beyond the limit.
    #[test]
    fn streams_that_wait_for_a_higher_limit_do_not_report_that_they_are_blocked() {
        let mut streams = streams(1);
        let id = streams.open(Dir::Bidi).unwrap();
        write(&mut streams, id);
        streams.restart(Windows { bidi_remote: 0, ..WINDOWS }, 0, 0);
        assert_eq!((streams.repeat_blocked(), streams.front_control()), (false, None));
        streams.raise_limit(Dir::Bidi, 1);
        assert_eq!((streams.repeat_blocked(), streams.front_control()), (true, Some(id)));
    }
}
