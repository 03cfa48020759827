//! Closing and draining (RFC 9000 §10).

use crate::base::Side;
use crate::base::printable::Printable;
use crate::base::time::{Duration, Instant};
use crate::quic::connection::{Connection, Cx};
use crate::quic::event::{CloseReason, Event};
use crate::quic::recovery::SpaceId;
use crate::wire::quic::TransportError;

/// Maximum length of a reason phrase that we send, in bytes.
const MAX_REASON: usize = 128;

/// Duration of closing and draining, in probe timeouts (RFC 9000 §10.2).
const PERIOD: u32 = 3;

/// Maximum duration of closing while packets of the peer still arrive, in probe timeouts. The peer's probes come 1, 3
/// and 7 probe timeouts after its last packet, so it can be answered three times.
const LONGEST: u32 = 9;

/// The CONNECTION_CLOSE that we send.
#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) code: u64,
    /// Type of the frame that caused the close; `None` for an application close (0x1d).
    pub(crate) frame_type: Option<u64>,
    pub(crate) reason: String,
}

/// State of a connection.
#[derive(Debug)]
pub(crate) enum State {
    Active,
    /// Closed by us; packets are answered with CONNECTION_CLOSE (RFC 9000 §10.2.1).
    Closing(Box<Closing>),
    /// Closed by the peer; nothing is sent (RFC 9000 §10.2.2).
    Draining {
        until: Instant,
    },
    /// May be removed.
    Dead,
}

/// A connection that we closed, until it may be removed.
#[derive(Debug)]
pub(crate) struct Closing {
    close: Close,
    /// Whether the close has to be sent.
    due: bool,
    received: u32,
    /// Number of the next packet that is answered in any case.
    answer_at: u32,
    /// Starts with the first call that passes the time, since `close` does not pass it.
    clock: Option<Clock>,
    /// Number of bytes received and sent by the connection when the close had been sent for the first time.
    told_at: Option<(u64, u64)>,
}

/// Time limits of closing.
#[derive(Debug)]
struct Clock {
    began: Instant,
    until: Instant,
    /// The probe timeout at the start.
    pto: Duration,
    /// When the last answer became due.
    answered: Instant,
}

impl Clock {
    fn start(now: Instant, pto: Duration) -> Self {
        Self { began: now, until: now + PERIOD * pto, pto, answered: now }
    }

    /// Handles a packet and returns whether it is answered: if `by_number` says so, or if the peer has had time to
    /// read the last answer, as is the case with probes. As the peer does not know yet that the connection is closed,
    /// closing is extended until its next probe should have arrived: that takes about as long again as the time since
    /// closing began.
    fn on_packet(&mut self, now: Instant, by_number: bool) -> bool {
        if !by_number && now.saturating_since(self.answered) < self.pto / 4 {
            return false;
        }
        self.answered = now;
        let wait = now.saturating_since(self.began) + PERIOD * self.pto;
        self.until = self.until.max(now + wait).min(self.began + LONGEST * self.pto);
        true
    }
}

impl Closing {
    fn new(close: Close) -> Self {
        Self { close, due: true, received: 0, answer_at: 1, clock: None, told_at: None }
    }

    /// Handles a packet. The 1st, 2nd, 4th, 8th, ... packet is answered, and every packet that arrives when the peer
    /// has had time to read the last answer.
    fn on_packet(&mut self, now: Instant) {
        self.received = self.received.saturating_add(1);
        let by_number = self.received >= self.answer_at;
        if by_number {
            self.answer_at = self.answer_at.saturating_mul(2);
        }
        if self.clock.as_mut().is_some_and(|clock| clock.on_packet(now, by_number)) {
            self.due = true;
        }
    }
}

impl Connection {
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Active)
    }

    /// Whether nothing remains to be done but to ignore late packets. This includes a client that has sent its close
    /// and never received anything: its answers might help nobody.
    pub(crate) fn is_draining(&self) -> bool {
        match &self.state {
            State::Draining { .. } => true,
            State::Closing(closing) => !closing.due && self.side == Side::Client && self.stats.rx_packets == 0,
            State::Active | State::Dead => false,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead)
    }

    /// When closing or draining ends.
    pub(super) fn close_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Closing(closing) => closing.clock.as_ref().map(|clock| clock.until),
            State::Draining { until } => Some(*until),
            _ => None,
        }
    }

    pub(super) fn end_closing(&mut self) {
        self.state = State::Dead;
    }

    /// The close to send, if one is due.
    pub(super) fn close_due(&self) -> Option<Close> {
        match &self.state {
            State::Closing(closing) if closing.due => Some(closing.close.clone()),
            _ => None,
        }
    }

    /// Records that a datagram of `len` bytes with the close is sent.
    pub(super) fn close_sent(&mut self, len: usize) {
        let now = (self.stats.rx_bytes, self.stats.tx_bytes + len as u64);
        if let State::Closing(closing) = &mut self.state {
            closing.due = false;
            closing.told_at.get_or_insert(now);
        }
    }

    /// Number of bytes with which the close may be repeated: three times those received since it was sent, less what it
    /// was repeated with (RFC 9000 §10.2.1). Packets that arrive while closing are not authenticated, so anyone may have
    /// sent them.
    pub(super) fn close_budget(&self) -> u64 {
        match &self.state {
            State::Closing(closing) => closing.told_at.map_or(u64::MAX, |(received, sent)| {
                (3 * (self.stats.rx_bytes - received)).saturating_sub(self.stats.tx_bytes - sent)
            }),
            _ => 0,
        }
    }

    /// Starts closing if that has not happened yet.
    pub(super) fn start_closing(&mut self, now: Instant) {
        if matches!(&self.state, State::Closing(closing) if closing.clock.is_none()) {
            let clock = Clock::start(now, self.closing_pto(now));
            if let State::Closing(closing) = &mut self.state {
                closing.clock = Some(clock);
            }
        }
    }

    /// Handles a packet that arrives while closing.
    pub(super) fn on_packet_while_closing(&mut self, now: Instant) {
        self.start_closing(now);
        if let State::Closing(closing) = &mut self.state {
            closing.on_packet(now);
        }
    }

    /// The probe timeout used for closing and draining. If no round-trip time was measured, an upper bound of it is
    /// used: the time from our first packet to the peer's answer.
    fn closing_pto(&self, now: Instant) -> Duration {
        let pto = self.pto();
        let answered = match self.side {
            Side::Client => self.stats.rx_packets > 0,
            // Its client has used keys that only our answer could give it.
            Side::Server => self.spaces[SpaceId::Initial.index()].discarded,
        };
        if self.recovery.rtt().first_sample().is_some() || !answered {
            return pto;
        }
        let rtt = now.saturating_since(self.born);
        // As after a first sample (RFC 9002 §5.3, §6.2.1).
        pto.min(rtt + (2 * rtt).max(Duration::from_millis(1)) + self.peer_max_ack_delay())
    }

    /// Returns all memory to the application, each buffer and piece exactly once, followed by `Closed`. Unless the
    /// application itself closed the connection, untaken data of pooled streams remains until it has handled `Closed`.
    fn release(&mut self, reason: CloseReason) {
        tracing::debug!(conn = %self.id, peer = %self.path.remote, reason = %Printable(&reason), "connection closed");
        let keep = !matches!(reason, CloseReason::Local { .. });
        if keep {
            self.streams.tell_again();
        }
        self.end_datagrams(keep);
        self.flush_events();
        self.waiting = None;
        for (id, mut stream) in self.streams.drain() {
            if let Some(mut send) = stream.send.take() {
                send.release(|data, acked| self.events.push_back(Event::SendDone { id, data, acked }));
            }
            let Some(recv) = &mut stream.recv else { continue };
            while let Some((offset, buf, valid)) = recv.pop_any() {
                self.events.push_back(Event::Buffer { id, buf, offset, valid });
            }
            if keep && recv.is_readable() {
                self.streams.put_back(id, stream);
            }
        }
        self.events.push_back(Event::Closed { reason });
    }

    /// Removes streams and datagrams, once the application has handled `Closed` and had the opportunity to take the
    /// remaining data.
    pub(crate) fn forget_streams(&mut self) {
        if !self.is_active() {
            self.streams.drain();
            self.datagrams = None;
        }
    }

    fn close_with(&mut self, close: Close, reason: CloseReason) {
        if !self.is_active() {
            return;
        }
        self.state = State::Closing(Box::new(Closing::new(close)));
        self.release(reason);
    }

    /// Closes the connection on behalf of the application.
    pub(crate) fn close(&mut self, code: u64, reason: &str) {
        let close = Close { code, frame_type: None, reason: shorten(reason) };
        self.close_with(close, CloseReason::Local { code });
    }

    /// Closes the connection because the endpoint goes away.
    pub(crate) fn shut_down(&mut self, code: u64, reason: &str) {
        let close = Close { code, frame_type: None, reason: shorten(reason) };
        self.close_with(close, CloseReason::Shutdown);
    }

    /// Closes the connection because of a protocol or TLS error (RFC 9000 §11.1).
    pub(crate) fn fail(&mut self, error: Fault) {
        let close = Close { code: error.code.0, frame_type: Some(error.frame_type), reason: shorten(&error.reason) };
        let reason = CloseReason::Transport { code: error.code.0, reason: error.reason };
        self.close_with(close, reason);
    }

    /// Handles a close by the peer.
    pub(super) fn on_peer_close(&mut self, cx: &Cx<'_>, reason: CloseReason) {
        let until = cx.now + PERIOD * self.closing_pto(cx.now);
        let was_active = self.is_active();
        if !matches!(self.state, State::Dead) {
            self.state = State::Draining { until };
        }
        if was_active {
            self.release(reason);
        }
    }

    /// Ends the connection without informing the peer.
    pub(crate) fn abandon(&mut self, reason: CloseReason) {
        if self.is_active() {
            self.release(reason);
        }
        self.state = State::Dead;
    }

    /// Handles a stateless reset: the peer has lost the connection's state, so nothing more is sent (RFC 9000 §10.3.1).
    pub(crate) fn on_stateless_reset(&mut self, now: Instant) {
        if !matches!(self.state, State::Active | State::Closing(_)) {
            return;
        }
        let was_active = self.is_active();
        self.state = State::Draining { until: now + PERIOD * self.closing_pto(now) };
        if was_active {
            self.release(CloseReason::StatelessReset);
        }
    }
}

/// A protocol error and its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: TransportError,
    pub(crate) frame_type: u64,
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(code: TransportError, frame_type: u64, reason: impl Into<String>) -> Self {
        Self { code, frame_type, reason: reason.into() }
    }
}

impl From<TransportError> for Fault {
    fn from(code: TransportError) -> Self {
        Self::new(code, 0, code.to_string())
    }
}

fn shorten(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 §19.19: a reason phrase "SHOULD be a UTF-8 encoded string".
    #[test]
    fn a_long_reason_is_cut_between_characters() {
        for text in ["x".repeat(300), "é".repeat(300), "€".repeat(300), "🦀".repeat(300)] {
            let short = shorten(&text);
            assert!(text.starts_with(&short) && (MAX_REASON - 3..=MAX_REASON).contains(&short.len()), "{short}");
        }
        assert_eq!(shorten("€"), "€");
    }
}
