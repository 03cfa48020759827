//! Contents and encryption of our connection IDs (draft-ietf-quic-load-balancers-21 §5).

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use arrayvec::ArrayVec;

use super::config::{CORE, CidConfig, INDEX, SEQUENCE};
use crate::wire::quic::ConnectionId;

/// Highest place in a core's table that an ID can name.
pub(crate) const MAX_INDEX: u32 = (1 << INDEX) - 1;

/// Number of IDs that are decrypted in parallel: as many as the AES units of a CPU can overlap.
const LANES: usize = 8;

/// The contents of one of our connection IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidInfo {
    /// The core that owns the connection.
    pub core: u8,
    /// The connection's place in that core's table, below 2^24.
    pub index: u32,
    /// Distinguishes successive connections in that place. [`CidInfo::NO_GENERATION`] if the ID was made by another
    /// process with the same key.
    pub generation: u32,
    /// The ID's sequence number (RFC 9000 §5.1.1).
    pub sequence: u16,
}

impl CidInfo {
    /// A generation that no connection has.
    pub const NO_GENERATION: u32 = u32::MAX;
}

/// The bytes of an ID of our length, followed by zeros: cheap to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawCid {
    front: u128,
    back: u32,
}

impl RawCid {
    /// A few bits that differ between IDs.
    #[inline]
    pub(crate) fn hash(self) -> usize {
        // The first octet is the same for all.
        (self.front >> 8) as usize
    }
}

/// Makes and reads our connection IDs.
///
/// No ID is made twice. Within a process, the tuple of core, place, generation and sequence number is unique, and
/// encryption is a bijection. To separate processes with the same key, the epoch, random bits of each process, is added
/// without carry to everything that follows the core in the nonce (§9.6 of the draft: "servers SHOULD start with a
/// random nonce value"). A process that made n IDs from the first places, generations and sequence numbers has used a
/// box of about n of 2^64 values (more with longer nonces), at a position that depends on the epoch. The boxes of two
/// processes overlap with a probability of about 2n / 2^64: one in a billion if each made 10^10 IDs.
///
/// The epoch does not cover the core, so that the core responsible for an ID of an earlier process can be determined.
#[derive(Clone)]
pub struct CidCodec {
    cipher: Cipher,
    first: u8,
    server_id: ArrayVec<u8, 10>,
    nonce_len: usize,
    /// Length of the whole ID in bytes.
    len: usize,
    epoch: u128,
    /// Mask that selects the bytes of the ID from those that follow the first octet of a short header.
    keep: RawCid,
}

impl core::fmt::Debug for CidCodec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CidCodec")
    }
}

impl CidCodec {
    /// A codec for IDs of the form `config`. All cores of a process share the `epoch`, 16 random bytes. `key` is used
    /// unless `config` has a key of its own.
    pub fn new(config: &CidConfig, key: &[u8; 16], epoch: &[u8; 16]) -> Self {
        let len = config.len();
        let mut keep = [0; 20];
        keep[..len].fill(0xff);
        Self {
            cipher: Cipher::new(config.key.as_deref().unwrap_or(key), len - 1),
            // Length self-description (§3.3): bytes that follow the first octet.
            first: config.rotation << 5 | (len - 1) as u8,
            server_id: config.server_id.clone(),
            nonce_len: config.nonce_len,
            len,
            epoch: u128::from_be_bytes(*epoch) & low_bits(8 * config.nonce_len as u32 - CORE),
            keep: raw(&keep),
        }
    }

    /// Length of our IDs in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an ID is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of bits of the nonce after the core.
    fn place_bits(&self) -> u32 {
        8 * self.nonce_len as u32 - CORE
    }

    /// The highest generation that fits.
    pub(crate) fn last_generation(&self) -> u32 {
        let bits = self.place_bits() - INDEX - SEQUENCE;
        if bits < 32 { low_bits(bits) as u32 } else { CidInfo::NO_GENERATION - 1 }
    }

    /// The connection ID for `info`.
    ///
    /// # Panics
    /// If the index or the generation does not fit; the ID would be that of another connection.
    pub fn encode(&self, info: CidInfo) -> ConnectionId {
        assert!(info.index <= MAX_INDEX && info.generation <= self.last_generation(), "no bits for {info:?}");
        let bits = self.place_bits();
        let place = u128::from(info.index) << (bits - INDEX)
            | u128::from(info.generation) << SEQUENCE
            | u128::from(info.sequence);
        self.seal(u128::from(info.core) << bits | place ^ self.epoch)
    }

    fn seal(&self, nonce: u128) -> ConnectionId {
        let n = self.server_id.len();
        let mut plain = [0; 32];
        plain[..n].copy_from_slice(&self.server_id);
        plain[n..n + 16].copy_from_slice(&(nonce << (128 - 8 * self.nonce_len)).to_be_bytes());
        let mut bytes = [self.first; 33];
        bytes[1..].copy_from_slice(&self.cipher.encrypt(&plain));
        ConnectionId::new(&bytes[..self.len()]).expect("at most 20 bytes")
    }

    /// Decodes `cid`; `None` if it is not of our form or for another server. Any ID of that form can be decoded; one
    /// that we did not make most likely names a place or generation that does not exist.
    pub fn decode(&self, cid: &[u8]) -> Option<CidInfo> {
        self.open(cid).map(|nonce| self.info(nonce))
    }

    /// The contents of a nonce.
    fn info(&self, nonce: u128) -> CidInfo {
        let bits = self.place_bits();
        let place = nonce & low_bits(bits) ^ self.epoch;
        let generation = place >> SEQUENCE & low_bits(bits - INDEX - SEQUENCE);
        CidInfo {
            core: (nonce >> bits) as u8,
            index: (place >> (bits - INDEX)) as u32,
            generation: u32::try_from(generation).unwrap_or(CidInfo::NO_GENERATION),
            sequence: place as u16,
        }
    }

    fn open(&self, cid: &[u8]) -> Option<u128> {
        let (first, sealed) = cid.split_first()?;
        if *first != self.first || cid.len() != self.len() {
            return None;
        }
        let mut bytes = [0; 32];
        bytes[..sealed.len()].copy_from_slice(sealed);
        self.nonce(&self.cipher.decrypt(&bytes))
    }

    /// The nonce in a decrypted ID, if that has our server ID.
    fn nonce(&self, plain: &[u8; 32]) -> Option<u128> {
        let n = self.server_id.len();
        (plain[..n] == self.server_id[..]).then(|| be(&plain[n..]) >> (128 - 8 * self.nonce_len))
    }

    /// The destination ID of `datagram`, if that has a short header and is long enough; for
    /// [`CidCodec::decode_raw`] and comparisons.
    #[inline]
    pub(crate) fn short_dcid(&self, datagram: &[u8]) -> Option<RawCid> {
        let start: &[u8; 21] = datagram.first_chunk().filter(|start| start[0] & 0xc0 == 0x40)?;
        let RawCid { front, back } = raw(start.last_chunk().expect("20 of 21"));
        Some(RawCid { front: front & self.keep.front, back: back & self.keep.back })
    }

    /// `cid` in raw form, if it has our length.
    pub(crate) fn raw(&self, cid: &[u8]) -> Option<RawCid> {
        let mut bytes = [0; 20];
        bytes.get_mut(..cid.len()).filter(|_| cid.len() == self.len())?.copy_from_slice(cid);
        Some(raw(&bytes))
    }

    /// Like [`CidCodec::decode`], for the result of [`CidCodec::raw`].
    pub(crate) fn decode_raw(&self, cid: RawCid) -> Option<CidInfo> {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&cid.front.to_le_bytes());
        bytes[16..].copy_from_slice(&cid.back.to_le_bytes());
        self.decode(&bytes[..self.len()])
    }

    /// Like [`CidCodec::decode_raw`], for several IDs, which are decrypted in parallel.
    pub(crate) fn decode_all(&self, cids: &[RawCid], mut each: impl FnMut(Option<CidInfo>)) {
        for cids in cids.chunks(LANES) {
            if let [cid] = cids {
                each(self.decode_raw(*cid));
                continue;
            }
            let mut texts = [[0; 32]; LANES];
            for (text, cid) in texts.iter_mut().zip(cids) {
                // Without the first octet.
                text[..15].copy_from_slice(&cid.front.to_le_bytes()[1..]);
                text[15..19].copy_from_slice(&cid.back.to_le_bytes());
            }
            self.cipher.decrypt_all(&mut texts);
            for (text, cid) in texts.iter().zip(cids) {
                let nonce = self.nonce(text).filter(|_| cid.front as u8 == self.first);
                each(nonce.map(|nonce| self.info(nonce)));
            }
        }
    }
}

#[inline]
fn raw(bytes: &[u8; 20]) -> RawCid {
    let (front, back) = (bytes.first_chunk().expect("16 of 20"), bytes.last_chunk().expect("4 of 20"));
    RawCid { front: u128::from_le_bytes(*front), back: u32::from_le_bytes(*back) }
}

fn low_bits(n: u32) -> u128 {
    if n == 0 { 0 } else { u128::MAX >> (128 - n) }
}

/// The first 16 of `bytes`.
fn be(bytes: &[u8]) -> u128 {
    u128::from_be_bytes(*bytes.first_chunk().expect("16 bytes"))
}

/// The cipher of QUIC-LB over server ID and nonce, together `len` bytes, 5 to 19: one AES block if they are 16 (§5.4.1),
/// and a Feistel network of four rounds otherwise (§5.4.2).
#[derive(Clone)]
struct Cipher {
    aes: Aes128,
    len: usize,
    /// Masks for the bits of each half; both begin with the most significant bit.
    left: u128,
    right: u128,
}

impl Cipher {
    fn new(key: &[u8; 16], len: usize) -> Self {
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

    fn split(&self, bytes: &[u8; 32]) -> (u128, u128) {
        (be(bytes) & self.left, be(&bytes[self.len / 2..]) & self.right)
    }

    fn join(&self, left: u128, right: u128) -> [u8; 32] {
        let (mut out, at) = ([0; 32], self.len / 2);
        out[..16].copy_from_slice(&left.to_be_bytes());
        let shared = out[at];
        out[at..at + 16].copy_from_slice(&right.to_be_bytes());
        out[at] |= shared;
        out
    }

    /// Encrypts the first `len` bytes; the other bytes of the result are unspecified.
    fn encrypt(&self, plain: &[u8; 32]) -> [u8; 32] {
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

    fn decrypt(&self, sealed: &[u8; 32]) -> [u8; 32] {
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
    fn decrypt_all(&self, texts: &mut [[u8; 32]; LANES]) {
        let mut blocks = [aes::Block::default(); LANES];
        if self.len == 16 {
            for (block, text) in blocks.iter_mut().zip(&*texts) {
                *block = be(text).to_be_bytes().into();
            }
            self.aes.decrypt_blocks(&mut blocks);
            texts.iter_mut().zip(blocks).for_each(|(text, block)| text[..16].copy_from_slice(&block));
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

    fn one_block(&self, bytes: &[u8; 32], work: impl FnOnce(&mut aes::Block)) -> [u8; 32] {
        let mut out = [0; 32];
        let mut block = be(bytes).to_be_bytes().into();
        work(&mut block);
        out[..16].copy_from_slice(&block);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn padded(bytes: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out[..bytes.len()].copy_from_slice(bytes);
        out
    }

    /// draft-ietf-quic-load-balancers-21 §5.4.2.4 and Appendix B.2: key, rotation bits, server ID, nonce, ID.
    #[test]
    fn vectors_of_the_draft() {
        let key = "8f95f09245765f80256934e50c66207f";
        let vectors = [
            ("fdf726a9893ec05c0632d3956680baf0", 0, "31441a", "9c69c275", "0767947d29be054a"),
            (key, 0, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
            (key, 1, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
            (key, 2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
            (key, 3, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
        ];
        for (key, rotation, server_id, nonce, cid) in vectors {
            let (plain, cid) = (hex(&[server_id, nonce].concat()), hex(cid));
            let cipher = Cipher::new(&hex(key).try_into().unwrap(), plain.len());
            assert_eq!(cipher.encrypt(&padded(&plain))[..plain.len()], cid[1..], "{server_id}");
            assert_eq!(cipher.decrypt(&padded(&cid[1..]))[..plain.len()], plain, "{server_id}");
            // The fourth vector has the first octet 0x12 instead of 0x72, an error in the draft.
            if rotation != 3 {
                assert_eq!(cid[0], rotation << 5 | plain.len() as u8);
            }
        }
        // One of them is long enough for the contents of our nonce.
        let config = CidConfig::routed(3, &hex("ed793a51d49b8f5fab"), 19, hex(key).try_into().unwrap()).unwrap();
        let codec = CidCodec::new(&config, &[0; 16], &[0; 16]);
        let nonce = u128::from_be_bytes(hex("00000000000000ee080dbf48c0d1e55d").try_into().unwrap());
        let cid = codec.seal(nonce);
        assert_eq!(cid[..], hex("725779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"));
        assert_eq!(codec.open(&cid), Some(nonce));
        // The nonce as decoded by us.
        let info = CidInfo { core: 0xee, index: 0x080dbf, generation: 0x48c0d1, sequence: 0xe55d };
        assert_eq!(codec.decode(&cid), Some(info));
        assert_eq!(codec.encode(info), cid);
    }

    fn forms() -> Vec<CidConfig> {
        let routed = |sid: usize, len| CidConfig::routed(3, &vec![0xab; sid], len, [9; 16]).unwrap();
        let mut forms: Vec<_> = (10..=17).map(|len| CidConfig::unrouted(len).unwrap()).collect();
        forms.extend([(1, 11), (1, 17), (7, 17), (10, 20), (3, 20), (8, 18)].map(|(sid, len)| routed(sid, len)));
        forms
    }

    proptest! {
        #[test]
        fn every_form_brings_back_what_was_put_in(
            core: u8, index in 0..=MAX_INDEX, generation: u32, sequence: u16, epoch: [u8; 16], flip in 8..80usize,
        ) {
            for config in forms() {
                let codec = CidCodec::new(&config, &[7; 16], &epoch);
                let generation = generation.min(codec.last_generation());
                let info = CidInfo { core, index, generation, sequence };
                let cid = codec.encode(info);
                prop_assert_eq!(cid.len(), config.len());
                prop_assert_eq!(codec.decode(&cid), Some(info));
                prop_assert_eq!(codec.decode_raw(codec.raw(&cid).unwrap()), Some(info));
                // Together with others, some of which are not of our form.
                let many: Vec<_> = (0..2 * LANES as u16 + 1).map(|n| codec.encode(CidInfo { sequence: n, ..info })).collect();
                for take in [0, 1, 2, LANES, LANES + 1, many.len()] {
                    let mut raws: Vec<_> = many[..take].iter().map(|cid| codec.raw(cid).unwrap()).collect();
                    raws.iter_mut().skip(2).step_by(3).for_each(|raw| raw.front ^= 0x20);
                    let (mut n, mut all) = (0, Vec::new());
                    codec.decode_all(&raws, |info| all.push(info));
                    for (got, raw) in all.iter().zip(&raws) {
                        prop_assert_eq!(*got, codec.decode_raw(*raw));
                        prop_assert_eq!(got.is_some(), n < 2 || (n - 2) % 3 != 0);
                        n += 1;
                    }
                    prop_assert_eq!(all.len(), take);
                }
                let short = [&[0x41], &cid[..], &[0x77; 40]].concat();
                prop_assert_eq!(codec.short_dcid(&short), codec.raw(&cid));
                // One bit of the ciphertext changes all of the plaintext.
                let mut other = cid.to_vec();
                other[flip / 8] ^= 1 << (flip % 8);
                prop_assert_ne!(codec.decode(&other), Some(info));
                prop_assert_eq!(codec.decode(&cid[1..]), None);
                other.clone_from(&cid.to_vec());
                other[0] ^= 0x20;
                prop_assert_eq!(codec.decode(&other), None);
            }
        }
    }

    #[test]
    fn ids_of_one_connection_do_not_look_alike() {
        let codec = CidCodec::new(&CidConfig::default(), &[7; 16], &[3; 16]);
        let info = CidInfo { core: 3, index: 0xabcdef, generation: 0x123456, sequence: 0xfffe };
        let (a, b) = (codec.encode(info), codec.encode(CidInfo { sequence: 0xffff, ..info }));
        let same = a[1..].iter().zip(&b[1..]).filter(|(a, b)| a == b).count();
        assert!(same < 4);
        assert_ne!(CidCodec::new(&CidConfig::default(), &[8; 16], &[3; 16]).decode(&a), Some(info));
    }

    /// Any process with the key can read the core of an ID; the rest is meaningless to other processes.
    #[test]
    fn another_epoch_knows_the_core_only() {
        for config in forms() {
            let [old, new] = [1, 2].map(|n| CidCodec::new(&config, &[7; 16], &[n; 16]));
            let info = CidInfo { core: 5, index: 0, generation: 0, sequence: 0 };
            let read = new.decode(&old.encode(info)).unwrap();
            assert_eq!(read.core, 5);
            assert!(read.index != 0 && read.generation != 0 && read.sequence != 0);
        }
    }

    #[test]
    fn another_server_is_told_apart() {
        let codec = |id| CidCodec::new(&CidConfig::routed(0, &[id], 17, [4; 16]).unwrap(), &[0; 16], &[0; 16]);
        let info = CidInfo { core: 1, index: 2, generation: 3, sequence: 4 };
        assert_eq!(codec(1).decode(&codec(1).encode(info)), Some(info));
        assert_eq!(codec(2).decode(&codec(1).encode(info)), None);
    }

    #[test]
    #[should_panic(expected = "no bits")]
    fn a_generation_is_never_cut() {
        let codec = CidCodec::new(&CidConfig::default(), &[7; 16], &[3; 16]);
        codec.encode(CidInfo { core: 0, index: 0, generation: 1 << 24, sequence: 0 });
    }
}
