//! A server's certificates, and the choice between them by the name that a client asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// What a server does with a client that asks for a host name that none of its certificates covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownName {
    /// It shows its first certificate, which the client may accept or not.
    #[default]
    Default,
    /// It ends the handshake with the alert `unrecognized_name` (RFC 6066 §3).
    Refuse,
}

/// Certificates with their keys. Each is shown to clients that ask for one of the DNS names among its subject
/// alternative names; `*.example.com` covers every name with one label more than `example.com` (RFC 9525 §6.3). Exact
/// names take precedence. If several certificates cover a name, the first whose key can sign as the client wishes is
/// used, so a server may have an ECDSA and an RSA certificate for the same names.
///
/// The first certificate is the default: it is shown to clients that ask for no name, because they connect to an IP
/// address, and to those that ask for an [unknown](UnknownName) one. Certificates without DNS names are alternatives to
/// it.
#[derive(Debug)]
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    all: Vec<Arc<CertifiedKey>>,
    /// For each name, the certificates that cover it. Wildcards have no asterisk here, but begin with the dot.
    names: HashMap<Box<str>, Vec<usize>>,
    default: Vec<usize>,
    unknown: UnknownName,
}

impl Certificates {
    /// The default certificate: a chain, the server's certificate first, and its key.
    ///
    /// # Errors
    /// If the key does not match the certificate or is of an unsupported kind.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Error> {
        let provider = super::crypto_provider(&[]);
        let (all, names) = (Vec::new(), HashMap::new());
        let mut this = Self { provider, all, names, default: Vec::new(), unknown: UnknownName::default() };
        this.add(chain, key)?;
        Ok(this)
    }

    /// Adds a certificate: a chain, the server's certificate first, and its key.
    ///
    /// # Errors
    /// If the key does not match the certificate or is of an unsupported kind.
    pub fn add(&mut self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), Error> {
        let key = CertifiedKey::from_der(chain, key, &self.provider)?;
        let covered = names(&key)?;
        let index = self.all.len();
        let like = |first: &Arc<CertifiedKey>| names(first).is_ok_and(|names| names == covered);
        if covered.is_empty() || self.all.first().is_none_or(like) {
            self.default.push(index);
        }
        for name in covered {
            self.names.entry(name.strip_prefix('*').unwrap_or(&name).into()).or_default().push(index);
        }
        self.all.push(Arc::new(key));
        Ok(())
    }

    /// Chooses what happens to clients that ask for an unknown name.
    pub fn on_unknown_name(&mut self, what: UnknownName) {
        self.unknown = what;
    }

    /// The certificates for the host `name`, which is in lower case.
    fn covering(&self, name: &str) -> Option<&[usize]> {
        // A leading dot would find a wildcard.
        let name = Some(name.strip_suffix('.').unwrap_or(name)).filter(|name| !name.starts_with('.'))?;
        let wildcard = || name.find('.').and_then(|dot| self.names.get(&name[dot..]));
        self.names.get(name).or_else(wildcard).map(Vec::as_slice)
    }

    fn choose(&self, name: Option<&str>) -> Option<&[usize]> {
        match name.map(|name| self.covering(name)) {
            Some(Some(covering)) => Some(covering),
            Some(None) if self.unknown == UnknownName::Refuse => None,
            _ => Some(&self.default),
        }
    }
}

/// The DNS names of a certificate, in lower case and in order.
fn names(key: &CertifiedKey) -> Result<Vec<String>, Error> {
    let cert = EndEntityCert::try_from(key.end_entity_cert()?).map_err(|e| Error::General(e.to_string()))?;
    let mut names: Vec<String> = cert.valid_dns_names().map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.choose(hello.server_name())?;
        let signs = |index: &&usize| self.all[**index].key.choose_scheme(hello.signature_schemes()).is_some();
        // If none fits, rustls reports what is missing.
        let chosen = candidates.iter().find(signs).or(candidates.first())?;
        Some(self.all[*chosen].clone())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn identity(names: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (vec![cert.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    #[test]
    fn names_choose_certificates() {
        let (chain, key) = identity(&["a.test", "10.0.0.1"]);
        let mut certs = Certificates::new(chain, key).unwrap();
        for names in [&["b.test", "*.B.test"][..], &["x.b.test"], &["10.0.0.2"], &["b.test"]] {
            let (chain, key) = identity(names);
            certs.add(chain, key).unwrap();
        }
        for (name, chosen, refused) in [
            (Some("a.test"), &[0][..], false),
            (Some("a.test."), &[0], false),
            (Some("b.test"), &[1, 4], false),
            // A wildcard stands for one label, and an exact name takes precedence.
            (Some("y.b.test"), &[1], false),
            (Some("x.b.test"), &[2], false),
            (Some("z.y.b.test"), &[0, 3], true),
            (Some("c.test"), &[0, 3], true),
            (Some("test"), &[0, 3], true),
            (Some(".b.test"), &[0, 3], true),
            (Some(""), &[0, 3], true),
            (None, &[0, 3], false),
        ] {
            certs.on_unknown_name(UnknownName::Default);
            assert_eq!(certs.choose(name), Some(chosen), "{name:?}");
            certs.on_unknown_name(UnknownName::Refuse);
            assert_eq!(certs.choose(name).is_none(), refused, "{name:?}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (chain, key) = identity(&["a.test"]);
        let other = identity(&["a.test"]).1;
        let mut certs = Certificates::new(chain.clone(), key).unwrap();
        assert!(matches!(certs.add(chain.clone(), other.clone_key()), Err(Error::InconsistentKeys(_))));
        assert!(Certificates::new(chain, other).is_err());
        assert_eq!((certs.all.len(), certs.choose(Some("a.test"))), (1, Some(&[0][..])));
    }
}
