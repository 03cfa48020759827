//! TLS with rustls.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, KeyLogFile, RootCertStore, ServerConfig};

use crate::{Failure, Task};

/// The server's configuration.
pub fn server(task: &Task, provider: Arc<CryptoProvider>) -> Result<ServerConfig, Failure> {
    let chain = CertificateDer::pem_file_iter(&task.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&task.key)?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![task.alpn.clone().into_bytes()];
    tls.key_log = Arc::new(KeyLogFile::new());
    Ok(tls)
}

/// The client's configuration.
pub fn client(task: &Task, provider: Arc<CryptoProvider>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_file_iter(&task.ca)? {
        roots.add(ca?)?;
    }
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![task.alpn.clone().into_bytes()];
    tls.key_log = Arc::new(KeyLogFile::new());
    Ok(tls)
}
