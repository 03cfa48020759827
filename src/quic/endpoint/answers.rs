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
    pub(super) origin: Option<Origin>,
}

/// Where the datagram came from that an answer is for, in terms of whoever carries datagrams: a MAC address, for instance.
/// The engine only keeps it.
pub type Origin = [u8; 6];

/// A Retry that is to be made, in answer to a first packet from `scid` to `dcid`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryDue {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) dcid: ConnectionId,
    pub(super) scid: ConnectionId,
    pub(super) origin: Option<Origin>,
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
    /// Answers queued since the start, and whether the last one is a Retry.
    queued: u64,
    last_is_retry: bool,
    /// What was known of where the cause of the last answer that was written came from.
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

    /// Answers queued since the start.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// The last answer queued is for a datagram that came from `origin`.
    pub(super) fn set_origin(&mut self, origin: Origin) {
        if self.last_is_retry {
            self.retries.back_mut().into_iter().for_each(|retry| retry.origin = Some(origin));
        } else {
            self.ready.back_mut().into_iter().for_each(|answer| answer.origin = Some(origin));
        }
    }

    /// Where the cause of the answer that was written last came from.
    pub(super) fn written_origin(&self) -> Option<Origin> {
        self.written
    }

    /// False if too many wait already.
    pub(super) fn push_retry(&mut self, retry: RetryDue) -> bool {
        let room = self.retries.len() < MAX_RETRIES;
        if room {
            self.retries.push_back(retry);
            self.queued += 1;
            self.last_is_retry = true;
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
