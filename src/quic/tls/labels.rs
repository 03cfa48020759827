//! Keys of the version that is negotiated (RFC 9369 §3.3.2).
//!
//! rustls is told the version when a session begins, but compatible negotiation decides about it later (RFC 9368 §2.3).
//! All sessions are therefore made for version 1, and the HKDF of our suites replaces the labels of packet protection
//! keys by those of the version that [`with_version`] names.

use std::cell::Cell;

use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::crypto::{ActiveKeyExchange, hmac};

use crate::wire::quic::Version;

thread_local! {
    /// The version whose keys are being derived.
    static VERSION: Cell<Version> = const { Cell::new(Version::V1) };
}

/// Calls `derive`, in which rustls derives keys of `version`.
pub(super) fn with_version<R>(version: Version, derive: impl FnOnce() -> R) -> R {
    /// Resets the version, even after a panic.
    struct Reset(Version);

    impl Drop for Reset {
        fn drop(&mut self) {
            VERSION.set(self.0);
        }
    }

    let _reset = Reset(VERSION.replace(version));
    derive()
}

/// The label of `version` for what `label` is in version 1; `None` if they are the same.
fn label_of(version: Version, label: &[u8]) -> Option<&'static [u8]> {
    match (version, label) {
        (Version::V2, b"quic key") => Some(b"quicv2 key"),
        (Version::V2, b"quic iv") => Some(b"quicv2 iv"),
        (Version::V2, b"quic hp") => Some(b"quicv2 hp"),
        (Version::V2, b"quic ku") => Some(b"quicv2 ku"),
        _ => None,
    }
}

/// HKDF with the labels of the current version.
pub(super) struct Labels(pub(super) &'static dyn Hkdf);

impl Hkdf for Labels {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.0.extract_from_zero_ikm(salt)
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.0.extract_from_secret(salt, secret)
    }

    fn extract_from_kx_shared_secret(
        &self,
        salt: Option<&[u8]>,
        kx: Box<dyn ActiveKeyExchange>,
        peer_pub_key: &[u8],
    ) -> Result<Box<dyn HkdfExpander>, rustls::Error> {
        self.0.extract_from_kx_shared_secret(salt, kx, peer_pub_key)
    }

    // Traffic secrets, from which packet protection keys are derived, are only used by way of this.
    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        let inner = self.0.expander_for_okm(okm);
        if VERSION.get() == Version::V1 { inner } else { Box::new(Relabel(inner)) }
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> hmac::Tag {
        self.0.hmac_sign(key, message)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

struct Relabel(Box<dyn HkdfExpander>);

impl Relabel {
    /// Calls `expand` with `info`, an HkdfLabel (RFC 8446 §7.1), after replacing the label.
    fn relabelled<R>(&self, info: &[&[u8]], expand: impl FnOnce(&dyn HkdfExpander, &[&[u8]]) -> R) -> R {
        if let [length, _, prefix, label, context_len, context] = info
            && let Some(label) = label_of(VERSION.get(), label)
        {
            let label_len = [(prefix.len() + label.len()) as u8];
            return expand(&*self.0, &[length, &label_len, prefix, label, context_len, context]);
        }
        expand(&*self.0, info)
    }
}

impl HkdfExpander for Relabel {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        self.relabelled(info, |inner, info| inner.expand_slice(info, output))
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        self.relabelled(info, |inner, info| inner.expand_block(info))
    }

    fn hash_len(&self) -> usize {
        self.0.hash_len()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;

    use super::*;
    use crate::crypto::tests::hex;

    /// RFC 9369 §A.5 and RFC 9001 §A.5, which have the same secret.
    #[test]
    fn keys_are_those_of_the_rfcs() {
        let labels = Labels(TLS13_CHACHA20_POLY1305_SHA256.tls13().unwrap().hkdf_provider);
        let secret = OkmBlock::new(&hex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b"));
        let expand = |version, label: &[u8], len: u8| {
            let mut out = vec![0; len.into()];
            with_version(version, || {
                let info: &[&[u8]] = &[&[0, len], &[6 + label.len() as u8], b"tls13 ", label, &[0], &[]];
                labels.expander_for_okm(&secret).expand_slice(info, &mut out).ok().unwrap();
                if len == 32 {
                    assert_eq!(labels.expander_for_okm(&secret).expand_block(info).as_ref(), out);
                }
            });
            out
        };
        for (label, v1, v2) in [
            (
                &b"quic key"[..],
                "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8",
                "3bfcddd72bcf02541d7fa0dd1f5f9eeea817e09a6963a0e6c7df0f9a1bab90f2",
            ),
            (b"quic iv", "e0459b3474bdd0e44a41c144", "a6b5bc6ab7dafce30ffff5dd"),
            (
                b"quic hp",
                "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
                "d659760d2ba434a226fd37b35c69e2da8211d10c4f12538787d65645d5d1b8e2",
            ),
            (
                b"quic ku",
                "1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9",
                "c69374c49e3d2a9466fa689e49d476db5d0dfbc87d32ceeaa6343fd0ae4c7d88",
            ),
        ] {
            let len = (v1.len() / 2) as u8;
            assert_eq!(expand(Version::V1, label, len), hex(v1), "{label:?}");
            assert_eq!(expand(Version::V2, label, len), hex(v2), "{label:?}");
        }
        assert_eq!(expand(Version::V2, b"c ap traffic", 32), expand(Version::V1, b"c ap traffic", 32));
    }

    #[test]
    fn the_version_lasts_for_the_call() {
        let outcome = std::panic::catch_unwind(|| with_version(Version::V2, || panic!("in the middle")));
        assert!(outcome.is_err() && VERSION.get() == Version::V1);
    }
}
