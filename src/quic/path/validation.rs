//! Validation of one path (RFC 9000 §8.2): challenges that only a peer at its other end can answer.

use arrayvec::ArrayVec;

use crate::base::time::{Duration, Instant};

/// The contents of PATH_CHALLENGE and PATH_RESPONSE frames.
pub(crate) type PathData = [u8; 8];

/// Maximum number of challenges whose answers are recognised: the latest ones.
const MAX_OUTSTANDING: usize = 4;

/// Multiple of the larger probe timeout after which a path is given up (RFC 9000 §8.2.4).
const PATIENCE: u32 = 3;

/// Multiple of the path's own probe timeout before which it is not given up. Challenges sent 0, 1 and 3 of them after
/// the start can be answered by then, so that a single loss does not fail the validation.
const LEAST_PATIENCE: u32 = 6;

/// A path whose validation has begun.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    /// The latest challenges, and whether each was in a datagram of at least 1200 bytes.
    sent: ArrayVec<(PathData, bool), MAX_OUTSTANDING>,
    /// Whether a challenge is to be sent now.
    due: bool,
    /// Whether a challenge in a smaller datagram was answered.
    reached: bool,
    /// The current interval between challenges, which doubles.
    interval: Duration,
    /// When the next challenge is sent.
    next: Instant,
    /// When the path is given up.
    give_up: Instant,
    /// For how long the first challenge waits for an answer to it or to others.
    patience: Duration,
    /// Whether a challenge was sent.
    begun: bool,
}

/// What the answer to a challenge shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The peer's address. Whether the path carries datagrams of 1200 bytes is yet to be seen (RFC 9000 §8.2.3).
    Address,
    /// The path is valid.
    Path,
}

impl Validation {
    /// A validation that begins `now`, on a path with the probe timeout `pto`. `larger` is the larger one of that and
    /// the timeout of a path of which nothing is known (RFC 9000 §8.2.4).
    pub(crate) fn new(now: Instant, pto: Duration, larger: Duration) -> Self {
        let patience = (PATIENCE * larger).max(LEAST_PATIENCE * pto);
        Self {
            sent: ArrayVec::new(),
            due: true,
            reached: false,
            interval: pto,
            next: now,
            give_up: now + patience,
            patience,
            begun: false,
        }
    }

    /// The same, for a validation that begins with its first challenge, whenever that is sent.
    pub(crate) fn whenever(pto: Duration, larger: Duration) -> Self {
        Self { give_up: Instant::MAX, ..Self::new(Instant::ZERO, pto, larger) }
    }

    /// Whether a challenge is to be sent now.
    pub(crate) fn is_due(&self) -> bool {
        self.due
    }

    /// Records that a challenge with `data` was sent, in a datagram of at least 1200 bytes if `expanded`. The time until
    /// the next one doubles, as for Initial packets (RFC 9000 §8.2.1, RFC 9002 §6.2.1).
    pub(crate) fn sent(&mut self, now: Instant, data: PathData, expanded: bool) {
        if self.sent.is_full() {
            self.sent.remove(0);
        }
        self.sent.push((data, expanded));
        if !std::mem::replace(&mut self.begun, true) {
            self.give_up = now + self.patience;
        }
        self.due = false;
        self.next = now + self.interval;
        self.interval *= 2;
    }

    /// Handles a PATH_RESPONSE. `None` if it answers none of the challenges, or shows nothing new.
    pub(crate) fn on_response(&mut self, now: Instant, data: &PathData) -> Option<Proof> {
        let (_, expanded) = *self.sent.iter().find(|(sent, _)| sent == data)?;
        if expanded {
            return Some(Proof::Path);
        }
        if self.reached {
            return None;
        }
        // The size is validated in the same way, with as much patience, from now on.
        (self.reached, self.due, self.begun) = (true, true, false);
        self.give_up = now + self.patience;
        Some(Proof::Address)
    }

    /// When [`Validation::on_timeout`] has to be called.
    pub(crate) fn deadline(&self) -> Instant {
        if self.due { self.give_up } else { self.next.min(self.give_up) }
    }

    /// Handles the deadline if it has passed. True if the validation has failed.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> bool {
        self.due |= self.next <= now;
        self.give_up <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTO: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// RFC 9000 §8.2.1: no more often than Initial packets; §8.2.4: abandoned by a timer.
    #[test]
    fn challenges_become_rarer_until_the_path_is_given_up() {
        let times = |larger: Duration| {
            let mut validation = Validation::new(at(0), PTO, larger);
            let mut times = Vec::new();
            let mut now = at(0);
            loop {
                if validation.is_due() {
                    times.push(now);
                    validation.sent(now, [times.len() as u8; 8], true);
                }
                now = validation.deadline();
                if validation.on_timeout(now) {
                    return (times, now);
                }
            }
        };
        assert_eq!(times(PTO), ([0, 100, 300].map(at).to_vec(), at(600)));
        assert_eq!(times(10 * PTO), ([0, 100, 300, 700, 1500].map(at).to_vec(), at(3000)));
    }

    #[test]
    fn an_answer_to_any_recent_challenge_counts() {
        let mut validation = Validation::new(at(0), PTO, PTO);
        for n in 0..6 {
            validation.sent(at(n), [n as u8; 8], true);
        }
        assert_eq!(validation.on_response(at(9), &[9; 8]), None);
        assert_eq!(validation.on_response(at(9), &[1; 8]), None, "too old");
        assert_eq!(validation.on_response(at(9), &[2; 8]), Some(Proof::Path));
        assert_eq!(validation.on_response(at(9), &[5; 8]), Some(Proof::Path));
    }

    /// RFC 9000 §8.2.1, §8.2.3: a second validation with a datagram of 1200 bytes.
    #[test]
    fn a_small_challenge_validates_the_address_only() {
        let mut validation = Validation::new(at(0), PTO, PTO);
        validation.sent(at(0), [1; 8], false);
        assert!(!validation.is_due());
        assert_eq!(validation.on_response(at(50), &[1; 8]), Some(Proof::Address));
        assert!(validation.is_due(), "another one, at once");
        assert_eq!(validation.on_response(at(50), &[1; 8]), None, "once");
        validation.sent(at(50), [2; 8], true);
        assert_eq!(validation.on_response(at(90), &[2; 8]), Some(Proof::Path));
    }

    /// While the anti-amplification limit holds a challenge back, there is nothing to wait for but the end.
    #[test]
    fn a_challenge_that_cannot_be_sent_does_not_wait_forever() {
        let mut validation = Validation::new(at(0), PTO, PTO);
        assert_eq!(validation.deadline(), at(600));
        assert!(!validation.on_timeout(at(599)));
        assert!(validation.on_timeout(at(600)));
        let mut later = Validation::whenever(PTO, PTO);
        assert_eq!((later.deadline(), later.on_timeout(at(9000))), (Instant::MAX, false));
        later.sent(at(9000), [1; 8], true);
        assert!(!later.on_timeout(at(9599)) && later.on_timeout(at(9600)));
    }
}
