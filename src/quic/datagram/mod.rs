//! Unreliable datagrams (RFC 9221): the queues in both directions.
//!
//! Received datagrams are decrypted directly to buffers that the application has provided, one datagram each, or, if it
//! has provided none, to memory of the engine's pool, which it takes without a copy. Those to be sent are encrypted from
//! the application's memory directly into packets. They are never sent again, so the memory is returned as soon as the
//! packet is sealed; what became of the datagram is reported later.
//!
//! A connection has [`Datagrams`] only once it uses them. The parts do not see the connection: [`Sender`] is told what
//! was built, acknowledged and lost, [`Receiver`] what came.

mod recv;
mod send;

use std::fmt;
use std::ops::Deref;

use crate::base::time::Instant;
use crate::mem::PinnedBuf;

pub(crate) use recv::Receiver;
pub(crate) use send::{Refusal, Sender};

/// How a datagram is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// Its urgency among the connection's datagrams: those with lower numbers are sent first. Equal ones are sent in the
    /// order in which they were queued.
    pub urgency: u8,
    /// If it was not sent before this time, it is dropped (RFC 9221 §5.4).
    pub deadline: Option<Instant>,
}

/// Counters of a connection's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramStats {
    /// Sent.
    pub sent: u64,
    /// Sent, and acknowledged by the peer.
    pub acked: u64,
    /// Sent and then considered lost. Those that were acknowledged later count here as well.
    pub lost: u64,
    /// Dropped before they were sent.
    pub unsent: u64,
    /// Received, including those dropped for lack of space.
    pub received: u64,
    /// Received and dropped for lack of space.
    pub dropped: u64,
}

/// A received datagram in the engine's memory, taken without a copy.
///
/// It dereferences to the data. It may be sent to other threads and kept beyond the life of its connection; dropping it
/// on any thread returns the memory to the core's pool. The memory is at least 1 KiB and charged to the connection.
pub struct ReceivedDatagram(PinnedBuf);

impl ReceivedDatagram {
    /// The memory, such as to send it again. It stays charged to the connection until it is dropped.
    pub fn into_buf(self) -> PinnedBuf {
        self.0
    }
}

impl Deref for ReceivedDatagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ReceivedDatagram {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for ReceivedDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceivedDatagram").field(&self.len()).finish()
    }
}

/// Datagrams of a connection that uses them.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) send: Sender,
    pub(crate) recv: Receiver,
    pub(crate) stats: DatagramStats,
}

/// The longest datagram whose frame, with type and length, takes at most `frame` bytes (RFC 9221 §4); `None` if not even
/// an empty one does.
pub(crate) fn longest_in(frame: usize) -> Option<usize> {
    // The Length field takes one, two or four bytes.
    let with = |length: usize, most: usize| frame.checked_sub(1 + length).map(|room| room.min(most));
    with(1, 63).max(with(2, (1 << 14) - 1)).max(with(4, usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_datagram_fills_its_frame_and_one_byte_more_does_not_fit() {
        assert_eq!([0, 1, 2, 3].map(longest_in), [None, None, Some(0), Some(1)]);
        for frame in 2..70_000 {
            let len = longest_in(frame).unwrap();
            let size = |len: usize| 1 + crate::wire::quic::varint::size(len as u64) + len;
            assert!(size(len) <= frame && size(len + 1) > frame, "{len} in {frame}");
        }
    }
}
