//! What frames and capsules have in common: headers and payloads that arrive in pieces.

use crate::wire::h3::frame::FrameHeader;

/// A header that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: [u8; FrameHeader::MAX_LEN],
    len: u8,
}

impl Head {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; FrameHeader::MAX_LEN], len: 0 }
    }

    /// The next header, taken from the front of `piece`, as soon as all of it is there.
    pub(super) fn next(&mut self, piece: &mut &[u8]) -> Option<FrameHeader> {
        if self.is_empty()
            && let Some((header, len)) = FrameHeader::decode(piece)
        {
            *piece = &piece[len..];
            return Some(header);
        }
        // Cannot run over: 16 bytes contain a header.
        while let Some((byte, rest)) = piece.split_first() {
            *piece = rest;
            self.bytes[self.held()] = *byte;
            self.len += 1;
            if let Some((header, _)) = FrameHeader::decode(&self.bytes[..self.held()]) {
                self.len = 0;
                return Some(header);
            }
        }
        None
    }

    /// Whether no header has begun.
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bytes held.
    pub(super) const fn held(&self) -> usize {
        self.len as usize
    }
}

/// A payload that is wanted whole: borrowed from the piece if it lies in one, otherwise collected.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// The first bytes, if it arrives in pieces.
    bytes: Vec<u8>,
    /// Whether they were handed out, so that they can be freed.
    spent: bool,
}

impl Payload {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), spent: false }
    }

    /// Frees what was handed out. Due before anything else is read.
    pub(super) fn recycle(&mut self) {
        if self.spent {
            *self = Self::new();
        }
    }

    /// The payload of `len` bytes, taken from the front of `piece`, as soon as all of it is there.
    pub(super) fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8], len: usize) -> Option<&'a [u8]> {
        let missing = len - self.bytes.len();
        let part = take(piece, missing as u64);
        if self.bytes.is_empty() && part.len() == missing {
            return Some(part);
        }
        append(&mut self.bytes, part, len);
        self.spent = part.len() == missing;
        self.spent.then_some(&self.bytes)
    }

    /// Memory held, in bytes.
    pub(super) const fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Up to `most` bytes from the front of `piece`.
pub(super) fn take<'a>(piece: &mut &'a [u8], most: u64) -> &'a [u8] {
    let n = usize::try_from(most).unwrap_or(usize::MAX).min(piece.len());
    let (taken, rest) = piece.split_at(n);
    *piece = rest;
    taken
}

/// Appends `part` to `held`, which is to become `total` bytes long: never room for more, and never much more room than
/// has arrived, whatever length the peer announced.
fn append(held: &mut Vec<u8>, part: &[u8], total: usize) {
    let needed = held.len() + part.len();
    if needed > held.capacity() {
        let room = needed.max(held.capacity().saturating_mul(2)).min(total.max(needed));
        held.reserve_exact(room - held.len());
    }
    held.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_what_arrives() {
        let (mut held, mut moved) = (Vec::new(), 0);
        for n in 1..=10_000 {
            let before = held.capacity();
            append(&mut held, b"x", 10_000);
            moved += usize::from(held.capacity() != before);
            assert!(held.len() == n && held.capacity() <= (2 * n).min(10_000));
        }
        assert!(moved < 20, "{moved} allocations");
    }
}
