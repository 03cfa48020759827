//! Cipher implementations, and the choice between them.

pub(super) mod chacha;
mod choice;
#[cfg(ipsec_mb)]
pub(super) mod ipsec_mb;
mod keystream;
mod poly1305;
pub(super) mod portable;
#[cfg(target_arch = "x86_64")]
pub(super) mod vaes;

use aes::cipher::inout::InOutBuf;
use aes::{Aes128Enc, Aes256Enc};

use super::Suite;
use super::layout::{HeadRoom, TAG_LEN};
use super::nonce::Nonce;
use super::timed;
use crate::mem::prefetch_object;
use chacha::ChaChaPoly;
pub use choice::backend_name;
pub(super) use choice::{Backend, chosen};
#[cfg(ipsec_mb)]
use ipsec_mb::{AES128, AES256};

/// An AEAD with its key, split into a seekable keystream, and a tag over associated data and ciphertext. An enum rather
/// than a trait object, as it is called for every packet.
pub(super) enum Cipher {
    Aes128Gcm(Box<portable::Gcm<Aes128Enc>>),
    Aes256Gcm(Box<portable::Gcm<Aes256Enc>>),
    ChaChaPoly(Box<ChaChaPoly>),
    #[cfg(ipsec_mb)]
    MbAes128Gcm(Box<ipsec_mb::Gcm<AES128>>),
    #[cfg(ipsec_mb)]
    MbAes256Gcm(Box<ipsec_mb::Gcm<AES256>>),
    #[cfg(target_arch = "x86_64")]
    VaesAes128Gcm(Box<vaes::Gcm<{ vaes::AES128 }>>),
    #[cfg(target_arch = "x86_64")]
    VaesAes256Gcm(Box<vaes::Gcm<{ vaes::AES256 }>>),
    /// Another cipher, with time measurement.
    Timed(Box<Cipher>),
}

/// The first 20 bytes of a ciphertext, little-endian, which include the header protection sample. They come from
/// registers, in words that can be read immediately after they were written.
#[derive(Clone, Copy)]
pub(super) struct Front(pub(super) [u64; 3]);

impl Front {
    /// The 16 bytes from `from` on, if there are as many.
    #[inline]
    pub(super) fn sample(self, from: usize) -> Option<[u8; 16]> {
        let Self([a, b, c]) = self;
        let bits = 8 * from as u32;
        let [low, high] = match from {
            0 => [a, b],
            1..=4 => [a >> bits | b << (64 - bits), b >> bits | c << (64 - bits)],
            _ => return None,
        };
        Some((u128::from(low) | u128::from(high) << 64).to_le_bytes())
    }
}

impl Cipher {
    /// `key` must have the length for `suite`.
    pub(super) fn new(backend: Backend, suite: Suite, key: &[u8]) -> Self {
        match (backend, suite) {
            (Backend::Portable, Suite::Aes128Gcm) => Self::Aes128Gcm(Box::new(portable::Gcm::new(key))),
            (Backend::Portable, Suite::Aes256Gcm) => Self::Aes256Gcm(Box::new(portable::Gcm::new(key))),
            #[cfg(ipsec_mb)]
            (Backend::IpsecMb(arch), Suite::Aes128Gcm) => Self::MbAes128Gcm(ipsec_mb::Gcm::new(arch, key)),
            #[cfg(ipsec_mb)]
            (Backend::IpsecMb(arch), Suite::Aes256Gcm) => Self::MbAes256Gcm(ipsec_mb::Gcm::new(arch, key)),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes, Suite::Aes128Gcm) => Self::VaesAes128Gcm(Box::new(vaes::Gcm::new(key))),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes, Suite::Aes256Gcm) => Self::VaesAes256Gcm(Box::new(vaes::Gcm::new(key))),
            (_, Suite::ChaCha20Poly1305) => Self::ChaChaPoly(Box::new(ChaChaPoly::new(key))),
        }
    }

    /// Adds time measurement if it is enabled on this thread.
    pub(super) fn timed_if_wanted(self) -> Self {
        if timed::is_wanted() { Self::Timed(Box::new(self)) } else { self }
    }

    /// The memory of the key and what was derived from it.
    #[cfg(test)]
    pub(super) fn memory(&self) -> core::ops::Range<usize> {
        use super::tests::traces::place;
        match self {
            Self::Aes128Gcm(gcm) => place(&**gcm),
            Self::Aes256Gcm(gcm) => place(&**gcm),
            Self::ChaChaPoly(key) => place(&**key),
            #[cfg(ipsec_mb)]
            Self::MbAes128Gcm(gcm) => place(gcm.key()),
            #[cfg(ipsec_mb)]
            Self::MbAes256Gcm(gcm) => place(gcm.key()),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes128Gcm(gcm) => place(&**gcm),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes256Gcm(gcm) => place(&**gcm),
            Self::Timed(cipher) => cipher.memory(),
        }
    }

    /// Whether bytes before the first whole block of a range go through a block on the stack.
    #[inline]
    pub(super) fn stages_edges(&self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes128Gcm(_) | Self::VaesAes256Gcm(_) => false,
            Self::Timed(cipher) => cipher.stages_edges(),
            _ => true,
        }
    }

    pub(super) fn prefetch(&self) {
        match self {
            Self::Aes128Gcm(gcm) => prefetch_object(&**gcm),
            Self::Aes256Gcm(gcm) => prefetch_object(&**gcm),
            Self::ChaChaPoly(key) => prefetch_object(&**key),
            #[cfg(ipsec_mb)]
            Self::MbAes128Gcm(gcm) => prefetch_object(&**gcm),
            #[cfg(ipsec_mb)]
            Self::MbAes256Gcm(gcm) => prefetch_object(&**gcm),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes128Gcm(gcm) => prefetch_object(&**gcm),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes256Gcm(gcm) => prefetch_object(&**gcm),
            Self::Timed(cipher) => cipher.prefetch(),
        }
    }

    /// The tag over `aad` and `ciphertext`.
    #[inline]
    pub(super) fn tag(&self, nonce: Nonce, aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        match self {
            Self::Aes128Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            Self::Aes256Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            Self::ChaChaPoly(cipher) => cipher.tag(nonce, aad, ciphertext),
            #[cfg(ipsec_mb)]
            Self::MbAes128Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            #[cfg(ipsec_mb)]
            Self::MbAes256Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes128Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes256Gcm(gcm) => gcm.tag(nonce, aad, ciphertext),
            Self::Timed(cipher) => timed::verifying(|| cipher.tag(nonce, aad, ciphertext)),
        }
    }

    /// The tag over `aad` and `ciphertext`. If the head of the plaintext is available at no cost, it is written to
    /// `head`; also returns its length.
    #[inline]
    pub(super) fn tag_and_head(
        &self,
        nonce: Nonce,
        aad: &[u8],
        ciphertext: &[u8],
        head: &mut HeadRoom,
    ) -> ([u8; TAG_LEN], usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes128Gcm(gcm) => gcm.tag_and_head(nonce, aad, ciphertext, head),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes256Gcm(gcm) => gcm.tag_and_head(nonce, aad, ciphertext, head),
            Self::Timed(cipher) => timed::verifying(|| cipher.tag_and_head(nonce, aad, ciphertext, head)),
            _ => (self.tag(nonce, aad, ciphertext), 0),
        }
    }

    /// Encrypts or decrypts `data`, at offset `from` of the plaintext.
    #[inline]
    pub(super) fn apply(&self, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
        match self {
            Self::Aes128Gcm(gcm) => gcm.apply(nonce, from, data),
            Self::Aes256Gcm(gcm) => gcm.apply(nonce, from, data),
            Self::ChaChaPoly(cipher) => cipher.apply(nonce, from, data),
            #[cfg(ipsec_mb)]
            Self::MbAes128Gcm(gcm) => gcm.apply(nonce, from, data),
            #[cfg(ipsec_mb)]
            Self::MbAes256Gcm(gcm) => gcm.apply(nonce, from, data),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes128Gcm(gcm) => gcm.apply(nonce, from, data),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes256Gcm(gcm) => gcm.apply(nonce, from, data),
            Self::Timed(cipher) => timed::placing(|| cipher.apply(nonce, from, data)),
        }
    }

    /// Starts the encryption of a packet.
    #[inline]
    pub(super) fn sealing(&self, nonce: Nonce) -> Sealing<'_> {
        match self {
            #[cfg(ipsec_mb)]
            Self::MbAes128Gcm(gcm) => Sealing::Stream128(gcm.stream(nonce)),
            #[cfg(ipsec_mb)]
            Self::MbAes256Gcm(gcm) => Sealing::Stream256(gcm.stream(nonce)),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes128Gcm(gcm) => Sealing::OneGo128(gcm.one_go(nonce)),
            #[cfg(target_arch = "x86_64")]
            Self::VaesAes256Gcm(gcm) => Sealing::OneGo256(gcm.one_go(nonce)),
            Self::Timed(cipher) => Sealing::Timed(Box::new(cipher.sealing(nonce))),
            _ => Sealing::TwoPass { cipher: self, nonce },
        }
    }
}

/// The encryption of a packet.
pub(super) enum Sealing<'a> {
    /// The tag is computed over the finished ciphertext.
    TwoPass { cipher: &'a Cipher, nonce: Nonce },
    /// Everything is done with the last piece, if only frame headers precede it.
    #[cfg(target_arch = "x86_64")]
    OneGo128(vaes::OneGo<'a, { vaes::AES128 }>),
    #[cfg(target_arch = "x86_64")]
    OneGo256(vaes::OneGo<'a, { vaes::AES256 }>),
    /// The tag is computed along with the ciphertext.
    #[cfg(ipsec_mb)]
    Stream128(ipsec_mb::Stream<'a, AES128>),
    #[cfg(ipsec_mb)]
    Stream256(ipsec_mb::Stream<'a, AES256>),
    /// Another one, with time measurement.
    Timed(Box<Sealing<'a>>),
}

/// A piece of plaintext.
pub(super) enum Piece<'a> {
    /// This many bytes, which are already at their place in the body.
    InPlace(usize),
    /// These bytes.
    From(&'a [u8]),
}

impl Piece<'_> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::InPlace(n) => *n,
            Self::From(src) => src.len(),
        }
    }

    /// The piece and its destination `area`.
    #[inline]
    fn data<'a>(&'a self, area: &'a mut [u8]) -> InOutBuf<'a, 'a, u8> {
        match self {
            Self::InPlace(_) => area.into(),
            Self::From(src) => InOutBuf::new(src, area).expect("of one length"),
        }
    }
}

impl Sealing<'_> {
    /// Encrypts the next piece of plaintext, which belongs at offset `from` of `body`; `body` has the length of the
    /// whole plaintext. `aad` is the packet's header. `tag` may already be written with the last piece.
    #[inline]
    pub(super) fn encrypt(
        &mut self,
        aad: &[u8],
        body: &mut [u8],
        tag: &mut [u8; TAG_LEN],
        from: usize,
        piece: Piece<'_>,
    ) {
        let end = from + piece.len();
        #[cfg(ipsec_mb)]
        let whole = from == 0 && end == body.len();
        match self {
            Self::TwoPass { cipher, nonce } => cipher.apply(*nonce, from, piece.data(&mut body[from..end])),
            #[cfg(target_arch = "x86_64")]
            Self::OneGo128(one) => one.encrypt(aad, body, tag, from, piece),
            #[cfg(target_arch = "x86_64")]
            Self::OneGo256(one) => one.encrypt(aad, body, tag, from, piece),
            #[cfg(ipsec_mb)]
            Self::Stream128(stream) => stream.encrypt(aad, whole, piece.data(&mut body[from..end])),
            #[cfg(ipsec_mb)]
            Self::Stream256(stream) => stream.encrypt(aad, whole, piece.data(&mut body[from..end])),
            Self::Timed(inner) => timed::sealing(|| inner.encrypt(aad, body, tag, from, piece)),
        }
    }

    /// The front of the ciphertext, padded with zeros, if available.
    #[inline]
    pub(super) fn front(&self) -> Option<Front> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::OneGo128(one) => one.front(),
            #[cfg(target_arch = "x86_64")]
            Self::OneGo256(one) => one.front(),
            Self::Timed(inner) => inner.front(),
            _ => None,
        }
    }

    /// Writes the tag, if it was not written with the last piece. `aad` is the header, `ciphertext` everything that was
    /// encrypted.
    #[inline]
    pub(super) fn finish(&mut self, aad: &[u8], ciphertext: &[u8], tag: &mut [u8; TAG_LEN]) {
        match self {
            Self::TwoPass { cipher, nonce } => *tag = cipher.tag(*nonce, aad, ciphertext),
            #[cfg(target_arch = "x86_64")]
            Self::OneGo128(one) => one.finish(aad, ciphertext, tag),
            #[cfg(target_arch = "x86_64")]
            Self::OneGo256(one) => one.finish(aad, ciphertext, tag),
            #[cfg(ipsec_mb)]
            Self::Stream128(stream) => *tag = stream.finish(aad),
            #[cfg(ipsec_mb)]
            Self::Stream256(stream) => *tag = stream.finish(aad),
            Self::Timed(inner) => timed::sealing(|| inner.finish(aad, ciphertext, tag)),
        }
    }
}
