//! What links do to datagrams, and what they have done.

use std::ops::RangeInclusive;

use super::codel::Codel;
use crate::base::time::Duration;

/// A time in which nothing gets through, which may recur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Its start, counted from the start of the link.
    pub from: Duration,
    /// Its length.
    pub length: Duration,
    /// Time from one start to the next; zero if there is only one.
    pub every: Duration,
}

impl Outage {
    pub(super) fn contains(&self, since: Duration) -> bool {
        let Some(into) = since.checked_sub(self.from) else { return false };
        let every = self.every.as_nanos();
        let into = if every == 0 { into.as_nanos() } else { into.as_nanos() % every };
        into < self.length.as_nanos()
    }
}

/// One in a thousand, as a probability in [`Shape`].
pub const PER_MILLE: u64 = 1000;

/// Certainty, as a probability in [`Shape`].
pub const ALWAYS: u64 = 1_000_000;

/// Loss in bursts: a link that is alternately good and bad (Gilbert-Elliott). It starts good. Probabilities are per
/// million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gilbert {
    /// Probability that it turns bad, for each datagram.
    pub to_bad: u64,
    /// Probability that it turns good again, for each datagram.
    pub to_good: u64,
    /// Probability of loss while it is good.
    pub loss_good: u64,
    /// Probability of loss while it is bad.
    pub loss_bad: u64,
}

/// What happens to datagrams in one direction. Probabilities are per million.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Propagation delay.
    pub delay: Duration,
    /// Additional delay of up to this time for each datagram.
    pub jitter: Duration,
    /// Whether datagrams that jitter delays less overtake those that it delays more. Otherwise, the order is kept.
    pub overtaking: bool,
    /// Bits per second; 0 for no limit.
    pub rate: u64,
    /// Other rates from certain times on, in order. Times are counted from the start; a rate of 0 counts as 1 bit/s.
    /// They have no effect on a link without a limit.
    pub steps: Vec<(Duration, u64)>,
    /// Capacity of the queue before a link with a rate, in bytes of IP packets. Further packets are dropped.
    pub queue: u64,
    /// Keeps the queue short, by CoDel.
    pub codel: Option<Codel>,
    /// Probability of loss.
    pub loss: u64,
    /// Loss in bursts.
    pub gilbert: Option<Gilbert>,
    /// Most datagrams that are lost in a row at random; 0 for no limit.
    pub loss_run: u64,
    /// Datagrams that are lost, counted from 1.
    pub drops: Vec<RangeInclusive<u64>>,
    /// `(period, count)`: of each `period` datagrams, the last `count` are lost.
    pub bursts: Option<(u64, u64)>,
    /// Times in which nothing gets through.
    pub outages: Vec<Outage>,
    /// Probability that one bit is flipped.
    pub corrupt: u64,
    /// Most datagrams that are corrupted in a row; 0 for no limit.
    pub corrupt_run: u64,
    /// Probability of a second copy.
    pub duplicate: u64,
    /// Probability that a datagram is held back by up to `held`, so that others overtake it.
    pub reorder: u64,
    /// The most that one is held back; zero for four times the delay.
    pub held: Duration,
    /// Probability that a datagram is late by `late_by`, so that others overtake it.
    pub late: u64,
    /// By how much.
    pub late_by: Duration,
    /// Probability that a packet of an ECN-capable sender is marked "congestion experienced".
    pub marks: u64,
    /// Such packets are also marked if more than this many bytes wait in the queue.
    pub mark_above: Option<u64>,
    /// ECN codepoints are cleared.
    pub bleach: bool,
    /// Largest IP packet in bytes; 0 for no limit.
    pub mtu: usize,
    /// Another MTU from this time on, counted from the start.
    pub later_mtu: Option<(Duration, usize)>,
}

impl Default for Shape {
    /// A perfect link.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            overtaking: false,
            rate: 0,
            steps: Vec::new(),
            queue: 1 << 20,
            codel: None,
            loss: 0,
            gilbert: None,
            loss_run: 0,
            drops: Vec::new(),
            bursts: None,
            outages: Vec::new(),
            corrupt: 0,
            corrupt_run: 0,
            duplicate: 0,
            reorder: 0,
            held: Duration::ZERO,
            late: 0,
            late_by: Duration::ZERO,
            marks: 0,
            mark_above: None,
            bleach: false,
            mtu: 0,
            later_mtu: None,
        }
    }
}

/// Counters of one direction, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapeStats {
    /// Offered to the link.
    pub sent: u64,
    /// Copies that get through.
    pub passed: u64,
    /// Lost at random.
    pub lost_random: u64,
    /// Lost in bursts: [`Shape::gilbert`].
    pub lost_burst: u64,
    /// Lost because of their number: [`Shape::drops`] and [`Shape::bursts`].
    pub lost_by_number: u64,
    /// Lost in an outage.
    pub lost_outage: u64,
    /// Lost because the queue was full.
    pub lost_queue: u64,
    /// Lost because they waited for too long: [`Shape::codel`].
    pub lost_codel: u64,
    /// Lost because of their size.
    pub lost_size: u64,
    /// Second copies.
    pub duplicated: u64,
    /// Held back, or late.
    pub reordered: u64,
    /// With a flipped bit.
    pub corrupted: u64,
    /// Marked "congestion experienced" here.
    pub marked: u64,
    /// With a cleared ECN codepoint.
    pub bleached: u64,
}

impl ShapeStats {
    /// All that were lost.
    pub const fn lost(&self) -> u64 {
        self.lost_random
            + self.lost_burst
            + self.lost_by_number
            + self.lost_outage
            + self.lost_queue
            + self.lost_codel
            + self.lost_size
    }
}
