//! Variable-length integers (RFC 9000 §16) and cursors over byte slices.

/// Maximum value: 2^62-1.
pub const MAX: u64 = (1 << 62) - 1;

/// Encoded length of `value` in bytes. Values above [`MAX`] have no encoding and count as 8 bytes.
pub const fn size(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Reads from the front of a slice. Each read returns `None` if the slice is too short.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the front of `data`.
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0 }
    }

    /// Number of bytes read so far.
    pub const fn position(&self) -> usize {
        self.pos
    }

    /// Number of bytes left.
    pub const fn remaining(&self) -> usize {
        self.data.len() - self.pos
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Everything that is left, without taking it.
    pub fn rest(&self) -> &'a [u8] {
        &self.data[self.pos..]
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let end = self.pos.checked_add(n)?;
        let bytes = self.data.get(self.pos..end)?;
        self.pos = end;
        Some(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.first_chunk().copied()
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// The next two bytes, big-endian.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next four bytes, big-endian.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next variable-length integer.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        // Eight available bytes are read at once, whatever the length, and excess ones are discarded.
        if let Some(bytes) = self.data[self.pos..].first_chunk::<8>() {
            let len = 1 << (bytes[0] >> 6);
            self.pos += len;
            return Some(u64::from_be_bytes(*bytes) << 2 >> (66 - 8 * len));
        }
        let first = *self.data.get(self.pos)?;
        let len = 1 << (first >> 6);
        let bytes = self.bytes(len)?;
        let head = u64::from(first & 0x3f);
        Some(bytes[1..].iter().fold(head, |value, b| value << 8 | u64::from(*b)))
    }

    /// Bytes preceded by their length as a variable-length integer.
    pub fn prefixed(&mut self) -> Option<&'a [u8]> {
        let n = self.varint()?;
        self.bytes(usize::try_from(n).ok()?)
    }
}

/// Writes to the front of a slice. Writes that do not fit are skipped, and [`Writer::finish`] reports them.
#[derive(Debug)]
pub struct Writer<'a> {
    data: &'a mut [u8],
    pos: usize,
    /// Whether a write was skipped.
    incomplete: bool,
}

impl<'a> Writer<'a> {
    /// A writer at the front of `data`.
    pub const fn new(data: &'a mut [u8]) -> Self {
        Self { data, pos: 0, incomplete: false }
    }

    /// Number of bytes written so far.
    pub const fn position(&self) -> usize {
        self.pos
    }

    /// Number of bytes left.
    pub const fn remaining(&self) -> usize {
        self.data.len() - self.pos
    }

    /// Number of bytes written. `None` if any write did not fit, or had a value without an encoding; the contents of
    /// the slice are then useless.
    #[must_use = "None means that something did not fit"]
    pub const fn finish(&self) -> Option<usize> {
        if self.incomplete { None } else { Some(self.pos) }
    }

    /// The next `n` bytes to write to, if there are as many.
    #[inline(always)]
    fn next(&mut self, n: usize) -> Option<&mut [u8]> {
        let rest = self.data.get_mut(self.pos..).and_then(|rest| rest.get_mut(..n));
        match rest {
            Some(_) => self.pos += n,
            None => self.incomplete = true,
        }
        rest
    }

    /// Appends bytes.
    #[inline(always)]
    pub fn bytes(&mut self, bytes: &[u8]) {
        if let Some(next) = self.next(bytes.len()) {
            next.copy_from_slice(bytes);
        }
    }

    /// Appends `n` zero bytes.
    pub fn zeros(&mut self, n: usize) {
        if let Some(next) = self.next(n) {
            next.fill(0);
        }
    }

    /// Appends a byte.
    #[inline(always)]
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends two bytes, big-endian.
    #[inline(always)]
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends four bytes, big-endian.
    #[inline(always)]
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a variable-length integer in its shortest form.
    #[inline(always)]
    pub fn varint(&mut self, value: u64) {
        match value {
            0..=0x3f => self.u8(value as u8),
            0x40..=0x3fff => self.u16(0x4000 | value as u16),
            0x4000..=0x3fff_ffff => self.u32(0x8000_0000 | value as u32),
            0x4000_0000..=MAX => self.bytes(&(0xc000_0000_0000_0000 | value).to_be_bytes()),
            _ => self.incomplete = true,
        }
    }

    /// Appends a variable-length integer in its longest form, of 8 bytes (RFC 9000 §16).
    pub fn long_varint(&mut self, value: u64) {
        match value {
            0..=MAX => self.bytes(&(0xc000_0000_0000_0000 | value).to_be_bytes()),
            _ => self.incomplete = true,
        }
    }

    /// Appends bytes preceded by their length as a variable-length integer.
    pub fn prefixed(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }

    /// Appends bytes preceded by their length in one byte, as connection IDs are (RFC 8999 §5.1).
    #[inline]
    pub fn short(&mut self, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.u8(len),
            Err(_) => self.incomplete = true,
        }
        self.bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_of_rfc_9000_a1() {
        let cases: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(Reader::new(bytes).varint(), Some(value));
            assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).varint(), None);
        }
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX) {
            let mut buf = [0; 8];
            let mut w = Writer::new(&mut buf);
            w.varint(value);
            let n = w.finish().unwrap();
            prop_assert_eq!(n, size(value));
            let mut r = Reader::new(&buf[..n]);
            prop_assert_eq!(r.varint(), Some(value));
            prop_assert!(r.is_empty());
            let mut short = Writer::new(&mut buf[..n - 1]);
            short.varint(value);
            prop_assert_eq!((short.finish(), short.position()), (None, 0));
        }
    }

    #[test]
    fn what_does_not_fit_is_told_in_the_end() {
        let mut buf = [0; 4];
        let mut w = Writer::new(&mut buf);
        w.bytes(b"abc");
        w.bytes(b"defg");
        w.u8(b'h');
        assert_eq!((w.finish(), w.position(), w.remaining()), (None, 4, 0), "shorter writes may still fit");
        assert_eq!(&buf, b"abch");
        let refused = |write: &dyn Fn(&mut Writer<'_>)| {
            let mut buf = [0; 600];
            let mut w = Writer::new(&mut buf);
            write(&mut w);
            w.finish().is_none()
        };
        assert!(refused(&|w| w.varint(MAX + 1)) && refused(&|w| w.varint(u64::MAX)));
        assert!(refused(&|w| w.zeros(601)) && refused(&|w| w.zeros(usize::MAX)) && !refused(&|w| w.zeros(600)));
        assert!(refused(&|w| w.short(&[0; 256])) && !refused(&|w| w.short(&[0; 255])));
    }
}
