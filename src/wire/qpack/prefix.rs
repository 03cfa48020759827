//! Prefixed integers and string literals (RFC 9204 §4.1, RFC 7541 §5).

use crate::wire::qpack::error::Fault;
use crate::wire::qpack::huffman;
use crate::wire::quic::varint;

/// An integer whose octets are read one after another.
#[derive(Clone, Copy, Debug)]
pub struct Integer {
    value: u64,
    /// Position of the next octet's bits.
    shift: u32,
    complete: bool,
}

impl Integer {
    /// Starts with the octet whose low `bits` bits are the prefix.
    pub const fn start(octet: u8, bits: u32) -> Self {
        let mask = u8::MAX >> (8 - bits);
        let prefix = octet & mask;
        Self { value: prefix as u64, shift: 0, complete: prefix != mask }
    }

    /// Adds the next octet.
    pub const fn push(&mut self, octet: u8) -> Result<(), Fault> {
        // 9 octets hold 62 bits, even less a prefix. Zeros that follow are not worth reading.
        if self.shift > 56 {
            return Err(Fault::IntegerTooLarge);
        }
        self.value += ((octet & 0x7f) as u64) << self.shift;
        self.shift += 7;
        self.complete = octet & 0x80 == 0;
        if self.value > varint::MAX { Err(Fault::IntegerTooLarge) } else { Ok(()) }
    }

    /// The value, when the last octet has been read.
    pub const fn value(&self) -> Option<u64> {
        if self.complete { Some(self.value) } else { None }
    }
}

/// A string literal as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Literal<'a> {
    /// Whether the octets are a Huffman code.
    pub huffman: bool,
    /// The octets.
    pub octets: &'a [u8],
}

/// Reads from the front of an encoded field section.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// A cursor at the front of `section`.
    pub const fn new(section: &'a [u8]) -> Self {
        Self(section)
    }

    /// The next octet, without taking it.
    pub fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn octet(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.0.split_first().ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer with a prefix of `bits` bits.
    #[inline]
    pub fn integer(&mut self, bits: u32) -> Result<u64, Fault> {
        let mut integer = Integer::start(self.octet()?, bits);
        loop {
            if let Some(value) = integer.value() {
                return Ok(value);
            }
            integer.push(self.octet()?)?;
        }
    }

    /// A string literal with a prefix of `bits` bits, of which the first is the Huffman flag.
    pub fn literal(&mut self, bits: u32) -> Result<Literal<'a>, Fault> {
        let huffman = self.peek().ok_or(Fault::Truncated)? & 1 << (bits - 1) != 0;
        let len = self.integer(bits - 1)?;
        let split = usize::try_from(len).ok().and_then(|len| self.0.split_at_checked(len));
        let (octets, rest) = split.ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(Literal { huffman, octets })
    }
}

/// Appends an integer with a prefix of `bits` bits. `flags` are the other bits of the first octet.
pub fn put_integer(out: &mut Vec<u8>, flags: u8, bits: u32, value: u64) {
    let mask = u8::MAX >> (8 - bits);
    if value < u64::from(mask) {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask);
    let mut rest = value - u64::from(mask);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string literal with a prefix of `bits` bits, as a Huffman code if that is shorter. `flags` are the other
/// bits of the first octet.
pub fn put_literal(out: &mut Vec<u8>, flags: u8, bits: u32, text: &[u8]) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        put_integer(out, flags | 1 << (bits - 1), bits - 1, coded as u64);
        huffman::encode(text, out);
    } else {
        put_integer(out, flags, bits - 1, text.len() as u64);
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn coded(bits: u32, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_integer(&mut out, 0, bits, value);
        out
    }

    #[test]
    fn examples_of_rfc_7541_c1() {
        assert_eq!(coded(5, 10), [0b01010]);
        assert_eq!(coded(5, 1337), [0b11111, 0b10011010, 0b00001010]);
        assert_eq!(coded(8, 42), [42]);
        assert_eq!(Cursor::new(&[0b111_11111, 0b10011010, 0b00001010]).integer(5), Ok(1337));
    }

    proptest! {
        #[test]
        fn integers_survive(value in prop_oneof![0..600u64, 0..=varint::MAX], bits in 1..=8u32) {
            let bytes = coded(bits, value);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.integer(bits), Ok(value));
            prop_assert_eq!(cursor.peek(), None);
            for cut in 0..bytes.len() {
                prop_assert_eq!(Cursor::new(&bytes[..cut]).integer(bits), Err(Fault::Truncated));
            }
        }
    }

    #[test]
    fn integers_of_62_bits_are_the_largest() {
        for bits in 1..=8 {
            assert_eq!(Cursor::new(&coded(bits, varint::MAX)).integer(bits), Ok(varint::MAX));
            for value in [varint::MAX + 1, u64::MAX] {
                assert_eq!(Cursor::new(&coded(bits, value)).integer(bits), Err(Fault::IntegerTooLarge));
            }
            let mut zeros = vec![0xff; 1];
            zeros.extend([0x80; 9]);
            zeros.push(0);
            assert_eq!(Cursor::new(&zeros).integer(bits), Err(Fault::IntegerTooLarge), "an octet too many");
            zeros.remove(1);
            assert_eq!(Cursor::new(&zeros).integer(bits), Ok((1 << bits) - 1), "not the shortest form, but allowed");
        }
    }

    #[test]
    fn literals_are_as_long_as_they_say() {
        let literal = Cursor::new(&[0b1110_0011, b'a', b'b', b'c', b'd']).literal(4).unwrap();
        assert_eq!((literal.huffman, literal.octets), (false, &b"abc"[..]));
        assert!(Cursor::new(&[0b1000_0001, 0x1f]).literal(8).unwrap().huffman);
        for short in [&[][..], &[3, b'a', b'b'], &[0x7f], &[0x7f, 0x80]] {
            assert_eq!(Cursor::new(short).literal(8).unwrap_err(), Fault::Truncated);
        }
    }
}
