//! Writes JSON (RFC 8259) directly into a buffer: in the order of the calls, without making values first.

use std::io::Write;

use crate::base::time::Duration;

/// The largest integer that every JSON implementation represents exactly (RFC 7493 §2.2).
const SAFE: u64 = (1 << 53) - 1;

/// An object or a list being written.
#[derive(Debug)]
pub struct Json<'b> {
    out: &'b mut Vec<u8>,
    empty: bool,
}

/// Writes an object with the members that `fill` adds.
pub fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Json<'_>)) {
    enclosed(out, b"{}", fill);
}

fn enclosed(out: &mut Vec<u8>, [open, close]: &[u8; 2], fill: impl FnOnce(&mut Json<'_>)) {
    out.push(*open);
    fill(&mut Json { out, empty: true });
    out.push(*close);
}

impl Json<'_> {
    fn next(&mut self) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        self.out
    }

    /// Begins a member. Names are ours, and need no escapes.
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        let out = self.next();
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: u64) {
        put_number(self.key(name), value);
    }

    /// Adds a number, if there is one.
    pub fn number_if(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    /// Adds a number with a fraction of `digits` digits.
    pub fn decimal(&mut self, name: &str, whole: u64, fraction: u64, digits: usize) {
        put_decimal(self.key(name), whole, fraction, digits);
    }

    /// Adds a time in milliseconds.
    pub fn millis(&mut self, name: &str, time: Duration) {
        let nanos = time.as_nanos().min(u128::from(u64::MAX)) as u64;
        self.decimal(name, nanos / 1_000_000, nanos % 1_000_000, 6);
    }

    /// Adds a time in milliseconds, if there is one.
    pub fn millis_if(&mut self, name: &str, time: Option<Duration>) {
        if let Some(time) = time {
            self.millis(name, time);
        }
    }

    /// Adds text.
    pub fn text(&mut self, name: &str, text: &str) {
        put_text(self.key(name), text);
    }

    /// Adds bytes as hexadecimal digits.
    pub fn hex(&mut self, name: &str, bytes: &[u8]) {
        put_hex(self.key(name), bytes);
    }

    /// Adds a truth value.
    pub fn flag(&mut self, name: &str, value: bool) {
        self.key(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Adds an object.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Json<'_>)) {
        enclosed(self.key(name), b"{}", fill);
    }

    /// Adds a list.
    pub fn list(&mut self, name: &str, fill: impl FnOnce(&mut Json<'_>)) {
        enclosed(self.key(name), b"[]", fill);
    }

    /// Adds a number to a list.
    pub fn push_number(&mut self, value: u64) {
        put_number(self.next(), value);
    }

    /// Adds text to a list.
    pub fn push_text(&mut self, text: &str) {
        put_text(self.next(), text);
    }

    /// Adds bytes as hexadecimal digits to a list.
    pub fn push_hex(&mut self, bytes: &[u8]) {
        put_hex(self.next(), bytes);
    }

    /// Adds an object to a list.
    pub fn push_object(&mut self, fill: impl FnOnce(&mut Json<'_>)) {
        enclosed(self.next(), b"{}", fill);
    }

    /// Adds a list to a list.
    pub fn push_list(&mut self, fill: impl FnOnce(&mut Json<'_>)) {
        enclosed(self.next(), b"[]", fill);
    }
}

/// Numbers that not every reader represents exactly become strings (draft-ietf-quic-qlog-main-schema-14 §11.3).
fn put_number(out: &mut Vec<u8>, value: u64) {
    // Writing to a vector cannot fail.
    let _ = if value > SAFE { write!(out, "\"{value}\"") } else { write!(out, "{value}") };
}

fn put_decimal(out: &mut Vec<u8>, whole: u64, fraction: u64, digits: usize) {
    let _ = write!(out, "{whole}");
    if fraction > 0 {
        let _ = write!(out, ".{fraction:0digits$}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    out.extend(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)]));
    out.push(b'"');
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            // Also those that programs that show JSON as it is might obey.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}
