//! Path MTU discovery (DPLPMTUD, RFC 8899; RFC 9000 §14.3).
//!
//! The states of RFC 8899 §5.2 are those of [`Phase`], except Error: QUIC's base is 1200 bytes, and a path that does
//! not carry such datagrams cannot carry QUIC (RFC 9000 §14), so that connections on it time out. The base needs no
//! probes, since the handshake pads its datagrams to that size. PROBE_TIMER is loss recovery's: probes have to be
//! acknowledged, and the probe timeout detects the loss of the last one. PMTU_RAISE_TIMER is checked when something is
//! sent, so that idle connections are left alone.
//!
//! The size is reduced in two cases only, both based on packets of that size: data packets of that size are lost while
//! smaller ones arrive (`recovery::sizes`), or probes of that size are, after a router claimed a smaller limit. The
//! claim itself changes nothing (RFC 9000 §14.2.1).

use crate::base::time::{Duration, Instant};

/// The UDP payload that every path carries (RFC 9000 §14): BASE_PLPMTU and MIN_PLPMTU.
pub(crate) const MIN_MTU: u16 = 1200;

/// Number of lost probes after which a size is given up (RFC 8899 §5.1.2, MAX_PROBES).
const MAX_PROBES: u8 = 3;

/// The search ends when the bounds are this close, in bytes.
const SEARCH_GRAIN: u16 = 32;

/// Time after which a search that ended below the goal is repeated (RFC 8899 §5.1.1, PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);

/// Phase of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The handshake is not confirmed yet.
    Base,
    /// Probes are being sent.
    Searching,
    /// The search has ended. Unless the goal was reached, it is repeated at this time.
    Complete(Instant),
}

/// Finds the largest datagram that the path carries. The goal is tried first, as it is likely to work on the paths that
/// we are made for; then the search is binary.
#[derive(Clone, Debug)]
pub(crate) struct Mtu {
    phase: Phase,
    current: u16,
    /// The goal: the maximum that both ends accept.
    max: u16,
    /// The upper bound of this search.
    ceiling: u16,
    /// Size of the next probe.
    next: u16,
    /// A router's claim of a limit below `current` that is not refuted yet.
    claim: Option<u16>,
    in_flight: Option<(u64, u16)>,
    lost: u8,
    /// The largest datagram sent so far.
    largest_sent: u16,
}

impl Mtu {
    pub(super) fn new(max: u16) -> Self {
        let max = max.max(MIN_MTU);
        Self {
            phase: Phase::Base,
            current: MIN_MTU,
            max,
            ceiling: max,
            next: max,
            claim: None,
            in_flight: None,
            lost: 0,
            largest_sent: MIN_MTU,
        }
    }

    /// The largest UDP payload sent so far, in bytes.
    pub(crate) fn largest_sent(&self) -> u16 {
        self.largest_sent
    }

    /// The maximum UDP payload in use, in bytes.
    pub(crate) fn current(&self) -> u16 {
        self.current
    }

    /// Limits the size to `max`, as the peer (by its transport parameters) or our buffers accept no more.
    pub(crate) fn limit(&mut self, max: u16) {
        self.max = self.max.min(max.max(MIN_MTU));
        self.ceiling = self.ceiling.min(self.max);
        self.next = self.next.min(self.ceiling);
        self.current = self.current.min(self.ceiling);
        self.claim = self.claim.filter(|claim| *claim < self.current);
    }

    /// Starts probing, once the handshake is confirmed.
    pub(crate) fn enable(&mut self, now: Instant) {
        self.search_on(now);
    }

    /// The path is no longer in use. A probe in flight is forgotten, as its fate is not reported any more.
    pub(crate) fn leave(&mut self) {
        self.in_flight = None;
    }

    /// The path is in use from now on, and validated. The search begins unless it did before.
    pub(crate) fn arrive(&mut self, now: Instant) {
        if self.phase == Phase::Base {
            self.search_on(now);
        }
    }

    /// Size of a probe to send now.
    pub(crate) fn probe_due(&self, now: Instant) -> Option<u16> {
        match self.phase {
            _ if self.in_flight.is_some() => None,
            Phase::Base => None,
            _ if self.claim.is_some() => Some(self.current),
            Phase::Searching => Some(self.next),
            Phase::Complete(raise_at) => (now >= raise_at && self.current < self.max).then_some(self.max),
        }
    }

    /// Whether the search is in progress.
    pub(crate) fn is_searching(&self) -> bool {
        self.phase == Phase::Searching || self.in_flight.is_some()
    }

    pub(crate) fn probe_sent(&mut self, pn: u64, size: u16) {
        if let Phase::Complete(_) = self.phase
            && size > self.current
        {
            (self.phase, self.ceiling, self.next, self.lost) = (Phase::Searching, self.max, size, 0);
        }
        self.in_flight = Some((pn, size));
        self.largest_sent = self.largest_sent.max(size);
    }

    /// Handles an acknowledgement. True if it was for the probe in flight and the datagram size has grown.
    pub(crate) fn on_acked(&mut self, now: Instant, pn: u64) -> bool {
        let Some((_, size)) = self.in_flight.take_if(|(probe, _)| *probe == pn) else { return false };
        if self.claim.is_some_and(|claim| claim < size) {
            self.claim = None;
            self.lost = 0;
        }
        if size <= self.current || size > self.max {
            return false;
        }
        self.current = size;
        self.lost = 0;
        self.next = self.middle();
        self.search_on(now);
        true
    }

    /// Handles a loss. True if the datagram size has shrunk.
    pub(crate) fn on_lost(&mut self, now: Instant, pn: u64) -> bool {
        let Some((_, size)) = self.in_flight.take_if(|(probe, _)| *probe == pn) else { return false };
        let tested = if self.claim.is_some() { self.current } else { self.next };
        if size != tested {
            // Since it was sent, a router's claim or a black hole has made this probe irrelevant.
            return false;
        }
        self.lost += 1;
        if self.lost < MAX_PROBES {
            return false;
        }
        if size <= self.current {
            let claim = self.claim.unwrap_or(self.max);
            return self.fall(now, claim);
        }
        self.lost = 0;
        self.ceiling = size - 1;
        self.next = self.middle();
        self.search_on(now);
        false
    }

    /// Handles the loss of packets of the current size while smaller ones arrive. True if the datagram size has shrunk.
    ///
    /// The search starts again with the goal: if this was a mistake, the size is restored a round trip later.
    pub(crate) fn on_black_hole(&mut self, now: Instant) -> bool {
        let claim = self.claim.unwrap_or(self.max);
        self.fall(now, claim)
    }

    /// Handles a router's claim that it cannot forward UDP payloads above `claim` bytes (RFC 8899 §4.6.2). Claims below
    /// 1200 are ignored (RFC 9000 §14.2.1), as are those that do not exclude the size that is being probed (RFC 8899
    /// §3); others are verified by probes.
    pub(crate) fn on_claim(&mut self, now: Instant, claim: u16) {
        if claim < MIN_MTU || self.phase == Phase::Base {
            return;
        }
        if claim < self.current {
            if self.claim.is_none() {
                self.lost = 0;
            }
            self.claim = Some(self.claim.map_or(claim, |known| known.min(claim)));
        } else if self.phase == Phase::Searching && claim < self.next {
            (self.ceiling, self.next, self.lost) = (claim, claim, 0);
            self.search_on(now);
        }
    }

    /// Returns to the base. The search above it starts with `ceiling`, its upper bound, once the probe in flight, if
    /// any, is settled: probes are at least a round trip apart (RFC 8899 §3).
    fn fall(&mut self, now: Instant, ceiling: u16) -> bool {
        let fell = self.current > MIN_MTU;
        self.current = MIN_MTU;
        self.ceiling = ceiling.clamp(MIN_MTU, self.max);
        self.next = self.ceiling;
        (self.claim, self.lost) = (None, 0);
        self.search_on(now);
        fell
    }

    /// Continues the search if another probe is worthwhile.
    fn search_on(&mut self, now: Instant) {
        let worth = self.next > self.current
            && (self.next == self.ceiling || self.ceiling.saturating_sub(self.current) >= SEARCH_GRAIN);
        self.phase = if worth { Phase::Searching } else { Phase::Complete(now + RAISE) };
    }

    fn middle(&self) -> u16 {
        self.current + (self.ceiling.saturating_sub(self.current)).div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    /// Runs probes on a path that carries `path` bytes until nothing is due at `now`; returns how many were sent.
    fn run_at(mtu: &mut Mtu, now: Instant, path: u16) -> u32 {
        let mut pn = 0;
        while let Some(size) = mtu.probe_due(now) {
            mtu.probe_sent(pn, size);
            assert_eq!(mtu.probe_due(now), None, "one at a time");
            let before = mtu.current();
            if size <= path {
                assert_eq!(mtu.on_acked(now, pn), mtu.current() > before);
            } else {
                assert_eq!(mtu.on_lost(now, pn), mtu.current() < before);
            }
            pn += 1;
            assert!(pn < 100, "the search must terminate");
        }
        assert!(!mtu.is_searching());
        pn as u32
    }

    fn found(max: u16, path: u16) -> Mtu {
        let mut mtu = Mtu::new(max);
        mtu.enable(NOW);
        run_at(&mut mtu, NOW, path);
        mtu
    }

    #[test]
    fn a_path_that_carries_the_goal_costs_one_probe() {
        let mut mtu = Mtu::new(8972);
        assert_eq!(mtu.probe_due(NOW), None, "not before the handshake is confirmed");
        mtu.enable(NOW);
        assert_eq!(run_at(&mut mtu, NOW, 9000), 1);
        assert_eq!(mtu.current(), 8972);
        assert_eq!(run_at(&mut mtu, NOW + RAISE * 2, 9000), 0, "nothing above the goal");
    }

    #[test]
    fn the_search_ends_close_to_what_the_path_carries() {
        for path in [1200, 1201, 1350, 1452, 4000, 8971] {
            let mtu = found(8972, path);
            assert!(mtu.current() <= path && path - mtu.current() < SEARCH_GRAIN, "{path} {}", mtu.current());
        }
    }

    /// RFC 8899 §5.1.1. Until 2026-11, the size never grew again.
    #[test]
    fn a_path_that_has_become_wider_is_found_out() {
        let mut mtu = found(1472, 1300);
        let narrow = mtu.current();
        assert_eq!(run_at(&mut mtu, NOW + RAISE / 2, 1500), 0, "not yet");
        assert!(run_at(&mut mtu, NOW + RAISE, 1300) > 0);
        assert_eq!(mtu.current(), narrow, "still the same path");
        assert_eq!(run_at(&mut mtu, NOW + RAISE * 3 / 2, 1500), 0, "that search restarted the timer");
        assert_eq!(run_at(&mut mtu, NOW + RAISE * 2, 1500), 1);
        assert_eq!(mtu.current(), 1472);
    }

    #[test]
    fn after_a_black_hole_the_goal_is_tried_first() {
        let mut mtu = found(1472, 1500);
        assert!(mtu.on_black_hole(NOW));
        assert_eq!(mtu.current(), MIN_MTU);
        assert_eq!(run_at(&mut mtu, NOW, 1500), 1, "it was a mistake");
        assert_eq!(mtu.current(), 1472);
        assert!(mtu.on_black_hole(NOW));
        run_at(&mut mtu, NOW, 1300);
        assert!((1300 - SEARCH_GRAIN..=1300).contains(&mtu.current()), "{}", mtu.current());
        assert!(!Mtu::new(1472).on_black_hole(NOW), "there is nothing below the base");
    }

    /// RFC 9000 §14.2.1. Until 2026-11, a claim of 540 bytes reduced the size to 1200 permanently.
    #[test]
    fn claims_below_the_minimum_are_ignored() {
        for path in [1300, 1472] {
            let mut mtu = found(1472, path);
            let before = mtu.current();
            for claim in [0, 40, 520, 548, 1199] {
                mtu.on_claim(NOW, claim);
                assert_eq!((mtu.current(), mtu.probe_due(NOW)), (before, None), "{claim}");
            }
        }
    }

    /// RFC 8899 §4.6.2: a claim does not set the size.
    #[test]
    fn a_claim_is_found_out_by_probes() {
        let mut mtu = found(1472, 1500);
        mtu.on_claim(NOW, 1300);
        assert_eq!(mtu.current(), 1472);
        assert_eq!(run_at(&mut mtu, NOW, 1500), 1, "a false claim costs one probe");
        assert_eq!(mtu.current(), 1472);
        mtu.on_claim(NOW, 1300);
        assert_eq!(
            run_at(&mut mtu, NOW, 1300),
            u32::from(MAX_PROBES) + 1,
            "a true one costs one more than refuting a false one"
        );
        assert_eq!(mtu.current(), 1300);
        assert_eq!(run_at(&mut mtu, NOW + RAISE, 1500), 1, "it is not permanent");
        assert_eq!(mtu.current(), 1472);
        mtu.on_claim(NOW, 1250);
        assert!(mtu.on_black_hole(NOW), "data may find out before the probes");
        assert_eq!(mtu.probe_due(NOW), Some(1250));
    }

    #[test]
    fn a_claim_during_the_search_is_what_is_tried_next() {
        let mut mtu = Mtu::new(8972);
        mtu.enable(NOW);
        mtu.probe_sent(0, 8972);
        mtu.on_claim(NOW, 1372);
        mtu.on_lost(NOW, 0);
        assert_eq!(mtu.probe_due(NOW), Some(1372));
        assert_eq!(run_at(&mut mtu, NOW, 1372), 1);
        assert_eq!(mtu.current(), 1372);
        let mut mtu = Mtu::new(8972);
        mtu.on_claim(NOW, 1300);
        mtu.enable(NOW);
        assert_eq!(mtu.probe_due(NOW), Some(8972), "nothing larger than the base was sent before");
    }

    /// RFC 8899 §3, §4.6.2: PL_PTB_SIZE is below the size of the probe, or the message is ignored.
    #[test]
    fn a_claim_that_does_not_exclude_the_probed_size_is_ignored() {
        let probing = || {
            let mut mtu = Mtu::new(1472);
            mtu.enable(NOW);
            for pn in 0..u64::from(MAX_PROBES) {
                mtu.probe_sent(pn, 1472);
                mtu.on_lost(NOW, pn);
            }
            assert_eq!(mtu.probe_due(NOW), Some(1336), "halfway between 1200 and 1471");
            mtu
        };
        for claim in [1336, 1337, 1400, 1471, 1472, u16::MAX] {
            let mut mtu = probing();
            mtu.on_claim(NOW, claim);
            assert_eq!((mtu.probe_due(NOW), mtu.ceiling), (Some(1336), 1471), "{claim}");
        }
        let mut mtu = probing();
        mtu.on_claim(NOW, 1300);
        assert_eq!(mtu.probe_due(NOW), Some(1300));
        mtu.on_claim(NOW, 1320);
        assert_eq!(mtu.probe_due(NOW), Some(1300), "a later, larger one");
        mtu.on_claim(NOW, MIN_MTU);
        assert_eq!((mtu.probe_due(NOW), mtu.is_searching()), (None, false), "PL_PTB_SIZE = PLPMTU ends the search");
    }

    /// RFC 8899 §3, §8: the interval between probes is at least a round trip, whatever else is learned meanwhile.
    #[test]
    fn a_probe_in_flight_is_settled_before_the_next() {
        let mut mtu = found(1472, 1300);
        let before = mtu.current();
        mtu.probe_sent(100, mtu.probe_due(NOW + RAISE).unwrap());
        assert!(mtu.on_black_hole(NOW));
        assert_eq!(mtu.probe_due(NOW), None, "the other probe is under way");
        mtu.on_claim(NOW, 1250);
        assert_eq!(mtu.probe_due(NOW), None);
        assert!(!mtu.on_lost(NOW, 100));
        assert_eq!(mtu.probe_due(NOW), Some(1250));
        // An acknowledgement counts, even if the size was given up meanwhile.
        mtu.probe_sent(101, 1250);
        assert!(!mtu.on_black_hole(NOW), "already at the base");
        assert!(mtu.on_acked(NOW, 101));
        assert_eq!(mtu.current(), 1250);
        assert!(before > 1250);
    }

    /// RFC 8899 §3: other losses than those of the size's own probes do not count against it.
    #[test]
    fn a_size_is_given_up_after_three_of_its_own_probes() {
        let mut mtu = Mtu::new(1472);
        mtu.enable(NOW);
        for pn in 0..u64::from(MAX_PROBES) {
            assert_eq!(mtu.probe_due(NOW), Some(1472), "{pn} probes are lost");
            mtu.probe_sent(pn, 1472);
            // Neither packets that are no probes, nor probes of before.
            for other in [pn + 50, pn.wrapping_sub(1)] {
                assert!(!mtu.on_lost(NOW, other) && !mtu.on_acked(NOW, other));
            }
            mtu.on_lost(NOW, pn);
            mtu.on_lost(NOW, pn);
        }
        assert_eq!(mtu.probe_due(NOW), Some(1336));
        // Acknowledged after it was declared lost: the probe is forgotten.
        assert!(!mtu.on_acked(NOW, 2));
        assert_eq!(mtu.current(), MIN_MTU);
    }

    #[test]
    fn a_claim_that_the_peers_limit_settles_is_forgotten() {
        let mut mtu = found(1472, 1500);
        mtu.on_claim(NOW, 1300);
        mtu.limit(1250);
        assert_eq!((mtu.current(), mtu.probe_due(NOW)), (1250, None));
    }

    #[test]
    fn the_peers_limit_is_for_good() {
        let mut mtu = found(8972, 9000);
        mtu.limit(1452);
        assert_eq!((mtu.current(), run_at(&mut mtu, NOW + RAISE, 9000)), (1452, 0));
        assert!(mtu.on_black_hole(NOW));
        run_at(&mut mtu, NOW, 9000);
        assert_eq!(mtu.current(), 1452);
    }
}
