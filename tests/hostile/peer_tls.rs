//! TLS settings of the hostile peer.

use std::sync::{Arc, LazyLock};

use gannet::quic::tls::AnyCertificate;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

fn client_config(provider: Arc<CryptoProvider>) -> rustls::ClientConfig {
    let verifier = Arc::new(AnyCertificate::new(&provider));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"hostile".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config
}

pub(super) static CLIENT: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| Arc::new(client_config(provider())));

pub(super) static SERVER: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| {
    let (chain, key) = super::super::world::certificate();
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"hostile".to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
});

/// Settings of a client that offers AES-CCM first, although it has no such thing.
pub(super) fn strange_client() -> rustls::ClientConfig {
    use rustls::crypto::CipherSuiteCommon;
    use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};
    let own = provider();
    let real = own.cipher_suites.iter().find_map(SupportedCipherSuite::tls13).unwrap();
    let common = CipherSuiteCommon { suite: CipherSuite::TLS13_AES_128_CCM_SHA256, ..real.common };
    let strange: &'static Tls13CipherSuite = Box::leak(Box::new(Tls13CipherSuite { common, ..*real }));
    let cipher_suites = [&[SupportedCipherSuite::Tls13(strange)], &own.cipher_suites[..]].concat();
    client_config(Arc::new(CryptoProvider { cipher_suites, ..(*own).clone() }))
}
