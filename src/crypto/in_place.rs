//! Opens packets the way other stacks do, for benchmarks only.
//!
//! aws-lc decrypts a packet in place and verifies it in the same pass; the data is then copied to its destination. Only
//! benchmarks may enable this, as data that fails authentication has already been decrypted.

use std::cell::Cell;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce as AwsNonce, UnboundKey};

use super::Suite;
use super::nonce::Nonce;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; packet keys that this thread makes in it open packets in place.
pub fn with_keys_in_place<T>(work: impl FnOnce() -> T) -> T {
    let before = ON.replace(true);
    let done = work();
    ON.set(before);
    done
}

/// A key that opens packets in place.
pub(super) struct InPlace(LessSafeKey);

impl InPlace {
    /// `None` if this is not enabled, or the suite does not use AES.
    pub(super) fn wanted(suite: Suite, key: &[u8]) -> Option<Box<Self>> {
        let algorithm = match suite {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => return None,
        };
        ON.get().then(|| Box::new(Self(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("key length checked")))))
    }

    /// Whether `body`, which ends in the tag, is authentic. Its front is then the plaintext.
    pub(super) fn open(&self, nonce: Nonce, aad: &[u8], body: &mut [u8]) -> bool {
        self.0.open_in_place(AwsNonce::assume_unique_for_key(nonce.bytes()), Aad::from(aad), body).is_ok()
    }
}
