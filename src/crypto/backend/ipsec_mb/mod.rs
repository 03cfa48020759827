//! AES kernels of intel-ipsec-mb, and single AES blocks by AES-NI.
//!
//! The library has a GHASH that chains, CTR as a cipher job, and AES-GCM whole or fed in pieces. A job costs
//! about 20 ns however short it is, so a few blocks (the mask of a tag, the edge of a range, a frame header)
//! are encrypted here instead.
//!
//! All unsafe code of the layer is in this module.
#![allow(unsafe_code)]

mod aesni;
mod gcm;
mod library;

pub(in crate::crypto) use aesni::Aes;
pub(in crate::crypto) use gcm::{Gcm, Stream};
pub(in crate::crypto) use library::Arch;

/// Rounds of AES-128, which tell the key length in type parameters.
pub(in crate::crypto) const AES128: usize = 10;
/// Rounds of AES-256.
pub(in crate::crypto) const AES256: usize = 14;

const BLOCK: usize = 16;
/// Ranges of up to so many blocks are cheaper with AES-NI than as a job.
const FEW: usize = 8;

const fn key_len<const ROUNDS: usize>() -> usize {
    if ROUNDS == AES128 { 16 } else { 32 }
}

fn check_len<const ROUNDS: usize>(key: &[u8]) {
    assert_eq!(key.len(), key_len::<ROUNDS>(), "key length fits the cipher");
}
