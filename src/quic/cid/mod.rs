//! Connection IDs (RFC 9000 §5.1).
//!
//! Ours have the form of QUIC-LB (draft-ietf-quic-load-balancers-21): core, slab index, slab generation and sequence
//! number, encrypted, so that a packet finds its core and connection without a table, balancers that exist can route it,
//! and an observer can link no two IDs.

mod codec;
mod config;
mod local;
mod maker;
mod remote;

pub use codec::{CidCodec, CidInfo};
pub(crate) use codec::{MAX_INDEX, RawCid};
pub use config::{CidConfig, CidConfigError};
pub(crate) use local::LocalCids;
pub(crate) use maker::IdMaker;
pub(crate) use remote::RemoteCids;

/// A stateless reset token (RFC 9000 §10.3).
pub(crate) type ResetToken = [u8; 16];

/// How many connection IDs of one side are active at a time.
pub(crate) const MAX_ACTIVE: usize = 4;
