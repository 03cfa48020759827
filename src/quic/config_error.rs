//! What is wrong with settings.

use thiserror::Error;

use crate::base::time::Duration;

/// Settings that cannot work.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is too small or too large.
    #[error("{name} is {value}; it must be from {min} to {max}")]
    Number {
        /// The setting.
        name: &'static str,
        /// What it is.
        value: u64,
        /// The least that is possible.
        min: u64,
        /// The most that is possible.
        max: u64,
    },
    /// A time is too short or too long.
    #[error("{name} is {value:?}; it must be from {min:?} to {max:?}")]
    Time {
        /// The setting.
        name: &'static str,
        /// What it is.
        value: Duration,
        /// The shortest that is possible.
        min: Duration,
        /// The longest that is possible.
        max: Duration,
    },
    /// There is no application protocol, without which no QUIC handshake may complete (RFC 9001 §8.1).
    #[error("no application protocol: set alpn_protocols (TlsOptions::alpn) to at least one")]
    NoAlpn,
    /// A cipher suite is not made for this engine, which does the packet protection itself.
    #[error("the cipher suite {0} is another provider's: build the rustls configuration with tls::crypto_provider()")]
    ForeignSuite(String),
    /// 0-RTT is announced, which the engine does not do.
    #[error("max_early_data_size is {0}, but 0-RTT is not supported: it has to be 0")]
    EarlyData(u32),
    /// rustls cannot make QUIC sessions with the configuration.
    #[error("rustls refuses: {0}")]
    Tls(String),
}
