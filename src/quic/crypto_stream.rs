//! The CRYPTO byte streams of the handshake (RFC 9000 §7.5, §19.6), one per packet number space.

use std::ops::Range;

use crate::base::range_set::RangeSet;
use crate::wire::quic::TransportError;

/// Bytes beyond what TLS has read that are kept (RFC 9000 §7.5 asks for at least 4096).
const MAX_BUFFERED: u64 = 64 << 10;

/// Pieces that buffered bytes may lie scattered in. Clients that shuffle their first flight make some.
const MAX_PIECES: usize = 256;

/// Handshake bytes to send. They are few, so they are kept until their space is discarded.
#[derive(Debug, Default)]
pub(crate) struct CryptoSend {
    data: Vec<u8>,
    next: u64,
    lost: RangeSet,
    acked: RangeSet,
}

impl CryptoSend {
    /// Where TLS appends its output.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.lost.is_empty() || self.next < self.data.len() as u64
    }

    /// The next range to send, at most `max` bytes.
    pub(crate) fn pick(&self, max: usize) -> Option<Range<u64>> {
        let range = match self.lost.first() {
            Some(lost) => lost.start..lost.end.min(lost.start + max as u64),
            None => self.next..(self.data.len() as u64).min(self.next + max as u64),
        };
        (!range.is_empty()).then_some(range)
    }

    pub(crate) fn bytes(&self, range: &Range<u64>) -> &[u8] {
        &self.data[range.start as usize..range.end as usize]
    }

    pub(crate) fn sent(&mut self, range: &Range<u64>) {
        if range.start == self.next {
            self.next = range.end;
        } else {
            self.lost.remove(range.clone());
        }
    }

    pub(crate) fn on_acked(&mut self, range: Range<u64>) {
        self.lost.remove(range.clone());
        self.acked.insert(range);
    }

    pub(crate) fn on_lost(&mut self, range: Range<u64>) {
        for missing in self.acked.missing_in(range) {
            self.lost.insert(missing);
        }
    }

    /// Everything that the peer may not have, as one range.
    pub(crate) fn unacked(&self) -> Range<u64> {
        let end = self.data.len() as u64;
        self.acked.missing_in(0..end).next().map_or(end, |gap| gap.start)..end
    }

    /// Sends everything again (after a Retry).
    pub(crate) fn restart(&mut self) {
        self.next = 0;
        self.lost.clear();
        self.acked.clear();
    }
}

/// Handshake bytes received, possibly out of order.
#[derive(Debug, Default)]
pub(crate) struct CryptoRecv {
    /// `data[0]` has offset `base`; gaps hold zeros until filled.
    data: Vec<u8>,
    base: u64,
    received: RangeSet,
}

impl CryptoRecv {
    /// Takes a CRYPTO frame in.
    pub(crate) fn insert(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TransportError> {
        let end = offset + bytes.len() as u64;
        if end > self.base + MAX_BUFFERED {
            return Err(TransportError::CRYPTO_BUFFER_EXCEEDED);
        }
        if end <= self.base {
            return Ok(());
        }
        let skip = self.base.saturating_sub(offset) as usize;
        let start = (offset + skip as u64 - self.base) as usize;
        let bytes = &bytes[skip..];
        if self.data.len() < start + bytes.len() {
            self.data.resize(start + bytes.len(), 0);
        }
        let range = self.base + start as u64..end;
        for missing in self.received.missing_in(range.clone()) {
            let at = (missing.start - self.base) as usize;
            let from = (missing.start - range.start) as usize;
            let n = (missing.end - missing.start) as usize;
            self.data[at..at + n].copy_from_slice(&bytes[from..from + n]);
        }
        self.received.insert(range);
        if self.received.len() > MAX_PIECES {
            return Err(TransportError::CRYPTO_BUFFER_EXCEEDED);
        }
        Ok(())
    }

    /// The bytes that are in order and were not taken yet, if any.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let first = self.received.first().filter(|r| r.start == self.base)?;
        let n = (first.end - first.start) as usize;
        self.received.remove(first.clone());
        self.base = first.end;
        let rest = self.data.split_off(n);
        Some(std::mem::replace(&mut self.data, rest))
    }

    /// Whether bytes lie behind a gap (an error when the space's keys change, RFC 9001 §4.1.3).
    pub(crate) fn has_gap(&self) -> bool {
        !self.received.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reorders_and_bounds() {
        let mut r = CryptoRecv::default();
        r.insert(3, b"def").unwrap();
        assert_eq!(r.take(), None);
        r.insert(0, b"abcd").unwrap();
        assert_eq!(r.take().unwrap(), b"abcdef");
        r.insert(2, b"cdefgh").unwrap();
        assert_eq!(r.take().unwrap(), b"gh");
        assert!(!r.has_gap());
        assert_eq!(r.insert(8 + MAX_BUFFERED, b"x"), Err(TransportError::CRYPTO_BUFFER_EXCEEDED));
        let pieces = (0..).take_while(|n| r.insert(10 + 2 * n, b"x").is_ok()).count();
        assert_eq!(pieces, MAX_PIECES);
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
    }
}
