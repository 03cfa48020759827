//! The encoder: field sections out, the peer's decoder stream in (RFC 9204 §2.1).

use crate::wire::qpack::error::{Fault, QpackError};
use crate::wire::qpack::prefix::{Integer, put_integer, put_literal};
use crate::wire::qpack::section::Field;
use crate::wire::qpack::static_table::{self, Match};
use crate::wire::quic::StreamId;

/// Length in bytes below which a cookie can be guessed, so that it is never indexed (RFC 9204 §7.1.3).
const SHORT_COOKIE: usize = 20;

/// Which instruction an octet of the decoder stream belongs to.
#[derive(Clone, Copy, Debug)]
enum Instruction {
    Acknowledgment,
    Cancellation,
    Increment,
}

/// A QPACK encoder that inserts nothing into the dynamic table. It opens no encoder stream, and every section has a
/// Required Insert Count of 0, whatever the peer's settings are. After an error it must not be used further.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    /// The instruction of the peer's decoder stream that is being received.
    instruction: Option<(Instruction, Integer)>,
}

impl Encoder {
    /// An encoder.
    pub const fn new() -> Self {
        Self { instruction: None }
    }

    /// Appends the encoded field section of `fields` to `out`, in their order. Names are encoded as they are; HTTP wants
    /// them in lower case (RFC 9114 §4.2).
    ///
    /// Fields that are [sensitive](Field::sensitive) are literals with the 'N' bit, as are credentials and short cookies
    /// (RFC 9204 §7.1.3).
    pub fn encode<'a>(&mut self, fields: impl IntoIterator<Item = Field<'a>>, out: &mut Vec<u8>) {
        // The Required Insert Count and the Base (§4.5.1).
        out.extend_from_slice(&[0, 0]);
        for field in fields {
            let sensitive = field.sensitive || never_indexed(&field);
            let n = u8::from(sensitive);
            match static_table::find(field.name, field.value) {
                // Indexed (§4.5.2).
                Some(Match::Line(index)) if !sensitive => {
                    put_integer(out, 0xc0, 6, index.into());
                    continue;
                }
                // A literal with a name reference (§4.5.4).
                Some(Match::Line(index) | Match::Name(index)) => put_integer(out, 0x50 | n << 5, 4, index.into()),
                // A literal with a literal name (§4.5.6).
                None => put_literal(out, 0x20 | n << 4, 4, field.name),
            }
            put_literal(out, 0, 8, field.value);
        }
    }

    /// Takes the next octets of the peer's decoder stream, cut anywhere (RFC 9204 §4.4). As nothing was inserted, there
    /// is nothing to acknowledge; streams may be cancelled.
    pub fn decoder_stream(&mut self, data: &[u8]) -> Result<(), QpackError> {
        for octet in data {
            self.octet(*octet).map_err(QpackError::DecoderStream)?;
        }
        Ok(())
    }

    fn octet(&mut self, octet: u8) -> Result<(), Fault> {
        let (instruction, integer) = match self.instruction.take() {
            Some((instruction, mut integer)) => {
                integer.push(octet)?;
                (instruction, integer)
            }
            None => match octet {
                0x80.. => (Instruction::Acknowledgment, Integer::start(octet, 7)),
                0x40.. => (Instruction::Cancellation, Integer::start(octet, 6)),
                _ => (Instruction::Increment, Integer::start(octet, 6)),
            },
        };
        match (instruction, integer.value()) {
            (_, None) => self.instruction = Some((instruction, integer)),
            (Instruction::Cancellation, Some(_)) => {}
            (Instruction::Acknowledgment, Some(stream)) => return Err(Fault::Acknowledgment(StreamId(stream))),
            (Instruction::Increment, Some(increment)) => return Err(Fault::Increment(increment)),
        }
        Ok(())
    }
}

/// Whether a field is never to be indexed, though its sender did not say so (RFC 9204 §7.1.3).
fn never_indexed(field: &Field<'_>) -> bool {
    match field.name {
        b"authorization" | b"proxy-authorization" => true,
        b"cookie" => field.value.len() < SHORT_COOKIE,
        _ => false,
    }
}
