//! Tests of the whole layer: the vectors of RFC 9001, and a second implementation to compare with.

mod differential;
mod guard;
mod sealing;
pub(crate) mod traces;
mod vectors;

use super::{PacketKey, TAG_LEN};

/// Bytes from hexadecimal digits; whitespace is skipped.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| ((pair[0] << 4) | pair[1]) as u8).collect()
}

/// Header and plaintext as one packet with a tag, sealed in place.
fn seal(key: &PacketKey, pn: u64, header: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut packet = [header, plaintext, &[0; TAG_LEN]].concat();
    let mut sealer = key.seal(pn, &mut packet, header.len());
    sealer.in_place(plaintext.len());
    assert_eq!(sealer.finish(), packet.len());
    packet
}

/// The whole plaintext, if the packet authenticates.
fn open(key: &PacketKey, pn: u64, aad: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let mut body = body.to_vec();
    let opened = key.open(pn, aad, &mut body, &mut [0; _]).ok()?;
    let mut plaintext = vec![0; opened.len()];
    opened.decrypt_at(0, &mut plaintext);
    Some(plaintext)
}
