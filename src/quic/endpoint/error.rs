//! Errors of endpoints.

use std::net::SocketAddr;

use thiserror::Error;

/// Why a connection could not be started.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The endpoint has reached its maximum number of connections.
    #[error("too many connections ({0}); close some or raise max_connections")]
    TooMany(usize),
    /// TLS rejects the server name or the configuration.
    #[error("TLS cannot connect to {name:?}: {reason}")]
    Tls {
        /// The server name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The addresses belong to different families.
    #[error("cannot reach {remote} from {local}: one is IPv4, the other IPv6")]
    Family {
        /// The local address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
}
