//! AES-GCM in Rust, taken apart into CTR and GHASH (NIST SP 800-38D).

use aes::cipher::array::Array;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{Block, BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, consts::U16};
use ctr::{CtrCore, flavors::Ctr32BE};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::keystream;
use crate::crypto::packet::{IV_LEN, TAG_LEN};

/// The counter of the block that the tag is masked with. The plaintext begins one block later.
const FIRST: u32 = 1;

/// AES-GCM with its key.
pub(crate) struct Gcm<C> {
    aes: C,
    /// GHASH before its first block: the powers of the hash key are in it.
    ghash: GHash,
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit> Gcm<C> {
    /// # Panics
    /// If `key` does not have the length that the cipher wants.
    pub(crate) fn new(key: &[u8]) -> Self {
        let aes = C::new_from_slice(key).expect("key length fits the cipher");
        let mut h = Block::<C>::default();
        aes.encrypt_block(&mut h);
        Self { aes, ghash: GHash::new(&h) }
    }

    pub(crate) fn tag(&self, nonce: &[u8; IV_LEN], aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        let mut hash = self.ghash.clone();
        hash.update_padded(aad);
        hash.update_padded(ciphertext);
        hash.update(&[lengths(aad.len(), ciphertext.len()).into()]);
        let mut mask: Block<C> = counter_block(nonce, FIRST).into();
        self.aes.encrypt_block(&mut mask);
        let hash: [u8; TAG_LEN] = hash.finalize().into();
        (u128::from_ne_bytes(hash) ^ u128::from_ne_bytes(mask.into())).to_ne_bytes()
    }

    pub(crate) fn apply(&self, nonce: &[u8; IV_LEN], from: usize, data: InOutBuf<'_, '_, u8>) {
        let (block, skip) = keystream::seek::<C>(FIRST + 1, from);
        let core = CtrCore::<&C, Ctr32BE>::inner_iv_init(&self.aes, &Array(counter_block(nonce, block)));
        keystream::apply(core, skip, data);
    }
}

/// The cipher input for one block of keystream.
pub(super) fn counter_block(nonce: &[u8; IV_LEN], counter: u32) -> [u8; 16] {
    let mut block = [0; 16];
    block[..IV_LEN].copy_from_slice(nonce);
    block[IV_LEN..].copy_from_slice(&counter.to_be_bytes());
    block
}

/// The last block that is hashed: both lengths in bits.
pub(super) fn lengths(aad: usize, ciphertext: usize) -> [u8; 16] {
    (((aad as u128 * 8) << 64) | (ciphertext as u128 * 8)).to_be_bytes()
}
