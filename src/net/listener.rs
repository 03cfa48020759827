//! Timing of multicast listener reports (RFC 3810 §6). Switches with MLD snooping forward solicitations only to where
//! they have heard reports.

use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};

/// Unsolicited reports are sent twice, as one may be lost (RFC 3810 §9.1, §9.11).
const REPEAT_WITHIN: Duration = Duration::from_secs(1);
/// The minimum time between two rounds of reports, whoever queries: an answer may be late but is never omitted.
const SPACING: Duration = Duration::from_secs(1);

/// The schedule of reports of our groups.
#[derive(Debug)]
pub(super) struct Reports {
    /// The start of the next round; [`Instant::MAX`] if none is due.
    due: Instant,
    /// The start of the last round.
    last: Option<Instant>,
    /// The index of the next address in the current round.
    next: Option<usize>,
    /// Another round follows this one.
    again: bool,
    rng: Rng,
}

impl Reports {
    pub(super) fn new(seed: u64) -> Self {
        Self { due: Instant::MAX, last: None, next: None, again: false, rng: Rng::from_u64(seed) }
    }

    /// The time at which [`Reports::next`] next has work to do.
    pub(super) fn deadline(&self) -> Instant {
        if self.next.is_some() { Instant::ZERO } else { self.due }
    }

    /// Schedules reports after a change of our groups or of the link (RFC 3810 §6.1).
    pub(super) fn tell(&mut self, now: Instant) {
        (self.due, self.again, self.next) = (now, true, None);
    }

    /// Schedules the answer to a query, within `max_delay`. It is sent at a random time, so that hosts do not answer
    /// all at once; one answer serves all queries before it (RFC 3810 §6.2).
    pub(super) fn asked(&mut self, now: Instant, max_delay: Duration) {
        let delay = Duration::from_nanos(self.rng.below(max_delay.as_nanos() as u64 + 1));
        let earliest = self.last.map_or(now, |last| last + SPACING);
        self.due = self.due.min((now + delay).max(earliest));
    }

    /// Cancels all reports: the link is down.
    pub(super) fn hush(&mut self) {
        (self.due, self.again, self.next) = (Instant::MAX, false, None);
    }

    /// The index of the next address to report, of `count`.
    pub(super) fn next(&mut self, now: Instant, count: usize) -> Option<usize> {
        if now >= self.due {
            self.last = Some(now);
            self.next = Some(0);
            self.due = Instant::MAX;
            if std::mem::take(&mut self.again) {
                self.due = now + Duration::from_nanos(1 + self.rng.below(REPEAT_WITHIN.as_nanos() as u64));
            }
        }
        let at = self.next.filter(|at| *at < count);
        self.next = at.map(|at| at + 1);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_DELAY: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// The start times of rounds, with `asks` called at each millisecond.
    fn rounds(reports: &mut Reports, until: u64, mut asks: impl FnMut(&mut Reports, u64)) -> Vec<u64> {
        let mut begun = Vec::new();
        for ms in 0..until {
            asks(reports, ms);
            let told = std::iter::from_fn(|| reports.next(at(ms), 3)).collect::<Vec<_>>();
            if !told.is_empty() {
                assert_eq!(told, [0, 1, 2]);
                begun.push(ms);
            }
        }
        begun
    }

    #[test]
    fn what_is_news_is_told_twice() {
        let mut reports = Reports::new(1);
        let begun = rounds(&mut reports, 5000, |reports, ms| {
            if ms == 100 {
                reports.tell(at(ms));
            }
        });
        assert!(matches!(begun[..], [100, again] if (101..=1101).contains(&again)), "{begun:?}");
        assert_eq!(reports.deadline(), Instant::MAX);
        reports.tell(at(6000));
        reports.hush();
        assert_eq!(reports.next(at(9000), 3), None);
    }

    #[test]
    fn queries_are_answered_in_time_and_once() {
        for seed in 0..100 {
            let mut reports = Reports::new(seed);
            let begun = rounds(&mut reports, 20_000, |reports, ms| {
                // A second query before the answer gets the same answer.
                if ms == 1000 || ms == 1001 {
                    reports.asked(at(ms), MAX_DELAY);
                }
            });
            assert!(matches!(begun[..], [when] if (1000..=11_001).contains(&when)), "{seed}: {begun:?}");
        }
    }

    #[test]
    fn a_flood_of_queries_gets_an_answer_a_second() {
        let mut reports = Reports::new(1);
        let begun = rounds(&mut reports, 10_000, |reports, ms| reports.asked(at(ms), Duration::ZERO));
        assert_eq!(begun, (0..10).map(|n| 1000 * n).collect::<Vec<_>>());
        // A query with a long delay does not postpone the answer to others.
        reports.asked(at(20_000), Duration::from_millis(5));
        reports.asked(at(20_000), Duration::from_secs(8000));
        assert!(reports.deadline() <= at(20_005));
    }
}
