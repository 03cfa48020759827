//! The CRYPTO byte streams of the handshake (RFC 9000 §7.5, §19.6), one per packet number space.

use std::ops::Range;

use crate::base::range_set::RangeSet;
use crate::quic::recovery::SpaceId;
use crate::wire::quic::TransportError;

/// Limits on the CRYPTO data of a space that is kept for TLS, which reads in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// Maximum number of bytes beyond what TLS has read (RFC 9000 §7.5 requires at least 4096).
    bytes: u64,
    /// Maximum number of pieces. Clients that shuffle their first flight make several.
    pieces: usize,
}

impl Bounds {
    /// Initial packets come from anyone, so a server's memory for them is available to addresses that are not
    /// validated. Only the handshake has long messages, certificates; session tickets follow later.
    const fn of(space: SpaceId) -> Self {
        match space {
            SpaceId::Initial => Self { bytes: 8 << 10, pieces: 64 },
            SpaceId::Handshake => Self { bytes: 64 << 10, pieces: 256 },
            SpaceId::Data => Self { bytes: 16 << 10, pieces: 64 },
        }
    }
}

/// Handshake bytes to send. They are freed when all are acknowledged or their space is discarded.
#[derive(Debug, Default)]
pub(crate) struct CryptoSend {
    /// Number of bytes that were sent, acknowledged and freed.
    base: u64,
    state: Option<Box<Sending>>,
}

#[derive(Debug, Default)]
struct Sending {
    /// `data[0]` is at `base` of the stream; the other numbers are offsets in `data`.
    data: Vec<u8>,
    next: u64,
    lost: RangeSet,
    acked: RangeSet,
}

impl Sending {
    fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// The next range to send, at most `max` bytes.
    fn pick(&self, max: usize) -> Range<u64> {
        match self.lost.first() {
            Some(lost) => lost.start..lost.end.min(lost.start + max as u64),
            None => self.next..self.len().min(self.next + max as u64),
        }
    }
}

impl CryptoSend {
    /// The buffer to which TLS appends its output.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.state.get_or_insert_default().data
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.state.as_ref().is_some_and(|s| !s.lost.is_empty() || s.next < s.len())
    }

    /// The next range to send, at most `max` bytes.
    pub(crate) fn pick(&self, max: usize) -> Option<Range<u64>> {
        let range = self.state.as_ref()?.pick(max);
        (!range.is_empty()).then(|| self.base + range.start..self.base + range.end)
    }

    pub(crate) fn bytes(&self, range: &Range<u64>) -> &[u8] {
        let range = self.inner(range.clone());
        let data = self.state.as_ref().map_or(&[][..], |s| &s.data);
        &data[range.start as usize..range.end as usize]
    }

    /// Converts `range` to offsets in the kept data.
    fn inner(&self, range: Range<u64>) -> Range<u64> {
        range.start.saturating_sub(self.base)..range.end.saturating_sub(self.base)
    }

    pub(crate) fn sent(&mut self, range: &Range<u64>) {
        let range = self.inner(range.clone());
        let Some(s) = &mut self.state else { return };
        if range.start == s.next {
            s.next = range.end;
        } else {
            s.lost.remove(range);
        }
    }

    pub(crate) fn on_acked(&mut self, range: Range<u64>) {
        let range = self.inner(range);
        let Some(s) = &mut self.state else { return };
        s.lost.remove(range.clone());
        s.acked.insert(range);
        if s.acked.first() == Some(0..s.len()) {
            self.base += s.len();
            self.state = None;
        }
    }

    pub(crate) fn on_lost(&mut self, range: Range<u64>) {
        let range = self.inner(range);
        let Some(s) = &mut self.state else { return };
        for missing in s.acked.missing_in(range) {
            s.lost.insert(missing);
        }
    }

    /// Everything not acknowledged, as one range.
    pub(crate) fn unacked(&self) -> Range<u64> {
        let Some(s) = &self.state else { return self.base..self.base };
        let from = s.acked.missing_in(0..s.len()).next().map_or(s.len(), |gap| gap.start);
        self.base + from..self.base + s.len()
    }

    /// Sends everything again, after a Retry.
    pub(crate) fn restart(&mut self) {
        if let Some(s) = &mut self.state {
            s.next = 0;
            s.lost.clear();
            s.acked.clear();
        }
    }

    /// Frees memory while there is nothing to send.
    pub(crate) fn trim(&mut self) {
        self.state.take_if(|s| s.data.is_empty());
    }
}

/// Handshake bytes received, possibly out of order.
#[derive(Debug, Default)]
pub(crate) struct CryptoRecv {
    /// Number of bytes that TLS has read.
    base: u64,
    state: Option<Box<Receiving>>,
}

/// Bytes that TLS has not read.
#[derive(Debug, Default)]
struct Receiving {
    /// `data[0]` is at `base` of the stream; gaps hold zeros until filled.
    data: Vec<u8>,
    received: RangeSet,
}

impl CryptoRecv {
    /// Stores the data of a CRYPTO frame of `space`.
    ///
    /// # Errors
    /// `CRYPTO_BUFFER_EXCEEDED` if more would have to be kept than the space may (RFC 9000 §7.5).
    pub(crate) fn insert(&mut self, space: SpaceId, offset: u64, bytes: &[u8]) -> Result<(), TransportError> {
        let bounds = Bounds::of(space);
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.base + bounds.bytes {
            return Err(TransportError::CRYPTO_BUFFER_EXCEEDED);
        }
        if end <= self.base {
            return Ok(());
        }
        let skip = self.base.saturating_sub(offset) as usize;
        let start = (offset + skip as u64 - self.base) as usize;
        let bytes = &bytes[skip..];
        if bytes.is_empty() {
            return Ok(());
        }
        let state = self.state.get_or_insert_default();
        if state.data.len() < start + bytes.len() {
            state.data.resize(start + bytes.len(), 0);
        }
        let range = self.base + start as u64..end;
        for missing in state.received.missing_in(range.clone()) {
            let at = (missing.start - self.base) as usize;
            let from = (missing.start - range.start) as usize;
            let n = (missing.end - missing.start) as usize;
            state.data[at..at + n].copy_from_slice(&bytes[from..from + n]);
        }
        state.received.insert(range);
        if state.received.len() > bounds.pieces {
            return Err(TransportError::CRYPTO_BUFFER_EXCEEDED);
        }
        Ok(())
    }

    /// Takes the bytes in order, if any.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let state = self.state.as_mut()?;
        let first = state.received.first().filter(|r| r.start == self.base)?;
        let n = (first.end - first.start) as usize;
        state.received.remove(first.clone());
        self.base = first.end;
        let rest = state.data.split_off(n);
        let taken = std::mem::replace(&mut state.data, rest);
        if state.received.is_empty() {
            self.state = None;
        }
        Some(taken)
    }

    /// Whether bytes follow a gap, which is an error when the space's keys change (RFC 9001 §4.1.3).
    pub(crate) fn has_gap(&self) -> bool {
        self.state.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reorders() {
        let mut r = CryptoRecv::default();
        let space = SpaceId::Initial;
        r.insert(space, 3, b"def").unwrap();
        assert_eq!(r.take(), None);
        r.insert(space, 0, b"abcd").unwrap();
        assert_eq!(r.take().unwrap(), b"abcdef");
        r.insert(space, 2, b"cdefgh").unwrap();
        assert_eq!(r.take().unwrap(), b"gh");
        assert!(!r.has_gap());
        r.insert(space, 9, b"").unwrap();
        assert!(!r.has_gap(), "no bytes, no memory");
    }

    #[test]
    fn keeps_so_many_bytes_and_pieces_and_no_more() {
        for (space, bytes, pieces) in
            [(SpaceId::Initial, 8192, 64), (SpaceId::Handshake, 65_536, 256), (SpaceId::Data, 16_384, 64)]
        {
            let full = || {
                let mut r = CryptoRecv::default();
                r.insert(space, 0, b"12345678").unwrap();
                assert_eq!(r.take().unwrap().len(), 8);
                r
            };
            let exceeded = Err(TransportError::CRYPTO_BUFFER_EXCEEDED);
            assert_eq!(full().insert(space, 8 + bytes, b"x"), exceeded);
            assert_eq!(full().insert(space, u64::MAX, b"x"), exceeded);
            assert_eq!(full().insert(space, 8, &vec![0; bytes as usize + 1]), exceeded);
            assert_eq!(full().insert(space, 8 + bytes - 1, b"x"), Ok(()));
            let mut r = full();
            let scattered = (0..).take_while(|n| r.insert(space, 10 + 2 * n, b"x").is_ok()).count();
            assert_eq!(scattered, pieces);
            // The bytes and the list of pieces.
            let state = r.state.as_ref().unwrap();
            let held = state.data.capacity() + state.received.heap_bytes();
            assert!(held <= bytes as usize + 48 * (pieces + 1), "{held} bytes");
        }
    }

    #[test]
    fn sends_lost_ranges_again() {
        let mut s = CryptoSend::default();
        s.buffer().extend_from_slice(b"0123456789");
        let a = s.pick(6).unwrap();
        s.sent(&a);
        let b = s.pick(6).unwrap();
        s.sent(&b);
        assert_eq!((a.clone(), b.clone()), (0..6, 6..10));
        s.on_acked(2..4);
        s.on_lost(a);
        assert_eq!(s.pick(100), Some(0..2));
        s.sent(&(0..2));
        assert_eq!(s.pick(100), Some(4..6));
        s.sent(&(4..6));
        assert!(!s.has_pending());
        s.on_acked(0..8);
        assert_eq!((s.unacked(), s.state.is_some()), (8..10, true));
        s.on_acked(8..10);
        assert!(s.state.is_none(), "nothing is kept of what has arrived");
        s.on_lost(0..10);
        s.on_acked(3..5);
        assert_eq!((s.pick(100), s.unacked()), (None, 10..10));
        s.buffer().extend_from_slice(b"abc");
        assert_eq!((s.pick(2), s.bytes(&(11..13))), (Some(10..12), &b"bc"[..]));
        s.sent(&(10..12));
        s.on_lost(9..12);
        assert_eq!(s.pick(100), Some(10..12));
    }
}
