//! A certificate authority for one test and a certificate for all addresses of a wire.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Subject alternative names of the leaf: both ends of every wire. rcgen turns addresses into IP entries.
const NAMES: [&str; 6] = ["10.9.0.1", "10.9.0.2", "fd00::1", "fd00::2", "gannet.test", "localhost"];

/// The files of a certificate authority and of a leaf (both ECDSA P-256).
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate, PEM: what a client trusts.
    pub ca: PathBuf,
    /// The leaf's certificate, PEM: what a server shows.
    pub cert: PathBuf,
    /// The leaf's private key, PEM.
    pub key: PathBuf,
}

impl Pki {
    /// Makes new keys and certificates and writes them into `dir` as `NAME-ca.pem`, `NAME-cert.pem`, `NAME-key.pem`.
    ///
    /// # Panics
    /// When they cannot be made or written.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self::with_names(dir, name, &NAMES)
    }

    /// The same for a leaf with other subject alternative names.
    ///
    /// # Panics
    /// When they cannot be made or written.
    pub fn with_names(dir: &Path, name: &str, alternatives: &[&str]) -> Self {
        let pki = Self {
            ca: dir.join(format!("{name}-ca.pem")),
            cert: dir.join(format!("{name}-cert.pem")),
            key: dir.join(format!("{name}-key.pem")),
        };
        let (ca, cert, key) = generate(name, alternatives).expect("certificates");
        for (path, pem) in [(&pki.ca, ca), (&pki.cert, cert), (&pki.key, key)] {
            fs::write(path, pem).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        }
        pki
    }
}

/// The PEM texts of the authority, the leaf and the leaf's key.
fn generate(name: &str, alternatives: &[&str]) -> Result<(String, String, String), rcgen::Error> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, format!("Gannet test authority {name}"));
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let mut leaf = CertificateParams::new(alternatives.iter().map(|&n| n.to_owned()).collect::<Vec<_>>())?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.distinguished_name.push(DnType::CommonName, "gannet.test");
    let key = KeyPair::generate()?;
    let cert = leaf.signed_by(&key, &issuer)?.pem();
    Ok((ca_pem, cert, key.serialize_pem()))
}
