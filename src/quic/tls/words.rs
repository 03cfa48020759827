//! Messages for TLS and certificate errors, with remedies for the most common ones.

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error};

use crate::base::Side;

/// Describes a handshake error of `side` with its peer, whose certificate it may concern.
pub fn explain(error: &Error, side: Side) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) if side == Side::Server => {
            "the client's certificate was not issued by a trusted CA (specify the right one with --client-ca)".into()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate was not issued by a trusted CA (specify the right one with --ca)".into()
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!(
                "the server's certificate is for another name: for {names}, and not for {} (specify the right one with \
                 --server-name)",
                expected.to_str()
            )
        }
        Error::InvalidCertificate(error) => {
            let whose = if side == Side::Server { "client" } else { "server" };
            format!("the {whose}'s certificate is not acceptable: {}", certificate(error, side.peer()))
        }
        Error::NoCertificatesPresented => "the client has no certificate, which is required".into(),
        Error::NoApplicationProtocol => "no application protocol (ALPN) in common with the peer".into(),
        error => general(error),
    }
}

/// Describes an error in our own certificate or key.
pub fn explain_own(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => {
            "the key does not match the certificate (the server's certificate must be the first in its file)".into()
        }
        Error::InvalidCertificate(error) => certificate(error, Side::Server),
        error => general(error),
    }
}

/// What is wrong with a certificate of `owner`.
fn certificate(error: &CertificateError, owner: Side) -> String {
    match error {
        CertificateError::BadEncoding => "it is damaged".into(),
        CertificateError::Expired => "it has expired".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("it expired {} ago; renew it", ago(*time, *not_after))
        }
        CertificateError::NotValidYet => "it is not valid yet: is the clock right?".into(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("it becomes valid in {}: is the clock right?", ago(*not_before, *time))
        }
        CertificateError::NotValidForName => "it is for another name".into(),
        CertificateError::BadSignature => {
            "its signature is not by the CA it names: it was changed, or two CAs have the same name".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            let usage = if owner == Side::Server { "serverAuth" } else { "clientAuth" };
            format!("it is for another purpose (its extended key usage lacks {usage})")
        }
        CertificateError::Revoked => "it was revoked".into(),
        CertificateError::UnknownRevocationStatus => "there is no revocation list of the CA that issued it".into(),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed with an algorithm that is not supported; use ECDSA, Ed25519, or RSA with SHA-256 or more"
                .into()
        }
        CertificateError::Other(other) => match other.to_string().as_str() {
            "CaUsedAsEndEntity" => {
                "it is a CA certificate, which cannot be used as a server certificate; have the CA issue one for the \
                                    server, or make one without CA:TRUE (openssl req -x509 -addext \
                                    basicConstraints=critical,CA:FALSE)"
                    .into()
            }
            "UnsupportedCertVersion" => "it is not an X.509 version 3 certificate, which has names and purposes".into(),
            name => words(name),
        },
        other => words(&format!("{other:?}")),
    }
}

fn general(error: &Error) -> String {
    match error {
        Error::PeerIncompatible(why) => format!("the peer's TLS is not compatible: {}", words(&format!("{why:?}"))),
        Error::PeerMisbehaved(why) => format!("the peer violated the TLS protocol: {}", words(&format!("{why:?}"))),
        Error::InvalidMessage(why) => format!("the peer sent an invalid TLS message: {}", words(&format!("{why:?}"))),
        Error::AlertReceived(alert) => format!("the peer aborted the handshake: {}", words(&format!("{alert:?}"))),
        Error::General(why) => why.clone(),
        other => other.to_string(),
    }
}

/// The identifier `name` in words: `NoCipherSuitesInCommon` becomes "no cipher suites in common".
fn words(name: &str) -> String {
    let mut text = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            text.push(' ');
        }
        text.push(c.to_ascii_lowercase());
        before = c;
    }
    text
}

/// The name in webpki's notation: `DnsName("a.test")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

/// The time between two points in readable form.
fn ago(later: UnixTime, earlier: UnixTime) -> String {
    let seconds = later.as_secs().saturating_sub(earlier.as_secs());
    let (n, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{InconsistentKeys, OtherError, PeerIncompatible};

    use super::*;

    #[derive(Debug)]
    struct Webpki(&'static str);

    impl std::fmt::Display for Webpki {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Webpki {}

    /// Before 2026-11-28, messages contained Rust identifiers: `KeyMismatch`, `Other(OtherError(CaUsedAsEndEntity))`.
    #[test]
    fn no_names_of_rusts_come_out() {
        let other = |name| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Webpki(name)))));
        let at = |s| UnixTime::since_unix_epoch(std::time::Duration::from_secs(s));
        let expired = CertificateError::ExpiredContext { time: at(1_000_000), not_after: at(100_000) };
        let name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.test").unwrap(),
            presented: vec!["DnsName(\"b.test\")".into(), "IpAddress(10.9.0.1)".into()],
        };
        for (error, parts) in [
            (Error::InconsistentKeys(InconsistentKeys::KeyMismatch), &["does not match the certificate"][..]),
            (other("CaUsedAsEndEntity"), &["a CA certificate", "CA:FALSE"]),
            (other("PathLenConstraintViolated"), &["path len constraint violated"]),
            (Error::InvalidCertificate(expired), &["expired 10 days ago"]),
            (Error::InvalidCertificate(name), &["for b.test, 10.9.0.1, and not for a.test", "--server-name"]),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), &["no cipher suites in common"]),
        ] {
            let said = if matches!(error, Error::InconsistentKeys(_)) {
                explain_own(&error)
            } else {
                explain(&error, Side::Client)
            };
            for part in parts {
                assert!(said.contains(part), "{part} is not in: {said}");
            }
            let debug = ["OtherError", "KeyMismatch", "CaUsed", "(\"", "DnsName", "IpAddress", "PathLen"];
            assert!(!debug.iter().any(|name| said.contains(name)), "{said}");
        }
    }
}
