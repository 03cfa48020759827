//! Errors of RFC 9204 §6, and limits.

use super::*;

fn failed(fault: Fault) -> QpackError {
    QpackError::DecompressionFailed(fault)
}

/// A decoder with `a=1` and `bb=22` in a table of 100 bytes: the maximum, and the capacity.
fn two_entries() -> Decoder {
    let mut decoder = with_capacity(100);
    decoder.encoder_stream(&hex("3f45 4161 0131 4262 6202 3232")).unwrap();
    assert_eq!(sent(&mut decoder), [2]);
    decoder
}

/// Errors of the encoder stream, each met by another decoder.
fn instructions(text: &str) -> Fault {
    let octets = hex(text);
    let mut decoder = two_entries();
    let error = decoder.encoder_stream(&octets).unwrap_err();
    let QpackError::EncoderStream(fault) = error else { panic!("{error}") };
    assert_eq!((error.code(), error.is_stream_error()), (0x0201, false));
    let mut decoder = two_entries();
    let each = octets.iter().find_map(|octet| decoder.encoder_stream(&[*octet]).err());
    assert_eq!(each, Some(error), "octet by octet");
    fault
}

#[test]
fn errors_of_the_encoder_stream() {
    assert_eq!(instructions("3f46"), Fault::Capacity(101), "above the maximum");
    assert_eq!(instructions("3fff ffff ffff ffff ff7f"), Fault::IntegerTooLarge);
    assert_eq!(instructions("ff24"), Fault::StaticIndex(99));
    assert_eq!(instructions("82"), Fault::DynamicIndex(2), "a name never inserted");
    assert_eq!(instructions("02"), Fault::DynamicIndex(2), "an entry never inserted");
    assert_eq!(instructions("20 00"), Fault::DynamicIndex(0), "an evicted entry");
    assert_eq!(instructions("3f02 81"), Fault::DynamicIndex(1), "an evicted name");
    assert_eq!(instructions("20 40 00"), Fault::EntryTooLarge(0));
    assert_eq!(instructions("20 c0"), Fault::EntryTooLarge(0), "a name from the static table");
    assert_eq!(instructions("4161 7f0a"), Fault::EntryTooLarge(100), "by its length alone");
    assert_eq!(instructions("61ff"), Fault::Huffman, "a name of nothing but padding");
    assert_eq!(instructions("4161 84ff ffff ff"), Fault::Huffman, "EOS");
}

/// Strings that are longer than they say cannot make the table or what is kept larger than the capacity.
#[test]
fn an_insertion_is_not_kept_beyond_the_capacity() {
    // 67 octets of value fit behind one of name; each of '0' takes 5 bits.
    let zeros = |octets: usize| vec![0u8; octets];
    let instruction = |coded: usize| [&hex("4161")[..], &[0x80 | coded as u8], &zeros(coded)].concat();
    let mut decoder = two_entries();
    decoder.encoder_stream(&instruction(41)).unwrap_err();
    let mut decoder = two_entries();
    let (octets, mut failed_at) = (instruction(100), None);
    for (at, octet) in octets.iter().enumerate() {
        if decoder.encoder_stream(&[*octet]).is_err() {
            failed_at = Some(at);
            break;
        }
        assert!(decoder.parts().1.kept() <= 100 - 32);
    }
    assert_eq!(failed_at, Some(3 + 42), "with the first octet too many");
    // A code whose shortest text is too long is refused by its length: 2 + 7 bits of length.
    let mut decoder = two_entries();
    let error = decoder.encoder_stream(&hex("4161 ff9001")).unwrap_err();
    assert_eq!(error, QpackError::EncoderStream(Fault::EntryTooLarge(100)));
}

/// An entry may take its name from one that it evicts (RFC 9204 §3.2.2). Duplicates are no error (§3.2).
#[test]
fn names_of_evicted_entries() {
    let mut decoder = two_entries();
    // `a` with a value of 40 octets evicts both.
    decoder.encoder_stream(&[&hex("81 28")[..], &[b'x'; 40]].concat()).unwrap();
    let (table, _) = decoder.parts();
    assert_eq!((table.get(1), table.get(2)), (None, Some((&b"a"[..], &[b'x'; 40][..]))));
    let mut decoder = two_entries();
    decoder.encoder_stream(&hex("01 01 00 00")).unwrap();
    let (table, _) = decoder.parts();
    assert_eq!((table.inserted(), table.get(3)), (6, None));
    assert_eq!((table.get(4), table.get(5)), (Some((&b"bb"[..], &b"22"[..])), Some((&b"bb"[..], &b"22"[..]))));
}

#[test]
fn errors_of_field_sections() {
    let fault = |text: &str| {
        let mut section = FieldSection::new();
        let error = two_entries().decode(StreamId(0), &hex(text), &mut section).unwrap_err();
        assert_eq!((error.code(), section.len()), (0x0200, 0));
        assert_eq!(error.is_stream_error(), error == failed(Fault::IntegerTooLarge), "{text}");
        let QpackError::DecompressionFailed(fault) = error else { panic!("{error}") };
        fault
    };
    for truncated in ["", "00", "0000 ff", "0000 51", "0000 5101", "0000 2361 62", "0000 2161", "0000 21610200"] {
        assert_eq!(fault(truncated), Fault::Truncated, "{truncated}");
    }
    assert_eq!(fault("0000 ffff ffff ffff ffff ffff 7f"), Fault::IntegerTooLarge);
    assert_eq!(fault("0000 ff24"), Fault::StaticIndex(99));
    assert_eq!(fault("0000 5f54 00"), Fault::StaticIndex(99), "as a name");
    // 3 entries at most: counts are modulo 6.
    assert_eq!(fault("0700"), Fault::RequiredInsertCount(7));
    assert_eq!(fault("0100"), Fault::RequiredInsertCount(1), "0 is encoded as 0");
    assert_eq!(fault("0382"), Fault::Base(2));
    assert_eq!(fault("0000 80"), Fault::DynamicIndex(0), "without a Required Insert Count");
    assert_eq!(fault("0301 80"), Fault::DynamicIndex(0), "Base 3: beyond the Required Insert Count");
    assert_eq!(fault("0200 10"), Fault::DynamicIndex(0), "inserted, but beyond the Required Insert Count");
    assert_eq!(fault("0200 02 00"), Fault::DynamicIndex(2), "a post-Base name");
    assert_eq!(fault("0300 82"), Fault::DynamicIndex(2), "below the first");
    assert_eq!(fault("0300 42 00"), Fault::DynamicIndex(2), "a name below the first");
    assert_eq!(fault("0000 1ff0 ffff ffff ffff ff3f"), Fault::DynamicIndex((1 << 62) - 1), "no overflow");
    assert_eq!(fault("0000 51 81ff"), Fault::Huffman);
    assert_eq!(fault("0000 5181 0729 ff00"), Fault::Huffman, "in a name");
}

/// A reference to an entry that has been evicted since (RFC 9204 §2.2.3).
#[test]
fn evicted_entries_cannot_be_referred_to() {
    let mut decoder = two_entries();
    assert_eq!(decode(&mut decoder, 0, &hex("0300 81")).unwrap(), ["a=1"]);
    // A third entry fits the table only without the first.
    decoder.encoder_stream(&hex("4163 0133")).unwrap();
    assert_eq!(decode(&mut decoder, 0, &hex("0300 80")).unwrap(), ["bb=22"]);
    assert_eq!(decode(&mut decoder, 0, &hex("0300 81")), Err(failed(Fault::DynamicIndex(1))));
}

/// "If a decoder encounters more blocked streams than it promised to support, it MUST treat this as a connection error."
#[test]
fn blocked_streams_are_limited() {
    let config = DecoderConfig { max_blocked_streams: 2, ..DecoderConfig::default() };
    let mut decoder = Decoder::new(config);
    let mut section = FieldSection::new();
    let mut blocks = |decoder: &mut Decoder, stream| decoder.decode(StreamId(stream), &hex("0200 80"), &mut section);
    for stream in [0, 4, 0, 4] {
        assert_eq!(blocks(&mut decoder, stream), Ok(Decoded::Blocked), "a stream counts once");
    }
    assert_eq!(blocks(&mut decoder.clone(), 8), Err(failed(Fault::BlockedStreams(2))));
    decoder.cancel(StreamId(0)).unwrap();
    assert_eq!(blocks(&mut decoder, 8), Ok(Decoded::Blocked), "a cancelled stream is not blocked");
    decoder.encoder_stream(&hex("3f45 4161 0131")).unwrap();
    let unblocked: Vec<_> = std::iter::from_fn(|| decoder.unblocked()).map(|stream| stream.0).collect();
    assert_eq!((unblocked, decoder.blocked_streams()), (vec![4, 8], 0));
    let none = DecoderConfig { max_blocked_streams: 0, ..DecoderConfig::default() };
    assert_eq!(blocks(&mut Decoder::new(none), 0), Err(failed(Fault::BlockedStreams(0))));
}

/// References of one octet each to an entry of 4 KiB: 1 GB from 256 KiB. Decoding ends at the limit, and the section is
/// acknowledged, as its references are no longer needed.
#[test]
fn a_gigabyte_of_references_ends_at_the_limit() {
    let mut decoder = with_capacity(4096);
    let instruction = [&hex("3fe11f 4161 7fe01e")[..], &[b'x'; 4063]].concat();
    decoder.encoder_stream(&instruction).unwrap();
    assert_eq!(decoder.parts().0.size(), 4096);
    let mut section = FieldSection::new();
    let mut encoded = hex("0200");
    encoded.extend(vec![0x80; 16]);
    assert_eq!(decoder.decode(StreamId(0), &encoded, &mut section), Ok(Decoded::Complete));
    assert_eq!((section.size(), section.len()), (65_536, 16));
    encoded.extend(vec![0x80; 1 << 18]);
    assert_eq!(decoder.decode(StreamId(4), &encoded, &mut section), Ok(Decoded::TooLarge));
    assert!(section.is_empty() && section.octets().capacity() <= 2 * 65_536);
    assert_eq!(sent(&mut decoder), hex("80 84"));
    // What follows is still checked.
    encoded.push(0xff);
    assert_eq!(decoder.decode(StreamId(8), &encoded, &mut section), Err(failed(Fault::Truncated)));
}

/// The limits are exact, whatever represents the fields.
#[test]
fn sections_are_limited_in_size_and_number() {
    let (mut section, mut out) = (FieldSection::new(), FieldSection::new());
    for (name, value) in [(&b":path"[..], &b"/"[..]), (b":path", b"/a/path/for/huffman"), (b"x", b"\x00"), (b"n", b"")]
    {
        section.push(name, value);
    }
    let mut encoded = Vec::new();
    Encoder::new().encode(section.fields(), &mut encoded);
    let mut decode = |max_section_size, max_fields| {
        let config = DecoderConfig { max_section_size, max_fields, ..DecoderConfig::default() };
        Decoder::new(config).decode(StreamId(0), &encoded, &mut out).unwrap()
    };
    assert_eq!(decode(section.size(), 4), Decoded::Complete);
    assert_eq!(decode(section.size(), 3), Decoded::TooLarge);
    for size in 0..section.size() {
        assert_eq!(decode(size, 4), Decoded::TooLarge, "{size}");
    }
}

/// Whoever decodes section after section takes no more memory.
#[test]
fn memory_is_used_again() {
    let mut decoder = two_entries();
    let mut section = FieldSection::new();
    let encoded = hex("0300 80 81 d1 5187 497c a589 d34d 1f 2161 0131");
    let mut memory = |decoder: &mut Decoder| {
        // The table turns over as well.
        decoder.encoder_stream(&hex("01 01")).unwrap();
        let encoded = [&[(decoder.parts().0.inserted() % 6 + 1) as u8], &encoded[1..]].concat();
        assert_eq!(decoder.decode(StreamId(0), &encoded, &mut section), Ok(Decoded::Complete));
        assert_eq!((section.len(), sent(decoder).len()), (5, 1));
        section.octets().capacity()
    };
    let (warm, capacity) = (memory(&mut decoder), decoder.parts().0.memory());
    for _ in 0..1000 {
        assert_eq!(memory(&mut decoder), warm);
    }
    assert!(decoder.parts().0.memory() <= capacity.max(4 * 100), "{} bytes", decoder.parts().0.memory());
}

/// A table of capacity 0: nothing can be inserted or referred to, but instructions may come (RFC 9204 §3.2.3).
#[test]
fn no_table_at_all() {
    let mut decoder = with_capacity(0);
    assert_eq!(decoder.encoder_stream(&hex("20")), Ok(()), "a capacity of 0");
    assert_eq!(decoder.clone().encoder_stream(&hex("21")), Err(QpackError::EncoderStream(Fault::Capacity(1))));
    decoder.cancel(StreamId(4)).unwrap();
    assert_eq!(sent(&mut decoder), [], "there is nothing to cancel");
    assert_eq!(decode(&mut decoder, 0, &hex("0200 80")), Err(failed(Fault::RequiredInsertCount(2))));
    assert_eq!(decode(&mut decoder, 0, &hex("0000 d1")).unwrap(), [":method=GET"]);
}

/// A peer that takes nothing from our decoder stream cannot make us keep ever more (RFC 9204 §7.3).
#[test]
fn a_backlog_ends_the_connection() {
    let mut decoder = two_entries();
    let mut section = FieldSection::new();
    let error = (0..100_000).find_map(|at| decoder.decode(StreamId(at * 4), &hex("0200 80"), &mut section).err());
    let Some(QpackError::Backlog(waiting)) = error else { panic!("{error:?}") };
    assert_eq!((waiting, error.unwrap().code()), (Decoder::BACKLOG, 0x0107));
    assert!(section.is_empty());
    decoder.encoder_stream(&hex("00")).unwrap();
    assert_eq!(decoder.pending().len(), waiting, "an increment waits");
    assert_eq!(decoder.cancel(StreamId(0)), Err(QpackError::Backlog(waiting)));
    decoder.sent(waiting);
    assert_eq!(sent(&mut decoder), [1]);
}

#[test]
fn errors_of_the_decoder_stream() {
    for (text, fault) in [
        ("84", Fault::Acknowledgment(StreamId(4))),
        ("00", Fault::Increment(0)),
        ("01", Fault::Increment(1)),
        ("48 3f00", Fault::Increment(63)),
        ("ff ffff ffff ffff ffff 7f", Fault::IntegerTooLarge),
    ] {
        let octets = hex(text);
        let error = Encoder::new().decoder_stream(&octets).unwrap_err();
        assert_eq!((error, error.code()), (QpackError::DecoderStream(fault), 0x0202));
        let mut encoder = Encoder::new();
        assert_eq!(octets.iter().find_map(|octet| encoder.decoder_stream(&[*octet]).err()), Some(error));
    }
    assert_eq!(Encoder::new().decoder_stream(&hex("48 7fff 01 40")), Ok(()), "streams can be cancelled");
}
