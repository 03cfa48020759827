//! Connection IDs (RFC 9000 §5.1).
//!
//! Ours have the form of QUIC-LB (draft-ietf-quic-load-balancers-21): core, slab index, slab generation and sequence
//! number, encrypted. Packets thus find their core and connection without a lookup table, existing load balancers can
//! route them by a server ID in front of that, and observers cannot link IDs.

mod cipher;
mod codec;
mod config;
mod local;
mod maker;
mod remote;

use crate::base::rng::Rng;
use crate::wire::quic::ConnectionId;

pub use codec::{CidCodec, CidInfo};
pub(crate) use codec::{MAX_INDEX, MIN_FIRST, RawCid};
pub use config::{CidConfig, CidConfigError};
pub(crate) use local::LocalCids;
pub(crate) use maker::IdMaker;
pub(crate) use remote::RemoteCids;

/// A stateless reset token (RFC 9000 §10.3).
pub(crate) type ResetToken = [u8; 16];

/// Maximum number of active connection IDs of each side.
pub(crate) const MAX_ACTIVE: usize = 4;

/// A random Destination Connection ID for a client's first packets (RFC 9000 §7.2).
pub(crate) fn first_dcid(rng: &mut Rng) -> ConnectionId {
    let mut bytes = [0; MIN_FIRST];
    rng.fill(&mut bytes);
    ConnectionId::new(&bytes).expect("8 bytes")
}

#[cfg(test)]
mod testing {
    use super::cipher::Text;
    use crate::base::hex;

    pub(super) fn hex(text: &str) -> Vec<u8> {
        hex::decode(text.as_bytes()).unwrap()
    }

    pub(super) fn padded(bytes: &[u8]) -> Text {
        let mut out = [0; 32];
        out[..bytes.len()].copy_from_slice(bytes);
        out
    }
}
