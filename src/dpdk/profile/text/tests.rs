use proptest::prelude::*;
use toml::{Table, Value};

use super::*;
use crate::dpdk::PortProfile;

/// The result of the `toml` crate in the same form, if the text uses only what profiles support.
fn reference(text: &str) -> Option<BTreeMap<String, String>> {
    fn flatten(prefix: &str, table: Table, into: &mut BTreeMap<String, String>) -> Option<()> {
        for (key, value) in table {
            let key = format!("{prefix}{key}");
            let text = match value {
                Value::String(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Boolean(flag) => flag.to_string(),
                Value::Table(inner) => {
                    flatten(&format!("{key}."), inner, into)?;
                    continue;
                }
                _ => return None,
            };
            into.insert(key, text);
        }
        Some(())
    }
    let mut values = BTreeMap::new();
    flatten("", text.parse().ok()?, &mut values)?;
    Some(values)
}

#[test]
fn every_embedded_profile_is_read_as_toml_is() {
    for name in PortProfile::names() {
        let text = PortProfile::source(name).unwrap();
        assert_eq!(parse(text).ok(), reference(text), "{name}");
        assert!(parse(text).unwrap().len() > 5);
    }
}

#[test]
fn what_profiles_may_have() {
    let text = "# a comment\r\n a = \"x # \\\"y\\\" \\u00e9\\t\" # b\nb=-1_000\n\"c d\" = 'C:\\x'\n\n\
                d . e = 0xff\n\t[devargs] # c\nf-1_G = true\n'' = +0\ng.h = \"\"\n";
    let expected =
        [("a", "x # \"y\" é\t"), ("b", "-1000"), ("c d", "C:\\x"), ("d.e", "255"), ("devargs.f-1_G", "true")];
    let expected = expected.into_iter().chain([("devargs.", "0"), ("devargs.g.h", "")]);
    let expected: BTreeMap<_, _> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    assert_eq!(parse(text), Ok(expected.clone()));
    assert_eq!(reference(text), Some(expected));
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (text, line, word) in [
        ("a = 1\nb =\n", 2, "value is missing"),
        ("a = 1 2", 1, "\"2\" is unexpected"),
        ("a", 1, "\"=\" is missing"),
        ("= 1", 1, "key is missing"),
        ("a. = 1", 1, "key is missing"),
        ("a = \"x", 1, "does not end"),
        ("a = 'x", 1, "does not end"),
        ("a = \"\\x\"", 1, "no escape"),
        ("a = \"\\ud800\"", 1, "4 hexadecimal digits"),
        ("a = \"\"\"x\"\"\"", 1, "multi-line"),
        ("[[a]]", 1, "arrays of tables"),
        ("[a", 1, "\"]\" is missing"),
        ("[a] b", 1, "unexpected"),
        ("a = 1\na = 2", 2, "a occurs twice"),
        ("[a]\n[b]\n[a]", 3, "a occurs twice"),
        ("a = 1 # \u{1}", 1, "in a comment"),
    ] {
        match parse(text) {
            Err(Problem::Syntax { line: at, why }) => {
                assert!(at == line && why.contains(word), "{text:?}: {at}: {why}")
            }
            other => panic!("{text:?}: {other:?}"),
        }
        assert!(!word.contains("is missing") || reference(text).is_none(), "{text:?}");
    }
}

#[test]
fn values_that_no_setting_has_are_told_with_their_key() {
    for value in
        ["[1]", "{ x = 1 }", "1.5", "1979-05-27", "01", "1__0", "_1", "0x", "-0x1", "inf", "yes", "9223372036854775808"]
    {
        let expected = Problem::Value { key: "devargs.a".to_owned(), value: value.to_owned() };
        assert_eq!(parse(&format!("[devargs]\na = {value}")), Err(expected));
    }
}

/// Lines of profiles, and pieces that break them.
fn texts() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("a = 1".to_owned()),
        Just("[devargs]".to_owned()),
        Just("devargs.b = 'x'".to_owned()),
        Just("# x".to_owned()),
        "[ab]{1,2}(\\.[ab])? ?= ?(\"[ab#\\\\tu0]{0,3}\"|'[a\"]{0,2}'|[-+]?[01_]{1,3}|0[xob][0-9_]{1,2}|true|false) ?(#x)?",
        "\\[[ab]\\]",
        "[ab=.\\[\\]\"'#0-9\\\\_ \t]{0,8}",
    ];
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

proptest! {
    /// TOML accepts whatever this parser accepts, with the same meaning.
    #[test]
    fn what_is_accepted_means_the_same_in_toml(text in texts()) {
        if let Ok(values) = parse(&text) {
            prop_assert_eq!(Some(values), reference(&text), "{:?}", text);
        }
    }
}
