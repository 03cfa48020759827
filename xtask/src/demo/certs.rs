//! A certificate authority and a server certificate, created for each demo.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::wire::SERVER_IP;
use crate::error::{Error, Result};

/// The PEM files.
#[derive(Debug)]
pub struct Paths {
    /// The CA that the client trusts.
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
}

struct Pems {
    ca: String,
    cert: String,
    key: String,
}

/// Creates both certificates, for [`SERVER_IP`], and writes them to `dir`.
///
/// # Errors
/// If a file cannot be written.
pub fn make(dir: &Path) -> Result<Paths> {
    make_for(dir, &[SERVER_IP])
}

/// Creates both certificates for a server with these addresses.
///
/// # Errors
/// If a file cannot be written.
pub fn make_for(dir: &Path, addresses: &[&str]) -> Result<Paths> {
    let pems = generate(addresses).map_err(|error| Error::Unmet(format!("cannot create certificates: {error}")))?;
    let paths = Paths { ca: dir.join("ca.pem"), cert: dir.join("server.pem"), key: dir.join("server.key") };
    fs::write(&paths.ca, pems.ca).map_err(Error::path("write", &paths.ca))?;
    fs::write(&paths.cert, pems.cert).map_err(Error::path("write", &paths.cert))?;
    write_private(&paths.key, &pems.key).map_err(Error::path("write", &paths.key))?;
    Ok(paths)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn generate(addresses: &[&str]) -> std::result::Result<Pems, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new([])?;
    authority.distinguished_name.push(DnType::CommonName, "Gannet demo authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = authority.self_signed(&ca_key)?;

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(
        [addresses, &["localhost"]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>(),
    )?;
    server.distinguished_name.push(DnType::CommonName, "Gannet demo server");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let cert = server.signed_by(&key, &Issuer::new(authority, ca_key))?;
    Ok(Pems { ca: ca.pem(), cert: cert.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let paths = make(dir.path()).unwrap();
        assert_eq!(fs::metadata(&paths.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&paths.key).unwrap().contains("PRIVATE KEY"));
        assert_ne!(fs::read(&paths.ca).unwrap(), fs::read(&paths.cert).unwrap());
        // Overwrite the old ones.
        make(dir.path()).unwrap();
    }
}
