//! What the stacks are told: windows, acknowledgements, sizes.

use std::time::Duration;

use super::world::HEADERS;

/// The largest IP packet, in bytes.
pub const MTU: usize = 1500;

/// The largest UDP payload over IPv4.
pub const MAX_PAYLOAD: u16 = (MTU - HEADERS) as u16;

/// Windows that never limit the scenarios here, in bytes.
pub const WIDE: u64 = 256 << 20;

/// Flow control and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// So large that they never matter.
    Wide,
    /// As the library's default settings are; received into chunks of the pool.
    Default,
    /// The same with this much memory, in bytes.
    Memory(u64),
    /// The default settings with provided buffers.
    Provided,
    /// As `gannet serve` and `gannet get` have them.
    Serve,
}

/// How often a receiver acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acks {
    /// After this many packets,
    pub every: u32,
    /// and at the latest after this time.
    pub delay: Duration,
}

/// The stack that receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The same as the sender's.
    Own,
    /// Gannet, which acknowledges rarely, and not on request.
    Rare(Acks),
    /// quinn.
    Quinn,
}
