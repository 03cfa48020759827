//! Field sections: ordered lists of names and values.

/// What each field counts beyond its octets, in bytes (RFC 9114 §4.2.2, RFC 9204 §3.2.1).
pub const OVERHEAD: usize = 32;

/// A field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Whether it is, or must be, encoded as a literal on every hop (the 'N' bit, RFC 9204 §4.5.4, §7.1.3).
    pub sensitive: bool,
    /// The index of an entry of the static table with this name, if the sender referred to one (RFC 9204 Appendix A).
    /// Tells well-known names apart without comparing them. Not used for encoding.
    pub static_index: Option<u8>,
}

impl<'a> Field<'a> {
    /// A field that may be represented in any way.
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { name, value, sensitive: false, static_index: None }
    }
}

/// A field section. It can be cleared and used again, then without allocating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSection {
    /// Names and values, one behind the other.
    octets: Vec<u8>,
    lines: Vec<Line>,
}

/// Where a field's octets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    /// Start of the name.
    start: usize,
    /// End of the name and start of the value.
    split: usize,
    /// End of the value.
    end: usize,
    sensitive: bool,
    static_index: Option<u8>,
}

impl FieldSection {
    /// An empty section.
    pub const fn new() -> Self {
        Self { octets: Vec::new(), lines: Vec::new() }
    }

    /// Removes all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.lines.clear();
    }

    /// Number of fields.
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no fields.
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Size in bytes: the names, the values, and 32 bytes for each field (RFC 9114 §4.2.2).
    pub const fn size(&self) -> usize {
        self.octets.len() + OVERHEAD * self.lines.len()
    }

    /// Appends a field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_field(Field::new(name, value));
    }

    /// Appends a field that no hop may add to a table (RFC 9204 §7.1.3).
    pub fn push_sensitive(&mut self, name: &[u8], value: &[u8]) {
        self.push_field(Field { sensitive: true, ..Field::new(name, value) });
    }

    /// Appends a field with all its attributes.
    pub fn push_field(&mut self, field: Field<'_>) {
        let start = self.octets.len();
        self.octets.extend_from_slice(field.name);
        let split = self.octets.len();
        self.octets.extend_from_slice(field.value);
        self.close(start, split, field.sensitive, field.static_index);
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.fields().map(|field| (field.name, field.value))
    }

    /// Each field with its attributes, in order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field<'_>> + Clone {
        self.lines.iter().map(|line| Field {
            name: &self.octets[line.start..line.split],
            value: &self.octets[line.split..line.end],
            sensitive: line.sensitive,
            static_index: line.static_index,
        })
    }

    /// The octets, to append those of another field to. [`close`](Self::close) follows.
    pub(super) const fn octets(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// Makes a field of the octets from `start` to `split`, its name, and from there to the end, its value.
    pub(super) fn close(&mut self, start: usize, split: usize, sensitive: bool, static_index: Option<u8>) {
        self.lines.push(Line { start, split, end: self.octets.len(), sensitive, static_index });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kept_in_order() {
        let mut section = FieldSection::new();
        section.push(b"a", b"");
        section.push_sensitive(b"bb", b"secret");
        section.push(b"a", b"again");
        assert_eq!(section.iter().collect::<Vec<_>>(), [(&b"a"[..], &b""[..]), (b"bb", b"secret"), (b"a", b"again"),]);
        assert_eq!(section.fields().map(|field| field.sensitive).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!((section.len(), section.size()), (3, 15 + 3 * 32));
        section.clear();
        assert!(section.is_empty());
        assert_eq!(section, FieldSection::default());
    }
}
