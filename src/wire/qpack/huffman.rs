//! The Huffman code of string literals (RFC 7541 §5.2, Appendix B).
//!
//! The code is canonical: codes of one length are consecutive in the order of their symbols and follow the shorter ones.
//! So the lengths say everything, and the tables are made of them when this is compiled.

use crate::wire::qpack::error::Fault;

/// Number of symbols: the octets and EOS.
const SYMBOLS: usize = 257;
/// The symbol that ends a string, and must not occur.
const EOS: u16 = 256;
/// Length of the longest codes in bits.
pub const LONGEST: usize = 30;
/// Length of the codes that are found with one look, in bits.
const QUICK: u32 = 8;

/// Lengths of the codes in bits (RFC 7541 Appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11,
    10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8,
    15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
    23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21,
    23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25,
    26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26,
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// What the lengths say.
struct Tables {
    /// The code of each symbol, in the low bits.
    codes: [u32; SYMBOLS],
    /// The symbols in the order of their codes.
    sorted: [u16; SYMBOLS],
    /// The symbol and code length for the next 8 bits; the length is 0 if the code is longer.
    quick: [(u8, u8); 1 << QUICK],
    /// For each length, the first code above those of this length, moved to the top of 32 bits.
    limits: [u64; LONGEST + 1],
    /// For each length, its first code.
    first: [u32; LONGEST + 1],
    /// For each length, the index of its first symbol in `sorted`.
    offset: [u16; LONGEST + 1],
}

impl Tables {
    const fn new() -> Self {
        let mut this = Self {
            codes: [0; SYMBOLS],
            sorted: [0; SYMBOLS],
            quick: [(0, 0); 1 << QUICK],
            limits: [0; LONGEST + 1],
            first: [0; LONGEST + 1],
            offset: [0; LONGEST + 1],
        };
        let (mut code, mut at, mut len) = (0u32, 0, 1);
        while len <= LONGEST {
            code <<= 1;
            this.first[len] = code;
            this.offset[len] = at as u16;
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as usize == len {
                    this.codes[symbol] = code;
                    this.sorted[at] = symbol as u16;
                    if len <= QUICK as usize {
                        let spare = QUICK - len as u32;
                        let mut low = 0;
                        while low < 1 << spare {
                            this.quick[(code as usize) << spare | low] = (symbol as u8, len as u8);
                            low += 1;
                        }
                    }
                    at += 1;
                    code += 1;
                }
                symbol += 1;
            }
            this.limits[len] = (code as u64) << (32 - len);
            len += 1;
        }
        this
    }
}

static TABLES: Tables = Tables::new();

/// Why a string is not decoded further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is invalid.
    Invalid,
    /// It is longer than allowed.
    TooLong,
}

/// Least number of octets that a code of `len` octets stands for, as every code has up to 30 bits and padding up to 7.
pub const fn least_decoded(len: u64) -> u64 {
    (len * 8).saturating_sub(7).div_ceil(LONGEST as u64)
}

/// The state between two pieces of a string.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    /// Its low `count` bits are not yet decoded.
    bits: u64,
    count: u32,
}

impl Decoder {
    /// Decodes the next piece and appends its octets to `out`, until that is `end` octets long.
    pub fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>, end: usize) -> Result<(), Stop> {
        loop {
            while let Some((octet, rest)) = piece.split_first().filter(|_| self.count <= 56) {
                self.bits = self.bits << 8 | u64::from(*octet);
                self.count += 8;
                piece = rest;
            }
            // What remains is less than the longest code.
            while let Some(symbol) = self.next() {
                if symbol == EOS {
                    return Err(Stop::Invalid);
                }
                if out.len() >= end {
                    return Err(Stop::TooLong);
                }
                out.push(symbol as u8);
            }
            if piece.is_empty() {
                return Ok(());
            }
        }
    }

    /// The next symbol whose code is complete.
    #[inline]
    fn next(&mut self) -> Option<u16> {
        if self.count == 0 {
            return None;
        }
        // Zeros behind the bits do not matter: a code that is complete is found by its own bits.
        let top = (self.bits << (64 - self.count) >> 32) as u32;
        let (symbol, len) = match TABLES.quick[(top >> (32 - QUICK)) as usize] {
            (_, 0) => Self::long(top),
            (symbol, len) => (symbol.into(), len.into()),
        };
        self.count = self.count.checked_sub(len)?;
        Some(symbol)
    }

    /// The symbol and length of the code at the top, of more than 8 bits.
    #[cold]
    fn long(top: u32) -> (u16, u32) {
        let mut len = QUICK as usize + 1;
        while u64::from(top) >= TABLES.limits[len] && len < LONGEST {
            len += 1;
        }
        let index = (top >> (32 - len)) - TABLES.first[len];
        (TABLES.sorted[usize::from(TABLES.offset[len]) + index as usize], len as u32)
    }

    /// Checks what is left at the end of a string: less than 8 bits, all ones.
    pub const fn finish(self) -> Result<(), Fault> {
        let ones = (1 << self.count) - 1;
        if self.count < 8 && self.bits & ones == ones { Ok(()) } else { Err(Fault::Huffman) }
    }
}

/// Length of the code of `text` in octets.
pub fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|octet| usize::from(LENGTHS[usize::from(*octet)])).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0u32);
    for octet in text {
        let len = u32::from(LENGTHS[usize::from(*octet)]);
        bits = bits << len | u64::from(TABLES.codes[usize::from(*octet)]);
        count += len;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    while count >= 8 {
        count -= 8;
        out.push((bits >> count) as u8);
    }
    if count > 0 {
        out.push((bits << (8 - count)) as u8 | 0xff >> count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(code: &[u8]) -> Result<Vec<u8>, Stop> {
        let mut out = Vec::new();
        let mut decoder = Decoder::default();
        decoder.push(code, &mut out, usize::MAX)?;
        decoder.finish().map_err(|_| Stop::Invalid)?;
        Ok(out)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        assert_eq!(out.len(), encoded_len(text));
        out
    }

    /// A few lines of RFC 7541 Appendix B, of all kinds.
    #[test]
    fn codes_of_the_table() {
        let cases = [
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (22, 0x3fff_fffe, 30),
            (32, 0x14, 6),
            (48, 0, 5),
            (92, 0x7fff0, 19),
            (122, 0x7b, 7),
            (127, 0xfff_fffc, 28),
            (128, 0xf_ffe6, 20),
            (199, 0x1ff_ffec, 25),
            (249, 0xfff_fffe, 28),
            (255, 0x3ff_ffee, 26),
            (256, 0x3fff_ffff, 30),
        ];
        for (symbol, code, len) in cases {
            assert_eq!((TABLES.codes[symbol], LENGTHS[symbol]), (code, len), "symbol {symbol}");
        }
        let kraft: u64 = LENGTHS.iter().map(|len| 1u64 << (LONGEST - usize::from(*len))).sum();
        assert_eq!(kraft, 1 << LONGEST, "the code is complete");
    }

    /// RFC 7541 C.4 and C.6.
    #[test]
    fn strings_of_rfc_7541() {
        let cases: [(&str, &[u8]); 13] = [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-key", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f]),
            ("custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]),
            ("302", &[0x64, 0x02]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                &[
                    0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66,
                    0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
                ],
            ),
            (
                "https://www.example.com",
                &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3],
            ),
            ("307", &[0x64, 0x0e, 0xff]),
            (
                "Mon, 21 Oct 2013 20:13:22 GMT",
                &[
                    0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66,
                    0xe0, 0x84, 0xa6, 0x2d, 0x1b, 0xff,
                ],
            ),
            ("gzip", &[0x9b, 0xd9, 0xab]),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                &[
                    0x94, 0xe7, 0x82, 0x1d, 0xd7, 0xf2, 0xe6, 0xc7, 0xb3, 0x35, 0xdf, 0xdf, 0xcd, 0x5b, 0x39, 0x60,
                    0xd5, 0xaf, 0x27, 0x08, 0x7f, 0x36, 0x72, 0xc1, 0xab, 0x27, 0x0f, 0xb5, 0x29, 0x1f, 0x95, 0x87,
                    0x31, 0x60, 0x65, 0xc0, 0x03, 0xed, 0x4e, 0xe5, 0xb1, 0x06, 0x3d, 0x50, 0x07,
                ],
            ),
            ("", &[]),
        ];
        for (text, code) in cases {
            assert_eq!(encoded(text.as_bytes()), code, "{text}");
            assert_eq!(decode(code).as_deref(), Ok(text.as_bytes()), "{text}");
        }
    }

    /// "A padding strictly longer than 7 bits MUST be treated as a decoding error", as must other padding than ones,
    /// and EOS.
    #[test]
    fn invalid_codes() {
        // '0' is 00000.
        assert_eq!(decode(&[0b0000_0111]).as_deref(), Ok(&b"0"[..]));
        assert_eq!(decode(&[0b0000_0111, 0xff]), Err(Stop::Invalid), "11 bits of padding");
        assert_eq!(decode(&[0b0000_0110]), Err(Stop::Invalid), "a zero in the padding");
        assert_eq!(decode(&[0xff]), Err(Stop::Invalid), "8 bits of padding");
        assert_eq!(decode(&[0xff; 4]), Err(Stop::Invalid), "EOS");
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xf8]), Err(Stop::Invalid), "a long code, then zeros");
        // 'X' has 8 bits: no padding at all.
        assert_eq!(decode(&[0xfc]).as_deref(), Ok(&b"X"[..]));
    }

    #[test]
    fn each_octet_alone_and_in_company() {
        for octet in 0..=255u8 {
            for text in [vec![octet], vec![octet; 9], vec![b'a', octet, b'b', octet]] {
                assert_eq!(decode(&encoded(&text)), Ok(text));
            }
            assert!(least_decoded(encoded_len(&[octet]) as u64) <= 1);
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in proptest::collection::vec(any::<u8>(), 0..80), at in any::<proptest::sample::Index>()) {
            let code = encoded(&text);
            prop_assert!(least_decoded(code.len() as u64) <= text.len() as u64);
            let cut = at.index(code.len() + 1);
            let (mut out, mut decoder) = (Vec::new(), Decoder::default());
            decoder.push(&code[..cut], &mut out, text.len()).unwrap();
            decoder.push(&code[cut..], &mut out, text.len()).unwrap();
            decoder.finish().unwrap();
            prop_assert_eq!(&out, &text);
            if !text.is_empty() {
                let mut short = Vec::new();
                prop_assert_eq!(Decoder::default().push(&code, &mut short, text.len() - 1), Err(Stop::TooLong));
                prop_assert_eq!(&short[..], &text[..text.len() - 1]);
            }
        }

        /// Each string has only one code.
        #[test]
        fn what_is_decoded_is_encoded_as_it_was(code in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(text) = decode(&code) {
                prop_assert_eq!(encoded(&text), code);
            }
        }
    }
}
