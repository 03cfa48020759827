//! A connection's deadlines.

use crate::base::time::Instant;
use crate::quic::connection::{Connection, Cx};
use crate::quic::event::CloseReason;
use crate::quic::recovery::{SpaceId, TimeoutAction};

impl Connection {
    /// When [`Connection::handle_timeout`] has to be called. Once that is done and there is nothing to send, this is in the
    /// future: a deadline that stayed in the past would cost every turn a look at the connection.
    pub(crate) fn next_timeout(&self) -> Instant {
        if !self.is_active() {
            return self.close_deadline().unwrap_or(Instant::MAX);
        }
        let mut next = Instant::MAX;
        let deadlines = [
            self.recovery.next_timeout(&self.context()),
            self.idle_deadline,
            self.handshake_deadline(),
            self.keep_alive_at,
            self.pacing_until,
            self.one_rtt.as_ref().and_then(|keys| keys.deadline()),
        ];
        for at in deadlines.into_iter().flatten() {
            next = next.min(at);
        }
        // What may not be sent waits for a packet of the client, not for a time.
        if !self.at_amplification_limit() {
            for space in &self.spaces {
                if let Some(at) = space.acks.deadline() {
                    next = next.min(at);
                }
            }
        }
        next
    }

    /// Acts on every deadline that has passed.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        if !self.is_active() {
            if self.close_deadline().is_some_and(|at| at <= now) {
                self.end_closing();
            }
            return;
        }
        if self.handshake_deadline().is_some_and(|at| at <= now) {
            self.abandon(CloseReason::HandshakeTimeout);
            return;
        }
        if self.idle_deadline.is_some_and(|at| at <= now) {
            self.abandon(CloseReason::IdleTimeout);
            return;
        }
        if let Some(keys) = &mut self.one_rtt {
            keys.on_timeout(now);
        }
        if self.pacing_until.is_some_and(|at| at <= now) {
            self.pacing_until = None;
        }
        if self.keep_alive_at.is_some_and(|at| at <= now) {
            self.keep_alive_at = None;
            self.ping_due = true;
        }
        self.on_loss_timeout(cx);
    }

    fn on_loss_timeout(&mut self, cx: &mut Cx<'_>) {
        let context = self.context();
        if self.recovery.next_timeout(&context).is_none_or(|at| at > cx.now) {
            return;
        }
        // Losses by time, of a space after the other; when those are out, the probe timeout may have passed as well.
        let mut action = TimeoutAction::None;
        for _ in 0..=SpaceId::ALL.len() {
            let lost = &mut cx.scratch.lost;
            action = self.recovery.on_timeout(cx.now, &context, |space, pn, frames| lost.push((space, pn, frames)));
            let next = self.recovery.next_timeout(&context);
            if action != TimeoutAction::None || next.is_none_or(|at| at > cx.now) {
                break;
            }
        }
        self.apply_lost(cx);
        if let TimeoutAction::Probe { space, count } = action {
            self.space(space).probes = count;
            // A client that waits for the server's address validation probes with what it has (RFC 9002 §6.2.2.1).
            if self.spaces[SpaceId::Handshake.index()].keys.is_some() && space == SpaceId::Initial {
                self.space(SpaceId::Handshake).probes = 1;
            }
        }
    }

    /// Restarts the idle timer (RFC 9000 §10.1).
    pub(super) fn reset_idle(&mut self, now: Instant) {
        // Once a turn is enough: for all its packets, it is the same time. Until the handshake is confirmed, what the
        // timeout depends on may change in between.
        if self.confirmed && self.idle_reset_at == Some(now) {
            return;
        }
        self.idle_reset_at = Some(now);
        let ours = self.config.max_idle_timeout;
        let theirs = crate::base::time::Duration::from_millis(self.peer.max_idle_timeout);
        let timeout = match (ours.is_zero(), theirs.is_zero()) {
            (true, true) => {
                self.idle_deadline = None;
                self.reset_keep_alive(now);
                return;
            }
            (true, false) => theirs,
            (false, true) => ours,
            (false, false) => ours.min(theirs),
        };
        self.idle_deadline = Some(now + timeout.max(3 * self.pto()));
        self.reset_keep_alive(now);
    }

    fn reset_keep_alive(&mut self, now: Instant) {
        self.keep_alive_at = self.config.keep_alive.filter(|_| self.confirmed).map(|every| now + every);
    }
}
