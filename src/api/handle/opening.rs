//! Types shared by commands and events.

use crate::mem::PinnedBuf;
use crate::quic::{Notify, Priority, SendData};

/// Identifies a command whose answer comes as an event; unique among the handles of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// The initial settings and data of a new stream.
#[derive(Debug, Default)]
pub struct Opening {
    /// Receive buffers; empty for a pooled stream, whose data arrives in
    /// [`HandleEvent::Data`](super::HandleEvent::Data).
    pub receive: Vec<PinnedBuf>,
    /// Data to send.
    pub data: Option<SendData>,
    /// Whether the stream ends after `data`.
    pub fin: bool,
    /// Its priority among the connection's other streams.
    pub priority: Priority,
    /// When data that arrives in `receive` is reported.
    pub notify: Notify,
}
