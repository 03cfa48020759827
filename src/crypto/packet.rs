//! Packet protection (RFC 9001 §5.3): verifies packets first, then decrypts into the destination.

use aes::cipher::inout::InOutBuf;
use subtle::ConstantTimeEq;

use super::Suite;
use super::backend::{self, Backend, Cipher, Piece, Sealing};
use super::layout::{HeadRoom, SAMPLE_LEN, TAG_LEN};
use super::nonce::{IV_LEN, Iv, Nonce};
use super::traceless::traceless;

/// Authentication failed: the packet was changed, forged, or protected with other keys. It must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet's authentication tag does not match: it was changed, forged or protected with other keys")]
pub struct AuthError;

/// A packet protection key of one direction.
pub struct PacketKey {
    cipher: Cipher,
    iv: Iv,
    suite: Suite,
    #[cfg(feature = "in-place")]
    in_place: Option<Box<super::in_place::InPlace>>,
}

/// Makes a packet protection key from raw key material, on this process's backend.
///
/// # Panics
/// If `key` does not have the [length](Suite::key_len) for `suite`.
pub fn packet_key(suite: Suite, key: &[u8], iv: &[u8; IV_LEN]) -> PacketKey {
    traceless(|| PacketKey::on(backend::chosen(), suite, key, iv))
}

impl PacketKey {
    /// Makes a key on the given backend.
    pub(super) fn on(backend: Backend, suite: Suite, key: &[u8], iv: &[u8; IV_LEN]) -> Self {
        assert_eq!(key.len(), suite.key_len(), "packet key length fits {suite:?}");
        Self {
            cipher: Cipher::new(backend, suite, key).timed_if_wanted(),
            iv: Iv::new(iv),
            suite,
            #[cfg(feature = "in-place")]
            in_place: super::in_place::InPlace::wanted(suite, key),
        }
    }

    /// The memory of the key and what was derived from it.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> core::ops::Range<usize> {
        self.cipher.memory()
    }

    /// The suite of this key.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Prefetches the key.
    pub fn prefetch(&self) {
        self.cipher.prefetch();
    }

    /// Number of packets that may be protected with this key (RFC 9001 §6.6).
    pub fn confidentiality_limit(&self) -> u64 {
        self.suite.confidentiality_limit()
    }

    /// Number of packets that may fail authentication with this key (RFC 9001 §6.6).
    pub fn integrity_limit(&self) -> u64 {
        self.suite.integrity_limit()
    }

    /// Verifies the tag, the last 16 bytes of `body`, over `aad` and the ciphertext before it. Nothing is decrypted
    /// except into the caller's `head`; the returned [`Opened`] decrypts range by range. `body` is not changed.
    /// Afterwards, `head` contains the first [`Opened::head_len`] bytes of the plaintext, or nothing useful if the
    /// packet is not authentic. It is memory of the caller because moving it would stall until it is written.
    ///
    /// The ciphertext is read here and again when it is decrypted, so nobody else may be able to write to `body` in
    /// between. Ports ensure this (`dpdk::PortProfile::copies_frames`).
    ///
    /// # Errors
    /// [`AuthError`] if the tag does not match, or if `body` is too short to contain one.
    #[inline(always)]
    pub fn open<'a>(
        &'a self,
        pn: u64,
        aad: &[u8],
        body: &'a mut [u8],
        head: &mut HeadRoom,
    ) -> Result<Opened<'a>, AuthError> {
        let nonce = self.iv.nonce(pn);
        #[cfg(feature = "in-place")]
        if let Some(in_place) = &self.in_place {
            let authentic = body.len() >= TAG_LEN && in_place.open(nonce, aad, body);
            let (ciphertext, _) = body.split_last_chunk::<TAG_LEN>().filter(|_| authentic).ok_or(AuthError)?;
            return Ok(Opened { cipher: &self.cipher, nonce, ciphertext, head_len: 0, plain: true });
        }
        let (ciphertext, tag) = body.split_last_chunk::<TAG_LEN>().ok_or(AuthError)?;
        let (ours, head_len) = self.cipher.tag_and_head(nonce, aad, ciphertext, head);
        let difference = u128::from_ne_bytes(ours) ^ u128::from_ne_bytes(*tag);
        if bool::from(difference.ct_eq(&0)) {
            #[cfg(feature = "in-place")]
            return Ok(Opened { cipher: &self.cipher, nonce, ciphertext, head_len, plain: false });
            #[cfg(not(feature = "in-place"))]
            return Ok(Opened { cipher: &self.cipher, nonce, ciphertext, head_len });
        }
        Err(AuthError)
    }

    /// Starts sealing `packet`: `packet[..start]` is the header before header protection, the last 16 bytes are for the
    /// tag, and the plaintext in between is passed to the [`Sealer`] piece by piece.
    ///
    /// # Panics
    /// If header and tag do not fit into `packet`.
    #[inline]
    pub fn seal<'a>(&'a self, pn: u64, packet: &'a mut [u8], start: usize) -> Sealer<'a> {
        assert!(start.checked_add(TAG_LEN).is_some_and(|n| n <= packet.len()), "header and tag fit into the packet");
        Sealer { sealing: self.cipher.sealing(self.iv.nonce(pn)), packet, start, pos: start }
    }

    /// The tag over `aad` alone (RFC 9001 §5.8).
    pub(super) fn tag_over(&self, aad: &[u8]) -> [u8; TAG_LEN] {
        self.cipher.tag(self.iv.nonce(0), aad, &[])
    }
}

impl core::fmt::Debug for PacketKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PacketKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// A packet whose tag was verified, still encrypted.
pub struct Opened<'a> {
    cipher: &'a Cipher,
    nonce: Nonce,
    ciphertext: &'a [u8],
    head_len: usize,
    /// Whether it was decrypted in place, so that there is no ciphertext any more.
    #[cfg(feature = "in-place")]
    plain: bool,
}

/// How the bytes of a packet get to their destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The cipher writes all of them there.
    Direct,
    /// The cipher writes whole blocks there; bytes before the first whole block go through a block on the stack.
    StagedEdge,
    /// They are decrypted in the packet and copied; in benchmarks only.
    Copied,
}

impl Opened<'_> {
    /// Length of the plaintext in bytes.
    pub fn len(&self) -> usize {
        self.ciphertext.len()
    }

    /// Whether the packet has no plaintext.
    pub fn is_empty(&self) -> bool {
        self.ciphertext.is_empty()
    }

    /// Number of plaintext bytes that were decrypted along with the tag, up to [`HEAD_LEN`](super::HEAD_LEN).
    #[inline]
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// How [`Opened::decrypt_at`] gets bytes to their destination.
    #[inline]
    pub fn way(&self) -> Way {
        #[cfg(feature = "in-place")]
        if self.plain {
            return Way::Copied;
        }
        if self.cipher.stages_edges() { Way::StagedEdge } else { Way::Direct }
    }

    /// Decrypts the `out.len()` bytes at plaintext offset `from` into `out`. Ranges may be decrypted in any order, and
    /// repeatedly. Writes each byte of `out` once, and nothing else. It is cheapest if `from` is a multiple of 16.
    ///
    /// # Panics
    /// If the range exceeds the plaintext.
    #[inline]
    pub fn decrypt_at(&self, from: usize, out: &mut [u8]) {
        let end = from.checked_add(out.len()).expect("range of a packet");
        let input = &self.ciphertext[from..end];
        #[cfg(feature = "in-place")]
        if self.plain {
            out.copy_from_slice(input);
            return;
        }
        self.cipher.apply(self.nonce, from, InOutBuf::new(input, out).expect("of one length"));
    }
}

impl core::fmt::Debug for Opened<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opened").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A packet being sealed.
#[must_use = "a packet without its tag is worthless: call finish"]
pub struct Sealer<'a> {
    sealing: Sealing<'a>,
    packet: &'a mut [u8],
    start: usize,
    pos: usize,
}

impl<'a> Sealer<'a> {
    /// Encrypts the next `n` bytes of plaintext, which are already in the packet.
    ///
    /// # Panics
    /// If they reach into the tag.
    #[inline]
    pub fn in_place(&mut self, n: usize) {
        self.encrypt(Piece::InPlace(n));
    }

    /// Encrypts `src`, the next bytes of plaintext, into the packet.
    ///
    /// # Panics
    /// If they reach into the tag.
    #[inline]
    pub fn copy_from(&mut self, src: &[u8]) {
        self.encrypt(Piece::From(src));
    }

    #[inline]
    fn encrypt(&mut self, piece: Piece<'_>) {
        let (n, room) = (piece.len(), self.packet.len() - TAG_LEN - self.pos);
        assert!(n <= room, "{n} bytes of plaintext for {room} bytes of packet");
        let from = self.pos - self.start;
        self.pos += n;
        let (aad, body) = self.packet.split_at_mut(self.start);
        let (body, tag) = body.split_last_chunk_mut::<TAG_LEN>().expect("checked by seal");
        self.sealing.encrypt(aad, body, tag, from, piece);
    }

    /// Writes the tag and returns the length of the packet.
    ///
    /// # Panics
    /// If plaintext is missing; the rest of the packet would be sent unencrypted under a valid tag.
    #[inline]
    pub fn finish(mut self) -> usize {
        self.lay_tag();
        self.packet.len()
    }

    #[inline]
    fn lay_tag(&mut self) {
        let (body, tag) = self.packet.split_last_chunk_mut::<TAG_LEN>().expect("checked by seal");
        assert!(self.pos == body.len(), "plaintext up to the tag");
        let (aad, ciphertext) = body.split_at(self.start);
        self.sealing.finish(aad, ciphertext, tag);
    }

    /// Like [`Sealer::finish`], and also returns the 16 bytes at `offset` of the packet for the header protection mask
    /// (RFC 9001 §5.4.2). The sealer must not be used afterwards; it is borrowed because moving it would stall until
    /// pending writes are done.
    ///
    /// # Panics
    /// If these bytes are not in the packet, or plaintext is missing.
    #[inline(always)]
    pub fn finish_and_sample(&mut self, offset: usize) -> (usize, [u8; SAMPLE_LEN]) {
        self.lay_tag();
        // Reading back what was just written is slow.
        let at_hand = offset
            .checked_sub(self.start)
            .filter(|from| from + SAMPLE_LEN + TAG_LEN + self.start <= self.packet.len())
            .and_then(|from| self.sealing.front()?.sample(from));
        let sample = match at_hand {
            Some(sample) => sample,
            None => *self.packet[offset..].first_chunk().expect("a sample fits into the packet"),
        };
        (self.packet.len(), sample)
    }
}

impl core::fmt::Debug for Sealer<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sealer").field("start", &self.start).field("pos", &self.pos).finish_non_exhaustive()
    }
}
