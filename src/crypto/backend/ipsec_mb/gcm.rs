//! AES-GCM: hash and keystream, separately or in one pass.

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

/// AES-GCM with its key: round keys and powers of the hash key.
#[repr(C)]
pub(crate) struct Gcm<const ROUNDS: usize> {
    key: sys::gcm_key_data,
    library: &'static Library,
}

impl<const ROUNDS: usize> Gcm<ROUNDS> {
    /// Boxed from the start, as the key is large and must not leave copies.
    ///
    /// # Panics
    /// If `key` does not have the length of the cipher's keys, or the machine lacks the features of `arch`.
    pub(crate) fn new(arch: Arch, key: &[u8]) -> Box<Self> {
        check_len::<ROUNDS>(key);
        let library = Library::expect(arch);
        // Created now, as this takes up to milliseconds, for which the first packet should not wait.
        with_manager(arch, |_| ());
        // SAFETY: it consists of byte arrays, for which zeros are valid.
        let mut gcm = Box::new(Self { key: unsafe { zeroed() }, library });
        // SAFETY: the key has the length that the function reads, and the output has the expected type.
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

    /// Hashes `data`, padded with zeros to whole blocks.
    #[inline]
    fn hash(&self, hash: &mut [u8; TAG_LEN], data: &[u8]) {
        if !data.is_empty() {
            // SAFETY: reads all of `data`, reads and writes the 16 bytes of `hash`; the key was prepared.
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

    /// Encrypts or decrypts `data`, at offset `from` of the plaintext.
    #[inline]
    pub(crate) fn apply(&self, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
        // A packet has less than 2^16 bytes, so the counter cannot wrap. Block 1 is for the tag.
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

    /// Processes a range within `N` blocks of keystream, from byte `skip` of the first one on.
    #[inline]
    fn few<const N: usize>(&self, nonce: Nonce, counter: u32, skip: usize, mut data: InOutBuf<'_, '_, u8>) {
        let stream = self.keystream::<N>(nonce, counter);
        let n = data.len();
        data.xor_in2out(&stream.as_flattened()[skip..skip + n]);
    }

    /// `N` blocks of keystream from `counter` on.
    #[inline]
    fn keystream<const N: usize>(&self, nonce: Nonce, counter: u32) -> [[u8; BLOCK]; N] {
        let blocks = core::array::from_fn(|i| block(nonce.block(counter.wrapping_add(i as u32))));
        // SAFETY: keys exist only where the library runs, which requires AES-NI.
        unsafe { encrypt::<ROUNDS, N>(&self.key.expanded_keys, blocks) }
    }

    /// Processes a long range that begins at a block.
    fn job(&self, nonce: Nonce, counter: u32, data: InOutBuf<'_, '_, u8>) {
        let iv = store(block(nonce.block(counter)));
        let len = data.len() as u64;
        let (src, dst) = data.into_raw();
        // SAFETY: it consists of integers, pointers and optional function pointers, for which zeros are valid.
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
            // SAFETY: the manager belongs to this thread and is initialised. The job is complete for its kind: source
            // and destination have its length and are identical or disjoint, and everything it points to outlives the
            // call, as jobs of this kind are done when it returns.
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
        assert_eq!(done, 1, "CTR jobs complete immediately");
    }

    /// Starts the encryption of a packet.
    #[inline]
    pub(crate) fn stream(&self, nonce: Nonce) -> Stream<'_, ROUNDS> {
        Stream { gcm: self, nonce, phase: Phase::Idle, context: MaybeUninit::uninit(), tag: [0; TAG_LEN] }
    }
}

impl<const ROUNDS: usize> Drop for Gcm<ROUNDS> {
    fn drop(&mut self) {
        // SAFETY: plain bytes, which are not read afterwards.
        unsafe { zeroize_flat_type(&raw mut self.key) };
    }
}

/// The encryption of a packet. Cipher and hash run in one pass, instead of the two passes of [`Gcm::apply`] and
/// [`Gcm::tag`]. It is used in place, as moving data that the library has just written is slow.
pub(crate) struct Stream<'a, const ROUNDS: usize> {
    gcm: &'a Gcm<ROUNDS>,
    nonce: Nonce,
    phase: Phase,
    /// Initialised in phase `Midst` only.
    context: MaybeUninit<sys::gcm_context_data>,
    /// Valid in phase `Done`.
    tag: [u8; TAG_LEN],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Midst,
    Done,
}

impl<const ROUNDS: usize> Stream<'_, ROUNDS> {
    /// Encrypts the next piece of a packet with header `aad`. `whole` means that it is the only one.
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
        // SAFETY: source and destination have the given length and are identical or disjoint; key and context were
        // prepared.
        unsafe { update(&raw const self.gcm.key, self.context.as_mut_ptr(), dst, src, len) };
    }

    /// Encrypts the whole packet in one call, which is cheaper.
    #[inline]
    fn whole(&mut self, aad: &[u8], data: InOutBuf<'_, '_, u8>) {
        let nonce = self.nonce.bytes();
        let len = data.len() as u64;
        let (src, dst) = data.into_raw();
        self.phase = Phase::Done;
        // SAFETY: reads all of nonce and header; source and destination have the given length and are identical or
        // disjoint; writes the 16 bytes of the tag. The key was prepared, and the context is only written.
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

    /// Prepares the context for a packet with header `aad`, if not yet done.
    #[inline]
    fn prepare(&mut self, aad: &[u8]) {
        if self.phase == Phase::Midst {
            return;
        }
        self.phase = Phase::Midst;
        let nonce = self.nonce.bytes();
        // SAFETY: reads all of nonce and header, and writes the context; the key was prepared.
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
