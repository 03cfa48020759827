//! The key that QUIC-LB load balancers share with their servers, stored in a file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::secret::{exposed, open_regular};
use crate::base::hex;

/// Length of the key in bytes.
const LEN: usize = 16;

/// Maximum length of a file, in bytes: more than any form of a key has.
const MAX_FILE: u64 = 256;

/// Why a key could not be loaded from its file.
#[derive(Debug, Error)]
pub enum LbKeyError {
    /// The file could not be read.
    #[error("cannot read the QUIC-LB key {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The path is a directory, a device or a pipe.
    #[error("the QUIC-LB key {} is not a regular file", .0.display())]
    NoFile(PathBuf),
    /// The file does not contain a key.
    #[error("the QUIC-LB key {} has {found}: it must have 16 bytes, or 32 hexadecimal digits", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What it contains instead, without any of it.
        found: String,
    },
}

/// A key that QUIC-LB load balancers share with their servers ([`CidConfig::routed`]).
///
/// It is erased when dropped and never displayed.
///
/// [`CidConfig::routed`]: crate::quic::CidConfig::routed
pub struct LbKey {
    /// The key.
    pub key: Zeroizing<[u8; LEN]>,
    /// The permission bits of the file, if users other than its owner may read or write it. Whoever knows the key can
    /// tell which server a connection is on, and thus which addresses belong to the same client.
    pub exposed: Option<u32>,
}

impl std::fmt::Debug for LbKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LbKey").field("exposed", &self.exposed).finish_non_exhaustive()
    }
}

/// Loads a key from the file at `path`: 16 bytes, or 32 hexadecimal digits, also in pairs with colons between them as in
/// QUIC-LB's YANG model (draft-ietf-quic-load-balancers-21, Appendix A), and with white space around them.
///
/// # Errors
/// [`LbKeyError`].
pub fn lb_key_file(path: &Path) -> Result<LbKey, LbKeyError> {
    let failed = |error| LbKeyError::Io { path: path.to_owned(), error };
    let opened = open_regular(path).map_err(failed)?;
    let (file, metadata) = opened.ok_or_else(|| LbKeyError::NoFile(path.to_owned()))?;
    let form = |found| LbKeyError::Form { path: path.to_owned(), found };
    if metadata.len() > MAX_FILE {
        return Err(form(format!("{} bytes", metadata.len())));
    }
    // The vector never grows, which would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    let key = parse(&bytes).map_err(form)?;
    Ok(LbKey { key, exposed: exposed(&metadata) })
}

/// The key in the contents of a file, or what these are instead.
fn parse(bytes: &[u8]) -> Result<Zeroizing<[u8; LEN]>, String> {
    // Filled in place: a temporary copy would not be erased.
    let mut key = Zeroizing::new([0; LEN]);
    let text = bytes.trim_ascii();
    let is_hex = !text.is_empty() && text.iter().all(|b| b.is_ascii_hexdigit() || *b == b':');
    if !is_hex {
        return match bytes.len() {
            LEN => {
                key.copy_from_slice(bytes);
                Ok(key)
            }
            1 => Err("1 byte".to_owned()),
            len => Err(format!("{len} bytes, not all of them hexadecimal digits")),
        };
    }
    let digits = text.iter().filter(|b| **b != b':').count();
    if digits != 2 * LEN {
        return Err(format!("{digits} hexadecimal digit{}", if digits == 1 { "" } else { "s" }));
    }
    if !hex::decode_into(text, &mut *key) {
        return Err("colons that are not between pairs of digits".to_owned());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: [u8; 16] =
        [0x8f, 0x95, 0xf0, 0x92, 0x45, 0x76, 0x5f, 0x80, 0x25, 0x69, 0x34, 0xe5, 0x0c, 0x66, 0x20, 0x7f];
    const DIGITS: &str = "8f95f09245765f80256934e50c66207f";
    const PAIRS: &str = "8f:95:f0:92:45:76:5f:80:25:69:34:e5:0c:66:20:7f";

    #[test]
    fn a_key_is_bytes_or_digits() {
        let upper = DIGITS.to_uppercase();
        for text in [&KEY[..], DIGITS.as_bytes(), PAIRS.as_bytes(), upper.as_bytes()] {
            assert_eq!(parse(text).map(|key| *key), Ok(KEY));
        }
        assert_eq!(parse(format!(" {DIGITS}\r\n").as_bytes()).map(|key| *key), Ok(KEY));
        // White space in a key of bytes belongs to it.
        assert_eq!(parse(b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n").map(|key| *key), Ok([b'\n'; 16]));
    }

    #[test]
    fn what_is_no_key_is_named_and_not_shown() {
        let pair = &PAIRS[..44];
        for (text, part) in [
            (String::new(), "0 bytes"),
            ("x".into(), "1 byte"),
            ("a".into(), "1 hexadecimal digit"),
            // Bytes or half the digits: more likely the latter.
            (DIGITS[..16].into(), "16 hexadecimal digits"),
            (DIGITS[..31].into(), "31 hexadecimal digits"),
            (format!("{DIGITS}00"), "34 hexadecimal digits"),
            (format!("0x{DIGITS}"), "34 bytes, not all of them hexadecimal digits"),
            (format!("{}g", &DIGITS[..31]), "32 bytes, not all"),
            ("0123456789abcdef\n-".into(), "18 bytes, not all"),
            (pair.into(), "30 hexadecimal digits"),
            (format!("{PAIRS}:"), "colons"),
            (format!(":{PAIRS}"), "colons"),
            (PAIRS.replacen("8f:95:", "8:f95:", 1), "colons"),
            (DIGITS.replacen("8f", "8f:", 1), "colons"),
        ] {
            let why = parse(text.as_bytes()).expect_err(&text);
            assert!(why.contains(part), "{text}: {why}");
            assert!(!why.contains("8f") && !why.contains("0123"), "{why}");
        }
    }

    #[test]
    fn files_are_read_whole_and_their_rights_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, DIGITS).unwrap();
        for (mode, exposed) in [(0o600, None), (0o400, None), (0o640, Some(0o640)), (0o602, Some(0o602))] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let key = lb_key_file(&path).unwrap();
            assert_eq!((*key.key, key.exposed), (KEY, exposed));
            let shown = format!("{key:?}");
            assert!(!shown.contains("143") && !shown.to_lowercase().contains("8f"), "{shown}");
        }
        fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        let why = lb_key_file(&path).unwrap_err();
        assert!(matches!(&why, LbKeyError::Form { found, .. } if found == "1048576 bytes"), "{why}");
        assert!(why.to_string().contains("16 bytes, or 32 hexadecimal digits"), "{why}");
        assert!(matches!(lb_key_file(dir.path()), Err(LbKeyError::NoFile(_))));
        assert!(matches!(lb_key_file(Path::new("/dev/zero")), Err(LbKeyError::NoFile(_))));
        assert!(matches!(lb_key_file(&dir.path().join("none")), Err(LbKeyError::Io { .. })));
    }
}
