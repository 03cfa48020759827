//! An encoder that uses the dynamic table in every way that RFC 9204 allows, chosen at random. It is written for
//! clearness, and panics if the decoder breaks a rule.

use std::collections::VecDeque;

use crate::wire::qpack::prefix::{Cursor, put_integer};
use crate::wire::qpack::{huffman, static_table};

/// Random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A name and a value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A section that the decoder has not acknowledged.
#[derive(Clone, Debug)]
struct Outstanding {
    stream: u64,
    /// The Required Insert Count.
    required: u64,
    /// Absolute indices of the entries that it uses.
    uses: Vec<u64>,
}

/// What a representation refers to.
enum Represented {
    Static(u64),
    Dynamic(u64),
    StaticName(u64, Vec<u8>),
    DynamicName(u64, Vec<u8>),
    Literal(Pair),
}

/// The encoder.
#[derive(Clone, Debug)]
pub struct Reference {
    pub random: Random,
    max_capacity: usize,
    max_blocked: usize,
    capacity: usize,
    entries: VecDeque<Pair>,
    dropped: u64,
    known_received: u64,
    outstanding: Vec<Outstanding>,
    /// Octets for the encoder stream.
    pub instructions: Vec<u8>,
}

fn size((name, value): &Pair) -> usize {
    name.len() + value.len() + 32
}

impl Reference {
    pub fn new(seed: u64, max_capacity: usize, max_blocked: usize) -> Self {
        Self {
            random: Random(seed),
            max_capacity,
            max_blocked,
            capacity: 0,
            entries: VecDeque::new(),
            dropped: 0,
            known_received: 0,
            outstanding: Vec::new(),
            instructions: Vec::new(),
        }
    }

    pub fn inserted(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    pub fn entries(&self) -> impl Iterator<Item = (u64, &Pair)> {
        (self.dropped..).zip(&self.entries)
    }

    /// Whether the decoder has acknowledged everything.
    pub fn is_settled(&self) -> bool {
        self.outstanding.is_empty() && self.known_received == self.inserted()
    }

    /// Number of entries that must go for the table to have at most `room` bytes, if these are evictable (§2.1.1).
    fn evictions(&self, room: usize) -> Option<usize> {
        let mut total: usize = self.entries.iter().map(size).sum();
        let mut count = 0;
        while total > room {
            let absolute = self.dropped + count as u64;
            let used = self.outstanding.iter().any(|section| section.uses.contains(&absolute));
            if used || absolute >= self.known_received {
                return None;
            }
            total -= size(&self.entries[count]);
            count += 1;
        }
        Some(count)
    }

    fn evict(&mut self, count: usize) {
        self.entries.drain(..count);
        self.dropped += count as u64;
    }

    /// Sets another capacity, if it may.
    pub fn set_capacity(&mut self) {
        let capacity = self.random.below(self.max_capacity + 1);
        if let Some(count) = self.evictions(capacity) {
            self.evict(count);
            self.capacity = capacity;
            put_integer(&mut self.instructions, 0x20, 5, capacity as u64);
        }
    }

    /// Appends a string, as a Huffman code or not.
    fn literal(random: &mut Random, out: &mut Vec<u8>, flags: u8, bits: u32, text: &[u8]) {
        if random.one_in(2) {
            put_integer(out, flags | 1 << (bits - 1), bits - 1, huffman::encoded_len(text) as u64);
            huffman::encode(text, out);
        } else {
            put_integer(out, flags, bits - 1, text.len() as u64);
            out.extend_from_slice(text);
        }
    }

    /// Inserts an entry in one of the possible ways, if it may. Returns its absolute index.
    pub fn insert(&mut self, pair: &Pair) -> Option<u64> {
        let count = self.evictions(self.capacity.checked_sub(size(pair))?)?;
        let inserted = self.inserted();
        let last = |absolute: u64| inserted - 1 - absolute;
        let same = self.entries().find(|(_, entry)| *entry == pair).map(|(absolute, _)| absolute);
        let named = self.entries().find(|(_, entry)| entry.0 == pair.0).map(|(absolute, _)| absolute);
        let (Self { instructions, random, .. }, (name, value)) = (&mut *self, pair);
        let fixed = (0..99).find(|index| static_table::get(*index).unwrap().0 == name);
        match (same, named, fixed, random.below(3)) {
            (Some(same), _, _, 0) => put_integer(instructions, 0x00, 5, last(same)),
            (_, Some(named), _, 1) => {
                put_integer(instructions, 0x80, 6, last(named));
                Self::literal(random, instructions, 0, 8, value);
            }
            (_, _, Some(fixed), 0..2) => {
                put_integer(instructions, 0xc0, 6, fixed);
                Self::literal(random, instructions, 0, 8, value);
            }
            _ => {
                Self::literal(random, instructions, 0x40, 6, name);
                Self::literal(random, instructions, 0, 8, value);
            }
        }
        self.evict(count);
        self.entries.push_back(pair.clone());
        Some(inserted)
    }

    /// Encodes a section.
    pub fn encode(&mut self, stream: u64, fields: &[Pair]) -> Vec<u8> {
        let blocked: std::collections::BTreeSet<u64> = self.blocking().collect();
        let may_block = blocked.contains(&stream) || blocked.len() < self.max_blocked;
        // What the section uses stays in the table from now on.
        self.outstanding.push(Outstanding { stream, required: 0, uses: Vec::new() });
        let mut lines = Vec::new();
        for pair in fields {
            let line = self.represent(pair, may_block);
            if let Represented::Dynamic(absolute) | Represented::DynamicName(absolute, _) = &line {
                let section = self.outstanding.last_mut().unwrap();
                section.uses.push(*absolute);
                section.required = section.required.max(absolute + 1);
            }
            lines.push(line);
        }
        let required = self.outstanding.last().unwrap().required;
        if required == 0 {
            self.outstanding.pop();
        }
        let base = self.random.below(self.inserted() as usize + 4) as u64;
        let mut out = Vec::new();
        if required == 0 {
            out.push(0);
            put_integer(&mut out, 0, 7, base);
        } else {
            put_integer(&mut out, 0, 8, required % (2 * (self.max_capacity as u64 / 32)) + 1);
            match base.checked_sub(required) {
                Some(delta) => put_integer(&mut out, 0, 7, delta),
                None => put_integer(&mut out, 0x80, 7, required - base - 1),
            }
        }
        let random = &mut self.random;
        for line in lines {
            match line {
                Represented::Static(index) => put_integer(&mut out, 0xc0, 6, index),
                Represented::Dynamic(at) if at < base => put_integer(&mut out, 0x80, 6, base - 1 - at),
                Represented::Dynamic(at) => put_integer(&mut out, 0x10, 4, at - base),
                Represented::StaticName(index, value) => {
                    put_integer(&mut out, 0x50, 4, index);
                    Self::literal(random, &mut out, 0, 8, &value);
                }
                Represented::DynamicName(at, value) => {
                    if at < base {
                        put_integer(&mut out, 0x40, 4, base - 1 - at);
                    } else {
                        put_integer(&mut out, 0, 3, at - base);
                    }
                    Self::literal(random, &mut out, 0, 8, &value);
                }
                Represented::Literal((name, value)) => {
                    Self::literal(random, &mut out, 0x20, 4, &name);
                    Self::literal(random, &mut out, 0, 8, &value);
                }
            }
        }
        out
    }

    /// Streams that could be blocked now (§2.1.2).
    fn blocking(&self) -> impl Iterator<Item = u64> {
        let sections = self.outstanding.iter().filter(|section| section.required > self.known_received);
        sections.map(|section| section.stream)
    }

    fn represent(&mut self, pair: &Pair, may_block: bool) -> Represented {
        let (name, value) = pair;
        if may_block
            && self.random.one_in(3)
            && let Some(absolute) = self.insert(pair)
        {
            return Represented::Dynamic(absolute);
        }
        let usable = |absolute: &u64| may_block || *absolute < self.known_received;
        let same = self.entries().filter(|(_, entry)| *entry == pair).map(|(absolute, _)| absolute).find(usable);
        let named = self.entries().filter(|(_, entry)| entry.0 == *name).map(|(at, _)| at).filter(usable).last();
        let fixed = static_table::find(name, value);
        let choice = self.random.below(4);
        match (same, named, fixed) {
            (Some(at), _, _) if choice < 3 => Represented::Dynamic(at),
            (_, Some(at), _) if choice < 2 => Represented::DynamicName(at, value.clone()),
            (_, _, Some(static_table::Match::Line(index))) if choice < 3 => Represented::Static(index.into()),
            (_, _, Some(static_table::Match::Line(index) | static_table::Match::Name(index))) if choice < 3 => {
                Represented::StaticName(index.into(), value.clone())
            }
            _ => Represented::Literal(pair.clone()),
        }
    }

    /// Takes whole decoder instructions (§4.4).
    pub fn decoder_stream(&mut self, octets: &[u8]) {
        let mut cursor = Cursor::new(octets);
        while let Some(first) = cursor.peek() {
            if first >= 0x80 {
                let stream = cursor.integer(7).unwrap();
                let at = self.outstanding.iter().position(|section| section.stream == stream);
                let section = self.outstanding.remove(at.expect("a section to acknowledge"));
                self.known_received = self.known_received.max(section.required);
            } else if first >= 0x40 {
                let stream = cursor.integer(6).unwrap();
                self.outstanding.retain(|section| section.stream != stream);
            } else {
                let increment = cursor.integer(6).unwrap();
                self.known_received += increment;
                assert!(increment > 0 && self.known_received <= self.inserted(), "an increment of what was inserted");
            }
        }
    }
}
