//! What a sent packet carried, to act on when it is acknowledged or lost (RFC 9000 §13.3).

use smallvec::SmallVec;

use crate::quic::event::Dir;
use crate::wire::quic::StreamId;

/// One frame (or what matters of it) of a sent packet.
#[derive(Clone, Debug)]
pub(crate) enum SentFrame {
    Stream { id: StreamId, start: u64, len: u32, fin: bool },
    Crypto { start: u64, len: u32 },
    Ack { largest: u64 },
    MaxData,
    MaxStreamData(StreamId),
    MaxStreams(Dir),
    DataBlocked,
    StreamDataBlocked(StreamId),
    StreamsBlocked(Dir),
    ResetStream(StreamId),
    StopSending(StreamId),
    NewConnectionId(u64),
    RetireConnectionId(u64),
    HandshakeDone,
    MtuProbe,
}

/// The frames of one packet. Two fit without a heap allocation, which is what bulk data needs: ACK and STREAM.
pub(crate) type SentFrames = SmallVec<[SentFrame; 3]>;
