//! HyStart++: leaves the first slow start when the delay grows, before packets are lost (RFC 9406 §4.2).
//!
//! Rounds are delimited by time: a round ends with the first acknowledgement of a packet sent after it began.
//!
//! There are three differences, all of which make use of packets that are paced evenly, so that a queue shows in the
//! delay of each of them:
//!
//! - The delay is judged by the minimum of each group of [`N_RTT_SAMPLE`] samples, not by that of all samples of the
//!   round so far. A queue that the round itself has built shows at its end; its first samples, which are the smallest,
//!   were taken before. With the minimum of the round, the queue would be noticed a round later, when the window has
//!   doubled once more.
//! - Half of the growth of the delay is enough, and a quarter of the least growth.
//! - The packets that show the queue were sent a round trip ago, when the window was half as large, and filled the path
//!   nevertheless. The window goes back to that, plus three eighths, and grows slowly from there. RFC 9406 keeps the window,
//!   which is twice what the path needs by then: a queue that holds less than a round trip overflows. If the delay turns
//!   out to have grown for another reason, the window is restored.

use crate::base::time::{Duration, Instant};
use crate::quic::congestion::Acked;

const MIN_RTT_THRESH: Duration = Duration::from_millis(1);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 16;
const N_RTT_SAMPLE: u32 = 8;
/// In conservative slow start, the window grows by this fraction of the acknowledged bytes.
const CSS_GROWTH_DIVISOR: u64 = 32;
const CSS_ROUNDS: u32 = 5;

/// State of conservative slow start, which finds out whether the delay persists.
#[derive(Clone, Copy, Debug)]
struct Conservative {
    baseline: Duration,
    rounds: u32,
    /// The window before, in bytes.
    window: u64,
}

/// What an acknowledgement makes of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrownWindow {
    /// Its size in bytes.
    pub(super) window: u64,
    /// Whether slow start is over: the threshold becomes the window.
    pub(super) over: bool,
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

    /// Handles an acknowledgement with a window of `window` bytes, which is at least `least`.
    pub(super) fn on_ack(&mut self, ack: &Acked, mut window: u64, least: u64) -> GrownWindow {
        if ack.sent >= self.round_start && self.next_round(ack.now) {
            return GrownWindow { window, over: true };
        }
        if let Some(rtt) = ack.sample {
            self.current_min = self.current_min.min(rtt);
            self.group_min = self.group_min.min(rtt);
            self.samples += 1;
            if self.samples == N_RTT_SAMPLE {
                window = self.judge(window).max(least);
                (self.samples, self.group_min) = (0, Duration::MAX);
            }
        }
        let growth = if self.conservative.is_some() { ack.bytes / CSS_GROWTH_DIVISOR } else { ack.bytes };
        GrownWindow { window: window + growth, over: false }
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

    /// Judges a group of samples; returns what becomes of a window of `window` bytes.
    fn judge(&mut self, window: u64) -> u64 {
        match self.conservative {
            Some(css) if self.group_min < css.baseline => {
                self.conservative = None;
                window.max(css.window)
            }
            Some(_) => window,
            None if self.last_min != Duration::MAX => {
                let threshold = (self.last_min / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if self.group_min < self.last_min + threshold {
                    return window;
                }
                self.conservative = Some(Conservative { baseline: self.group_min, rounds: 0, window });
                window / 16 * 11
            }
            None => window,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LEAST: u64 = 12_000;

    /// A slow start with an even flow of acknowledgements.
    struct Start {
        hystart: HyStart,
        now: Instant,
        window: u64,
    }

    impl Start {
        fn new() -> Self {
            Self { hystart: HyStart::new(), now: Instant::ZERO, window: LEAST }
        }

        /// An acknowledgement of `bytes` of a packet sent at `sent`; whether slow start is over.
        fn ack(&mut self, sent: Instant, rtt: Duration, bytes: u64) -> bool {
            let (now, sample, prior_in_flight) = (self.now, Some(rtt), self.window);
            let ack = Acked { now, bytes, sent, prior_in_flight, srtt: rtt, sample };
            let grown = self.hystart.on_ack(&ack, self.window, LEAST);
            self.window = grown.window;
            grown.over
        }

        /// One round of 16 acknowledgements, which together acknowledge the window; returns the factor by which it grew,
        /// or `None` if slow start is over.
        fn round(&mut self, rtt: Duration) -> Option<f64> {
            let (sent, before) = (self.now, self.window);
            self.now += rtt;
            for _ in 0..16 {
                if self.ack(sent, rtt, before / 16) {
                    return None;
                }
            }
            self.now += Duration::from_nanos(1);
            Some(self.window as f64 / before as f64)
        }

        fn conservative(&self) -> bool {
            self.hystart.conservative.is_some()
        }
    }

    #[test]
    fn steady_delay_never_leaves() {
        let mut start = Start::new();
        for i in 0..30 {
            assert_eq!(start.round(40 * MS + (i % 3) * MS), Some(2.0));
        }
    }

    #[test]
    fn growing_delay_leaves_after_five_conservative_rounds() {
        let mut start = Start::new();
        for _ in 0..10 {
            start.round(40 * MS);
        }
        let full = start.window;
        let tenth = 40 * MS + Duration::from_micros(2500);
        start.round(tenth);
        assert!(start.conservative(), "the threshold is 40 ms / 16");
        // 7 of 16 parts of the round had been acknowledged when the queue was found; 11/16 of that remain. The
        // other parts let the window grow by a 32nd.
        let found = start.window as f64 / full as f64;
        let expected = (1.0 + 7.0 / 16.0) * 11.0 / 16.0 + 9.0 / 16.0 / 32.0;
        assert!((found - expected).abs() < 1e-3, "{found}");
        for _ in 0..4 {
            let growth = start.round(45 * MS).expect("five rounds");
            assert!((growth - (1.0 + 1.0 / 32.0)).abs() < 1e-3, "{growth}");
        }
        assert_eq!(start.round(45 * MS), None);
    }

    #[test]
    fn a_delay_that_does_not_last_costs_nothing() {
        let mut start = Start::new();
        for _ in 0..5 {
            start.round(40 * MS);
        }
        start.round(50 * MS);
        assert!(start.conservative());
        let found = start.hystart.conservative.map(|css| css.window);
        let before = start.window;
        start.round(41 * MS);
        assert!(!start.conservative());
        // It is restored by the first group of eight; the other eight, and the last of the group, let it grow.
        assert_eq!(Some(start.window), found.map(|found| found + before / 16 * 9));
    }

    #[test]
    fn the_threshold_is_clamped() {
        let conservative = |usual, then| {
            let mut start = Start::new();
            start.round(usual);
            start.round(then);
            start.conservative()
        };
        assert!(!conservative(Duration::from_micros(10), MS), "less than 1 ms more");
        assert!(conservative(Duration::from_micros(10), 2 * MS));
        assert!(!conservative(400 * MS, 415 * MS));
        assert!(conservative(400 * MS, 416 * MS), "16 ms are enough");
    }

    #[test]
    fn a_queue_that_grows_within_a_round_is_noticed_in_that_round() {
        let mut start = Start::new();
        start.round(40 * MS);
        let sent = start.now;
        start.now += 40 * MS;
        for i in 0..24 {
            start.ack(sent, 40 * MS + i / 8 * MS, 1200);
        }
        assert!(!start.conservative(), "42 ms: less than 2.5 ms more");
        for _ in 0..8 {
            assert!(!start.conservative(), "a group of eight");
            start.ack(sent, 43 * MS, 1200);
        }
        assert!(start.conservative());
    }

    #[test]
    fn the_window_is_at_least_what_the_caller_says() {
        let mut start = Start::new();
        start.round(40 * MS);
        start.window = LEAST;
        start.round(80 * MS);
        assert!(start.conservative());
        assert!(start.window >= LEAST);
    }

    #[test]
    fn few_samples_prove_nothing() {
        let mut start = Start::new();
        start.round(40 * MS);
        let sent = start.now;
        start.now += 90 * MS;
        for _ in 0..7 {
            start.ack(sent, 90 * MS, 1200);
        }
        assert!(!start.conservative());
        start.ack(sent, 90 * MS, 1200);
        assert!(start.conservative());
    }
}
