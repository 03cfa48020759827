//! Closing and draining (RFC 9000 §10).

use crate::base::Side;
use crate::base::printable::Printable;
use crate::base::time::{Duration, Instant};
use crate::quic::connection::{Connection, Cx};
use crate::quic::event::{CloseReason, Event};
use crate::quic::recovery::SpaceId;
use crate::wire::quic::TransportError;

/// Longest reason phrase that we send, in bytes.
const MAX_REASON: usize = 128;

/// How long closing and draining last, in probe timeouts (RFC 9000 §10.2).
const PERIOD: u32 = 3;

/// How long closing lasts at the most if the peer is still heard, in probe timeouts. Its probes come 1, 3 and 7 of them
/// after the last that it sent: three times it can be told again.
const LONGEST: u32 = 9;

/// The CONNECTION_CLOSE that we send.
#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) code: u64,
    /// Type of the frame that caused it; `None` makes it an application close (0x1d).
    pub(crate) frame_type: Option<u64>,
    pub(crate) reason: String,
}

/// How far a connection's life has gone.
#[derive(Debug)]
pub(crate) enum State {
    Active,
    /// We closed it; packets are answered with the close (RFC 9000 §10.2.1).
    Closing(Box<Closing>),
    /// The peer closed it; nothing is sent (RFC 9000 §10.2.2).
    Draining {
        until: Instant,
    },
    /// May be forgotten.
    Dead,
}

/// A connection that we closed, until it may be forgotten.
#[derive(Debug)]
pub(crate) struct Closing {
    close: Close,
    /// It has to be sent.
    due: bool,
    received: u32,
    /// Which packet is answered next, whenever it comes.
    answer_at: u32,
    /// Runs from the first call that brings the time: the application closes a connection without saying when.
    clock: Option<Clock>,
}

/// How long closing has been going on, and will be.
#[derive(Debug)]
struct Clock {
    began: Instant,
    until: Instant,
    /// Probe timeout when it began.
    pto: Duration,
    /// When the last answer became due.
    answered: Instant,
}

impl Clock {
    fn start(now: Instant, pto: Duration) -> Self {
        Self { began: now, until: now + PERIOD * pto, pto, answered: now }
    }

    /// A packet arrived that is answered as its number says. Gives whether it would be for the time alone: then the peer
    /// has had time to read the last answer, as probes do. Who does not know yet that all is over is heard until it should:
    /// its next probe takes as long as it has taken to come to this one, and then some.
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
        Self { close, due: true, received: 0, answer_at: 1, clock: None }
    }

    /// A packet arrived: the 1st, 2nd, 4th, 8th, ... is answered, and each that comes when the peer has had time to read
    /// the last answer.
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

    /// Whether there is nothing left to do but to ignore what still comes. That also holds for a client that has said that
    /// it gives up and never heard anything: there may be nobody whom its answers would help.
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

    /// Whether closing has been going on; nothing but the close is sent.
    pub(super) fn close_due(&self) -> Option<Close> {
        match &self.state {
            State::Closing(closing) if closing.due => Some(closing.close.clone()),
            _ => None,
        }
    }

    pub(super) fn close_sent(&mut self) {
        if let State::Closing(closing) = &mut self.state {
            closing.due = false;
        }
    }

    /// Closing begins now, if it has to begin.
    pub(super) fn start_closing(&mut self, now: Instant) {
        if matches!(&self.state, State::Closing(closing) if closing.clock.is_none()) {
            let clock = Clock::start(now, self.closing_pto(now));
            if let State::Closing(closing) = &mut self.state {
                closing.clock = Some(clock);
            }
        }
    }

    /// Another packet arrived while closing.
    pub(super) fn on_packet_while_closing(&mut self, now: Instant) {
        self.start_closing(now);
        if let State::Closing(closing) = &mut self.state {
            closing.on_packet(now);
        }
    }

    /// The probe timeout that closing and draining go by. As long as no round-trip time was measured, it is that of one
    /// that is not shorter: the time from our first packet to what the peer answered.
    fn closing_pto(&self, now: Instant) -> Duration {
        let pto = self.pto();
        let answered = match self.side {
            Side::Client => self.stats.rx_packets > 0,
            // By a packet with keys that only our answer gave it.
            Side::Server => self.spaces[SpaceId::Initial.index()].discarded,
        };
        if self.recovery.rtt().first_sample().is_some() || !answered {
            return pto;
        }
        let rtt = now.saturating_since(self.born);
        // As after a first sample (RFC 9002 §5.3, §6.2.1).
        pto.min(rtt + (2 * rtt).max(Duration::from_millis(1)) + self.peer_max_ack_delay())
    }

    /// Gives everything back to the application: each buffer and memory exactly once, then `Closed`. Bytes of pooled
    /// streams that it has not taken yet stay until it has got that, unless it was the one that closed.
    fn release(&mut self, reason: CloseReason) {
        tracing::debug!(conn = %self.id, peer = %self.path.remote, reason = %Printable(&reason), "the connection is over");
        let keep = !matches!(reason, CloseReason::Local { .. });
        if keep {
            self.streams.tell_again();
        }
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

    /// The application knows that the connection is over, and has had its time to take what was left.
    pub(crate) fn forget_streams(&mut self) {
        if !self.is_active() {
            self.streams.drain();
        }
    }

    fn close_with(&mut self, close: Close, reason: CloseReason) {
        if !self.is_active() {
            return;
        }
        self.state = State::Closing(Box::new(Closing::new(close)));
        self.release(reason);
    }

    /// The application closes the connection.
    pub(crate) fn close(&mut self, code: u64, reason: &str) {
        let close = Close { code, frame_type: None, reason: shorten(reason) };
        self.close_with(close, CloseReason::Local { code });
    }

    /// The endpoint goes away.
    pub(crate) fn shut_down(&mut self, code: u64, reason: &str) {
        let close = Close { code, frame_type: None, reason: shorten(reason) };
        self.close_with(close, CloseReason::Shutdown);
    }

    /// A protocol or TLS error ends the connection (RFC 9000 §11.1).
    pub(crate) fn fail(&mut self, error: Fault) {
        let close = Close { code: error.code.0, frame_type: Some(error.frame_type), reason: shorten(&error.reason) };
        let reason = CloseReason::Transport { code: error.code.0, reason: error.reason };
        self.close_with(close, reason);
    }

    /// The peer closed the connection.
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

    /// Ends the connection without a word to the peer.
    pub(crate) fn abandon(&mut self, reason: CloseReason) {
        if self.is_active() {
            self.release(reason);
        }
        self.state = State::Dead;
    }

    /// The peer has forgotten the connection (RFC 9000 §10.3.1).
    pub(crate) fn on_stateless_reset(&mut self, now: Instant) {
        if self.is_active() {
            let until = now + PERIOD * self.closing_pto(now);
            self.state = State::Draining { until };
            self.release(CloseReason::StatelessReset);
        }
    }
}

/// A protocol error with what caused it.
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
