//! Layer `wire`: how things look in packets. Codecs over byte slices, without unsafe code or allocation.
#![forbid(unsafe_code)]

pub mod quic;
