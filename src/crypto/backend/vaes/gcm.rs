//! AES-GCM taken apart: a tag that gives the head of the plaintext along the way, and a keystream for any range.

use core::arch::x86_64::{
    __m128i, _mm_setzero_si128, _mm_xor_si128, _mm512_castsi512_si128, _mm512_maskz_loadu_epi8, _mm512_storeu_si512,
    _mm512_xor_si512,
};

use aes::cipher::inout::InOutBuf;

use super::ctr::{Counters, FIRST, apply};
use super::ghash::{Powers, hash};
use super::schedule::{Schedule, encrypt, load, store};
use super::{BLOCK, WIDTH};
use crate::crypto::backend::Head;
use crate::crypto::backend::portable::lengths;
use crate::crypto::nonce::Nonce;
use crate::crypto::packet::TAG_LEN;

/// AES-GCM with its key.
#[repr(C, align(64))]
pub(in crate::crypto) struct Gcm<const ROUNDS: usize> {
    powers: Powers,
    schedule: Schedule<ROUNDS>,
}

impl<const ROUNDS: usize> Gcm<ROUNDS> {
    /// # Panics
    /// If `key` does not have the length that the cipher wants.
    pub(in crate::crypto) fn new(key: &[u8]) -> Self {
        let schedule = Schedule::new(key);
        // SAFETY: a schedule exists only where the CPU has the instructions.
        let powers = unsafe { Powers::new(encrypt(&schedule, _mm_setzero_si128())) };
        Self { powers, schedule }
    }

    /// The tag over `aad` and `ciphertext`.
    #[inline]
    pub(in crate::crypto) fn tag(&self, nonce: Nonce, aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        self.tag_and_head(nonce, aad, ciphertext).0
    }

    /// The tag over `aad` and `ciphertext`, and the head of the plaintext: the mask of the tag is the first of four
    /// blocks of keystream that come out at once.
    #[inline]
    pub(in crate::crypto) fn tag_and_head(&self, nonce: Nonce, aad: &[u8], ciphertext: &[u8]) -> ([u8; TAG_LEN], Head) {
        let lengths = load(&lengths(aad.len(), ciphertext.len()).to_le_bytes());
        let mut head = Head([0; WIDTH]);
        // SAFETY: a schedule exists only where the CPU has the instructions.
        let tag = unsafe { tag_and_head(self, nonce, aad, ciphertext, lengths, &mut head.0) };
        (store(tag), head)
    }

    /// Encrypts or decrypts `data`, which lies at offset `from` of the plaintext.
    #[inline]
    pub(in crate::crypto) fn apply(&self, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
        let len = data.len();
        let (src, dst) = data.into_raw();
        // SAFETY: a schedule exists only where the CPU has the instructions. Source and destination have the given
        // length, and are one and the same or apart.
        unsafe { apply(&self.schedule, nonce, from, src, dst, len) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,vaes,vpclmulqdq,pclmulqdq,ssse3,aes")]
fn tag_and_head<const ROUNDS: usize>(
    gcm: &Gcm<ROUNDS>,
    nonce: Nonce,
    aad: &[u8],
    ciphertext: &[u8],
    lengths: __m128i,
    head: &mut [u8; WIDTH],
) -> __m128i {
    let [stream] = Counters::new(nonce, FIRST).keystream::<ROUNDS, 1>(&gcm.schedule);
    let len = ciphertext.len().min(WIDTH - BLOCK);
    let mask = ((1 << len) - 1) << BLOCK;
    // SAFETY: only the first bytes of the ciphertext are read, and no more than there are.
    let data = unsafe { _mm512_maskz_loadu_epi8(mask, ciphertext.as_ptr().wrapping_sub(BLOCK).cast()) };
    // SAFETY: as many bytes as a register has.
    unsafe { _mm512_storeu_si512(head.as_mut_ptr().cast(), _mm512_xor_si512(data, stream)) };
    _mm_xor_si128(hash(&gcm.powers, aad, ciphertext, lengths), _mm512_castsi512_si128(stream))
}
