//! A QPACK decoder and the instructions and field sections of a peer.

use gannet::wire::qpack::{Decoded, Decoder, DecoderConfig, Encoder, FieldSection};
use gannet::wire::quic::StreamId;

use crate::input::Input;

/// Two octets of limits, then a peer's doings: each an octet of what it is, with a stream in its upper bits, and mostly a
/// piece of octets.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let config = DecoderConfig {
        max_table_capacity: usize::from(input.byte()) * 16,
        max_blocked_streams: usize::from(input.byte() % 8),
        max_section_size: 2048,
        max_fields: 32,
    };
    let (mut decoder, mut encoder) = (Decoder::new(config), Encoder::new());
    let mut section = FieldSection::new();
    // A broken stream is read no further, but what is on others may come before that is known.
    let (mut encoder_stream, mut decoder_stream) = (true, true);
    while !input.is_empty() {
        let what = input.byte();
        let stream = StreamId(u64::from(what / 8) * 4);
        match what % 8 {
            0..=2 => encoder_stream = encoder_stream && decoder.encoder_stream(input.piece()).is_ok(),
            3..=5 => {
                let decoded = decoder.decode(stream, input.piece(), &mut section);
                assert!(section.size() <= config.max_section_size && section.len() <= config.max_fields);
                if decoded == Ok(Decoded::Complete) {
                    survives(&section);
                } else {
                    assert!(section.is_empty(), "only complete sections have fields");
                }
            }
            6 => {
                let _ = decoder.cancel(stream);
            }
            _ => decoder_stream = decoder_stream && encoder.decoder_stream(input.piece()).is_ok(),
        }
        assert!(decoder.blocked_streams() <= config.max_blocked_streams);
        while decoder.unblocked().is_some() {}
        let pending = decoder.pending().len();
        assert!(pending <= Decoder::BACKLOG + 10);
        decoder.sent(pending / 2);
    }
}

/// What was read can be written.
fn survives(section: &FieldSection) {
    let mut encoded = Vec::new();
    Encoder::new().encode(section.fields(), &mut encoded);
    let mut again = FieldSection::new();
    let decoded = Decoder::new(DecoderConfig::default()).decode(StreamId(0), &encoded, &mut again);
    assert_eq!(decoded, Ok(Decoded::Complete));
    assert!(again.iter().eq(section.iter()));
    assert!(section.fields().zip(again.fields()).all(|(read, written)| written.sensitive || !read.sensitive));
}
