//! How QUIC-LB load balancers decode server IDs (draft-ietf-quic-load-balancers-21), written from the draft. It has no code
//! in common with the engine, which encodes them.

use aes::cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};

/// A configuration of a load balancer (Appendix A).
#[derive(Clone, Debug)]
pub struct Config {
    /// The config rotation bits.
    pub rotation: u8,
    /// Length of server IDs in bytes.
    pub server_id: usize,
    /// Length of nonces in bytes.
    pub nonce: usize,
    /// The key; `None` if server IDs are not encrypted.
    pub key: Option<[u8; 16]>,
}

/// `expand` (§5.4.2.2), AES-ECB and `truncate`; the result is added to `output`.
fn pass(key: &aes::Aes128, number: u8, length: usize, input: &[u8], output: &mut [u8]) {
    let mut block = [0; 16];
    block[..input.len()].copy_from_slice(input);
    (block[14], block[15]) = (length as u8, number);
    let mut block = block.into();
    key.encrypt_block(&mut block);
    output.iter_mut().zip(block).for_each(|(out, byte)| *out ^= byte);
}

impl Config {
    /// The server ID in `cid`, if that is one of this configuration and long enough (§5.5).
    pub fn server_id(&self, cid: &[u8]) -> Option<Vec<u8>> {
        let (first, rest) = cid.split_first()?;
        let text = rest.get(..self.server_id + self.nonce).filter(|_| first >> 5 == self.rotation)?;
        let plain = match self.key {
            None => text.to_vec(),
            Some(key) => self.decrypt(&aes::Aes128::new(&key.into()), text),
        };
        Some(plain[..self.server_id].to_vec())
    }

    /// As much of the plaintext as contains the server ID.
    fn decrypt(&self, key: &aes::Aes128, text: &[u8]) -> Vec<u8> {
        let length = text.len();
        if let Ok(block) = <[u8; 16]>::try_from(text) {
            let mut block = block.into();
            key.decrypt_block(&mut block);
            return block.to_vec();
        }
        let half = length.div_ceil(2);
        let (mut left, mut right) = (text[..half].to_vec(), text[length - half..].to_vec());
        let odd = length % 2 == 1;
        // Both halves have the middle byte of an odd text, each with four bits of it.
        let clear_last = |left: &mut [u8]| left[half - 1] &= if odd { 0xf0 } else { 0xff };
        let clear_first = |right: &mut [u8]| right[0] &= if odd { 0x0f } else { 0xff };
        clear_last(&mut left);
        clear_first(&mut right);
        pass(key, 4, length, &right, &mut left);
        clear_last(&mut left);
        pass(key, 3, length, &left, &mut right);
        // The draft says left_1 here, which cannot be meant.
        clear_first(&mut right);
        pass(key, 2, length, &right, &mut left);
        clear_last(&mut left);
        if self.nonce < self.server_id {
            pass(key, 1, length, &left, &mut right);
            clear_first(&mut right);
        }
        if odd {
            left[half - 1] |= right[0];
            right.remove(0);
        }
        [left, right].concat()
    }
}

/// Bytes from hexadecimal digits.
pub fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
