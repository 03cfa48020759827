//! The connection IDs and the token of the handshake's packets, which nobody asks for once it is over.

use crate::base::Side;
use crate::quic::connection::{Birth, Connection};
use crate::wire::quic::ConnectionId;

/// IDs that transport parameters are compared with (RFC 9000 §7.3), and what else is in packets of the handshake.
#[derive(Debug)]
pub(super) struct HandshakeIds {
    /// The Destination Connection ID of the client's first Initial packet.
    pub(super) original_dcid: ConnectionId,
    /// Source Connection ID of the Retry that the client followed.
    pub(super) retry_scid: Option<ConnectionId>,
    /// Source Connection ID of the peer's packets. A client learns it from the first of them.
    pub(super) remote_scid: Option<ConnectionId>,
    /// On a client: the token of its Initial packets.
    pub(super) token: Vec<u8>,
}

impl HandshakeIds {
    pub(super) fn of(birth: &Birth) -> Self {
        Self {
            original_dcid: birth.original_dcid,
            retry_scid: birth.retry_scid,
            remote_scid: (birth.side == Side::Server).then_some(birth.remote_cid),
            token: Vec::new(),
        }
    }
}

impl Connection {
    /// The destination ID of the client's first packets that led to the server's connection: of its first Initial packet
    /// or, if it followed a Retry, of the first one after that. Empty once [`Connection::trim`] has freed it, after the
    /// handshake.
    pub(crate) fn first_dcid(&self) -> ConnectionId {
        self.handshake_ids.as_ref().map(|ids| ids.retry_scid.unwrap_or(ids.original_dcid)).unwrap_or_default()
    }

    /// The token of a client's Initial packets; empty if there is none.
    pub(super) fn token(&self) -> &[u8] {
        self.handshake_ids.as_ref().map_or(&[], |ids| &ids.token)
    }

    /// Sets the token of a client's Initial packets.
    pub(super) fn set_token(&mut self, token: Vec<u8>) {
        if let Some(ids) = &mut self.handshake_ids {
            ids.token = token;
        }
    }

    /// Whether the Source Connection ID of a packet with a long header differs from that of the peer's first Initial
    /// packet (RFC 9000 §7.2).
    pub(super) fn is_foreign_scid(&self, scid: &ConnectionId) -> bool {
        self.handshake_ids.as_ref().and_then(|ids| ids.remote_scid).is_some_and(|known| known != *scid)
    }
}
