//! Deadlines of a connection.

use crate::base::Side;
use crate::base::time::{Duration, Instant};
use crate::quic::connection::{Connection, Cx};
use crate::quic::event::CloseReason;
use crate::quic::recovery::{SpaceId, TimeoutAction};

/// A silent connection with streams checks this many times per idle timeout whether one side waits for the other.
const STALL_CHECKS: u32 = 4;

/// Interval of these checks if there is no idle timeout.
const STALL_CHECK: Duration = Duration::from_secs(10);

/// Number of probe timeouts of silence after which a client that waits for data asks whether the server still reaches it.
const QUIET: u32 = 3;

/// Maximum number of times that it asks while no data comes. Each time, it has waited twice as long.
const MAX_CALLS: u8 = 5;

impl Connection {
    /// When [`Connection::handle_timeout`] has to be called. After that call, and when nothing is to be sent, the
    /// result is in the future: a deadline that stayed in the past would make every turn look at the connection.
    pub(crate) fn next_timeout(&self) -> Instant {
        if !self.is_active() {
            return self.close_deadline().unwrap_or(Instant::MAX);
        }
        let mut next = self.recovery.next_timeout(&self.context()).unwrap_or(Instant::MAX);
        for at in [self.idle_deadline, self.keep_alive_at, self.pacing_until].into_iter().flatten() {
            next = next.min(at);
        }
        if let Some(at) = self.one_rtt.as_ref().and_then(|keys| keys.deadline()) {
            next = next.min(at);
        }
        if !self.complete || self.has_extras() {
            next = self.rare_deadlines().flatten().fold(next, Instant::min);
        }
        // At the amplification limit, sending waits for a packet from the client, not for a time.
        if !self.at_amplification_limit() {
            for space in SpaceId::in_use(self.confirmed) {
                if let Some(at) = self.spaces[space.index()].acks.deadline() {
                    next = next.min(at);
                }
            }
        }
        next
    }

    /// Whether there is anything with a deadline that few connections have.
    fn has_extras(&self) -> bool {
        self.datagrams.is_some() || self.early.is_some() || self.paths.is_some()
    }

    fn rare_deadlines(&self) -> impl Iterator<Item = Option<Instant>> {
        let datagrams = self.datagrams.as_ref().and_then(|datagrams| datagrams.send.deadline());
        let early = self.early.as_ref().and_then(|early| early.deadline());
        [self.handshake_deadline(), datagrams, early, self.path_deadline()].into_iter()
    }

    /// Handles every deadline that has passed.
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
        if self.datagrams.is_some() {
            self.expire_datagrams(now);
        }
        self.discard_early_keys(now);
        if self.pacing_until.is_some_and(|at| at <= now) {
            self.pacing_until = None;
        }
        if self.keep_alive_at.is_some_and(|at| at <= now) {
            self.on_silence(now);
        }
        if self.paths.is_some() {
            self.on_path_timeout(cx);
        }
        self.on_loss_timeout(cx);
    }

    fn on_loss_timeout(&mut self, cx: &mut Cx<'_>) {
        let context = self.context();
        if self.recovery.next_timeout(&context).is_none_or(|at| at > cx.now) {
            return;
        }
        // Losses by time, one space per call; after them, the probe timeout may have passed as well.
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
            self.judge_silence();
            self.probe(space, count);
        }
    }

    /// Has `count` probes sent in `space`, along with what is in flight in other spaces (RFC 9002 §6.2.4).
    fn probe(&mut self, space: SpaceId, count: u8) {
        self.space(space).probes = count;
        for other in SpaceId::in_use(self.confirmed).iter().copied().filter(|other| *other != space) {
            // A client that waits for the server to validate its address probes with what it has (RFC 9002 §6.2.2.1).
            let handshakes = other == SpaceId::Handshake && space == SpaceId::Initial;
            let in_flight = self.recovery.is_eliciting_in_flight(other);
            if (handshakes || in_flight) && self.has_keys(other) {
                // In the Data space, the last probe carries nothing.
                let least = if other == SpaceId::Data { 2 } else { 1 };
                let probes = &mut self.space(other).probes;
                *probes = least.max(*probes);
            }
        }
    }

    /// Restarts the idle timer after an ack-eliciting packet was sent, if it is the first since the last one received.
    #[inline]
    pub(super) fn reset_idle_after_sending(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.eliciting_since_receive, true) {
            self.reset_idle(now);
        }
    }

    /// Restarts the idle timer (RFC 9000 §10.1).
    pub(super) fn reset_idle(&mut self, now: Instant) {
        // Once per turn is enough, as all packets of a turn have the same time. Before the handshake is confirmed, the
        // timeout may change in between.
        if self.confirmed && self.idle_reset_at == Some(now) {
            return;
        }
        self.idle_reset_at = Some(now);
        let (timeout, pto) = (self.idle_timeout(), self.pto());
        self.idle_deadline = timeout.map(|timeout| now + timeout.max(3 * pto));
        self.reset_keep_alive(now, timeout, pto);
    }

    /// The smaller one of both sides' idle timeouts (RFC 9000 §10.1).
    fn idle_timeout(&self) -> Option<Duration> {
        let ours = self.config.max_idle_timeout;
        let theirs = Duration::from_millis(self.peer.max_idle_timeout);
        match (ours.is_zero(), theirs.is_zero()) {
            (true, true) => None,
            (true, false) => Some(theirs),
            (false, true) => Some(ours),
            (false, false) => Some(ours.min(theirs)),
        }
    }

    /// Sets the next check for silence: after the configured keep-alive time and, while there are streams, after a
    /// fraction of the idle timeout, as one side may be waiting. A client checks earlier whether it still gets data.
    fn reset_keep_alive(&mut self, now: Instant, idle: Option<Duration>, pto: Duration) {
        let mut every = self.config.keep_alive;
        if self.streams.len() > 0 {
            let part = stall_check(idle);
            let part = if self.side == Side::Client { part.min(QUIET * pto) } else { part };
            every = Some(every.map_or(part, |every| every.min(part)));
        }
        self.keep_alive_at = every.filter(|_| self.confirmed).map(|every| now + every);
    }

    /// Handles a period without traffic.
    fn on_silence(&mut self, now: Instant) {
        let since = self.idle_reset_at.unwrap_or(now);
        let ping_at = self.config.keep_alive.map(|every| since + every);
        let stall_at = (self.streams.len() > 0).then(|| since + stall_check(self.idle_timeout()));
        let call_at = self.next_call(since).filter(|_| stall_at.is_some());
        if call_at.is_some_and(|at| at <= now) {
            self.call();
        }
        if [ping_at, stall_at].into_iter().flatten().any(|at| at <= now) {
            self.end_stall(ping_at.is_some_and(|at| at <= now));
        }
        self.keep_alive_at = [ping_at, stall_at, call_at].into_iter().flatten().filter(|at| *at > now).min();
    }

    /// Ends a stall. A connection must not time out because an application is slow while both ends exist: a sender with
    /// data but no credit repeats that it is blocked (RFC 9000 §4.1), and a receiver that owes credit sends a PING. Each
    /// end does so itself and does not rely on the other. As these frames are ack-eliciting, an end that is gone is still
    /// detected by the idle timeout (RFC 9000 §10.1). `ping` asks for a PING in any case.
    fn end_stall(&mut self, ping: bool) {
        let starved = self.send_credit.available() == 0 && self.streams.blocked_by_connection();
        if starved {
            self.send_credit.blocked_lost();
        }
        if self.streams.repeat_blocked() || starved {
            return;
        }
        self.ping_due |= ping || self.recv_credit.is_used_up() || self.streams.owes_credit();
    }

    /// When a client that has heard nothing `since` then asks whether its server still reaches it, if it does so once
    /// more. NATs forget silent clients. If this one has, the server's data goes to an address that is not the client's
    /// any more, and the server learns the new one only by a packet from there. Without data in between, this is done a
    /// few times only: who wants to be reached at any time configures a keep-alive time (RFC 9000 §10.1.2).
    fn next_call(&mut self, since: Instant) -> Option<Instant> {
        // The lower half tells well enough whether anything has come.
        let received = self.recv_credit.received() as u32;
        if std::mem::replace(&mut self.called_at, received) != received {
            self.calls = 0;
        }
        let calls = Some(self.calls).filter(|calls| *calls < MAX_CALLS && self.side == Side::Client)?;
        Some(since + (QUIET << calls) * self.pto())
    }

    /// Sends a PING if data is to come, unless something is in flight that is repeated anyway.
    fn call(&mut self) {
        if !self.recovery.is_eliciting_in_flight(SpaceId::Data) && self.streams.expects_data() {
            self.calls += 1;
            self.ping_due = true;
        }
    }
}

/// Time without traffic after which both sides check whether one waits for the other, for an idle timeout.
fn stall_check(idle: Option<Duration>) -> Duration {
    idle.map_or(STALL_CHECK, |idle| idle / STALL_CHECKS)
}
