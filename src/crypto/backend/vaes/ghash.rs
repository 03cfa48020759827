//! GHASH (NIST SP 800-38D §6.4), computed as POLYVAL of reversed blocks (RFC 8452 appendix A).
//!
//! The blocks of a message go round four lanes. Zero blocks in front, which change nothing, make their number a
//! multiple of four, so that the last block is in the last lane. In each step up to eight registers are multiplied
//! by their powers of the hash key, summed up, and reduced once.

use core::arch::x86_64::{
    __m128i, __m512i, __mmask64, _mm_clmulepi64_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_setzero_si128,
    _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_slli_si128, _mm_srli_si128, _mm_xor_si128, _mm512_broadcast_i32x4,
    _mm512_bslli_epi128, _mm512_bsrli_epi128, _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32, _mm512_loadu_si512,
    _mm512_mask_broadcast_i32x4, _mm512_maskz_loadu_epi8, _mm512_setzero_si512, _mm512_shuffle_epi8,
    _mm512_shuffle_epi32, _mm512_xor_si512,
};

use zeroize::zeroize_flat_type;

use super::schedule::load;
use super::{BLOCK, WIDTH};

/// Registers that are summed up before they are reduced.
const STEP: usize = 8;

/// Powers of the hash key H.
#[repr(C)]
pub(super) struct Powers {
    /// H⁴, H³, H², H: for the last register.
    last: [__m128i; 4],
    /// H⁴, H⁸ and so on to H³²: for the registers before it.
    fourths: [__m128i; STEP],
}

/// An unreduced product, or a sum of products.
#[derive(Clone, Copy)]
struct Product<T> {
    low: T,
    middle: T,
    high: T,
}

impl Powers {
    /// `h`: the encrypted zero block.
    #[target_feature(enable = "pclmulqdq,ssse3")]
    pub(super) fn new(h: __m128i) -> Self {
        let h = double(reverse(h));
        let h2 = multiply(h, h);
        let h3 = multiply(h2, h);
        let h4 = multiply(h2, h2);
        let mut fourths = [h4; STEP];
        for i in 1..STEP {
            fourths[i] = multiply(fourths[i - 1], h4);
        }
        Self { last: [h4, h3, h2, h], fourths }
    }
}

impl Drop for Powers {
    fn drop(&mut self) {
        // SAFETY: plain bytes, and nobody sees them afterwards.
        unsafe { zeroize_flat_type(&raw mut self.last) };
        // SAFETY: the same.
        unsafe { zeroize_flat_type(&raw mut self.fourths) };
    }
}

/// The hash over `aad`, `data` and their lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,vpclmulqdq,pclmulqdq,ssse3")]
pub(super) fn hash(powers: &Powers, aad: &[u8], data: &[u8], lengths: __m128i) -> __m128i {
    let message = Message::new(lead(powers, aad), data, lengths);
    // All but the last register, the odd ones first.
    let full = message.registers - 1;
    let odd = full % STEP;
    let mut y = match odd {
        0 => _mm512_setzero_si512(),
        1 => message.step::<1>(powers, _mm512_setzero_si512(), 0),
        2 => message.step::<2>(powers, _mm512_setzero_si512(), 0),
        3 => message.step::<3>(powers, _mm512_setzero_si512(), 0),
        4 => message.step::<4>(powers, _mm512_setzero_si512(), 0),
        5 => message.step::<5>(powers, _mm512_setzero_si512(), 0),
        6 => message.step::<6>(powers, _mm512_setzero_si512(), 0),
        _ => message.step::<7>(powers, _mm512_setzero_si512(), 0),
    };
    let mut at = odd;
    while at < full {
        y = message.step::<STEP>(powers, y, at);
        at += STEP;
    }
    let last = _mm512_xor_si512(message.register(full), y);
    // SAFETY: 64 bytes, at any alignment.
    let key = unsafe { _mm512_loadu_si512(powers.last.as_ptr().cast()) };
    let product = Product::lanes_of(last, key);
    let sum = Product { low: lanes(product.low), middle: lanes(product.middle), high: lanes(product.high) };
    reverse(sum.reduce())
}

/// The last block of the associated data, with what came before it hashed in. A zero block if there is none.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
fn lead(powers: &Powers, aad: &[u8]) -> __m128i {
    let mut y = _mm_setzero_si128();
    let mut rest = aad;
    // Long headers only.
    while let Some((block, more)) = rest.split_first_chunk::<BLOCK>().filter(|(_, more)| !more.is_empty()) {
        y = multiply(_mm_xor_si128(y, reverse(load(block))), powers.last[3]);
        rest = more;
    }
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    // As it lies in memory, like all blocks of a message.
    _mm_xor_si128(load(&block), reverse(y))
}

/// What is hashed: zero blocks, the lead, the data, the lengths.
struct Message {
    lead: __m128i,
    lengths: __m128i,
    /// Where the first register would lie if all of it were data.
    start: *const u8,
    registers: usize,
    /// Which bytes of the first register are data.
    first: __mmask64,
    /// Which bytes of the last register are data.
    last: __mmask64,
    /// The lane of the lead in the first register.
    lane: u16,
}

impl Message {
    #[inline]
    fn new(lead: __m128i, data: &[u8], lengths: __m128i) -> Self {
        let blocks = data.len().div_ceil(BLOCK) + 2;
        let zeros = blocks.wrapping_neg() % 4;
        let registers = (blocks + zeros) / 4;
        let before = (zeros + 1) * BLOCK;
        let behind = registers * WIDTH - before - data.len();
        Self {
            lead,
            lengths,
            start: data.as_ptr().wrapping_sub(before),
            registers,
            first: u64::MAX.checked_shl(before as u32).unwrap_or(0),
            last: u64::MAX.checked_shr(behind as u32).unwrap_or(0),
            lane: 0x000f << (4 * zeros),
        }
    }

    /// Register `i`, the bytes of its blocks reversed.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn register(&self, i: usize) -> __m512i {
        let at = self.start.wrapping_add(i * WIDTH);
        let (first, last) = (i == 0, i + 1 == self.registers);
        let mut register = if first || last {
            let mask = if first { self.first } else { u64::MAX } & if last { self.last } else { u64::MAX };
            // SAFETY: only bytes of the data are read.
            unsafe { _mm512_maskz_loadu_epi8(mask, at.cast()) }
        } else {
            // SAFETY: between the first and the last register is nothing but data.
            unsafe { _mm512_loadu_si512(at.cast()) }
        };
        if first {
            register = _mm512_mask_broadcast_i32x4(register, self.lane, self.lead);
        }
        if last {
            register = _mm512_mask_broadcast_i32x4(register, 0xf000, self.lengths);
        }
        _mm512_shuffle_epi8(register, _mm512_broadcast_i32x4(reversed()))
    }

    /// Takes the registers `at` to `at + N` into the hash `y`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,vpclmulqdq")]
    fn step<const N: usize>(&self, powers: &Powers, y: __m512i, at: usize) -> __m512i {
        let power = |i: usize| _mm512_broadcast_i32x4(powers.fourths[N - 1 - i]);
        let mut sum = Product::lanes_of(_mm512_xor_si512(self.register(at), y), power(0));
        for i in 1..N {
            let product = Product::lanes_of(self.register(at + i), power(i));
            sum.low = _mm512_xor_si512(sum.low, product.low);
            sum.middle = _mm512_xor_si512(sum.middle, product.middle);
            sum.high = _mm512_xor_si512(sum.high, product.high);
        }
        sum.reduce_lanes()
    }
}

impl Product<__m512i> {
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    fn lanes_of(a: __m512i, b: __m512i) -> Self {
        Self {
            low: _mm512_clmulepi64_epi128::<0x00>(a, b),
            middle: _mm512_xor_si512(_mm512_clmulepi64_epi128::<0x01>(a, b), _mm512_clmulepi64_epi128::<0x10>(a, b)),
            high: _mm512_clmulepi64_epi128::<0x11>(a, b),
        }
    }

    /// As [`Product::reduce`], in each lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    fn reduce_lanes(self) -> __m512i {
        let poly = _mm512_broadcast_i32x4(polynomial());
        let low = _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(self.middle));
        let high = _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(self.middle));
        let fold = |low| _mm512_xor_si512(_mm512_shuffle_epi32::<0x4e>(low), _mm512_clmulepi64_epi128::<0>(low, poly));
        _mm512_xor_si512(fold(fold(low)), high)
    }
}

impl Product<__m128i> {
    #[inline]
    #[target_feature(enable = "pclmulqdq,sse2")]
    fn of(a: __m128i, b: __m128i) -> Self {
        Self {
            low: _mm_clmulepi64_si128::<0x00>(a, b),
            middle: _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b)),
            high: _mm_clmulepi64_si128::<0x11>(a, b),
        }
    }

    /// The remainder, divided by x¹²⁸, modulo x¹²⁸ + x¹²⁷ + x¹²⁶ + x¹²¹ + 1.
    #[inline]
    #[target_feature(enable = "pclmulqdq,sse2")]
    fn reduce(self) -> __m128i {
        let poly = polynomial();
        let low = _mm_xor_si128(self.low, _mm_slli_si128::<8>(self.middle));
        let high = _mm_xor_si128(self.high, _mm_srli_si128::<8>(self.middle));
        let fold = |low| _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(low), _mm_clmulepi64_si128::<0>(low, poly));
        _mm_xor_si128(fold(fold(low)), high)
    }
}

/// POLYVAL's product: a · b · x⁻¹²⁸.
#[inline]
#[target_feature(enable = "pclmulqdq,sse2")]
fn multiply(a: __m128i, b: __m128i) -> __m128i {
    Product::of(a, b).reduce()
}

/// The upper terms of the polynomial but the highest: x¹²⁷ + x¹²⁶ + x¹²¹, in the lower half.
#[inline]
fn polynomial() -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_set_epi64x(0, 0xc2u64.rotate_right(8) as i64) }
}

#[inline]
fn reversed() -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f) }
}

#[inline]
#[target_feature(enable = "ssse3")]
fn reverse(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, reversed())
}

/// Multiplied by x, which makes of GHASH's key POLYVAL's (RFC 8452 appendix A).
fn double(h: __m128i) -> __m128i {
    // SAFETY: any 16 bytes are a number.
    let n: u128 = unsafe { core::mem::transmute(h) };
    // No branch: the key is secret.
    let carry = (n >> 127).wrapping_neg();
    let doubled = (n << 1) ^ (carry & ((0xc2 << 120) | 1));
    // SAFETY: 16 bytes are read.
    unsafe { _mm_loadu_si128((&raw const doubled).cast()) }
}

/// The sum of the four lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(x: __m512i) -> __m128i {
    let [a, b] = [_mm512_extracti32x4_epi32::<0>(x), _mm512_extracti32x4_epi32::<1>(x)];
    let [c, d] = [_mm512_extracti32x4_epi32::<2>(x), _mm512_extracti32x4_epi32::<3>(x)];
    _mm_xor_si128(_mm_xor_si128(a, b), _mm_xor_si128(c, d))
}
