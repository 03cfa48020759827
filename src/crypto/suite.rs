//! The cipher suites of QUIC v1 and their usage limits.

/// An AEAD of TLS 1.3 that protects QUIC packets (RFC 9001 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// `AEAD_AES_128_GCM`.
    Aes128Gcm,
    /// `AEAD_AES_256_GCM`.
    Aes256Gcm,
    /// `AEAD_CHACHA20_POLY1305`.
    ChaCha20Poly1305,
}

impl Suite {
    /// All suites, in the default order of preference.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Length of the packet key and of the header key, in bytes (RFC 9001 §5.4.1).
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Number of packets that one key may protect (RFC 9001 §6.6). ChaCha20-Poly1305 has no limit below the number of
    /// packet numbers, 2^62.
    pub const fn confidentiality_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 23,
            Self::ChaCha20Poly1305 => 1 << 62,
        }
    }

    /// Number of packets that may fail authentication with one key (RFC 9001 §6.6).
    pub const fn integrity_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 52,
            Self::ChaCha20Poly1305 => 1 << 36,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Suite;

    #[test]
    fn limits_are_those_of_the_rfc() {
        assert_eq!(Suite::Aes128Gcm.confidentiality_limit(), 8_388_608);
        assert_eq!(Suite::Aes256Gcm.integrity_limit(), 4_503_599_627_370_496);
        assert_eq!(Suite::ChaCha20Poly1305.integrity_limit(), 68_719_476_736);
        assert!(Suite::ChaCha20Poly1305.confidentiality_limit() > u64::from(u32::MAX));
    }
}
