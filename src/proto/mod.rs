//! Layer `proto`: application protocols on top of the stack.
#![forbid(unsafe_code)]

pub mod hq;
pub mod perf;
