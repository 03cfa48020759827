//! What makes a message of HTTP well formed (RFC 9114 §4, RFC 9220, RFC 9297 §3.2).
//!
//! A head's fields are given one by one to a [`RequestCheck`] or [`ResponseCheck`], a trailer section's to a
//! [`TrailersCheck`]. A [`Sequence`] follows the frames of one end on a request stream.

mod build;
mod fields;
mod request;
mod response;
mod sequence;

pub use build::{request, response, status_text, trailers};
pub use fields::{Limits, Malformed, TrailersCheck};
pub use request::{RequestCheck, RequestHead};
pub use response::{ResponseCheck, ResponseHead};
pub use sequence::{Asked, Section, Sequence};

#[cfg(test)]
mod tests;
