//! Gannet: QUIC v1 on DPDK, decrypting stream bytes straight into the application's pinned buffers.
//!
//! Applications use [`api`], whose documentation is a guide with complete programs. The other modules are the layers below
//! and beside it; `ARCHITECTURE.md` describes them.

pub mod api;
pub mod base;
pub mod crypto;
pub mod datapath;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod mem;
pub mod net;
#[cfg(feature = "proto")]
pub mod proto;
pub mod quic;
pub mod report;
pub mod runtime;
pub mod sim;
pub mod wire;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
