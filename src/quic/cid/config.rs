//! The form of an endpoint's connection IDs.

use arrayvec::ArrayVec;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::wire::quic::ConnectionId;

/// Field widths in the nonce, in bits: core, index, minimum generation, sequence number.
pub(super) const CORE: u32 = 8;
pub(super) const INDEX: u32 = 24;
const MIN_GENERATION: u32 = 24;
pub(super) const SEQUENCE: u32 = 16;

/// Minimum length of the nonce, in bytes.
const MIN_NONCE: usize = ((CORE + INDEX + MIN_GENERATION + SEQUENCE) / 8) as usize;

/// Maximum length of the nonce, in bytes.
pub(super) const MAX_NONCE: usize = 16;

/// Config rotation bits of IDs that no load balancer routes (draft-ietf-quic-load-balancers-21 §3.2).
const UNROUTABLE: u8 = 0b111;

/// The form of an endpoint's connection IDs, which is that of QUIC-LB (draft-ietf-quic-load-balancers-21).
///
/// An ID consists of a first octet with the config rotation bits and the ID's length, an optional server ID, and a
/// nonce; server ID and nonce are encrypted. The nonce contains the core, the connection's place in its table, the
/// place's generation and the ID's sequence number, so that packets find their connection without a lookup table.
///
/// The default is 10 bytes, the minimum, without a load balancer. Additional bytes lengthen the nonce: more
/// generations, and a longer random part that separates processes with the same secret. Decoding an ID costs one AES
/// block if server ID and nonce have 16 bytes together, and four otherwise, unless the ID is cached.
#[derive(Clone)]
pub struct CidConfig {
    pub(super) rotation: u8,
    pub(super) server_id: ArrayVec<u8, 10>,
    pub(super) nonce_len: usize,
    pub(super) key: Option<Zeroizing<[u8; 16]>>,
}

/// Why a form of connection IDs is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CidConfigError {
    /// The config rotation bits name none of the seven configurations of QUIC-LB.
    #[error("QUIC-LB configuration {0} does not exist; it must be from 0 to 6")]
    Rotation(u8),
    /// The server ID is empty or leaves no room for the nonce.
    #[error("a server ID of {0} bytes is impossible; it must have 1 to 10 bytes")]
    ServerId(usize),
    /// The ID is too short for its contents, or too long.
    #[error("connection IDs of {len} bytes are impossible; with this server ID, they must have {min} to {max} bytes")]
    Length {
        /// The requested length in bytes.
        len: usize,
        /// Minimum length in bytes.
        min: usize,
        /// Maximum length in bytes.
        max: usize,
    },
}

impl CidConfig {
    /// IDs of `len` bytes (10 to 17) that are not routed by a load balancer. Their key is derived from the endpoint's
    /// secret.
    ///
    /// # Errors
    /// [`CidConfigError::Length`].
    pub fn unrouted(len: usize) -> Result<Self, CidConfigError> {
        Self::new(UNROUTABLE, ArrayVec::new(), len, None)
    }

    /// IDs of `len` bytes that load balancers route by `server_id`, which has 1 to 10 bytes. The balancers must be
    /// configured with `key` as their configuration `rotation`, 0 to 6. The nonce takes what `len` leaves.
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

    /// Length of all IDs of the endpoint, in bytes.
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
