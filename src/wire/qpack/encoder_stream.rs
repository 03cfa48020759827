//! Encoder instructions (RFC 9204 §4.3), received in pieces of any length.

use crate::wire::qpack::error::Fault;
use crate::wire::qpack::huffman::{self, Stop};
use crate::wire::qpack::prefix::Integer;
use crate::wire::qpack::section::OVERHEAD;
use crate::wire::qpack::static_table;
use crate::wire::qpack::table::DynamicTable;

/// What an integer means.
#[derive(Clone, Copy, Debug)]
enum Number {
    Capacity,
    Duplicate,
    StaticName,
    DynamicName,
    Length { part: Part, huffman: bool },
}

/// Part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

/// What the next octet belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Start,
    Number(Number, Integer),
    /// The first octet of the value's length.
    ValueLength,
    /// A string of which `left` octets are to come.
    Text {
        part: Part,
        left: u64,
        huffman: Option<huffman::Decoder>,
    },
}

/// The instruction that is being received. Of an insertion, only the decoded octets are kept, and these never exceed the
/// table's capacity.
#[derive(Clone, Debug, Default)]
pub struct EncoderStream {
    state: State,
    /// Name and value of the entry to insert.
    entry: Vec<u8>,
    name_len: usize,
}

impl EncoderStream {
    /// Carries out the instructions that `data` completes. The table's capacity may be set up to `max_capacity`.
    pub fn push(&mut self, mut data: &[u8], table: &mut DynamicTable, max_capacity: usize) -> Result<(), Fault> {
        while let Some((octet, rest)) = data.split_first() {
            if let State::Text { left, .. } = &self.state {
                let n = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                let (piece, rest) = data.split_at(n);
                self.text(piece, table)?;
                data = rest;
                continue;
            }
            data = rest;
            let (number, mut integer) = match self.state {
                State::Number(number, integer) => (number, integer),
                State::ValueLength => Self::length(Part::Value, *octet, 8),
                _ => Self::start(*octet),
            };
            if let State::Number(..) = self.state {
                integer.push(*octet)?;
            }
            match integer.value() {
                Some(value) => self.number(number, value, table, max_capacity)?,
                None => self.state = State::Number(number, integer),
            }
        }
        Ok(())
    }

    /// What an instruction starts with.
    const fn start(octet: u8) -> (Number, Integer) {
        match octet {
            0xc0.. => (Number::StaticName, Integer::start(octet, 6)),
            0x80.. => (Number::DynamicName, Integer::start(octet, 6)),
            0x40.. => Self::length(Part::Name, octet, 6),
            0x20.. => (Number::Capacity, Integer::start(octet, 5)),
            _ => (Number::Duplicate, Integer::start(octet, 5)),
        }
    }

    /// The start of a string literal with a prefix of `bits` bits.
    const fn length(part: Part, octet: u8, bits: u32) -> (Number, Integer) {
        let huffman = octet & 1 << (bits - 1) != 0;
        (Number::Length { part, huffman }, Integer::start(octet, bits - 1))
    }

    /// Takes a complete integer.
    fn number(&mut self, number: Number, value: u64, table: &mut DynamicTable, max: usize) -> Result<(), Fault> {
        match number {
            Number::Capacity => {
                let capacity = usize::try_from(value).ok().filter(|capacity| *capacity <= max);
                table.set_capacity(capacity.ok_or(Fault::Capacity(value))?);
                self.state = State::Start;
            }
            Number::Duplicate => {
                let (name, text) = relative(table, value)?;
                self.entry.extend_from_slice(name);
                self.name_len = name.len();
                self.entry.extend_from_slice(text);
                self.insert(table)?;
            }
            // The name is copied, as inserting the entry may evict the one that it is taken from (RFC 9204 §3.2.2).
            Number::StaticName => {
                let (name, _) = static_table::get(value).ok_or(Fault::StaticIndex(value))?;
                self.name(name, table)?;
            }
            Number::DynamicName => self.name(relative(table, value)?.0, table)?,
            Number::Length { part, huffman } => {
                let least = if huffman { huffman::least_decoded(value) } else { value };
                self.check(least, table)?;
                self.state = State::Text { part, left: value, huffman: huffman.then(huffman::Decoder::default) };
                if value == 0 {
                    self.text(&[], table)?;
                }
            }
        }
        Ok(())
    }

    /// Takes a name that was referred to.
    fn name(&mut self, name: &[u8], table: &DynamicTable) -> Result<(), Fault> {
        self.check(name.len() as u64, table)?;
        self.entry.extend_from_slice(name);
        self.name_len = name.len();
        self.state = State::ValueLength;
        Ok(())
    }

    /// Checks that the entry fits the table with `more` octets than it has.
    fn check(&self, more: u64, table: &DynamicTable) -> Result<(), Fault> {
        let size = more + (self.entry.len() + OVERHEAD) as u64;
        if size > table.capacity() as u64 { Err(Fault::EntryTooLarge(table.capacity())) } else { Ok(()) }
    }

    /// Takes the next octets of a string.
    fn text(&mut self, piece: &[u8], table: &mut DynamicTable) -> Result<(), Fault> {
        let State::Text { part, left, huffman } = &mut self.state else { return Ok(()) };
        *left -= piece.len() as u64;
        match huffman {
            None => self.entry.extend_from_slice(piece),
            Some(decoder) => {
                let end = table.capacity().saturating_sub(OVERHEAD);
                decoder.push(piece, &mut self.entry, end).map_err(|stop| match stop {
                    Stop::Invalid => Fault::Huffman,
                    Stop::TooLong => Fault::EntryTooLarge(table.capacity()),
                })?;
            }
        }
        if *left > 0 {
            return Ok(());
        }
        if let Some(decoder) = huffman {
            decoder.finish()?;
        }
        if *part == Part::Name {
            self.name_len = self.entry.len();
            self.state = State::ValueLength;
            return Ok(());
        }
        self.insert(table)
    }

    /// Inserts the complete entry.
    fn insert(&mut self, table: &mut DynamicTable) -> Result<(), Fault> {
        let inserted = table.insert(&self.entry, self.name_len);
        self.entry.clear();
        self.state = State::Start;
        if inserted { Ok(()) } else { Err(Fault::EntryTooLarge(table.capacity())) }
    }

    /// Octets that are kept for the instruction being received.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.entry.len()
    }
}

/// The entry with a relative index in an instruction: 0 is the one inserted last (RFC 9204 §3.2.5).
fn relative(table: &DynamicTable, index: u64) -> Result<(&[u8], &[u8]), Fault> {
    let absolute = table.inserted().checked_sub(1).and_then(|last| last.checked_sub(index));
    absolute.and_then(|absolute| table.get(absolute)).ok_or(Fault::DynamicIndex(index))
}
