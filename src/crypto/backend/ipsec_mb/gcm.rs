//! AES-GCM: hash, keystream, and both in one pass.

use core::mem::{MaybeUninit, zeroed};

use aes::cipher::inout::InOutBuf;
use ipsec_mb_sys as sys;
use zeroize::zeroize_flat_type;

use super::aesni::{block, encrypt, store};
use super::library::{Arch, Library, with_manager};
use super::{AES128, BLOCK, FEW, check_len, key_len};
use crate::crypto::backend::portable::lengths;
use crate::crypto::layout::TAG_LEN;
use crate::crypto::nonce::Nonce;

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
    /// If `key` does not have the length that the cipher wants, or the machine not what `arch` needs.
    pub(crate) fn new(arch: Arch, key: &[u8]) -> Box<Self> {
        check_len::<ROUNDS>(key);
        let library = Library::expect(arch);
        // Made now, as a manager takes up to milliseconds: too long for the first packet to wait.
        with_manager(arch, |_| ());
        // SAFETY: byte arrays all through: zeros are valid.
        let mut gcm = Box::new(Self { key: unsafe { zeroed() }, library });
        // SAFETY: the key has the length that the function reads, and what it writes is of the type it wants.
        unsafe { (library.kernels::<ROUNDS>().prepare)(key.as_ptr().cast(), &raw mut gcm.key) };
        gcm
    }

    #[cfg(test)]
    pub(crate) fn key(&self) -> &sys::gcm_key_data {
        &self.key
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
        let done = with_manager(self.library.arch, |manager| {
            let manager = manager.as_ptr();
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

    /// Begins to encrypt a packet.
    #[inline]
    pub(crate) fn stream(&self, nonce: Nonce) -> Stream<'_, ROUNDS> {
        Stream { gcm: self, nonce, phase: Phase::Idle, context: MaybeUninit::uninit(), tag: [0; TAG_LEN] }
    }
}

impl<const ROUNDS: usize> Drop for Gcm<ROUNDS> {
    fn drop(&mut self) {
        // SAFETY: plain bytes, and nobody sees them afterwards.
        unsafe { zeroize_flat_type(&raw mut self.key) };
    }
}

/// The encryption of one packet. Cipher and hash run in one pass, which [`Gcm::apply`] and [`Gcm::tag`] would
/// need two for. Used where it lies: what the library has just written is slow to move.
pub(crate) struct Stream<'a, const ROUNDS: usize> {
    gcm: &'a Gcm<ROUNDS>,
    nonce: Nonce,
    phase: Phase,
    /// Prepared in phase `Midst` only.
    context: MaybeUninit<sys::gcm_context_data>,
    /// Made in phase `Done`.
    tag: [u8; TAG_LEN],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Midst,
    Done,
}

impl<const ROUNDS: usize> Stream<'_, ROUNDS> {
    /// Encrypts the next piece of a packet with header `aad`. `whole`: there is but one.
    #[inline]
    pub(crate) fn encrypt(&mut self, aad: &[u8], whole: bool, data: InOutBuf<'_, '_, u8>) {
        if data.is_empty() {
            return;
        }
        if whole {
            self.whole(aad, data);
            return;
        }
        self.prepare(aad);
        let len = data.len() as u64;
        let (src, dst) = data.into_raw();
        let update = self.gcm.library.kernels::<ROUNDS>().update;
        // SAFETY: source and destination have the given length and are one and the same or apart; key and context
        // were prepared.
        unsafe { update(&raw const self.gcm.key, self.context.as_mut_ptr(), dst, src, len) };
    }

    /// Encrypts all of the packet in one call, which is cheaper.
    #[inline]
    fn whole(&mut self, aad: &[u8], data: InOutBuf<'_, '_, u8>) {
        let nonce = self.nonce.bytes();
        let len = data.len() as u64;
        let (src, dst) = data.into_raw();
        self.phase = Phase::Done;
        // SAFETY: reads nonce and header up to their ends; source and destination have the given length and are one
        // and the same or apart; writes the 16 bytes of the tag. The key was prepared, the context is only written.
        unsafe {
            (self.gcm.library.kernels::<ROUNDS>().whole)(
                &raw const self.gcm.key,
                self.context.as_mut_ptr(),
                dst,
                src,
                len,
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len() as u64,
                self.tag.as_mut_ptr(),
                TAG_LEN as u64,
            );
        }
    }

    /// The tag. `aad` is the header.
    #[inline]
    pub(crate) fn finish(&mut self, aad: &[u8]) -> [u8; TAG_LEN] {
        if self.phase != Phase::Done {
            self.prepare(aad);
            self.phase = Phase::Done;
            let finalize = self.gcm.library.kernels::<ROUNDS>().finalize;
            let (context, tag) = (self.context.as_mut_ptr(), self.tag.as_mut_ptr());
            // SAFETY: writes the 16 bytes of the tag; key and context were prepared.
            unsafe { finalize(&raw const self.gcm.key, context, tag, TAG_LEN as u64) };
        }
        self.tag
    }

    /// Prepares the context for a packet with header `aad`, when it is first needed.
    #[inline]
    fn prepare(&mut self, aad: &[u8]) {
        if self.phase == Phase::Midst {
            return;
        }
        self.phase = Phase::Midst;
        let nonce = self.nonce.bytes();
        // SAFETY: reads nonce and header up to their ends, and writes the context; the key was prepared.
        unsafe {
            (self.gcm.library.kernels::<ROUNDS>().init)(
                &raw const self.gcm.key,
                self.context.as_mut_ptr(),
                nonce.as_ptr(),
                nonce.len() as u64,
                aad.as_ptr(),
                aad.len() as u64,
            );
        }
    }
}
