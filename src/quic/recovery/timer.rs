//! The timer of loss recovery: loss by time first, else the probe timeout (RFC 9002 §6.2, §A.8, §A.9).

use crate::base::time::{Duration, Instant};
use crate::quic::recovery::{Context, Recovery, SpaceId, TimeoutAction};

/// Number of doublings after which the probe timeout does not grow further.
const MAX_BACKOFF: u32 = 24;

/// What the timer is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Loss(SpaceId),
    Probe(SpaceId, u8),
}

impl<F> Recovery<F> {
    /// When [`Recovery::on_timeout`] has to be called. If this is in the past, it has to be called immediately.
    pub fn next_timeout(&self, cx: &Context) -> Option<Instant> {
        self.due(cx).map(|(at, _)| at)
    }

    /// Handles the timer if it has expired. `lost` gets the contents of lost packets.
    pub fn on_timeout(&mut self, now: Instant, cx: &Context, mut lost: impl FnMut(SpaceId, u64, F)) -> TimeoutAction {
        self.now = self.now.max(now);
        match self.due(cx) {
            Some((at, due)) if at <= now => match due {
                Due::Loss(space) => {
                    self.detect_lost(now, space, cx, 0, &mut |pn, frames| lost(space, pn, frames));
                    self.timer_set = self.now;
                    TimeoutAction::None
                }
                Due::Probe(space, count) => {
                    if self.pto_count == 0 {
                        self.calm_pto = self.rtt.pto_base();
                    }
                    self.calm_until = Instant::MAX;
                    self.pto_count = self.pto_count.saturating_add(1);
                    self.timer_set = self.now;
                    TimeoutAction::Probe { space, count }
                }
            },
            _ => TimeoutAction::None,
        }
    }

    /// Number of consecutive probe timeouts without an acknowledgement.
    pub fn pto_count(&self) -> u32 {
        self.pto_count
    }

    /// The probe timeout of `space` without backoff (RFC 9002 §6.2.1).
    pub fn pto_interval(&self, cx: &Context, space: SpaceId) -> Duration {
        let delay = if space == SpaceId::Data { cx.peer_max_ack_delay } else { Duration::ZERO };
        self.rtt.pto_base() + delay
    }

    fn in_use(&self) -> &'static [SpaceId] {
        SpaceId::in_use(self.confirmed_at.is_some())
    }

    fn due(&self, cx: &Context) -> Option<(Instant, Due)> {
        let losses = self.in_use().iter().filter_map(|id| self.spaces[id.index()].loss_time.map(|at| (at, *id)));
        if let Some((at, space)) = losses.min() {
            return Some((at, Due::Loss(space)));
        }
        if cx.at_amplification_limit {
            return None;
        }
        self.probe_due(cx).or_else(|| self.anti_deadlock_due(cx))
    }

    /// The earliest probe timeout of spaces with packets in flight.
    fn probe_due(&self, cx: &Context) -> Option<(Instant, Due)> {
        let spaces = self.in_use().iter().filter(|id| {
            // 1-RTT packets cannot be acknowledged before the peer has completed the handshake (§6.2.1).
            self.spaces[id.index()].eliciting > 0 && (**id != SpaceId::Data || cx.handshake_confirmed)
        });
        let timeouts = spaces.map(|id| {
            let wait = self.backed_off(self.pto_interval(cx, *id));
            (self.spaces[id.index()].last_eliciting + wait, *id)
        });
        timeouts.min().map(|(at, space)| (at, Due::Probe(space, 2)))
    }

    /// The timeout at which a client probes until the server is no longer limited by anti-amplification (§6.2.2.1).
    fn anti_deadlock_due(&self, cx: &Context) -> Option<(Instant, Due)> {
        if cx.peer_completed_address_validation {
            return None;
        }
        let space = if cx.has_handshake_keys { SpaceId::Handshake } else { SpaceId::Initial };
        Some((self.timer_set + self.backed_off(self.rtt.pto_base()), Due::Probe(space, 1)))
    }

    fn backed_off(&self, pto: Duration) -> Duration {
        pto.saturating_mul(1 << self.pto_count.min(MAX_BACKOFF))
    }
}
