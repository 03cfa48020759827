//! AES-GCM for CPUs with 512-bit VAES and VPCLMULQDQ (Intel since Ice Lake, AMD since Zen 4), designed for packets.
//!
//! GCM in libraries is designed for messages: there are functions to initialise, update and finalise, and CTR is
//! separate. Packets need other operations: one call that computes the tag and, as a by-product, the first bytes of the
//! plaintext, which contain the frame headers; and one call that decrypts any range of bytes without staging at its
//! edges. Both process four blocks per register, and use masks for partial blocks.
//!
//! All instructions take the same time whatever their data.
#![allow(unsafe_code)]

mod ctr;
mod gcm;
mod ghash;
mod one_go;
mod schedule;

pub(in crate::crypto) use gcm::Gcm;
pub(in crate::crypto) use one_go::OneGo;
pub(in crate::crypto) use schedule::Schedule;

/// Number of round keys of AES-128, which selects the key length in type parameters.
pub(in crate::crypto) const AES128: usize = 11;
/// Number of round keys of AES-256.
pub(in crate::crypto) const AES256: usize = 15;

const BLOCK: usize = 16;

/// Bytes in a 512-bit register.
const WIDTH: usize = 64;

/// Whether this CPU has the instructions that the kernels need, and the operating system saves its registers; std
/// checks both.
pub(in crate::crypto) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
}
