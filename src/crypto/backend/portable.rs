//! AES-GCM in Rust, split into CTR and GHASH (NIST SP 800-38D).

use aes::cipher::array::Array;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{Block, BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, consts::U16};
use ctr::{CtrCore, flavors::Ctr32BE};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::keystream;
use crate::crypto::layout::TAG_LEN;
use crate::crypto::nonce::Nonce;
use crate::crypto::traceless::traceless_in;

/// Counter of the block that masks the tag. The plaintext begins one block later.
const FIRST: u32 = 1;

/// Maximum stack used per packet, in bytes. It contains copies of round keys and of the powers of the hash key.
pub(in crate::crypto) const SHALLOW: usize = 16 << 10;

/// AES-GCM with its key.
pub(crate) struct Gcm<C> {
    aes: C,
    /// GHASH before its first block, with the powers of the hash key.
    ghash: GHash,
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit> Gcm<C> {
    /// # Panics
    /// If `key` does not have the length of the cipher's keys.
    pub(crate) fn new(key: &[u8]) -> Self {
        let aes = C::new_from_slice(key).expect("key length fits the cipher");
        let mut h = Block::<C>::default();
        aes.encrypt_block(&mut h);
        Self { aes, ghash: GHash::new(&h) }
    }

    pub(crate) fn tag(&self, nonce: Nonce, aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        traceless_in::<SHALLOW, _>(|| {
            let mut hash = self.ghash.clone();
            hash.update_padded(aad);
            hash.update_padded(ciphertext);
            hash.update(&[lengths(aad.len(), ciphertext.len()).to_le_bytes().into()]);
            let mut mask: Block<C> = nonce.block(FIRST).to_le_bytes().into();
            self.aes.encrypt_block(&mut mask);
            let hash: [u8; TAG_LEN] = hash.finalize().into();
            (u128::from_ne_bytes(hash) ^ u128::from_ne_bytes(mask.into())).to_ne_bytes()
        })
    }

    pub(crate) fn apply(&self, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
        let (block, skip) = keystream::seek::<C>(FIRST + 1, from);
        traceless_in::<SHALLOW, _>(|| {
            let core = CtrCore::<&C, Ctr32BE>::inner_iv_init(&self.aes, &Array(nonce.block(block).to_le_bytes()));
            keystream::apply(core, skip, data);
        });
    }
}

/// The last block hashed: both lengths in bits, as a little-endian number.
pub(super) fn lengths(aad: usize, ciphertext: usize) -> u128 {
    let bits = |len: usize| u128::from((len as u64 * 8).swap_bytes());
    bits(aad) | (bits(ciphertext) << 64)
}
