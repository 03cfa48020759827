//! Connection IDs and stateless reset tokens for the connections of one core.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::MAX_ACTIVE;
use super::codec::{CidCodec, CidInfo, MAX_INDEX, RawCid};
use crate::quic::event::ConnId;
use crate::wire::quic::ConnectionId;
use crate::wire::quic::header::{self, HeaderError, Parsed};

const _: () = assert!(MAX_INDEX == ConnId::MAX_INDEX);

/// Makes connection IDs and their stateless reset tokens for the connections of one core.
#[derive(Debug)]
pub(crate) struct IdMaker {
    codec: CidCodec,
    tokens: TokenMaker,
    core: u8,
    /// Maximum number of active IDs of a connection.
    most_active: usize,
}

impl IdMaker {
    /// Makes IDs with `codec` and tokens with `reset_key`, for connections of `core`.
    pub(crate) fn new(codec: CidCodec, reset_key: &[u8; 32], core: u8) -> Self {
        // IDs that everyone can link to a server are no use on another path (§9 of draft-ietf-quic-load-balancers-21:
        // such servers "SHOULD NOT send CIDs in QUIC NEW_CONNECTION_ID frames").
        let most_active = if codec.shows_server() { 1 } else { MAX_ACTIVE };
        Self { codec, tokens: TokenMaker::new(reset_key), core, most_active }
    }

    /// Maximum number of active IDs of a connection whose peer accepts `limit`.
    pub(crate) fn most_active(&self, limit: u64) -> usize {
        limit.min(self.most_active as u64) as usize
    }

    /// An ID for a client to return to with a Retry token.
    pub(crate) fn retry_id(&self, random: [u8; 16]) -> ConnectionId {
        self.codec.retry_id(random)
    }

    /// Whether values are sent that the peer has to ignore, and the fixed bit of its packets is ignored in turn (RFC 9287).
    pub(crate) fn greases(&self) -> bool {
        self.codec.is_bit_greased()
    }

    /// Decodes the header of the first packet in `datagram`.
    pub(crate) fn parse(&self, datagram: &[u8]) -> Result<Parsed, HeaderError> {
        if self.greases() {
            header::parse_greased(datagram, self.cid_len())
        } else {
            header::parse(datagram, self.cid_len())
        }
    }

    /// Length of our IDs in bytes.
    #[inline]
    pub(crate) fn cid_len(&self) -> usize {
        self.codec.len()
    }

    /// Minimum length of packets to a peer, in bytes: with one byte less, its stateless reset in answer would be shorter
    /// than the shortest valid packet to us (RFC 9000 §10.3).
    #[inline]
    pub(crate) fn least_packet(&self) -> usize {
        self.cid_len() + 22
    }

    /// The highest generation of a place in the core's table.
    pub(crate) fn last_generation(&self) -> u32 {
        self.codec.last_generation()
    }

    /// The ID with `sequence` of the connection `id`.
    pub(crate) fn cid(&self, id: ConnId, sequence: u16) -> ConnectionId {
        let (index, generation) = (id.index(), id.generation());
        self.codec.encode(CidInfo { core: self.core, index, generation, sequence })
    }

    /// The destination ID in a datagram with a short header.
    #[inline]
    pub(crate) fn short_dcid(&self, datagram: &[u8]) -> Option<RawCid> {
        self.codec.short_dcid(datagram)
    }

    /// `cid` in raw form, if it has our length.
    pub(crate) fn raw(&self, cid: &[u8]) -> Option<RawCid> {
        self.codec.raw(cid)
    }

    /// The contents of an ID, whichever core it belongs to.
    pub(crate) fn read(&self, cid: RawCid) -> Option<CidInfo> {
        self.codec.decode_raw(cid)
    }

    /// Like [`IdMaker::read`], for several IDs.
    pub(crate) fn read_all(&self, cids: &[RawCid], each: impl FnMut(Option<CidInfo>)) {
        self.codec.decode_all(cids, each);
    }

    /// The contents of an ID, if it belongs to this core.
    pub(crate) fn own(&self, cid: RawCid) -> Option<CidInfo> {
        self.read(cid).filter(|info| info.core == self.core)
    }

    /// The sequence number of an ID, if it belongs to this core.
    pub(crate) fn sequence(&self, cid: &[u8]) -> Option<u16> {
        self.raw(cid).and_then(|cid| self.own(cid)).map(|info| info.sequence)
    }

    /// The stateless reset token of an ID.
    pub(crate) fn token(&self, cid: &[u8]) -> [u8; 16] {
        self.tokens.token(cid)
    }
}

/// Makes stateless reset tokens (RFC 9000 §10.3.2). An ID identifies its connection, and the token depends on all of
/// the ID.
struct TokenMaker(Hmac<Sha256>);

impl TokenMaker {
    /// The key is hashed once for all tokens.
    fn new(key: &[u8; 32]) -> Self {
        Self(<Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any length is a key"))
    }

    fn token(&self, cid: &[u8]) -> [u8; 16] {
        let mut mac = self.0.clone();
        mac.update(cid);
        let full = mac.finalize().into_bytes();
        *full.first_chunk().expect("16 of 32 bytes")
    }
}

impl std::fmt::Debug for TokenMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenMaker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::EndpointConfig;

    /// RFC 9000 §10.3.2: after a restart, the tokens are those of the earlier process.
    #[test]
    fn tokens_follow_from_secret_and_id_alone() {
        let config = |secret: u8, seed: u8| EndpointConfig::from_secret(&[secret; 32].into(), [seed; 32]);
        let makers = [(1, 1), (1, 2), (2, 1)].map(|(secret, seed)| config(secret, seed).id_maker());
        let [before, after, stranger] = &makers;
        let id = before.cid(ConnId::new(7, 8), 9);
        assert_eq!(before.token(&id), after.token(&id));
        assert_ne!(before.token(&id), stranger.token(&id));
        assert_ne!(id, after.cid(ConnId::new(7, 8), 9), "an epoch of its own");
        assert!(after.raw(&id).and_then(|raw| after.own(raw)).is_some(), "and yet it is the one to answer");
        assert_eq!(before.sequence(&id), Some(9));
        assert_ne!(before.token(&id), before.token(&before.cid(ConnId::new(7, 8), 10)));
    }
}
