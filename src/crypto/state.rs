//! Sealing of small pieces of state that peers keep for us, such as address tokens.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{AuthError, TAG_LEN};

/// Length of the nonces of a [`StateKey`], in bytes.
pub const STATE_NONCE_LEN: usize = 12;

/// An AES-256-GCM key with nonces chosen by the caller. It may seal 2^32 times with random nonces (NIST SP 800-38D
/// §8.3).
pub struct StateKey(LessSafeKey);

impl StateKey {
    /// The key with these bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key")))
    }

    /// Encrypts `text` in place and returns the tag over it and `aad`. A nonce must not be used twice.
    ///
    /// # Panics
    /// If `text` is longer than 64 GiB, the maximum of AES-GCM.
    pub fn seal(&self, nonce: [u8; STATE_NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text).expect("short enough");
        *tag.as_ref().first_chunk().expect("a tag of 16 bytes")
    }

    /// Decrypts `sealed`, text and tag, in place, and returns the text.
    ///
    /// # Errors
    /// [`AuthError`] if it was not sealed with this key, nonce and `aad`. The contents of `sealed` are then
    /// unspecified.
    pub fn open<'a>(
        &self,
        nonce: [u8; STATE_NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthError> {
        self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed).map_err(|_| AuthError)
    }
}

impl core::fmt::Debug for StateKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("StateKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else() {
        let key = StateKey::new(&[1; 32]);
        let mut text = *b"state of a stranger";
        let tag = key.seal([2; 12], b"who", &mut text);
        let sealed = [&text[..], &tag].concat();
        assert_eq!(key.open([2; 12], b"who", &mut sealed.clone()).unwrap(), b"state of a stranger");
        let other = StateKey::new(&[9; 32]);
        assert!(other.open([2; 12], b"who", &mut sealed.clone()).is_err());
        assert!(key.open([3; 12], b"who", &mut sealed.clone()).is_err());
        assert!(key.open([2; 12], b"him", &mut sealed.clone()).is_err());
        assert!(key.open([2; 12], b"who", &mut []).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open([2; 12], b"who", &mut changed).is_err(), "byte {at}");
        }
    }
}
