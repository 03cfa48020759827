//! Failures of a client.

use std::net::SocketAddr;

use thiserror::Error;

use crate::quic::CloseReason;
use crate::runtime::Unreachable;

/// Codes of CRYPTO_ERROR, which carry a TLS alert (RFC 9001 §4.8).
const CRYPTO_ERRORS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// The reason why a connection or a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PerfFailure {
    /// The connection could not be started.
    #[error("cannot connect to {remote}: {reason}")]
    Connect {
        /// The server.
        remote: SocketAddr,
        /// The reason.
        reason: String,
    },
    /// The server cannot be reached.
    #[error("cannot reach {remote}: {why}")]
    Unreachable {
        /// The server.
        remote: SocketAddr,
        /// The reason.
        why: Unreachable,
    },
    /// The handshake timed out.
    #[error(
        "{0} did not complete the handshake in time; is a QUIC server running there, and does a firewall drop UDP?"
    )]
    HandshakeTimeout(SocketAddr),
    /// The server refused the TLS handshake.
    #[error("the server refused the TLS handshake with alert {alert}{}", explain(*.alert, .reason))]
    RefusedByServer {
        /// The TLS alert (RFC 8446 §6).
        alert: u8,
        /// The server's reason phrase, which may be empty.
        reason: String,
    },
    /// Our side refused the TLS handshake.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// The server does not speak our application protocol.
    #[error("the server chose the application protocol {0:?} instead of \"perf\"; is it a perf server?")]
    Protocol(String),
    /// The server speaks none of our versions of QUIC.
    #[error("the server speaks no version of QUIC that is spoken here (see --versions)")]
    Version,
    /// The server's application closed the connection.
    #[error("the server closed the connection: code {code}{}", quoted(.reason))]
    ClosedByServer {
        /// Application error code.
        code: u64,
        /// The server's reason phrase, which may be empty.
        reason: String,
    },
    /// The server closed the connection with a transport error.
    #[error("the server closed the connection with transport error 0x{code:x}{}", quoted(.reason))]
    ServerError {
        /// Transport error code (RFC 9000 §20.1).
        code: u64,
        /// The server's reason phrase, which may be empty.
        reason: String,
    },
    /// Our side closed the connection with a transport error.
    #[error("this end closed the connection with transport error 0x{code:x}{}", quoted(.reason))]
    OurError {
        /// Transport error code (RFC 9000 §20.1).
        code: u64,
        /// The reason phrase.
        reason: String,
    },
    /// The connection timed out.
    #[error("the server was silent for the whole idle timeout: it, or the network in between, is down")]
    IdleTimeout,
    /// The server was restarted, or heard nothing for longer than it waits.
    #[error(
        "the server no longer knows the connection (stateless reset): it was restarted, or gave up while the network \
         was down"
    )]
    StatelessReset,
    /// There was no memory for an answer, or the engine refused it.
    #[error("an answer could not be received: {0}")]
    Memory(String),
    /// An answer has the wrong length.
    #[error("an answer had {got} bytes instead of {wanted}")]
    WrongLength {
        /// The received length in bytes.
        got: u64,
        /// The requested length in bytes.
        wanted: u64,
    },
    /// An answer differs from what our server sends.
    #[error(
        "an answer differs from what a gannet server sends at byte {offset}; do not verify answers of other servers"
    )]
    WrongBytes {
        /// The offset of the first wrong byte.
        offset: u64,
    },
    /// The server reset the stream of an answer.
    #[error("the server reset a request with code {code}")]
    Reset {
        /// Application error code.
        code: u64,
    },
    /// The server stopped reading a request.
    #[error("the server stopped reading a request with code {code}")]
    Stopped {
        /// Application error code.
        code: u64,
    },
}

fn quoted(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason:?})") }
}

/// Explains the most frequent alerts.
fn explain(alert: u8, reason: &str) -> String {
    let known = match alert {
        40 => " (handshake failure: no cipher suite or key exchange in common)",
        42 | 43 | 46 | 48 | 116 => " (it requires a client certificate that it trusts)",
        112 => " (it has no certificate for that name: give the right --server-name)",
        120 => " (no application protocol in common: it does not speak \"perf\")",
        _ => "",
    };
    format!("{known}{}", quoted(reason))
}

impl PerfFailure {
    /// Converts the end of a connection to `remote`; `None` if we closed it.
    pub(super) fn of_close(reason: CloseReason, remote: SocketAddr) -> Option<Self> {
        Some(match reason {
            CloseReason::Local { .. } | CloseReason::Shutdown => return None,
            CloseReason::Application { code, reason } => Self::ClosedByServer { code, reason },
            CloseReason::PeerTransport { code, reason } if CRYPTO_ERRORS.contains(&code) => {
                Self::RefusedByServer { alert: code as u8, reason }
            }
            CloseReason::PeerTransport { code, reason } => Self::ServerError { code, reason },
            CloseReason::Transport { code, reason } if CRYPTO_ERRORS.contains(&code) => Self::Tls(reason),
            CloseReason::Transport { code, reason } => Self::OurError { code, reason },
            CloseReason::IdleTimeout => Self::IdleTimeout,
            CloseReason::HandshakeTimeout => Self::HandshakeTimeout(remote),
            CloseReason::StatelessReset => Self::StatelessReset,
            CloseReason::VersionMismatch => Self::Version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let remote = SocketAddr::from(([192, 0, 2, 1], 443));
        let text = |reason| PerfFailure::of_close(reason, remote).map(|f| f.to_string());
        assert_eq!(text(CloseReason::Local { code: 0 }), None);
        assert_eq!(text(CloseReason::Shutdown), None);
        let alpn = text(CloseReason::PeerTransport { code: 0x178, reason: String::new() }).unwrap();
        assert!(alpn.contains("alert 120") && alpn.contains("\"perf\""), "{alpn}");
        let cert = text(CloseReason::Transport { code: 0x12a, reason: "bad certificate".into() }).unwrap();
        assert!(cert.starts_with("the TLS handshake failed: bad certificate"), "{cert}");
        let refused = text(CloseReason::PeerTransport { code: 2, reason: "go away".into() }).unwrap();
        assert!(refused.contains("0x2 (\"go away\")"), "{refused}");
        assert!(text(CloseReason::HandshakeTimeout).unwrap().contains("192.0.2.1:443"));
    }
}
