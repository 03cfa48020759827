//! TLS settings of other implementations: rustls with aws-lc-rs, AES-128-GCM first, like Gannet's.

use std::sync::Arc;

use gannet::quic::tls::AnyCertificate;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ClientConfig, ServerConfig};

use crate::Failure;
use crate::lab::world::{ALPN, identity};

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|s| s.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// A server's settings.
///
/// # Errors
/// If rustls rejects the settings.
pub fn server() -> Result<ServerConfig, Failure> {
    let (certs, key) = identity();
    server_with(certs, key)
}

/// The same with this identity.
///
/// # Errors
/// If rustls rejects the settings.
pub fn server_with(certs: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, Failure> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certs, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// A client's settings; it accepts any certificate, like `gannet perf client --insecure`.
///
/// # Errors
/// If rustls rejects the settings.
pub fn client() -> Result<ClientConfig, Failure> {
    let provider = provider();
    let any = AnyCertificate::new(&provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
