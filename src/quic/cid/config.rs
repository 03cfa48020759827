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

/// Maximum length of the nonce, in bytes (Appendix A of the draft).
pub(super) const MAX_NONCE: usize = 18;

/// Maximum length of server ID and nonce together, in bytes: an ID without its first octet.
const SHARED: usize = ConnectionId::MAX - 1;

/// Maximum length of the server ID, in bytes.
pub(super) const MAX_SERVER_ID: usize = SHARED - MIN_NONCE;

/// Length of server ID and nonce that is encrypted in a single pass, in bytes (§5.4.1 of the draft).
const SINGLE_PASS: usize = 16;

/// Config rotation bits of IDs that no load balancer routes (draft-ietf-quic-load-balancers-21 §3.2).
pub(super) const UNROUTABLE: u8 = 0b111;

/// The form of an endpoint's connection IDs, which is that of QUIC-LB (draft-ietf-quic-load-balancers-21).
///
/// An ID consists of a first octet with the config rotation bits and the number of bytes that follow, an optional server
/// ID, and a nonce. The nonce holds the core, the connection's place in its table, the place's generation and the ID's
/// sequence number, encrypted with a key that follows from the endpoint's secret, so that packets find their connection
/// without a lookup table. Load balancers only need the server ID; if they have a key, server ID and nonce are encrypted
/// with that once more.
///
/// The default is 10 bytes, the minimum, without a load balancer. Additional bytes lengthen the nonce: more
/// generations, and a longer random part that separates processes with the same secret. Unless the ID is cached,
/// decoding costs one AES block for a nonce of 16 bytes and four for other lengths, and with a load balancer's key one
/// more if server ID and nonce have 16 bytes together, and four otherwise.
#[derive(Clone)]
pub struct CidConfig {
    pub(super) rotation: u8,
    pub(super) server_id: ArrayVec<u8, MAX_SERVER_ID>,
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
    #[error(
        "a server ID of {0} bytes is impossible; it must have 1 to {MAX_SERVER_ID} bytes, as it shares {SHARED} bytes \
         with a nonce that needs {MIN_NONCE} for core, place, generation and sequence number"
    )]
    ServerId(usize),
    /// The nonce is too short for its contents, or too long.
    #[error(
        "a nonce of {len} bytes is impossible; with this server ID, it must have {MIN_NONCE} to {max} bytes: \
         {MIN_NONCE} for core, place, generation and sequence number, and at most {SHARED} together with the server ID"
    )]
    Nonce {
        /// The requested length in bytes.
        len: usize,
        /// Maximum length in bytes.
        max: usize,
    },
    /// The ID is too short for its contents, or too long.
    #[error("connection IDs of {len} bytes are impossible; they must have {min} to {max} bytes")]
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
    /// IDs of `len` bytes (10 to 19) that are not routed by a load balancer.
    ///
    /// # Errors
    /// [`CidConfigError::Length`].
    pub fn unrouted(len: usize) -> Result<Self, CidConfigError> {
        let (min, max) = (1 + MIN_NONCE, 1 + MAX_NONCE);
        if !(min..=max).contains(&len) {
            return Err(CidConfigError::Length { len, min, max });
        }
        Ok(Self { nonce_len: len - 1, ..Self::default() })
    }

    /// IDs that load balancers route by `server_id`, which has 1 to 10 bytes, with a nonce of `nonce_len` bytes: 9 to 18,
    /// at most 19 together with the server ID. The balancers must have the same lengths and the same `key` in their
    /// configuration `rotation`, 0 to 6.
    ///
    /// Without a key, everyone can read the server ID. Clients then get a single ID for each connection (§9 of the
    /// draft), so that their addresses cannot be linked by it.
    ///
    /// No two servers of a configuration may have the same server ID.
    ///
    /// # Errors
    /// [`CidConfigError`].
    pub fn routed(
        rotation: u8,
        server_id: &[u8],
        nonce_len: usize,
        key: Option<&[u8; 16]>,
    ) -> Result<Self, CidConfigError> {
        let key = key.map(|key| {
            // Filled in place: a temporary copy would not be erased.
            let mut own = Zeroizing::new([0; 16]);
            own.copy_from_slice(key);
            own
        });
        if rotation >= UNROUTABLE {
            return Err(CidConfigError::Rotation(rotation));
        }
        let id = ArrayVec::try_from(server_id).ok().filter(|id| !id.is_empty());
        let server_id = id.ok_or(CidConfigError::ServerId(server_id.len()))?;
        let max = MAX_NONCE.min(SHARED - server_id.len());
        if !(MIN_NONCE..=max).contains(&nonce_len) {
            return Err(CidConfigError::Nonce { len: nonce_len, max });
        }
        Ok(Self { rotation, server_id, nonce_len, key })
    }

    /// The usual length of the nonce with a server ID of `server_id` bytes, in bytes: as many as can be encrypted in a
    /// single pass together with it, but at least 9.
    pub fn usual_nonce_len(server_id: usize) -> usize {
        SINGLE_PASS.saturating_sub(server_id).max(MIN_NONCE)
    }

    /// Length of all IDs of the endpoint, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an ID is never empty")]
    pub fn len(&self) -> usize {
        1 + self.server_id.len() + self.nonce_len
    }

    /// Length of the nonce, in bytes.
    pub fn nonce_len(&self) -> usize {
        self.nonce_len
    }

    /// The server ID by which load balancers route packets, if they do.
    pub fn server_id(&self) -> Option<&[u8]> {
        Some(&self.server_id[..]).filter(|id| !id.is_empty())
    }

    /// The config rotation bits (§3.1 of the draft); 7 if load balancers do not route the IDs.
    pub fn rotation(&self) -> u8 {
        self.rotation
    }

    /// Number of passes in which server ID and nonce are encrypted with the load balancers' key (§5.4 of the draft): 1, 4,
    /// or 0 if there is no key.
    pub fn passes(&self) -> u8 {
        match (&self.key, self.server_id.len() + self.nonce_len) {
            (None, _) => 0,
            (Some(_), SINGLE_PASS) => 1,
            (Some(_), _) => 4,
        }
    }
}

impl Default for CidConfig {
    fn default() -> Self {
        Self { rotation: UNROUTABLE, server_id: ArrayVec::new(), nonce_len: MIN_NONCE, key: None }
    }
}

impl core::fmt::Debug for CidConfig {
    /// Omits the key.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CidConfig")
            .field("rotation", &self.rotation)
            .field("server_id", &self.server_id)
            .field("nonce_len", &self.nonce_len)
            .field("passes", &self.passes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_do_not_work_are_refused_by_name() {
        assert_eq!(CidConfig::default().len(), 10);
        assert_eq!(CidConfig::unrouted(19).unwrap().len(), 19);
        let length = |len, min, max| Some(CidConfigError::Length { len, min, max });
        assert_eq!(CidConfig::unrouted(9).err(), length(9, 10, 19));
        assert_eq!(CidConfig::unrouted(20).err(), length(20, 10, 19));
        for key in [Some([0x5a; 16]), None] {
            let routed = |rotation, id: &[u8], nonce| CidConfig::routed(rotation, id, nonce, key.as_ref());
            assert_eq!(routed(7, &[1], 15).err(), Some(CidConfigError::Rotation(7)));
            assert_eq!(routed(0, &[], 15).err(), Some(CidConfigError::ServerId(0)));
            assert_eq!(routed(0, &[1; 11], 8).err(), Some(CidConfigError::ServerId(11)));
            assert_eq!(routed(6, &[1; 10], 9).unwrap().len(), 20);
            assert_eq!(routed(6, &[1; 10], 8).err(), Some(CidConfigError::Nonce { len: 8, max: 9 }));
            assert_eq!(routed(6, &[1; 10], 10).err(), Some(CidConfigError::Nonce { len: 10, max: 9 }));
            assert_eq!(routed(6, &[1], 19).err(), Some(CidConfigError::Nonce { len: 19, max: 18 }));
            let form = routed(6, &[1; 4], 15).unwrap();
            assert_eq!((form.rotation(), form.server_id(), form.nonce_len()), (6, Some(&[1; 4][..]), 15));
            let shown = format!("{:?}", routed(0, &[1], 15).unwrap());
            assert!(!shown.contains("key") && !shown.contains("90") && !shown.contains("5a"), "{shown}");
        }
        let why = CidConfig::routed(0, &[1; 11], 8, None).unwrap_err().to_string();
        assert!(why.contains("1 to 10 bytes") && why.contains("shares 19 bytes") && why.contains("needs 9"), "{why}");
    }

    /// §5.4.1: "When the nonce length and server ID length sum to exactly 16 octets, the server MUST use a single-pass
    /// encryption algorithm."
    #[test]
    fn the_usual_nonce_makes_encryption_cheap_where_it_can() {
        let passes =
            |n: usize, key| CidConfig::routed(0, &[1; 10][..n], CidConfig::usual_nonce_len(n), key).unwrap().passes();
        assert_eq!((1..=10).map(|n| passes(n, Some(&[1; 16]))).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 1, 1, 4, 4, 4]);
        assert!((1..=10).all(|n| passes(n, None) == 0));
        assert_eq!((CidConfig::default().passes(), CidConfig::default().server_id()), (0, None));
    }
}
