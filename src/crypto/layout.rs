//! Sizes in a protected packet, which all backends share.

/// Length of the authentication tag in bytes, the same for all suites.
pub const TAG_LEN: usize = 16;

/// What [`PacketKey::open`](super::PacketKey::open) may write the first bytes of the plaintext to: they begin [`HEAD_AT`] bytes behind its front.
pub type HeadRoom = [u8; HEAD_AT + HEAD_LEN];

/// Where the plaintext begins in a [`HeadRoom`]: before it, kernels have the mask of the tag.
pub const HEAD_AT: usize = TAG_LEN;

/// Bytes of plaintext that come out along with the tag at the most.
pub const HEAD_LEN: usize = 48;

/// Bytes of ciphertext that a mask is made from.
pub const SAMPLE_LEN: usize = 16;
