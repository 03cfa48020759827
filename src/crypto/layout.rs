//! Sizes in protected packets, common to all backends.

/// Length of the authentication tag in bytes, the same for all suites.
pub const TAG_LEN: usize = 16;

/// Buffer for the first bytes of the plaintext in [`PacketKey::open`](super::PacketKey::open). They begin at
/// [`HEAD_AT`].
pub type HeadRoom = [u8; HEAD_AT + HEAD_LEN];

/// Offset of the plaintext in a [`HeadRoom`]; kernels put the mask of the tag before it.
pub const HEAD_AT: usize = TAG_LEN;

/// Maximum number of plaintext bytes that are computed along with the tag.
pub const HEAD_LEN: usize = 48;

/// Number of bytes of ciphertext that a mask is derived from.
pub const SAMPLE_LEN: usize = 16;
