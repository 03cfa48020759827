//! Every backend compared with aws-lc-rs.

use aws_lc_rs::aead::quic;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{open, seal};
use crate::crypto::backend::Backend;
use crate::crypto::{
    AuthError, HEAD_AT, HEAD_LEN, HeaderKey, PacketKey, Spent, Suite, TAG_LEN, header_key, take_spent, time_keys,
};

fn any_suite() -> impl Strategy<Value = Suite> {
    proptest::sample::select(&Suite::ALL[..])
}

fn any_key() -> impl Strategy<Value = ([u8; 32], [u8; 12])> {
    any::<([u8; 32], [u8; 12])>()
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

/// The same key on every backend, with and without time measurement.
fn keys(suite: Suite, key: &[u8; 32], iv: &[u8; 12]) -> Vec<PacketKey> {
    let plain = || Backend::all().into_iter().map(|backend| PacketKey::on(backend, suite, &key[..suite.key_len()], iv));
    let mut all: Vec<_> = plain().collect();
    time_keys(true);
    all.extend(plain());
    time_keys(false);
    all
}

#[test]
fn timed_keys_tell_what_they_took() {
    take_spent();
    let [plain, timed] = [false, true].map(|on| {
        time_keys(on);
        PacketKey::on(Backend::Portable, Suite::Aes128Gcm, &[1; 16], &[2; 12])
    });
    time_keys(false);
    let packet = seal(&plain, 7, b"header", &[3; 1000]);
    assert!(open(&plain, 7, b"header", &packet[6..]).is_some());
    assert_eq!(take_spent(), Spent::default(), "a plain key takes no time");
    assert_eq!(seal(&timed, 7, b"header", &[3; 1000]), packet);
    let spent = take_spent();
    assert!(spent.seal > 0 && spent.verify == 0 && spent.place == 0, "{spent:?}");
    let mut body = packet[6..].to_vec();
    let opened = timed.open(7, b"header", &mut body, &mut [0; _]).unwrap();
    let spent = take_spent();
    assert!(spent.verify > 0 && spent.seal == 0 && spent.place == 0, "{spent:?}");
    opened.decrypt_at(0, &mut [0; 1000]);
    let spent = take_spent();
    assert!(spent.place > 0 && spent.seal == 0 && spent.verify == 0, "{spent:?}");
    assert_eq!(take_spent(), Spent::default(), "taken is taken");
}

/// Ciphertext and tag as computed by aws-lc-rs.
pub(super) fn reference(suite: Suite, key: &[u8; 32], iv: &[u8; 12], pn: u64, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let algorithm: &Algorithm = match suite {
        Suite::Aes128Gcm => &AES_128_GCM,
        Suite::Aes256Gcm => &AES_256_GCM,
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &key[..suite.key_len()]).unwrap());
    let mut nonce = *iv;
    for (byte, pn) in nonce[4..].iter_mut().zip(pn.to_be_bytes()) {
        *byte ^= pn;
    }
    let mut body = plaintext.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut body).unwrap();
    body
}

proptest! {
    #[test]
    fn sealing_in_pieces_matches(
        suite in any_suite(), (key, iv) in any_key(), pn in 0..1u64 << 62,
        header in bytes(300), plaintext in bytes(2000),
        cuts in vec((any::<Index>(), any::<bool>()), 0..4), last_in_place: bool,
        frame_header in proptest::option::of(0..70usize), nothing_behind: bool, sample: Index,
    ) {
        let expected = [header.clone(), reference(suite, &key, &iv, pn, &header, &plaintext)].concat();
        let mut cuts: Vec<(usize, bool)> =
            cuts.into_iter().map(|(at, in_place)| (at.index(plaintext.len() + 1), in_place)).collect();
        // As the engine does: frame headers, data, and optionally an empty rest.
        cuts.extend(frame_header.map(|n| (n.min(plaintext.len()), true)));
        cuts.extend(nothing_behind.then_some((plaintext.len(), false)));
        cuts.sort_unstable();
        cuts.push((plaintext.len(), last_in_place));
        for key in keys(suite, &key, &iv) {
            // Pieces passed to `copy_from` are not in the packet.
            let mut packet = [header.clone(), vec![0xa5; plaintext.len() + TAG_LEN]].concat();
            let mut from = 0;
            for &(to, in_place) in &cuts {
                if in_place {
                    packet[header.len()..][from..to].copy_from_slice(&plaintext[from..to]);
                }
                from = to;
            }
            let mut sealer = key.seal(pn, &mut packet, header.len());
            let mut from = 0;
            for &(to, in_place) in &cuts {
                if in_place {
                    sealer.in_place(to - from);
                } else {
                    sealer.copy_from(&plaintext[from..to]);
                }
                from = to;
            }
            let sample_at = sample.index(expected.len() - 15);
            let (len, sample) = sealer.finish_and_sample(sample_at);
            prop_assert_eq!(len, expected.len());
            prop_assert_eq!(&packet, &expected);
            prop_assert_eq!(&sample, &expected[sample_at..sample_at + 16]);
        }
    }

    #[test]
    fn any_range_decrypts_and_nothing_beside_it_is_written(
        suite in any_suite(), (key, iv) in any_key(), pn in 0..1u64 << 62,
        aad in bytes(300), plaintext in bytes(2000), ranges in vec(any::<(Index, Index)>(), 1..8),
    ) {
        let body = reference(suite, &key, &iv, pn, &aad, &plaintext);
        for key in keys(suite, &key, &iv) {
            let mut body = body.clone();
            let mut head = [0xa5; _];
            let opened = key.open(pn, &aad, &mut body, &mut head).unwrap();
            prop_assert_eq!(opened.len(), plaintext.len());
            prop_assert_eq!(opened.is_empty(), plaintext.is_empty());
            let n = opened.head_len();
            prop_assert!(n == 0 || n == plaintext.len().min(HEAD_LEN));
            prop_assert_eq!(&head[HEAD_AT..HEAD_AT + n], &plaintext[..n]);
            for (a, b) in &ranges {
                let from = a.index(plaintext.len() + 1);
                let to = from + b.index(plaintext.len() - from + 1);
                let mut out = vec![0xa5; to - from + 64];
                opened.decrypt_at(from, &mut out[32..32 + to - from]);
                prop_assert_eq!(&out[..32], &[0xa5; 32]);
                prop_assert_eq!(&out[32..32 + to - from], &plaintext[from..to]);
                prop_assert_eq!(&out[32 + to - from..], &[0xa5; 32]);
            }
        }
    }

    #[test]
    fn a_flipped_bit_or_a_wrong_number_does_not_open(
        suite in any_suite(), (key, iv) in any_key(), pn in 0..1u64 << 62, other in 0..1u64 << 62,
        aad in bytes(60), plaintext in bytes(300), at: Index, bit in 0..8u32,
    ) {
        let body = reference(suite, &key, &iv, pn, &aad, &plaintext);
        for key in keys(suite, &key, &iv) {
            let mut packet = [aad.clone(), body.clone()].concat();
            packet[at.index(aad.len() + body.len())] ^= 1 << bit;
            let (changed_aad, changed_body) = packet.split_at_mut(aad.len());
            prop_assert_eq!(key.open(pn, changed_aad, changed_body, &mut [0; _]).err(), Some(AuthError));
            let mut body = body.clone();
            let shorter = body.len() - 1;
            prop_assert_eq!(key.open(pn, &aad, &mut body[..shorter], &mut [0; _]).err(), Some(AuthError));
            prop_assert_eq!(key.open(other, &aad, &mut body, &mut [0; _]).is_ok(), other == pn);
        }
    }

    #[test]
    fn masks_match(suite in any_suite(), key: [u8; 32], samples in vec(any::<[u8; 16]>(), 0..70)) {
        let algorithm = match suite {
            Suite::Aes128Gcm => &quic::AES_128,
            Suite::Aes256Gcm => &quic::AES_256,
            Suite::ChaCha20Poly1305 => &quic::CHACHA20,
        };
        let key = &key[..suite.key_len()];
        let reference = quic::HeaderProtectionKey::new(algorithm, key).unwrap();
        for backend in Backend::all() {
            let ours = HeaderKey::on(backend, suite, key);
            let mut masks = vec![[0; 5]; samples.len()];
            ours.masks(&samples, &mut masks);
            for (sample, mask) in samples.iter().zip(masks) {
                prop_assert_eq!(reference.new_mask(sample).unwrap(), mask);
                prop_assert_eq!(ours.mask(sample), mask);
            }
        }
    }
}

#[test]
fn every_single_bit_counts() {
    for suite in Suite::ALL {
        for key in keys(suite, &[7; 32], &[9; 12]) {
            let aad = *b"header";
            let mut packet = seal(&key, 5, &aad, b"a payload of two blocks and more.");
            for bit in 0..packet.len() * 8 {
                packet[bit / 8] ^= 1 << (bit % 8);
                let (aad, body) = packet.split_at(aad.len());
                assert_eq!(open(&key, 5, aad, body), None, "{suite:?} bit {bit}");
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            let (aad, body) = packet.split_at(aad.len());
            assert!(open(&key, 5, aad, body).is_some());
        }
    }
}

#[test]
fn too_short_for_a_tag_is_an_error_and_just_a_tag_is_an_empty_packet() {
    for suite in Suite::ALL {
        for key in keys(suite, &[1; 32], &[2; 12]) {
            let mut packet = seal(&key, 0, &[], &[]);
            assert_eq!(open(&key, 0, &[], &packet), Some(Vec::new()));
            for len in 0..TAG_LEN {
                assert_eq!(key.open(0, &[], &mut packet[..len], &mut [0; _]).err(), Some(AuthError));
            }
        }
    }
}

#[test]
fn long_packets_match() {
    let plaintext: Vec<u8> = (0..65_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
    for suite in Suite::ALL {
        let body = reference(suite, &[3; 32], &[4; 12], 1, b"aad", &plaintext);
        for key in keys(suite, &[3; 32], &[4; 12]) {
            assert_eq!(open(&key, 1, b"aad", &body).as_ref(), Some(&plaintext));
        }
    }
}

#[test]
fn debug_output_holds_no_key() {
    for suite in Suite::ALL {
        let key = &[0xee; 32][..suite.key_len()];
        let shown =
            format!("{:?} {:?}", PacketKey::on(Backend::all()[0], suite, key, &[0xee; 12]), header_key(suite, key));
        assert!(!shown.contains("238") && !shown.contains("ee,"), "{shown}");
    }
}

#[test]
#[should_panic(expected = "key length")]
fn a_key_of_the_wrong_length_is_refused() {
    let _ = PacketKey::on(Backend::all()[0], Suite::Aes256Gcm, &[0; 16], &[0; 12]);
}

#[test]
#[should_panic(expected = "bytes of plaintext for")]
fn plaintext_does_not_reach_into_the_tag() {
    let key = PacketKey::on(Backend::all()[0], Suite::Aes128Gcm, &[0; 16], &[0; 12]);
    let mut packet = [0; 40];
    key.seal(0, &mut packet, 20).in_place(5);
}

#[test]
fn keys_go_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<PacketKey>();
    check::<HeaderKey>();
}
