//! TLS 1.3 by rustls, seen from the engine (RFC 9001 §4).
//!
//! rustls does the whole handshake; packet protection is ours. `keys` gets the raw key material out
//! of rustls, `config` makes configurations whose suites carry our keys.

mod config;
mod keys;

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection as Quic, ServerConnection, Version};

use crate::crypto::{Keys, PacketKey};

pub use config::{
    AnyCertificate, PemError, TlsOptions, client_config, crypto_provider, insecure_client_config, load_certs,
    load_private_key, load_roots, server_config,
};
pub(crate) use config::{check_client, check_server, warm_up};

/// TLS failed: the alert to send (RFC 8446 §6) and what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsError {
    pub(crate) alert: u8,
    pub(crate) reason: String,
}

/// Alert for what has no better one: internal_error.
const INTERNAL_ERROR: u8 = 80;

/// New keys that the handshake came to.
pub(crate) enum KeyChange {
    Handshake(Keys),
    OneRtt(Keys, KeyUpdates),
}

/// Derives the packet keys of later key phases (RFC 9001 §6).
pub(crate) struct KeyUpdates(rustls::quic::Secrets);

impl KeyUpdates {
    /// The keys that follow: (local, remote).
    pub(crate) fn next(&mut self) -> (PacketKey, PacketKey) {
        let set = self.0.next_packet_keys();
        (keys::packet_key(&*set.local), keys::packet_key(&*set.remote))
    }
}

/// The TLS side of one connection.
pub(crate) struct TlsSession(Quic);

impl std::fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSession")
    }
}

impl TlsSession {
    /// A client's session with the server `name`, which announces `params`.
    pub(crate) fn client(config: &Arc<rustls::ClientConfig>, name: &str, params: Vec<u8>) -> Result<Self, TlsError> {
        let internal = |reason: String| TlsError { alert: INTERNAL_ERROR, reason };
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| internal("not a DNS name or an IP address".into()))?;
        let conn = ClientConnection::new(config.clone(), Version::V1, name, params);
        conn.map(|c| Self(Quic::Client(c))).map_err(|e| internal(e.to_string()))
    }

    /// A server's session, which announces `params`.
    pub(crate) fn server(config: &Arc<rustls::ServerConfig>, params: Vec<u8>) -> Result<Self, TlsError> {
        ServerConnection::new(config.clone(), Version::V1, params)
            .map(|c| Self(Quic::Server(c)))
            .map_err(|e| TlsError { alert: INTERNAL_ERROR, reason: e.to_string() })
    }

    /// Takes handshake bytes in, in order.
    pub(crate) fn read_handshake(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        self.0.read_hs(bytes).map_err(|error| TlsError {
            alert: self.0.alert().map_or(INTERNAL_ERROR, u8::from),
            reason: explain(&error),
        })
    }

    /// Appends handshake bytes to be sent to `out`. What comes after a returned key change belongs to
    /// the level of the new keys.
    pub(crate) fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        Some(match self.0.write_hs(out)? {
            rustls::quic::KeyChange::Handshake { keys } => KeyChange::Handshake(keys::both(&keys)),
            rustls::quic::KeyChange::OneRtt { keys, next } => KeyChange::OneRtt(keys::both(&keys), KeyUpdates(next)),
        })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// The peer's transport parameters, once they came.
    pub(crate) fn transport_parameters(&self) -> Option<&[u8]> {
        self.0.quic_transport_parameters()
    }

    /// The negotiated application protocol.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.0.alpn_protocol()
    }
}

/// rustls' words, with what a user can do about the most usual errors.
fn explain(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate was not issued by a trusted CA (give the right one with --ca)".into()
        }
        Error::InvalidCertificate(
            e @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => format!("the server's certificate is for another name: {e}"),
        Error::InvalidCertificate(e) => format!("the peer's certificate is not acceptable: {e}"),
        Error::NoApplicationProtocol => "no application protocol (ALPN) in common with the peer".into(),
        other => other.to_string(),
    }
}
