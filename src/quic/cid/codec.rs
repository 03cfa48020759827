//! Contents and encryption of our connection IDs (draft-ietf-quic-load-balancers-21 §5).

use arrayvec::ArrayVec;

use super::cipher::{Cipher, LANES, Text, be};
use super::config::{CORE, CidConfig, INDEX, MAX_NONCE, MAX_SERVER_ID, SEQUENCE, UNROUTABLE};
use crate::wire::quic::ConnectionId;
use crate::wire::quic::header::FIXED_BIT;

/// Highest place in a core's table that an ID can name.
pub(crate) const MAX_INDEX: u32 = (1 << INDEX) - 1;

/// The bit of the first byte that distinguishes long headers from short ones (RFC 8999 §5).
const LONG: u8 = 0x80;

/// Minimum length of the Destination Connection ID in a client's first packets, in bytes (RFC 9000 §7.2). Without a load
/// balancer, the ID in a Retry has it.
pub(crate) const MIN_FIRST: usize = 8;

/// The contents of one of our connection IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidInfo {
    /// The core that owns the connection. [`CidInfo::NO_CORE`] if there is no connection, as in a Retry.
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

    /// A core that does not exist.
    pub const NO_CORE: u8 = u8::MAX;
}

/// The bytes of an ID of our length, followed by zeros: cheap to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawCid {
    front: u128,
    back: u32,
}

impl RawCid {
    /// A value that IDs of ours do not have: their first octet contains their length.
    pub(crate) const UNUSED: Self = Self { front: u128::MAX, back: u32::MAX };

    /// A few bits that differ between IDs.
    #[inline]
    pub(crate) fn hash(self) -> usize {
        // The first octet is the same for all.
        (self.front >> 8) as usize
    }
}

/// Makes and reads our connection IDs.
///
/// The nonce of an ID holds its contents, encrypted with a key that follows from the endpoint's secret. For load
/// balancers, the result is encrypted once more, together with the server ID, with the key of the QUIC-LB configuration
/// if it has one (§5.4). Balancers thus learn the server ID and nothing else, and those who know their key can neither
/// link a server's IDs nor make one for a connection of their choice. Contents are not authenticated beyond that: any
/// nonce decodes to something. One that we did not make most likely names a place or generation that does not exist,
/// and a packet with an ID that was guessed is still not authentic.
///
/// No ID is made twice. Within a process, the tuple of core, place, generation and sequence number is unique, and
/// encryption is a bijection. To separate processes with the same secret, the epoch, random bits of each process, is
/// added without carry to everything that follows the core in the nonce (§9.6 of the draft: "servers SHOULD start with a
/// random nonce value"). A process that made n IDs from the first places, generations and sequence numbers has used a
/// box of about n of 2^64 values (more with longer nonces), at a position that depends on the epoch. The boxes of two
/// processes overlap with a probability of about 2n / 2^64: one in a billion if each made 10^10 IDs. Nonces of processes
/// with the same server ID but different secrets are independent random numbers: two that made n IDs each with nonces of
/// b bits have one in common with a probability of n^2 / 2^b.
///
/// The epoch does not cover the core, so that the core responsible for an ID of an earlier process can be determined.
#[derive(Clone)]
pub struct CidCodec {
    /// Encrypts the nonce, with our own key.
    own: Cipher,
    /// Encrypts server ID and nonce, with the load balancers' key.
    shared: Option<Cipher>,
    first: u8,
    /// Empty without load balancers.
    server_id: ArrayVec<u8, MAX_SERVER_ID>,
    nonce_len: usize,
    /// Length of the whole ID in bytes.
    len: usize,
    epoch: u128,
    /// Mask that selects the bytes of the ID from those that follow the first octet of a short header.
    keep: RawCid,
    /// The bits of the first byte that differ between short headers and others: the header form and, unless it may have
    /// any value, the fixed bit.
    form: u8,
}

impl core::fmt::Debug for CidCodec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CidCodec")
    }
}

impl CidCodec {
    /// A codec for IDs of the form `config`, which encrypts their contents with `key`. All cores of a process share the
    /// `epoch`, 16 random bytes.
    pub fn new(config: &CidConfig, key: &[u8; 16], epoch: &[u8; 16]) -> Self {
        let (len, nonce_len) = (config.len(), config.nonce_len);
        let mut keep = [0; 20];
        keep[..len].fill(0xff);
        Self {
            own: Cipher::new(key, nonce_len),
            shared: config.key.as_deref().map(|key| Cipher::new(key, len - 1)),
            first: first_octet(config.rotation, len),
            server_id: config.server_id.clone(),
            nonce_len,
            len,
            epoch: u128::from_be_bytes(*epoch) & low_bits(content_bits(nonce_len) - CORE),
            keep: raw(&keep),
            form: LONG | FIXED_BIT,
        }
    }

    /// The same codec, for packets whose fixed bit may have any value if `greased` (RFC 9287).
    #[must_use]
    pub fn with_greased_bit(self, greased: bool) -> Self {
        Self { form: if greased { LONG } else { LONG | FIXED_BIT }, ..self }
    }

    /// Whether the fixed bit may have any value.
    pub(super) fn is_bit_greased(&self) -> bool {
        self.form == LONG
    }

    /// Length of our IDs in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an ID is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everyone can see which server an ID belongs to.
    pub(super) fn shows_server(&self) -> bool {
        self.shared.is_none() && !self.server_id.is_empty()
    }

    /// Number of bits of the contents after the core.
    fn place_bits(&self) -> u32 {
        content_bits(self.nonce_len) - CORE
    }

    /// The highest generation that fits.
    pub(crate) fn last_generation(&self) -> u32 {
        let bits = self.place_bits() - INDEX - SEQUENCE;
        if bits < 32 { low_bits(bits) as u32 } else { CidInfo::NO_GENERATION - 1 }
    }

    /// The connection ID for `info`.
    ///
    /// # Panics
    /// If the index or the generation does not fit, as the ID would be that of another connection, or if the core is
    /// [`CidInfo::NO_CORE`].
    pub fn encode(&self, info: CidInfo) -> ConnectionId {
        let fits = info.index <= MAX_INDEX && info.generation <= self.last_generation();
        assert!(fits && info.core != CidInfo::NO_CORE, "no bits for {info:?}");
        let bits = self.place_bits();
        let place = u128::from(info.index) << (bits - INDEX)
            | u128::from(info.generation) << SEQUENCE
            | u128::from(info.sequence);
        self.seal(u128::from(info.core) << bits | place ^ self.epoch)
    }

    /// An ID for a client to return to once with a Retry token. No connection has it. If load balancers route our IDs,
    /// they route this one, too.
    pub(crate) fn retry_id(&self, random: [u8; 16]) -> ConnectionId {
        if self.server_id.is_empty() {
            let mut bytes: [u8; MIN_FIRST] = *random.first_chunk().expect("8 of 16 bytes");
            bytes[0] = first_octet(UNROUTABLE, MIN_FIRST);
            return ConnectionId::new(&bytes).expect("at most 20 bytes");
        }
        let bits = self.place_bits();
        self.seal(u128::from(CidInfo::NO_CORE) << bits | u128::from_be_bytes(random) & low_bits(bits))
    }

    /// The ID with these contents.
    fn seal(&self, contents: u128) -> ConnectionId {
        let mut text = [0; 32];
        text[..16].copy_from_slice(&(contents << (128 - content_bits(self.nonce_len))).to_be_bytes());
        self.wrap(&self.own.encrypt(&text))
    }

    /// The ID with this nonce.
    fn wrap(&self, nonce: &Text) -> ConnectionId {
        let (n, mut plain) = (self.server_id.len(), [0; 32]);
        plain[..n].copy_from_slice(&self.server_id);
        plain[n..n + MAX_NONCE].copy_from_slice(&nonce[..MAX_NONCE]);
        let mut bytes = [self.first; 33];
        bytes[1..].copy_from_slice(&self.shared.as_ref().map_or(plain, |shared| shared.encrypt(&plain)));
        ConnectionId::new(&bytes[..self.len()]).expect("at most 20 bytes")
    }

    /// Decodes `cid`; `None` if it is not of our form or for another server. Any ID of that form can be decoded; one
    /// that we did not make most likely names a place or generation that does not exist.
    pub fn decode(&self, cid: &[u8]) -> Option<CidInfo> {
        let (first, sealed) = cid.split_first()?;
        if *first != self.first || cid.len() != self.len() {
            return None;
        }
        let mut text = [0; 32];
        text[..sealed.len()].copy_from_slice(sealed);
        self.info(&self.own.decrypt(&self.unwrap(&text)?))
    }

    /// The nonce in an ID without its first octet, if that has our server ID.
    #[inline]
    fn unwrap(&self, text: &Text) -> Option<Text> {
        match &self.shared {
            Some(shared) => self.nonce(&shared.decrypt(text)),
            None => self.nonce(text),
        }
    }

    /// The bytes that follow our server ID.
    #[inline]
    fn nonce(&self, plain: &Text) -> Option<Text> {
        let n = self.server_id.len();
        if n == 0 {
            return Some(*plain);
        }
        let mut nonce = [0; 32];
        nonce[..MAX_NONCE].copy_from_slice(&plain[n..n + MAX_NONCE]);
        (plain[..n] == self.server_id[..]).then_some(nonce)
    }

    /// The contents of a decrypted nonce; `None` if it is certainly not ours.
    fn info(&self, nonce: &Text) -> Option<CidInfo> {
        let contents = be(nonce) >> (128 - content_bits(self.nonce_len));
        let bits = self.place_bits();
        let place = contents & low_bits(bits) ^ self.epoch;
        let generation = place >> SEQUENCE & low_bits(bits - INDEX - SEQUENCE);
        let info = CidInfo {
            core: (contents >> bits) as u8,
            index: (place >> (bits - INDEX)) as u32,
            generation: u32::try_from(generation).unwrap_or(CidInfo::NO_GENERATION),
            sequence: place as u16,
        };
        // Longer nonces end with zeros.
        (nonce[16..MAX_NONCE] == [0; MAX_NONCE - 16]).then_some(info)
    }

    /// The destination ID of `datagram`, if that has a short header and is long enough; for
    /// [`CidCodec::decode_raw`] and comparisons.
    #[inline]
    pub(crate) fn short_dcid(&self, datagram: &[u8]) -> Option<RawCid> {
        let start: &[u8; 21] = datagram.first_chunk().filter(|start| (start[0] ^ FIXED_BIT) & self.form == 0)?;
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
            let (mut texts, mut ours) = ([[0; 32]; LANES], [false; LANES]);
            for ((text, ours), cid) in texts.iter_mut().zip(&mut ours).zip(cids) {
                // Without the first octet.
                text[..15].copy_from_slice(&cid.front.to_le_bytes()[1..]);
                text[15..19].copy_from_slice(&cid.back.to_le_bytes());
                *ours = cid.front as u8 == self.first;
            }
            if !self.server_id.is_empty() {
                self.unwrap_all(&mut texts, &mut ours);
            }
            self.own.decrypt_all(&mut texts);
            for ((text, ours), _) in texts.iter().zip(ours).zip(cids) {
                each(if ours { self.info(text) } else { None });
            }
        }
    }

    /// Replaces IDs without their first octet by their nonces, and clears the mark of those of other servers.
    #[inline(never)]
    fn unwrap_all(&self, texts: &mut [Text; LANES], ours: &mut [bool; LANES]) {
        if let Some(shared) = &self.shared {
            shared.decrypt_all(texts);
        }
        for (text, ours) in texts.iter_mut().zip(ours) {
            match self.nonce(text) {
                Some(nonce) => *text = nonce,
                None => *ours = false,
            }
        }
    }
}

/// The first octet of IDs of `len` bytes, with config rotation bits (§3.1) and the number of bytes that follow (§3.3).
fn first_octet(rotation: u8, len: usize) -> u8 {
    rotation << 5 | (len - 1) as u8
}

/// Number of bits of the contents of a nonce, which is at least as long.
fn content_bits(nonce_len: usize) -> u32 {
    8 * nonce_len.min(16) as u32
}

#[inline]
fn raw(bytes: &[u8; 20]) -> RawCid {
    let (front, back) = (bytes.first_chunk().expect("16 of 20"), bytes.last_chunk().expect("4 of 20"));
    RawCid { front: u128::from_le_bytes(*front), back: u32::from_le_bytes(*back) }
}

fn low_bits(n: u32) -> u128 {
    if n == 0 { 0 } else { u128::MAX >> (128 - n) }
}

#[cfg(test)]
#[path = "codec/tests.rs"]
mod tests;
