//! The keystream: four blocks per register, eight registers interleaved.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_set_epi64x, _mm512_add_epi32, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_set_epi32,
    _mm512_shuffle_epi8, _mm512_storeu_si512, _mm512_xor_si512,
};

use super::schedule::Schedule;
use super::{BLOCK, WIDTH};
use crate::crypto::nonce::Nonce;

/// Counter of the block that masks the tag. The plaintext begins one block later.
pub(super) const FIRST: u32 = 1;

/// Number of registers interleaved: the latency of a round times the rounds started per cycle.
const FLIGHT: usize = 8;

/// Counter blocks of a packet, four at a time; counters are little-endian.
#[derive(Clone, Copy)]
pub(super) struct Counters(__m512i);

impl Counters {
    /// The blocks `first` to `first + 3`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    pub(super) fn new(nonce: Nonce, first: u32) -> Self {
        // The counter of a nonce is empty, so this is the nonce with a little-endian counter.
        let n = nonce.block(first.swap_bytes());
        let one = _mm512_broadcast_i32x4(_mm_set_epi64x((n >> 64) as i64, n as i64));
        Self(_mm512_add_epi32(one, _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)))
    }

    /// The cipher's input, with big-endian counters.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn blocks(self) -> __m512i {
        let swap: __m128i = _mm_set_epi64x(0x0c0d_0e0f_0b0a_0908, 0x0706_0504_0302_0100);
        _mm512_shuffle_epi8(self.0, _mm512_broadcast_i32x4(swap))
    }

    /// Advances by `by` blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn ahead(self, by: i32) -> Self {
        Self(_mm512_add_epi32(self.0, _mm512_set_epi32(by, 0, 0, 0, by, 0, 0, 0, by, 0, 0, 0, by, 0, 0, 0)))
    }

    /// The keystream of the next `4 * N` blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    pub(super) fn keystream<const KEYS: usize, const N: usize>(&mut self, schedule: &Schedule<KEYS>) -> [__m512i; N] {
        let keys = schedule.rounds();
        let mut blocks = [self.0; N];
        let first = _mm512_broadcast_i32x4(keys[0]);
        for (i, block) in blocks.iter_mut().enumerate() {
            *block = _mm512_xor_si512(self.ahead(4 * i as i32).blocks(), first);
        }
        *self = self.ahead(4 * N as i32);
        for key in &keys[1..KEYS - 1] {
            let key = _mm512_broadcast_i32x4(*key);
            for block in &mut blocks {
                *block = _mm512_aesenc_epi128(*block, key);
            }
        }
        let last = _mm512_broadcast_i32x4(keys[KEYS - 1]);
        for block in &mut blocks {
            *block = _mm512_aesenclast_epi128(*block, last);
        }
        blocks
    }
}

/// A range of bytes to process, in registers aligned to blocks.
struct Range {
    /// Where the first register would begin if it were whole. Bytes before the range are not accessed.
    src: *const u8,
    dst: *mut u8,
    /// Number of bytes of the first register before the range.
    skip: usize,
    /// End of the range, from the beginning of the first register.
    end: usize,
}

/// XORs the keystream from plaintext offset `from` on with the `len` bytes at `src`, into `dst`.
///
/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes; they must be identical or disjoint.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
pub(super) unsafe fn apply<const KEYS: usize>(
    schedule: &Schedule<KEYS>,
    nonce: Nonce,
    from: usize,
    src: *const u8,
    dst: *mut u8,
    len: usize,
) {
    // A packet has less than 2^16 bytes, so the counter cannot wrap.
    let (block, skip) = (from / BLOCK, from % BLOCK);
    let mut counters = Counters::new(nonce, FIRST + 1 + block as u32);
    let range = Range { src: src.wrapping_sub(skip), dst: dst.wrapping_sub(skip), skip, end: skip + len };
    let registers = range.end.div_ceil(WIDTH);
    let mut at = 0;
    while at + FLIGHT < registers {
        // SAFETY: passed on.
        unsafe { range.work::<KEYS, FLIGHT, false>(schedule, &mut counters, at) };
        at += FLIGHT;
    }
    // SAFETY: passed on.
    unsafe {
        match registers - at {
            1 => range.work::<KEYS, 1, true>(schedule, &mut counters, at),
            2 => range.work::<KEYS, 2, true>(schedule, &mut counters, at),
            3 => range.work::<KEYS, 3, true>(schedule, &mut counters, at),
            4 => range.work::<KEYS, 4, true>(schedule, &mut counters, at),
            5 => range.work::<KEYS, 5, true>(schedule, &mut counters, at),
            6 => range.work::<KEYS, 6, true>(schedule, &mut counters, at),
            7 => range.work::<KEYS, 7, true>(schedule, &mut counters, at),
            8 => range.work::<KEYS, 8, true>(schedule, &mut counters, at),
            _ => {}
        }
    }
}

impl Range {
    /// Processes the registers `at` to `at + N`. Only the first and the last of the range may be partial; `LAST` says
    /// that the last one is among them.
    ///
    /// # Safety
    /// As for [`apply`]; each of these registers must contain at least one byte of the range.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    unsafe fn work<const KEYS: usize, const N: usize, const LAST: bool>(
        &self,
        schedule: &Schedule<KEYS>,
        counters: &mut Counters,
        at: usize,
    ) {
        let stream = counters.keystream::<KEYS, N>(schedule);
        for (i, stream) in stream.into_iter().enumerate() {
            let offset = (at + i) * WIDTH;
            let (src, dst) = (self.src.wrapping_add(offset), self.dst.wrapping_add(offset));
            // A masked store costs about ten plain ones.
            if (i > 0 || at > 0) && (i + 1 < N || !LAST) {
                // SAFETY: it is neither the first nor the last register of the range, so all its bytes are in the
                // range.
                unsafe {
                    let data = _mm512_loadu_si512(src.cast());
                    _mm512_storeu_si512(dst.cast(), _mm512_xor_si512(data, stream));
                }
            } else {
                let mask = self.mask(offset);
                // SAFETY: only bytes in the mask are read and written, and these are in the range.
                unsafe {
                    let data = _mm512_maskz_loadu_epi8(mask, src.cast());
                    _mm512_mask_storeu_epi8(dst.cast(), mask, _mm512_xor_si512(data, stream));
                }
            }
        }
    }

    /// The bytes of the register at `offset` that are in the range.
    #[inline]
    fn mask(&self, offset: usize) -> u64 {
        let before = if offset == 0 { self.skip } else { 0 };
        let behind = (offset + WIDTH).saturating_sub(self.end);
        (u64::MAX << before) & (u64::MAX >> behind)
    }
}
