//! Priorities (RFC 9218): the parameters `u` and `i` of the Priority field and of PRIORITY_UPDATE.
//!
//! The value is a Dictionary of RFC 8941. All of its syntax is checked, because a value with an error anywhere is
//! ignored as a whole, but only what the two parameters can be is kept.

use crate::wire::h3::field;

/// The parameters that were given (RFC 9218 §4). What is absent has a default in requests, and means "no opinion" in
/// responses (§8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// From 0, most urgent, to 7.
    pub urgency: Option<u8>,
    /// Whether the recipient can use parts of the response.
    pub incremental: Option<bool>,
}

impl Priority {
    /// Urgency if none is given (RFC 9218 §4.1).
    pub const DEFAULT_URGENCY: u8 = 3;

    /// Urgency with its default.
    pub fn urgency(self) -> u8 {
        self.urgency.unwrap_or(Self::DEFAULT_URGENCY)
    }

    /// Whether it is incremental, with the default of no (RFC 9218 §4.2).
    pub fn incremental(self) -> bool {
        self.incremental.unwrap_or(false)
    }

    /// Reads a value; `None` if it is not a Dictionary. Unknown parameters, values out of range and of other types
    /// are ignored (RFC 9218 §4).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut priority = Self::default();
        priority.add(value)?;
        Some(priority)
    }

    /// Adds the value of another field line of the same section. `None`: it is not a Dictionary, and all of them are to
    /// be ignored.
    pub fn add(&mut self, value: &[u8]) -> Option<()> {
        let mut p = Parser(value);
        p.skip(b" ");
        if p.0.is_empty() {
            return Some(());
        }
        loop {
            let key = p.key()?;
            let value = if p.eat(b'=') { p.item_or_list()? } else { Bare::Boolean(true) };
            p.parameters()?;
            match (key, value) {
                (b"u", value) => {
                    self.urgency = match value {
                        Bare::Integer(urgency @ 0..=7) => Some(urgency as u8),
                        _ => None,
                    };
                }
                (b"i", value) => {
                    self.incremental = match value {
                        Bare::Boolean(incremental) => Some(incremental),
                        _ => None,
                    };
                }
                _ => {}
            }
            p.skip(b" \t");
            if p.0.is_empty() {
                return Some(());
            }
            if !p.eat(b',') {
                return None;
            }
            p.skip(b" \t");
        }
    }

    /// What a server's response changes in the client's priority (RFC 9218 §8).
    #[must_use]
    pub fn merged(self, response: Self) -> Self {
        Self { urgency: response.urgency.or(self.urgency), incremental: response.incremental.or(self.incremental) }
    }

    /// The value to send, in a buffer, and its length. It is empty if all is default: then no field is needed.
    pub fn to_bytes(self) -> ([u8; 6], usize) {
        let urgency = self.urgency.filter(|u| *u != Self::DEFAULT_URGENCY).map(|u| b'0' + u.min(7));
        let (text, digit): (&[u8], _) = match (urgency, self.incremental()) {
            (Some(digit), true) => (b"u=3, i", Some(digit)),
            (Some(digit), false) => (b"u=3", Some(digit)),
            (None, true) => (b"i", None),
            (None, false) => (b"", None),
        };
        let mut buf = [0; 6];
        buf[..text.len()].copy_from_slice(text);
        if let Some(digit) = digit {
            buf[2] = digit;
        }
        (buf, text.len())
    }
}

/// A bare item, as far as it matters (RFC 8941 §3.3).
enum Bare {
    Integer(i64),
    Boolean(bool),
    /// Of another type, or a list.
    Other,
}

/// A parser of RFC 8941 §4.2 on what is left.
struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn skip(&mut self, these: &[u8]) {
        self.run(|byte| these.contains(&byte));
    }

    /// The longest front of such bytes.
    fn run(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let n = self.0.iter().position(|byte| !is(*byte)).unwrap_or(self.0.len());
        let (front, rest) = self.0.split_at(n);
        self.0 = rest;
        front
    }

    /// A key (RFC 8941 §4.2.3.3).
    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.peek()?, b'a'..=b'z' | b'*') {
            return None;
        }
        Some(self.run(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    /// Parameters (RFC 8941 §4.2.3.2).
    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    /// An item or an inner list (RFC 8941 §4.2.1.1), without the parameters behind it.
    fn item_or_list(&mut self) -> Option<Bare> {
        if !self.eat(b'(') {
            return self.bare();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Bare::Other);
            }
            self.bare()?;
            self.parameters()?;
            if !matches!(self.peek()?, b' ' | b')') {
                return None;
            }
        }
    }

    /// A bare item (RFC 8941 §4.2.3.1).
    fn bare(&mut self) -> Option<Bare> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => {
                self.next();
                loop {
                    match self.next()? {
                        b'"' => return Some(Bare::Other),
                        b'\\' if !matches!(self.next()?, b'"' | b'\\') => return None,
                        b'\\' | 0x20..=0x7e => {}
                        _ => return None,
                    }
                }
            }
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.run(|byte| matches!(byte, b':' | b'/') || field::is_token(&[byte]));
                Some(Bare::Other)
            }
            b':' => {
                self.next();
                self.run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Bare::Other)
            }
            b'?' => {
                self.next();
                match self.next()? {
                    b'0' => Some(Bare::Boolean(false)),
                    b'1' => Some(Bare::Boolean(true)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// An integer of up to 15 digits, or a decimal of up to 12 and 3 (RFC 8941 §4.2.4).
    fn number(&mut self) -> Option<Bare> {
        let negative = self.eat(b'-');
        let digits = self.run(|byte| byte.is_ascii_digit());
        if digits.is_empty() || digits.len() > 15 {
            return None;
        }
        if self.eat(b'.') {
            let decimals = self.run(|byte| byte.is_ascii_digit());
            return (digits.len() <= 12 && (1..=3).contains(&decimals.len())).then_some(Bare::Other);
        }
        let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        Some(Bare::Integer(if negative { -value } else { value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(value: &str) -> Option<(Option<u8>, Option<bool>)> {
        Priority::parse(value.as_bytes()).map(|p| (p.urgency, p.incremental))
    }

    #[test]
    fn dictionaries() {
        let cases = [
            ("", (None, None)),
            ("  ", (None, None)),
            ("u=0", (Some(0), None)),
            ("u=7, i", (Some(7), Some(true))),
            ("i, u=5", (Some(5), Some(true))),
            ("i=?0", (None, Some(false))),
            (" u=1 \t,\ti=?1  ", (Some(1), Some(true))),
            ("u=1,u=2", (Some(2), None)),
            ("u=5;x=1;y, i;z=\"a\\\"b\"", (Some(5), Some(true))),
            ("u=8", (None, None)),
            ("u=-1", (None, None)),
            ("u=-0", (Some(0), None)),
            ("u=1.5", (None, None)),
            ("u=?1, i=1", (None, None)),
            ("u=1, u=high", (None, None)),
            ("u", (None, None)),
            ("u=(1 2)", (None, None)),
            ("x=(1 \"b\";q=1 :aGk=: ?0);p, u=2", (Some(2), None)),
            ("*a_-.*=token/x:y, i", (None, Some(true))),
            ("u=999999999999999, i", (None, Some(true))),
        ];
        for (value, expected) in cases {
            assert_eq!(parsed(value), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_dictionary_is_ignored_as_a_whole() {
        let bad = [
            "u=1,",
            ",u=1",
            "u=1 i",
            "U=1",
            "u=",
            "u=1,,i",
            "1",
            "u=\"a",
            "u=\"\\a\"",
            "u=?2",
            "u=:a",
            "u=(1",
            "u=(1,2)",
            "u=1234567890123456",
            "u=1.2345",
            "u=1.",
            "u=1234567890123.1",
            "u=-",
            "u = 1",
            "u=1;",
            "u=1;A",
            "\tu=1",
            "u=\"\u{e9}\"",
            "u=@1",
            "\0",
        ];
        for value in bad {
            assert_eq!(parsed(value), None, "{value}");
        }
    }

    #[test]
    fn defaults_and_merging() {
        let none = Priority::default();
        assert_eq!((none.urgency(), none.incremental()), (3, false));
        let request = Priority { urgency: Some(5), incremental: Some(true) };
        let response = Priority { urgency: Some(1), incremental: None };
        // The example of RFC 9218 §8.
        assert_eq!(request.merged(response), Priority { urgency: Some(1), incremental: Some(true) });
        let mut lines = Priority::default();
        assert!(lines.add(b"u=1").is_some() && lines.add(b"i").is_some());
        assert_eq!(lines, Priority { urgency: Some(1), incremental: Some(true) });
    }

    #[test]
    fn all_values_round_trip() {
        for urgency in 0..8 {
            for incremental in [false, true] {
                let priority = Priority { urgency: Some(urgency), incremental: Some(incremental) };
                let (bytes, n) = priority.to_bytes();
                let again = Priority::parse(&bytes[..n]).unwrap();
                assert_eq!((again.urgency(), again.incremental()), (urgency, incremental));
            }
        }
        assert_eq!(Priority::default().to_bytes().1, 0);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(value in "[ui=,;?01 \t\"\\\\():*a.-]{0,30}", bytes in any::<Vec<u8>>()) {
            let _ = Priority::parse(value.as_bytes());
            let _ = Priority::parse(&bytes);
        }
    }
}
