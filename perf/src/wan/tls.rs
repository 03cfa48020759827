//! The identity of servers: one with signatures of one length, so that all runs are the same.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Failure;

/// The name in the certificate.
pub const NAME: &str = "sim";

/// The ALPN protocol ID.
pub const ALPN: &[u8] = b"wan";

/// The simulator's Ed25519 certificate and its key.
///
/// # Errors
/// Never: they are built in.
pub fn identity() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let cert = CertificateDer::from_pem_slice(include_bytes!("../../../src/sim/cert.pem"))?;
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../src/sim/key.pem"))?;
    Ok((vec![cert], key))
}
