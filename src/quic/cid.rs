//! Connection IDs (RFC 9000 §5.1).
//!
//! Ours are 8 bytes: core, slab index, slab generation and sequence number under a four-pass cipher
//! (the construction of QUIC-LB), so that a packet finds its core and connection without a table,
//! and an observer can link no two of them.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use arrayvec::ArrayVec;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::wire::quic::{ConnectionId, TransportError};

/// Length of the connection IDs that we issue, in bytes.
pub const CID_LEN: usize = 8;

/// How many connection IDs of one side are active at a time.
pub(crate) const MAX_ACTIVE: usize = 4;

/// How many retired IDs may wait for their RETIRE_CONNECTION_ID to go out (RFC 9000 §5.1.2).
const MAX_RETIRING: usize = 3 * MAX_ACTIVE;

/// What one of our connection IDs says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidInfo {
    /// The core that owns the connection.
    pub core: u8,
    /// Its place in that core's table.
    pub index: u32,
    /// Tells successive connections in that place apart.
    pub generation: u16,
    /// The connection ID's sequence number, low byte.
    pub sequence: u8,
}

/// Makes and reads our connection IDs.
#[derive(Clone)]
pub struct CidCodec {
    cipher: Aes128,
}

impl core::fmt::Debug for CidCodec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CidCodec")
    }
}

impl CidCodec {
    /// A codec with a key shared by all cores of an endpoint.
    pub fn new(key: &[u8; 16]) -> Self {
        Self { cipher: Aes128::new(key.into()) }
    }

    fn round(&self, pass: u8, half: u32) -> u32 {
        let mut block = [0u8; 16];
        block[0] = pass;
        block[1..5].copy_from_slice(&half.to_be_bytes());
        let block = &mut block.into();
        self.cipher.encrypt_block(block);
        u32::from_be_bytes([block[0], block[1], block[2], block[3]])
    }

    /// The connection ID for `info`. `index` must be below 2^24.
    pub fn encode(&self, info: CidInfo) -> ConnectionId {
        debug_assert!(info.index < 1 << 24);
        let mut left = u32::from(info.core) << 24 | info.index;
        let mut right = u32::from(info.generation) << 16 | u32::from(info.sequence) << 8;
        for pass in 0..2 {
            right ^= self.round(2 * pass, left);
            left ^= self.round(2 * pass + 1, right);
        }
        ConnectionId::new(&[left.to_be_bytes(), right.to_be_bytes()].concat()).expect("8 bytes")
    }

    /// What `cid` says; `None` if we did not make it.
    pub fn decode(&self, cid: &[u8]) -> Option<CidInfo> {
        let cid: [u8; CID_LEN] = cid.try_into().ok()?;
        let mut left = u32::from_be_bytes([cid[0], cid[1], cid[2], cid[3]]);
        let mut right = u32::from_be_bytes([cid[4], cid[5], cid[6], cid[7]]);
        for pass in (0..2).rev() {
            left ^= self.round(2 * pass + 1, right);
            right ^= self.round(2 * pass, left);
        }
        (right & 0xff == 0).then_some(CidInfo {
            core: (left >> 24) as u8,
            index: left & 0xff_ffff,
            generation: (right >> 16) as u16,
            sequence: (right >> 8) as u8,
        })
    }
}

/// Makes stateless reset tokens (RFC 9000 §10.3.2).
pub(crate) struct TokenMaker(Hmac<Sha256>);

impl TokenMaker {
    /// The key goes into the hash once for all tokens.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(<Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any length is a key"))
    }

    /// The token of a connection ID.
    pub(crate) fn token(&self, cid: &[u8]) -> [u8; 16] {
        let mut mac = self.0.clone();
        mac.update(cid);
        let full = mac.finalize().into_bytes();
        let mut token = [0; 16];
        token.copy_from_slice(&full[..16]);
        token
    }
}

impl std::fmt::Debug for TokenMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenMaker")
    }
}

/// The IDs that we issued for one connection.
#[derive(Debug)]
pub(crate) struct LocalCids {
    active: ArrayVec<(u64, ConnectionId), MAX_ACTIVE>,
    next: u64,
    /// To be announced (again) in NEW_CONNECTION_ID.
    due: ArrayVec<u64, MAX_ACTIVE>,
}

impl LocalCids {
    /// Sequence 0 is the ID of the handshake.
    pub(crate) fn new(first: ConnectionId) -> Self {
        let mut active = ArrayVec::new();
        active.push((0, first));
        Self { active, next: 1, due: ArrayVec::new() }
    }

    pub(crate) fn handshake_cid(&self) -> ConnectionId {
        self.active[0].1
    }

    /// Issues IDs until `limit` are active; `make` gives the ID for a sequence number.
    pub(crate) fn issue(&mut self, limit: u64, make: impl Fn(u64) -> ConnectionId) {
        let limit = limit.min(MAX_ACTIVE as u64) as usize;
        while self.active.len() < limit && !self.due.is_full() {
            self.active.push((self.next, make(self.next)));
            self.due.push(self.next);
            self.next += 1;
        }
    }

    /// The next ID to be announced.
    pub(crate) fn due(&self) -> Option<(u64, ConnectionId)> {
        let seq = *self.due.first()?;
        self.active.iter().copied().find(|(s, _)| *s == seq)
    }

    pub(crate) fn announced(&mut self, seq: u64) {
        self.due.retain(|s| *s != seq);
    }

    pub(crate) fn announce_lost(&mut self, seq: u64) {
        if self.active.iter().any(|(s, _)| *s == seq) && !self.due.contains(&seq) {
            self.due.push(seq);
        }
    }

    /// RETIRE_CONNECTION_ID from the peer, in a packet that came to `used` (RFC 9000 §19.16).
    pub(crate) fn retire(&mut self, seq: u64, used: &[u8]) -> Result<(), TransportError> {
        if seq >= self.next {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        if self.active.iter().any(|(s, cid)| *s == seq && **cid == *used) {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        self.active.retain(|(s, _)| *s != seq);
        self.due.retain(|s| *s != seq);
        Ok(())
    }

    /// Whether packets to the ID with this low sequence byte are still for this connection.
    pub(crate) fn is_active(&self, sequence: u8) -> bool {
        self.active.iter().any(|(s, _)| *s as u8 == sequence)
    }
}

/// Stateless reset tokens of one connection.
pub(crate) type Tokens = ArrayVec<[u8; 16], MAX_ACTIVE>;

/// An ID that the peer issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RemoteCid {
    seq: u64,
    cid: ConnectionId,
    token: Option<[u8; 16]>,
}

/// The IDs that the peer issued for one connection; the first is in use.
#[derive(Debug)]
pub(crate) struct RemoteCids {
    known: ArrayVec<RemoteCid, MAX_ACTIVE>,
    retire_prior_to: u64,
    /// To be retired (again) in RETIRE_CONNECTION_ID.
    retiring: ArrayVec<u64, MAX_RETIRING>,
    tokens_changed: bool,
}

impl RemoteCids {
    pub(crate) fn new(first: ConnectionId) -> Self {
        let mut known = ArrayVec::new();
        known.push(RemoteCid { seq: 0, cid: first, token: None });
        Self { known, retire_prior_to: 0, retiring: ArrayVec::new(), tokens_changed: false }
    }

    pub(crate) fn current(&self) -> &ConnectionId {
        &self.known[0].cid
    }

    /// The peer chose another ID for itself during the handshake (RFC 9000 §7.2).
    pub(crate) fn replace_first(&mut self, cid: ConnectionId) {
        self.known[0].cid = cid;
    }

    /// The token of the handshake ID, from the transport parameters.
    pub(crate) fn set_first_token(&mut self, token: [u8; 16]) {
        self.known[0].token = Some(token);
        self.tokens_changed = true;
    }

    /// NEW_CONNECTION_ID from the peer (RFC 9000 §19.15).
    pub(crate) fn insert(
        &mut self,
        seq: u64,
        retire_prior_to: u64,
        cid: ConnectionId,
        token: [u8; 16],
    ) -> Result<(), TransportError> {
        if self.current().is_empty() {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        if let Some(known) = self.known.iter().find(|k| k.seq == seq || k.cid == cid) {
            let same = known.seq == seq && known.cid == cid && known.token.is_none_or(|t| t == token);
            return if same { Ok(()) } else { Err(TransportError::PROTOCOL_VIOLATION) };
        }
        let limit = self.retire_prior_to.max(retire_prior_to);
        // Nothing changes unless all of it fits: there is always an ID to send the close to.
        let retired = self.known.iter().filter(|k| k.seq < limit).count();
        if retired > self.retiring.remaining_capacity() {
            return Err(TransportError::CONNECTION_ID_LIMIT_ERROR);
        }
        if retired == self.known.len() && seq < limit {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        self.retire_prior_to = limit;
        self.tokens_changed = true;
        self.retiring.extend(self.known.iter().map(|k| k.seq).filter(|seq| *seq < limit));
        self.known.retain(|k| k.seq >= limit);
        if seq < limit {
            if !self.retiring.contains(&seq) && self.retiring.try_push(seq).is_err() {
                return Err(TransportError::CONNECTION_ID_LIMIT_ERROR);
            }
            return Ok(());
        }
        self.known
            .try_push(RemoteCid { seq, cid, token: Some(token) })
            .map_err(|_| TransportError::CONNECTION_ID_LIMIT_ERROR)
    }

    /// The next sequence number to retire.
    pub(crate) fn retire_due(&self) -> Option<u64> {
        self.retiring.first().copied()
    }

    pub(crate) fn retire_sent(&mut self, seq: u64) {
        self.retiring.retain(|s| *s != seq);
    }

    pub(crate) fn retire_lost(&mut self, seq: u64) {
        // A full list only delays the repetition: the peer is holding an ID for nothing meanwhile.
        let _ = self.retiring.try_push(seq);
    }

    /// The reset tokens of all known IDs, if they have changed since the last call.
    pub(crate) fn take_changed_tokens(&mut self) -> Option<Tokens> {
        std::mem::take(&mut self.tokens_changed).then(|| self.known.iter().filter_map(|k| k.token).collect())
    }

    /// Whether `token` is the stateless reset token of an ID in use (RFC 9000 §10.3.1), in constant time.
    pub(crate) fn is_reset_token(&self, token: &[u8; 16]) -> bool {
        use subtle::ConstantTimeEq;
        let mut hit = subtle::Choice::from(0);
        for known in &self.known {
            if let Some(t) = &known.token {
                hit |= t.ct_eq(token);
            }
        }
        hit.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cid_round_trip_and_foreign_ids_are_refused() {
        let codec = CidCodec::new(&[7; 16]);
        let info = CidInfo { core: 3, index: 0xabcdef, generation: 0x1234, sequence: 200 };
        let cid = codec.encode(info);
        assert_eq!(codec.decode(&cid), Some(info));
        assert_ne!(CidCodec::new(&[8; 16]).decode(&cid), Some(info));
        assert_eq!(codec.decode(&cid[..7]), None);
        let next = codec.encode(CidInfo { sequence: 201, ..info });
        let same = cid.iter().zip(next.iter()).filter(|(a, b)| a == b).count();
        assert!(same < 4, "two IDs of one connection must not look alike");
    }

    fn id(n: u8) -> ConnectionId {
        ConnectionId::new(&[n; 8]).unwrap()
    }

    #[test]
    fn remote_ids_obey_retire_prior_to_and_the_limit() {
        let mut r = RemoteCids::new(id(0));
        r.insert(1, 0, id(1), [1; 16]).unwrap();
        r.insert(1, 0, id(1), [1; 16]).unwrap();
        assert_eq!(r.insert(1, 0, id(9), [1; 16]), Err(TransportError::PROTOCOL_VIOLATION));
        assert_eq!(r.insert(9, 0, id(1), [1; 16]), Err(TransportError::PROTOCOL_VIOLATION));
        r.insert(2, 2, id(2), [2; 16]).unwrap();
        assert_eq!(*r.current(), id(2));
        assert_eq!(r.retire_due(), Some(0));
        r.retire_sent(0);
        assert_eq!(r.retire_due(), Some(1));
        for n in 3..6 {
            r.insert(u64::from(n), 2, id(n), [n; 16]).unwrap();
        }
        assert_eq!(r.insert(6, 2, id(6), [6; 16]), Err(TransportError::CONNECTION_ID_LIMIT_ERROR));
        assert!(r.is_reset_token(&[4; 16]));
        assert!(!r.is_reset_token(&[1; 16]));
    }

    #[test]
    fn a_refused_id_leaves_one_to_send_the_close_to() {
        let mut r = RemoteCids::new(id(0));
        let error = (1..100).find_map(|n: u8| r.insert(n.into(), n.into(), id(n), [n; 16]).err());
        assert_eq!(error, Some(TransportError::CONNECTION_ID_LIMIT_ERROR));
        assert!(!r.current().is_empty());
    }

    #[test]
    fn local_ids_are_replaced_when_retired() {
        let mut l = LocalCids::new(id(0));
        l.issue(3, |seq| id(seq as u8));
        assert_eq!(l.due().unwrap().0, 1);
        l.announced(1);
        l.announced(2);
        assert_eq!(l.retire(3, &id(0)), Err(TransportError::PROTOCOL_VIOLATION));
        assert_eq!(l.retire(0, &id(0)), Err(TransportError::PROTOCOL_VIOLATION), "the ID it came to");
        l.retire(0, &id(1)).unwrap();
        l.issue(3, |seq| id(seq as u8));
        assert_eq!(l.due().unwrap().0, 3);
        assert!(l.is_active(3) && !l.is_active(0));
    }
}
