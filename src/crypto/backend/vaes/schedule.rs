//! Round keys (FIPS 197 §5.2), and single blocks.

use core::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_setzero_si128,
    _mm_shuffle_epi32, _mm_slli_si128, _mm_storeu_si128, _mm_xor_si128, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};

use zeroize::zeroize_flat_type;

use super::{AES128, BLOCK};

/// Registers of header protection samples in flight.
const FLIGHT: usize = 4;

/// The `KEYS` round keys of AES, one more than it has rounds.
#[repr(C)]
pub(in crate::crypto) struct Schedule<const KEYS: usize>([__m128i; KEYS]);

impl<const KEYS: usize> Schedule<KEYS> {
    /// # Panics
    /// If `key` does not have the length of the cipher's keys, or the CPU lacks the instructions.
    pub(in crate::crypto) fn new(key: &[u8]) -> Self {
        assert!(super::is_available(), "chosen only where the CPU has the instructions");
        // SAFETY: the CPU has the instructions.
        unsafe { expand(key) }
    }

    /// The round keys in the order of use.
    pub(super) fn rounds(&self) -> &[__m128i] {
        &self.0
    }

    /// The first bytes of the encrypted sample (RFC 9001 §5.4.3).
    #[inline]
    pub(in crate::crypto) fn mask(&self, sample: &[u8; BLOCK]) -> [u8; 5] {
        // SAFETY: a schedule exists only if the CPU has the instructions.
        let block = unsafe { encrypt(self, load(sample)) };
        *store(block).first_chunk().expect("16 bytes")
    }

    /// The masks for a batch of samples, as many as `out` has.
    pub(in crate::crypto) fn masks(&self, samples: &[[u8; BLOCK]], out: &mut [[u8; 5]]) {
        let (many, few) = samples.as_chunks::<{ 4 * FLIGHT }>();
        let (many_out, few_out) = out.split_at_mut(many.len() * 4 * FLIGHT);
        for (samples, out) in many.iter().zip(many_out.as_chunks_mut().0) {
            // SAFETY: a schedule exists only if the CPU has the instructions.
            *out = unsafe { masks_of_flight(self, samples) };
        }
        for (sample, mask) in few.iter().zip(few_out) {
            *mask = self.mask(sample);
        }
    }
}

impl<const KEYS: usize> Drop for Schedule<KEYS> {
    fn drop(&mut self) {
        // SAFETY: plain bytes, which are not read afterwards.
        unsafe { zeroize_flat_type(&raw mut self.0) };
    }
}

#[inline]
pub(super) fn load(bytes: &[u8; BLOCK]) -> __m128i {
    // SAFETY: SSE2 is part of x86-64; 16 bytes are read at any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
pub(super) fn store(block: __m128i) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    // SAFETY: SSE2 is part of x86-64; writes the 16 bytes of `out`, at any alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), block) };
    out
}

/// The first bytes of as many blocks as are in flight at once.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn masks_of_flight<const KEYS: usize>(
    schedule: &Schedule<KEYS>,
    samples: &[[u8; BLOCK]; 4 * FLIGHT],
) -> [[u8; 5]; 4 * FLIGHT] {
    let keys = &schedule.0;
    let mut blocks = [_mm512_setzero_si512(); FLIGHT];
    let first = _mm512_broadcast_i32x4(keys[0]);
    for (block, four) in blocks.iter_mut().zip(samples.as_chunks::<4>().0) {
        // SAFETY: four samples are as long as a register; any alignment will do.
        *block = unsafe { _mm512_xor_si512(_mm512_loadu_si512(four.as_ptr().cast()), first) };
    }
    for key in &keys[1..KEYS - 1] {
        let key = _mm512_broadcast_i32x4(*key);
        for block in &mut blocks {
            *block = _mm512_aesenc_epi128(*block, key);
        }
    }
    let last = _mm512_broadcast_i32x4(keys[KEYS - 1]);
    let mut bytes = [[0; BLOCK]; 4 * FLIGHT];
    for (block, four) in blocks.iter_mut().zip(bytes.as_chunks_mut::<4>().0) {
        *block = _mm512_aesenclast_epi128(*block, last);
        // SAFETY: four blocks are as long as a register; any alignment will do.
        unsafe { _mm512_storeu_si512(four.as_mut_ptr().cast(), *block) };
    }
    bytes.map(|block| *block.first_chunk().expect("16 bytes"))
}

/// Encrypts one block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
pub(super) fn encrypt<const KEYS: usize>(schedule: &Schedule<KEYS>, block: __m128i) -> __m128i {
    let keys = &schedule.0;
    let mut block = _mm_xor_si128(block, keys[0]);
    for key in &keys[1..KEYS - 1] {
        block = _mm_aesenc_si128(block, *key);
    }
    _mm_aesenclast_si128(block, keys[KEYS - 1])
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn expand<const KEYS: usize>(key: &[u8]) -> Schedule<KEYS> {
    let mut keys = [_mm_setzero_si128(); 15];
    if KEYS == AES128 {
        let key: &[u8; 16] = key.try_into().expect("key length fits the cipher");
        keys[0] = load(key);
        macro_rules! round {
            ($i:literal, $rcon:literal) => {
                let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$rcon>(keys[$i - 1]));
                keys[$i] = _mm_xor_si128(spread(keys[$i - 1]), word);
            };
        }
        round!(1, 0x01);
        round!(2, 0x02);
        round!(3, 0x04);
        round!(4, 0x08);
        round!(5, 0x10);
        round!(6, 0x20);
        round!(7, 0x40);
        round!(8, 0x80);
        round!(9, 0x1b);
        round!(10, 0x36);
    } else {
        let key: &[u8; 32] = key.try_into().expect("key length fits the cipher");
        let (halves, _) = key.as_chunks();
        keys[0] = load(&halves[0]);
        keys[1] = load(&halves[1]);
        macro_rules! round {
            ($i:literal, $rcon:literal, $which:literal) => {
                let word = _mm_shuffle_epi32::<$which>(_mm_aeskeygenassist_si128::<$rcon>(keys[$i - 1]));
                keys[$i] = _mm_xor_si128(spread(keys[$i - 2]), word);
            };
        }
        round!(2, 0x01, 0xff);
        round!(3, 0x00, 0xaa);
        round!(4, 0x02, 0xff);
        round!(5, 0x00, 0xaa);
        round!(6, 0x04, 0xff);
        round!(7, 0x00, 0xaa);
        round!(8, 0x08, 0xff);
        round!(9, 0x00, 0xaa);
        round!(10, 0x10, 0xff);
        round!(11, 0x00, 0xaa);
        round!(12, 0x20, 0xff);
        round!(13, 0x00, 0xaa);
        round!(14, 0x40, 0xff);
    }
    Schedule(*keys.first_chunk().expect("as many as the longest key has"))
}

/// Each word XORed with all words before it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn spread(key: __m128i) -> __m128i {
    let key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
    _mm_xor_si128(key, _mm_slli_si128::<8>(key))
}
