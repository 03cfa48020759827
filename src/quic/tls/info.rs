//! What the handshake has negotiated.

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::quic::Connection as Quic;
use zeroize::Zeroizing;

use super::exporter::{ExportError, Exporter};
use super::group::Group;
use super::suites::suite_of;
use crate::crypto::Suite;

/// What TLS negotiated on a connection, and who the peer is.
///
/// It comes with [`Event::Connected`](crate::quic::Event::Connected), can be kept, and may be passed to other threads.
pub struct TlsInfo {
    suite: Suite,
    group: Option<Group>,
    server_name: Option<Box<str>>,
    peer_certificates: Box<[CertificateDer<'static>]>,
    exporter: Option<Exporter>,
}

impl TlsInfo {
    /// The facts of a complete handshake. `None` if it is not complete.
    pub(super) fn of(session: &Quic, secret: Option<Zeroizing<Vec<u8>>>) -> Option<Self> {
        let server_name = match session {
            Quic::Server(server) => server.server_name().map(Into::into),
            Quic::Client(_) => None,
        };
        let suite = suite_of(session.negotiated_cipher_suite()?.suite())?;
        Some(Self {
            suite,
            group: session.negotiated_key_exchange_group().and_then(|group| Group::of(group.name())),
            server_name,
            peer_certificates: session.peer_certificates().unwrap_or_default().into(),
            exporter: secret.map(|secret| Exporter::new(suite, secret)),
        })
    }

    /// The cipher suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key exchange group; `None` if it is not one of [`Group`], which only configurations made by hand can offer.
    pub fn group(&self) -> Option<Group> {
        self.group
    }

    /// On a server: the host name that the client asked for (Server Name Indication, RFC 6066 §3), in lower case.
    /// Clients that connect to an IP address ask for none.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The peer's certificate chain in DER form, its own certificate first, as it was verified. Empty for clients
    /// without a certificate. In resumed sessions, it is the chain of the first connection.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// Fills `out` with keying material that only the two ends of this connection can compute (RFC 8446 §7.5). Both
    /// have to use the same `label`, `context` and length. Labels should be registered with IANA or start with
    /// `EXPERIMENTAL` (RFC 5705 §4).
    ///
    /// # Errors
    /// [`ExportError::NotKept`] without [`TlsOptions::exporter`](super::TlsOptions::exporter), or if the label or the
    /// output is too long.
    pub fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> Result<(), ExportError> {
        self.exporter.as_ref().ok_or(ExportError::NotKept)?.export(out, label, context)
    }
}

impl fmt::Debug for TlsInfo {
    /// Omits secrets and the contents of certificates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("suite", &self.suite)
            .field("group", &self.group)
            .field("server_name", &self.server_name)
            .field("peer_certificates", &self.peer_certificates.len())
            .finish_non_exhaustive()
    }
}
