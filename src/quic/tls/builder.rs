//! Making TLS configurations.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{Error, RootCertStore};

use super::certificates::Certificates;
use super::config::{AnyCertificate, TlsOptions};

/// Makes a TLS configuration for servers with one certificate, which ask clients for none. [`ServerTls`] makes others.
///
/// # Errors
/// If the key does not match the certificate or is of an unsupported kind.
pub fn server_config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    options: &TlsOptions,
) -> Result<Arc<rustls::ServerConfig>, Error> {
    ServerTls::new(options, Arc::new(Certificates::new(certs, key)?)).build()
}

/// Makes a TLS configuration for clients that trusts `roots`. [`ClientTls`] makes others.
///
/// # Errors
/// If no suite is usable.
pub fn client_config(roots: RootCertStore, options: &TlsOptions) -> Result<Arc<rustls::ClientConfig>, Error> {
    ClientTls::unverified(options).with_roots(roots, Vec::new())?.build()
}

/// Makes a TLS configuration for clients that accepts any certificate, for tests and benchmarks. Anyone on the path can
/// then read and change everything.
///
/// # Errors
/// If no suite is usable.
pub fn insecure_client_config(options: &TlsOptions) -> Result<Arc<rustls::ClientConfig>, Error> {
    ClientTls::unverified(options).build()
}

/// Builds TLS configurations for servers.
///
/// Here, a server has two certificates, and wants clients to have one of a certain CA:
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use gannet::quic::tls::{
///     Certificates, ClientAuth, ServerTls, TlsOptions, load_certs, load_private_key, load_roots,
/// };
///
/// let options = TlsOptions { alpn: vec![b"example".to_vec()], ..TlsOptions::default() };
/// let load = |name: &str| -> Result<_, Box<dyn std::error::Error>> {
///     let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
///     Ok((load_certs(Path::new(&cert))?, load_private_key(Path::new(&key))?))
/// };
/// let (chain, key) = load("a.example")?;
/// let mut certificates = Certificates::new(chain, key)?;
/// let (chain, key) = load("b.example")?;
/// certificates.add(chain, key)?;
/// let clients = ClientAuth::required(load_roots(Path::new("clients-ca.pem"))?).verifier(&options)?;
/// let tls = ServerTls::new(&options, Arc::new(certificates)).with_client_verifier(clients).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ServerTls {
    options: TlsOptions,
    certificates: Arc<dyn ResolvesServerCert>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl ServerTls {
    /// A server with these certificates, usually [`Certificates`], that asks clients for none.
    pub fn new(options: &TlsOptions, certificates: Arc<dyn ResolvesServerCert>) -> Self {
        Self { options: options.clone(), certificates, clients: Arc::new(NoClientAuth) }
    }

    /// Asks clients for certificates, which `verifier` judges: that of a [`ClientAuth`], or one of your own. It runs on
    /// the core and must not block.
    #[must_use]
    pub fn with_client_verifier(self, verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Self { clients: verifier, ..self }
    }

    /// Makes the configuration.
    ///
    /// # Errors
    /// If no suite or group is usable.
    pub fn build(self) -> Result<Arc<rustls::ServerConfig>, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(self.options.provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.clients)
            .with_cert_resolver(self.certificates);
        config.alpn_protocols.clone_from(&self.options.alpn);
        config.ignore_client_order = true;
        if let Some(log) = self.options.key_log() {
            config.key_log = log;
        }
        Ok(Arc::new(config))
    }
}

/// Which certificates of clients a server accepts.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    roots: RootCertStore,
    crls: Vec<CertificateRevocationListDer<'static>>,
    optional: bool,
}

impl ClientAuth {
    /// Clients need a certificate that one of `roots` has issued, directly or through others.
    pub fn required(roots: RootCertStore) -> Self {
        Self { roots, crls: Vec::new(), optional: false }
    }

    /// Clients may have such a certificate. Those without one are accepted, and have no
    /// [`peer_certificates`](super::TlsInfo::peer_certificates); those with another one are refused.
    pub fn optional(roots: RootCertStore) -> Self {
        Self { optional: true, ..Self::required(roots) }
    }

    /// Refuses clients whose certificate is in one of these revocation lists. If there are any, there must be one of
    /// each CA that issues to clients.
    #[must_use]
    pub fn with_crls(self, crls: Vec<CertificateRevocationListDer<'static>>) -> Self {
        Self { crls, ..self }
    }

    /// The verifier for [`ServerTls::with_client_verifier`].
    ///
    /// # Errors
    /// If there are no roots, or a revocation list cannot be used.
    pub fn verifier(self, options: &TlsOptions) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots), options.provider());
        let builder = builder.with_crls(self.crls).only_check_end_entity_revocation();
        if self.optional { builder.allow_unauthenticated().build() } else { builder.build() }
    }
}

/// Builds TLS configurations for clients.
#[derive(Debug)]
pub struct ClientTls {
    options: TlsOptions,
    servers: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
}

impl ClientTls {
    /// A client that accepts servers which `verifier` accepts. It runs on the core and must not block.
    pub fn new(options: &TlsOptions, verifier: Arc<dyn ServerCertVerifier>) -> Self {
        Self { options: options.clone(), servers: verifier, identity: None }
    }

    /// A client that accepts any server, for tests and benchmarks. Anyone on the path can then read and change
    /// everything.
    pub fn unverified(options: &TlsOptions) -> Self {
        Self::new(options, Arc::new(AnyCertificate::new(&options.provider())))
    }

    /// Accepts servers with a certificate for the right name that one of `roots` has issued, directly or through others,
    /// and that is in none of the revocation lists `crls`. If there are any lists, there must be one of each CA that
    /// issues to servers.
    ///
    /// # Errors
    /// If there are no roots, or a revocation list cannot be used.
    pub fn with_roots(
        self,
        roots: RootCertStore,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, Error> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.options.provider());
        let verifier = builder.with_crls(crls).only_check_end_entity_revocation().build();
        let servers = verifier.map_err(|e| Error::General(e.to_string()))?;
        Ok(Self { servers, ..self })
    }

    /// Shows this certificate to servers that ask for one: a chain, the client's certificate first, and its key.
    ///
    /// # Errors
    /// If the key does not match the certificate or is of an unsupported kind.
    pub fn with_identity(
        self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let key = CertifiedKey::from_der(chain, key, &self.options.provider())?;
        Ok(self.with_identities(Arc::new(SingleCertAndKey::from(key))))
    }

    /// Shows servers that ask for a certificate the one that `identities` chooses.
    #[must_use]
    pub fn with_identities(self, identities: Arc<dyn ResolvesClientCert>) -> Self {
        Self { identity: Some(identities), ..self }
    }

    /// Makes the configuration.
    ///
    /// # Errors
    /// If no suite or group is usable.
    pub fn build(self) -> Result<Arc<rustls::ClientConfig>, Error> {
        let builder = rustls::ClientConfig::builder_with_provider(self.options.provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.servers);
        let mut config = match self.identity {
            Some(identity) => builder.with_client_cert_resolver(identity),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.options.alpn);
        if let Some(log) = self.options.key_log() {
            config.key_log = log;
        }
        Ok(Arc::new(config))
    }
}
