//! Changes of the path (RFC 9000 §9.4).
//!
//! Round-trip time and congestion control belong to a path; packet numbers, loss detection and the probe timeout belong
//! to the connection. When the path changes, packets in flight stay with the path that they were sent on: their
//! acknowledgement or loss neither grows nor shrinks the window of another path, and gives no sample of its round-trip
//! time. What they carried is retransmitted as usual. One path that was left is remembered, for a return to it.

use crate::base::time::Instant;
use crate::quic::config::CongestionAlgorithm;
use crate::quic::congestion::Congestion;
use crate::quic::recovery::sent::{SentPacket, Whereabouts};
use crate::quic::recovery::sizes::SizeWatch;
use crate::quic::recovery::{Recovery, RecoveryConfig, RttEstimator, SpaceId};

/// What a connection expects of the path that it moves to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Onward<'a> {
    /// Nothing.
    Fresh(&'a RecoveryConfig),
    /// The same as of the path that it leaves, as only ports have changed.
    Same,
    /// It returns to the path that it left last with [`Recovery::change_path`] and `remember`.
    Back,
}

/// A path that was left.
#[derive(Clone, Debug)]
struct Left {
    on: Whereabouts,
    rtt: RttEstimator,
    congestion: Congestion,
}

/// What is known of paths used before.
#[derive(Clone, Debug)]
pub(super) struct Switched {
    /// The path in use.
    here: Whereabouts,
    /// The name of the next new path. Names are not used twice.
    next: u32,
    /// The first packet of the Data space that was sent on the path in use. All earlier ones are marked with theirs.
    since: u64,
    left: Option<Left>,
}

impl Default for Switched {
    fn default() -> Self {
        Self { here: Whereabouts(1), next: 2, since: 0, left: None }
    }
}

impl Switched {
    /// A name for another path.
    fn name(&mut self) -> Whereabouts {
        let name = Whereabouts(self.next);
        self.next = (self.next + 1).min(Whereabouts::ELSEWHERE.0 - 1);
        name
    }
}

/// A packet that does not count for the path in use is acknowledged or lost: it is no longer in flight on its own path.
#[cold]
pub(super) fn release<F>(switched: &mut Option<Box<Switched>>, congestion: &mut Congestion, packet: &SentPacket<F>) {
    let Some(switched) = switched.as_deref_mut() else { return };
    if packet.on == switched.here {
        congestion.remove(packet.len);
    } else if let Some(left) = switched.left.as_mut().filter(|left| left.on == packet.on) {
        left.congestion.remove(packet.len);
    }
}

impl<F> Recovery<F> {
    /// Continues on another path. If `remember` is set, the path that is left is what [`Onward::Back`] leads to from now
    /// on.
    pub(crate) fn change_path(&mut self, now: Instant, onward: Onward<'_>, remember: bool) {
        self.now = self.now.max(now);
        let mut switched = self.switched.take().unwrap_or_default();
        let here = switched.here;
        for space in SpaceId::ALL {
            // Each packet is marked once, so that changing paths often costs no more than sending.
            let from = if space == SpaceId::Data { switched.since } else { 0 };
            self.spaces[space.index()].ring.leave(from, here);
        }
        switched.since = self.spaces[SpaceId::Data.index()].ring.next();
        let back = switched.left.take_if(|_| matches!(onward, Onward::Back));
        let (on, rtt, congestion) = match (back, onward) {
            (Some(left), _) => (left.on, left.rtt, left.congestion),
            (None, Onward::Fresh(config)) => {
                let config = RecoveryConfig { seed: self.congestion.next_seed(), ..*config };
                (switched.name(), RttEstimator::new(config.initial_rtt), config.congestion(self.now))
            }
            (None, Onward::Same | Onward::Back) => {
                (switched.name(), self.rtt, self.congestion.with_nothing_in_flight(self.now))
            }
        };
        let left = Left {
            on: here,
            rtt: std::mem::replace(&mut self.rtt, rtt),
            congestion: std::mem::replace(&mut self.congestion, congestion),
        };
        if remember {
            switched.left = Some(left);
        }
        switched.here = on;
        self.switched = Some(switched);
        // Judgements about the former path.
        if matches!(onward, Onward::Same) {
            self.reordering.disarm();
        } else {
            self.reordering.reset();
        }
        self.sizes = SizeWatch::default();
        (self.pto_count, self.calm_until, self.timer_set) = (0, self.now, self.now);
    }

    /// Uses another congestion control algorithm on the path in use.
    pub(crate) fn set_algorithm(&mut self, algorithm: CongestionAlgorithm, seed: u64) {
        self.congestion.set_algorithm(self.now, algorithm, seed, self.rtt.smoothed());
    }

    /// Forgets the path that [`Onward::Back`] leads to.
    pub(crate) fn forget_path(&mut self) {
        if let Some(switched) = &mut self.switched {
            switched.left = None;
        }
    }
}
