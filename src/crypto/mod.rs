//! Packet and header protection (RFC 9001 §5). The tag is verified before anything is decrypted.
//!
//! All three AEADs of QUIC consist of a seekable keystream and a tag over the ciphertext. A [`PacketKey`] therefore
//! offers two steps instead of one: [`PacketKey::open`] verifies the packet, and the resulting [`Opened`] then decrypts
//! any range to its destination. [`PacketKey::seal`] is the counterpart: pieces of plaintext from anywhere are
//! encrypted into the packet, and the tag is computed over the result.
//!
//! A packet is thus read twice, and its memory must not change in between. Making keys leaves no copies of key material
//! on the stack (`traceless`).
#![deny(unsafe_code)]

mod backend;
mod header;
#[cfg(feature = "in-place")]
mod in_place;
mod initial;
mod layout;
mod nonce;
mod packet;
mod state;
mod suite;
#[cfg(test)]
pub(crate) mod tests;
mod timed;
mod traceless;

pub use backend::backend_name;
pub use header::{HeaderKey, header_key};
#[cfg(feature = "in-place")]
pub use in_place::with_keys_in_place;
pub use initial::{initial_direction, initial_keys, retry_tag};
pub use layout::{HEAD_AT, HEAD_LEN, HeadRoom, SAMPLE_LEN, TAG_LEN};
pub use packet::{AuthError, Opened, PacketKey, Sealer, Way, packet_key};
pub use state::{STATE_NONCE_LEN, StateKey};
pub use suite::Suite;
pub use timed::{Spent, take_spent, time_keys};
pub use traceless::traceless;

/// The keys of one encryption level, both directions.
#[derive(Debug)]
pub struct Keys {
    /// Protect packets that we send.
    pub local: DirectionKeys,
    /// Unprotect packets that we receive.
    pub remote: DirectionKeys,
}

/// The keys of one encryption level and direction.
#[derive(Debug)]
pub struct DirectionKeys {
    /// Masks the packet number and the protected header bits.
    pub header: HeaderKey,
    /// Protects the payload.
    pub packet: PacketKey,
}
