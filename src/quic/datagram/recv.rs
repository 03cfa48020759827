//! Received datagrams.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use crate::mem::PinnedBuf;
use crate::quic::config::{DatagramConfig, DropPolicy};
use crate::quic::datagram::ReceivedDatagram;
use crate::quic::event::Event;
use crate::quic::memory::{Lender, Want};
use crate::quic::stats::DropReason;

/// What became of a received datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Whether it was kept.
    pub(crate) kept: bool,
    /// Why an older one was dropped, and why it was.
    pub(crate) dropped: ArrayVec<DropReason, 2>,
}

impl Placed {
    fn kept() -> Self {
        Self { kept: true, dropped: ArrayVec::new() }
    }

    fn dropped(why: DropReason) -> Self {
        Self::kept().refused(why)
    }

    /// It is not kept after all.
    fn refused(mut self, why: DropReason) -> Self {
        self.kept = false;
        self.dropped.push(why);
        self
    }
}

/// Received datagrams, and the buffers for them.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// Whether the application provides buffers.
    provides: bool,
    /// Unused buffers, in the order in which they were provided.
    free: VecDeque<PinnedBuf>,
    /// The number of unused buffers after some were last provided.
    most: usize,
    /// Whether low space was reported since.
    low_told: bool,
    /// Buffers with a datagram of this length that were not yet reported.
    filled: VecDeque<(PinnedBuf, usize)>,
    /// Datagrams in the engine's memory that the application did not take yet.
    pooled: VecDeque<PinnedBuf>,
    /// Whether a datagram has come that is not yet reported.
    news: bool,
    /// Whether datagrams to take were reported, and none was taken since.
    told: bool,
    /// The latest packet with datagrams, and how many of them were kept.
    latest: (u64, usize),
}

impl Receiver {
    /// Adds a buffer for one datagram.
    pub(crate) fn provide(&mut self, buf: PinnedBuf) {
        self.free.push_back(buf);
        (self.provides, self.low_told) = (true, false);
        self.most = self.free.len();
    }

    /// Finds memory for a datagram of `len` bytes from packet `pn`, and has `fill` decrypt the datagram there.
    pub(crate) fn place(
        &mut self,
        pn: u64,
        len: usize,
        config: &DatagramConfig,
        mut lender: impl Lender,
        fill: impl FnOnce(&mut [u8]),
    ) -> Placed {
        let mut placed = Placed::kept();
        if self.latest.0 != pn {
            self.latest = (pn, 0);
        }
        if self.provides {
            let found = match self.free.front() {
                Some(buf) if buf.len() >= len => self.free.pop_front(),
                None if config.receive_drop == DropPolicy::Oldest => {
                    let oldest = self.filled.pop_front_if(|(buf, _)| buf.len() >= len);
                    placed.dropped.extend(oldest.is_some().then_some(DropReason::DatagramNoBuffer));
                    oldest.map(|(buf, _)| buf)
                }
                _ => None,
            };
            let Some(mut buf) = found else { return Placed::dropped(DropReason::DatagramNoBuffer) };
            fill(&mut buf[..len]);
            self.filled.push_back((buf, len));
        } else {
            if self.pooled.len() >= config.receive_queue {
                let oldest = self.pooled.pop_front_if(|_| config.receive_drop == DropPolicy::Oldest);
                if oldest.is_none() {
                    return Placed::dropped(DropReason::DatagramOverflow);
                }
                placed.dropped.push(DropReason::DatagramOverflow);
            }
            let lent = match len {
                0 => Ok(PinnedBuf::unpinned(0)),
                // The application can take it at once, like the next bytes in order of a stream.
                len => lender.lend(Want { least: len, most: len, in_order: true }),
            };
            let Ok(mut buf) = lent else { return placed.refused(DropReason::DatagramNoBuffer) };
            buf.truncate(len);
            fill(&mut buf);
            self.pooled.push_back(buf);
            self.news = true;
        }
        self.latest.1 += 1;
        placed
    }

    /// Forgets the datagrams of packet `pn`, which will not be acknowledged, so that its sender considers them lost.
    /// Returns their number.
    pub(crate) fn undo(&mut self, pn: u64) -> usize {
        let (latest, count) = std::mem::take(&mut self.latest);
        if latest != pn {
            return 0;
        }
        for _ in 0..count {
            if !self.provides {
                self.pooled.pop_back();
            } else if let Some((buf, _)) = self.filled.pop_back() {
                self.free.push_front(buf);
            }
        }
        self.news &= !self.pooled.is_empty();
        count
    }

    /// Takes the next datagram from the engine's memory.
    pub(crate) fn take(&mut self) -> Option<ReceivedDatagram> {
        self.told = false;
        self.pooled.pop_front().map(ReceivedDatagram)
    }

    /// The number of buffers left, if that is to be reported.
    fn low(&self, config: &DatagramConfig) -> Option<usize> {
        let left = self.free.len();
        let low = self.provides && !self.low_told && left < config.low_water && 2 * left < self.most;
        low.then_some(left)
    }

    /// Whether [`Receiver::flush`] has something to do.
    pub(crate) fn has_news(&self) -> bool {
        self.news || !self.filled.is_empty()
    }

    /// Reports what has come.
    pub(crate) fn flush(&mut self, config: &DatagramConfig, mut tell: impl FnMut(Event)) {
        let buffers = !self.filled.is_empty();
        for (buf, len) in self.filled.drain(..) {
            tell(Event::DatagramBuffer { buf, received: Some(len) });
        }
        if buffers && let Some(left) = self.low(config) {
            self.low_told = true;
            tell(Event::DatagramSpaceLow { left });
        }
        if std::mem::take(&mut self.news) && !self.pooled.is_empty() && !self.told {
            self.told = true;
            tell(Event::DatagramsReadable);
        }
    }

    /// Reports datagrams that were not taken once more, as the connection has ended.
    pub(crate) fn tell_again(&mut self) {
        (self.news, self.told) = (!self.pooled.is_empty(), false);
    }

    /// Returns all unused buffers.
    pub(crate) fn release(&mut self, mut tell: impl FnMut(Event)) {
        for buf in self.free.drain(..) {
            tell(Event::DatagramBuffer { buf, received: None });
        }
    }

    /// Number of bytes of pool memory held, without datagrams that were taken.
    pub(crate) fn held(&self) -> usize {
        self.pooled.iter().map(PinnedBuf::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{BufPool, Hugepages, PoolConfig};

    fn config(receive_drop: DropPolicy) -> DatagramConfig {
        DatagramConfig { receive_queue: 3, receive_drop, low_water: 2, ..DatagramConfig::default() }
    }

    /// A datagram of `len` bytes `n`, in packet `n`.
    fn put(r: &mut Receiver, config: &DatagramConfig, pool: &BufPool, n: u8, len: usize) -> Placed {
        r.place(n.into(), len, config, pool, |memory| {
            assert_eq!(memory.len(), len);
            memory.fill(n);
        })
    }

    /// What is reported: the first byte and the length of datagrams, and the buffers left when space is low.
    fn told(r: &mut Receiver, config: &DatagramConfig) -> (Vec<(u8, usize)>, Vec<usize>, usize) {
        let (mut came, mut low, mut readable) = (Vec::new(), Vec::new(), 0);
        r.flush(config, |event| match event {
            Event::DatagramBuffer { buf, received: Some(len) } => came.push((buf[0], len)),
            Event::DatagramSpaceLow { left } => low.push(left),
            Event::DatagramsReadable => readable += 1,
            other => panic!("{other:?}"),
        });
        assert!(!r.has_news());
        (came, low, readable)
    }

    #[test]
    fn each_datagram_gets_the_next_buffer() {
        let (pool, config, mut r) = (BufPool::heap(), config(DropPolicy::Newest), Receiver::default());
        (0..4).for_each(|_| r.provide(PinnedBuf::unpinned(10)));
        assert_eq!(put(&mut r, &config, &pool, 1, 10), Placed::kept());
        assert_eq!(put(&mut r, &config, &pool, 2, 11), Placed::dropped(DropReason::DatagramNoBuffer), "it is too long");
        assert_eq!(put(&mut r, &config, &pool, 3, 0), Placed::kept());
        assert_eq!(told(&mut r, &config), (vec![(1, 10), (0, 0)], vec![], 0));
        assert_eq!(put(&mut r, &config, &pool, 4, 4), Placed::kept());
        assert_eq!(told(&mut r, &config), (vec![(4, 4)], vec![1], 0), "one of four is left");
        assert_eq!(put(&mut r, &config, &pool, 5, 5), Placed::kept());
        assert_eq!(put(&mut r, &config, &pool, 6, 6), Placed::dropped(DropReason::DatagramNoBuffer));
        assert_eq!(told(&mut r, &config), (vec![(5, 5)], vec![], 0), "low space is reported once");
        r.provide(PinnedBuf::unpinned(10));
        assert_eq!(put(&mut r, &config, &pool, 7, 7), Placed::kept());
        assert_eq!(told(&mut r, &config), (vec![(7, 7)], vec![0], 0), "and again after more was provided");
        assert_eq!((r.held(), r.take().is_none()), (0, true), "nothing came to the pool");
    }

    #[test]
    fn the_oldest_that_is_not_reported_gives_way() {
        let (pool, config, mut r) = (BufPool::heap(), config(DropPolicy::Oldest), Receiver::default());
        (0..2).for_each(|_| r.provide(PinnedBuf::unpinned(10)));
        for n in 1..=2 {
            assert_eq!(put(&mut r, &config, &pool, n, 5), Placed::kept());
        }
        let replaced = Placed { kept: true, dropped: ArrayVec::from_iter([DropReason::DatagramNoBuffer]) };
        assert_eq!(put(&mut r, &config, &pool, 3, 6), replaced);
        assert_eq!(told(&mut r, &config).0, [(2, 5), (3, 6)]);
        let refused = put(&mut r, &config, &pool, 4, 6);
        assert_eq!(refused, Placed::dropped(DropReason::DatagramNoBuffer), "there is no buffer at all");
        let mut back = 0;
        r.provide(PinnedBuf::unpinned(1));
        r.release(|event| back += usize::from(matches!(event, Event::DatagramBuffer { received: None, .. })));
        assert_eq!(back, 1);
    }

    #[test]
    fn the_queue_in_the_pool_is_bounded() {
        let pool = BufPool::heap();
        for policy in [DropPolicy::Oldest, DropPolicy::Newest] {
            let (config, mut r) = (config(policy), Receiver::default());
            for n in 1..=5 {
                let placed = put(&mut r, &config, &pool, n, usize::from(n) - 1);
                assert_eq!(placed.kept, n <= 3 || policy == DropPolicy::Oldest);
                assert_eq!(!placed.dropped.is_empty(), n > 3);
            }
            assert_eq!(told(&mut r, &config), (vec![], vec![], 1), "they are reported once");
            put(&mut r, &config, &pool, 9, 9);
            assert_eq!(told(&mut r, &config).2, 0, "not again before one is taken");
            assert!(r.held() >= 2 << 10);
            let taken: Vec<_> = std::iter::from_fn(|| r.take()).map(|d| d.to_vec()).collect();
            let lens: Vec<_> = taken.iter().map(Vec::len).collect();
            assert_eq!(lens, if policy == DropPolicy::Oldest { [3, 4, 9] } else { [0, 1, 2] });
            assert_eq!(r.held(), 0);
            put(&mut r, &config, &pool, 3, 3);
            assert_eq!(told(&mut r, &config).2, 1);
        }
    }

    /// The oldest has given way already when it turns out that there is no memory.
    #[test]
    fn every_datagram_that_is_dropped_is_counted() {
        let (pool, config, mut r) = (BufPool::heap(), config(DropPolicy::Oldest), Receiver::default());
        for n in 1..=3 {
            put(&mut r, &config, &pool, n, 4);
        }
        let limits = PoolConfig { limit_bytes: 0, hugepages: Hugepages::Never, numa_node: None };
        let none = BufPool::new(limits).unwrap();
        let placed = r.place(4, 4, &config, &none, |_| panic!("there is no memory"));
        assert!(!placed.kept);
        assert_eq!(placed.dropped[..], [DropReason::DatagramOverflow, DropReason::DatagramNoBuffer]);
        assert_eq!(std::iter::from_fn(|| r.take()).map(|d| d[0]).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn datagrams_of_a_packet_that_is_not_acknowledged_are_forgotten() {
        let (pool, config, mut r) = (BufPool::heap(), config(DropPolicy::Newest), Receiver::default());
        let two = |r: &mut Receiver, pn: u64| {
            (0..2).for_each(|n| assert!(r.place(pn, 1, &config, &pool, |m| m.fill(n)).kept));
        };
        two(&mut r, 7);
        assert_eq!((r.undo(8), r.take().is_some(), r.take().is_some()), (0, true, true));
        two(&mut r, 8);
        assert_eq!((r.undo(8), r.undo(8), r.take().is_some()), (2, 0, false));
        (0..2).for_each(|_| r.provide(PinnedBuf::unpinned(1)));
        two(&mut r, 9);
        assert_eq!((r.undo(9), r.free.len(), r.has_news()), (2, 2, false));
    }
}
