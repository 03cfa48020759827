//! GHASH (NIST SP 800-38D §6.4), computed as POLYVAL of reversed blocks (RFC 8452 appendix A).
//!
//! The blocks of a message are distributed over the four lanes of registers. Up to eight registers are multiplied by
//! their powers of the hash key, added up, and reduced once. The last register, which may be partial, and the one
//! before it are multiplied at the end, when the power for each lane is known from its distance to the end of the
//! message.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm_set_epi64x,
    _mm_setzero_si128, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_slli_si128, _mm_srli_si128, _mm_xor_si128,
    _mm512_broadcast_i32x4, _mm512_bslli_epi128, _mm512_bsrli_epi128, _mm512_clmulepi64_epi128,
    _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_mask_broadcast_i32x4, _mm512_maskz_loadu_epi8,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_epi32, _mm512_xor_si512,
};

use zeroize::zeroize_flat_type;

use super::schedule::load;
use super::{BLOCK, WIDTH};
use crate::mem::prefetch_read;

/// Maximum number of registers added up before reduction.
pub(super) const STEP: usize = 8;

/// The message is prefetched this many steps of 512 bytes ahead. Its first 2 KiB were prefetched when the frame
/// arrived.
const AHEAD: usize = 4;

/// Lanes of a register.
const LANES: usize = 4;

/// Powers of the hash key H.
#[repr(C)]
pub(super) struct Powers {
    /// H⁸, H⁷ and so on to H, then zeros, for the last two registers.
    last: [__m128i; 2 * LANES + 3],
    /// H⁴, H⁸ and so on to H³², for the registers before them.
    fourths: [__m128i; STEP],
    /// The sum of the halves of each.
    halves: [i64; STEP],
}

impl Powers {
    /// `h` is the encrypted zero block.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    pub(super) fn new(h: __m128i) -> Self {
        let h = double(reverse(h));
        let mut power = h;
        let mut last = [_mm_setzero_si128(); 2 * LANES + 3];
        for slot in last[..2 * LANES].iter_mut().rev() {
            *slot = power;
            power = multiply(power, h);
        }
        let mut fourths = [last[LANES]; STEP];
        for i in 1..STEP {
            fourths[i] = multiply(fourths[i - 1], fourths[0]);
        }
        Self { last, fourths, halves: fourths.map(|power| _mm_cvtsi128_si64(halves(power))) }
    }
}

impl Drop for Powers {
    fn drop(&mut self) {
        // SAFETY: plain bytes, which are not read afterwards.
        unsafe { zeroize_flat_type(&raw mut self.last) };
        // SAFETY: as above.
        unsafe { zeroize_flat_type(&raw mut self.fourths) };
        // SAFETY: as above.
        unsafe { zeroize_flat_type(&raw mut self.halves) };
    }
}

/// A running hash.
pub(super) struct Hash<'a> {
    powers: &'a Powers,
    /// The hash of all registers but the pending one.
    y: __m512i,
    /// The latest register.
    pending: __m512i,
}

impl<'a> Hash<'a> {
    /// Starts with the associated data.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    pub(super) fn new(powers: &'a Powers, aad: &[u8]) -> Self {
        // The last block of it, combined with the hash of those before it, directly precedes the data.
        let pending = _mm512_mask_broadcast_i32x4(_mm512_setzero_si512(), 0xf000, lead(powers, aad));
        Self { powers, y: _mm512_setzero_si512(), pending }
    }

    /// Hashes the next registers of the message.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    pub(super) fn take<const N: usize>(&mut self, registers: [__m512i; N]) {
        let key = |i: usize| {
            let i = N - 1 - i;
            [_mm512_broadcast_i32x4(self.powers.fourths[i]), _mm512_set1_epi64(self.powers.halves[i])]
        };
        let mut sum = Product::zero();
        for (i, register) in registers[..N - 1].iter().enumerate() {
            sum = sum.add(Product::lanes_of(reverse_lanes(*register), key(i + 1)));
        }
        // The operation that depends on `y` comes last.
        let before = _mm512_xor_si512(self.pending, self.y);
        self.y = sum.add(Product::lanes_of(before, key(0))).reduce_lanes();
        self.pending = reverse_lanes(registers[N - 1]);
    }

    /// The final hash. `last` contains the remaining `blocks` blocks of data, less than four.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    pub(super) fn finish(self, last: __m512i, blocks: usize, lengths: __m128i) -> __m128i {
        let last = reverse_lanes(_mm512_mask_broadcast_i32x4(last, 0x000f << (LANES * blocks), lengths));
        let before = _mm512_xor_si512(self.pending, self.y);
        let powers = self.powers.last.as_ptr();
        // SAFETY: 64 bytes each, at any alignment: from H, H² up to H⁴ and what follows them, and from four further.
        let (key, key_before) = unsafe {
            let key = powers.add(2 * LANES - 1 - blocks);
            (_mm512_loadu_si512(key.cast()), _mm512_loadu_si512(key.sub(LANES).cast()))
        };
        let product = Product::lanes_of(last, [key, halves_of_lanes(key)]);
        let sum = product.add(Product::lanes_of(before, [key_before, halves_of_lanes(key_before)]));
        let sum = Product { low: lanes(sum.low), middle: lanes(sum.middle), high: lanes(sum.high) };
        reverse(sum.reduce())
    }
}

/// The hash over `aad`, `data` and their `lengths`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
pub(super) fn hash(powers: &Powers, aad: &[u8], data: &[u8], lengths: __m128i) -> __m128i {
    let mut hash = Hash::new(powers, aad);
    let (registers, rest) = data.as_chunks::<WIDTH>();
    let (steps, odd) = registers.as_chunks::<STEP>();
    for (i, step) in steps.iter().enumerate() {
        // A short packet is already prefetched.
        if let Some(later) = steps.get(i + AHEAD) {
            prefetch_read(later.as_flattened());
        }
        hash.take(step.each_ref().map(|bytes| load_register(bytes)));
    }
    macro_rules! take {
        ($n:literal) => {
            hash.take::<$n>(core::array::from_fn(|i| load_register(&odd[i])))
        };
    }
    match odd.len() {
        0 => {}
        1 => take!(1),
        2 => take!(2),
        3 => take!(3),
        4 => take!(4),
        5 => take!(5),
        6 => take!(6),
        _ => take!(7),
    }
    let mask = (1 << rest.len()) - 1;
    // SAFETY: only the remaining bytes are read.
    let last = unsafe { _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast()) };
    finish(hash, last, rest.len(), lengths)
}

/// The end of a hash. `last` contains the remaining `len` bytes of data, less than 64, and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
pub(super) fn finish(mut hash: Hash<'_>, last: __m512i, len: usize, lengths: __m128i) -> __m128i {
    let blocks = len.div_ceil(BLOCK);
    if blocks == LANES {
        hash.take([last]);
        return hash.finish(_mm512_setzero_si512(), 0, lengths);
    }
    hash.finish(last, blocks, lengths)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn load_register(bytes: &[u8; WIDTH]) -> __m512i {
    // SAFETY: 64 bytes are read, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The last block of the associated data, combined with the hash of those before it, reversed. A zero block if there is
/// none.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn lead(powers: &Powers, aad: &[u8]) -> __m128i {
    let mut y = _mm_setzero_si128();
    let mut rest = aad;
    // For long headers only.
    while let Some((block, more)) = rest.split_first_chunk::<BLOCK>().filter(|(_, more)| !more.is_empty()) {
        y = multiply(_mm_xor_si128(y, reverse(load(block))), powers.last[2 * LANES - 1]);
        rest = more;
    }
    // SAFETY: only bytes of the header are read.
    let block = unsafe { _mm_maskz_loadu_epi8((1u32 << rest.len()).wrapping_sub(1) as u16, rest.as_ptr().cast()) };
    _mm_xor_si128(reverse(block), y)
}

/// An unreduced product, or a sum of products, by Karatsuba multiplication: `middle` includes `low` and `high`.
#[derive(Clone, Copy)]
struct Product<T> {
    low: T,
    middle: T,
    high: T,
}

impl Product<__m512i> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self { low: zero, middle: zero, high: zero }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn add(self, other: Self) -> Self {
        Self {
            low: _mm512_xor_si512(self.low, other.low),
            middle: _mm512_xor_si512(self.middle, other.middle),
            high: _mm512_xor_si512(self.high, other.high),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn lanes_of(a: __m512i, [b, halves]: [__m512i; 2]) -> Self {
        Self {
            low: _mm512_clmulepi64_epi128::<0x00>(a, b),
            middle: _mm512_clmulepi64_epi128::<0x00>(halves_of_lanes(a), halves),
            high: _mm512_clmulepi64_epi128::<0x11>(a, b),
        }
    }

    /// [`Product::reduce`] in each lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn reduce_lanes(self) -> __m512i {
        let poly = _mm512_broadcast_i32x4(polynomial());
        let middle = _mm512_xor_si512(self.middle, _mm512_xor_si512(self.low, self.high));
        let low = _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(middle));
        let high = _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(middle));
        let fold = |low| _mm512_xor_si512(_mm512_shuffle_epi32::<0x4e>(low), _mm512_clmulepi64_epi128::<0>(low, poly));
        _mm512_xor_si512(fold(fold(low)), high)
    }
}

impl Product<__m128i> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn of(a: __m128i, b: __m128i) -> Self {
        Self {
            low: _mm_clmulepi64_si128::<0x00>(a, b),
            middle: _mm_clmulepi64_si128::<0x00>(halves(a), halves(b)),
            high: _mm_clmulepi64_si128::<0x11>(a, b),
        }
    }

    /// The product divided by x¹²⁸, modulo x¹²⁸ + x¹²⁷ + x¹²⁶ + x¹²¹ + 1.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    fn reduce(self) -> __m128i {
        let poly = polynomial();
        let middle = _mm_xor_si128(self.middle, _mm_xor_si128(self.low, self.high));
        let low = _mm_xor_si128(self.low, _mm_slli_si128::<8>(middle));
        let high = _mm_xor_si128(self.high, _mm_srli_si128::<8>(middle));
        let fold = |low| _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(low), _mm_clmulepi64_si128::<0>(low, poly));
        _mm_xor_si128(fold(fold(low)), high)
    }
}

/// POLYVAL's product: a · b · x⁻¹²⁸.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn multiply(a: __m128i, b: __m128i) -> __m128i {
    Product::of(a, b).reduce()
}

/// The sum (XOR) of both halves, in the lower one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn halves(x: __m128i) -> __m128i {
    _mm_xor_si128(x, _mm_shuffle_epi32::<0x4e>(x))
}

/// The sum of both halves in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn halves_of_lanes(x: __m512i) -> __m512i {
    _mm512_xor_si512(x, _mm512_shuffle_epi32::<0x4e>(x))
}

/// The upper terms of the polynomial except the highest: x¹²⁷ + x¹²⁶ + x¹²¹, in the lower half.
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn reverse(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, reversed())
}

/// Reverses each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn reverse_lanes(register: __m512i) -> __m512i {
    _mm512_shuffle_epi8(register, _mm512_broadcast_i32x4(reversed()))
}

/// Multiplies by x, which converts the key of GHASH to that of POLYVAL (RFC 8452 appendix A).
fn double(h: __m128i) -> __m128i {
    // SAFETY: any 16 bytes are a valid number.
    let n: u128 = unsafe { core::mem::transmute(h) };
    // No branch, as the key is secret.
    let carry = (n >> 127).wrapping_neg();
    let doubled = (n << 1) ^ (carry & ((0xc2 << 120) | 1));
    // SAFETY: 16 bytes are read.
    unsafe { _mm_loadu_si128((&raw const doubled).cast()) }
}

/// The sum of the four lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn lanes(x: __m512i) -> __m128i {
    let [a, b] = [_mm512_extracti32x4_epi32::<0>(x), _mm512_extracti32x4_epi32::<1>(x)];
    let [c, d] = [_mm512_extracti32x4_epi32::<2>(x), _mm512_extracti32x4_epi32::<3>(x)];
    _mm_xor_si128(_mm_xor_si128(a, b), _mm_xor_si128(c, d))
}
