//! AES-GCM split into a tag, which also yields the head of the plaintext, and a keystream for any range.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_setzero_si128, _mm_unpackhi_epi64, _mm_xor_si128,
    _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_mask_loadu_epi8,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_maskz_mov_epi8, _mm512_setzero_si512, _mm512_storeu_si512,
    _mm512_xor_si512,
};

use aes::cipher::inout::InOutBuf;

use super::ctr::{Counters, FIRST, apply};
use super::ghash::{Hash, Powers, STEP, finish, hash};
use super::schedule::{Schedule, encrypt, store};
use super::{BLOCK, WIDTH};
use crate::crypto::backend::Front;
use crate::crypto::backend::portable::lengths;
use crate::crypto::layout::{HEAD_AT, HEAD_LEN, HeadRoom, TAG_LEN};
use crate::crypto::nonce::Nonce;

/// AES-GCM with its key.
#[repr(C)]
pub(in crate::crypto) struct Gcm<const KEYS: usize> {
    powers: Powers,
    schedule: Schedule<KEYS>,
}

impl<const KEYS: usize> Gcm<KEYS> {
    /// # Panics
    /// If `key` does not have the length of the cipher's keys.
    pub(in crate::crypto) fn new(key: &[u8]) -> Self {
        let schedule = Schedule::new(key);
        // SAFETY: a schedule exists only if the CPU has the instructions.
        let powers = unsafe { Powers::new(encrypt(&schedule, _mm_setzero_si128())) };
        Self { powers, schedule }
    }

    /// The tag over `aad` and `ciphertext`.
    #[inline]
    pub(in crate::crypto) fn tag(&self, nonce: Nonce, aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        self.tag_and_head(nonce, aad, ciphertext, &mut [0; WIDTH]).0
    }

    /// The tag over `aad` and `ciphertext`, and the head of the plaintext: the mask of the tag is the first of four
    /// keystream blocks that are computed together.
    #[inline]
    pub(in crate::crypto) fn tag_and_head(
        &self,
        nonce: Nonce,
        aad: &[u8],
        ciphertext: &[u8],
        head: &mut HeadRoom,
    ) -> ([u8; TAG_LEN], usize) {
        // SAFETY: a schedule exists only if the CPU has the instructions.
        let tag = unsafe { tag_and_head(self, nonce, aad, ciphertext, head) };
        (store(tag), ciphertext.len().min(HEAD_LEN))
    }

    /// Encrypts or decrypts `data`, at offset `from` of the plaintext.
    #[inline]
    pub(in crate::crypto) fn apply(&self, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
        // SAFETY: a schedule exists only if the CPU has the instructions.
        unsafe { range(&self.schedule, nonce, from, data) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn tag_and_head<const KEYS: usize>(
    gcm: &Gcm<KEYS>,
    nonce: Nonce,
    aad: &[u8],
    ciphertext: &[u8],
    head: &mut HeadRoom,
) -> __m128i {
    let [stream] = Counters::new(nonce, FIRST).keystream::<KEYS, 1>(&gcm.schedule);
    let len = ciphertext.len().min(HEAD_LEN);
    let mask = ((1 << len) - 1) << BLOCK;
    // SAFETY: only the first bytes of the ciphertext are read, not beyond its end.
    let data = unsafe { _mm512_maskz_loadu_epi8(mask, ciphertext.as_ptr().wrapping_sub(BLOCK).cast()) };
    // SAFETY: `head` has the size of a register.
    unsafe {
        _mm512_storeu_si512(head.as_mut_ptr().cast(), _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(data, stream)))
    };
    let lengths = number(lengths(aad.len(), ciphertext.len()));
    _mm_xor_si128(hash(&gcm.powers, aad, ciphertext, lengths), _mm512_castsi512_si128(stream))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
fn range<const KEYS: usize>(schedule: &Schedule<KEYS>, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
    let len = data.len();
    let (src, dst) = data.into_raw();
    // SAFETY: source and destination have the given length, and are identical or disjoint.
    unsafe { apply(schedule, nonce, from, src, dst, len) };
}

/// Encrypts the whole body of a packet and writes the tag. The first `head` bytes, at most 64, are in the body; the
/// others are in `rest`, or in the body as well. The output of the cipher goes directly into the hash. Returns the
/// front of the ciphertext, padded with zeros, as reading it back from the body would stall.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
pub(super) fn seal<const KEYS: usize>(
    gcm: &Gcm<KEYS>,
    nonce: Nonce,
    aad: &[u8],
    body: &mut [u8],
    head: usize,
    rest: Option<&[u8]>,
    tag: &mut [u8; TAG_LEN],
) -> Front {
    assert!(head <= WIDTH.min(body.len()) && rest.is_none_or(|rest| head + rest.len() == body.len()));
    let [mask] = Counters::new(nonce, FIRST).keystream::<KEYS, 1>(&gcm.schedule);
    let lengths = number(lengths(aad.len(), body.len()));
    let len = body.len();
    let dst = body.as_mut_ptr();
    let work = Work {
        schedule: &gcm.schedule,
        src: rest.map_or(dst.cast_const(), |rest| rest.as_ptr().wrapping_sub(head)),
        dst,
        head,
    };
    let mut hash = Hash::new(&gcm.powers, aad);
    let mut counters = Counters::new(nonce, FIRST + 1);
    let mut at = 0;
    let mut first = _mm512_setzero_si512();
    // SAFETY: source and destination are valid for `len` bytes, except for the head, which is in the destination. Each
    // call covers whole registers of them, the last one the rest.
    let hash = unsafe {
        while len - at >= STEP * WIDTH {
            let registers = work.encrypt::<STEP, false>(&mut counters, at, u64::MAX);
            first = if at == 0 { registers[0] } else { first };
            hash.take(registers);
            at += STEP * WIDTH;
        }
        let left = len - at;
        let last = u64::MAX.checked_shr((WIDTH - left % WIDTH) as u32).unwrap_or(0);
        macro_rules! tail {
            ($n:literal) => {{
                let registers = work.encrypt::<{ $n + 1 }, true>(&mut counters, at, last);
                first = if at == 0 { registers[0] } else { first };
                let whole: [_; $n] = *registers.first_chunk().expect("one less");
                hash.take(whole);
                finish(hash, registers[$n], left % WIDTH, lengths)
            }};
        }
        match left / WIDTH {
            0 => {
                let [register] = work.encrypt::<1, true>(&mut counters, at, last);
                first = if at == 0 { register } else { first };
                finish(hash, register, left, lengths)
            }
            1 => tail!(1),
            2 => tail!(2),
            3 => tail!(3),
            4 => tail!(4),
            5 => tail!(5),
            6 => tail!(6),
            _ => tail!(7),
        }
    };
    let (low, next) = (_mm512_castsi512_si128(first), _mm512_extracti32x4_epi32::<1>(first));
    *tag = store(_mm_xor_si128(hash, _mm512_castsi512_si128(mask)));
    Front([low, _mm_unpackhi_epi64(low, low), next].map(|half| _mm_cvtsi128_si64(half) as u64))
}

/// The data to seal.
struct Work<'a, const KEYS: usize> {
    schedule: &'a Schedule<KEYS>,
    /// Plaintext, except for the first `head` bytes.
    src: *const u8,
    /// Ciphertext; before that, the first `head` bytes of the plaintext.
    dst: *mut u8,
    head: usize,
}

impl<const R: usize> Work<'_, R> {
    /// Encrypts `N` registers at offset `at`. With `LAST`, only the bytes in `last` of the last register are encrypted.
    /// Returns the ciphertext, with zeros in place of other bytes.
    ///
    /// # Safety
    /// These bytes must be in the source and in the destination.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,ssse3")]
    unsafe fn encrypt<const N: usize, const LAST: bool>(
        &self,
        counters: &mut Counters,
        at: usize,
        last: u64,
    ) -> [__m512i; N] {
        let mut registers = counters.keystream::<R, N>(self.schedule);
        for (i, register) in registers.iter_mut().enumerate() {
            let offset = at + i * WIDTH;
            let (src, dst) = (self.src.wrapping_add(offset), self.dst.wrapping_add(offset));
            if (i > 0 || at > 0) && (i + 1 < N || !LAST) {
                // SAFETY: it is neither the first nor the last register, so it is whole.
                unsafe {
                    *register = _mm512_xor_si512(*register, _mm512_loadu_si512(src.cast()));
                    _mm512_storeu_si512(dst.cast(), *register);
                }
                continue;
            }
            let mask = if i + 1 < N { u64::MAX } else { last };
            let head = if offset == 0 { u64::MAX.checked_shr((WIDTH - self.head) as u32).unwrap_or(0) } else { 0 };
            // SAFETY: only bytes in the masks are read and written: the head in the destination, the others in both.
            unsafe {
                let data = _mm512_maskz_loadu_epi8(mask & !head, src.cast());
                let data = _mm512_mask_loadu_epi8(data, mask & head, dst.cast_const().cast());
                *register = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(*register, data));
                _mm512_mask_storeu_epi8(dst.cast(), mask, *register);
            }
        }
        registers
    }
}

/// A little-endian number, without a detour through memory.
#[inline]
fn number(n: u128) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_set_epi64x((n >> 64) as i64, n as i64) }
}

// One register holds the mask of the tag, followed by the head of the plaintext.
const _: () = assert!(HEAD_AT == BLOCK && HEAD_AT + HEAD_LEN == WIDTH);
