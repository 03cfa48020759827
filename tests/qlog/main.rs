//! Qlog files: what is written, and that it tells what happened.
#![forbid(unsafe_code)]

mod encode;
mod json;
mod plays;
mod schema;
