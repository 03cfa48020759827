//! Examples of RFC 9204 Appendix B, and what the encoder makes of ordinary fields.

use super::*;

/// The table's entries with their absolute indices.
fn table(decoder: &Decoder) -> Vec<String> {
    let (table, _) = decoder.parts();
    let entries = (0..table.inserted()).filter_map(|index| table.get(index).map(|entry| (index, entry)));
    entries.map(|(index, (name, value))| format!("{index} {}={}", name.escape_ascii(), value.escape_ascii())).collect()
}

/// Appendix B.1 to B.5, one after the other.
#[test]
fn examples_of_appendix_b() {
    let mut decoder = with_capacity(220);
    // B.1
    let encoded = hex("0000 510b 2f69 6e64 6578 2e68 746d 6c");
    assert_eq!(decode(&mut decoder, 0, &encoded).unwrap(), [":path=/index.html"]);
    assert_eq!(sent(&mut decoder), [], "no entries are used");

    // B.2, with the section before what it needs.
    let encoded = hex("0381 10 11");
    let mut section = FieldSection::new();
    assert_eq!(decoder.decode(StreamId(4), &encoded, &mut section), Ok(Decoded::Blocked));
    assert_eq!((section.len(), decoder.unblocked(), decoder.blocked_streams()), (0, None, 1));
    let instructions = hex("3fbd01 c00f 7777 772e 6578 616d 706c 652e 636f 6d c10c 2f73 616d 706c 652f 7061 7468");
    decoder.encoder_stream(&instructions).unwrap();
    assert_eq!(decoder.parts().0.size(), 106);
    assert_eq!((decoder.unblocked(), decoder.unblocked()), (Some(StreamId(4)), None));
    assert_eq!(decode(&mut decoder, 4, &encoded).unwrap(), [":authority=www.example.com", ":path=/sample/path"]);
    assert_eq!(sent(&mut decoder), hex("84"), "it tells of the insertions too");

    // B.3
    decoder.encoder_stream(&hex("4a63 7573 746f 6d2d 6b65 790c 6375 7374 6f6d 2d76 616c 7565")).unwrap();
    assert_eq!(decoder.parts().0.size(), 160);
    assert_eq!(sent(&mut decoder), hex("01"));

    // B.4
    let encoded = hex("0500 80 c1 81");
    assert_eq!(decoder.decode(StreamId(8), &encoded, &mut section), Ok(Decoded::Blocked));
    decoder.cancel(StreamId(8)).unwrap();
    assert_eq!(sent(&mut decoder), hex("48"));
    decoder.encoder_stream(&hex("02")).unwrap();
    assert_eq!((decoder.parts().0.size(), decoder.unblocked()), (217, None));
    assert_eq!(
        decode(&mut decoder, 12, &encoded).unwrap(),
        [":authority=www.example.com", ":path=/", "custom-key=custom-value",]
    );

    // B.5
    decoder.encoder_stream(&hex("810d 6375 7374 6f6d 2d76 616c 7565 32")).unwrap();
    assert_eq!(decoder.parts().0.size(), 215);
    assert_eq!(
        table(&decoder),
        [
            "1 :path=/sample/path",
            "2 custom-key=custom-value",
            "3 :authority=www.example.com",
            "4 custom-key=custom-value2",
        ]
    );
}

fn encode(section: &FieldSection) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new().encode(section.fields(), &mut out);
    out
}

/// Every kind of representation that the encoder uses, in the order of the fields (RFC 9204 §2.1).
#[test]
fn a_request_is_static_entries_and_literals() {
    let mut section = FieldSection::new();
    section.push(b":method", b"GET");
    section.push(b":path", b"/index.html");
    section.push(b"x-a", b"\x01");
    let encoded = encode(&section);
    // The name is as short as its code, and the value much shorter.
    assert_eq!(encoded, hex("0000 d1 51 88 60d5 485f 2bce 9a68 2378 2d61 01 01"));
    let mut again = FieldSection::new();
    assert_eq!(with_capacity(0).decode(StreamId(0), &encoded, &mut again), Ok(Decoded::Complete));
    let indices: Vec<_> = again.fields().map(|field| field.static_index).collect();
    assert_eq!((text(&again), indices), (text(&section), vec![Some(17), Some(1), None]));
}

/// "When the 'N' bit is set, the encoded field line MUST always be encoded with a literal representation", also when it
/// is forwarded (RFC 9204 §4.5.4, §7.1.3).
#[test]
fn sensitive_fields_remain_literals() {
    let mut section = FieldSection::new();
    section.push_sensitive(b":method", b"GET");
    section.push_sensitive(b"x-secret", b"GET");
    section.push(b"authorization", b"");
    section.push(b"cookie", b"short");
    section.push(b"cookie", b"a-cookie-of-at-least-twenty-bytes");
    section.push(b":method", b"GET");
    let encoded = encode(&section);
    assert_eq!(encoded[2] & 0xf0, 0b0111_0000, "a literal, N, static");
    let mut again = FieldSection::new();
    assert_eq!(with_capacity(0).decode(StreamId(0), &encoded, &mut again), Ok(Decoded::Complete));
    assert_eq!(text(&again), text(&section));
    let sensitive: Vec<_> = again.fields().map(|field| field.sensitive).collect();
    assert_eq!(sensitive, [true, true, true, true, false, false]);
    assert_eq!(encode(&again), encoded, "as forwarded");
    // The same through the table: an indexed name, a post-Base name.
    let mut decoder = with_capacity(64);
    decoder.encoder_stream(&hex("3f21 4161 00")).unwrap();
    for (representation, expected) in [("0200 60 0130", true), ("0200 40 0130", false), ("0280 08 0130", true)] {
        assert_eq!(decoder.decode(StreamId(0), &hex(representation), &mut again), Ok(Decoded::Complete));
        assert_eq!((text(&again), again.fields().next().unwrap().sensitive), (vec!["a=0".to_owned()], expected));
    }
}

/// A recording of another implementation's encoder (see the file), among it blocked sections. What our decoder answers
/// is what that encoder accepted.
#[test]
fn ls_qpack_is_understood() {
    let mut decoder =
        Decoder::new(DecoderConfig { max_table_capacity: 512, max_blocked_streams: 2, ..DecoderConfig::default() });
    let (mut section, mut waiting, mut blocked) = (FieldSection::new(), Vec::new(), 0);
    for line in include_str!("ls_qpack.txt").lines().filter(|line| !line.starts_with('#')) {
        let (what, rest) = line.split_once(' ').unwrap();
        match what {
            "section" => {
                let [stream, encoded, fields] = rest.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
                let (stream, encoded) = (StreamId(stream.parse().unwrap()), hex(encoded));
                let fields: Vec<_> = fields.split('\t').collect();
                if decoder.decode(stream, &encoded, &mut section).unwrap() == Decoded::Blocked {
                    blocked += 1;
                    waiting.push((stream, encoded, fields));
                } else {
                    assert_eq!(text(&section), fields);
                }
            }
            "encoder" => {
                decoder.encoder_stream(&hex(rest)).unwrap();
                while let Some(stream) = decoder.unblocked() {
                    let at = waiting.iter().position(|(id, ..)| *id == stream).unwrap();
                    let (_, encoded, fields) = waiting.remove(at);
                    assert_eq!(decode(&mut decoder, stream.0, &encoded).unwrap(), fields);
                }
            }
            _ => assert_eq!(sent(&mut decoder), hex(rest)),
        }
    }
    assert_eq!((waiting.len(), blocked > 5), (0, true), "{blocked} blocked");
}
