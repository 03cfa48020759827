//! Properties of the decoder and the encoder over many cases.

use std::collections::{BTreeMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::reference::{Pair, Reference};
use super::*;

/// A few names and values, so that they recur, and sometimes others.
fn pair(random: &mut reference::Random) -> Pair {
    let names: [&[u8]; 6] = [b":path", b":method", b"cookie", b"x-name", b"", b"accept"];
    let name = names[random.below(names.len())].to_vec();
    let value = match random.below(8) {
        0 => (0..random.below(200)).map(|_| random.below(256) as u8).collect(),
        1 => vec![b'v'; random.below(120)],
        n => [&b"GET"[..], b"/", b"", b"value", b"*/*", b"a longer value than others"][n - 2].to_vec(),
    };
    (name, value)
}

fn pairs(section: &FieldSection) -> Vec<Pair> {
    section.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// A section on its way, with the fields that it stands for.
type Sent = (Vec<u8>, Vec<Pair>);

/// A reference encoder and a decoder, with a network between them that delivers what it likes.
struct World {
    encoder: Reference,
    decoder: Decoder,
    /// Octets of the encoder stream that have been delivered.
    delivered: usize,
    /// Sections that are not yet decoded, by stream.
    streams: BTreeMap<u64, VecDeque<Sent>>,
    blocked: Vec<u64>,
    next_stream: u64,
    section: FieldSection,
    /// How often each happened: complete, blocked, cancelled.
    counts: [usize; 3],
}

impl World {
    fn new(seed: u64, max_table_capacity: usize, max_blocked_streams: usize) -> Self {
        let config = DecoderConfig { max_table_capacity, max_blocked_streams, ..DecoderConfig::default() };
        let mut encoder = Reference::new(seed, max_table_capacity, max_blocked_streams);
        encoder.set_capacity();
        Self {
            encoder,
            decoder: Decoder::new(config),
            delivered: 0,
            streams: BTreeMap::new(),
            blocked: Vec::new(),
            next_stream: 0,
            section: FieldSection::new(),
            counts: [0; 3],
        }
    }

    fn step(&mut self) {
        match self.encoder.random.below(12) {
            0 if self.encoder.random.one_in(4) => self.encoder.set_capacity(),
            0..=1 => {
                let pair = pair(&mut self.encoder.random);
                self.encoder.insert(&pair);
            }
            2..=4 if self.streams.len() < 8 => self.encode(),
            5..=7 => self.deliver_instructions(40),
            8..=9 => {
                let ready: Vec<u64> = self.streams.keys().copied().filter(|id| !self.blocked.contains(id)).collect();
                // Most often the latest, which may need what has not arrived.
                let oldest = self.encoder.random.one_in(4);
                if let Some(stream) = if oldest { ready.first() } else { ready.last() } {
                    self.decode(*stream);
                }
            }
            10 => self.acknowledge(),
            _ if self.encoder.random.one_in(4) => self.cancel(),
            _ => {}
        }
    }

    fn encode(&mut self) {
        let random = &mut self.encoder.random;
        let count = random.below(6);
        let fields: Vec<Pair> = (0..count).map(|_| pair(random)).collect();
        // Sometimes trailers.
        let open = self.streams.last_key_value().map(|(stream, _)| *stream);
        let stream = open.filter(|_| self.encoder.random.one_in(3)).unwrap_or(self.next_stream);
        self.next_stream = self.next_stream.max(stream + 4);
        let encoded = self.encoder.encode(stream, &fields);
        self.streams.entry(stream).or_default().push_back((encoded, fields));
    }

    fn deliver_instructions(&mut self, most: usize) {
        let left = self.encoder.instructions.len() - self.delivered;
        let n = left.min(self.encoder.random.below(most));
        self.decoder.encoder_stream(&self.encoder.instructions[self.delivered..][..n]).unwrap();
        self.delivered += n;
        assert!(self.decoder.parts().1.kept() <= self.decoder.config().max_table_capacity);
        while let Some(StreamId(stream)) = self.decoder.unblocked() {
            let at = self.blocked.iter().position(|id| *id == stream).expect("it was blocked");
            self.blocked.remove(at);
            let before = self.counts[0];
            self.decode(stream);
            assert_eq!(self.counts[0], before + 1, "no longer blocked");
        }
    }

    fn decode(&mut self, stream: u64) {
        let sections = self.streams.get_mut(&stream).unwrap();
        let (encoded, fields) = sections.front().unwrap();
        match self.decoder.decode(StreamId(stream), encoded, &mut self.section).unwrap() {
            Decoded::Complete => {
                assert_eq!(&pairs(&self.section), fields);
                self.counts[0] += 1;
                sections.pop_front();
                if sections.is_empty() {
                    self.streams.remove(&stream);
                }
            }
            Decoded::Blocked => {
                assert!(self.section.is_empty());
                self.counts[1] += 1;
                self.blocked.push(stream);
            }
            Decoded::TooLarge => panic!("small sections"),
        }
        assert_eq!(self.decoder.blocked_streams(), self.blocked.len());
    }

    fn acknowledge(&mut self) {
        self.encoder.decoder_stream(&sent(&mut self.decoder));
    }

    fn cancel(&mut self) {
        let Some((stream, _)) = self.streams.pop_first() else { return };
        self.blocked.retain(|id| *id != stream);
        self.decoder.cancel(StreamId(stream)).unwrap();
        self.counts[2] += 1;
        // No more is sent on it.
        self.next_stream = self.next_stream.max(stream + 4);
    }

    /// Delivers everything and compares both tables.
    fn end(&mut self) {
        while self.delivered < self.encoder.instructions.len() {
            self.deliver_instructions(1000);
        }
        assert!(self.blocked.is_empty());
        while let Some((stream, _)) = self.streams.first_key_value() {
            self.decode(*stream);
        }
        self.acknowledge();
        assert!(self.encoder.is_settled());
        let (table, _) = self.decoder.parts();
        assert_eq!(table.inserted(), self.encoder.inserted());
        for (index, (name, value)) in self.encoder.entries() {
            assert_eq!(table.get(index), Some((&name[..], &value[..])));
        }
        assert_eq!(table.size(), self.encoder.entries().map(|(_, (n, v))| n.len() + v.len() + 32).sum::<usize>());
    }
}

/// The worlds below do what they are for.
#[test]
fn a_long_life_has_everything() {
    let mut world = World::new(7, 400, 3);
    for _ in 0..60_000 {
        world.step();
    }
    world.end();
    let [complete, blocked, cancelled] = world.counts;
    assert!(complete > 3000 && blocked > 100 && cancelled > 100, "{:?}", world.counts);
    assert!(world.encoder.inserted() > 1000, "{} insertions", world.encoder.inserted());
}

proptest! {
    /// A decoder understands any encoder that keeps to the rules, whatever arrives first.
    #[test]
    fn any_encoder_is_understood(seed: u64, capacity in 32..600usize, blocked in 0..5usize, steps in 0..400usize) {
        let mut world = World::new(seed, capacity, blocked);
        for _ in 0..steps {
            world.step();
        }
        world.end();
    }

    /// The encoder stream can be cut anywhere.
    #[test]
    fn pieces_of_the_encoder_stream_do_not_matter(seed: u64) {
        let mut encoder = Reference::new(seed, 300, 0);
        encoder.set_capacity();
        for _ in 0..6 {
            let pair = pair(&mut encoder.random);
            encoder.insert(&pair);
        }
        let octets = &encoder.instructions;
        let state = |cut: usize| {
            let mut decoder = with_capacity(300);
            decoder.encoder_stream(&octets[..cut]).unwrap();
            decoder.encoder_stream(&octets[cut..]).unwrap();
            let (table, _) = decoder.parts();
            let entries = |at| table.get(at).map(|(name, value)| (name.to_vec(), value.to_vec()));
            let entries: Vec<_> = (0..table.inserted()).map(entries).collect();
            (entries, sent(&mut decoder))
        };
        let whole = state(0);
        prop_assert_eq!(whole.0.len() as u64, encoder.inserted());
        for cut in 0..=octets.len() {
            prop_assert_eq!(state(cut), whole.clone(), "cut at {}", cut);
        }
    }

    /// What is encoded is decoded, in the same order.
    #[test]
    fn sections_survive(fields in vec((vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..200), any::<bool>()), 0..20), seed: u64) {
        let mut section = FieldSection::new();
        for (name, value, sensitive) in &fields {
            section.push_field(Field { sensitive: *sensitive, ..Field::new(name, value) });
        }
        let mut random = reference::Random(seed);
        for _ in 0..random.below(10) {
            let (name, value) = pair(&mut random);
            section.push(&name, &value);
        }
        let mut encoded = Vec::new();
        Encoder::new().encode(section.fields(), &mut encoded);
        let mut out = FieldSection::new();
        prop_assert_eq!(with_capacity(0).decode(StreamId(0), &encoded, &mut out), Ok(Decoded::Complete));
        prop_assert_eq!(pairs(&out), pairs(&section));
        for (sent, got) in section.fields().zip(out.fields()) {
            prop_assert!(got.sensitive || !sent.sensitive);
        }
    }

    /// Anything at all is an error or a section within the limits.
    #[test]
    fn nothing_exceeds_the_limits(
        instructions in vec(vec(any::<u8>(), 0..40), 0..20),
        sections in vec(vec(any::<u8>(), 0..60), 0..20),
        start in any::<bool>(),
    ) {
        let config = DecoderConfig { max_table_capacity: 200, max_blocked_streams: 2, max_section_size: 300, max_fields: 4 };
        let mut decoder = Decoder::new(config);
        if start {
            decoder.encoder_stream(&hex("3fa901 4161 0131 4162 0132 c1 0133")).unwrap();
        }
        let (mut section, mut broken) = (FieldSection::new(), false);
        for (at, (instruction, mut encoded)) in instructions.into_iter().zip(sections).enumerate() {
            broken = broken || decoder.encoder_stream(&instruction).is_err();
            let (table, stream) = decoder.parts();
            prop_assert!(table.size() <= 200 && stream.kept() <= 200);
            // Most prefixes are invalid.
            if at % 2 == 0 && encoded.len() > 2 {
                encoded[..2].copy_from_slice(&[(table.inserted() % 12) as u8 + u8::from(table.inserted() > 0), 0]);
            }
            let decoded = decoder.decode(StreamId(at as u64), &encoded, &mut section);
            prop_assert!(section.size() <= 300 && section.len() <= 4 && decoder.blocked_streams() <= 2);
            prop_assert!(decoded == Ok(Decoded::Complete) || section.is_empty());
        }
        let _ = Encoder::new().decoder_stream(decoder.pending());
    }
}
