//! Datagrams that answer others without a connection, as they wait to be sent.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::quic::connection::Transmit;
use crate::quic::endpoint::Endpoint;
use crate::quic::stats::DropReason;
use crate::wire::quic::ConnectionId;

/// Answers (Version Negotiation, stateless reset, refusal) that wait to be sent.
const MAX_ANSWERS: usize = 64;

/// Retry packets that wait to be sent: eight bursts of received datagrams, as connections may have much to send at a time.
/// They have a queue of their own, as no rate bounds them, so that they do not take the place of others.
const MAX_RETRIES: usize = 256;

/// A datagram that answers one without a connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) data: Vec<u8>,
}

/// A Retry that is to be made, in answer to a first packet from `scid` to `dcid`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryDue {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) dcid: ConnectionId,
    pub(super) scid: ConnectionId,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Answers {
    ready: VecDeque<Answer>,
    retries: VecDeque<RetryDue>,
    /// The last datagram was an answer: it is the connections' turn.
    yields: bool,
    /// The last answer was no Retry.
    retry_next: bool,
}

impl Answers {
    /// Whether another [`Answer`] may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.ready.len() < MAX_ANSWERS
    }

    pub(super) fn push_back(&mut self, answer: Answer) {
        self.ready.push_back(answer);
    }

    /// False if too many wait already.
    pub(super) fn push_retry(&mut self, retry: RetryDue) -> bool {
        let room = self.retries.len() < MAX_RETRIES;
        if room {
            self.retries.push_back(retry);
        }
        room
    }

    /// Whether the next datagram is an answer even if connections have something to send: every second is.
    #[inline]
    pub(super) fn is_next(&mut self) -> bool {
        let waiting = !self.ready.is_empty() || !self.retries.is_empty();
        waiting && !std::mem::take(&mut self.yields)
    }

    /// Whether the next answer is a Retry. The two kinds take turns.
    fn is_retry_next(&self) -> bool {
        !self.retries.is_empty() && (self.retry_next || self.ready.is_empty())
    }
}

impl Endpoint {
    /// Writes the next answer into `slot`, if there is one.
    pub(super) fn write_answer(&mut self, now: Instant, slot: &mut [u8]) -> Option<Transmit> {
        loop {
            let (local, remote, len) = if self.answers.is_retry_next() {
                let retry = self.answers.retries.pop_front()?;
                (retry.local, retry.remote, self.write_retry(now, &retry, slot))
            } else {
                let answer = self.answers.ready.pop_front()?;
                let space = slot.get_mut(..answer.data.len());
                let len = answer.data.len();
                (answer.local, answer.remote, space.map(|space| space.copy_from_slice(&answer.data)).map(|()| len))
            };
            self.answers.retry_next = !self.answers.retry_next;
            let Some(len) = len else {
                self.stats.drop(DropReason::Overload);
                continue;
            };
            self.answers.yields = true;
            self.stats.tx_datagrams += 1;
            self.stats.tx_bytes += len as u64;
            return Some(Transmit { conn: None, local, remote, ecn: 0, len });
        }
    }
}
