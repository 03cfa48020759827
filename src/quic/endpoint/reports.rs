//! Reports about datagrams of ours, from the network and from peers, and those that other cores pass on.

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use crate::base::time::Instant;
use crate::quic::connection::{RxMeta, TooBig, Undelivered};
use crate::quic::endpoint::Endpoint;
use crate::quic::endpoint::reset::MIN_RESET;

/// Possible resets that are kept for other cores at a time.
const MAX_RESETS: usize = 16;

/// Possible resets: where each came from, and the token at its end.
pub(super) type ForeignResets = ArrayVec<(SocketAddr, [u8; 16]), MAX_RESETS>;

impl Endpoint {
    /// Handles a router's report that it could not forward a datagram of ours. It is a hint to probe the path (RFC 8899
    /// §4.6, RFC 9000 §14.2.1), if it quotes a packet that a connection can have sent: only those who have seen one
    /// know the peer's connection ID. The cost does not depend on the number of connections. True if a connection took
    /// the hint.
    pub fn packet_too_big(&mut self, now: Instant, news: &TooBig<'_>) -> bool {
        let heeded = self.relayed_too_big(now, news);
        self.stats.too_big_ignored += u64::from(!heeded);
        heeded
    }

    /// The same for a report that has reached another core, which has counted it.
    pub fn relayed_too_big(&mut self, now: Instant, news: &TooBig<'_>) -> bool {
        let found = self.routes.find(news.local, news.remote, news.quoted);
        let heeded = found.and_then(|id| Some((id, self.table.get(id)?))).filter(|(_, conn)| conn.can_have_sent(news));
        let Some((id, conn)) = heeded else { return false };
        conn.on_too_big(now, news.max);
        self.touch(id);
        true
    }

    /// Handles a report that a datagram of ours was not delivered. True if it is credible, concerns a connection and is
    /// new to it: it quotes a packet that a client's handshake in flight can have sent (RFC 8085 §5.2). Quotes too
    /// short to contain the connection ID are ignored, although RFC 792 allows them, as anyone could make them up. The
    /// cost does not depend on the number of connections.
    pub fn is_undelivered(&mut self, news: &Undelivered<'_>) -> bool {
        let credible = self.relayed_undelivered(news);
        self.stats.undelivered_ignored += u64::from(!credible);
        credible
    }

    /// The same for a report that has reached another core, which has counted it.
    pub fn relayed_undelivered(&mut self, news: &Undelivered<'_>) -> bool {
        let found = self.routes.find(news.local, news.remote, news.quoted);
        found.and_then(|id| self.table.get(id)).is_some_and(|conn| conn.is_undelivered(news))
    }

    /// Keeps a datagram that belongs to no connection here, if it can be a stateless reset of another core's
    /// connection.
    pub(super) fn note_reset(&mut self, meta: &RxMeta, data: &[u8]) {
        if self.config.cores > 1
            && let Some(token) = data.last_chunk().filter(|_| data.len() >= MIN_RESET)
        {
            // More at a time are a flood.
            let _ = self.foreign_resets.try_push((meta.remote, *token));
        }
    }

    /// The next datagram that may be a stateless reset of another core's connection: where it came from, and the token
    /// at its end. None are kept unless there are other cores ([`EndpointConfig::cores`](super::EndpointConfig::cores)).
    #[inline]
    pub fn poll_foreign_reset(&mut self) -> Option<(SocketAddr, [u8; 16])> {
        self.foreign_resets.pop()
    }

    /// Ends the connection that a datagram resets, which came from `remote` and reached another core (RFC 9000 §10.3.1).
    /// True if there is one.
    pub fn relayed_reset(&mut self, now: Instant, remote: SocketAddr, token: &[u8; 16]) -> bool {
        let found = self.lookup.by_token(token, remote);
        if let Some(id) = found {
            self.on_reset(now, id);
        }
        found.is_some()
    }
}
