//! Queue of datagrams that answer packets without a connection.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::quic::connection::Transmit;
use crate::quic::endpoint::Endpoint;
use crate::quic::stats::DropReason;
use crate::wire::quic::ConnectionId;

/// Maximum number of queued answers (Version Negotiation, stateless reset, refusal).
const MAX_ANSWERS: usize = 64;

/// Maximum number of queued Retry packets: eight bursts of received datagrams, as connections may have much to send at
/// a time. They have a queue of their own because their rate is not limited, and they must not displace other answers.
const MAX_RETRIES: usize = 256;

/// An answer to a datagram without a connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) data: Vec<u8>,
    pub(super) origin: Option<Origin>,
}

/// Where a datagram came from, in terms of the layer that carries it, such as a MAC address. The engine only stores it.
pub type Origin = [u8; 6];

/// A Retry to send in answer to a first packet from `scid` to `dcid`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryDue {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) dcid: ConnectionId,
    pub(super) scid: ConnectionId,
    pub(super) origin: Option<Origin>,
}

/// The queued answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    ready: VecDeque<Answer>,
    retries: VecDeque<RetryDue>,
    /// Whether the last datagram was an answer, so that it is the connections' turn.
    yields: bool,
    /// Whether the last answer was not a Retry.
    retry_next: bool,
    /// Number of answers queued since the start, and whether the last one is a Retry.
    queued: u64,
    last_is_retry: bool,
    /// Origin of the datagram that caused the last answer written, if known.
    written: Option<Origin>,
}

impl Answers {
    /// Whether another [`Answer`] may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.ready.len() < MAX_ANSWERS
    }

    pub(super) fn push_back(&mut self, answer: Answer) {
        self.ready.push_back(answer);
        self.queued += 1;
        self.last_is_retry = false;
    }

    /// Number of answers queued since the start.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Sets the origin of the datagram that caused the last answer queued.
    pub(super) fn set_origin(&mut self, origin: Origin) {
        if self.last_is_retry {
            self.retries.back_mut().into_iter().for_each(|retry| retry.origin = Some(origin));
        } else {
            self.ready.back_mut().into_iter().for_each(|answer| answer.origin = Some(origin));
        }
    }

    /// The origin of the datagram that caused the last answer written.
    pub(super) fn written_origin(&self) -> Option<Origin> {
        self.written
    }

    /// Queues a Retry. False if there are too many.
    pub(super) fn push_retry(&mut self, retry: RetryDue) -> bool {
        let room = self.retries.len() < MAX_RETRIES;
        if room {
            self.retries.push_back(retry);
            self.queued += 1;
            self.last_is_retry = true;
        }
        room
    }

    /// Whether the next datagram is an answer; while connections have something to send, every second datagram is.
    #[inline]
    pub(super) fn is_next(&mut self) -> bool {
        let waiting = !self.ready.is_empty() || !self.retries.is_empty();
        waiting && !std::mem::take(&mut self.yields)
    }

    /// Whether the next answer is a Retry. The two kinds alternate.
    fn is_retry_next(&self) -> bool {
        !self.retries.is_empty() && (self.retry_next || self.ready.is_empty())
    }
}

impl Endpoint {
    /// Writes the next answer into `slot`, if there is one.
    pub(super) fn write_answer(&mut self, now: Instant, slot: &mut [u8]) -> Option<Transmit> {
        loop {
            let (local, remote, origin, len) = if self.answers.is_retry_next() {
                let retry = self.answers.retries.pop_front()?;
                (retry.local, retry.remote, retry.origin, self.write_retry(now, &retry, slot))
            } else {
                let answer = self.answers.ready.pop_front()?;
                let space = slot.get_mut(..answer.data.len());
                let len = answer.data.len();
                let written = space.map(|space| space.copy_from_slice(&answer.data)).map(|()| len);
                (answer.local, answer.remote, answer.origin, written)
            };
            self.answers.retry_next = !self.answers.retry_next;
            let Some(len) = len else {
                self.stats.drop(DropReason::Overload);
                continue;
            };
            self.answers.yields = true;
            self.answers.written = origin;
            self.stats.tx_datagrams += 1;
            self.stats.tx_bytes += len as u64;
            return Some(Transmit { conn: None, local, remote, ecn: 0, len });
        }
    }
}
