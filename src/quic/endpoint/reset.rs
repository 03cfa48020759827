//! Stateless resets, which tell a peer that its connection is not known here (RFC 9000 §10.3).

use crate::base::time::Instant;
use crate::quic::config::EndpointConfig;
use crate::quic::connection::RxMeta;
use crate::quic::endpoint::{Answer, Endpoint};
use crate::quic::event::ConnId;
use crate::quic::stats::DropReason;

/// Minimum size of packets that are answered, in bytes: that of a valid 1-RTT packet for us.
const MIN_TRIGGER: usize = 22;

/// Minimum size of a reset, in bytes (RFC 9000 §10.3).
pub(super) const MIN_RESET: usize = 21;

/// Maximum size of the packets that resets imitate, in bytes.
const MAX_RESET: usize = 42;

impl Endpoint {
    /// The connection that a datagram resets (RFC 9000 §10.3.1).
    pub(super) fn find_reset(&mut self, meta: &RxMeta, data: &[u8]) -> Option<ConnId> {
        let token = data.last_chunk::<16>().filter(|_| data.len() >= MIN_RESET)?;
        self.lookup.by_token(token, meta.remote)
    }

    /// Handles a datagram for the connection `id`, which had read `read` packets before. If it contained nothing that
    /// could be read, it may be a reset in the form of a packet for another version, or with a long header (RFC 9000
    /// §10.3).
    pub(super) fn find_reset_unread(&mut self, now: Instant, id: ConnId, read: u64, meta: &RxMeta, data: &[u8]) {
        let unread = self.table.peek(id).is_some_and(|conn| conn.packets_read() == read);
        if unread && let Some(id) = self.find_reset(meta, data) {
            self.on_reset(now, id);
        }
    }

    /// Ends the connection `id`, whose state the peer has lost.
    pub(super) fn on_reset(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.table.get(id) {
            conn.on_stateless_reset(now);
        }
        self.touch(id);
    }

    /// Answers a packet of `len` bytes with a short header whose ID leads to no connection. The core that the ID names
    /// answers, and for a core that does not exist, whoever receives the packet: an earlier process with the same secret
    /// may have had more cores (RFC 9000 §10.3.2). Other cores must not, as the token could be that of a live connection
    /// (§21.11). Nor does the owner while the connection lives, even if the ID is retired (§10.3).
    ///
    /// Anyone can make up IDs that name no existing core, so these have a limit of their own: they do not use up the
    /// resets for connections of this process.
    ///
    /// The answer is shorter than its cause, so that two endpoints cannot reset each other forever (§10.3.3).
    pub(super) fn send_reset(&mut self, now: Instant, meta: &RxMeta, dcid: &[u8], len: usize) {
        let info = self.ids.raw(dcid).and_then(|dcid| self.ids.read(dcid));
        let Some(info) = info.filter(|info| self.answers_for(info.core)) else {
            self.stats.drop(DropReason::ForeignId);
            return;
        };
        if info.core == self.config.core && self.table.find(info.index, info.generation).is_some() {
            self.stats.drop(DropReason::RetiredId);
            return;
        }
        self.stats.drop(DropReason::UnknownConnection);
        let limit = if info.core == self.config.core { &mut self.resets } else { &mut self.foreign };
        if len < MIN_TRIGGER || !limit.take(now) || !self.may_answer() {
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

    /// Whether resets for connections of `core` are sent here: it is this core, or is known not to exist.
    fn answers_for(&self, core: u8) -> bool {
        let EndpointConfig { core: own, cores, .. } = self.config;
        core == own || own < cores && core >= cores
    }
}
