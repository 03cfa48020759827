//! What commands and events have in common.

use crate::mem::PinnedBuf;
use crate::quic::{Notify, Priority, SendData};

/// Names a command whose answer comes as an event. Never used twice by the handles of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// What a new stream starts with.
#[derive(Debug, Default)]
pub struct Opening {
    /// Receive buffers; none for a pooled stream, whose bytes come as [`HandleEvent::Data`](super::HandleEvent::Data).
    pub receive: Vec<PinnedBuf>,
    /// First data.
    pub data: Option<SendData>,
    /// Whether the stream ends behind `data`.
    pub fin: bool,
    /// How its data ranks among that of the connection's other streams.
    pub priority: Priority,
    /// What it tells of data that arrives in `receive`.
    pub notify: Notify,
}
