//! Certificates and keys from files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as Syntax, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use thiserror::Error;

use super::words::explain_own;

/// Maximum number of bytes read from a file. A bundle of all public CAs has a quarter of a megabyte.
const MAX_FILE: u64 = 16 << 20;

/// Why a certificate or key file cannot be used.
#[derive(Debug, Error)]
pub enum PemError {
    /// The file could not be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file does not contain what it should.
    #[error("{} holds no {what} in PEM form{hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// What the file contains instead, and the remedy.
        hint: &'static str,
    },
    /// The private key is encrypted.
    #[error(
        "the private key in {path} is encrypted, which is not supported: `openssl pkey -in {path} -out \
         plain.pem` makes one that can be used", path = .0.display()
    )]
    Encrypted(PathBuf),
    /// The file is damaged or of another kind.
    #[error("{} is not usable: {reason}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let fail = |error| PemError::Read { path: path.into(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        let reason = format!("it has more than {} MiB, the limit for such files", MAX_FILE >> 20);
        return Err(PemError::Bad { path: path.into(), reason });
    }
    Ok(bytes)
}

/// Whether `text` occurs in `file`.
fn holds(file: &[u8], text: &str) -> bool {
    file.windows(text.len()).any(|part| part == text.as_bytes())
}

/// The error for a file without `what`, with a hint about its actual contents.
fn missing(path: &Path, file: &[u8], what: &'static str) -> PemError {
    let hint = if file.is_empty() {
        " (it is empty)"
    } else if what == "private key" && holds(file, "-----BEGIN CERTIFICATE") {
        ", but a certificate: pass the key file with --key"
    } else if what == "certificate" && holds(file, "PRIVATE KEY-----") {
        ", but a private key: pass the certificate file with --cert"
    } else if what == "certificate" && holds(file, "-----BEGIN CERTIFICATE REQUEST") {
        ", but a certificate request: use the certificate that the CA issued for it"
    } else if file.starts_with(&[0x30]) && what == "certificate" {
        " (it may be in DER form: `openssl x509 -inform der -in FILE -out cert.pem`)"
    } else if file.starts_with(&[0x30]) {
        " (it may be in DER form: `openssl pkey -inform der -in FILE -out key.pem`)"
    } else {
        " (it should have a line \"-----BEGIN ...\")"
    };
    PemError::Missing { path: path.into(), what, hint }
}

/// The error for an invalid PEM file.
fn bad(path: &Path, file: &[u8], what: &'static str, error: &Syntax) -> PemError {
    let text = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        line.trim_end().chars().take(60).collect::<String>().escape_debug().to_string()
    };
    let reason = match error {
        Syntax::NoItemsFound => return missing(path, file, what),
        Syntax::MissingSectionEnd { end_marker } => {
            format!("it ends before a line \"-----END {}-----\": a part of it is missing", text(end_marker))
        }
        Syntax::IllegalSectionStart { line } => {
            format!("the line \"{}\" should be like \"-----BEGIN ...-----\"", text(line))
        }
        Syntax::Base64Decode(_) => "the text between its BEGIN and END lines is not base64".into(),
        other => other.to_string(),
    };
    PemError::Bad { path: path.into(), reason }
}

/// Loads the certificates of a PEM file, in order.
///
/// # Errors
/// [`PemError`] names the file and what is wrong with it.
pub fn load_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let pem = read(path)?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certs = certs.map_err(|e| bad(path, &pem, "certificate", &e))?;
    if certs.is_empty() { Err(missing(path, &pem, "certificate")) } else { Ok(certs) }
}

/// Loads the private key of a PEM file.
///
/// # Errors
/// [`PemError`] names the file and what is wrong with it.
pub fn load_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| {
        // PKCS #8 (RFC 7468 §11), and the older form with headers before the key (RFC 1421 §4.6).
        if holds(&pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(&pem, "Proc-Type: 4,ENCRYPTED") {
            PemError::Encrypted(path.into())
        } else {
            bad(path, &pem, "private key", &e)
        }
    })
}

/// Loads the CA certificates of a PEM file as trusted roots.
///
/// # Errors
/// [`PemError`] names the file and what is wrong with it.
pub fn load_roots(path: &Path) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for cert in load_certs(path)? {
        roots.add(cert).map_err(|e| PemError::Bad { path: path.into(), reason: explain_own(&e) })?;
    }
    Ok(roots)
}

/// Loads the certificate revocation lists of a PEM file.
///
/// # Errors
/// [`PemError`] names the file and what is wrong with it.
pub fn load_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    const WHAT: &str = "certificate revocation list";
    let pem = read(path)?;
    let crls: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let crls = crls.map_err(|e| bad(path, &pem, WHAT, &e))?;
    if crls.is_empty() { Err(missing(path, &pem, WHAT)) } else { Ok(crls) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: &str = include_str!("../../sim/cert.pem");
    const KEY: &str = include_str!("../../sim/key.pem");

    /// Before 2026-11-28, an encrypted key was reported as "no private key", and lines as lists of numbers.
    #[test]
    fn every_bad_file_is_told_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.pem");
        let (cut, line) = (&CERT[..CERT.len() / 2], "-----BEGIN CERTIFICATE\n");
        let encrypted = KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                   -----END RSA PRIVATE KEY-----\n";
        let spoilt = CERT.replacen("\nMI", "\n!!", 1);
        for (key, content, parts) in [
            (true, encrypted.as_str(), &["is encrypted", "openssl pkey -in"][..]),
            (true, old, &["is encrypted"]),
            (true, CERT, &["holds no private key", "but a certificate", "--key"]),
            (false, KEY, &["holds no certificate", "but a private key", "--cert"]),
            (false, "", &["it is empty"]),
            (false, "hello", &["-----BEGIN ..."]),
            (false, "\u{30}\u{1}der", &["openssl x509 -inform der"]),
            (false, cut, &["ends before a line \"-----END CERTIFICATE-----\""]),
            (false, line, &["the line \"-----BEGIN CERTIFICATE\""]),
            (false, &spoilt, &["not base64"]),
        ] {
            std::fs::write(&path, content).unwrap();
            let said = if key {
                load_private_key(&path).unwrap_err().to_string()
            } else {
                load_certs(&path).unwrap_err().to_string()
            };
            for part in [&["f.pem"], parts].concat() {
                assert!(said.contains(part), "{part} is not in: {said}");
            }
            assert!(!said.contains("[4"), "{said}");
        }
        let said = load_certs(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(said.contains("/dev/zero") && said.contains("more than 16 MiB"), "{said}");
    }
}
