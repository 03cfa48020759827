use std::net::Ipv4Addr;

use super::*;
use crate::base::rng::Rng;
use crate::mem::{Hugepages, PoolConfig};
use crate::quic::stream::gaps::Gaps;
use crate::quic::stream::placement::CHUNK;
use crate::quic::stream::recv::RecvStream;

const MIB: usize = 1 << 20;

/// A peer that has sent this many bytes may hold anything.
const LOTS: u64 = 1 << 40;

fn memory(limit_bytes: usize) -> Memory {
    let config = PoolConfig { limit_bytes, hugepages: Hugepages::Never, numa_node: None };
    Memory::new(BufPool::new(config).unwrap(), MemoryConfig::default())
}

fn host(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

/// One connection and what it got.
struct Peer {
    account: Option<Box<Account>>,
    remote: SocketAddr,
    came: u64,
    held: Vec<PinnedBuf>,
}

impl Peer {
    fn new(remote: IpAddr) -> Self {
        Self { account: None, remote: SocketAddr::new(remote, 4433), came: LOTS, held: Vec::new() }
    }

    fn purse<'a>(&'a mut self, memory: &'a mut Memory) -> Purse<'a> {
        Purse { memory, account: &mut self.account, remote: &self.remote, came: self.came }
    }

    /// Asks for a chunk of 1 to `most` bytes; returns whether it got one.
    fn ask(&mut self, memory: &mut Memory, most: usize, in_order: bool) -> bool {
        let buf = self.purse(memory).lend(Want { least: 1, most, in_order });
        let got = buf.is_ok();
        self.held.extend(buf);
        assert_eq!(self.bytes(), self.account.as_ref().unwrap().all.in_use(), "what is charged is what is held");
        got
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(PinnedBuf::capacity).sum()
    }

    /// Takes everything that it gets; returns how much it then has.
    fn fill(&mut self, memory: &mut Memory, in_order: bool) -> usize {
        while self.ask(memory, CHUNK as usize, in_order) {}
        self.bytes()
    }
}

#[test]
fn memory_has_to_be_paid_for() {
    let mut memory = memory(8 * MIB);
    for came in [0, 605, 10_000, 50_000] {
        let paid = AT_ONCE + PER_BYTE * came;
        let mut peer = Peer { came: came as u64, ..Peer::new(host(1)) };
        let far = peer.fill(&mut memory, false);
        assert!(far <= paid / 2 && far > paid / 2 - 1024, "{far} bytes beyond gaps for {came}");
        let all = peer.fill(&mut memory, true);
        assert!(all <= paid && all > paid - 1024, "{all} bytes for {came}");
    }
    assert_eq!(memory.charged(), 0);
}

#[test]
fn a_share_is_the_most_that_one_gets() {
    let mut memory = memory(8 * MIB);
    let mut peer = Peer::new(host(1));
    assert_eq!(peer.fill(&mut memory, false), MIB, "half a share beyond gaps");
    assert_eq!(peer.fill(&mut memory, true), 2 * MIB);
    let mut siblings: Vec<_> = (0..8).map(|_| Peer::new(host(1))).collect();
    for peer in &mut siblings {
        peer.fill(&mut memory, true);
    }
    let all = peer.bytes() + siblings.iter().map(Peer::bytes).sum::<usize>();
    assert_eq!(all, 4 * MIB, "one address gets half of the pool");
    // An IPv6 host has as many addresses as it likes.
    let v6 = |n: u128| Peer::new(Ipv6Addr::from_bits(0x2001_0db8 << 96 | n).into());
    let mut siblings: Vec<_> = (0..8).map(v6).collect();
    for peer in &mut siblings {
        peer.fill(&mut memory, true);
    }
    let all = siblings.iter().map(Peer::bytes).sum::<usize>();
    assert!(all <= 4 * MIB - MIB / 2 + 8 * FLOOR, "{all}: of the reserve only as newcomers");
    assert_eq!(memory.origins.len(), 2);
    // They do not get the reserve either if each of their connections takes what newcomers may.
    let mut many: Vec<_> = (0..1000).map(v6).collect();
    for peer in &mut many {
        peer.fill(&mut memory, true);
    }
    assert!(memory.free() >= MIB / 2 - MIB / 32 - 8 * FLOOR, "{} left", memory.free());
    assert!(Peer::new(host(2)).fill(&mut memory, true) >= FLOOR);
}

#[test]
fn however_many_take_all_they_may_something_is_left() {
    for n in [1, 4, 30, 100] {
        let mut memory = memory(8 * MIB);
        let mut peers: Vec<_> = (0..n).map(|n| Peer::new(host(n))).collect();
        for round in 0.. {
            let news = peers.iter_mut().filter(|peer| peer.bytes() < 2 * MIB);
            let got = news.map(|peer| peer.ask(&mut memory, CHUNK as usize, round % 2 == 0)).filter(|got| *got).count();
            if got == 0 && round % 2 == 1 {
                break;
            }
        }
        // With connections taking turns, the threshold leaves 2/(n + 2), and the reserve is for newcomers only.
        let free = memory.free();
        let reserve = 8 * MIB / 16;
        assert!(free >= reserve.min(8 * MIB * 2 / (n as usize + 2)), "{n} left {free}");
        let mut newcomer = Peer { came: 1200, ..Peer::new(host(1000)) };
        let at_once = newcomer.fill(&mut memory, true);
        assert!((FLOOR..=AT_ONCE + PER_BYTE * 1200).contains(&at_once), "beside {n} a newcomer gets {at_once}");
        assert!(at_once >= AT_ONCE.min((free - reserve) / 4), "{at_once} of {free}");
        drop((peers, newcomer));
        assert_eq!(memory.charged(), 0);
    }
}

#[test]
fn pressure_stops_the_largest_first() {
    let mut memory = memory(8 * MIB);
    let mut large = Peer::new(host(1));
    while large.bytes() < MIB && large.ask(&mut memory, CHUNK as usize, true) {}
    // Others take memory until little is free: the connection that holds much then gets nothing, the one that holds
    // little does.
    let others = memory.pool().alloc(4 * MIB).unwrap();
    let more = memory.pool().alloc(2 * MIB).unwrap();
    let mut small = Peer::new(host(2));
    assert!(!large.ask(&mut memory, 1024, true) && small.ask(&mut memory, CHUNK as usize, true));
    assert!(memory.window(64 << 20, true) <= MIB as u64 / 2, "promises shrink as well");
    drop(more);
    assert!(large.ask(&mut memory, 1024, true));
    drop(others);
    assert_eq!(memory.window(64 << 20, true), MIB as u64);
    assert_eq!(memory.window(1000, true), 1000);
}

#[test]
fn no_window_is_below_the_floor() {
    let mut memory = memory(MIB);
    let all: Vec<_> = std::iter::from_fn(|| memory.pool().alloc(CHUNK as usize).ok()).collect();
    assert_eq!(memory.window(1 << 20, true), FLOOR as u64);
    assert_eq!(memory.window(1 << 20, false), 1 << 20, "the application's own buffers do not count");
    assert!(!Peer::new(host(1)).ask(&mut memory, 1, true));
    drop(all);
    assert!(Peer::new(host(1)).ask(&mut memory, 1, true));
}

#[test]
fn origins_without_memory_are_forgotten() {
    let mut memory = memory(MIB);
    for n in 0..100_000 {
        assert!(Peer::new(host(n)).ask(&mut memory, 1, true));
        assert!(memory.origins.len() <= 64, "{}", memory.origins.len());
    }
}

/// A connection whose streams receive packets in random order. Its peer is honest: it keeps retransmitting the first
/// missing frame of each stream, cut as before.
struct Honest {
    peer: Peer,
    /// Each with its length and that of its frames.
    streams: Vec<(RecvStream, u64, u64)>,
}

impl Honest {
    fn new(rng: &mut Rng, n: u32) -> Self {
        let stream = |rng: &mut Rng| {
            let bits = 8 + rng.below(11);
            (RecvStream::new(1 << 30), 1 + rng.below(1 << bits), 1 + rng.below(1400))
        };
        let streams = (0..1 + rng.below(6)).map(|_| stream(rng)).collect();
        Self { peer: Peer { came: 1200, ..Peer::new(host(n)) }, streams }
    }

    /// Something arrives on each stream, and the application reads some of it. True when everything was read.
    fn turn(&mut self, rng: &mut Rng, memory: &mut Memory) -> bool {
        let gaps = &mut Gaps::default();
        for (stream, len, frame) in &mut self.streams {
            let anywhere = rng.below(*len);
            for at in [stream.contiguous(), anywhere].map(|at| at / *frame * *frame) {
                let range = at..(at + *frame).min(*len);
                self.peer.came += range.end - range.start + 50;
                stream.accept(&mut range.clone(), range.end == *len).unwrap();
                // Data without memory is retransmitted.
                let purse =
                    Purse { memory, account: &mut self.peer.account, remote: &self.peer.remote, came: self.peer.came };
                let _ = stream.place(range, purse, gaps, |at, memory| memory.fill(at as u8));
            }
            if rng.chance(300) {
                while stream.consume(1 << 30) > 0 {}
            }
        }
        self.streams.iter().all(|(stream, len, _)| stream.consumed() == *len)
    }
}

/// The claim of this module: attackers hold all they get forever, and honest peers have random gaps in a pool that is
/// far too small for their windows; still, every honest connection finishes.
#[test]
fn streams_never_lock_each_other_up() {
    for seed in 0..60 {
        let rng = &mut Rng::from_u64(seed);
        let mut memory = memory((64 << 10) << rng.below(7));
        // More would use up the reserve as newcomers.
        let most = memory.pool().limit() / 16 / FLOOR;
        let mut attackers: Vec<_> = (0..rng.below(most as u64 + 1)).map(|n| Peer::new(host(1000 + n as u32))).collect();
        for _ in 0..attackers.len() * 1000 {
            let n = rng.below(attackers.len() as u64) as usize;
            attackers[n].ask(&mut memory, 1 << rng.below(17), rng.chance(500));
        }
        let mut honest: Vec<_> = (0..1 + rng.below(8)).map(|n| Honest::new(rng, n as u32)).collect();
        let mut rounds = 0;
        while !honest.is_empty() {
            rounds += 1;
            assert!(rounds < 100_000, "seed {seed}: {} of them wait forever", honest.len());
            honest.retain_mut(|honest| !honest.turn(rng, &mut memory));
            let streams = honest.iter().flat_map(|honest| &honest.streams);
            let held = streams.map(|(stream, ..)| stream.held()).sum::<usize>();
            let pinned = attackers.iter().map(Peer::bytes).sum::<usize>();
            assert_eq!(memory.charged(), held + pinned);
        }
        drop(attackers);
        assert_eq!(memory.charged(), 0);
    }
}

/// A peer that sends an urgent stream first sends nothing else before that stream progresses: the simulator's seed
/// 64213.
#[test]
fn no_stream_waits_for_the_gaps_of_others() {
    let mut memory = memory(32 << 10);
    let mut peer = Peer::new(host(1));
    let gaps = &mut Gaps::default();
    let mut place = |peer: &mut Peer, stream: &mut RecvStream, range: std::ops::Range<u64>| {
        stream.accept(&mut range.clone(), false).unwrap();
        stream.place(range, peer.purse(&mut memory), gaps, |at, memory| memory.fill(at as u8))
    };
    // All of its share is in chunks whose bytes in order were read, with a byte after a gap in each.
    let mut others: Vec<_> = (0..8).map(|_| RecvStream::new(1 << 20)).collect();
    for other in &mut others {
        assert_eq!((place(&mut peer, other, 0..1), place(&mut peer, other, 2..3)), (Ok(()), Ok(())));
        other.consume(1);
    }
    let mut urgent = RecvStream::new(1 << 20);
    for at in (0..100).map(|n| n * 900) {
        assert_eq!(place(&mut peer, &mut urgent, at..at + 900), Ok(()), "at {at}");
        assert_eq!(place(&mut peer, &mut urgent, at + 900..at + 1800), Err(NoMemory), "there is one spare chunk");
        assert_eq!((urgent.contiguous(), urgent.consume(1 << 20)), (at + 900, 900));
    }
    // If data is too long for it, as much as fits is accepted; nothing is beyond a gap.
    assert_eq!(place(&mut peer, &mut urgent, 90_000..91_400), Err(NoMemory));
    assert_eq!((urgent.contiguous(), urgent.consume(1 << 20)), (90_000 + MIN_CHUNK, MIN_CHUNK));
    assert_eq!(place(&mut peer, &mut urgent, 100_000..100_001), Err(NoMemory));
    drop((others, urgent));
    assert_eq!(memory.charged(), 0);
}
