//! Initial keys (RFC 9001 §5.2) and the Retry integrity tag (RFC 9001 §5.8), with the numbers of each version (RFC 9369
//! §3.3).

use std::sync::OnceLock;

use hkdf::Hkdf;
use sha2::Sha256;
use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::nonce::IV_LEN;
use super::{DirectionKeys, Keys, PacketKey, Suite, TAG_LEN, header_key, packet_key, traceless};
use crate::base::Side;
use crate::wire::quic::Version;

/// What the versions of QUIC do not have in common.
struct Numbers {
    initial_salt: [u8; 20],
    retry_key: [u8; 16],
    retry_nonce: [u8; IV_LEN],
    /// Labels of packet key, IV and header protection key (RFC 9001 §5.1).
    key: &'static str,
    iv: &'static str,
    hp: &'static str,
}

/// RFC 9001 §5.2, §5.8.
const V1: Numbers = Numbers {
    initial_salt: [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb,
        0x7f, 0x0a,
    ],
    retry_key: [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e],
    retry_nonce: [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb],
    key: "quic key",
    iv: "quic iv",
    hp: "quic hp",
};

/// RFC 9369 §3.3.
const V2: Numbers = Numbers {
    initial_salt: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd,
        0x2e, 0xd9,
    ],
    retry_key: [0x8f, 0xb4, 0xb0, 0x1b, 0x56, 0xac, 0x48, 0xe2, 0x60, 0xfb, 0xcb, 0xce, 0xad, 0x7c, 0xcc, 0x92],
    retry_nonce: [0xd8, 0x69, 0x69, 0xbc, 0x2d, 0x7c, 0x6d, 0x99, 0x90, 0xef, 0xb0, 0x4a],
    key: "quicv2 key",
    iv: "quicv2 iv",
    hp: "quicv2 hp",
};

const fn numbers(version: Version) -> &'static Numbers {
    match version {
        Version::V1 => &V1,
        Version::V2 => &V2,
    }
}

/// The Initial keys of a connection, from the point of view of `side`. `dcid` is the Destination Connection ID of the
/// client's first Initial packet, or of its first one after a Retry.
pub fn initial_keys(version: Version, dcid: &[u8], side: Side) -> Keys {
    traceless(|| {
        let secret = initial_secret(version, dcid);
        Keys { local: direction(version, &secret, side), remote: direction(version, &secret, side.peer()) }
    })
}

/// The Initial keys for packets from `sender` only, which is half the work of [`initial_keys`] and suffices to
/// authenticate a packet.
pub fn initial_direction(version: Version, dcid: &[u8], sender: Side) -> DirectionKeys {
    traceless(|| direction(version, &initial_secret(version, dcid), sender))
}

/// The integrity tag, the last 16 bytes of a Retry packet. `retry_without_tag` is the packet up to the tag,
/// `original_dcid` the Destination Connection ID of the packet that it answers (at most 255 bytes; the versions that we
/// know have at most 20).
///
/// # Panics
/// If `original_dcid` is longer than 255 bytes.
pub fn retry_tag(version: Version, original_dcid: &[u8], retry_without_tag: &[u8]) -> [u8; TAG_LEN] {
    static KEYS: [OnceLock<PacketKey>; 2] = [const { OnceLock::new() }; 2];
    let Numbers { retry_key, retry_nonce, .. } = numbers(version);
    let key = KEYS[version as usize].get_or_init(|| packet_key(Suite::Aes128Gcm, retry_key, retry_nonce));
    // The Retry Pseudo-Packet. It fits on the stack, as Retry packets fit into a datagram.
    let mut pseudo = SmallVec::<[u8; 1600]>::new();
    pseudo.push(u8::try_from(original_dcid.len()).expect("a connection ID is short"));
    pseudo.extend_from_slice(original_dcid);
    pseudo.extend_from_slice(retry_without_tag);
    key.tag_over(&pseudo)
}

fn initial_secret(version: Version, dcid: &[u8]) -> Hkdf<Sha256> {
    Hkdf::new(Some(&numbers(version).initial_salt), dcid)
}

fn direction(version: Version, initial: &Hkdf<Sha256>, sender: Side) -> DirectionKeys {
    let label = match sender {
        Side::Client => "client in",
        Side::Server => "server in",
    };
    let secret = expand::<32>(initial, label);
    let secret = Hkdf::from_prk(&*secret).expect("as long as the hash");
    let Numbers { key, iv, hp, .. } = numbers(version);
    let (key, iv, hp) = (expand::<16>(&secret, key), expand(&secret, iv), expand::<16>(&secret, hp));
    DirectionKeys { header: header_key(Suite::Aes128Gcm, &*hp), packet: packet_key(Suite::Aes128Gcm, &*key, &iv) }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
fn expand<const N: usize>(secret: &Hkdf<Sha256>, label: &str) -> Zeroizing<[u8; N]> {
    const PREFIX: &str = "tls13 ";
    let lengths = [0, N as u8, (PREFIX.len() + label.len()) as u8];
    let mut out = Zeroizing::new([0; N]);
    let info = [lengths.as_slice(), PREFIX.as_bytes(), label.as_bytes(), &[0]];
    secret.expand_multi_info(&info, out.as_mut_slice()).expect("shorter than 255 hashes");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::hex;

    /// RFC 9001 §A.1.
    #[test]
    fn derives_the_secrets_of_the_rfc() {
        let dcid = hex("8394c8f03e515708");
        let (prk, initial) = Hkdf::<Sha256>::extract(Some(&V1.initial_salt), &dcid);
        assert_eq!(prk[..], hex("7db5df06e7a69e432496adedb00851923595221596ae2ae9fb8115c1e9ed0a44"));
        let client = expand::<32>(&initial, "client in");
        assert_eq!(client[..], hex("c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea"));
        let server = expand::<32>(&initial, "server in");
        assert_eq!(server[..], hex("3c199828fd139efd216c155ad844cc81fb82fa8d7446fa7d78be803acdda951b"));
        let client = Hkdf::<Sha256>::from_prk(&*client).unwrap();
        assert_eq!(expand::<16>(&client, "quic key")[..], hex("1f369613dd76d5467730efcbe3b1a22d"));
        assert_eq!(expand::<12>(&client, "quic iv")[..], hex("fa044b2f42a3fd3b46fb255c"));
        assert_eq!(expand::<16>(&client, "quic hp")[..], hex("9f50449e04a0e810283a1e9933adedd2"));
    }

    /// RFC 9369 §A.1.
    #[test]
    fn derives_the_secrets_of_version_2() {
        let initial = initial_secret(Version::V2, &hex("8394c8f03e515708"));
        let client = expand::<32>(&initial, "client in");
        assert_eq!(client[..], hex("14ec9d6eb9fd7af83bf5a668bc17a7e283766aade7ecd0891f70f9ff7f4bf47b"));
        let client = Hkdf::<Sha256>::from_prk(&*client).unwrap();
        assert_eq!(expand::<16>(&client, V2.key)[..], hex("8b1a0bc121284290a29e0971b5cd045d"));
        assert_eq!(expand::<12>(&client, V2.iv)[..], hex("91f73e2351d8fa91660e909f"));
        assert_eq!(expand::<16>(&client, V2.hp)[..], hex("45b95e15235d6f45a6b19cbcb0294ba9"));
        let server = expand::<32>(&initial, "server in");
        let server = Hkdf::<Sha256>::from_prk(&*server).unwrap();
        assert_eq!(expand::<16>(&server, V2.key)[..], hex("82db637861d55e1d011f19ea71d5d2a7"));
        assert_eq!(expand::<12>(&server, V2.iv)[..], hex("dd13c276499c0249d3310652"));
        assert_eq!(expand::<16>(&server, V2.hp)[..], hex("edf6d05c83121201b436e16877593c3a"));
    }

    /// RFC 9001 §A.4.
    #[test]
    fn retry_tags_are_those_of_the_rfcs() {
        let retry = hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba");
        let (body, tag) = retry.split_last_chunk::<16>().unwrap();
        assert_eq!(retry_tag(Version::V1, &hex("8394c8f03e515708"), body), *tag);
        assert_ne!(retry_tag(Version::V1, &hex("8394c8f03e515709"), body), *tag);
        assert_ne!(retry_tag(Version::V2, &hex("8394c8f03e515708"), body), *tag);
        // RFC 9369 §A.4.
        let retry = hex("cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d955543665dcc7b6");
        let (body, tag) = retry.split_last_chunk::<16>().unwrap();
        assert_eq!(retry_tag(Version::V2, &hex("8394c8f03e515708"), body), *tag);
    }

    #[test]
    fn a_long_retry_has_a_tag_too() {
        let long = vec![7; 5000];
        assert_ne!(retry_tag(Version::V1, b"id", &long), retry_tag(Version::V1, b"id", &long[1..]));
    }
}
