//! AES kernels of intel-ipsec-mb, and single AES blocks with AES-NI.
//!
//! The library offers a chainable GHASH, CTR as a cipher job, and AES-GCM for whole packets or in pieces. A job costs
//! at least about 20 ns, so a few blocks (the mask of a tag, the edge of a range, a frame header) are encrypted here
//! instead.
//!
//! The unsafe code for the library is in this module.
#![allow(unsafe_code)]

mod aesni;
mod gcm;
mod library;

pub(in crate::crypto) use aesni::Aes;
pub(in crate::crypto) use gcm::{Gcm, Stream};
pub(in crate::crypto) use library::Arch;

/// Number of rounds of AES-128, which selects the key length in type parameters.
pub(in crate::crypto) const AES128: usize = 10;
/// Number of rounds of AES-256.
pub(in crate::crypto) const AES256: usize = 14;

const BLOCK: usize = 16;
/// Up to this many blocks, AES-NI is cheaper than a job.
const FEW: usize = 8;

const fn key_len<const ROUNDS: usize>() -> usize {
    if ROUNDS == AES128 { 16 } else { 32 }
}

fn check_len<const ROUNDS: usize>(key: &[u8]) {
    assert_eq!(key.len(), key_len::<ROUNDS>(), "key length fits the cipher");
}
