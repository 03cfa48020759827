//! Key exchange groups.

use rustls::NamedGroup;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;

/// A key exchange group of TLS 1.3 (RFC 8446 §4.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Group {
    /// X25519 together with ML-KEM-768 (draft-ietf-tls-ecdhe-mlkem): a recorded connection stays secret from a future
    /// quantum computer. A ClientHello that offers it takes two Initial packets.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// The NIST curve P-256.
    Secp256r1,
    /// The NIST curve P-384.
    Secp384r1,
}

impl Group {
    /// All groups, in the default order of preference, which is that of browsers.
    pub const ALL: [Self; 4] = [Self::X25519MlKem768, Self::X25519, Self::Secp256r1, Self::Secp384r1];

    /// The name in the registry of TLS.
    pub fn name(self) -> &'static str {
        match self {
            Self::X25519MlKem768 => "X25519MLKEM768",
            Self::X25519 => "x25519",
            Self::Secp256r1 => "secp256r1",
            Self::Secp384r1 => "secp384r1",
        }
    }

    /// Its implementation.
    pub(super) fn exchange(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519MlKem768 => kx_group::X25519MLKEM768,
            Self::X25519 => kx_group::X25519,
            Self::Secp256r1 => kx_group::SECP256R1,
            Self::Secp384r1 => kx_group::SECP384R1,
        }
    }

    /// The group with this name.
    pub(super) fn of(name: NamedGroup) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.exchange().name() == name)
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
