//! Queue of datagrams that answer packets without a connection.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::quic::connection::Transmit;
use crate::quic::endpoint::Endpoint;
use crate::quic::stats::DropReason;
use crate::wire::quic::{ConnectionId, Version};

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
}

/// Where a datagram came from, in terms of the layer that carries it, such as a MAC address. The engine only stores it.
pub type Origin = [u8; 6];

/// Identifies an answer among all of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnswerId(u64);

/// A Retry to send in answer to a first packet from `scid` to `dcid`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryDue {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) version: Version,
    pub(super) dcid: ConnectionId,
    pub(super) scid: ConnectionId,
}

/// A queued answer.
#[derive(Debug)]
struct Waiting<T> {
    id: AnswerId,
    origin: Option<Origin>,
    answer: T,
}

/// The answers of one kind, oldest first.
#[derive(Debug)]
struct Queue<T>(VecDeque<Waiting<T>>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Queue<T> {
    fn push(&mut self, id: AnswerId, answer: T) {
        self.0.push_back(Waiting { id, origin: None, answer });
    }

    fn pop(&mut self) -> Option<(T, Option<Origin>)> {
        self.0.pop_front().map(|waiting| (waiting.answer, waiting.origin))
    }

    /// The answer `id`, if it is in this queue. The search starts with the newest.
    fn find(&mut self, id: AnswerId) -> Option<&mut Waiting<T>> {
        self.0.iter_mut().rev().take_while(|waiting| waiting.id >= id).find(|waiting| waiting.id == id)
    }
}

/// The queued answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    ready: Queue<Answer>,
    retries: Queue<RetryDue>,
    /// Whether the last datagram was an answer, so that it is the connections' turn.
    yields: bool,
    /// Whether the last answer was not a Retry.
    retry_next: bool,
    /// Number of answers queued since the start.
    queued: u64,
    /// Origin of the datagram that caused the last answer written, if known.
    written: Option<Origin>,
}

impl Answers {
    /// Whether another [`Answer`] may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.ready.0.len() < MAX_ANSWERS
    }

    pub(super) fn push_back(&mut self, answer: Answer) {
        self.queued += 1;
        self.ready.push(AnswerId(self.queued), answer);
    }

    /// The answer queued last.
    pub(super) fn last(&self) -> AnswerId {
        AnswerId(self.queued)
    }

    /// Sets the origin of the datagram that caused the answer `id`.
    pub(super) fn set_origin(&mut self, id: AnswerId, origin: Origin) {
        if let Some(retry) = self.retries.find(id) {
            retry.origin = Some(origin);
        } else if let Some(answer) = self.ready.find(id) {
            answer.origin = Some(origin);
        }
    }

    /// The origin of the datagram that caused the last answer written.
    pub(super) fn written_origin(&self) -> Option<Origin> {
        self.written
    }

    /// Queues a Retry. False if there are too many.
    pub(super) fn push_retry(&mut self, retry: RetryDue) -> bool {
        let room = self.retries.0.len() < MAX_RETRIES;
        if room {
            self.queued += 1;
            self.retries.push(AnswerId(self.queued), retry);
        }
        room
    }

    /// Whether the next datagram is an answer; while connections have something to send, every second datagram is.
    #[inline]
    pub(super) fn is_next(&mut self) -> bool {
        !self.is_empty() && !std::mem::take(&mut self.yields)
    }

    /// Whether no answer is waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.0.is_empty() && self.retries.0.is_empty()
    }

    /// Whether the next answer is a Retry. The two kinds alternate.
    fn is_retry_next(&self) -> bool {
        !self.retries.0.is_empty() && (self.retry_next || self.ready.0.is_empty())
    }
}

impl Endpoint {
    /// Writes the next answer into `slot`, if there is one.
    pub(super) fn write_answer(&mut self, now: Instant, slot: &mut [u8]) -> Option<Transmit> {
        loop {
            let (local, remote, origin, len) = if self.answers.is_retry_next() {
                let (retry, origin) = self.answers.retries.pop()?;
                (retry.local, retry.remote, origin, self.write_retry(now, &retry, slot))
            } else {
                let (answer, origin) = self.answers.ready.pop()?;
                let space = slot.get_mut(..answer.data.len());
                let len = answer.data.len();
                let written = space.map(|space| space.copy_from_slice(&answer.data)).map(|()| len);
                (answer.local, answer.remote, origin, written)
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
