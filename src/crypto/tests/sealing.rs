//! Misuse of sealed packets. These checks are present in release builds too, so they are no `debug_assert`s.

use crate::crypto::backend::Backend;
use crate::crypto::{PacketKey, Suite, TAG_LEN};

/// Whether sealing a packet of 100 bytes panics.
fn panics(backend: Backend, feed: usize, sample: bool) -> bool {
    let key = PacketKey::on(backend, Suite::Aes128Gcm, &[3; 16], &[4; 12]);
    let seal = || {
        let mut packet = [7; 20 + 100 + TAG_LEN];
        let mut sealer = key.seal(1, &mut packet, 20);
        sealer.in_place(feed / 2);
        sealer.copy_from(&[8; 200][..feed - feed / 2]);
        if sample { sealer.finish_and_sample(24).0 } else { sealer.finish() }
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(seal)).is_err()
}

/// Bytes that were not passed would be sent unencrypted under a valid tag.
#[test]
fn a_packet_with_plaintext_left_is_not_finished() {
    for backend in Backend::all() {
        for sample in [false, true] {
            assert!(!panics(backend, 100, sample), "{backend:?}");
            for feed in [0, 1, 64, 99, 101] {
                assert!(panics(backend, feed, sample), "{backend:?}: {feed} of 100 bytes");
            }
        }
    }
}
