//! Checks an encoded histogram before it is decoded, so that a damaged or hostile file causes an error rather than a
//! panic or the allocation of gigabytes.

use std::io::Read;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

/// The first word of an encoded histogram.
const COOKIE: u32 = 0x1c84_9313;
/// The first word of a compressed histogram, followed by its length.
const COOKIE_COMPRESSED: u32 = 0x1c84_9314;
/// The length of the header before the counts, in bytes.
const HEADER: usize = 40;
/// The maximum size of an encoded histogram: latency histograms have at most 40 KB.
const MAX_ENCODED: u64 = 16 << 20;
/// The maximum count: no run has more requests.
const MAX_COUNT: u64 = 1 << 56;

/// The reason why an encoded histogram cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadHistogram {
    /// Not base64.
    #[error("the histogram is damaged: it is not base64 ({0})")]
    Base64(#[from] base64::DecodeError),
    /// Not zlib data.
    #[error("the histogram is damaged: it does not decompress ({0})")]
    Deflate(std::io::Error),
    /// Not the V2 encoding.
    #[error("the histogram is damaged, or not of HdrHistogram's V2 encoding")]
    NotV2,
    /// Too large.
    #[error("the histogram is damaged: it decompresses to more than {} MiB", MAX_ENCODED >> 20)]
    TooLarge,
    /// Inconsistent.
    #[error("the histogram is damaged: {0}")]
    Malformed(&'static str),
    /// Counts too large for any run.
    #[error("the histogram is damaged: it counts more values than any run can have")]
    TooMany,
    /// The decoder reported an error.
    #[error("the histogram is damaged: {0}")]
    Decode(#[from] hdrhistogram::serialization::DeserializeError),
}

/// Decodes a base64 V2 histogram, compressed or not.
pub fn histogram(base64: &str) -> Result<Histogram<u64>, BadHistogram> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64)?;
    let plain = match word(&bytes, 0) {
        Some(COOKIE) => bytes,
        Some(COOKIE_COMPRESSED) => inflate(bytes.get(8..).unwrap_or_default())?,
        _ => return Err(BadHistogram::NotV2),
    };
    check(&plain)?;
    Ok(Deserializer::new().deserialize(&mut plain.as_slice())?)
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, BadHistogram> {
    let mut out = Vec::new();
    flate2::read::ZlibDecoder::new(data).take(MAX_ENCODED + 1).read_to_end(&mut out).map_err(BadHistogram::Deflate)?;
    if out.len() as u64 > MAX_ENCODED { Err(BadHistogram::TooLarge) } else { Ok(out) }
}

/// The big-endian word at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

/// The big-endian double word at `at`.
fn double_word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)
}

/// Checks the header and the counts. Counts are zigzag LEB128; a negative one skips values.
fn check(bytes: &[u8]) -> Result<(), BadHistogram> {
    let header = (word(bytes, 0), word(bytes, 4), word(bytes, 12), double_word(bytes, 16), double_word(bytes, 24));
    let (Some(COOKIE), Some(len), Some(digits), Some(low), Some(high)) = header else {
        return Err(BadHistogram::NotV2);
    };
    let Some(mut rest) = bytes.get(HEADER..).filter(|rest| rest.len() == len as usize) else {
        return Err(BadHistogram::Malformed("its length does not match its header"));
    };
    // The highest value is used in shifts that must not overflow.
    if digits > 5 || low == 0 || low > 1 << 32 || high > i64::MAX as u64 {
        return Err(BadHistogram::Malformed("its bounds are invalid"));
    }
    let mut total = 0u64;
    while let Some(n) = varint(&mut rest)? {
        match n {
            i64::MIN..0 if n < i64::from(i32::MIN) => return Err(BadHistogram::Malformed("a gap is too wide")),
            i64::MIN..0 => {}
            n => total = total.saturating_add(n.unsigned_abs()),
        }
    }
    if total > MAX_COUNT { Err(BadHistogram::TooMany) } else { Ok(()) }
}

/// Takes one number from `rest`; `None` at its end. The ninth byte contributes all 8 bits.
fn varint(rest: &mut &[u8]) -> Result<Option<i64>, BadHistogram> {
    let mut n = 0u64;
    for (i, b) in rest.iter().enumerate().take(9) {
        let last = i == 8 || b & 0x80 == 0;
        n |= u64::from(if i == 8 { *b } else { b & 0x7f }) << (7 * i);
        if last {
            *rest = &rest[i + 1..];
            return Ok(Some((n >> 1) as i64 ^ -((n & 1) as i64)));
        }
    }
    if rest.is_empty() { Ok(None) } else { Err(BadHistogram::Malformed("it ends within a number")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer, V2Serializer};
    use proptest::prelude::*;

    fn sample() -> Histogram<u64> {
        let mut h = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        (0..1000u64).for_each(|n| h.record(n * n * 977).unwrap());
        h
    }

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        V2Serializer::new().serialize(&sample(), &mut out).unwrap();
        out
    }

    fn read(bytes: &[u8]) -> Result<Histogram<u64>, BadHistogram> {
        histogram(&base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    /// Computes all figures that reports use, to find any that panic on nonsense.
    fn use_it(h: &Histogram<u64>) -> u64 {
        let mut latency = crate::report::Latency::new();
        latency.merge_histogram(h);
        latency.summary().max
    }

    #[test]
    fn reads_plain_and_compressed() {
        assert_eq!(read(&encoded()).unwrap(), sample());
        let mut out = Vec::new();
        hdrhistogram::serialization::V2DeflateSerializer::new().serialize(&sample(), &mut out).unwrap();
        assert_eq!(read(&out).unwrap(), sample());
    }

    #[test]
    fn a_bomb_is_refused() {
        use std::io::Write;
        let mut zip = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zip.write_all(&vec![0; MAX_ENCODED as usize + 1]).unwrap();
        let mut bytes = COOKIE_COMPRESSED.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend(zip.finish().unwrap());
        assert!(matches!(read(&bytes), Err(BadHistogram::TooLarge)));
        // The same without compression: a length that would be allocated before anything is read.
        let mut bytes = encoded();
        bytes[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(read(&bytes), Err(BadHistogram::Malformed(_))));
    }

    #[test]
    fn counts_that_would_overflow_are_refused() {
        let mut bytes = encoded()[..HEADER].to_vec();
        // i64::MAX - 1, twice; then i64::MIN, whose negation overflows.
        for n in [[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [0xff; 9]] {
            bytes.truncate(HEADER);
            bytes.extend([n, n].concat());
            bytes[4..8].copy_from_slice(&18u32.to_be_bytes());
            assert!(read(&bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_harmless(at in 0usize..200, to in any::<u8>(), cut in proptest::option::of(0usize..200)) {
            let mut bytes = encoded();
            bytes[at] = to;
            if let Some(cut) = cut {
                bytes.truncate(cut);
                if let Some(len) = bytes.get_mut(4..8) {
                    len.copy_from_slice(&(cut.saturating_sub(HEADER) as u32).to_be_bytes());
                }
            }
            let _ = read(&bytes).map(|h| use_it(&h));
        }

        #[test]
        fn any_bounds_are_an_error_or_harmless(digits in 0u32..7, low in 0u32..64, high in 0u32..64, add in 0u64..3) {
            let mut bytes = encoded();
            bytes[12..16].copy_from_slice(&digits.to_be_bytes());
            bytes[16..24].copy_from_slice(&((1u64 << low) - 1 + add).to_be_bytes());
            bytes[24..32].copy_from_slice(&(1u64 << high).wrapping_sub(add).to_be_bytes());
            let _ = read(&bytes).map(|h| use_it(&h));
        }

        #[test]
        fn any_text_is_an_error_or_harmless(s in "[A-Za-z0-9+/]{0,80}={0,2}") {
            let _ = histogram(&s);
        }
    }
}
