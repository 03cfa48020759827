//! Finds cores that are held up.

use crate::base::time::Duration;

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
    since: Duration,
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

    /// Looks at a core at the time `now`, relative to any fixed point. `beat` is 0 before its first turn.
    pub(super) fn look(&mut self, now: Duration, core: usize, beat: u64, ended: bool) -> Option<Sign> {
        let seen = self.seen.get_mut(core)?;
        let time = now.saturating_sub(seen.since);
        if beat != seen.beat || beat == 0 || ended {
            let reported = std::mem::replace(seen, Seen { beat, since: now, reported: false }).reported;
            return reported.then_some(Sign::GoesOn(time));
        }
        (time > self.patience && !std::mem::replace(&mut seen.reported, true)).then_some(Sign::Stalls(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_stays_in_its_turn_is_reported_once() {
        let ms = Duration::from_millis;
        let mut dog = Watchdog::new(2, ms(100));
        let mut look = |at, core, beat| dog.look(ms(at), core, beat, false);
        // A core that waits for its link is not in a turn.
        assert_eq!([0, 200, 400].map(|at| look(at, 0, 0)), [None; 3]);
        assert_eq!([500, 550, 600].map(|at| look(at, 0, 7)), [None; 3]);
        assert_eq!(look(601, 0, 7), Some(Sign::Stalls(ms(101))));
        assert_eq!([700, 9000].map(|at| look(at, 0, 7)), [None; 2]);
        assert_eq!([500, 9000].map(|at| look(at, 1, at)), [None; 2]);
        assert_eq!(look(9100, 0, 8), Some(Sign::GoesOn(ms(8600))));
        assert_eq!([9200, 9300].map(|at| look(at, 0, 9)), [None; 2]);
        assert_eq!([9500, 9900].map(|at| dog.look(ms(at), 0, 9, true)), [None; 2], "ended");
    }
}
