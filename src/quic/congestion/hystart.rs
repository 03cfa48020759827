//! HyStart++: leaves the first slow start when the delay grows, before packets are lost
//! (draft-ietf-tcpm-hystartplusplus-04 §4.2).
//!
//! Rounds are delimited by time: a round ends with the first acknowledgement of a packet sent after it began.
//!
//! There is one difference: the delay is judged by the minimum of each group of [`N_RTT_SAMPLE`] samples, not by that of
//! all samples of the round so far. A queue that the round itself has built shows at its end; its first samples, which
//! are the smallest, were taken before. With the minimum of the round, the queue would be noticed a round later, when
//! the window has doubled once more.

use crate::base::time::{Duration, Instant};

const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const N_RTT_SAMPLE: u32 = 8;
/// In conservative slow start, the window grows by this fraction of the acknowledged bytes.
pub(super) const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

/// How the window changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// It grows as in slow start.
    Standard,
    /// It grows by a [`CSS_GROWTH_DIVISOR`]th.
    Conservative,
    /// Slow start ends: the threshold becomes the window.
    Exit,
}

/// State of conservative slow start, which finds out whether the delay persists.
#[derive(Clone, Copy, Debug)]
struct Conservative {
    baseline: Duration,
    rounds: u32,
}

#[derive(Clone, Debug)]
pub(super) struct HyStart {
    round_start: Instant,
    last_min: Duration,
    current_min: Duration,
    /// The minimum of the current group of samples, and their number.
    group_min: Duration,
    samples: u32,
    conservative: Option<Conservative>,
}

impl HyStart {
    pub(super) fn new() -> Self {
        Self {
            round_start: Instant::ZERO,
            last_min: Duration::MAX,
            current_min: Duration::MAX,
            group_min: Duration::MAX,
            samples: 0,
            conservative: None,
        }
    }

    /// Handles an acknowledgement at `now`; the latest newly acknowledged packet was sent at `sent`.
    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, sample: Option<Duration>) -> Growth {
        if sent >= self.round_start && self.next_round(now) {
            return Growth::Exit;
        }
        if let Some(rtt) = sample {
            self.current_min = self.current_min.min(rtt);
            self.group_min = self.group_min.min(rtt);
            self.samples += 1;
            if self.samples == N_RTT_SAMPLE {
                self.judge();
                (self.samples, self.group_min) = (0, Duration::MAX);
            }
        }
        if self.conservative.is_some() { Growth::Conservative } else { Growth::Standard }
    }

    /// Starts the next round; true if conservative slow start has lasted long enough.
    fn next_round(&mut self, now: Instant) -> bool {
        self.round_start = now;
        self.last_min = self.current_min;
        self.current_min = Duration::MAX;
        (self.samples, self.group_min) = (0, Duration::MAX);
        match &mut self.conservative {
            Some(css) => {
                css.rounds += 1;
                css.rounds >= CSS_ROUNDS
            }
            None => false,
        }
    }

    fn judge(&mut self) {
        match self.conservative {
            Some(css) if self.group_min < css.baseline => self.conservative = None,
            Some(_) => {}
            None if self.last_min != Duration::MAX => {
                let threshold = (self.last_min / 8).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if self.group_min >= self.last_min + threshold {
                    self.conservative = Some(Conservative { baseline: self.group_min, rounds: 0 });
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One round of ten acknowledgements with `rtt`; returns the last result.
    fn round(h: &mut HyStart, now: &mut Instant, rtt: Duration) -> Growth {
        let mut last = Growth::Standard;
        let sent = *now;
        *now += rtt;
        for _ in 0..10 {
            last = h.on_ack(*now, sent, Some(rtt));
            if last == Growth::Exit {
                break;
            }
        }
        *now += Duration::from_nanos(1);
        last
    }

    #[test]
    fn steady_delay_never_leaves() {
        let (mut h, mut now) = (HyStart::new(), Instant::ZERO);
        for i in 0..50 {
            assert_eq!(round(&mut h, &mut now, 40 * MS + (i % 3) * MS), Growth::Standard);
        }
    }

    #[test]
    fn growing_delay_leaves_after_five_conservative_rounds() {
        let (mut h, mut now) = (HyStart::new(), Instant::ZERO);
        round(&mut h, &mut now, 40 * MS);
        assert_eq!(round(&mut h, &mut now, 45 * MS), Growth::Conservative, "threshold is 40 ms / 8 = 5 ms");
        for _ in 0..4 {
            assert_eq!(round(&mut h, &mut now, 45 * MS), Growth::Conservative);
        }
        assert_eq!(round(&mut h, &mut now, 45 * MS), Growth::Exit);
    }

    #[test]
    fn a_drop_below_the_baseline_resumes_slow_start() {
        let (mut h, mut now) = (HyStart::new(), Instant::ZERO);
        round(&mut h, &mut now, 40 * MS);
        assert_eq!(round(&mut h, &mut now, 50 * MS), Growth::Conservative);
        assert_eq!(round(&mut h, &mut now, 41 * MS), Growth::Standard);
    }

    #[test]
    fn the_threshold_is_clamped() {
        let (mut h, mut now) = (HyStart::new(), Instant::ZERO);
        round(&mut h, &mut now, Duration::from_micros(10));
        assert_eq!(round(&mut h, &mut now, 3 * MS), Growth::Standard, "less than 4 ms more");
        assert_eq!(round(&mut h, &mut now, 7 * MS), Growth::Conservative);
        let (mut h, mut now) = (HyStart::new(), Instant::ZERO);
        round(&mut h, &mut now, 400 * MS);
        assert_eq!(round(&mut h, &mut now, 416 * MS), Growth::Conservative, "16 ms are enough");
    }

    #[test]
    fn a_queue_that_grows_within_a_round_is_noticed_in_that_round() {
        let (mut h, mut now) = (HyStart::new(), Instant::ZERO);
        round(&mut h, &mut now, 40 * MS);
        let sent = now;
        now += 40 * MS;
        let seen = (0..24).map(|i| h.on_ack(now, sent, Some(40 * MS + i / 4 * MS)));
        let growth: Vec<_> = seen.collect();
        assert_eq!(growth[22], Growth::Standard);
        assert_eq!(growth[23], Growth::Standard, "44 to 45 ms: less than 5 ms more");
        for _ in 0..7 {
            assert_eq!(h.on_ack(now, sent, Some(45 * MS)), Growth::Standard);
        }
        assert_eq!(h.on_ack(now, sent, Some(45 * MS)), Growth::Conservative);
    }

    #[test]
    fn few_samples_prove_nothing() {
        let mut h = HyStart::new();
        let mut now = Instant::ZERO;
        round(&mut h, &mut now, 40 * MS);
        let sent = now;
        now += 90 * MS;
        for _ in 0..7 {
            assert_eq!(h.on_ack(now, sent, Some(90 * MS)), Growth::Standard);
        }
        assert_eq!(h.on_ack(now, sent, Some(90 * MS)), Growth::Conservative);
    }
}
