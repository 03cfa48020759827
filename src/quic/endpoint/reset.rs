//! Stateless resets: telling a peer that its connection is not known here (RFC 9000 §10.3).

use crate::base::time::Instant;
use crate::quic::connection::RxMeta;
use crate::quic::endpoint::{Answer, Endpoint};
use crate::quic::event::ConnId;
use crate::quic::stats::DropReason;

/// Smallest packet that could be a valid 1-RTT packet for us; shorter ones get no answer.
const MIN_TRIGGER: usize = 22;

/// Smallest datagram that can be a reset (RFC 9000 §10.3).
const MIN_RESET: usize = 21;

/// Resets look like short-header packets of at most this size, in bytes.
const MAX_RESET: usize = 42;

impl Endpoint {
    /// The connection whose peer says by a datagram that it has forgotten it (RFC 9000 §10.3.1).
    pub(super) fn find_reset(&mut self, meta: &RxMeta, data: &[u8]) -> Option<ConnId> {
        let token = data.last_chunk::<16>().filter(|_| data.len() >= MIN_RESET)?;
        self.lookup.by_token(token, meta.remote)
    }

    /// The peer has forgotten the connection `id`.
    pub(super) fn on_reset(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.table.get(id) {
            conn.on_stateless_reset(now);
        }
        self.touch(id);
    }

    /// A packet of `len` bytes with a short header came for an ID that leads to no connection. The ID's owner says so, if
    /// there was a connection or it cannot know: that of an earlier process with the same secret
    /// (RFC 9000 §10.3.2). Nobody else may, as the token would be that of a connection that may well live (§21.11); nor
    /// its owner as long as the connection lives, though the ID is retired (§10.3).
    ///
    /// The answer is shorter than what caused it, so that two endpoints cannot reset each other for ever (§10.3.3).
    pub(super) fn send_reset(&mut self, now: Instant, meta: &RxMeta, dcid: &[u8], len: usize) {
        let Some(info) = self.ids.raw(dcid).and_then(|dcid| self.ids.own(dcid)) else {
            self.stats.drop(DropReason::ForeignId);
            return;
        };
        if self.table.find(info.index, info.generation).is_some() {
            self.stats.drop(DropReason::RetiredId);
            return;
        }
        self.stats.drop(DropReason::UnknownConnection);
        if len < MIN_TRIGGER || !self.resets.take(now) || !self.may_answer() {
            return;
        }
        let size = MAX_RESET.min(len - 1);
        let mut data = vec![0; size];
        self.rng.fill(&mut data);
        data[0] = data[0] & 0x3f | 0x40;
        data[size - 16..].copy_from_slice(&self.ids.token(dcid));
        self.stats.resets_sent += 1;
        self.answers.push_back(Answer { local: meta.local, remote: meta.remote, data, origin: None });
    }
}
