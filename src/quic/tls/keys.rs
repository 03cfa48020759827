//! Extraction of raw key material from rustls.
//!
//! rustls derives packet keys and passes them to the suite's [`Algorithm`], which returns boxed trait objects that can
//! only encrypt in place. Ours perform no cryptography: they store the material and return it in response to a call
//! that rustls itself never makes.

use rustls::Error;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey as RustlsPacketKey, Tag};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::{DirectionKeys, HeaderKey, Keys, PacketKey, Suite, header_key, packet_key as make_packet_key};

/// Length of the longest key with the IV and the suite.
const MATERIAL: usize = 1 + 32 + 12;

/// Path ID by which [`packet_key`] requests the material.
const ASK: u32 = u32::MAX;

/// Sample by which [`both`] requests the material of a header key.
const ASK_SAMPLE: &[u8] = b"gannet: hand over the header protection key";

const fn key_len(suite: Suite) -> usize {
    match suite {
        Suite::Aes128Gcm => 16,
        Suite::Aes256Gcm | Suite::ChaCha20Poly1305 => 32,
    }
}

const fn suite_code(suite: Suite) -> u8 {
    match suite {
        Suite::Aes128Gcm => 0,
        Suite::Aes256Gcm => 1,
        Suite::ChaCha20Poly1305 => 2,
    }
}

const fn suite_of(code: u8) -> Suite {
    match code {
        0 => Suite::Aes128Gcm,
        1 => Suite::Aes256Gcm,
        _ => Suite::ChaCha20Poly1305,
    }
}

/// The algorithm of our TLS suites.
pub(super) struct Capture(pub(super) Suite);

/// Suite code, key, IV.
struct Material([u8; MATERIAL]);

impl Drop for Material {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Material {
    fn new(suite: Suite, key: &[u8], iv: &[u8]) -> Self {
        let mut bytes = [0; MATERIAL];
        bytes[0] = suite_code(suite);
        bytes[1..1 + key.len()].copy_from_slice(key);
        bytes[MATERIAL - iv.len()..].copy_from_slice(iv);
        Self(bytes)
    }

    fn suite(&self) -> Suite {
        suite_of(self.0[0])
    }
}

impl Algorithm for Capture {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn RustlsPacketKey> {
        Box::new(Material::new(self.0, key.as_ref(), iv.as_ref()))
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(Material::new(self.0, key.as_ref(), &[]))
    }

    fn aead_key_len(&self) -> usize {
        key_len(self.0)
    }
}

impl RustlsPacketKey for Material {
    fn encrypt_in_place(&self, _: u64, _: &[u8], _: &mut [u8]) -> Result<Tag, Error> {
        Err(Error::EncryptError)
    }

    fn decrypt_in_place<'a>(&self, _: u64, _: &[u8], _: &'a mut [u8]) -> Result<&'a [u8], Error> {
        Err(Error::DecryptError)
    }

    fn decrypt_in_place_for_path<'a>(&self, path: u32, _: u64, _: &[u8], out: &'a mut [u8]) -> Result<&'a [u8], Error> {
        if path != ASK || out.len() != MATERIAL {
            return Err(Error::DecryptError);
        }
        out.copy_from_slice(&self.0);
        Ok(out)
    }

    fn tag_len(&self) -> usize {
        16
    }

    fn confidentiality_limit(&self) -> u64 {
        make(self).confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        make(self).integrity_limit()
    }
}

impl HeaderProtectionKey for Material {
    fn encrypt_in_place(&self, sample: &[u8], _: &mut u8, out: &mut [u8]) -> Result<(), Error> {
        if sample != ASK_SAMPLE || out.len() != MATERIAL {
            return Err(Error::EncryptError);
        }
        out.copy_from_slice(&self.0);
        Ok(())
    }

    fn decrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::DecryptError)
    }

    fn sample_len(&self) -> usize {
        16
    }
}

fn make(material: &Material) -> PacketKey {
    let suite = material.suite();
    let iv = material.0.last_chunk().expect("the IV is at the end");
    make_packet_key(suite, &material.0[1..1 + key_len(suite)], iv)
}

/// Our packet key for a rustls key made by [`Capture`].
///
/// # Panics
/// If the key is from another provider, which the configurations of this module never use.
pub(super) fn packet_key(key: &dyn RustlsPacketKey) -> PacketKey {
    let mut material = Material([0; MATERIAL]);
    key.decrypt_in_place_for_path(ASK, 0, &[], &mut material.0).expect("a key of our provider");
    make(&material)
}

fn our_header_key(key: &dyn HeaderProtectionKey) -> HeaderKey {
    let mut material = Zeroizing::new([0; MATERIAL]);
    key.encrypt_in_place(ASK_SAMPLE, &mut 0, &mut *material).expect("a key of our provider");
    let suite = suite_of(material[0]);
    header_key(suite, &material[1..1 + key_len(suite)])
}

pub(super) fn direction(keys: &rustls::quic::DirectionalKeys) -> DirectionKeys {
    DirectionKeys { header: our_header_key(&*keys.header), packet: packet_key(&*keys.packet) }
}

/// Our keys for both directions.
pub(super) fn both(keys: &rustls::quic::Keys) -> Keys {
    Keys { local: direction(&keys.local), remote: direction(&keys.remote) }
}
