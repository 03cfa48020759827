//! HTTP/3's wire format: RFC 9114, RFC 9218, RFC 9220, RFC 9297 and draft-ietf-webtrans-http3-16.
//!
//! Nothing here knows connections. What a peer sends is checked and described; what it costs to hold is bounded.
//! Field sections are compressed and decompressed elsewhere: the rules for messages take pairs of name and value.
#![forbid(unsafe_code)]

pub mod capsule;
mod collect;
pub mod error;
pub mod field;
pub mod frame;
pub mod grease;
pub mod message;
pub mod priority;
pub mod reader;
pub mod settings;

pub use error::{Code, Error, Scope};
pub use frame::{FrameHeader, FrameType, StreamKind, StreamType};
pub use grease::{is_reserved, reserved};
pub use reader::{Event, FrameReader};
pub use settings::Settings;
