//! The writer of JSON, read back by another implementation.

use gannet::base::rng::Rng;
use gannet::base::time::Duration;
use gannet::qlog::json::{Json, object};
use serde_json::{Value, json};

/// The largest integer that every JSON implementation represents exactly (RFC 7493 §2.2).
const SAFE: u64 = (1 << 53) - 1;

fn read(fill: impl FnOnce(&mut Json<'_>)) -> Value {
    let mut out = Vec::new();
    object(&mut out, fill);
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
}

#[test]
fn every_kind_of_value_is_read_back() {
    let value = read(|o| {
        o.number("n", 7);
        o.number("safe", SAFE);
        o.number("big", u64::MAX);
        o.number_if("none", None);
        o.millis("t", Duration::from_nanos(12_000_340));
        o.millis("whole", Duration::from_millis(3));
        o.millis("max", Duration::MAX);
        o.hex("h", &[0, 0xa7, 0xff]);
        o.flag("f", false);
        o.object("o", |_| {});
        o.list("l", |l| {
            l.push_number(1);
            l.push_text("two");
            l.push_hex(&[3]);
            l.push_object(|o| o.flag("four", true));
            l.push_list(|l| l.push_number(5));
        });
    });
    assert_eq!(
        value,
        json!({
            "n": 7, "safe": SAFE, "big": u64::MAX.to_string(), "t": 12.00034, "whole": 3, "max": 18446744073709.55,
            "h": "00a7ff", "f": false, "o": {}, "l": [1, "two", "03", {"four": true}, [5]]
        })
    );
}

/// What a peer chose cannot end a string or a record.
#[test]
fn any_text_is_read_back() {
    let nasty = "\" \\ \n \r \t \0 \u{1e} \u{7f} \u{85} \u{9b}31m é € 🦀 \u{2028} }]";
    assert_eq!(read(|o| o.text("t", nasty)), json!({ "t": nasty }));
    let mut out = Vec::new();
    object(&mut out, |o| o.text("t", nasty));
    assert!(!out.iter().any(u8::is_ascii_control), "{out:?}");
    let mut rng = Rng::from_u64(7);
    for _ in 0..500 {
        let mut bytes = vec![0; rng.below(60) as usize];
        rng.fill(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(read(|o| o.text("t", &text)), json!({ "t": *text }));
    }
}
