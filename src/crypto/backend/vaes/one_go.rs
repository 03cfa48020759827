//! The encryption of a packet, in a single pass for typical packets.

use super::WIDTH;
use super::gcm::{Gcm, seal};
use crate::crypto::backend::{Front, Piece};
use crate::crypto::layout::TAG_LEN;
use crate::crypto::nonce::Nonce;

/// A packet that is sealed when its last piece arrives, if only frame headers precede it.
pub(in crate::crypto) struct OneGo<'a, const KEYS: usize> {
    gcm: &'a Gcm<KEYS>,
    nonce: Nonce,
    /// Number of bytes at the beginning of the body that are not encrypted yet.
    head: usize,
    /// The front of the ciphertext, once the last piece is encrypted and the tag is written.
    front: Option<Front>,
}

impl<const KEYS: usize> Gcm<KEYS> {
    /// Starts sealing a packet.
    #[inline]
    pub(in crate::crypto) fn one_go(&self, nonce: Nonce) -> OneGo<'_, KEYS> {
        OneGo::new(self, nonce)
    }
}

impl<'a, const KEYS: usize> OneGo<'a, KEYS> {
    #[inline]
    fn new(gcm: &'a Gcm<KEYS>, nonce: Nonce) -> Self {
        Self { gcm, nonce, head: 0, front: None }
    }

    /// Encrypts the next piece of plaintext, or defers it to the next one; it belongs at offset `from` of `body`. The
    /// tag is written with the last piece, if possible.
    #[inline]
    pub(in crate::crypto) fn encrypt(
        &mut self,
        aad: &[u8],
        body: &mut [u8],
        tag: &mut [u8; TAG_LEN],
        from: usize,
        piece: Piece<'_>,
    ) {
        if piece.len() == 0 {
            return;
        }
        let end = from + piece.len();
        if end == body.len() && from == self.head {
            let rest = match piece {
                Piece::InPlace(_) => None,
                Piece::From(src) => Some(src),
            };
            // SAFETY: there is a key, so the CPU has the instructions.
            self.front = Some(unsafe { seal(self.gcm, self.nonce, aad, body, from, rest, tag) });
            self.head = 0;
            return;
        }
        if let Piece::InPlace(n) = piece
            && from == 0
            && n <= WIDTH
        {
            self.head = n;
            return;
        }
        let head = std::mem::take(&mut self.head);
        self.gcm.apply(self.nonce, 0, (&mut body[..head]).into());
        self.gcm.apply(self.nonce, from, piece.data(&mut body[from..end]));
    }

    /// The front of the ciphertext, if available.
    #[inline]
    pub(in crate::crypto) fn front(&self) -> Option<Front> {
        self.front
    }

    /// Writes the tag, if it was not written with the last piece.
    #[inline]
    pub(in crate::crypto) fn finish(&mut self, aad: &[u8], ciphertext: &[u8], tag: &mut [u8; TAG_LEN]) {
        if self.front.is_none() {
            *tag = self.gcm.tag(self.nonce, aad, ciphertext);
        }
    }
}
