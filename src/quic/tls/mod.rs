//! The engine's interface to TLS 1.3 by rustls (RFC 9001 §4).
//!
//! rustls performs the whole handshake; packet protection is ours. `keys` extracts the raw key material from rustls,
//! `labels` lets it derive the keys of a version that is chosen during the handshake, and `config` makes configurations
//! whose suites allow both.

mod builder;
mod certificates;
mod config;
mod exporter;
mod group;
pub(crate) mod hello;
mod info;
mod keys;
mod labels;
mod offer;
mod pem;
mod suites;
mod tickets;
mod words;

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection as Quic, ServerConnection, Version as RustlsVersion};
use rustls::{HandshakeType, PeerMisbehaved};

use zeroize::Zeroizing;

use crate::base::Side;
use crate::crypto::{DirectionKeys, Keys, PacketKey, traceless};
use crate::quic::early::Limits;
use crate::wire::quic::{TransportError, Version};

pub use builder::{ClientAuth, ClientTls, ServerTls, client_config, insecure_client_config, server_config};
pub use certificates::{Certificates, UnknownName};
pub use config::{AnyCertificate, TlsOptions, crypto_provider};
pub(crate) use config::{check_client, check_server, warm_up};
pub use exporter::{ExportError, Tap};
pub use group::Group;
pub use info::TlsInfo;
pub(crate) use offer::Offer;
pub use pem::{PemError, load_certs, load_crls, load_private_key, load_roots};
pub use tickets::SessionTickets;
pub(crate) use tickets::{Opened, Tickets};
pub use words::{explain, explain_own};

/// A TLS failure: the error to close with, usually an alert (RFC 9001 §4.8), and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsError {
    pub(crate) code: TransportError,
    pub(crate) reason: String,
}

impl TlsError {
    /// An error of our own, such as in a configuration.
    pub(crate) fn internal(reason: impl std::fmt::Display) -> Self {
        Self { code: TransportError::crypto(INTERNAL_ERROR), reason: reason.to_string() }
    }
}

/// The alert for errors without a more specific one: internal_error.
const INTERNAL_ERROR: u8 = 80;

/// The alert for a server that selects no application protocol, or one that the client cannot use (RFC 7301 §3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The alert for a host name that a server does not serve (RFC 6066 §3).
const UNRECOGNIZED_NAME: u8 = 112;

/// rustls' error when a resolver has no certificate for a client. Its alert would be access_denied, which is for another
/// purpose (RFC 8446 §6.2).
const NO_CERTIFICATE: &str = "no server certificate chain resolved";

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
    /// The secret for exporters, if it is to be kept.
    exporter: Option<Zeroizing<Vec<u8>>>,
    /// The limits that a server announces.
    pub(crate) announced: Limits,
    /// Whether a client has no use for the server's tickets, which come after the handshake.
    pub(crate) ignores_tickets: bool,
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
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::internal("not a DNS name or an IP address"))?;
        let conn = ClientConnection::new(config.clone(), ANY, name, params);
        conn.map(|c| Self::new(Quic::Client(c), version)).map_err(TlsError::internal)
    }

    /// A server's session of `version`. It announces the transport parameters `params`.
    pub(crate) fn server(
        config: &Arc<rustls::ServerConfig>,
        version: Version,
        params: Vec<u8>,
    ) -> Result<Self, TlsError> {
        let conn = ServerConnection::new(config.clone(), ANY, params);
        conn.map(|c| Self::new(Quic::Server(c), version)).map_err(TlsError::internal)
    }

    /// All keys from now on are those of `version`, which was negotiated.
    pub(crate) fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    fn new(quic: Quic, version: Version) -> Self {
        Self { quic, version, exporter: None, announced: Limits::default(), ignores_tickets: false }
    }

    /// The keys of 0-RTT packets of `version`: on a client, if it may send any; on a server that has read a ClientHello,
    /// if it accepts them.
    pub(crate) fn early_keys(&mut self, version: Version) -> Option<DirectionKeys> {
        traceless(|| {
            let keys = labels::with_version(version, || self.quic.zero_rtt_keys())?;
            Some(keys::direction(&keys))
        })
    }

    /// On a client: whether the server has accepted 0-RTT.
    pub(crate) fn is_early_data_accepted(&self) -> bool {
        matches!(&self.quic, Quic::Client(client) if client.is_early_data_accepted())
    }

    /// On a server that has not read the ClientHello: refuses 0-RTT.
    pub(crate) fn reject_early_data(&mut self) {
        if let Quic::Server(server) = &mut self.quic {
            server.reject_early_data();
        }
    }

    /// Whether the server has answered with a HelloRetryRequest.
    pub(crate) fn is_hello_retried(&self) -> bool {
        use rustls::HandshakeKind::{Full, Resumed};
        !matches!(self.quic.handshake_kind(), None | Some(Full | Resumed))
    }

    /// Whether the handshake resumes a session.
    pub(crate) fn is_resumed(&self) -> bool {
        use rustls::HandshakeKind::{Full, FullWithHelloRetryRequest};
        !matches!(self.quic.handshake_kind(), None | Some(Full | FullWithHelloRetryRequest))
    }

    /// Reads handshake bytes, which must be in order.
    pub(crate) fn read_handshake(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let (done, secret) = exporter::catching(|| self.quic.read_hs(bytes));
        self.exporter = secret.or(self.exporter.take());
        done.map_err(|error| self.failure(&error))
    }

    /// What `error` means to the peer and to us.
    fn failure(&self, error: &rustls::Error) -> TlsError {
        if let (Quic::Server(server), rustls::Error::General(why)) = (&self.quic, error)
            && why == NO_CERTIFICATE
            && let Some(name) = server.server_name()
        {
            let reason = format!("no certificate for the host name {}", name.escape_default());
            return TlsError { code: TransportError::crypto(UNRECOGNIZED_NAME), reason };
        }
        // Authentication of clients after the handshake is forbidden (RFC 9001 §4.4).
        if let rustls::Error::InappropriateHandshakeMessage { got_type: HandshakeType::CertificateRequest, .. } = error
            && !self.quic.is_handshaking()
        {
            let reason = "a request for a certificate after the handshake".into();
            return TlsError { code: TransportError::PROTOCOL_VIOLATION, reason };
        }
        // Tickets allow 0-RTT without a limit of its own, or none (RFC 9001 §4.6.1).
        if let rustls::Error::PeerMisbehaved(PeerMisbehaved::InvalidMaxEarlyDataSize) = error {
            let reason = "a ticket with a max_early_data_size other than 2^32-1".into();
            return TlsError { code: TransportError::PROTOCOL_VIOLATION, reason };
        }
        let side = if matches!(self.quic, Quic::Server(_)) { Side::Server } else { Side::Client };
        let alert = match error {
            // rustls has another alert for it than QUIC (RFC 9001 §8.1).
            rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
                NO_APPLICATION_PROTOCOL
            }
            _ => self.quic.alert().map_or(INTERNAL_ERROR, u8::from),
        };
        TlsError { code: TransportError::crypto(alert), reason: explain(error, side) }
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

    /// What was negotiated, once the handshake is complete. The secret for exporters is in the first answer only.
    pub(crate) fn info(&mut self) -> Option<TlsInfo> {
        TlsInfo::of(&self.quic, self.exporter.take())
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;
    use crate::crypto::Suite;
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

    /// Two sessions that have completed their handshake with each other.
    fn complete(options: &TlsOptions) -> [TlsSession; 2] {
        let cert = CertificateDer::from_pem_slice(include_bytes!("../../sim/cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../sim/key.pem")).unwrap();
        let server = server_config(vec![cert], key, options).unwrap();
        let client = insecure_client_config(options).unwrap();
        let mut ends = [
            TlsSession::client(&client, Version::V1, "sim", params(Side::Client)).unwrap(),
            TlsSession::server(&server, Version::V1, params(Side::Server)).unwrap(),
        ];
        for turn in 0..8 {
            let (from, to) = (turn % 2, 1 - turn % 2);
            loop {
                let mut said = Vec::new();
                let change = ends[from].write_handshake(&mut said);
                if change.is_none() && said.is_empty() {
                    break;
                }
                ends[to].read_handshake(&said).unwrap();
            }
        }
        ends
    }

    /// What is exported from the secret alone is what rustls exports from the session.
    #[test]
    fn exports_are_those_of_rustls() {
        for suite in Suite::ALL {
            let options =
                TlsOptions { alpn: vec![b"x".to_vec()], exporter: true, suites: vec![suite], ..TlsOptions::default() };
            for mut end in complete(&options) {
                let info = end.info().unwrap();
                for (len, label, context) in [
                    (1, &b"EXPORTER-x"[..], &b""[..]),
                    (32, b"", b"y"),
                    (48, b"EXPORTER-x", &[7; 300]),
                    (1000, b"a", b"b"),
                ] {
                    let mut ours = vec![0; len];
                    info.export_keying_material(&mut ours, label, context).unwrap();
                    let theirs = end.quic.export_keying_material(vec![0; len], label, Some(context)).unwrap();
                    assert_eq!(ours, theirs, "{suite:?} {len}");
                }
            }
        }
    }

    /// The key log still gets everything, and a session without an exporter keeps no secret.
    #[test]
    fn the_tap_of_exporters_passes_secrets_on() {
        #[derive(Debug, Default)]
        struct Log(std::sync::Mutex<Vec<String>>);
        impl rustls::KeyLog for Log {
            fn log(&self, label: &str, _: &[u8], _: &[u8]) {
                self.0.lock().unwrap().push(label.to_owned());
            }
        }
        let mut all = Vec::new();
        for exporter in [false, true] {
            let log = Arc::new(Log::default());
            let key_log: Option<Arc<dyn rustls::KeyLog>> = Some(log.clone());
            let options = TlsOptions { alpn: vec![b"x".to_vec()], exporter, key_log, ..TlsOptions::default() };
            let exports = complete(&options)
                .map(|mut end| end.info().unwrap().export_keying_material(&mut [0; 8], b"x", b"").is_ok());
            assert_eq!(exports, [exporter; 2]);
            all.push(std::mem::take(&mut *log.0.lock().unwrap()));
        }
        assert!(all[0].len() >= 10 && all[0] == all[1], "{all:?}");
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
