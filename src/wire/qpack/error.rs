//! Errors of QPACK (RFC 9204 §6).

use thiserror::Error;

use crate::wire::quic::StreamId;

/// What is wrong with received octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// An encoded field section ends inside its prefix or a representation.
    #[error("truncated")]
    Truncated,
    /// An integer has more than 62 bits, or is encoded with more octets than these need (RFC 9204 §4.1.1, §7.4).
    #[error("integer of more than 62 bits")]
    IntegerTooLarge,
    /// A string contains EOS, or its padding is too long or not of ones (RFC 7541 §5.2).
    #[error("invalid Huffman encoding")]
    Huffman,
    /// The static table has no entry with this index (RFC 9204 §3.1).
    #[error("no static table entry {0}")]
    StaticIndex(u64),
    /// A relative or post-Base index that refers to no entry: evicted, not yet inserted, or not covered by the Required
    /// Insert Count (RFC 9204 §2.2.3).
    #[error("invalid dynamic table index {0}")]
    DynamicIndex(u64),
    /// An encoded Required Insert Count that no encoder can have sent (RFC 9204 §4.5.1.1).
    #[error("invalid encoded Required Insert Count {0}")]
    RequiredInsertCount(u64),
    /// The Base would be negative (RFC 9204 §4.5.1.2).
    #[error("negative Base: Delta Base {0}")]
    Base(u64),
    /// More streams are blocked than were allowed (RFC 9204 §2.1.2).
    #[error("more than {0} blocked streams")]
    BlockedStreams(usize),
    /// A table capacity above the announced maximum (RFC 9204 §4.3.1).
    #[error("dynamic table capacity {0} is above the maximum")]
    Capacity(u64),
    /// An entry larger than the table's capacity in bytes (RFC 9204 §3.2.2).
    #[error("entry larger than the dynamic table's capacity of {0} bytes")]
    EntryTooLarge(usize),
    /// An acknowledgment for a stream without unacknowledged sections that use the dynamic table (RFC 9204 §4.4.1).
    #[error("acknowledgment for stream {0}, where nothing is unacknowledged")]
    Acknowledgment(StreamId),
    /// An Insert Count Increment of zero, or beyond what was inserted (RFC 9204 §4.4.3).
    #[error("invalid Insert Count Increment {0}")]
    Increment(u64),
}

/// Why a stream or connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QpackError {
    /// An encoded field section cannot be interpreted.
    #[error("QPACK_DECOMPRESSION_FAILED: {0}")]
    DecompressionFailed(Fault),
    /// An instruction on the encoder stream cannot be interpreted.
    #[error("QPACK_ENCODER_STREAM_ERROR: {0}")]
    EncoderStream(Fault),
    /// An instruction on the decoder stream cannot be interpreted.
    #[error("QPACK_DECODER_STREAM_ERROR: {0}")]
    DecoderStream(Fault),
    /// The peer does not let us send our decoder instructions, of which this many bytes wait (RFC 9204 §7.3).
    #[error("H3_EXCESSIVE_LOAD: {0} bytes of decoder instructions cannot be sent")]
    Backlog(usize),
}

impl QpackError {
    /// The error code for HTTP/3 (RFC 9204 §8.3, RFC 9114 §8.1).
    pub const fn code(self) -> u64 {
        match self {
            Self::DecompressionFailed(_) => 0x0200,
            Self::EncoderStream(_) => 0x0201,
            Self::DecoderStream(_) => 0x0202,
            Self::Backlog(_) => 0x0107,
        }
    }

    /// Whether only the stream of the field section is lost, because of a value too large to be decoded (RFC 9204
    /// §7.4). [`Decoder::cancel`](super::Decoder::cancel) is due when the stream is abandoned. Any other error ends the
    /// connection.
    pub const fn is_stream_error(self) -> bool {
        matches!(self, Self::DecompressionFailed(Fault::IntegerTooLarge))
    }
}
