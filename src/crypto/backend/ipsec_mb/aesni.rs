//! Single AES blocks with AES-NI.

use core::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_storeu_si128, _mm_xor_si128,
};

use zeroize::zeroize_flat_type;

use super::library::{Arch, Library};
use super::{BLOCK, FEW, check_len};

/// The round keys of AES.
#[repr(C, align(16))]
pub(crate) struct Aes<const ROUNDS: usize>([u8; 240]);

impl<const ROUNDS: usize> Aes<ROUNDS> {
    /// # Panics
    /// If `key` does not have the length of the cipher's keys, or the machine lacks the features of `arch`.
    pub(crate) fn new(arch: Arch, key: &[u8]) -> Self {
        check_len::<ROUNDS>(key);
        let kernels = Library::expect(arch).kernels::<ROUNDS>();
        let (mut encrypt, mut decrypt) = (Self([0; 240]), Self([0; 240]));
        // SAFETY: the key has the length that the function reads, both schedules have room for the longest one
        // and are aligned to 16 bytes.
        unsafe {
            (kernels.expand)(key.as_ptr().cast(), encrypt.0.as_mut_ptr().cast(), decrypt.0.as_mut_ptr().cast());
        }
        encrypt
    }

    /// The first bytes of the encrypted sample (RFC 9001 §5.4.3).
    pub(crate) fn mask(&self, sample: &[u8; BLOCK]) -> [u8; 5] {
        let [block] = self.encrypt([*sample]);
        *block.first_chunk().expect("16 bytes")
    }

    /// The masks for a batch of samples, as many as `out` has.
    pub(crate) fn masks(&self, samples: &[[u8; BLOCK]], out: &mut [[u8; 5]]) {
        let (chunks, rest) = samples.as_chunks::<FEW>();
        let (out_chunks, out_rest) = out.as_chunks_mut::<FEW>();
        for (samples, masks) in chunks.iter().zip(out_chunks) {
            *masks = self.encrypt(*samples).map(|block| *block.first_chunk().expect("16 bytes"));
        }
        for (sample, mask) in rest.iter().zip(out_rest) {
            *mask = self.mask(sample);
        }
    }

    /// Encrypts blocks, interleaved.
    fn encrypt<const N: usize>(&self, blocks: [[u8; BLOCK]; N]) -> [[u8; BLOCK]; N] {
        // SAFETY: keys exist only where the library runs, which requires AES-NI.
        unsafe { encrypt::<ROUNDS, N>(&self.0, blocks.map(|block| load(&block))) }
    }
}

impl<const ROUNDS: usize> Drop for Aes<ROUNDS> {
    fn drop(&mut self) {
        // SAFETY: plain bytes, which are not read afterwards.
        unsafe { zeroize_flat_type(self) };
    }
}

#[inline]
fn load(bytes: &[u8; BLOCK]) -> __m128i {
    // SAFETY: SSE2 is part of x86-64; 16 bytes are read at any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Stores the block at once, so that it can be loaded again without a stall.
#[inline]
pub(super) fn store(block: __m128i) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    // SAFETY: SSE2 is part of x86-64; writes the 16 bytes of `out`, at any alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), block) };
    out
}

/// A block from a little-endian number.
#[inline]
pub(super) fn block(n: u128) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_set_epi64x((n >> 64) as i64, n as i64) }
}

/// Encrypts blocks, interleaved.
#[inline]
#[target_feature(enable = "aes")]
pub(super) fn encrypt<const ROUNDS: usize, const N: usize>(
    schedule: &[u8; 240],
    mut blocks: [__m128i; N],
) -> [[u8; BLOCK]; N] {
    let (keys, _) = schedule.as_chunks::<BLOCK>();
    for block in &mut blocks {
        *block = _mm_xor_si128(*block, load(&keys[0]));
    }
    for key in &keys[1..ROUNDS] {
        let key = load(key);
        for block in &mut blocks {
            *block = _mm_aesenc_si128(*block, key);
        }
    }
    let last = load(&keys[ROUNDS]);
    blocks.map(|block| store(_mm_aesenclast_si128(block, last)))
}
