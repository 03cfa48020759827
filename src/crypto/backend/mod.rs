//! Where the kernels come from, and the choice between them.

pub(super) mod chacha;
mod keystream;
mod portable;

use std::sync::OnceLock;

use aes::cipher::inout::InOutBuf;
use aes::{Aes128Enc, Aes256Enc};

use super::Suite;
use super::packet::{IV_LEN, TAG_LEN};
use chacha::ChaChaPoly;
use portable::Gcm;

/// A family of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// Rust on every CPU; AES-NI and VAES where there are any.
    Portable,
}

impl Backend {
    /// All that run on this machine.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        vec![Self::Portable]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
        }
    }
}

/// The backend of this process.
pub(super) fn chosen() -> Backend {
    static CHOSEN: OnceLock<Backend> = OnceLock::new();
    *CHOSEN.get_or_init(|| Backend::Portable)
}

/// Which kernels protect packets in this process, for reports: `"ipsec-mb/avx512"` or `"portable"`.
pub fn backend_name() -> &'static str {
    chosen().name()
}

/// An AEAD with its key, taken apart: a seekable keystream, and a tag over associated data and ciphertext.
/// An enum rather than a trait object, as it is called for every packet.
pub(super) enum Cipher {
    Aes128Gcm(Box<Gcm<Aes128Enc>>),
    Aes256Gcm(Box<Gcm<Aes256Enc>>),
    ChaChaPoly(ChaChaPoly),
}

impl Cipher {
    /// `key` has the length that `suite` wants.
    pub(super) fn new(backend: Backend, suite: Suite, key: &[u8]) -> Self {
        match (backend, suite) {
            (Backend::Portable, Suite::Aes128Gcm) => Self::Aes128Gcm(Box::new(Gcm::new(key))),
            (Backend::Portable, Suite::Aes256Gcm) => Self::Aes256Gcm(Box::new(Gcm::new(key))),
            (_, Suite::ChaCha20Poly1305) => Self::ChaChaPoly(ChaChaPoly::new(key)),
        }
    }

    /// The tag over `aad` and `ciphertext`.
    #[inline]
    pub(super) fn tag(&self, nonce: &[u8; IV_LEN], aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        match self {
            Self::Aes128Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            Self::Aes256Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            Self::ChaChaPoly(cipher) => cipher.tag(nonce, aad, ciphertext),
        }
    }

    /// Encrypts or decrypts `data`, which lies at offset `from` of the plaintext.
    #[inline]
    pub(super) fn apply(&self, nonce: &[u8; IV_LEN], from: usize, data: InOutBuf<'_, '_, u8>) {
        match self {
            Self::Aes128Gcm(gcm) => gcm.apply(nonce, from, data),
            Self::Aes256Gcm(gcm) => gcm.apply(nonce, from, data),
            Self::ChaChaPoly(cipher) => cipher.apply(nonce, from, data),
        }
    }
}
