//! The ciphers of QUIC-LB (draft-ietf-quic-load-balancers-21 §5.4).

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// Number of texts that are decrypted in parallel: as many as the AES units of a CPU can overlap.
pub(super) const LANES: usize = 8;

/// A text of up to 19 bytes at the beginning of a buffer.
pub(super) type Text = [u8; 32];

/// The first 16 of `bytes`.
pub(super) fn be(bytes: &[u8]) -> u128 {
    u128::from_be_bytes(*bytes.first_chunk().expect("16 bytes"))
}

/// A permutation of texts of `len` bytes, 5 to 19: one AES block if they have 16 (§5.4.1), and a Feistel network of four
/// rounds otherwise (§5.4.2).
#[derive(Clone)]
pub(super) struct Cipher {
    aes: Aes128,
    len: usize,
    /// Masks for the bits of each half; both begin with the most significant bit.
    left: u128,
    right: u128,
}

impl Cipher {
    pub(super) fn new(key: &[u8; 16], len: usize) -> Self {
        let half = 8 * len.div_ceil(2);
        // With an odd length, the halves share the middle byte, each with four bits of it.
        let left = u128::MAX << (128 - 4 * len);
        let right = u128::MAX << (128 - half) & u128::MAX >> (half - 4 * len);
        Self { aes: Aes128::new(key.into()), len, left, right }
    }

    /// `expand` and AES (§5.4.2.2).
    fn round(&self, pass: u8, half: u128) -> u128 {
        let mut block = (half | (self.len as u128) << 8 | u128::from(pass)).to_be_bytes().into();
        self.aes.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    }

    fn split(&self, bytes: &Text) -> (u128, u128) {
        (be(bytes) & self.left, be(&bytes[self.len / 2..]) & self.right)
    }

    fn join(&self, left: u128, right: u128) -> Text {
        let (mut out, at) = ([0; 32], self.len / 2);
        out[..16].copy_from_slice(&left.to_be_bytes());
        let shared = out[at];
        out[at..at + 16].copy_from_slice(&right.to_be_bytes());
        out[at] |= shared;
        out
    }

    /// Encrypts the first `len` bytes. The other bytes are ignored, and zero in the result.
    pub(super) fn encrypt(&self, plain: &Text) -> Text {
        if self.len == 16 {
            return self.one_block(plain, |block| self.aes.encrypt_block(block));
        }
        let (mut left, mut right) = self.split(plain);
        right ^= self.round(1, left) & self.right;
        left ^= self.round(2, right) & self.left;
        right ^= self.round(3, left) & self.right;
        left ^= self.round(4, right) & self.left;
        self.join(left, right)
    }

    /// Reverses [`Cipher::encrypt`].
    pub(super) fn decrypt(&self, sealed: &Text) -> Text {
        if self.len == 16 {
            return self.one_block(sealed, |block| self.aes.decrypt_block(block));
        }
        let (mut left, mut right) = self.split(sealed);
        left ^= self.round(4, right) & self.left;
        right ^= self.round(3, left) & self.right;
        left ^= self.round(2, right) & self.left;
        right ^= self.round(1, left) & self.right;
        self.join(left, right)
    }

    /// Decrypts several texts, one round of all of them at a time, so that the CPU overlaps their AES rounds.
    pub(super) fn decrypt_all(&self, texts: &mut [Text; LANES]) {
        let mut blocks = [aes::Block::default(); LANES];
        if self.len == 16 {
            for (block, text) in blocks.iter_mut().zip(&*texts) {
                *block = be(text).to_be_bytes().into();
            }
            self.aes.decrypt_blocks(&mut blocks);
            for (text, block) in texts.iter_mut().zip(blocks) {
                *text = [0; 32];
                text[..16].copy_from_slice(&block);
            }
            return;
        }
        let mut halves = texts.map(|text| self.split(&text));
        for pass in [4, 3, 2, 1] {
            let ending = (self.len as u128) << 8 | pass;
            for (block, (left, right)) in blocks.iter_mut().zip(&halves) {
                let half = if pass % 2 == 0 { right } else { left };
                *block = (half | ending).to_be_bytes().into();
            }
            self.aes.encrypt_blocks(&mut blocks);
            for (block, (left, right)) in blocks.iter().zip(&mut halves) {
                let round = u128::from_be_bytes((*block).into());
                if pass % 2 == 0 { *left ^= round & self.left } else { *right ^= round & self.right }
            }
        }
        texts.iter_mut().zip(halves).for_each(|(text, (left, right))| *text = self.join(left, right));
    }

    fn one_block(&self, bytes: &Text, work: impl FnOnce(&mut aes::Block)) -> Text {
        let mut out = [0; 32];
        let mut block = be(bytes).to_be_bytes().into();
        work(&mut block);
        out[..16].copy_from_slice(&block);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quic::cid::testing::{hex, padded};

    /// The example of §5.4.2.4 and Appendix B.2: key, plaintext, ciphertext.
    #[test]
    fn vectors_of_the_draft() {
        let key = "8f95f09245765f80256934e50c66207f";
        for (key, plain, sealed) in [
            ("fdf726a9893ec05c0632d3956680baf0", "31441a9c69c275", "67947d29be054a"),
            (key, "ed793aee080dbf", "20b1d07b359d3c"),
            (key, "ed793a51d49b8f5fab65ee080dbf48", "cc381bc74cb4fbad2823a3d1f8fed2"),
            (key, "ed793a51d49b8f5fee080dbf48c0d1e5", "4dd2d05a7b0de9b2b9907afb5ecf8cc3"),
            (key, "ed793a51d49b8f5fabee080dbf48c0d1e55d", "5779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
        ] {
            let (plain, sealed) = (hex(plain), hex(sealed));
            let cipher = Cipher::new(&hex(key).try_into().unwrap(), plain.len());
            assert_eq!(cipher.encrypt(&padded(&plain)), padded(&sealed));
            assert_eq!(cipher.decrypt(&padded(&sealed)), padded(&plain));
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back_alone_and_together(key: [u8; 16], text: [u8; 32], len in 5..20usize) {
            let cipher = Cipher::new(&key, len);
            let texts: [Text; LANES] = std::array::from_fn(|n| {
                let mut text = text;
                text[0] ^= n as u8;
                text
            });
            let mut sealed = texts.map(|text| cipher.encrypt(&text));
            for (text, sealed) in texts.iter().zip(&sealed) {
                prop_assert_eq!(&sealed[len..], &vec![0; 32 - len][..]);
                prop_assert_eq!(cipher.decrypt(sealed), padded(&text[..len]));
            }
            cipher.decrypt_all(&mut sealed);
            for (text, opened) in texts.iter().zip(&sealed) {
                prop_assert_eq!(&opened[..len], &text[..len]);
                prop_assert_eq!(&opened[len..], &vec![0; 32 - len][..]);
            }
        }
    }
}
