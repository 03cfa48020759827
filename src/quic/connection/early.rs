//! Retry packets, which have no frames but affect a client's handshake.

use crate::crypto;
use crate::quic::connection::{Connection, Cx};
use crate::quic::recovery::SpaceId;
use crate::quic::stats::DropReason;
use crate::wire::quic::header::{self, Parsed};

impl Connection {
    /// Handles a Retry packet (RFC 9000 §17.2.5). All but the first genuine one are dropped. One whose token is longer
    /// than [`header::MAX_TOKEN`] is treated as lost.
    pub(crate) fn handle_retry(&mut self, cx: &mut Cx<'_>, parsed: &Parsed, data: &[u8]) {
        let Some((body, tag)) = data.split_last_chunk::<16>() else {
            cx.stats.drop(DropReason::Malformed);
            return;
        };
        let token = data.get(parsed.token.clone()).unwrap_or_default();
        let first = self.spaces[SpaceId::Initial.index()].acks.largest().is_none();
        // A Retry has the version of the packet that it answers (RFC 9369 §4.1).
        let ours = parsed.known_version() == Some(self.version);
        if !self.takes_retry() || !ours || !first || token.is_empty() || parsed.scid == *self.remote_cids.current() {
            cx.stats.drop(DropReason::Unexpected);
            return;
        }
        if token.len() > header::MAX_TOKEN {
            cx.stats.drop(DropReason::LongToken);
            return;
        }
        let Some(ids) = &self.handshake_ids else { return };
        if crypto::retry_tag(self.version, &ids.original_dcid, body) != *tag {
            cx.stats.drop(DropReason::Authentication);
            return;
        }
        self.on_retry(cx, parsed.scid, token);
    }
}
