//! Random operations on a receiving stream, compared with a simple model: a vector of bytes with a flag each.
//! `GANNET_CONTRACT_OPS` sets the total number of operations.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::mem::BufPool;

/// Maximum number of operations on one stream.
const OPS: usize = 400;

/// Window of a pooled stream, in bytes.
const WINDOW: u64 = 3 << 16;

/// An operation. Its numbers are scaled when it is carried out.
#[derive(Clone, Debug)]
enum Op {
    /// Bytes arrive: start and length in units of 1/2^16 of what the peer may send, and whether the stream ends there.
    Data(u16, u16, bool),
    /// The next bytes in order arrive.
    Next(u16),
    /// Buffers are provided.
    Provide(Vec<usize>),
    /// Bytes of a pooled stream are consumed, in units of 1/2^16 of the readable bytes.
    Consume(u16),
    /// A chunk is taken, and kept if true.
    Take(bool),
    /// MAX_STREAM_DATA goes out if it is due.
    Credit,
    /// Full buffers are fetched.
    Fetch,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<u16>(), 0u16..9000, proptest::bool::weighted(0.01)).prop_map(|(s, l, f)| Op::Data(s, l, f)),
        6 => any::<u8>().prop_map(|n| Op::Next(u16::from(n) * 7)),
        2 => proptest::collection::vec(1usize..600, 1..4).prop_map(Op::Provide),
        2 => any::<u16>().prop_map(Op::Consume),
        2 => any::<bool>().prop_map(Op::Take),
        4 => Just(Op::Credit),
        3 => Just(Op::Fetch),
    ]
}

/// The stream and its expected state.
struct Rig {
    stream: RecvStream,
    pool: BufPool,
    provided: bool,
    /// The first byte received at each offset.
    bytes: Vec<Option<u8>>,
    /// The limit that the peer knows.
    limit: u64,
    high: u64,
    size: Option<u64>,
    /// Number of bytes consumed, taken, or in returned buffers.
    read: u64,
    total: u64,
    kept: Vec<Chunk>,
    version: u8,
}

impl Rig {
    fn new(provided: bool) -> Self {
        let window = if provided { 0 } else { WINDOW };
        let mut stream = RecvStream::new(window);
        if provided {
            assert!(stream.make_provided());
        }
        Self {
            stream,
            pool: BufPool::heap(),
            provided,
            bytes: Vec::new(),
            limit: window,
            high: 0,
            size: None,
            read: 0,
            total: 0,
            kept: Vec::new(),
            version: 0,
        }
    }

    fn contiguous(&self) -> u64 {
        let mut at = self.read as usize;
        while self.bytes.get(at).is_some_and(Option::is_some) {
            at += 1;
        }
        at as u64
    }

    fn is_over(&self) -> bool {
        self.stream.is_done()
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Data(start, len, fin) => {
                let limit = self.size.unwrap_or(self.limit);
                // Limited distance, or there would be nothing but gaps.
                let near = self.contiguous();
                let start = near.saturating_sub(3000) + u64::from(*start) * 12_000 / (1 << 16);
                let start = start.min(limit);
                self.data(start..(start + u64::from(*len)).min(limit), *fin);
            }
            Op::Next(len) => {
                let at = self.contiguous();
                let limit = self.size.unwrap_or(self.limit);
                self.data(at..(at + u64::from(*len)).min(limit), false);
            }
            Op::Provide(sizes) if self.provided => {
                for len in sizes {
                    self.total += *len as u64;
                    self.stream.provide(PinnedBuf::unpinned(*len));
                }
            }
            Op::Consume(part) if !self.provided => {
                let n = (self.contiguous() - self.read) * u64::from(*part) / (1 << 16);
                let peeked = self.stream.peek().to_vec();
                self.is_right(self.read, &peeked);
                let n = n.min(peeked.len() as u64);
                assert_eq!(self.stream.consume(n), n);
                self.read += n;
            }
            Op::Take(keep) if !self.provided => self.take(*keep),
            Op::Credit => self.credit(),
            Op::Fetch => self.fetch(),
            _ => {}
        }
        let contiguous = if self.provided { self.contiguous().min(self.total) } else { self.contiguous() };
        assert_eq!(self.stream.contiguous(), contiguous);
        assert_eq!(self.stream.is_complete(), self.size == Some(contiguous));
    }

    fn data(&mut self, range: Range<u64>, fin: bool) {
        let fin = (fin && range.end >= self.high) || self.size == Some(range.end);
        let accepted = self.stream.accept(&mut range.clone(), fin).unwrap();
        assert_eq!(accepted.new_high, range.end.saturating_sub(self.high));
        self.high = self.high.max(range.end);
        self.size = if fin { Some(range.end) } else { self.size };
        self.version = self.version.wrapping_add(1);
        let version = self.version;
        self.bytes.resize(self.bytes.len().max(range.end as usize), None);
        let (bytes, mut next) = (&mut self.bytes, range.start);
        let placed = self.stream.place(range, &self.pool, &mut Gaps::default(), |from, memory| {
            assert!(from >= next, "in order");
            next = from + memory.len() as u64;
            for (at, b) in (from as usize..).zip(memory) {
                assert!(bytes[at].is_none(), "byte {at} is written again");
                *b = version ^ at as u8;
            }
        });
        assert_eq!(placed, Ok(()));
        self.mark(version);
    }

    /// Gives bytes not received before the value of `version`.
    fn mark(&mut self, version: u8) {
        for range in self.stream.received.iter() {
            for at in range.start.max(self.read) as usize..range.end as usize {
                self.bytes[at].get_or_insert(version ^ at as u8);
            }
        }
    }

    fn is_right(&self, offset: u64, bytes: &[u8]) {
        assert!((offset as usize..).zip(bytes).all(|(at, b)| self.bytes[at] == Some(*b)), "wrong bytes from {offset}");
    }

    fn take(&mut self, keep: bool) {
        let Some(chunk) = self.stream.take() else {
            assert_eq!(self.contiguous(), self.read);
            return;
        };
        assert_eq!(chunk.offset(), self.read);
        self.is_right(self.read, &chunk);
        self.read += chunk.len() as u64;
        assert_eq!(chunk.is_last(), self.size == Some(self.read));
        self.kept.extend(keep.then_some(chunk));
    }

    fn credit(&mut self) {
        let Some(limit) = self.stream.credit_due() else { return };
        assert!(limit >= self.limit, "credit is never taken back");
        // The invariant: credit never exceeds the provided space, or consumed bytes plus the window.
        assert!(limit <= if self.provided { self.total + AHEAD } else { self.read + WINDOW });
        self.stream.credit_sent(limit);
        self.limit = limit;
    }

    fn fetch(&mut self) {
        while let Some((offset, buf)) = self.stream.pop_filled() {
            assert_eq!(offset, self.read, "in order and once each");
            self.is_right(offset, &buf);
            self.read += buf.len() as u64;
        }
        if self.provided && self.stream.is_complete() && !self.stream.is_done() {
            self.rest();
            self.stream.mark_done();
        }
    }

    /// Checks that partially filled buffers are returned with the number of valid bytes.
    fn rest(&mut self) {
        let contiguous = self.contiguous().min(if self.provided { self.total } else { u64::MAX });
        let mut next = self.read;
        while let Some((offset, buf, valid)) = self.stream.pop_any() {
            assert_eq!(offset, next);
            next += buf.len() as u64;
            assert_eq!(valid as u64, contiguous.saturating_sub(offset).min(buf.len() as u64));
            self.is_right(offset, &buf[..valid]);
        }
        assert!(!self.provided || next == self.total, "every buffer was returned");
        self.read = contiguous;
    }
}

#[test]
fn random_operations_do_what_the_model_says() {
    let ops =
        std::env::var("GANNET_CONTRACT_OPS").map_or(300_000, |n| n.parse().expect("GANNET_CONTRACT_OPS is a number"));
    let cases = (ops / (OPS / 2)) as u32;
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let strategy = (proptest::collection::vec(op(), 1..OPS), any::<bool>());
    let outcome = TestRunner::new(config).run(&strategy, |(ops, provided)| {
        let mut rig = Rig::new(provided);
        for op in &ops {
            rig.run(op);
            if rig.is_over() {
                break;
            }
        }
        for chunk in &rig.kept {
            rig.is_right(chunk.offset(), chunk);
        }
        if !rig.is_over() {
            rig.rest();
        }
        rig.kept.clear();
        drop(rig.stream);
        assert_eq!(rig.pool.stats().in_use, 0);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
