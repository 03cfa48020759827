//! The engine's interface to TLS 1.3 by rustls (RFC 9001 §4).
//!
//! rustls performs the whole handshake; packet protection is ours. `keys` extracts the raw key material from rustls,
//! `labels` lets it derive the keys of a version that is chosen during the handshake, and `config` makes configurations
//! whose suites allow both.

mod config;
pub(crate) mod hello;
mod keys;
mod labels;
mod pem;
mod words;

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection as Quic, ServerConnection, Version as RustlsVersion};

use crate::crypto::{Keys, PacketKey, traceless};
use crate::wire::quic::Version;

pub use config::{AnyCertificate, TlsOptions, client_config, crypto_provider, insecure_client_config, server_config};
pub(crate) use config::{check_client, check_server, warm_up};
pub use pem::{PemError, load_certs, load_private_key, load_roots};
pub use words::{explain, explain_own};

/// A TLS failure: the alert to send (RFC 8446 §6) and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsError {
    pub(crate) alert: u8,
    pub(crate) reason: String,
}

/// The alert for errors without a more specific one: internal_error.
const INTERNAL_ERROR: u8 = 80;

/// New keys from the handshake.
pub(crate) enum KeyChange {
    Handshake(Keys),
    OneRtt(Keys, KeyUpdates),
}

/// Derives the packet keys of later key phases (RFC 9001 §6).
pub(crate) struct KeyUpdates(rustls::quic::Secrets, Version);

impl KeyUpdates {
    /// The next keys: (local, remote).
    pub(crate) fn next(&mut self) -> (PacketKey, PacketKey) {
        traceless(|| {
            let set = labels::with_version(self.1, || self.0.next_packet_keys());
            (keys::packet_key(&*set.local), keys::packet_key(&*set.remote))
        })
    }
}

/// The TLS side of one connection.
pub(crate) struct TlsSession {
    quic: Quic,
    /// The version whose keys are derived.
    version: Version,
}

/// rustls takes all sessions for ones of version 1 (see [`labels`]).
const ANY: RustlsVersion = RustlsVersion::V1;

impl std::fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSession")
    }
}

impl TlsSession {
    /// A client's session of `version` with the server `name`. It announces the transport parameters `params`.
    pub(crate) fn client(
        config: &Arc<rustls::ClientConfig>,
        version: Version,
        name: &str,
        params: Vec<u8>,
    ) -> Result<Self, TlsError> {
        let internal = |reason: String| TlsError { alert: INTERNAL_ERROR, reason };
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| internal("not a DNS name or an IP address".into()))?;
        let conn = ClientConnection::new(config.clone(), ANY, name, params);
        conn.map(|c| Self { quic: Quic::Client(c), version }).map_err(|e| internal(e.to_string()))
    }

    /// A server's session of `version`. It announces the transport parameters `params`.
    pub(crate) fn server(
        config: &Arc<rustls::ServerConfig>,
        version: Version,
        params: Vec<u8>,
    ) -> Result<Self, TlsError> {
        ServerConnection::new(config.clone(), ANY, params)
            .map(|c| Self { quic: Quic::Server(c), version })
            .map_err(|e| TlsError { alert: INTERNAL_ERROR, reason: e.to_string() })
    }

    /// All keys from now on are those of `version`, which was negotiated.
    pub(crate) fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Reads handshake bytes, which must be in order.
    pub(crate) fn read_handshake(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        self.quic.read_hs(bytes).map_err(|error| TlsError {
            alert: self.quic.alert().map_or(INTERNAL_ERROR, u8::from),
            reason: explain(&error),
        })
    }

    /// Appends handshake bytes to send to `out`. Bytes after a returned key change belong to the new keys' level.
    pub(crate) fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        traceless(|| {
            Some(match labels::with_version(self.version, || self.quic.write_hs(out))? {
                rustls::quic::KeyChange::Handshake { keys } => KeyChange::Handshake(keys::both(&keys)),
                rustls::quic::KeyChange::OneRtt { keys, next } => {
                    KeyChange::OneRtt(keys::both(&keys), KeyUpdates(next, self.version))
                }
            })
        })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.quic.is_handshaking()
    }

    /// The peer's transport parameters, once received.
    pub(crate) fn transport_parameters(&self) -> Option<&[u8]> {
        self.quic.quic_transport_parameters()
    }

    /// The negotiated application protocol.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.quic.alpn_protocol()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;
    use crate::base::Side;
    use crate::crypto::tests::traces::{Secrets, add_keys, deep};
    use crate::wire::quic::ConnectionId;
    use crate::wire::quic::params::TransportParameters;

    fn params(side: Side) -> Vec<u8> {
        let id = ConnectionId::new(&[7; 8]);
        let original_destination_connection_id = id.filter(|_| side == Side::Server);
        let params = TransportParameters {
            initial_source_connection_id: id,
            original_destination_connection_id,
            ..Default::default()
        };
        params.to_bytes()
    }

    /// Keys of both ends, from the handshake to the first update.
    #[test]
    #[cfg_attr(gannet_asan, ignore = "AddressSanitizer has frames of its own on the heap")]
    fn keys_from_rustls_leave_no_copies() {
        let options = TlsOptions { alpn: vec![b"x".to_vec()], ..TlsOptions::default() };
        let cert = CertificateDer::from_pem_slice(include_bytes!("../../sim/cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../sim/key.pem")).unwrap();
        let server = server_config(vec![cert], key, &options).unwrap();
        let client = insecure_client_config(&options).unwrap();
        let mut ends = [
            TlsSession::client(&client, Version::V2, "sim", params(Side::Client)).unwrap(),
            TlsSession::server(&server, Version::V2, params(Side::Server)).unwrap(),
        ];
        let mut secrets = Secrets::default();
        let mut all = Vec::new();
        let mut updates = Vec::new();
        for turn in 0..8 {
            let (from, to) = (turn % 2, 1 - turn % 2);
            loop {
                let mut said = Vec::new();
                let change = deep(|| ends[from].write_handshake(&mut said));
                let quiet = change.is_none() && said.is_empty();
                match change {
                    Some(KeyChange::Handshake(keys)) => all.push(Box::new(keys)),
                    Some(KeyChange::OneRtt(keys, next)) => {
                        all.push(Box::new(keys));
                        updates.push(next);
                    }
                    None => {}
                }
                if let Some(keys) = all.last() {
                    add_keys(&mut secrets, keys);
                    assert_eq!(secrets.copies(), [], "turn {turn}");
                }
                if quiet {
                    break;
                }
                ends[to].read_handshake(&said).unwrap();
            }
        }
        assert_eq!((all.len(), updates.len()), (4, 2), "Handshake and 1-RTT keys of both");
        for next in &mut updates {
            let keys = deep(|| Box::new(next.next()));
            secrets.add_home(keys.0.memory());
            secrets.add_home(keys.1.memory());
            assert_eq!(secrets.copies(), [], "after an update");
            deep(|| drop(keys));
        }
        deep(|| drop(all));
        deep(|| drop(ends));
        assert_eq!(secrets.homeless().copies(), [], "with everything gone");
    }
}
