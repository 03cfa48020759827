//! Fuzz targets: functions that take any bytes and panic if something is wrong.
//!
//! `cargo xtask fuzz` runs them under libFuzzer. `tests/replay.rs` runs them on the committed inputs, as part of the
//! ordinary tests. Apart from handshakes, whose keys are random, the same input always does the same.
#![forbid(unsafe_code)]

pub mod connection;
pub mod endpoint;
pub mod exchange;
pub mod h3;
pub mod input;
pub mod net;
pub mod parsers;
pub mod qpack;
mod states;

#[path = "../../tests/hostile/peer.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the tests")]
mod peer;
#[path = "../../tests/hostile/world.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the tests")]
mod world;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("params", parsers::params),
    ("frames", parsers::frames),
    ("headers", parsers::headers),
    ("packets", parsers::packets),
    ("text", parsers::text),
    ("net", net::run),
    ("qpack", qpack::run),
    ("endpoint", endpoint::run),
    ("connection", connection::run),
    ("exchange", exchange::run),
    ("h3", h3::run),
];
