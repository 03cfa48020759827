//! Controlled delay: drops packets when the shortest wait has been too long for a while (RFC 8289).

use crate::base::time::{Duration, Instant};

/// The number of intervals after leaving the dropping state within which the rate of drops is remembered (RFC 8289 §5.5).
const REMEMBERED: u32 = 16;

/// Settings of CoDel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codel {
    /// The wait that is acceptable for long (RFC 8289 §4.3).
    pub target: Duration,
    /// How long it may be exceeded: about a round-trip time (RFC 8289 §4.2).
    pub interval: Duration,
    /// Whether packets of ECN-capable senders are marked "congestion experienced" rather than dropped.
    pub marks: bool,
}

impl Default for Codel {
    /// The values for the Internet (RFC 8289 §4.4), without marks.
    fn default() -> Self {
        Self { target: Duration::from_millis(5), interval: Duration::from_millis(100), marks: false }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent.
    Passes,
    /// It is dropped, or marked.
    Dropped,
}

/// The state of a queue (RFC 8289 §5.1).
///
/// Packets are judged in the order of the queue, each for the time at which it would be sent. That is known when the
/// packet is queued, whereas what waits behind it then is not: the exception for a queue of less than one packet (§5.4)
/// is left to the wait of the packet itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sojourn {
    /// When the wait will have been above the target for an interval.
    first_above: Option<Instant>,
    dropping: bool,
    /// When to drop the next one.
    next: Instant,
    /// Drops since this state began.
    count: u64,
    /// `count` when the previous one began.
    last_count: u64,
}

impl Sojourn {
    /// The fate of a packet that would be sent at `now` after it has waited for `wait` (RFC 8289 §5.5).
    pub fn fate(&mut self, codel: &Codel, now: Instant, wait: Duration) -> Fate {
        let too_long = self.is_too_long(codel, now, wait);
        if self.dropping {
            self.dropping = too_long;
            if !too_long || now < self.next {
                return Fate::Passes;
            }
            self.count += 1;
            self.next = pace(codel, self.next, self.count);
            return Fate::Dropped;
        }
        if !too_long {
            return Fate::Passes;
        }
        self.dropping = true;
        let since = self.count - self.last_count;
        let recent = now.saturating_since(self.next) < REMEMBERED * codel.interval;
        self.count = if since > 1 && recent { since } else { 1 };
        self.last_count = self.count;
        self.next = pace(codel, now, self.count);
        Fate::Dropped
    }

    /// Whether the wait has been above the target for an interval (RFC 8289 §5.4).
    fn is_too_long(&mut self, codel: &Codel, now: Instant, wait: Duration) -> bool {
        if wait < codel.target {
            self.first_above = None;
            return false;
        }
        now >= *self.first_above.get_or_insert(now + codel.interval)
    }
}

/// The time of the drop after the one at `at` (RFC 8289 §5.3).
fn pace(codel: &Codel, at: Instant, count: u64) -> Instant {
    at + codel.interval.div_f64((count.max(1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of drops, in ms, among packets sent every millisecond with these waits.
    fn drops(waits: impl Iterator<Item = u64>) -> Vec<u64> {
        let (codel, mut state) = (Codel::default(), Sojourn::default());
        let ms = Duration::from_millis;
        let fates = waits.zip(0..).map(|(wait, at)| (state.fate(&codel, Instant::ZERO + ms(at), ms(wait)), at));
        fates.filter(|(fate, _)| *fate == Fate::Dropped).map(|(_, at)| at).collect()
    }

    #[test]
    fn drops_come_faster_as_long_as_the_wait_is_too_long() {
        assert_eq!(drops((0..1000).map(|_| 4)), [0; 0]);
        // 100 ms, and then 100 ms divided by the square roots of 1, 2, 3...
        assert_eq!(drops((0..460).map(|_| 6)), [100, 200, 271, 329, 379, 424]);
        // One short wait begins the interval anew.
        assert_eq!(drops((0..250).map(|at| if at == 99 { 0 } else { 6 })), [200]);
    }

    #[test]
    fn the_rate_of_drops_is_remembered_for_a_while() {
        let again = |pause: u64| {
            let waits = (0..460).map(|_| 6).chain((0..pause).map(|_| 0)).chain((0..300).map(|_| 6));
            drops(waits).into_iter().filter(|at| *at > 460).map(|at| at - 460 - pause).collect::<Vec<_>>()
        };
        // Five after the first: 100 ms divided by the square roots of 5, 6, 7...
        assert_eq!(again(200)[..3], [100, 145, 186]);
        assert_eq!(again(3000)[..2], [100, 200]);
    }
}
