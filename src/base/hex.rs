//! Bytes as hexadecimal digits.

use std::fmt::Write;

/// The digits of `bytes`, in lower case, without separators.
pub fn encode(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The bytes that `text` describes by two digits each, in either case, which may all be separated by colons. `None` if
/// it is anything else, or empty.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let width = width(text);
    let mut bytes = vec![0; (text.len() + width - 2) / width];
    (!bytes.is_empty() && decode_into(text, &mut bytes)).then_some(bytes)
}

/// Like [`decode`], for exactly as many bytes as `bytes` has. Returns `false` if `text` is anything else; `bytes` may have
/// changed then. Nothing is allocated, and no copy is left behind.
#[must_use]
pub fn decode_into(text: &[u8], bytes: &mut [u8]) -> bool {
    let width = width(text);
    // There is one colon less than there are pairs.
    if text.len() + width - 2 != bytes.len() * width {
        return false;
    }
    bytes.iter_mut().zip(text.chunks(width)).all(|(byte, pair)| {
        let [high, low] = [0, 1].map(|i| char::from(pair[i]).to_digit(16));
        let (Some(high), Some(low)) = (high, low) else { return false };
        *byte = (high << 4 | low) as u8;
        pair.get(2).is_none_or(|separator| *separator == b':')
    })
}

/// The number of characters of each byte but the last.
fn width(text: &[u8]) -> usize {
    if text.contains(&b':') { 3 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_bytes() {
        assert_eq!(encode(&[0x00, 0x0a, 0xff]), "000aff");
        for text in ["000aff", "000AfF", "00:0a:ff"] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(&[0x00, 0x0a, 0xff][..]), "{text}");
        }
        assert_eq!(decode(b"7f"), Some(vec![0x7f]));
        let wrong = [
            "", ":", "0", "00f", "0x", "g0", "00:", ":00", "0:00", "00:0aff", "000a:ff", "00::0a", "00:0", "00-0a",
            "+0",
        ];
        for text in wrong {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
        let mut two = [0; 2];
        assert!(decode_into(b"01:02", &mut two) && two == [1, 2]);
        assert!(!decode_into(b"01", &mut two) && !decode_into(b"010203", &mut two));
    }
}
