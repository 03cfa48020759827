//! The form of our connection IDs, as an endpoint's setting.

use arrayvec::ArrayVec;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::wire::quic::ConnectionId;

/// Bits of the nonce: core, index, the generation's minimum, sequence number.
pub(super) const CORE: u32 = 8;
pub(super) const INDEX: u32 = 24;
const MIN_GENERATION: u32 = 24;
pub(super) const SEQUENCE: u32 = 16;

/// The shortest nonce that holds all of it, bytes.
const MIN_NONCE: usize = ((CORE + INDEX + MIN_GENERATION + SEQUENCE) / 8) as usize;

/// The longest nonce, bytes.
pub(super) const MAX_NONCE: usize = 16;

/// Config rotation bits of IDs that no load balancer routes (draft-ietf-quic-load-balancers-21 §3.2).
const UNROUTABLE: u8 = 0b111;

/// The form of an endpoint's connection IDs: that of QUIC-LB (draft-ietf-quic-load-balancers-21).
///
/// An ID is a first octet with the config rotation bits and the ID's length, then the server ID, if there is one, and
/// the nonce, both encrypted. The nonce carries the core, the connection's place there, the place's generation and the
/// ID's sequence number, so that a packet finds its connection without a table.
///
/// The default is 10 bytes, the shortest, for no load balancer. Bytes beyond are spent on the nonce: more generations,
/// and a longer random part that tells processes with the same secret apart. If server ID and nonce are 16 bytes, an ID
/// costs one AES block to read; otherwise four, if it is not remembered from the last packet.
#[derive(Clone)]
pub struct CidConfig {
    pub(super) rotation: u8,
    pub(super) server_id: ArrayVec<u8, 10>,
    pub(super) nonce_len: usize,
    pub(super) key: Option<Zeroizing<[u8; 16]>>,
}

/// Why connection IDs cannot have a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CidConfigError {
    /// The config rotation bits are not one of the seven configurations of QUIC-LB.
    #[error("configuration {0} of QUIC-LB: there are 0 to 6")]
    Rotation(u8),
    /// The server ID is empty or leaves no room for the nonce.
    #[error("a server ID of {0} bytes: it has 1 to 10")]
    ServerId(usize),
    /// The whole ID is too short for what it carries, or too long.
    #[error("connection IDs of {len} bytes: with that server ID they have {min} to {max}")]
    Length {
        /// The length that was asked for, bytes.
        len: usize,
        /// The shortest possible length, bytes.
        min: usize,
        /// The longest possible length, bytes.
        max: usize,
    },
}

impl CidConfig {
    /// IDs of `len` bytes, 10 to 17, that no load balancer routes. Their key comes from the endpoint's secret.
    ///
    /// # Errors
    /// [`CidConfigError::Length`].
    pub fn unrouted(len: usize) -> Result<Self, CidConfigError> {
        Self::new(UNROUTABLE, ArrayVec::new(), len, None)
    }

    /// IDs of `len` bytes that load balancers route by `server_id`: they know `key` as that of their configuration
    /// `rotation`, 0 to 6, with a nonce of what `len` leaves.
    ///
    /// # Errors
    /// [`CidConfigError`].
    pub fn routed(rotation: u8, server_id: &[u8], len: usize, key: [u8; 16]) -> Result<Self, CidConfigError> {
        if rotation >= UNROUTABLE {
            return Err(CidConfigError::Rotation(rotation));
        }
        let id = ArrayVec::try_from(server_id).ok().filter(|id| !id.is_empty());
        let id = id.ok_or(CidConfigError::ServerId(server_id.len()))?;
        Self::new(rotation, id, len, Some(Zeroizing::new(key)))
    }

    fn new(
        rotation: u8,
        server_id: ArrayVec<u8, 10>,
        len: usize,
        key: Option<Zeroizing<[u8; 16]>>,
    ) -> Result<Self, CidConfigError> {
        let fixed = 1 + server_id.len();
        let (min, max) = (fixed + MIN_NONCE, (fixed + MAX_NONCE).min(ConnectionId::MAX));
        if !(min..=max).contains(&len) {
            return Err(CidConfigError::Length { len, min, max });
        }
        Ok(Self { rotation, nonce_len: len - fixed, server_id, key })
    }

    /// Length of the IDs in bytes: the same for all of an endpoint.
    #[allow(clippy::len_without_is_empty, reason = "an ID is never empty")]
    pub fn len(&self) -> usize {
        1 + self.server_id.len() + self.nonce_len
    }
}

impl Default for CidConfig {
    fn default() -> Self {
        Self { rotation: UNROUTABLE, server_id: ArrayVec::new(), nonce_len: MIN_NONCE, key: None }
    }
}

impl core::fmt::Debug for CidConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (rotation, server_id, len) = (self.rotation, &self.server_id, self.len());
        f.debug_struct("CidConfig")
            .field("rotation", &rotation)
            .field("server_id", server_id)
            .field("len", &len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_do_not_work_are_refused_by_name() {
        assert_eq!(CidConfig::default().len(), 10);
        assert_eq!(CidConfig::unrouted(17).unwrap().len(), 17);
        let length = |len, min, max| Some(CidConfigError::Length { len, min, max });
        assert_eq!(CidConfig::unrouted(9).err(), length(9, 10, 17));
        assert_eq!(CidConfig::unrouted(18).err(), length(18, 10, 17));
        let routed = |rotation, id: &[u8], len| CidConfig::routed(rotation, id, len, [1; 16]);
        assert_eq!(routed(7, &[1], 17).err(), Some(CidConfigError::Rotation(7)));
        assert_eq!(routed(0, &[], 17).err(), Some(CidConfigError::ServerId(0)));
        assert_eq!(routed(0, &[1; 11], 17).err(), Some(CidConfigError::ServerId(11)));
        assert_eq!(routed(6, &[1; 10], 20).unwrap().len(), 20);
        assert_eq!(routed(6, &[1; 10], 19).err(), length(19, 20, 20));
        assert_eq!(routed(6, &[1; 4], 20).unwrap().nonce_len, 15);
        assert!(!format!("{:?}", routed(0, &[1], 17)).contains("key"), "keys are not shown");
    }
}
