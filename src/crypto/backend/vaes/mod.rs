//! AES-GCM for CPUs with 512-bit VAES and VPCLMULQDQ (Intel since Ice Lake, AMD since Zen 4), made for packets.
//!
//! A library's GCM is made for messages: it initialises, updates and finalises, and its CTR is a job of its own. A
//! packet wants other things: one call that gives the tag and, as a by-product, the first bytes of the plaintext,
//! where the frame headers are; and one call that decrypts any range of bytes, wherever it begins, with nothing
//! staged at its edges. Both work on four blocks a register, and masks stand in for all partial blocks.
//!
//! All instructions take a time that does not depend on their data.
#![allow(unsafe_code)]

mod ctr;
mod gcm;
mod ghash;
mod one_go;
mod schedule;

pub(in crate::crypto) use gcm::Gcm;
pub(in crate::crypto) use one_go::OneGo;
pub(in crate::crypto) use schedule::Schedule;

/// Round keys of AES-128, which tell the key length in type parameters.
pub(in crate::crypto) const AES128: usize = 11;
/// Round keys of AES-256.
pub(in crate::crypto) const AES256: usize = 15;

const BLOCK: usize = 16;

/// Bytes of a 512-bit register.
const WIDTH: usize = 64;

/// Whether this CPU has what the kernels need, and the operating system saves its registers: std asks for that as well.
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
