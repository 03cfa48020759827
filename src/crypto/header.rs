//! Header protection masks (RFC 9001 §5.4).

use aes::cipher::{Block, BlockCipherEncrypt, BlockSizeUser, KeyInit, consts::U16};
use aes::{Aes128Enc, Aes256Enc};
use zeroize::Zeroizing;

use super::Suite;
#[cfg(ipsec_mb)]
use super::backend::ipsec_mb::{self, AES128, AES256};
use super::backend::portable::SHALLOW;
#[cfg(target_arch = "x86_64")]
use super::backend::vaes;
use super::backend::{self, Backend, chacha};
use super::layout::SAMPLE_LEN;
use super::traceless::{traceless, traceless_in};
use crate::mem::prefetch_object;

/// Number of blocks encrypted at once.
const BATCH: usize = 32;

/// A header protection key.
pub struct HeaderKey(Kind);

/// Round keys are boxed so that keys are cheap to move, and leave no copies when moved.
enum Kind {
    Aes128(Box<Aes128Enc>),
    Aes256(Box<Aes256Enc>),
    ChaCha(Box<Zeroizing<[u8; 32]>>),
    #[cfg(ipsec_mb)]
    MbAes128(Box<ipsec_mb::Aes<AES128>>),
    #[cfg(ipsec_mb)]
    MbAes256(Box<ipsec_mb::Aes<AES256>>),
    #[cfg(target_arch = "x86_64")]
    VaesAes128(Box<vaes::Schedule<{ vaes::AES128 }>>),
    #[cfg(target_arch = "x86_64")]
    VaesAes256(Box<vaes::Schedule<{ vaes::AES256 }>>),
}

/// Makes a header protection key from raw key material.
///
/// # Panics
/// If `key` does not have the [length](Suite::key_len) for `suite`.
pub fn header_key(suite: Suite, key: &[u8]) -> HeaderKey {
    traceless(|| HeaderKey::on(backend::chosen(), suite, key))
}

impl HeaderKey {
    /// Makes a key on the given backend.
    pub(super) fn on(backend: Backend, suite: Suite, key: &[u8]) -> Self {
        assert_eq!(key.len(), suite.key_len(), "header key length fits {suite:?}");
        let expect = "length checked";
        Self(match (backend, suite) {
            (Backend::Portable, Suite::Aes128Gcm) => {
                Kind::Aes128(Box::new(Aes128Enc::new_from_slice(key).expect(expect)))
            }
            (Backend::Portable, Suite::Aes256Gcm) => {
                Kind::Aes256(Box::new(Aes256Enc::new_from_slice(key).expect(expect)))
            }
            #[cfg(ipsec_mb)]
            (Backend::IpsecMb(arch), Suite::Aes128Gcm) => Kind::MbAes128(Box::new(ipsec_mb::Aes::new(arch, key))),
            #[cfg(ipsec_mb)]
            (Backend::IpsecMb(arch), Suite::Aes256Gcm) => Kind::MbAes256(Box::new(ipsec_mb::Aes::new(arch, key))),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes, Suite::Aes128Gcm) => Kind::VaesAes128(Box::new(vaes::Schedule::new(key))),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes, Suite::Aes256Gcm) => Kind::VaesAes256(Box::new(vaes::Schedule::new(key))),
            (_, Suite::ChaCha20Poly1305) => Kind::ChaCha(Box::new(Zeroizing::new(key.try_into().expect(expect)))),
        })
    }

    /// The memory of the key and what was derived from it.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> core::ops::Range<usize> {
        use super::tests::traces::place;
        match &self.0 {
            Kind::Aes128(aes) => place(&**aes),
            Kind::Aes256(aes) => place(&**aes),
            Kind::ChaCha(key) => place(&**key),
            #[cfg(ipsec_mb)]
            Kind::MbAes128(aes) => place(&**aes),
            #[cfg(ipsec_mb)]
            Kind::MbAes256(aes) => place(&**aes),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes128(aes) => place(&**aes),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes256(aes) => place(&**aes),
        }
    }

    /// Prefetches the key.
    pub fn prefetch(&self) {
        match &self.0 {
            Kind::Aes128(aes) => prefetch_object(&**aes),
            Kind::Aes256(aes) => prefetch_object(&**aes),
            Kind::ChaCha(key) => prefetch_object(&**key),
            #[cfg(ipsec_mb)]
            Kind::MbAes128(aes) => prefetch_object(&**aes),
            #[cfg(ipsec_mb)]
            Kind::MbAes256(aes) => prefetch_object(&**aes),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes128(aes) => prefetch_object(&**aes),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes256(aes) => prefetch_object(&**aes),
        }
    }

    /// The mask for `sample`: the first byte is for the header's first byte, the others for the packet number (RFC 9001
    /// §5.4.3 and §5.4.4).
    #[inline]
    pub fn mask(&self, sample: &[u8; SAMPLE_LEN]) -> [u8; 5] {
        match &self.0 {
            Kind::Aes128(aes) => traceless_in::<SHALLOW, _>(|| aes_mask(&**aes, sample)),
            Kind::Aes256(aes) => traceless_in::<SHALLOW, _>(|| aes_mask(&**aes, sample)),
            Kind::ChaCha(key) => chacha_mask(key, sample),
            #[cfg(ipsec_mb)]
            Kind::MbAes128(aes) => aes.mask(sample),
            #[cfg(ipsec_mb)]
            Kind::MbAes256(aes) => aes.mask(sample),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes128(aes) => aes.mask(sample),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes256(aes) => aes.mask(sample),
        }
    }

    /// The masks for a batch of samples, with interleaved AES blocks.
    ///
    /// # Panics
    /// If `out` and `samples` differ in length.
    pub fn masks(&self, samples: &[[u8; SAMPLE_LEN]], out: &mut [[u8; 5]]) {
        assert_eq!(samples.len(), out.len(), "one mask per sample");
        match &self.0 {
            Kind::Aes128(aes) => traceless_in::<SHALLOW, _>(|| aes_masks(&**aes, samples, out)),
            Kind::Aes256(aes) => traceless_in::<SHALLOW, _>(|| aes_masks(&**aes, samples, out)),
            Kind::ChaCha(key) => {
                for (sample, mask) in samples.iter().zip(out) {
                    *mask = chacha::header_mask(key, sample);
                }
            }
            #[cfg(ipsec_mb)]
            Kind::MbAes128(aes) => aes.masks(samples, out),
            #[cfg(ipsec_mb)]
            Kind::MbAes256(aes) => aes.masks(samples, out),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes128(aes) => aes.masks(samples, out),
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes256(aes) => aes.masks(samples, out),
        }
    }
}

/// Not inlined, as it uses much stack, which the others do not need.
#[inline(never)]
fn chacha_mask(key: &[u8; 32], sample: &[u8; SAMPLE_LEN]) -> [u8; 5] {
    chacha::header_mask(key, sample)
}

fn first5(block: &[u8]) -> [u8; 5] {
    *block.first_chunk().expect("a block is longer")
}

/// Not inlined either, as it is much code without AES instructions.
#[inline(never)]
fn aes_mask<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(aes: &C, sample: &[u8; SAMPLE_LEN]) -> [u8; 5] {
    let mut block: Block<C> = (*sample).into();
    aes.encrypt_block(&mut block);
    first5(&block)
}

fn aes_masks<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(
    aes: &C,
    samples: &[[u8; SAMPLE_LEN]],
    out: &mut [[u8; 5]],
) {
    let mut blocks = [Block::<C>::default(); BATCH];
    for (samples, out) in samples.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
        let blocks = &mut blocks[..samples.len()];
        for (block, sample) in blocks.iter_mut().zip(samples) {
            *block = (*sample).into();
        }
        aes.encrypt_blocks(blocks);
        for (mask, block) in out.iter_mut().zip(blocks) {
            *mask = first5(block);
        }
    }
}

impl core::fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let cipher = match self.0 {
            Kind::Aes128(_) => "AES-128",
            Kind::Aes256(_) => "AES-256",
            Kind::ChaCha(_) => "ChaCha20",
            #[cfg(ipsec_mb)]
            Kind::MbAes128(_) => "AES-128",
            #[cfg(ipsec_mb)]
            Kind::MbAes256(_) => "AES-256",
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes128(_) => "AES-128",
            #[cfg(target_arch = "x86_64")]
            Kind::VaesAes256(_) => "AES-256",
        };
        f.debug_tuple("HeaderKey").field(&cipher).finish_non_exhaustive()
    }
}
