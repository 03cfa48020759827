//! Stateless resets: telling a peer that its connection is not known here (RFC 9000 §10.3).

use crate::base::time::Instant;
use crate::quic::connection::RxMeta;
use crate::quic::endpoint::{Answer, Endpoint};
use crate::quic::event::ConnId;
use crate::quic::stats::Drop;

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
        let id = self.lookup.by_token(token)?;
        self.table.get(id).filter(|conn| conn.remote() == meta.remote).map(|_| id)
    }

    /// The peer has forgotten the connection `id`.
    pub(super) fn on_reset(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.table.get(id) {
            conn.on_stateless_reset(now);
        }
        self.touch(id);
    }

    /// Answers a packet of `len` bytes for an unknown connection. The answer is shorter than what
    /// caused it, so that two endpoints cannot reset each other for ever (RFC 9000 §10.3.3).
    pub(super) fn send_reset(&mut self, now: Instant, meta: &RxMeta, dcid: &[u8], len: usize) {
        self.stats.drop(Drop::UnknownConnection);
        if len < MIN_TRIGGER || !self.resets.take(now) || !self.may_answer() {
            return;
        }
        let size = MAX_RESET.min(len - 1);
        let mut data = vec![0; size];
        self.rng.fill(&mut data);
        data[0] = data[0] & 0x3f | 0x40;
        data[size - 16..].copy_from_slice(&self.ids.token(dcid));
        self.stats.resets_sent += 1;
        self.answers.push_back(Answer { local: meta.local, remote: meta.remote, data });
    }
}
