//! A simple model of a stream with provided buffers: a vector of bytes, a flag for each, and the sizes of the buffers.

use std::ops::Range;

use gannet::wire::quic::TransportError;

/// Initial contents of provided memory.
pub const POISON: u8 = 0xa5;

/// The byte that copy `copy` of a frame has at `offset`, so that overwriting by a retransmission is detected.
pub fn byte(offset: u64, copy: u8) -> u8 {
    (offset as u8 ^ (offset >> 8) as u8).wrapping_mul(31).wrapping_add(copy.wrapping_mul(77)) & 0x7f
}

/// The receiving end of one stream.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The byte at each offset, from the first frame that contained it.
    bytes: Vec<Option<u8>>,
    /// Highest offset that a frame reached.
    pub high: u64,
    pub size: Option<u64>,
    /// Offset and length of each buffer owned by the engine, in order.
    pub out: Vec<(u64, usize)>,
    /// Bytes provided so far.
    pub provided: u64,
}

impl Model {
    pub fn provide(&mut self, sizes: &[usize]) {
        for len in sizes {
            self.out.push((self.provided, *len));
            self.provided += *len as u64;
        }
    }

    /// A frame arrives; returns the error that it must cause, if any (RFC 9000 §4.1, §4.5).
    pub fn data(&mut self, range: &Range<u64>, fin: bool, copy: u8) -> Result<(), TransportError> {
        if let Some(size) = self.size {
            if range.end > size || (fin && range.end != size) {
                return Err(TransportError::FINAL_SIZE_ERROR);
            }
        } else if fin && range.end < self.high {
            return Err(TransportError::FINAL_SIZE_ERROR);
        }
        if range.end > self.limit() {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        if fin {
            self.size = Some(range.end);
        }
        self.high = self.high.max(range.end);
        self.bytes.resize(self.bytes.len().max(range.end as usize), None);
        for at in range.clone() {
            self.bytes[at as usize].get_or_insert(byte(at, copy));
        }
        Ok(())
    }

    /// The peer's limit: one byte more than was provided, so that it can reach its end.
    pub fn limit(&self) -> u64 {
        if self.provided > 0 { self.provided + 1 } else { 0 }
    }

    /// Number of contiguous bytes from the start for which there is memory.
    pub fn contiguous(&self) -> u64 {
        let there = self.bytes.iter().position(Option::is_none).unwrap_or(self.bytes.len()) as u64;
        there.min(self.provided)
    }

    pub fn is_complete(&self) -> bool {
        self.size == Some(self.contiguous())
    }

    /// Checks the contents of a returned buffer: `valid` bytes of the stream, followed by nothing that did not arrive.
    pub fn check(&self, buf: &[u8], offset: u64, valid: usize) {
        let contiguous = self.contiguous().saturating_sub(offset).min(buf.len() as u64) as usize;
        assert_eq!(valid, contiguous, "valid bytes of the buffer at {offset}");
        for (at, b) in (offset..).zip(buf) {
            let want = self.bytes.get(at as usize).copied().flatten().unwrap_or(POISON);
            assert_eq!(*b, want, "the byte at {at} (buffer at {offset}, {valid} valid)");
        }
    }
}
