//! TLS configurations: rustls with aws-lc-rs for the handshake, and our own packet protection.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::quic::{ClientConnection, ServerConnection, Version};
use rustls::{DigitallySignedStruct, KeyLog, SignatureScheme, SupportedCipherSuite};

use crate::crypto::Suite;
use crate::quic::ConfigError;
use crate::quic::tls::exporter::Tap;
use crate::quic::tls::group::Group;
use crate::quic::tls::suites::{is_ours, own_suite};

/// Options common to client and server configurations.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Application protocols in order of preference; at least one is required (RFC 9001 §8.1).
    pub alpn: Vec<Vec<u8>>,
    /// Cipher suites in order of preference. If empty: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305.
    pub suites: Vec<Suite>,
    /// Key exchange groups in order of preference. If empty, all: [`Group::ALL`].
    pub groups: Vec<Group>,
    /// Whether connections keep what [`TlsInfo::export_keying_material`](super::TlsInfo::export_keying_material) needs.
    pub exporter: bool,
    /// Receives TLS secrets, for packet analysers; `None` disables logging.
    pub key_log: Option<Arc<dyn KeyLog>>,
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsOptions")
            .field("alpn", &self.alpn)
            .field("suites", &self.suites)
            .field("groups", &self.groups)
            .field("exporter", &self.exporter)
            .finish_non_exhaustive()
    }
}

impl TlsOptions {
    /// The crypto provider for these options, as [`crypto_provider`] makes it.
    pub fn provider(&self) -> Arc<CryptoProvider> {
        let groups = if self.groups.is_empty() { &Group::ALL[..] } else { &self.groups };
        let mut provider = CryptoProvider::clone(&crypto_provider(&self.suites));
        provider.kx_groups = groups.iter().map(|group| group.exchange()).collect();
        Arc::new(provider)
    }

    /// Who is told secrets.
    pub(super) fn key_log(&self) -> Option<Arc<dyn KeyLog>> {
        if self.exporter { Some(Arc::new(Tap::new(self.key_log.clone()))) } else { self.key_log.clone() }
    }
}

/// The crypto provider required for configurations made with rustls' own builders: that of aws-lc-rs, with cipher
/// suites that use our packet protection, and the groups of [`Group::ALL`]. `suites` selects the suites, in order of
/// preference; empty for all.
pub fn crypto_provider(suites: &[Suite]) -> Arc<CryptoProvider> {
    let suites = if suites.is_empty() { &Suite::ALL } else { suites };
    let cipher_suites = suites.iter().map(|suite| SupportedCipherSuite::Tls13(own_suite(*suite)));
    Arc::new(CryptoProvider {
        cipher_suites: cipher_suites.collect(),
        kx_groups: Group::ALL.map(Group::exchange).to_vec(),
        ..aws_lc_rs::default_provider()
    })
}

/// Checks that the engine can get the keys of every suite that may be negotiated. QUIC uses TLS 1.3 only (RFC 9001
/// §4.2).
fn check_suites(provider: &CryptoProvider) -> Result<(), ConfigError> {
    let mut suites = provider.cipher_suites.iter().filter_map(|suite| suite.tls13());
    match suites.find(|suite| !is_ours(suite)) {
        Some(foreign) => Err(ConfigError::ForeignSuite(format!("{:?}", foreign.common.suite))),
        None => Ok(()),
    }
}

fn check_alpn(protocols: &[Vec<u8>]) -> Result<(), ConfigError> {
    // Protocol names have 1 to 255 bytes (RFC 7301 §3.1).
    match protocols.iter().find(|name| name.is_empty() || name.len() > 255) {
        Some(name) => Err(ConfigError::Number {
            name: "length of an application protocol's name",
            value: name.len() as u64,
            min: 1,
            max: 255,
        }),
        None if protocols.is_empty() => Err(ConfigError::NoAlpn),
        None => Ok(()),
    }
}

/// Checks that servers can accept connections with `config`.
pub(crate) fn check_server(config: &Arc<rustls::ServerConfig>) -> Result<(), ConfigError> {
    check_suites(config.crypto_provider())?;
    check_alpn(&config.alpn_protocols)?;
    if config.max_early_data_size != 0 {
        return Err(ConfigError::EarlyData(config.max_early_data_size));
    }
    // Only rustls knows which versions are enabled.
    let session = ServerConnection::new(config.clone(), Version::V1, Vec::new());
    session.map(drop).map_err(|e| ConfigError::Tls(e.to_string()))
}

/// Checks that clients can connect with `config`.
pub(crate) fn check_client(config: &Arc<rustls::ClientConfig>) -> Result<(), ConfigError> {
    check_suites(config.crypto_provider())?;
    check_alpn(&config.alpn_protocols)?;
    let nobody = ServerName::try_from("invalid").expect("a DNS name");
    let session = ClientConnection::new(config.clone(), Version::V1, nobody, Vec::new());
    session.map(drop).map_err(|e| ConfigError::Tls(e.to_string()))
}

/// Initialises what the first handshake on a thread would have to wait for: the random number generator (tens of
/// milliseconds) and the crypto backend.
pub(crate) fn warm_up() {
    let provider = crypto_provider(&[]);
    let mut seed = [0; 32];
    // Without randomness, the handshake itself fails and reports it.
    let _ = provider.secure_random.fill(&mut seed);
    for group in provider.kx_groups.iter().take(1) {
        let _ = group.start();
    }
    let _ = crate::crypto::initial_keys(crate::wire::quic::Version::V1, &seed[..8], crate::base::Side::Client);
}

/// A verifier that checks that the peer has the key of its certificate, but not who issued the certificate. It is used
/// by [`insecure_client_config`](super::insecure_client_config) and in configurations of other stacks that are
/// benchmarked.
#[derive(Debug)]
pub struct AnyCertificate(WebPkiSupportedAlgorithms);

impl AnyCertificate {
    /// A verifier with the signature algorithms of `provider`.
    pub fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
