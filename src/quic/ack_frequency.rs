//! The acknowledgement frequency that ends ask of each other (draft-ietf-quic-ack-frequency-14).
//!
//! As a receiver, [`AckRule`] says when we acknowledge, and [`Obeyed`] keeps to what the peer asks for. As a sender,
//! [`Asked`] decides what to ask the peer for, and which delay of its acknowledgements to expect.

use crate::base::time::Duration;
use crate::quic::config::{AckRequests, TransportConfig};
use crate::wire::quic::TransportError;
use crate::wire::quic::params::ACK_DELAY_LIMIT;

/// The packet threshold of loss detection (RFC 9002 §6.1.1). Acknowledgements of packets that are out of order by less
/// detect no loss (draft-ietf-quic-ack-frequency-14 §9).
const REORDERING: u64 = 3;

/// Acknowledgements per window and per round trip that [`AckRequests::Adaptive`] asks for.
const PER_WINDOW: u64 = 8;
const PER_ROUND_TRIP: u32 = 4;

/// The highest threshold that [`AckRequests::Adaptive`] asks for: a receiver may report as few as 64 ranges.
const MAX_THRESHOLD: u64 = 63;

/// The highest number of packets after which we acknowledge, whatever the peer asks for. Far below `u32::MAX`, so that a
/// count beyond it can stand for "now".
const MAX_EVERY: u32 = 1 << 30;

/// Delays below this number of microseconds are all the same: on such paths, acknowledgements are due to the threshold.
const LEAST_DELAY: u64 = 1000;

/// The highest delay that may be requested, exclusive, in microseconds (draft-ietf-quic-ack-frequency-14 §4).
const DELAY_LIMIT: u64 = ACK_DELAY_LIMIT * 1000;

/// When received packets are acknowledged (RFC 9000 §13.2.1, draft-ietf-quic-ack-frequency-14 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AckRule {
    /// Maximum delay of an acknowledgement.
    pub(crate) delay: Duration,
    /// Number of ack-eliciting packets that are acknowledged at once.
    pub(crate) every: u32,
    /// Reordering of this many packets is acknowledged at once; 0 for never.
    pub(crate) reordering: u32,
}

impl AckRule {
    /// Initial and Handshake packets are acknowledged at once (RFC 9000 §13.2.1).
    pub(crate) const AT_ONCE: Self = Self { delay: Duration::ZERO, every: 1, reordering: 1 };

    /// What holds until the peer asks for something else.
    pub(crate) fn of(config: &TransportConfig) -> Self {
        Self { delay: config.max_ack_delay, every: config.ack_frequency, reordering: 1 }
    }
}

/// The contents of an ACK_FREQUENCY frame but for its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) threshold: u64,
    pub(crate) max_delay: Duration,
    pub(crate) reordering: u64,
}

/// What the peer has asked for.
#[derive(Debug, Default)]
pub(crate) struct Obeyed {
    /// One more than the largest sequence number processed.
    next_seq: u64,
    /// The last packet that was marked by ECN.
    marked: Option<u64>,
}

impl Obeyed {
    /// Handles an ACK_FREQUENCY frame, whose delay is in microseconds (draft-ietf-quic-ack-frequency-14 §4). `min` is
    /// the minimum that we announced. Returns the new rule, unless the frame is obsolete.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION if the delay is invalid.
    pub(crate) fn on_frame(
        &mut self,
        seq: u64,
        threshold: u64,
        max_delay: u64,
        reordering: u64,
        min: Duration,
    ) -> Result<Option<AckRule>, TransportError> {
        if max_delay >= DELAY_LIMIT || Duration::from_micros(max_delay) < min {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        if seq < self.next_seq {
            return Ok(None);
        }
        self.next_seq = seq + 1;
        let every = u32::try_from(threshold.saturating_add(1)).unwrap_or(MAX_EVERY).min(MAX_EVERY);
        let reordering = u32::try_from(reordering).unwrap_or(u32::MAX);
        Ok(Some(AckRule { delay: Duration::from_micros(max_delay), every, reordering }))
    }

    /// Handles packet `pn`, which was marked by ECN. Returns whether it is acknowledged at once: if the peer accepts
    /// fewer acknowledgements than usual, only the first of several is (draft-ietf-quic-ack-frequency-14 §6.3).
    pub(crate) fn is_news(&mut self, pn: u64, rule: &AckRule) -> bool {
        let before = self.marked.replace(pn);
        rule.every <= 2 || before.is_none_or(|before| before + 1 != pn)
    }
}

/// What a sender knows when it decides what to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The congestion window in packets.
    pub(crate) window: u64,
    pub(crate) srtt: Duration,
    pub(crate) slow_start: bool,
    /// Whether there is more to send.
    pub(crate) busy: bool,
}

/// What we have asked the peer for.
#[derive(Debug)]
pub(crate) struct Asked {
    requests: AckRequests,
    /// The limits of the delay: the minimum that the peer announced, and what it announced to use by itself.
    min: Duration,
    usual: Duration,
    /// The request to send.
    due: Option<Request>,
    /// The latest one sent.
    latest: Option<Request>,
    next_seq: u64,
    /// The delay that was acknowledged last, and the longest of those requested since.
    delay: Duration,
    pending: Option<Duration>,
}

impl Asked {
    /// `min` and `usual` are what the peer has announced as minimum and maximum delay.
    pub(crate) fn new(requests: AckRequests, min: Duration, usual: Duration) -> Self {
        Self { requests, min, usual, due: None, latest: None, next_seq: 0, delay: usual, pending: None }
    }

    /// What suits the sender.
    fn wish(&self, facts: &Facts) -> Option<Request> {
        match self.requests {
            AckRequests::Never => None,
            AckRequests::Fixed { threshold, max_delay, reordering } => Some(Request {
                threshold: threshold.into(),
                max_delay: max_delay.max(self.min).min(Duration::from_micros(DELAY_LIMIT - 1)),
                reordering: reordering.into(),
            }),
            // What is idle needs no change, and a request is answered, which must not cause another one.
            AckRequests::Adaptive if facts.slow_start || !facts.busy => None,
            AckRequests::Adaptive => Some(Request {
                threshold: (facts.window / PER_WINDOW).clamp(1, MAX_THRESHOLD),
                max_delay: (facts.srtt / PER_ROUND_TRIP).clamp(self.min, self.usual.max(self.min)),
                reordering: REORDERING,
            }),
        }
    }

    /// Decides what to ask for, at most once per round trip: while a request is in flight, there is no other one.
    pub(crate) fn consider(&mut self, facts: &Facts) {
        if self.pending.is_some() || self.due.is_some() {
            return;
        }
        let Some(wish) = self.wish(facts) else { return };
        // Small changes are not worth a frame.
        let far = |a: u64, b: u64| a >= 2 * b || b >= 2 * a;
        let micros = |delay: Duration| (delay.as_micros() as u64).max(LEAST_DELAY);
        let news = self.latest.is_none_or(|latest| {
            far(wish.threshold.max(1), latest.threshold.max(1))
                || far(micros(wish.max_delay), micros(latest.max_delay))
                || wish.reordering != latest.reordering
        });
        if news {
            self.due = Some(wish);
        }
    }

    /// The request to send, with its sequence number.
    pub(crate) fn due(&self) -> Option<(u64, Request)> {
        self.due.map(|request| (self.next_seq, request))
    }

    pub(crate) fn sent(&mut self) {
        if let Some(request) = self.due.take() {
            self.next_seq += 1;
            self.latest = Some(request);
            self.pending = Some(self.pending.map_or(request.max_delay, |delay| delay.max(request.max_delay)));
        }
    }

    /// Handles the acknowledgement of a frame. Until that of the latest one, none has certainly replaced the others.
    pub(crate) fn on_acked(&mut self, seq: u64) {
        if seq + 1 == self.next_seq
            && let Some(latest) = self.latest
        {
            self.delay = latest.max_delay;
            self.pending = None;
        }
    }

    /// Handles the loss of a frame: the request is sent again, with another number.
    pub(crate) fn on_lost(&mut self, seq: u64) {
        if seq + 1 == self.next_seq && self.pending.is_some() && self.due.is_none() {
            self.due = self.latest;
        }
    }

    /// The delay of the peer's acknowledgements to expect: the longest of those that may be in use
    /// (draft-ietf-quic-ack-frequency-14 §7).
    pub(crate) fn delay(&self) -> Duration {
        self.pending.map_or(self.delay, |pending| pending.max(self.delay))
    }

    /// Whether the peer may wait for more packets than usual, so that the last one before a pause asks for an
    /// acknowledgement (draft-ietf-quic-ack-frequency-14 §8.1.1).
    pub(crate) fn is_patient(&self) -> bool {
        self.latest.is_some_and(|latest| latest.threshold > 1)
    }
}

/// Both directions. A connection has it once it is needed.
#[derive(Debug, Default)]
pub(crate) struct AckFrequency {
    pub(crate) obeyed: Obeyed,
    pub(crate) asked: Option<Asked>,
}

#[cfg(test)]
mod tests;
