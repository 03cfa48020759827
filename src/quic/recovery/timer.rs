//! The one timer of loss recovery: losses by time first, else the probe timeout (RFC 9002 §6.2, §A.8, §A.9).

use crate::base::time::{Duration, Instant};
use crate::quic::recovery::{Context, Recovery, SpaceId, TimeoutAction};

/// Doublings after which the probe timeout grows no more.
const MAX_BACKOFF: u32 = 24;

/// What the timer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Loss(SpaceId),
    Probe(SpaceId, u8),
}

impl<F> Recovery<F> {
    /// When [`Recovery::on_timeout`] has to be called. It may be in the past: then call it at once.
    pub fn next_timeout(&self, cx: &Context) -> Option<Instant> {
        self.due(cx).map(|(at, _)| at)
    }

    /// Acts on the timer, if it has expired. `lost` gets what lost packets carried.
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

    /// Probe timeouts in a row, without an acknowledgement in between.
    pub fn pto_count(&self) -> u32 {
        self.pto_count
    }

    /// The probe timeout of `space` without backoff (RFC 9002 §6.2.1).
    pub fn pto_interval(&self, cx: &Context, space: SpaceId) -> Duration {
        let delay = if space == SpaceId::Data { cx.peer_max_ack_delay } else { Duration::ZERO };
        self.rtt.pto_base() + delay
    }

    fn due(&self, cx: &Context) -> Option<(Instant, Due)> {
        let losses = SpaceId::ALL.iter().filter_map(|id| self.spaces[id.index()].loss_time.map(|at| (at, *id)));
        if let Some((at, space)) = losses.min() {
            return Some((at, Due::Loss(space)));
        }
        if cx.at_amplification_limit {
            return None;
        }
        self.probe_due(cx).or_else(|| self.anti_deadlock_due(cx))
    }

    /// The earliest probe timeout of spaces with something in flight.
    fn probe_due(&self, cx: &Context) -> Option<(Instant, Due)> {
        let spaces = SpaceId::ALL.iter().filter(|id| {
            // 1-RTT packets cannot be acknowledged before the peer has completed the handshake (§6.2.1).
            self.spaces[id.index()].eliciting > 0 && (**id != SpaceId::Data || cx.handshake_confirmed)
        });
        let timeouts = spaces.map(|id| {
            let wait = self.backed_off(self.pto_interval(cx, *id));
            (self.spaces[id.index()].last_eliciting + wait, *id)
        });
        timeouts.min().map(|(at, space)| (at, Due::Probe(space, 2)))
    }

    /// A client keeps probing until the server can send freely (§6.2.2.1).
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
