//! The decoder: field sections and the peer's encoder stream in, our decoder stream out (RFC 9204 §2.2).

use crate::wire::qpack::encoder_stream::EncoderStream;
use crate::wire::qpack::error::{Fault, QpackError};
use crate::wire::qpack::lines::{Lines, Prefix};
use crate::wire::qpack::prefix::{Cursor, put_integer};
use crate::wire::qpack::section::{FieldSection, OVERHEAD};
use crate::wire::qpack::table::DynamicTable;
use crate::wire::quic::StreamId;

/// What a decoder allows its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderConfig {
    /// Limit of the dynamic table's capacity in bytes, announced as SETTINGS_QPACK_MAX_TABLE_CAPACITY (RFC 9204 §5).
    /// 0 means that the peer has no dynamic table.
    pub max_table_capacity: usize,
    /// Limit of the number of blocked streams, announced as SETTINGS_QPACK_BLOCKED_STREAMS (RFC 9204 §5).
    pub max_blocked_streams: usize,
    /// Limit of a decoded section's size in bytes, each field with 32 bytes more than its octets, announced as
    /// SETTINGS_MAX_FIELD_SECTION_SIZE (RFC 9114 §4.2.2).
    pub max_section_size: usize,
    /// Limit of the number of fields of a section.
    pub max_fields: usize,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self { max_table_capacity: 4096, max_blocked_streams: 16, max_section_size: 65_536, max_fields: 256 }
    }
}

/// What became of an encoded field section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decoded {
    /// It is decoded.
    Complete,
    /// It needs table entries that have not arrived. The stream is blocked: the section is to be kept, best in the
    /// stream's flow control window (RFC 9204 §2.2.1), and decoded again when [`Decoder::unblocked`] names the stream.
    Blocked,
    /// It is larger than allowed. A server can answer 431 (RFC 9114 §4.2.2). As far as the table is concerned it is
    /// finished, so the stream can go on.
    TooLarge,
}

/// A stream that waits for insertions.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    stream: StreamId,
    /// The Required Insert Count.
    required: u64,
}

/// A QPACK decoder. After an error of the connection, it must not be used further.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecoderConfig,
    table: DynamicTable,
    encoder_stream: EncoderStream,
    blocked: Vec<Blocked>,
    /// Insertions that the peer knows we have received (the Known Received Count, RFC 9204 §2.1.4).
    known_received: u64,
    /// Decoder instructions to be sent.
    pending: Vec<u8>,
}

impl Decoder {
    /// Limit of the decoder instructions that wait to be sent, in bytes (RFC 9204 §7.3).
    pub const BACKLOG: usize = 16_384;

    /// A decoder with an empty table. It allocates nothing until the peer uses the table.
    pub fn new(config: DecoderConfig) -> Self {
        Self {
            config,
            table: DynamicTable::default(),
            encoder_stream: EncoderStream::default(),
            blocked: Vec::new(),
            known_received: 0,
            pending: Vec::new(),
        }
    }

    /// Its limits.
    pub const fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Takes the next octets of the peer's encoder stream, cut anywhere (RFC 9204 §4.3). Afterwards streams may be
    /// [unblocked](Self::unblocked), and instructions [pending](Self::pending).
    pub fn encoder_stream(&mut self, data: &[u8]) -> Result<(), QpackError> {
        let max = self.config.max_table_capacity;
        self.encoder_stream.push(data, &mut self.table, max).map_err(QpackError::EncoderStream)
    }

    /// Decodes a whole encoded field section of `stream` into `out`, whose contents are replaced. `out` is empty unless
    /// the section is [complete](Decoded::Complete). The limit of the encoded section's length is the caller's.
    pub fn decode(&mut self, stream: StreamId, encoded: &[u8], out: &mut FieldSection) -> Result<Decoded, QpackError> {
        out.clear();
        let decoded = self.section(stream, encoded, out).map_err(QpackError::DecompressionFailed);
        let decoded = decoded.and_then(|(decoded, required)| {
            if decoded != Decoded::Blocked && required > 0 {
                // Section Acknowledgment (§4.4.1), which tells of the insertions too (§2.1.4).
                self.instruct(0x80, 7, stream.0)?;
                self.known_received = self.known_received.max(required);
            }
            Ok(decoded)
        });
        if decoded.is_err() {
            out.clear();
        }
        decoded
    }

    /// Decodes a section, and tells its Required Insert Count.
    fn section(&mut self, stream: StreamId, encoded: &[u8], out: &mut FieldSection) -> Result<(Decoded, u64), Fault> {
        let DecoderConfig { max_table_capacity, max_blocked_streams, max_section_size, max_fields } = self.config;
        let mut cursor = Cursor::new(encoded);
        let inserted = self.table.inserted();
        let prefix = Prefix::read(&mut cursor, inserted, (max_table_capacity / OVERHEAD) as u64)?;
        self.blocked.retain(|blocked| blocked.stream != stream);
        if prefix.required > inserted {
            if self.blocked.len() >= max_blocked_streams {
                return Err(Fault::BlockedStreams(max_blocked_streams));
            }
            self.blocked.push(Blocked { stream, required: prefix.required });
            return Ok((Decoded::Blocked, prefix.required));
        }
        let lines = Lines { table: &self.table, prefix, max_size: max_section_size, max_fields };
        let fits = lines.read(cursor, out)?;
        Ok((if fits { Decoded::Complete } else { Decoded::TooLarge }, prefix.required))
    }

    /// A stream that is no longer blocked, each once, in the order in which they were blocked.
    pub fn unblocked(&mut self) -> Option<StreamId> {
        let inserted = self.table.inserted();
        let at = self.blocked.iter().position(|blocked| blocked.required <= inserted)?;
        Some(self.blocked.remove(at).stream)
    }

    /// Number of streams that are blocked.
    pub const fn blocked_streams(&self) -> usize {
        self.blocked.len()
    }

    /// Tells that `stream` was reset, or that its reading is abandoned, before all its sections were decoded (RFC 9204
    /// §2.2.2.2, §4.4.2).
    pub fn cancel(&mut self, stream: StreamId) -> Result<(), QpackError> {
        self.blocked.retain(|blocked| blocked.stream != stream);
        // Without a table there is nothing to cancel.
        if self.config.max_table_capacity == 0 { Ok(()) } else { self.instruct(0x40, 6, stream.0) }
    }

    /// Appends a decoder instruction.
    fn instruct(&mut self, flags: u8, bits: u32, value: u64) -> Result<(), QpackError> {
        if self.pending.len() >= Self::BACKLOG {
            return Err(QpackError::Backlog(self.pending.len()));
        }
        put_integer(&mut self.pending, flags, bits, value);
        Ok(())
    }

    /// The octets to send on our decoder stream. Best called once a turn, as the insertions since the last call make one
    /// Insert Count Increment (RFC 9204 §2.2.2.3, §4.4.3). [`sent`](Self::sent) follows.
    pub fn pending(&mut self) -> &[u8] {
        let increment = self.table.inserted() - self.known_received;
        if increment > 0 && self.instruct(0x00, 6, increment).is_ok() {
            self.known_received += increment;
        }
        &self.pending
    }

    /// Removes the first `n` octets of what is pending, which have been sent.
    pub fn sent(&mut self, n: usize) {
        self.pending.drain(..n.min(self.pending.len()));
    }

    /// The table and the instruction being received, for tests.
    #[cfg(test)]
    pub(super) const fn parts(&self) -> (&DynamicTable, &EncoderStream) {
        (&self.table, &self.encoder_stream)
    }
}
