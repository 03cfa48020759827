//! Encoded field sections: their prefix and the field line representations (RFC 9204 §4.5).

use crate::wire::qpack::error::Fault;
use crate::wire::qpack::huffman::{Decoder, Stop};
use crate::wire::qpack::prefix::{Cursor, Literal};
use crate::wire::qpack::section::{FieldSection, OVERHEAD};
use crate::wire::qpack::static_table;
use crate::wire::qpack::table::DynamicTable;

/// The prefix of an encoded field section (RFC 9204 §4.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The Required Insert Count.
    pub required: u64,
    /// The Base.
    pub base: u64,
}

impl Prefix {
    /// Reads the prefix when `inserted` entries have been inserted into a table with room for at most `max_entries`.
    pub fn read(cursor: &mut Cursor<'_>, inserted: u64, max_entries: u64) -> Result<Self, Fault> {
        let encoded = cursor.integer(8)?;
        let required = required(encoded, inserted, max_entries).ok_or(Fault::RequiredInsertCount(encoded))?;
        let below = cursor.peek().ok_or(Fault::Truncated)? & 0x80 != 0;
        let delta = cursor.integer(7)?;
        let base = if below {
            required.checked_sub(delta).and_then(|base| base.checked_sub(1)).ok_or(Fault::Base(delta))?
        } else {
            // Both are far below 2^63.
            required + delta
        };
        Ok(Self { required, base })
    }
}

/// The Required Insert Count of its encoded form; `None` if no encoder can have sent it (RFC 9204 §4.5.1.1).
fn required(encoded: u64, inserted: u64, max_entries: u64) -> Option<u64> {
    if encoded == 0 {
        return Some(0);
    }
    let range = 2 * max_entries;
    if encoded > range {
        return None;
    }
    let max = inserted + max_entries;
    let wrapped = max / range * range;
    let mut required = wrapped + encoded - 1;
    if required > max {
        required = required.checked_sub(range)?;
    }
    (required > 0).then_some(required)
}

/// Which entry an index refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reference {
    Static,
    /// Dynamic, below the Base (RFC 9204 §3.2.5).
    Relative,
    /// Dynamic, from the Base on (RFC 9204 §3.2.6).
    PostBase,
}

/// A field line as it is represented. What tables have is a literal without Huffman code.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    name: Literal<'a>,
    value: Literal<'a>,
    sensitive: bool,
    static_index: Option<u8>,
}

/// Reads representations into a section.
#[derive(Debug)]
pub struct Lines<'a> {
    /// The table to look up.
    pub table: &'a DynamicTable,
    /// The section's prefix.
    pub prefix: Prefix,
    /// Limit of the section's size in bytes (RFC 9114 §4.2.2).
    pub max_size: usize,
    /// Limit of the number of fields.
    pub max_fields: usize,
}

impl<'a> Lines<'a> {
    /// Reads all representations into `out`, which is empty. `false` if the section is larger than allowed: what follows
    /// is then checked but not decoded, and `out` is left empty.
    pub fn read(&self, mut cursor: Cursor<'a>, out: &mut FieldSection) -> Result<bool, Fault> {
        let mut fits = true;
        while let Some(first) = cursor.peek() {
            let line = self.line(first, &mut cursor)?;
            fits = fits && self.append(&line, out)?;
        }
        if !fits {
            out.clear();
        }
        Ok(fits)
    }

    /// Reads one representation, whose first octet is `first`.
    fn line(&self, first: u8, cursor: &mut Cursor<'a>) -> Result<Line<'a>, Fault> {
        let (reference, bits, sensitive) = match first {
            // Indexed (§4.5.2).
            0xc0.. => return self.indexed(Reference::Static, cursor.integer(6)?),
            0x80.. => return self.indexed(Reference::Relative, cursor.integer(6)?),
            // A literal with a name reference (§4.5.4): 01NT.
            0x40.. if first & 0x10 != 0 => (Reference::Static, 4, first & 0x20 != 0),
            0x40.. => (Reference::Relative, 4, first & 0x20 != 0),
            // A literal with a literal name (§4.5.6): 001N.
            0x20.. => {
                let (name, value) = (cursor.literal(4)?, cursor.literal(8)?);
                return Ok(Line { name, value, sensitive: first & 0x10 != 0, static_index: None });
            }
            // Indexed, post-Base (§4.5.3).
            0x10.. => return self.indexed(Reference::PostBase, cursor.integer(4)?),
            // A literal with a post-Base name reference (§4.5.5): 0000N.
            _ => (Reference::PostBase, 3, first & 0x08 != 0),
        };
        let line = self.indexed(reference, cursor.integer(bits)?)?;
        Ok(Line { value: cursor.literal(8)?, sensitive, ..line })
    }

    /// The field line that is referred to.
    fn indexed(&self, reference: Reference, index: u64) -> Result<Line<'a>, Fault> {
        let Prefix { required, base } = self.prefix;
        let absolute = match reference {
            Reference::Static => None,
            Reference::Relative => base.checked_sub(1).and_then(|last| last.checked_sub(index)),
            Reference::PostBase => base.checked_add(index),
        };
        let ((name, value), static_index) = if reference == Reference::Static {
            (static_table::get(index).ok_or(Fault::StaticIndex(index))?, u8::try_from(index).ok())
        } else {
            let entry = absolute.filter(|absolute| *absolute < required).and_then(|at| self.table.get(at));
            (entry.ok_or(Fault::DynamicIndex(index))?, None)
        };
        let [name, value] = [name, value].map(|octets| Literal { huffman: false, octets });
        Ok(Line { name, value, sensitive: false, static_index })
    }

    /// Appends a field, or part of it and `false` if the section becomes too large.
    fn append(&self, line: &Line<'_>, out: &mut FieldSection) -> Result<bool, Fault> {
        let Some(end) = self.max_size.checked_sub(OVERHEAD * (out.len() + 1)) else { return Ok(false) };
        let octets = out.octets();
        let start = octets.len();
        if !text(line.name, octets, end)? {
            return Ok(false);
        }
        let split = octets.len();
        if !text(line.value, octets, end)? {
            return Ok(false);
        }
        out.close(start, split, line.sensitive, line.static_index);
        Ok(out.len() <= self.max_fields)
    }
}

/// Appends the octets of a literal, or `false` if there would be more than `end`.
fn text(literal: Literal<'_>, out: &mut Vec<u8>, end: usize) -> Result<bool, Fault> {
    if literal.huffman {
        let mut decoder = Decoder::default();
        return match decoder.push(literal.octets, out, end) {
            Ok(()) => decoder.finish().map(|()| true),
            Err(Stop::Invalid) => Err(Fault::Huffman),
            Err(Stop::TooLong) => Ok(false),
        };
    }
    let fits = literal.octets.len() <= end.saturating_sub(out.len());
    if fits {
        out.extend_from_slice(literal.octets);
    }
    Ok(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "If the dynamic table is 100 bytes, then the Required Insert Count will be encoded modulo 6. If a decoder has
    /// received 10 inserts, then an encoded value of 4 indicates that the Required Insert Count is 9."
    #[test]
    fn required_insert_counts_wrap() {
        assert_eq!(required(4, 10, 3), Some(9));
        assert_eq!((required(0, 10, 3), required(7, 10, 3), required(1, 0, 0)), (Some(0), None, None));
        for max_entries in 1..9 {
            for inserted in 0..60u64 {
                let known: Vec<_> = (1..=2 * max_entries).filter_map(|e| required(e, inserted, max_entries)).collect();
                let low = (inserted + 1).saturating_sub(max_entries).max(1);
                for count in low..=inserted + max_entries {
                    assert_eq!(required(count % (2 * max_entries) + 1, inserted, max_entries), Some(count));
                    assert!(known.contains(&count));
                }
                assert_eq!(known.len() as u64, inserted + max_entries + 1 - low, "and no others");
            }
        }
    }

    fn prefix(octets: &[u8], inserted: u64) -> Result<(u64, u64), Fault> {
        Prefix::read(&mut Cursor::new(octets), inserted, 128).map(|prefix| (prefix.required, prefix.base))
    }

    /// "With a Required Insert Count of 9, a decoder receives a Sign bit of 1 and a Delta Base of 2. This sets the Base
    /// to 6."
    #[test]
    fn the_base_is_not_negative() {
        assert_eq!(prefix(&[10, 0x82], 9), Ok((9, 6)));
        assert_eq!(prefix(&[10, 0x88], 9), Ok((9, 0)));
        assert_eq!(prefix(&[10, 0x89], 9), Err(Fault::Base(9)));
        assert_eq!(prefix(&[0, 0x80], 9), Err(Fault::Base(0)));
        assert_eq!(prefix(&[0, 5], 9), Ok((0, 5)), "any Base will do without references");
        assert_eq!((prefix(&[], 0), prefix(&[0], 0)), (Err(Fault::Truncated), Err(Fault::Truncated)));
    }
}
