//! The secret from which an endpoint's keys are derived.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::crypto::traceless;

/// The secret from which the keys for connection IDs, stateless reset tokens and address tokens are derived. A process
/// that starts with its predecessor's secret can tell the predecessor's peers that their connections are gone (RFC 9000
/// §10.3.2).
///
/// It is erased when dropped and never displayed. Processes that serve the same address at the same time must not share
/// a secret, unless each has a server ID of its own ([`super::CidConfig::routed`]) and receives all packets with that
/// ID. Otherwise, a packet for a connection of another process would make a process reveal that connection's reset
/// token (RFC 9000 §21.11).
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; Self::LEN]>);

impl Secret {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Derives the key for `purpose` by HKDF (RFC 5869). Keys for different purposes are independent.
    pub(super) fn key<const N: usize>(&self, purpose: &str) -> Zeroizing<[u8; N]> {
        let mut key = Zeroizing::new([0; N]);
        traceless(|| {
            let derive = Hkdf::<Sha256>::new(Some(b"gannet"), &*self.0);
            derive.expand(purpose.as_bytes(), &mut *key).expect("shorter than 255 hashes");
        });
        key
    }
}

impl From<[u8; Self::LEN]> for Secret {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_purpose_and_secret_and_are_not_shown() {
        let keys =
            |n: u8| ["connection id", "stateless reset"].map(|purpose| *Secret::from([n; 32]).key::<32>(purpose));
        assert_eq!(keys(1), keys(1));
        let mut all = [keys(1), keys(2)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4);
        assert_eq!(format!("{:?}", Secret::from([77; 32])), "Secret");
    }
}
