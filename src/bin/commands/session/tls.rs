//! Makes TLS configurations of command-line arguments and the files that they name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gannet::crypto;
use gannet::quic::tls::{self, Certificates, ClientTls, ServerTls, TlsOptions};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;

use super::keylog::KeyLogFile;
use super::{Failure, certificate};
use crate::args::engine::EngineArgs;
use crate::args::tls::{ClientAuth, ClientIdentityArgs, Group, IdentityArgs, Suite, TrustArgs, UnknownName};

/// A certificate chain and its key.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The TLS options of both sides.
pub fn tls_options(args: &EngineArgs, alpn: &[u8]) -> Result<TlsOptions, Failure> {
    let suites = args.suites.iter().map(|s| match s {
        Suite::Aes128 => crypto::Suite::Aes128Gcm,
        Suite::Aes256 => crypto::Suite::Aes256Gcm,
        Suite::ChaCha20 => crypto::Suite::ChaCha20Poly1305,
    });
    let groups = args.groups.iter().map(|group| match group {
        Group::X25519MlKem768 => tls::Group::X25519MlKem768,
        Group::X25519 => tls::Group::X25519,
        Group::Secp256r1 => tls::Group::Secp256r1,
        Group::Secp384r1 => tls::Group::Secp384r1,
    });
    let (suites, groups) = (suites.collect(), groups.collect());
    let mut options = TlsOptions { alpn: vec![alpn.to_vec()], suites, groups, ..TlsOptions::default() };
    if let Some(path) = &args.keylog {
        let log = KeyLogFile::open(path).map_err(|e| format!("cannot write the key log {}: {e}", path.display()))?;
        options.key_log = Some(Arc::new(log));
    }
    Ok(options)
}

fn load_pair(cert: &Path, key: &Path) -> Result<Pair, Failure> {
    Ok((tls::load_certs(cert)?, tls::load_private_key(key)?))
}

/// The error for a certificate and a key that are not usable together.
fn mismatch(cert: &Path, key: &Path, error: &rustls::Error) -> Failure {
    let (cert, key) = (cert.display(), key.display());
    format!("{cert} and {key} do not work together: {}", tls::explain_own(error)).into()
}

fn load_crls(paths: &[PathBuf]) -> Result<Vec<CertificateRevocationListDer<'static>>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(tls::load_crls(path)?);
    }
    Ok(all)
}

/// Several files, for a message.
pub fn listed(paths: impl IntoIterator<Item: AsRef<Path>>) -> String {
    paths.into_iter().map(|path| path.as_ref().display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A server's TLS configuration.
pub fn server_tls(identity: &IdentityArgs, options: &TlsOptions) -> Result<Arc<rustls::ServerConfig>, Failure> {
    server_tls_with(identity, options, |_, _, _| {})
}

/// Like [`server_tls`]. Warns about what clients would reject in the certificates, which does not keep the server from
/// starting.
pub fn checked_server_tls(
    identity: &IdentityArgs,
    engine: &EngineArgs,
    options: &TlsOptions,
) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let addrs: Vec<IpAddr> = engine.addrs.iter().map(|c| c.addr).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    server_tls_with(identity, options, |index, path, cert| warn(path, cert, index, &addrs, now))
}

/// Warns about a certificate. Clients that connect to an address see the first one.
fn warn(path: &Path, cert: &CertificateDer<'_>, index: usize, addrs: &[IpAddr], now: Duration) {
    let addrs = if index == 0 { addrs } else { &[] };
    for problem in certificate::problems(cert, addrs, now) {
        tracing::warn!("{}: {problem}", path.display());
    }
}

/// Makes the configuration from all files, and calls `look` with the number, file and first certificate of each chain.
fn server_tls_with(
    identity: &IdentityArgs,
    options: &TlsOptions,
    mut look: impl FnMut(usize, &Path, &CertificateDer<'_>),
) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let mut certificates: Option<Certificates> = None;
    for (index, (cert, key)) in identity.pairs().enumerate() {
        let (chain, secret) = load_pair(cert, key)?;
        let first = chain.first().cloned();
        let done = match &mut certificates {
            Some(certificates) => certificates.add(chain, secret),
            None => Certificates::new(chain, secret).map(|new| certificates = Some(new)),
        };
        done.map_err(|e| mismatch(cert, key, &e))?;
        first.iter().for_each(|first| look(index, cert, first));
    }
    let mut certificates = certificates.ok_or("there is no certificate")?;
    certificates.on_unknown_name(match identity.unknown_name {
        UnknownName::Default => tls::UnknownName::Default,
        UnknownName::Refuse => tls::UnknownName::Refuse,
    });
    let server = ServerTls::new(options, Arc::new(certificates));
    let server = match client_verifier(identity, options)? {
        Some(verifier) => server.with_client_verifier(verifier),
        None => server,
    };
    Ok(server.build()?)
}

/// What verifies clients, if they are asked for certificates.
fn client_verifier(
    identity: &IdentityArgs,
    options: &TlsOptions,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Failure> {
    let Some(ca) = &identity.client_ca else { return Ok(None) };
    let roots = tls::load_roots(ca)?;
    let auth = match identity.client_auth.unwrap_or_default() {
        ClientAuth::Required => tls::ClientAuth::required(roots),
        ClientAuth::Optional => tls::ClientAuth::optional(roots),
    };
    let verifier = auth.with_crls(load_crls(&identity.client_crls)?).verifier(options);
    let files = || listed([ca].into_iter().chain(&identity.client_crls));
    verifier.map(Some).map_err(|e| format!("clients cannot be verified with {}: {e}", files()).into())
}

/// A client's TLS configuration.
pub fn client_tls(
    trust: &TrustArgs,
    identity: &ClientIdentityArgs,
    options: &TlsOptions,
) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let mut client = ClientTls::unverified(options);
    if let Some(ca) = &trust.ca {
        let (roots, crls) = (tls::load_roots(ca)?, load_crls(&identity.crls)?);
        let files = || listed([ca].into_iter().chain(&identity.crls));
        let failed = |e| format!("servers cannot be verified with {}: {}", files(), tls::explain_own(&e));
        client = client.with_roots(roots, crls).map_err(failed)?;
    }
    if let (Some(cert), Some(key)) = (&identity.cert, &identity.key) {
        let (chain, secret) = load_pair(cert, key)?;
        client = client.with_identity(chain, secret).map_err(|e| mismatch(cert, key, &e))?;
    }
    Ok(client.build()?)
}
