//! Certificates of the lab's server.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::error::{About, Result};

/// Subject alternative names of the server.
const NAMES: [&str; 7] = ["10.9.0.1", "fd00::1", "server", "server4", "server6", "server46", "localhost"];

/// Names that make a certificate so large that a server cannot send it before the client's address is validated.
const MANY: usize = 60;

/// PEM files.
#[derive(Clone, Debug)]
pub struct Certs {
    /// The authority.
    pub ca: PathBuf,
    /// The server's chain.
    pub cert: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

impl Certs {
    /// Makes keys and certificates in `dir`, as quic-interop-runner names them. A `big` chain has more than 5000 bytes.
    ///
    /// # Errors
    /// If they cannot be made or written.
    pub fn new(dir: &Path, big: bool) -> Result<Self> {
        let certs = Self { ca: dir.join("ca.pem"), cert: dir.join("cert.pem"), key: dir.join("priv.key") };
        let [ca, cert, key] = generate(big).about(|| "certificates".into())?;
        for (path, pem) in [(&certs.ca, ca), (&certs.cert, cert), (&certs.key, key)] {
            fs::write(path, pem).about(|| path.display().to_string())?;
        }
        Ok(certs)
    }
}

fn authority(name: &str, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

/// The PEM texts of the authority, the chain and the key.
fn generate(big: bool) -> std::result::Result<[String; 3], rcgen::Error> {
    let (root_key, middle_key, key) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
    let root = authority("Gannet interop authority", 1);
    let ca = root.self_signed(&root_key)?.pem();
    let root = Issuer::new(root, root_key);

    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    if big {
        names.extend(
            (0..MANY).map(|i| format!("a-name-that-does-nothing-but-fill-a-certificate-{i}.{}.test", "x".repeat(40))),
        );
    }
    let mut leaf = CertificateParams::new(names)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.distinguished_name.push(DnType::CommonName, "server");
    if !big {
        return Ok([ca, leaf.signed_by(&key, &root)?.pem(), key.serialize_pem()]);
    }
    let middle = authority("Gannet interop intermediate", 0);
    let middle_pem = middle.signed_by(&middle_key, &root)?.pem();
    let middle = Issuer::new(middle, middle_key);
    Ok([ca, leaf.signed_by(&key, &middle)?.pem() + &middle_pem, key.serialize_pem()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_big_chain_exceeds_what_a_server_may_send_first() {
        let dir = tempfile::tempdir().unwrap();
        let certs = Certs::new(dir.path(), true).unwrap();
        // Base64 takes 4 bytes for 3, and a line break after 64.
        let der = fs::read_to_string(certs.cert).unwrap().len() * 3 / 4 * 64 / 65;
        assert!(der > 5000, "{der} bytes");
        let certs = Certs::new(dir.path(), false).unwrap();
        assert!(fs::read_to_string(certs.cert).unwrap().len() < 1200);
    }
}
