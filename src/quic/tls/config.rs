//! TLS configurations: rustls with aws-lc-rs for the handshake, and our own packet protection.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::quic::{ClientConnection, ServerConnection, Version};
use rustls::{DigitallySignedStruct, KeyLog, RootCertStore, SignatureScheme, SupportedCipherSuite, Tls13CipherSuite};

use crate::crypto::Suite;
use crate::quic::ConfigError;
use crate::quic::tls::keys::Capture;
use crate::quic::tls::labels::Labels;

/// Options common to client and server configurations.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Application protocols in order of preference; at least one is required (RFC 9001 §8.1).
    pub alpn: Vec<Vec<u8>>,
    /// Cipher suites in order of preference. If empty: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305.
    pub suites: Vec<Suite>,
    /// Receives TLS secrets, for packet analysers; `None` disables logging.
    pub key_log: Option<Arc<dyn KeyLog>>,
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsOptions").field("alpn", &self.alpn).field("suites", &self.suites).finish_non_exhaustive()
    }
}

/// The aws-lc-rs suite `base` with our QUIC packet protection and the labels of every version.
fn with_capture(base: SupportedCipherSuite, quic: &'static Capture) -> Tls13CipherSuite {
    let base = base.tls13().expect("a TLS 1.3 suite");
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: base.common.suite,
            hash_provider: base.common.hash_provider,
            confidentiality_limit: base.common.confidentiality_limit,
        },
        // Once per suite and process.
        hkdf_provider: Box::leak(Box::new(Labels(base.hkdf_provider))),
        aead_alg: base.aead_alg,
        quic: Some(quic),
    }
}

static AES_128: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with_capture(aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, &Capture(Suite::Aes128Gcm)));
static AES_256: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with_capture(aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384, &Capture(Suite::Aes256Gcm)));
static CHACHA20: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    with_capture(aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, &Capture(Suite::ChaCha20Poly1305))
});

/// The crypto provider required for configurations made with rustls' own builders: that of aws-lc-rs, with cipher
/// suites that use our packet protection. `suites` selects them, in order of preference; empty for all.
pub fn crypto_provider(suites: &[Suite]) -> Arc<CryptoProvider> {
    let all = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let suites = if suites.is_empty() { &all } else { suites };
    let cipher_suites = suites.iter().map(|suite| {
        SupportedCipherSuite::Tls13(match suite {
            Suite::Aes128Gcm => &AES_128,
            Suite::Aes256Gcm => &AES_256,
            Suite::ChaCha20Poly1305 => &CHACHA20,
        })
    });
    Arc::new(CryptoProvider { cipher_suites: cipher_suites.collect(), ..aws_lc_rs::default_provider() })
}

/// Whether the engine can get the keys of `suite`.
fn is_ours(suite: &Tls13CipherSuite) -> bool {
    [&AES_128, &AES_256, &CHACHA20].into_iter().any(|ours| std::ptr::eq(&**ours, suite))
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
    let provider = aws_lc_rs::default_provider();
    let mut seed = [0; 32];
    // Without randomness, the handshake itself fails and reports it.
    let _ = provider.secure_random.fill(&mut seed);
    for group in provider.kx_groups.iter().take(1) {
        let _ = group.start();
    }
    let _ = crate::crypto::initial_keys(crate::wire::quic::Version::V1, &seed[..8], crate::base::Side::Client);
}

/// Makes a TLS configuration for servers.
///
/// # Errors
/// If the key does not match the certificate or is of an unsupported kind.
pub fn server_config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    options: &TlsOptions,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(crypto_provider(&options.suites))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certs, key)?;
    config.alpn_protocols = options.alpn.clone();
    config.ignore_client_order = true;
    if let Some(log) = &options.key_log {
        config.key_log = log.clone();
    }
    Ok(Arc::new(config))
}

fn finish_client(mut config: rustls::ClientConfig, options: &TlsOptions) -> Arc<rustls::ClientConfig> {
    config.alpn_protocols = options.alpn.clone();
    if let Some(log) = &options.key_log {
        config.key_log = log.clone();
    }
    Arc::new(config)
}

/// Makes a TLS configuration for clients that trusts `roots`.
///
/// # Errors
/// If no suite is usable.
pub fn client_config(roots: RootCertStore, options: &TlsOptions) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let config = rustls::ClientConfig::builder_with_provider(crypto_provider(&options.suites))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(finish_client(config, options))
}

/// Makes a TLS configuration for clients that accepts any certificate, for tests and benchmarks. Anyone on the path can
/// then read and change everything.
///
/// # Errors
/// If no suite is usable.
pub fn insecure_client_config(options: &TlsOptions) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = crypto_provider(&options.suites);
    let any = AnyCertificate::new(&provider);
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_no_client_auth();
    Ok(finish_client(config, options))
}

/// A verifier that checks that the peer has the key of its certificate, but not who issued the certificate. It is used
/// by [`insecure_client_config`] and in configurations of other stacks that are benchmarked.
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
