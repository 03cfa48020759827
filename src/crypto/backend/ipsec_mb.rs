//! AES kernels of intel-ipsec-mb, and single AES blocks by AES-NI.
//!
//! The library has a GHASH that chains, CTR as a cipher job, and AES-GCM that is fed in pieces. A job costs
//! about 20 ns however short it is, so a few blocks (the mask of a tag, the edge of a range, a frame header)
//! are encrypted here instead.
//!
//! All unsafe code of the layer is in this file. The library's direct functions read their arguments and the CPU
//! features only, so that all threads share them; jobs go through a manager of the thread's own.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_storeu_si128, _mm_xor_si128,
};
use core::mem::{MaybeUninit, zeroed};
use core::ptr::{self, NonNull};
use std::sync::OnceLock;

use aes::cipher::inout::InOutBuf;
use ipsec_mb_sys as sys;
use zeroize::zeroize_flat_type;

use super::portable::lengths;
use crate::crypto::nonce::Nonce;
use crate::crypto::packet::TAG_LEN;

/// Rounds of AES-128, which tell the key length in type parameters.
pub(crate) const AES128: usize = 10;
/// Rounds of AES-256.
pub(crate) const AES256: usize = 14;

const BLOCK: usize = 16;
/// Ranges of up to so many blocks are cheaper with AES-NI than as a job.
const FEW: usize = 8;

type Init = unsafe extern "C" fn(*const sys::gcm_key_data, *mut sys::gcm_context_data, *const u8, u64, *const u8, u64);
type Update = unsafe extern "C" fn(*const sys::gcm_key_data, *mut sys::gcm_context_data, *mut u8, *const u8, u64);
type Finalize = unsafe extern "C" fn(*const sys::gcm_key_data, *mut sys::gcm_context_data, *mut u8, u64);
type Pre = unsafe extern "C" fn(*const core::ffi::c_void, *mut sys::gcm_key_data);
type KeyExp = unsafe extern "C" fn(*const core::ffi::c_void, *mut core::ffi::c_void, *mut core::ffi::c_void);
type Ghash = unsafe extern "C" fn(*const sys::gcm_key_data, *const core::ffi::c_void, u64, *mut core::ffi::c_void, u64);

/// The direct functions for one key length.
struct Kernels {
    expand: KeyExp,
    prepare: Pre,
    init: Init,
    update: Update,
    finalize: Finalize,
}

/// What we use of the library, as it suits this CPU.
struct Library {
    name: &'static str,
    ghash: Ghash,
    aes128: Kernels,
    aes256: Kernels,
}

impl Library {
    /// The library, if this CPU is one for it.
    fn get() -> Option<&'static Self> {
        static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
        LIBRARY.get_or_init(Self::load).as_ref()
    }

    fn load() -> Option<Self> {
        if !(is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("sse4.2"))
        {
            return None;
        }
        let manager = Manager::new()?;
        // SAFETY: the manager lives until the end of this function and is initialised. What is read from it
        // are numbers and function pointers, which outlive it.
        let m = unsafe { manager.0.as_ref() };
        Some(Self {
            name: match m.used_arch {
                sys::IMB_ARCH_IMB_ARCH_SSE => "ipsec-mb/sse",
                sys::IMB_ARCH_IMB_ARCH_AVX => "ipsec-mb/avx",
                sys::IMB_ARCH_IMB_ARCH_AVX2 => "ipsec-mb/avx2",
                sys::IMB_ARCH_IMB_ARCH_AVX512 => "ipsec-mb/avx512",
                _ => return None,
            },
            ghash: m.ghash?,
            aes128: Kernels {
                expand: m.keyexp_128?,
                prepare: m.gcm128_pre?,
                init: m.gcm128_init_var_iv?,
                update: m.gcm128_enc_update?,
                finalize: m.gcm128_enc_finalize?,
            },
            aes256: Kernels {
                expand: m.keyexp_256?,
                prepare: m.gcm256_pre?,
                init: m.gcm256_init_var_iv?,
                update: m.gcm256_enc_update?,
                finalize: m.gcm256_enc_finalize?,
            },
        })
    }

    /// # Panics
    /// If the machine is none for the library.
    fn expect() -> &'static Self {
        Self::get().expect("chosen only where it runs")
    }

    fn kernels<const ROUNDS: usize>(&self) -> &Kernels {
        const { assert!(ROUNDS == AES128 || ROUNDS == AES256) };
        if ROUNDS == AES128 { &self.aes128 } else { &self.aes256 }
    }
}

/// What the library's kernels are, if they run on this machine.
pub(super) fn name() -> Option<&'static str> {
    Library::get().map(|library| library.name)
}

/// A manager: the library's state for jobs, for one thread at a time.
struct Manager(NonNull<sys::IMB_MGR>);

impl Manager {
    fn new() -> Option<Self> {
        // SAFETY: takes no pointers; what it returns is checked.
        let manager = Self(NonNull::new(unsafe { sys::alloc_mb_mgr(0) })?);
        // SAFETY: the manager was just allocated; the architecture that was picked may go to nowhere.
        unsafe { sys::init_mb_mgr_auto(manager.0.as_ptr(), ptr::null_mut()) };
        // SAFETY: it is allocated and nobody else has it.
        unsafe { manager.0.as_ref() }.submit_cipher_burst_nocheck.is_some().then_some(manager)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // SAFETY: allocated by the library, and freed only here.
        unsafe { sys::free_mb_mgr(self.0.as_ptr()) };
    }
}

thread_local! {
    static MANAGER: Manager = Manager::new().expect("memory for a manager of intel-ipsec-mb");
}

/// The round keys of AES.
#[repr(C, align(16))]
pub(crate) struct Aes<const ROUNDS: usize>([u8; 240]);

impl<const ROUNDS: usize> Aes<ROUNDS> {
    /// # Panics
    /// If `key` does not have the length that the cipher wants.
    pub(crate) fn new(key: &[u8]) -> Self {
        check_len::<ROUNDS>(key);
        let kernels = Library::expect().kernels::<ROUNDS>();
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

    /// The masks for a burst of samples, as many as `out` has.
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

    /// Encrypts blocks, all of them in flight at once.
    fn encrypt<const N: usize>(&self, blocks: [[u8; BLOCK]; N]) -> [[u8; BLOCK]; N] {
        // SAFETY: keys exist only where the library was found to run, which needs AES-NI.
        unsafe { encrypt::<ROUNDS, N>(&self.0, blocks.map(|block| load(&block))) }
    }
}

impl<const ROUNDS: usize> Drop for Aes<ROUNDS> {
    fn drop(&mut self) {
        // SAFETY: plain bytes, and nobody sees them afterwards.
        unsafe { zeroize_flat_type(self) };
    }
}

/// AES-GCM with its key: round keys, and powers of the hash key.
#[repr(C)]
pub(crate) struct Gcm<const ROUNDS: usize> {
    key: sys::gcm_key_data,
    library: &'static Library,
}

impl<const ROUNDS: usize> Gcm<ROUNDS> {
    /// In a box from the start, as the key is long and shall not leave copies behind.
    ///
    /// # Panics
    /// If `key` does not have the length that the cipher wants.
    pub(crate) fn new(key: &[u8]) -> Box<Self> {
        check_len::<ROUNDS>(key);
        let library = Library::expect();
        // SAFETY: byte arrays all through: zeros are valid.
        let mut gcm = Box::new(Self { key: unsafe { zeroed() }, library });
        // SAFETY: the key has the length that the function reads, and what it writes is of the type it wants.
        unsafe { (library.kernels::<ROUNDS>().prepare)(key.as_ptr().cast(), &raw mut gcm.key) };
        gcm
    }

    /// The tag over `aad` and `ciphertext`.
    #[inline]
    pub(crate) fn tag(&self, nonce: Nonce, aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        let mut hash = [0; TAG_LEN];
        self.hash(&mut hash, aad);
        self.hash(&mut hash, ciphertext);
        self.hash(&mut hash, &store(block(lengths(aad.len(), ciphertext.len()))));
        let [mask] = self.keystream(nonce, 1);
        (u128::from_ne_bytes(hash) ^ u128::from_ne_bytes(mask)).to_ne_bytes()
    }

    /// Takes `data`, padded with zeros to whole blocks, into the running hash.
    #[inline]
    fn hash(&self, hash: &mut [u8; TAG_LEN], data: &[u8]) {
        if !data.is_empty() {
            // SAFETY: reads `data` up to its end, reads and writes the 16 bytes of `hash`; the key was prepared.
            unsafe {
                (self.library.ghash)(
                    &raw const self.key,
                    data.as_ptr().cast(),
                    data.len() as u64,
                    hash.as_mut_ptr().cast(),
                    TAG_LEN as u64,
                );
            }
        }
    }

    /// Encrypts or decrypts `data`, which lies at offset `from` of the plaintext.
    #[inline]
    pub(crate) fn apply(&self, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
        // A packet has less than 2^16 bytes: the counter does not wrap. Block 1 is for the tag.
        let (counter, skip) = ((from / BLOCK) as u32 + 2, from % BLOCK);
        match (skip + data.len()).div_ceil(BLOCK) {
            0..=1 => self.few::<1>(nonce, counter, skip, data),
            2..=4 => self.few::<4>(nonce, counter, skip, data),
            5..=FEW => self.few::<FEW>(nonce, counter, skip, data),
            _ if skip == 0 => self.job(nonce, counter, data),
            _ => {
                let (edge, bulk) = data.split_at(BLOCK - skip);
                self.few::<1>(nonce, counter, skip, edge);
                self.job(nonce, counter + 1, bulk);
            }
        }
    }

    /// A range within `N` blocks of keystream, from byte `skip` of the first one on.
    #[inline]
    fn few<const N: usize>(&self, nonce: Nonce, counter: u32, skip: usize, mut data: InOutBuf<'_, '_, u8>) {
        let stream = self.keystream::<N>(nonce, counter);
        let n = data.len();
        data.xor_in2out(&stream.as_flattened()[skip..skip + n]);
    }

    /// The `N` blocks of keystream from `counter` on.
    #[inline]
    fn keystream<const N: usize>(&self, nonce: Nonce, counter: u32) -> [[u8; BLOCK]; N] {
        let blocks = core::array::from_fn(|i| block(nonce.block(counter.wrapping_add(i as u32))));
        // SAFETY: keys exist only where the library was found to run, which needs AES-NI.
        unsafe { encrypt::<ROUNDS, N>(&self.key.expanded_keys, blocks) }
    }

    /// A long range that begins with a block.
    fn job(&self, nonce: Nonce, counter: u32, data: InOutBuf<'_, '_, u8>) {
        let iv = store(block(nonce.block(counter)));
        let len = data.len() as u64;
        let (src, dst) = data.into_raw();
        // SAFETY: integers, pointers and optional function pointers only: zeros are valid.
        let mut job: sys::IMB_JOB = unsafe { zeroed() };
        job.enc_keys = self.key.expanded_keys.as_ptr().cast();
        job.key_len_in_bytes = key_len::<ROUNDS>() as u64;
        job.__bindgen_anon_1.src = src;
        job.__bindgen_anon_2.dst = dst;
        job.__bindgen_anon_4.msg_len_to_cipher_in_bytes = len;
        job.iv = iv.as_ptr();
        job.iv_len_in_bytes = iv.len() as u64;
        let size = if ROUNDS == AES128 {
            sys::IMB_KEY_SIZE_BYTES_IMB_KEY_128_BYTES
        } else {
            sys::IMB_KEY_SIZE_BYTES_IMB_KEY_256_BYTES
        };
        let done = MANAGER.with(|manager| {
            let manager = manager.0.as_ptr();
            // SAFETY: the manager is this thread's and initialised. The job is a complete one of the given kind:
            // source and destination have its length and are one and the same or apart, and all that it points to
            // outlives the call, as jobs of this kind are done when it returns.
            unsafe {
                let submit = (*manager).submit_cipher_burst_nocheck.expect("checked when the manager was made");
                submit(
                    manager,
                    &raw mut job,
                    1,
                    sys::IMB_CIPHER_MODE_IMB_CIPHER_CNTR,
                    sys::IMB_CIPHER_DIRECTION_IMB_DIR_ENCRYPT,
                    size,
                )
            }
        });
        assert_eq!(done, 1, "CTR jobs are done at once");
    }

    /// Begins to encrypt a packet piece by piece. Cipher and hash run in one pass, which [`Self::apply`] and
    /// [`Self::tag`] would need two for.
    #[inline]
    pub(crate) fn stream(&self, nonce: Nonce, aad: &[u8]) -> Stream<'_, ROUNDS> {
        let nonce = nonce.bytes();
        let mut context = MaybeUninit::zeroed();
        // SAFETY: reads nonce and header up to their ends, and writes a context, for which zeros are valid too.
        let context = unsafe {
            (self.library.kernels::<ROUNDS>().init)(
                &raw const self.key,
                context.as_mut_ptr(),
                nonce.as_ptr(),
                nonce.len() as u64,
                aad.as_ptr(),
                aad.len() as u64,
            );
            context.assume_init()
        };
        Stream { gcm: self, context }
    }
}

impl<const ROUNDS: usize> Drop for Gcm<ROUNDS> {
    fn drop(&mut self) {
        // SAFETY: plain bytes, and nobody sees them afterwards.
        unsafe { zeroize_flat_type(&raw mut self.key) };
    }
}

/// AES-GCM in the midst of a packet.
pub(crate) struct Stream<'a, const ROUNDS: usize> {
    gcm: &'a Gcm<ROUNDS>,
    context: sys::gcm_context_data,
}

impl<const ROUNDS: usize> Stream<'_, ROUNDS> {
    /// Encrypts the next piece.
    #[inline]
    pub(crate) fn encrypt(&mut self, data: InOutBuf<'_, '_, u8>) {
        if data.is_empty() {
            return;
        }
        let len = data.len() as u64;
        let (src, dst) = data.into_raw();
        let update = self.gcm.library.kernels::<ROUNDS>().update;
        // SAFETY: source and destination have the given length and are one and the same or apart; key and context
        // were prepared.
        unsafe { update(&raw const self.gcm.key, &raw mut self.context, dst, src, len) };
    }

    /// The tag.
    #[inline]
    pub(crate) fn finish(mut self) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        let finalize = self.gcm.library.kernels::<ROUNDS>().finalize;
        // SAFETY: writes the 16 bytes of `tag`; key and context were prepared.
        unsafe { finalize(&raw const self.gcm.key, &raw mut self.context, tag.as_mut_ptr(), TAG_LEN as u64) };
        tag
    }
}

const fn key_len<const ROUNDS: usize>() -> usize {
    if ROUNDS == AES128 { 16 } else { 32 }
}

fn check_len<const ROUNDS: usize>(key: &[u8]) {
    assert_eq!(key.len(), key_len::<ROUNDS>(), "key length fits the cipher");
}

#[inline]
fn load(bytes: &[u8; BLOCK]) -> __m128i {
    // SAFETY: SSE2 is part of x86-64; 16 bytes are read at any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// In one piece, so that it can be loaded again in one piece without a stall.
#[inline]
fn store(block: __m128i) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    // SAFETY: SSE2 is part of x86-64; writes the 16 bytes of `out`, at any alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), block) };
    out
}

/// A number whose lowest byte comes first.
#[inline]
fn block(n: u128) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_set_epi64x((n >> 64) as i64, n as i64) }
}

#[inline]
#[target_feature(enable = "aes")]
fn encrypt<const ROUNDS: usize, const N: usize>(schedule: &[u8; 240], mut blocks: [__m128i; N]) -> [[u8; BLOCK]; N] {
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
