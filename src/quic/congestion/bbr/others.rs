//! Whether others fill the queue of the path: a departure from draft-ietf-ccwg-bbr-06.
//!
//! The draft leaves room for others all the time, as it cannot know of them: it sends 1 % less than the bandwidth
//! (§2.5), and halves what is in flight every five seconds (§5.3.4). On a path that nobody else uses, each costs a
//! percent or two. But whoever is alone on a path has drained its own queue once it cruises. A queue that stays then, is
//! somebody else's.

use crate::base::time::Duration;

/// A queue stays if the smallest round-trip time of a round trip exceeds the minimum by more than this part of it.
const QUEUE_PART: u32 = 8;
/// The round trips of cruising after which what was in flight when it began has left the queue.
const SEEN_ROUNDS: u64 = 2;
/// The round trips of cruising after which nobody else is there if no queue stays. After ProbeRTT, others need some time
/// to fill it again.
const GONE_ROUNDS: u64 = 8;

/// Watches for a queue that stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Others {
    /// The smallest round-trip time of this round trip.
    least: Duration,
    present: bool,
}

impl Default for Others {
    fn default() -> Self {
        Self { least: Duration::MAX, present: false }
    }
}

impl Others {
    /// Whether others fill the queue.
    pub(super) fn present(&self) -> bool {
        self.present
    }

    /// A round-trip time is measured.
    pub(super) fn on_rtt(&mut self, rtt: Duration) {
        self.least = self.least.min(rtt);
    }

    /// A round trip ends, `cruising` ones after Cruise began if it is still that, when the minimum round-trip time is
    /// `min`.
    pub(super) fn end_round(&mut self, cruising: Option<u64>, min: Duration) {
        let least = std::mem::replace(&mut self.least, Duration::MAX);
        let Some(rounds) = cruising.filter(|rounds| *rounds >= SEEN_ROUNDS) else { return };
        if least == Duration::MAX {
            return;
        }
        let stays = least > min.saturating_add(min / QUEUE_PART);
        if stays || rounds >= GONE_ROUNDS {
            self.present = stays;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(80);
    const FULL: Duration = Duration::from_millis(91);

    /// A round trip with these samples.
    fn round(others: &mut Others, cruising: Option<u64>, rtts: &[Duration]) -> bool {
        for rtt in rtts {
            others.on_rtt(*rtt);
        }
        others.end_round(cruising, MIN);
        others.present()
    }

    #[test]
    fn only_a_queue_that_stays_while_it_cruises_is_that_of_others() {
        let mut o = Others::default();
        assert!(!round(&mut o, None, &[FULL]), "its own probe");
        assert!(!round(&mut o, Some(1), &[FULL]), "what it left behind");
        assert!(!round(&mut o, Some(2), &[FULL, MIN, FULL]), "a queue that comes and goes");
        assert!(!round(&mut o, Some(2), &[]), "nothing was measured");
        assert!(!round(&mut o, Some(2), &[Duration::from_millis(90)]), "an eighth");
        assert!(round(&mut o, Some(2), &[FULL, FULL]));
    }

    #[test]
    fn others_are_gone_if_no_queue_stays_for_some_time() {
        let mut o = Others::default();
        assert!(round(&mut o, Some(2), &[FULL]));
        assert!(round(&mut o, None, &[MIN]), "nobody can tell");
        assert!(round(&mut o, Some(7), &[MIN]) && round(&mut o, Some(8), &[]));
        assert!(!round(&mut o, Some(8), &[MIN]));
    }
}
