//! A decorator that injects faults into received frames: loss, duplication, reordering, corruption and delay.
//!
//! Deterministic: the same seed with the same frames and polls gives the same faults. Time is counted in polls (calls
//! of `rx_burst`), as this layer has no clock. Sending is not affected: wrap both ends for faults in both directions.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{BURST, Burst, Caps, Checksum, Datapath, DatapathStats, RxFrame};
use crate::base::rng::Rng;

/// The frequency of each fault. Shares are per mille.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultConfig {
    /// The share of frames that are dropped.
    pub loss: u16,
    /// The share of frames that are delivered twice.
    pub duplicate: u16,
    /// The share of frames in which one bit is flipped.
    pub corrupt: u16,
    /// The share of frames held back for 1 to [`FaultConfig::reorder_polls`] polls, so that later ones overtake them.
    pub reorder: u16,
    /// The maximum number of polls that a reordered frame is held back.
    pub reorder_polls: u32,
    /// The share of frames held back for [`FaultConfig::delay_polls`]; with 1000, this is the link's latency.
    pub delay: u16,
    /// The number of polls that a delayed frame is held back.
    pub delay_polls: u32,
    /// The maximum number of frames held back at a time, at least a burst. While that many are held, nothing is
    /// received.
    pub max_held: usize,
}

impl Default for FaultConfig {
    /// A configuration without faults.
    fn default() -> Self {
        Self {
            loss: 0,
            duplicate: 0,
            corrupt: 0,
            reorder: 0,
            reorder_polls: 4,
            delay: 0,
            delay_polls: 1,
            max_held: 1024,
        }
    }
}

/// Counters in frames. A frame may be in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Received from the inner datapath.
    pub seen: u64,
    /// Dropped.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Delivered with a flipped bit.
    pub corrupted: u64,
    /// Held back to be overtaken.
    pub reordered: u64,
    /// Held back by the configured delay.
    pub delayed: u64,
}

/// A datapath with faults in its received frames.
#[derive(Debug)]
pub struct Faults<D: Datapath> {
    inner: D,
    config: FaultConfig,
    rng: Rng,
    counters: FaultCounters,
    poll: u64,
    /// Frames by the poll at which they are due, then by arrival.
    held: BTreeMap<(u64, u64), FaultRx<D::Rx>>,
    arrivals: u64,
}

/// A frame received through [`Faults`].
#[derive(Debug)]
pub struct FaultRx<R> {
    frame: Either<R>,
    corrupted: bool,
}

#[derive(Debug)]
enum Either<R> {
    Device(R),
    Copy { bytes: Vec<u8>, ip: Checksum, l4: Checksum },
}

impl<D: Datapath> Faults<D> {
    /// Wraps `inner`.
    pub fn new(inner: D, config: FaultConfig, rng: Rng) -> Self {
        Self { inner, config, rng, counters: FaultCounters::default(), poll: 0, held: BTreeMap::new(), arrivals: 0 }
    }

    /// The counters.
    pub fn counters(&self) -> FaultCounters {
        self.counters
    }

    /// Changes the configuration for frames received from now on.
    pub fn set_config(&mut self, config: FaultConfig) {
        self.config = config;
    }

    /// The number of frames currently held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The inner datapath.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The inner datapath.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    fn chance(&mut self, per_mille: u16) -> bool {
        self.rng.chance(u64::from(per_mille))
    }

    /// Applies faults to one frame.
    fn admit(&mut self, frame: D::Rx) {
        self.counters.seen += 1;
        if self.chance(self.config.loss) {
            self.counters.lost += 1;
            return;
        }
        let mut frame = FaultRx { frame: Either::Device(frame), corrupted: false };
        let copy = self.chance(self.config.duplicate).then(|| frame.copy());
        if self.chance(self.config.corrupt) {
            self.counters.corrupted += u64::from(frame.corrupt(&mut self.rng));
        }
        let due = self.due();
        self.hold(due, frame);
        if let Some(copy) = copy {
            self.counters.duplicated += 1;
            self.hold(due, copy);
        }
    }

    /// The poll at which the next frame is delivered.
    fn due(&mut self) -> u64 {
        let mut due = self.poll;
        if self.chance(self.config.delay) {
            self.counters.delayed += 1;
            due += u64::from(self.config.delay_polls);
        }
        if self.chance(self.config.reorder) {
            self.counters.reordered += 1;
            due += 1 + self.rng.below(u64::from(self.config.reorder_polls));
        }
        due
    }

    fn hold(&mut self, due: u64, frame: FaultRx<D::Rx>) {
        self.held.insert((due, self.arrivals), frame);
        self.arrivals += 1;
    }
}

impl<D: Datapath> Datapath for Faults<D> {
    type Rx = FaultRx<D::Rx>;
    type Tx = D::Tx;

    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn link_up(&mut self) -> bool {
        self.inner.link_up()
    }

    fn link_problem(&self) -> Option<String> {
        self.inner.link_problem()
    }

    fn removed(&self) -> Option<String> {
        self.inner.removed()
    }

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        self.inner.set_multicast(groups);
    }

    // Wake-ups are not passed on: nothing would wake a core for a frame that is held back until a later poll. So it
    // sleeps only briefly.

    fn rx_burst(&mut self, burst: &mut Burst<Self::Rx>) -> usize {
        self.poll += 1;
        // Duplication may double a burst; the limit is on frames received.
        if self.held.len() < self.config.max_held.max(BURST) {
            let mut fresh = Burst::new();
            self.inner.rx_burst(&mut fresh);
            fresh.into_iter().for_each(|frame| self.admit(frame));
        }
        let before = burst.len();
        while !burst.is_full()
            && let Some(first) = self.held.first_entry()
            && first.key().0 <= self.poll
        {
            burst.push(first.remove());
        }
        burst.len() - before
    }

    fn tx_alloc(&mut self) -> Option<Self::Tx> {
        self.inner.tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<Self::Tx>) -> usize {
        self.inner.tx_burst(burst)
    }

    fn stats(&self) -> DatapathStats {
        self.inner.stats()
    }
}

impl<R: RxFrame> FaultRx<R> {
    fn copy(&mut self) -> Self {
        let (ip, l4) = (self.ip_checksum(), self.l4_checksum());
        Self { frame: Either::Copy { bytes: self.data_mut().to_vec(), ip, l4 }, corrupted: self.corrupted }
    }

    /// Flips one bit; returns `false` if the frame is empty.
    fn corrupt(&mut self, rng: &mut Rng) -> bool {
        let data = self.data_mut();
        let bit = rng.below(data.len() as u64 * 8);
        let Some(byte) = data.get_mut((bit / 8) as usize) else { return false };
        *byte ^= 1 << (bit % 8);
        self.corrupted = true;
        true
    }

    /// The device's verdict, which was before the corruption.
    fn verdict(&self, of: impl FnOnce(&Either<R>) -> Checksum) -> Checksum {
        if self.corrupted { Checksum::Unknown } else { of(&self.frame) }
    }
}

impl<R: RxFrame> RxFrame for FaultRx<R> {
    fn prefetch(&self) {
        if let Either::Device(frame) = &self.frame {
            frame.prefetch();
        }
    }

    fn data_mut(&mut self) -> &mut [u8] {
        match &mut self.frame {
            Either::Device(frame) => frame.data_mut(),
            Either::Copy { bytes, .. } => bytes,
        }
    }

    fn ip_checksum(&self) -> Checksum {
        self.verdict(|frame| match frame {
            Either::Device(frame) => frame.ip_checksum(),
            Either::Copy { ip, .. } => *ip,
        })
    }

    fn l4_checksum(&self) -> Checksum {
        self.verdict(|frame| match frame {
            Either::Device(frame) => frame.l4_checksum(),
            Either::Copy { l4, .. } => *l4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::sim::tests::{poll, send};
    use crate::datapath::sim::{SimConfig, SimLink, SimPort};

    fn link(config: FaultConfig) -> (SimPort, Faults<SimPort>) {
        let (a, b) = SimLink::pair(SimConfig::default());
        (a, Faults::new(b, config, Rng::from_u64(1)))
    }

    /// Sends `n` numbered frames, one per poll, and polls until none is held; returns the frames in order of arrival.
    fn run(port: &mut SimPort, faults: &mut Faults<SimPort>, n: u16) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        for i in 0..n {
            assert!(send(port, &i.to_be_bytes()));
            got.extend(poll(faults));
        }
        while faults.held() > 0 {
            got.extend(poll(faults));
        }
        got
    }

    fn numbers(frames: &[Vec<u8>]) -> Vec<u16> {
        frames.iter().map(|f| u16::from_be_bytes([f[0], f[1]])).collect()
    }

    #[test]
    fn without_faults_everything_passes_in_order() {
        let (mut a, mut b) = link(FaultConfig::default());
        let got = run(&mut a, &mut b, 100);
        assert_eq!(numbers(&got), (0..100).collect::<Vec<_>>());
        assert_eq!(b.counters(), FaultCounters { seen: 100, ..FaultCounters::default() });
        assert_eq!(b.caps().mac[5], 2);
        assert!(b.link_up() && send(&mut b, b"back"));
        assert_eq!(poll(&mut a), [b"back"]);
    }

    #[test]
    fn loss_and_duplication_add_up() {
        let (mut a, mut b) = link(FaultConfig { loss: 100, duplicate: 200, ..FaultConfig::default() });
        let got = numbers(&run(&mut a, &mut b, 1000));
        let c = b.counters();
        assert_eq!(got.len() as u64, 1000 - c.lost + c.duplicated);
        assert!((60..140).contains(&c.lost) && (130..230).contains(&c.duplicated), "{c:?}");
        assert!(got.is_sorted(), "copies come right behind their originals");
        let (mut a, mut b) = link(FaultConfig { loss: 1000, ..FaultConfig::default() });
        assert!(run(&mut a, &mut b, 50).is_empty());
        b.set_config(FaultConfig::default());
        assert_eq!(run(&mut a, &mut b, 2).len(), 2);
        assert_eq!(a.free_frames(), 1024, "lost frames go back to their pool");
    }

    #[test]
    fn reordering_changes_order_only() {
        let (mut a, mut b) = link(FaultConfig { reorder: 300, ..FaultConfig::default() });
        let mut got = numbers(&run(&mut a, &mut b, 500));
        assert!(!got.is_sorted());
        let furthest = got.iter().enumerate().map(|(at, n)| usize::from(*n).abs_diff(at)).max().unwrap();
        assert!(furthest <= 8, "{furthest}");
        got.sort();
        assert_eq!(got, (0..500).collect::<Vec<_>>());
        assert!((100..200).contains(&b.counters().reordered), "{:?}", b.counters());
    }

    #[test]
    fn delay_is_counted_in_polls() {
        let (mut a, mut b) = link(FaultConfig { delay: 1000, delay_polls: 3, ..FaultConfig::default() });
        assert!(send(&mut a, b"x"));
        for _ in 0..3 {
            assert!(poll(&mut b).is_empty());
        }
        assert_eq!(poll(&mut b), [b"x"]);
        assert_eq!(b.counters().delayed, 1);
    }

    #[test]
    fn corruption_flips_one_bit_and_voids_the_verdict() {
        let (mut a, mut b) = link(FaultConfig { corrupt: 1000, duplicate: 1000, ..FaultConfig::default() });
        for _ in 0..200 {
            assert!(send(&mut a, &[0; 50]));
            let mut burst = Burst::new();
            assert_eq!(b.rx_burst(&mut burst), 2);
            let [original, copy] = &mut burst[..] else { panic!("two frames") };
            assert!(original.corrupted && !copy.corrupted);
            let pairs = original.data_mut().iter().zip(copy.data_mut().iter());
            assert_eq!(pairs.map(|(x, y)| (x ^ y).count_ones()).sum::<u32>(), 1);
        }
        assert_eq!(b.counters().corrupted, 200);
    }

    #[test]
    fn a_corrupted_frame_has_no_verdict() {
        struct Good([u8; 4]);
        impl RxFrame for Good {
            fn data_mut(&mut self) -> &mut [u8] {
                &mut self.0
            }
            fn ip_checksum(&self) -> Checksum {
                Checksum::Good
            }
            fn l4_checksum(&self) -> Checksum {
                Checksum::Bad
            }
        }
        let mut frame = FaultRx { frame: Either::Device(Good([0; 4])), corrupted: false };
        let copy = frame.copy();
        assert!(frame.corrupt(&mut Rng::from_u64(0)));
        assert_eq!((frame.ip_checksum(), frame.l4_checksum()), (Checksum::Unknown, Checksum::Unknown));
        assert_eq!((copy.ip_checksum(), copy.l4_checksum()), (Checksum::Good, Checksum::Bad));
        let empty = Either::<Good>::Copy { bytes: Vec::new(), ip: Checksum::Good, l4: Checksum::Good };
        assert!(!FaultRx { frame: empty, corrupted: false }.corrupt(&mut Rng::from_u64(0)));
    }

    #[test]
    fn what_is_held_is_bounded_and_the_seed_decides() {
        let config = FaultConfig { delay: 1000, delay_polls: 1000, max_held: 64, ..FaultConfig::default() };
        let (mut a, mut b) = link(config);
        for _ in 0..200 {
            assert!(send(&mut a, b"x"));
        }
        for _ in 0..20 {
            assert!(poll(&mut b).is_empty());
        }
        assert_eq!(b.held(), 64);
        let mixed = FaultConfig { loss: 100, duplicate: 100, reorder: 100, corrupt: 100, ..FaultConfig::default() };
        let once = || {
            let (mut a, mut b) = link(mixed);
            (run(&mut a, &mut b, 300), b.counters())
        };
        assert_eq!(once(), once());
    }
}
