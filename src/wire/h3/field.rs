//! What names and values of fields may contain (RFC 9110 §5, RFC 9114 §4.2), and how much they count.

use crate::wire::qpack;

/// A field line: name and value.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// What a field line counts for in a field section, in bytes (RFC 9114 §4.2.2).
pub const fn size(name: &[u8], value: &[u8]) -> u64 {
    (name.len() + value.len() + qpack::OVERHEAD) as u64
}

/// What a field section counts for, in bytes (RFC 9114 §4.2.2).
pub fn section_size<'a>(fields: impl IntoIterator<Item = Field<'a>>) -> u64 {
    fields.into_iter().map(|(name, value)| size(name, value)).sum()
}

/// Bit of [`CLASS`]: the character may be in a token (RFC 9110 §5.6.2).
const TOKEN: u8 = 1;
/// Bit of [`CLASS`]: the character may be in a value (RFC 9110 §5.5).
const VALUE: u8 = 2;
/// Bit of [`CLASS`]: the character may be in a name, which is a token in lower case (RFC 9114 §4.2).
const NAME: u8 = 4;

/// What each byte is good for.
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let token = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        class[at] = if token { TOKEN } else { 0 };
        class[at] |= if token && !byte.is_ascii_uppercase() { NAME } else { 0 };
        class[at] |= if matches!(byte, b'\t' | 0x20..=0x7e | 0x80..) { VALUE } else { 0 };
        at += 1;
    }
    class
};

#[inline]
fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|byte| CLASS[usize::from(*byte)] & class != 0)
}

/// Whether it is a token (RFC 9110 §5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether it is the name of a field in HTTP/3: a token without upper case (RFC 9114 §4.2).
pub fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, NAME)
}

/// Whether it is the value of a field: no control characters but tabs, and no whitespace around it (RFC 9110 §5.5).
pub fn is_value(bytes: &[u8]) -> bool {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    all(bytes, VALUE) && !space(bytes.first()) && !space(bytes.last())
}

/// Whether the field is about a connection of HTTP/1.1 and prohibited (RFC 9114 §4.2). `te` is judged by its value.
pub fn is_of_connection(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade")
}

/// The number in `value`: digits only (RFC 9110 §8.6).
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether it is a URI's scheme (RFC 3986 §3.1).
pub fn is_scheme(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Whether every byte is a visible ASCII character, as in a URI, and none is in `but`.
fn is_visible_but(bytes: &[u8], but: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_graphic() && !but.contains(byte))
}

/// Whether it can be the authority of an `http` or `https` URI: no delimiters of other parts, no user information
/// (RFC 3986 §3.2, RFC 9114 §4.3.1).
pub fn is_authority(bytes: &[u8]) -> bool {
    !bytes.is_empty() && is_visible_but(bytes, b"/?#@\\\"<>^`{|}")
}

/// Whether it is host and port, as CONNECT wants them (RFC 9110 §7.1).
pub fn is_host_and_port(bytes: &[u8]) -> bool {
    let Some(colon) = bytes.iter().rposition(|byte| *byte == b':') else { return false };
    let (host, port) = (&bytes[..colon], &bytes[colon + 1..]);
    is_authority(host) && content_length(port).is_some_and(|port| port <= u64::from(u16::MAX))
}

/// Whether it can be path and query of a URI: no fragment, nothing invisible (RFC 3986 §3.3, §3.4).
pub fn is_path(bytes: &[u8]) -> bool {
    is_visible_but(bytes, b"#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_names_and_values() {
        for byte in 0..=255u8 {
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(&[byte]), token, "0x{byte:x}");
            assert_eq!(is_name(&[b'a', byte]), token && !byte.is_ascii_uppercase(), "0x{byte:x}");
            let value = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
            assert_eq!(is_value(&[b'a', byte, b'b']), value, "0x{byte:x}");
        }
        assert!(!is_token(b"") && !is_name(b"") && is_value(b""));
        assert!(!is_value(b" a") && !is_value(b"a ") && !is_value(b"\ta") && !is_value(b"a\t") && !is_value(b" "));
    }

    #[test]
    fn lengths_are_digits() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"0042"), Some(42));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", "1 ", "1,1", "0x1", "1.0", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn parts_of_uris() {
        assert!(["https", "a+b-c.d1"].iter().all(|s| is_scheme(s.as_bytes())));
        assert!(!["", "1a", "-", "ht tp", "http:"].iter().any(|s| is_scheme(s.as_bytes())));
        assert!(["a", "a:1", "[::1]:443", "1.2.3.4", "a%20b"].iter().all(|s| is_authority(s.as_bytes())));
        assert!(!["", "u@a", "a/b", "a b", "a?b", "a#b", "a\\b", "\u{e9}"].iter().any(|s| is_authority(s.as_bytes())));
        assert!(["a:1", "[::1]:443"].iter().all(|s| is_host_and_port(s.as_bytes())));
        assert!(!["a", "a:", ":1", "a:b", "a:65536", "[::1]"].iter().any(|s| is_host_and_port(s.as_bytes())));
        assert!(["/", "*", "/a?b=c/%2e"].iter().all(|s| is_path(s.as_bytes())));
        assert!(!["/a b", "/a#b", "/\0", "/\r\n", "/\u{e9}"].iter().any(|s| is_path(s.as_bytes())));
    }

    #[test]
    fn sizes_are_the_rfcs() {
        assert_eq!(section_size([(&b"a"[..], &b"bc"[..]), (b"", b"")]), 67);
    }
}
