//! Finds what has changed in a connection since its trace was last told.
//!
//! State that changes in many places is compared at a few, so that the code that changes it need not know of traces.

use std::net::SocketAddr;

use crate::base::Side;
use crate::base::time::{Duration, Instant};
use crate::quic::trace::{
    CongestionState, ConnectionState, EcnState, KeyCause, KeyLevel, Metrics, StreamChange, TimerChange, TraceEvent,
};
use crate::wire::quic::{ConnectionId, Dir, StreamId};

/// When a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After a datagram was handled.
    Received,
    /// After a deadline was handled.
    TimedOut,
    /// When there is nothing more to send now.
    Settled,
}

/// What is compared.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) state: ConnectionState,
    pub(crate) validated: bool,
    /// Whether there are Initial, Handshake, 0-RTT and 1-RTT keys.
    pub(crate) keys: [bool; 4],
    pub(crate) key_updates: u64,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The peer's connection ID in use.
    pub(crate) remote_cid: ConnectionId,
    pub(crate) mtu: u16,
    pub(crate) mtu_done: bool,
    pub(crate) spin: bool,
    /// `None` if it is not used.
    pub(crate) ecn: Option<EcnState>,
    pub(crate) congestion: CongestionState,
    pub(crate) metrics: Metrics,
    /// When the timer of loss recovery expires.
    pub(crate) timer: Option<Instant>,
    /// Whether the peer's limit on the data of all streams holds us up.
    pub(crate) blocked: bool,
    /// Number of streams that this end has opened, by [`Dir`].
    pub(crate) opened: [u64; 2],
    /// Number of probes due in each packet number space.
    pub(crate) probes: [u8; 3],
}

/// What a trace was told of a connection.
#[derive(Debug)]
pub(crate) struct Watch {
    side: Side,
    last: Option<Seen>,
    /// Our connection ID in the peer's packets.
    local_cid: Option<ConnectionId>,
    /// Updates of the keys that the peer has begun, and that are not yet told.
    remote_updates: u64,
    /// Of sent and received datagrams.
    datagrams: [Counter; 2],
    version: u32,
    told_complete: bool,
    told_restored: bool,
    told_closed: bool,
}

/// Counts datagrams by the bytes of the connection when each came.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    count: u32,
    at: Option<u64>,
    codepoint: u8,
}

const LEVELS: [KeyLevel; 4] = [KeyLevel::Initial, KeyLevel::Handshake, KeyLevel::ZeroRtt, KeyLevel::OneRtt];

impl Watch {
    /// Of a new connection.
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            last: None,
            local_cid: None,
            remote_updates: 0,
            datagrams: [Counter::default(); 2],
            version: 0,
            told_complete: false,
            told_restored: false,
            told_closed: false,
        }
    }

    /// The number of the datagram that a packet is in, and whether its ECN codepoint is another one than that of the
    /// datagram before. `bytes` is the number of bytes sent or received before the datagram, which differs from that of
    /// any other.
    pub(crate) fn datagram(&mut self, sent: bool, bytes: u64, codepoint: u8) -> (u32, bool) {
        let counter = &mut self.datagrams[usize::from(!sent)];
        if counter.at.replace(bytes) != Some(bytes) {
            counter.count = counter.count.wrapping_add(1);
        }
        let changes = std::mem::replace(&mut counter.codepoint, codepoint) != codepoint;
        (counter.count - 1, changes)
    }

    /// Takes note of our ID in a packet of the peer. Returns the one before if it has changed.
    pub(crate) fn local_cid(&mut self, cid: ConnectionId) -> Option<ConnectionId> {
        self.local_cid.replace(cid).filter(|old| *old != cid)
    }

    /// The first packet with keys of the next phase has arrived.
    pub(crate) fn remote_update(&mut self) {
        self.remote_updates += 1;
    }

    /// Whether a packet that is about to be sent takes the place of a probe that is due: with `probes` left, fewer than
    /// before.
    pub(crate) fn takes_probe(&mut self, space: usize, probes: u8) -> bool {
        let Some(last) = &mut self.last else { return false };
        let before = std::mem::replace(&mut last.probes[space], probes);
        probes < before
    }

    /// The state that was told last.
    pub(crate) fn state(&self) -> Option<ConnectionState> {
        self.last.as_ref().map(|last| last.state)
    }

    /// Whether the version is another one than before.
    pub(crate) fn tells_version(&mut self, version: u32) -> bool {
        std::mem::replace(&mut self.version, version) != version
    }

    /// True once.
    pub(crate) fn tells_complete(&mut self) -> bool {
        !std::mem::replace(&mut self.told_complete, true)
    }

    /// True once.
    pub(crate) fn tells_restored(&mut self) -> bool {
        !std::mem::replace(&mut self.told_restored, true)
    }

    /// True once.
    pub(crate) fn tells_closed(&mut self) -> bool {
        !std::mem::replace(&mut self.told_closed, true)
    }

    /// Calls `tell` for everything that has changed.
    pub(crate) fn compare(&mut self, now: Instant, seen: &Seen, moment: Moment, mut tell: impl FnMut(TraceEvent)) {
        let last = self.last.take();
        let old = last.as_ref();
        self.compare_path(old, seen, &mut tell);
        self.compare_state(old, seen, &mut tell);
        self.compare_streams(old, seen, &mut tell);
        compare_recovery(now, old, seen, moment, &mut tell);
        self.last = Some(seen.clone());
    }

    fn compare_path(&self, old: Option<&Seen>, seen: &Seen, tell: &mut impl FnMut(TraceEvent)) {
        let (local, remote) = (seen.local, seen.remote);
        if old.is_none_or(|old| (old.local, old.remote) != (local, remote)) {
            tell(TraceEvent::Path { local, remote });
        }
        let ecn = old.and_then(|old| old.ecn);
        if let Some(new) = seen.ecn
            && ecn != seen.ecn
        {
            tell(TraceEvent::EcnState { old: ecn, new });
        }
        let Some(old) = old else { return };
        if old.remote_cid != seen.remote_cid {
            tell(TraceEvent::ConnectionId { local: false, old: old.remote_cid, new: seen.remote_cid });
        }
        if (old.mtu, old.mtu_done) != (seen.mtu, seen.mtu_done) {
            tell(TraceEvent::Mtu { old: old.mtu, new: seen.mtu, done: seen.mtu_done });
        }
        if old.spin != seen.spin {
            tell(TraceEvent::Spin(seen.spin));
        }
    }

    fn compare_state(&mut self, old: Option<&Seen>, seen: &Seen, tell: &mut impl FnMut(TraceEvent)) {
        let before = old.map(|old| old.state);
        // A client's view of its peer's address is not the matter of RFC 9000 §8.1.
        if seen.validated && old.is_none_or(|old| !old.validated) && self.side == Side::Server {
            tell(TraceEvent::PeerValidated);
        }
        for (i, level) in LEVELS.into_iter().enumerate() {
            let had = old.is_some_and(|old| old.keys[i]);
            if had == seen.keys[i] {
                continue;
            }
            for of in [Side::Client, Side::Server] {
                // Only clients send 0-RTT packets.
                if level == KeyLevel::ZeroRtt && of == Side::Server {
                    continue;
                }
                let cause = KeyCause::Tls;
                tell(match had {
                    false => TraceEvent::KeyUpdated { of, level, phase: 0, cause },
                    true => TraceEvent::KeyDiscarded { of, level, phase: 0, cause },
                });
            }
        }
        let updates = old.map_or(0, |old| old.key_updates);
        for phase in updates + 1..=seen.key_updates.min(updates + 2) {
            let remote = self.remote_updates > 0;
            self.remote_updates = self.remote_updates.saturating_sub(1);
            let cause = if remote { KeyCause::Remote } else { KeyCause::Local };
            for of in [Side::Client, Side::Server] {
                tell(TraceEvent::KeyUpdated { of, level: KeyLevel::OneRtt, phase, cause });
                tell(TraceEvent::KeyDiscarded { of, level: KeyLevel::OneRtt, phase: phase - 1, cause });
            }
        }
        if before != Some(seen.state) {
            tell(TraceEvent::State { old: before, new: seen.state });
        }
    }

    fn compare_streams(&mut self, old: Option<&Seen>, seen: &Seen, tell: &mut impl FnMut(TraceEvent)) {
        for dir in [Dir::Bidi, Dir::Uni] {
            for index in old.map_or(0, |old| old.opened[dir as usize])..seen.opened[dir as usize] {
                let id = StreamId::new(self.side, dir, index);
                tell(TraceEvent::Stream { id, change: StreamChange::SendOpened, local: true });
                if dir == Dir::Bidi {
                    tell(TraceEvent::Stream { id, change: StreamChange::ReceiveOpened, local: true });
                }
            }
        }
        if old.is_some_and(|old| old.blocked) != seen.blocked {
            tell(TraceEvent::Blocked(seen.blocked));
        }
    }
}

fn compare_recovery(now: Instant, old: Option<&Seen>, seen: &Seen, moment: Moment, tell: &mut impl FnMut(TraceEvent)) {
    let before = old.and_then(|old| old.timer);
    if moment == Moment::TimedOut && before.is_some_and(|at| at <= now) {
        tell(TraceEvent::Timer(TimerChange::Expired));
    }
    let congestion = old.map(|old| old.congestion);
    if congestion != Some(seen.congestion) {
        tell(TraceEvent::Congestion { old: congestion, new: seen.congestion });
    }
    if let Some(changed) = seen.metrics.changed_since(old.map(|old| &old.metrics)) {
        tell(TraceEvent::Metrics(changed));
    }
    if before != seen.timer {
        tell(TraceEvent::Timer(match seen.timer {
            Some(at) => TimerChange::Set(at.saturating_since(now)),
            None => TimerChange::Cancelled,
        }));
    }
}

impl Metrics {
    /// Those that differ from `old`; `None` if there are none.
    fn changed_since(&self, old: Option<&Self>) -> Option<Self> {
        fn news<T: PartialEq + Copy>(new: Option<T>, old: Option<Option<T>>) -> Option<T> {
            new.filter(|new| old.flatten() != Some(*new))
        }
        let changed = Self {
            min_rtt: news::<Duration>(self.min_rtt, old.map(|old| old.min_rtt)),
            smoothed_rtt: news(self.smoothed_rtt, old.map(|old| old.smoothed_rtt)),
            latest_rtt: news(self.latest_rtt, old.map(|old| old.latest_rtt)),
            rtt_variance: news(self.rtt_variance, old.map(|old| old.rtt_variance)),
            pto_count: news(self.pto_count, old.map(|old| old.pto_count)),
            congestion_window: news(self.congestion_window, old.map(|old| old.congestion_window)),
            bytes_in_flight: news(self.bytes_in_flight, old.map(|old| old.bytes_in_flight)),
            ssthresh: news(self.ssthresh, old.map(|old| old.ssthresh)),
        };
        (changed != Self::default()).then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            state: ConnectionState::Attempted,
            validated: false,
            keys: [true, false, false, false],
            key_updates: 0,
            local: "192.0.2.1:1".parse().unwrap(),
            remote: "192.0.2.2:2".parse().unwrap(),
            remote_cid: ConnectionId::new(&[1; 8]).unwrap(),
            mtu: 1200,
            mtu_done: false,
            spin: false,
            ecn: None,
            congestion: CongestionState::SlowStart,
            metrics: Metrics { congestion_window: Some(12_000), ..Metrics::default() },
            timer: None,
            blocked: false,
            opened: [0; 2],
            probes: [0; 3],
        }
    }

    fn told(watch: &mut Watch, now: u64, seen: &Seen, moment: Moment) -> Vec<TraceEvent> {
        let mut events = Vec::new();
        watch.compare(Instant::from_nanos(now), seen, moment, |event| events.push(event));
        events
    }

    #[test]
    fn what_has_changed_is_told_once() {
        let mut watch = Watch::new(Side::Server);
        let mut now = seen();
        let first = told(&mut watch, 0, &now, Moment::Received);
        assert!(first.contains(&TraceEvent::State { old: None, new: ConnectionState::Attempted }), "{first:?}");
        assert!(first.contains(&TraceEvent::Congestion { old: None, new: CongestionState::SlowStart }), "{first:?}");
        assert_eq!(first.iter().filter(|event| matches!(event, TraceEvent::KeyUpdated { .. })).count(), 2);
        assert_eq!(told(&mut watch, 1, &now, Moment::Settled), []);

        now.validated = true;
        now.mtu = 1472;
        now.spin = true;
        now.metrics.bytes_in_flight = Some(1200);
        now.opened = [1, 1];
        assert_eq!(
            told(&mut watch, 2, &now, Moment::Settled),
            [
                TraceEvent::Mtu { old: 1200, new: 1472, done: false },
                TraceEvent::Spin(true),
                TraceEvent::PeerValidated,
                TraceEvent::Stream { id: StreamId(1), change: StreamChange::SendOpened, local: true },
                TraceEvent::Stream { id: StreamId(1), change: StreamChange::ReceiveOpened, local: true },
                TraceEvent::Stream { id: StreamId(3), change: StreamChange::SendOpened, local: true },
                TraceEvent::Metrics(Metrics { bytes_in_flight: Some(1200), ..Metrics::default() }),
            ]
        );
        assert_eq!(told(&mut watch, 3, &now, Moment::TimedOut), []);
    }

    #[test]
    fn the_timer_is_set_expires_and_is_cancelled() {
        let mut watch = Watch::new(Side::Client);
        let mut now = seen();
        told(&mut watch, 0, &now, Moment::Settled);
        now.timer = Some(Instant::from_nanos(100));
        let set = TraceEvent::Timer(TimerChange::Set(Duration::from_nanos(90)));
        assert_eq!(told(&mut watch, 10, &now, Moment::Settled), [set]);
        now.timer = Some(Instant::from_nanos(300));
        let set = TraceEvent::Timer(TimerChange::Set(Duration::from_nanos(200)));
        assert_eq!(told(&mut watch, 100, &now, Moment::TimedOut), [TraceEvent::Timer(TimerChange::Expired), set]);
        now.timer = None;
        assert_eq!(told(&mut watch, 110, &now, Moment::Received), [TraceEvent::Timer(TimerChange::Cancelled)]);
    }

    #[test]
    fn key_updates_name_who_began_them() {
        let mut watch = Watch::new(Side::Client);
        let mut now = seen();
        told(&mut watch, 0, &now, Moment::Settled);
        let causes = |events: Vec<TraceEvent>| -> Vec<_> {
            let of = events.into_iter().filter_map(|event| match event {
                TraceEvent::KeyUpdated { of: Side::Client, phase, cause, .. } => Some((phase, cause)),
                _ => None,
            });
            of.collect()
        };
        now.key_updates = 1;
        assert_eq!(causes(told(&mut watch, 1, &now, Moment::Settled)), [(1, KeyCause::Local)]);
        watch.remote_update();
        now.key_updates = 2;
        assert_eq!(causes(told(&mut watch, 2, &now, Moment::Received)), [(2, KeyCause::Remote)]);
    }

    #[test]
    fn datagrams_are_counted_and_probes_noticed() {
        let mut watch = Watch::new(Side::Client);
        assert_eq!([watch.datagram(true, 0, 2), watch.datagram(true, 0, 2)], [(0, true), (0, false)]);
        assert_eq!([watch.datagram(true, 1200, 2), watch.datagram(false, 0, 0)], [(1, false), (0, false)]);
        assert!(!watch.takes_probe(2, 0), "nothing is known yet");
        let mut now = seen();
        now.probes = [0, 0, 2];
        told(&mut watch, 0, &now, Moment::TimedOut);
        assert_eq!([1, 0, 0].map(|left| watch.takes_probe(2, left)), [true, true, false]);
        let [one, two] = [1, 2].map(|byte| ConnectionId::new(&[byte; 8]).unwrap());
        assert_eq!([one, one, two].map(|cid| watch.local_cid(cid)), [None, None, Some(one)]);
        assert!(watch.tells_closed() && !watch.tells_closed());
    }
}
