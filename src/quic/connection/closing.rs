//! Closing and draining (RFC 9000 §10).

use crate::base::time::Instant;
use crate::quic::connection::{Connection, Cx};
use crate::quic::event::{CloseReason, Event};
use crate::wire::quic::TransportError;

/// Longest reason phrase that we send, in bytes.
const MAX_REASON: usize = 128;

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
    /// We closed it; packets are answered with the close, ever more rarely (RFC 9000 §10.2.1).
    Closing {
        close: Box<Close>,
        due: bool,
        until: Instant,
        received: u32,
        answer_at: u32,
    },
    /// The peer closed it; nothing is sent (RFC 9000 §10.2.2).
    Draining {
        until: Instant,
    },
    /// May be forgotten.
    Dead,
}

impl Connection {
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Active)
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead)
    }

    /// When closing or draining ends.
    pub(super) fn close_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Closing { until, .. } | State::Draining { until } => Some(*until),
            _ => None,
        }
    }

    pub(super) fn end_closing(&mut self) {
        self.state = State::Dead;
    }

    /// Whether closing has been going on; nothing but the close is sent.
    pub(super) fn close_due(&self) -> Option<Close> {
        match &self.state {
            State::Closing { close, due: true, .. } => Some((**close).clone()),
            _ => None,
        }
    }

    pub(super) fn close_sent(&mut self) {
        if let State::Closing { due, .. } = &mut self.state {
            *due = false;
        }
    }

    /// Another packet arrived while closing: answer the 1st, 2nd, 4th, 8th, ...
    pub(super) fn on_packet_while_closing(&mut self) {
        if let State::Closing { due, received, answer_at, .. } = &mut self.state {
            *received += 1;
            if *received >= *answer_at {
                *answer_at = answer_at.saturating_mul(2);
                *due = true;
            }
        }
    }

    /// Gives everything back to the application: each buffer and memory exactly once, then `Closed`. Bytes of pooled
    /// streams that it has not taken yet stay until it has got that, unless it was the one that closed.
    fn release(&mut self, reason: CloseReason) {
        let keep = !matches!(reason, CloseReason::Local { .. });
        if keep {
            self.streams.tell_again();
        }
        self.flush_events();
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

    fn close_with(&mut self, now: Instant, close: Close, reason: CloseReason) {
        if !self.is_active() {
            return;
        }
        let until = now + 3 * self.pto();
        self.state = State::Closing { close: Box::new(close), due: true, until, received: 0, answer_at: 1 };
        self.release(reason);
    }

    /// The application closes the connection.
    pub(crate) fn close(&mut self, now: Instant, code: u64, reason: &str) {
        let close = Close { code, frame_type: None, reason: shorten(reason) };
        self.close_with(now, close, CloseReason::Local { code });
    }

    /// The endpoint goes away.
    pub(crate) fn shut_down(&mut self, now: Instant, code: u64, reason: &str) {
        let close = Close { code, frame_type: None, reason: shorten(reason) };
        self.close_with(now, close, CloseReason::Shutdown);
    }

    /// A protocol or TLS error ends the connection (RFC 9000 §11.1).
    pub(crate) fn fail(&mut self, now: Instant, error: Fault) {
        let close = Close { code: error.code.0, frame_type: Some(error.frame_type), reason: shorten(&error.reason) };
        let reason = CloseReason::Transport { code: error.code.0, reason: error.reason };
        self.close_with(now, close, reason);
    }

    /// The peer closed the connection.
    pub(super) fn on_peer_close(&mut self, cx: &Cx<'_>, reason: CloseReason) {
        let until = cx.now + 3 * self.pto();
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
            let until = now + 3 * self.pto();
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
