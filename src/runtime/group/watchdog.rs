//! Finds cores that are held up.

use crate::base::time::Duration;

/// When a look takes place, relative to any fixed point.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct When {
    /// Time during which the watcher ran itself: decides what is too long.
    pub(super) watched: Duration,
    /// Time on the clock, for reports.
    pub(super) real: Duration,
}

/// What to report about a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It has been in the same turn for this long.
    Stalls(Duration),
    /// It goes on after a turn that took this long.
    GoesOn(Duration),
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    beat: u64,
    /// When it was first seen in this turn.
    since: When,
    reported: bool,
}

/// Compares the number of turns that each core has begun with that of the previous look.
#[derive(Debug)]
pub(super) struct Watchdog {
    seen: Vec<Seen>,
    patience: Duration,
}

impl Watchdog {
    pub(super) fn new(cores: u8, patience: Duration) -> Self {
        Self { seen: vec![Seen::default(); usize::from(cores)], patience }
    }

    /// Looks at a core. `beat` is 0 before its first turn.
    pub(super) fn look(&mut self, now: When, core: usize, beat: u64, ended: bool) -> Option<Sign> {
        let seen = self.seen.get_mut(core)?;
        let time = now.real.saturating_sub(seen.since.real);
        if beat != seen.beat || beat == 0 || ended {
            let reported = std::mem::replace(seen, Seen { beat, since: now, reported: false }).reported;
            return reported.then_some(Sign::GoesOn(time));
        }
        let watched = now.watched.saturating_sub(seen.since.watched);
        (watched > self.patience && !std::mem::replace(&mut seen.reported, true)).then_some(Sign::Stalls(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_stays_in_its_turn_is_reported_once() {
        let ms = Duration::from_millis;
        let mut dog = Watchdog::new(2, ms(100));
        let at = |at| When { watched: ms(at), real: ms(at) };
        let mut look = |time, core, beat| dog.look(at(time), core, beat, false);
        // A core that waits for its link is not in a turn.
        assert_eq!([0, 200, 400].map(|at| look(at, 0, 0)), [None; 3]);
        assert_eq!([500, 550, 600].map(|at| look(at, 0, 7)), [None; 3]);
        assert_eq!(look(601, 0, 7), Some(Sign::Stalls(ms(101))));
        assert_eq!([700, 9000].map(|at| look(at, 0, 7)), [None; 2]);
        assert_eq!([500, 9000].map(|at| look(at, 1, at)), [None; 2]);
        assert_eq!(look(9100, 0, 8), Some(Sign::GoesOn(ms(8600))));
        assert_eq!([9200, 9300].map(|at| look(at, 0, 9)), [None; 2]);
        assert_eq!([9500, 9900].map(|time| dog.look(at(time), 0, 9, true)), [None; 2], "ended");
    }

    /// While the watcher does not run itself, cores are not suspected, but the times that it reports are real.
    #[test]
    fn a_late_watcher_suspects_nobody_and_tells_the_real_time() {
        let ms = Duration::from_millis;
        let mut dog = Watchdog::new(1, ms(100));
        let mut look = |watched, real, beat| dog.look(When { watched: ms(watched), real: ms(real) }, 0, beat, false);
        assert_eq!(look(0, 0, 7), None);
        assert_eq!(look(50, 3000, 7), None);
        assert_eq!(look(101, 3051, 7), Some(Sign::Stalls(ms(3051))));
        assert_eq!(look(150, 5000, 8), Some(Sign::GoesOn(ms(5000))));
    }
}
