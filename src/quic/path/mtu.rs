//! The largest datagram that a path carries (DPLPMTUD, RFC 8899; RFC 9000 §14.3).
//!
//! The states of RFC 8899 §5.2 are those of [`Phase`], but for one: there is no Error. QUIC has no datagrams below its base
//! of 1200 bytes to fall back to, and a path that does not carry those carries no QUIC (RFC 9000 §14): a connection on it
//! ends by its timeouts. The base needs no probes of its own either, since the handshake pads its datagrams to it.
//! PROBE_TIMER is loss recovery's: a probe has to be acknowledged, and the probe timeout finds out about the last one.
//! PMTU_RAISE_TIMER is looked at when something is sent, so that idle connections are left alone.
//!
//! A size falls for one of two reasons only, and both are about packets of that size: those with data vanish while smaller
//! ones get through (`recovery::sizes`), or probes of that size do, after a router has claimed less. The claim itself
//! changes nothing (RFC 9000 §14.2.1).

use crate::base::time::{Duration, Instant};

/// Every path carries UDP payloads of this size (RFC 9000 §14): BASE_PLPMTU and MIN_PLPMTU.
pub(crate) const MIN_MTU: u16 = 1200;

/// Probes of one size that may be lost before the size is given up (RFC 8899 §5.1.2, MAX_PROBES).
const MAX_PROBES: u8 = 3;

/// The search ends when the bounds are this close, in bytes.
const SEARCH_GRAIN: u16 = 32;

/// After a search that ended below the goal, the next one comes so much later (RFC 8899 §5.1.1, PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);

/// How far the search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The handshake is not confirmed yet.
    Base,
    /// Probes go out.
    Searching,
    /// Found. Unless it is the goal, the search begins again at this time.
    Complete(Instant),
}

/// Finds the largest datagram that the path carries: the goal first, as a path that we are meant for carries it, then by
/// halves.
#[derive(Debug)]
pub(crate) struct Mtu {
    phase: Phase,
    current: u16,
    /// The goal: neither we nor the peer take more.
    max: u16,
    /// Nothing above is worth a probe in this search.
    ceiling: u16,
    /// The size of the search's next probe.
    next: u16,
    /// What a router claims to be the most, if it is below `current` and not refuted yet.
    claim: Option<u16>,
    in_flight: Option<(u64, u16)>,
    lost: u8,
    /// The largest datagram that was sent at all.
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

    /// The largest UDP payload that was ever sent, in bytes.
    pub(crate) fn largest_sent(&self) -> u16 {
        self.largest_sent
    }

    /// Largest UDP payload to send, in bytes.
    pub(crate) fn current(&self) -> u16 {
        self.current
    }

    /// The peer (its transport parameters) or our own buffers take no more than `max`.
    pub(crate) fn limit(&mut self, max: u16) {
        self.max = self.max.min(max.max(MIN_MTU));
        self.ceiling = self.ceiling.min(self.max);
        self.next = self.next.min(self.ceiling);
        self.current = self.current.min(self.ceiling);
    }

    /// Probing may start: the handshake is confirmed.
    pub(crate) fn enable(&mut self, now: Instant) {
        self.search_on(now);
    }

    /// Size of a probe to be sent now.
    pub(crate) fn probe_due(&self, now: Instant) -> Option<u16> {
        match self.phase {
            _ if self.in_flight.is_some() => None,
            Phase::Base => None,
            _ if self.claim.is_some() => Some(self.current),
            Phase::Searching => Some(self.next),
            Phase::Complete(raise_at) => (now >= raise_at && self.current < self.max).then_some(self.max),
        }
    }

    /// Whether the search goes on.
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

    /// True if this was the probe in flight, and the datagram size has grown.
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

    /// True if the datagram size has shrunk.
    pub(crate) fn on_lost(&mut self, now: Instant, pn: u64) -> bool {
        let Some((_, size)) = self.in_flight.take_if(|(probe, _)| *probe == pn) else { return false };
        if size > self.ceiling {
            // A router's claim has made it pointless.
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

    /// Packets of the current size vanish while smaller ones arrive. True if the datagram size has shrunk.
    ///
    /// The search begins again with the goal: if it was a mistake, all is as before a round trip later.
    pub(crate) fn on_black_hole(&mut self, now: Instant) -> bool {
        let claim = self.claim.unwrap_or(self.max);
        self.fall(now, claim)
    }

    /// A router claims that it cannot forward UDP payloads above `claim` bytes (RFC 8899 §4.6.2). Below 1200 that is
    /// nothing to heed (RFC 9000 §14.2.1); otherwise, probes find out whether it is true.
    pub(crate) fn on_claim(&mut self, now: Instant, claim: u16) {
        if claim < MIN_MTU || self.phase == Phase::Base {
            return;
        }
        if claim < self.current {
            if self.claim.is_none() {
                self.lost = 0;
            }
            self.claim = Some(self.claim.map_or(claim, |known| known.min(claim)));
        } else if self.phase == Phase::Searching && claim < self.ceiling {
            (self.ceiling, self.next, self.lost) = (claim, claim, 0);
            self.search_on(now);
        }
    }

    /// Back to the base; what is worth trying above it is at most `ceiling`, which is tried first.
    fn fall(&mut self, now: Instant, ceiling: u16) -> bool {
        let fell = self.current > MIN_MTU;
        self.current = MIN_MTU;
        self.ceiling = ceiling.clamp(MIN_MTU, self.max);
        self.next = self.ceiling;
        (self.claim, self.in_flight, self.lost) = (None, None, 0);
        self.search_on(now);
        fell
    }

    /// Goes on if the next probe is worth it.
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

    /// Probes a path that carries `path` bytes until nothing is due at `now`; how many probes that took.
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
            assert!(pn < 100, "the search must end");
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
        assert_eq!(run_at(&mut mtu, NOW + RAISE * 2, 9000), 0, "there is nothing above");
    }

    #[test]
    fn the_search_ends_close_to_what_the_path_carries() {
        for path in [1200, 1201, 1350, 1452, 4000, 8971] {
            let mtu = found(8972, path);
            assert!(mtu.current() <= path && path - mtu.current() < SEARCH_GRAIN, "{path} {}", mtu.current());
        }
    }

    /// RFC 8899 §5.1.1. Until 2026-11 the size only ever fell.
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

    /// RFC 9000 §14.2.1. Until 2026-11, 540 bytes made it 1200 for good.
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
        assert_eq!(run_at(&mut mtu, NOW, 1500), 1, "a lie costs one probe");
        assert_eq!(mtu.current(), 1472);
        mtu.on_claim(NOW, 1300);
        assert_eq!(
            run_at(&mut mtu, NOW, 1300),
            u32::from(MAX_PROBES) + 1,
            "the truth one more than it takes to see that"
        );
        assert_eq!(mtu.current(), 1300);
        assert_eq!(run_at(&mut mtu, NOW + RAISE, 1500), 1, "it is not for ever");
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
