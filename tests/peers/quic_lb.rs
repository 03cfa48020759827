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

/// §5.4.2.4, Appendix B.1 (whose second vector is damaged: its nonce has nine digits, its first octet three) and Appendix
/// B.2 (whose fourth is read without the first octet, which is wrong).
#[test]
fn a_load_balancer_reads_the_vectors_of_the_draft() {
    let key = "8f95f09245765f80256934e50c66207f";
    for (key, rotation, server_id, nonce, cid) in [
        ("", 0, "c4605e", "4504cc4f", "07c4605e4504cc4f"),
        ("fdf726a9893ec05c0632d3956680baf0", 0, "31441a", "9c69c275", "0767947d29be054a"),
        (key, 0, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
        (key, 1, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
        (key, 2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
        (key, 0, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
    ] {
        let (server_id, nonce, cid) = (bytes(server_id), bytes(nonce), bytes(cid));
        let key = (!key.is_empty()).then(|| bytes(key).try_into().expect("16 bytes"));
        let config = Config { rotation, server_id: server_id.len(), nonce: nonce.len(), key };
        assert_eq!(config.server_id(&cid), Some(server_id.clone()));
        // The ID of a short header has no length; that of a long header has to be long enough.
        assert_eq!(config.server_id(&[&cid[..], &[9; 30]].concat()), Some(server_id));
        assert_eq!(config.server_id(&cid[..cid.len() - 1]), None);
        assert_eq!(Config { rotation: rotation + 1, ..config }.server_id(&cid), None);
    }
}
