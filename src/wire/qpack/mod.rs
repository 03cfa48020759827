//! QPACK, the compression of fields in HTTP/3 (RFC 9204), without input or output of its own.
//!
//! A [`Decoder`] turns encoded field sections into [`FieldSection`]s. It takes the octets of the peer's encoder stream
//! and has octets for our decoder stream. An [`Encoder`] is its counterpart; it uses the static table and literals only,
//! so what it sends never blocks a stream.
//!
//! What the peer can occupy is bounded by [`DecoderConfig`]: the dynamic table and the instruction being received by the
//! table's capacity, a decoded section by its size and number of fields, blocked streams by their number, and
//! instructions that cannot be sent by [`Decoder::BACKLOG`].

mod decoder;
mod encoder;
mod encoder_stream;
mod error;
mod huffman;
mod lines;
mod prefix;
mod section;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

pub use decoder::{Decoded, Decoder, DecoderConfig};
pub use encoder::Encoder;
pub use error::{Fault, QpackError};
pub use section::{Field, FieldSection, OVERHEAD};
