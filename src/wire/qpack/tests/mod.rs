//! Tests of decoder and encoder together.

mod hostile;
mod properties;
mod reference;
mod vectors;

use super::*;
use crate::wire::quic::StreamId;

/// Octets of hexadecimal digits.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The fields of a section as text.
fn text(section: &FieldSection) -> Vec<String> {
    section.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect()
}

/// What is pending, as if it had been sent.
fn sent(decoder: &mut Decoder) -> Vec<u8> {
    let pending = decoder.pending().to_vec();
    decoder.sent(pending.len());
    pending
}

fn with_capacity(max_table_capacity: usize) -> Decoder {
    Decoder::new(DecoderConfig { max_table_capacity, ..DecoderConfig::default() })
}

fn decode(decoder: &mut Decoder, stream: u64, encoded: &[u8]) -> Result<Vec<String>, QpackError> {
    let mut section = FieldSection::new();
    let decoded = decoder.decode(StreamId(stream), encoded, &mut section)?;
    assert_eq!(decoded, Decoded::Complete);
    Ok(text(&section))
}
