//! What is in an ID, and who can read it.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::quic::cid::testing::{hex, padded};

const KEY: &str = "8f95f09245765f80256934e50c66207f";

/// draft-ietf-quic-load-balancers-21 §5.4.2.4, Appendix B.1 and B.2: key, configuration, server ID, nonce, ID. There are
/// errors in the draft: the second vector of B.1 has a nonce of nine digits and a first octet of three, and the last of
/// B.2 has the first octet 0x12 instead of 0x72.
#[test]
fn vectors_of_the_draft() {
    let vectors = [
        ("", 0, "c4605e", "4504cc4f", "07c4605e4504cc4f"),
        ("fdf726a9893ec05c0632d3956680baf0", 0, "31441a", "9c69c275", "0767947d29be054a"),
        (KEY, 0, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
        (KEY, 1, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
        (KEY, 2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
        (KEY, 3, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", "725779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
    ];
    for (key, rotation, server_id, nonce, cid) in vectors {
        let key = (!key.is_empty()).then(|| Zeroizing::new(hex(key).try_into().unwrap()));
        let server_id = hex(server_id)[..].try_into().unwrap();
        // Most of these nonces are too short for our contents, so that `CidConfig::routed` would refuse them.
        let config = CidConfig { rotation, server_id, nonce_len: nonce.len() / 2, key };
        let codec = CidCodec::new(&config, &[0; 16], &[0; 16]);
        assert_eq!(codec.wrap(&padded(&hex(nonce)))[..], hex(cid), "{cid}");
        assert_eq!(codec.unwrap(&padded(&hex(cid)[1..])), Some(padded(&hex(nonce))), "{cid}");
    }
}

fn routed(rotation: u8, server_id: &[u8], nonce_len: usize, key: Option<u8>) -> CidConfig {
    CidConfig::routed(rotation, server_id, nonce_len, key.map(|key| [key; 16]).as_ref()).unwrap()
}

fn forms() -> Vec<CidConfig> {
    let mut forms: Vec<_> = (10..=19).map(|len| CidConfig::unrouted(len).unwrap()).collect();
    for (server_id, nonce) in [(1, 9), (1, 15), (7, 9), (10, 9), (3, 16), (8, 9), (2, 17), (1, 18)] {
        forms.extend([Some(9), None].map(|key| routed(3, &[0xab; 10][..server_id], nonce, key)));
    }
    forms
}

proptest! {
    #[test]
    fn every_form_brings_back_what_was_put_in(
        core in 0..CidInfo::NO_CORE, index in 0..=MAX_INDEX, generation: u32, sequence: u16, epoch: [u8; 16], flip in 8..80usize,
    ) {
        for config in forms() {
            let codec = CidCodec::new(&config, &[7; 16], &epoch);
            let generation = generation.min(codec.last_generation());
            let info = CidInfo { core, index, generation, sequence };
            let cid = codec.encode(info);
            prop_assert_eq!(cid.len(), config.len());
            prop_assert_eq!(codec.decode(&cid), Some(info));
            prop_assert_eq!(codec.decode_raw(codec.raw(&cid).unwrap()), Some(info));
            // Together with others, some of which are not of our form.
            let many: Vec<_> = (0..2 * LANES as u16 + 1).map(|n| codec.encode(CidInfo { sequence: n, ..info })).collect();
            for take in [0, 1, 2, LANES, LANES + 1, many.len()] {
                let mut raws: Vec<_> = many[..take].iter().map(|cid| codec.raw(cid).unwrap()).collect();
                raws.iter_mut().skip(2).step_by(3).for_each(|raw| raw.front ^= 0x20);
                let (mut n, mut all) = (0, Vec::new());
                codec.decode_all(&raws, |info| all.push(info));
                for (got, raw) in all.iter().zip(&raws) {
                    prop_assert_eq!(*got, codec.decode_raw(*raw));
                    prop_assert_eq!(got.is_some(), n < 2 || (n - 2) % 3 != 0);
                    n += 1;
                }
                prop_assert_eq!(all.len(), take);
            }
            let short = [&[0x41], &cid[..], &[0x77; 40]].concat();
            prop_assert_eq!(codec.short_dcid(&short), codec.raw(&cid));
            // One bit of the ciphertext changes all of the contents.
            let mut other = cid.to_vec();
            other[flip / 8] ^= 1 << (flip % 8);
            prop_assert_ne!(codec.decode(&other), Some(info));
            prop_assert_eq!(codec.decode(&cid[1..]), None);
            other.clone_from(&cid.to_vec());
            other[0] ^= 0x20;
            prop_assert_eq!(codec.decode(&other), None);
        }
    }
}

#[test]
fn ids_of_one_connection_do_not_look_alike() {
    let codec = CidCodec::new(&CidConfig::default(), &[7; 16], &[3; 16]);
    let info = CidInfo { core: 3, index: 0xabcdef, generation: 0x123456, sequence: 0xfffe };
    let (a, b) = (codec.encode(info), codec.encode(CidInfo { sequence: 0xffff, ..info }));
    let same = a[1..].iter().zip(&b[1..]).filter(|(a, b)| a == b).count();
    assert!(same < 4);
    assert_ne!(CidCodec::new(&CidConfig::default(), &[8; 16], &[3; 16]).decode(&a), Some(info));
}

/// Any process with the key can read the core of an ID; the rest is meaningless to other processes.
#[test]
fn another_epoch_knows_the_core_only() {
    for config in forms() {
        let [old, new] = [1, 2].map(|n| CidCodec::new(&config, &[7; 16], &[n; 16]));
        let info = CidInfo { core: 5, index: 0, generation: 0, sequence: 0 };
        let read = new.decode(&old.encode(info)).unwrap();
        assert_eq!(read.core, 5);
        assert!(read.index != 0 && read.generation != 0 && read.sequence != 0);
    }
}

#[test]
fn another_server_is_told_apart() {
    for key in [Some(4), None] {
        let codec = |id| CidCodec::new(&routed(0, &[id], 15, key), &[7; 16], &[0; 16]);
        let info = CidInfo { core: 1, index: 2, generation: 3, sequence: 4 };
        assert_eq!(codec(1).decode(&codec(1).encode(info)), Some(info));
        assert_eq!(codec(2).decode(&codec(1).encode(info)), None);
        let raw = codec(1).raw(&codec(1).encode(info)).unwrap();
        let mut read = Vec::new();
        codec(2).decode_all(&[raw; 3], |info| read.push(info));
        assert_eq!(read, [None; 3]);
    }
}

/// Who has the load balancers' key learns nothing but the server ID: contents that differ in one bit, and the same
/// contents under another secret, give unrelated nonces. Without a key, everyone sees them (§5.4: "no observable
/// relationship to the field in previously issued connection IDs").
#[test]
fn a_nonce_tells_load_balancers_nothing() {
    for (key, nonce) in [(Some(4), 9), (Some(4), 14), (None, 9), (None, 16), (None, 18)] {
        let config = routed(0, &[5], nonce, key);
        let codec = |secret| CidCodec::new(&config, &[secret; 16], &[0; 16]);
        let nonce = |secret, sequence| {
            let cid = codec(secret).encode(CidInfo { core: 0, index: 0, generation: 0, sequence });
            let text = padded(&cid[1..]);
            let plain = config.key.as_deref().map_or(text, |key| Cipher::new(key, cid.len() - 1).decrypt(&text));
            assert_eq!(plain[0], 5, "the server ID");
            plain[1..1 + config.nonce_len].to_vec()
        };
        for (one, other) in [(nonce(1, 0), nonce(1, 1)), (nonce(1, 0), nonce(2, 0)), (nonce(1, 0), vec![0; 18])] {
            let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 4, "{one:?} {other:?}");
        }
    }
}

/// §5.4: "A server encodes one of its assigned server IDs in any CID it generates".
#[test]
fn clients_return_from_a_retry_to_the_same_server() {
    for config in forms() {
        let codec = CidCodec::new(&config, &[7; 16], &[1; 16]);
        let ids = [1, 2].map(|n| codec.retry_id([n; 16]));
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            assert!(id.len() >= 8, "RFC 9000 §7.2");
            let read = codec.decode(&id);
            assert_eq!(read.map(|info| info.core), (config.rotation == 3).then_some(CidInfo::NO_CORE));
            assert_eq!(id[0], config.rotation << 5 | (id.len() - 1) as u8);
        }
    }
}

#[test]
#[should_panic(expected = "no bits")]
fn a_core_that_does_not_exist_has_no_ids() {
    let codec = CidCodec::new(&CidConfig::default(), &[7; 16], &[3; 16]);
    codec.encode(CidInfo { core: CidInfo::NO_CORE, index: 0, generation: 0, sequence: 0 });
}

#[test]
#[should_panic(expected = "no bits")]
fn a_generation_is_never_cut() {
    let codec = CidCodec::new(&CidConfig::default(), &[7; 16], &[3; 16]);
    codec.encode(CidInfo { core: 0, index: 0, generation: 1 << 24, sequence: 0 });
}
