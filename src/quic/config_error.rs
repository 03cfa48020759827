//! Errors in settings.

use thiserror::Error;

use crate::base::time::Duration;
use crate::wire::quic::{Version, Versions};

/// A setting that cannot work.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is too small or too large.
    #[error("{name} is {value}; it must be from {min} to {max}")]
    Number {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// Minimum.
        min: u64,
        /// Maximum.
        max: u64,
    },
    /// A time is too short or too long.
    #[error("{name} is {value:?}; it must be from {min:?} to {max:?}")]
    Time {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: Duration,
        /// Minimum.
        min: Duration,
        /// Maximum.
        max: Duration,
    },
    /// A client would begin with a version that it does not speak.
    #[error("first_version is {first}; it must be one of the versions ({versions})")]
    FirstVersion {
        /// The first version.
        first: Version,
        /// All versions.
        versions: Versions,
    },
    /// There is no application protocol, which QUIC requires (RFC 9001 §8.1).
    #[error("no application protocol: alpn_protocols (TlsOptions::alpn) needs at least one")]
    NoAlpn,
    /// A cipher suite comes from another provider; the engine cannot get its keys for packet protection.
    #[error(
        "the cipher suite {0} is from another provider: build the rustls configuration with tls::crypto_provider()"
    )]
    ForeignSuite(String),
    /// 0-RTT is enabled in the TLS settings, where replays are not limited.
    #[error("max_early_data_size is {0}: it must be 0; ServerConfig::with_early_data enables 0-RTT")]
    EarlyData(u32),
    /// rustls cannot make QUIC sessions with the configuration.
    #[error("rustls refuses the configuration: {0}")]
    Tls(String),
}
