//! ChaCha20-Poly1305 (RFC 8439 §2.8), split into keystream and tag; the same for all backends.

use aes::cipher::inout::InOutBuf;
use aes::cipher::{KeyIvInit, StreamCipherCore};
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, R20};
use zeroize::Zeroizing;

use super::keystream;
use super::poly1305::Poly1305;
use crate::crypto::layout::TAG_LEN;
use crate::crypto::nonce::{IV_LEN, Nonce};
use crate::crypto::traceless::traceless_in;

type ChaCha = ChaChaCore<R20, Ietf>;

/// Maximum stack used per packet, in bytes. It contains copies of the cipher's state, including the key, and the
/// one-time key of the tag.
const SHALLOW: usize = 2 << 10;

/// ChaCha20-Poly1305 with its key.
pub(crate) struct ChaChaPoly(Zeroizing<[u8; 32]>);

impl ChaChaPoly {
    /// # Panics
    /// If `key` does not have 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(Zeroizing::new(key.try_into().expect("32 bytes of key")))
    }

    pub(crate) fn tag(&self, nonce: Nonce, aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        traceless_in::<SHALLOW, _>(|| {
            let one_time = Zeroizing::new(block(&self.0, &nonce.bytes(), 0));
            let one_time: &[u8; 32] = one_time.first_chunk().expect("a block has 64 bytes");
            let mut hash = Poly1305::new(one_time);
            hash.update_padded(aad);
            hash.update_padded(ciphertext);
            hash.update(&lengths(aad.len(), ciphertext.len()));
            hash.finish()
        })
    }

    pub(crate) fn apply(&self, nonce: Nonce, from: usize, data: InOutBuf<'_, '_, u8>) {
        // Block 0 is the key of the tag.
        let (block, skip) = keystream::seek::<ChaCha>(1, from);
        traceless_in::<SHALLOW, _>(|| keystream::apply(core(&self.0, &nonce.bytes(), block), skip, data));
    }
}

/// The header protection mask (RFC 9001 §5.4.4).
pub(crate) fn header_mask(key: &[u8; 32], sample: &[u8; 16]) -> [u8; 5] {
    let (counter, nonce) = sample.split_first_chunk::<4>().expect("16 bytes");
    let nonce = nonce.first_chunk().expect("12 bytes are left");
    traceless_in::<SHALLOW, _>(|| {
        *block(key, nonce, u32::from_le_bytes(*counter)).first_chunk().expect("a block has 64 bytes")
    })
}

fn core(key: &[u8; 32], nonce: &[u8; IV_LEN], counter: u32) -> ChaCha {
    let mut core = ChaCha::new(key.into(), nonce.into());
    core.set_block_pos(counter);
    core
}

fn block(key: &[u8; 32], nonce: &[u8; IV_LEN], counter: u32) -> [u8; 64] {
    let mut block = [0; 64].into();
    core(key, nonce, counter).write_keystream_block(&mut block);
    block.into()
}

/// The last block hashed: both lengths in bytes.
fn lengths(aad: usize, ciphertext: usize) -> [u8; 16] {
    (((ciphertext as u128) << 64) | aad as u128).to_le_bytes()
}
