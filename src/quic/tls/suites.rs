//! The cipher suites of rustls with our packet protection.

use std::sync::LazyLock;

use rustls::crypto::{CipherSuiteCommon, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};

use crate::crypto::Suite;
use crate::quic::tls::keys::Capture;
use crate::quic::tls::labels::Labels;

/// The aws-lc-rs suite `base` with our QUIC packet protection and the labels of every version.
fn with_capture(base: SupportedCipherSuite, quic: &'static Capture) -> Tls13CipherSuite {
    let base = base.tls13().expect("a TLS 1.3 suite");
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: base.common.suite,
            hash_provider: base.common.hash_provider,
            confidentiality_limit: base.common.confidentiality_limit,
        },
        // Once per suite and process.
        hkdf_provider: Box::leak(Box::new(Labels(base.hkdf_provider))),
        aead_alg: base.aead_alg,
        quic: Some(quic),
    }
}

static AES_128: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with_capture(aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, &Capture(Suite::Aes128Gcm)));
static AES_256: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with_capture(aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384, &Capture(Suite::Aes256Gcm)));
static CHACHA20: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    with_capture(aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, &Capture(Suite::ChaCha20Poly1305))
});

/// Our form of `suite` for rustls.
pub(super) fn own_suite(suite: Suite) -> &'static Tls13CipherSuite {
    match suite {
        Suite::Aes128Gcm => &AES_128,
        Suite::Aes256Gcm => &AES_256,
        Suite::ChaCha20Poly1305 => &CHACHA20,
    }
}

/// The suite with this name.
pub(super) fn suite_of(name: CipherSuite) -> Option<Suite> {
    Suite::ALL.into_iter().find(|suite| own_suite(*suite).common.suite == name)
}

/// Whether the engine can get the keys of `suite`.
pub(super) fn is_ours(suite: &Tls13CipherSuite) -> bool {
    Suite::ALL.into_iter().any(|ours| std::ptr::eq(own_suite(ours), suite))
}
