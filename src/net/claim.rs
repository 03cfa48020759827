//! Duplicate address detection, announcement and defence of our addresses.
//!
//! IPv4 uses ARP (RFC 5227), IPv6 neighbour discovery (RFC 4862 §5.4, RFC 4861 §7.2.6, RFC 4429). This module decides
//! what to send and when; [`Net`](super::Net) sends it.

use std::net::IpAddr;

use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::net::config::Detect;

/// Intervals of RFC 5227 §1.1. IPv6 uses one second for all of them (RFC 4861 §10).
const SECOND: Duration = Duration::from_secs(1);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// The time within which an answer arrives, if there is one.
const ANSWER_TIME: Duration = Duration::from_millis(100);
/// For how long solicitations wait for the end of detection.
const MOMENT: Duration = Duration::from_millis(20);
/// Number of probes before an IPv4 address is used (RFC 5227 §1.1), and before an IPv6 address is (RFC 4862 §5.1).
const PROBES_V4: u8 = 3;
const PROBES_V6: u8 = 1;
/// Number of announcements after each link-up (RFC 5227 §1.1).
const ANNOUNCEMENTS: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The link is down, or there is nothing left to send.
    Idle,
    /// This many probes are left.
    Probing { left: u8 },
    /// This many announcements are left.
    Announcing { left: u8 },
}

#[derive(Clone, Debug)]
struct Claim {
    addr: IpAddr,
    phase: Phase,
    /// The time of the next step.
    next: Instant,
    /// Nobody claimed it during detection: from now on it is defended rather than given up.
    held: bool,
    defended: Option<Instant>,
}

/// An action to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Probe for the address.
    Probe(IpAddr),
    /// Start to use the address: nobody else has it.
    Take(IpAddr),
    /// Announce the address.
    Announce(IpAddr),
}

/// How another station claims one of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// It uses the address.
    Uses,
    /// It probes for the address.
    Probes,
}

/// The consequence of another station's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None: the address is not ours, was defended recently, or the probe is answered like any request.
    None,
    /// The address is defended, and the conflict is reported.
    Defend,
    /// The address is lost.
    Lost,
}

/// Who announces, checks and defends our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// This core.
    Ours,
    /// Core 0, which tells this one what it has found out.
    First,
    /// Nobody announces or checks them; core 0 defends them.
    Nobody,
}

#[derive(Clone, Debug)]
pub(super) struct Claims {
    claims: Vec<Claim>,
    detect: Detect,
    voice: Voice,
    link_up: bool,
    rng: Rng,
    deadline: Instant,
}

impl Claims {
    pub(super) fn new(addrs: impl Iterator<Item = IpAddr>, detect: Detect, voice: Voice, seed: u64) -> Self {
        let mut this = Self {
            claims: Vec::new(),
            detect,
            voice,
            link_up: false,
            rng: Rng::from_u64(seed),
            deadline: Instant::MAX,
        };
        addrs.for_each(|addr| this.claims.push(this.claim(addr)));
        this
    }

    fn claim(&self, addr: IpAddr) -> Claim {
        let held = self.voice == Voice::Nobody || self.detect == Detect::Off;
        Claim { addr, phase: Phase::Idle, next: Instant::MAX, held, defended: None }
    }

    /// Returns whether this core announces and defends our addresses.
    pub(super) fn speak(&self) -> bool {
        self.voice == Voice::Ours
    }

    /// Returns whether addresses are used only once they are known to be free.
    pub(super) fn are_strict(&self) -> bool {
        self.voice != Voice::Nobody && self.detect == Detect::Strict
    }

    /// Returns whether `addr` is ours or will be.
    pub(super) fn has(&self, addr: IpAddr) -> bool {
        self.claims.iter().any(|claim| claim.addr == addr)
    }

    /// Returns whether detection for `addr` has finished without a conflict.
    pub(super) fn is_held(&self, addr: IpAddr) -> bool {
        self.claims.iter().any(|claim| claim.addr == addr && claim.held)
    }

    /// Records that detection for `addr` has finished without a conflict. Returns whether it was in progress.
    pub(super) fn hold(&mut self, addr: IpAddr) -> bool {
        let claim = self.claims.iter_mut().find(|claim| claim.addr == addr && !claim.held);
        claim.map(|claim| claim.held = true).is_some()
    }

    /// Returns whether no detection is in progress that usage waits for.
    pub(super) fn are_settled(&self) -> bool {
        !self.are_strict() || self.claims.iter().all(|claim| claim.held)
    }

    /// When detection of an IPv6 address that is already in use ends, if that is about to happen. Solicitations should
    /// wait for it: they then have our link-layer address (RFC 4429 §3.2), without which Linux does not answer.
    #[cold]
    pub(super) fn settle_soon(&self, now: Instant) -> Option<Instant> {
        let ends = |claim: &&Claim| claim.addr.is_ipv6() && !claim.held && claim.phase == (Phase::Probing { left: 0 });
        let soon = |at: &Instant| (now..=now + MOMENT).contains(at);
        let optimistic = self.detect == Detect::Optimistic;
        self.claims.iter().filter(|claim| optimistic && ends(claim)).map(|claim| claim.next).find(soon)
    }

    /// The time at which [`Claims::due`] next has work to do.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Notes that the link is up, and restarts detection and announcements.
    pub(super) fn link_up(&mut self, now: Instant) {
        self.link_up = true;
        for i in 0..self.claims.len() {
            self.start(now, i);
        }
    }

    /// Notes that the link is down. If it comes and goes with each peer, as on a memif server's port, it may never be
    /// up for the whole detection period. So an address that was in use for long enough to be answered counts as ours,
    /// and a peer that claims it later does not stop a server. Returns the addresses to which that happened.
    pub(super) fn link_down(&mut self, now: Instant) -> Vec<IpAddr> {
        self.link_up = false;
        let mut held = Vec::new();
        for claim in &mut self.claims {
            let asked = self.detect == Detect::Optimistic && claim.phase == (Phase::Probing { left: 0 });
            if !claim.held && asked && now + SECOND >= claim.next + ANSWER_TIME {
                claim.held = true;
                held.push(claim.addr);
            }
            (claim.phase, claim.next) = (Phase::Idle, Instant::MAX);
        }
        held
    }

    /// Adds an address.
    pub(super) fn add(&mut self, now: Instant, addr: IpAddr) {
        self.claims.push(self.claim(addr));
        if self.link_up {
            self.start(now, self.claims.len() - 1);
        }
    }

    pub(super) fn remove(&mut self, addr: IpAddr) {
        self.claims.retain(|claim| claim.addr != addr);
    }

    fn start(&mut self, now: Instant, i: usize) {
        if !self.speak() {
            return;
        }
        let claim = &mut self.claims[i];
        let (phase, wait) = match self.detect {
            Detect::Off => (Phase::Announcing { left: ANNOUNCEMENTS }, Duration::ZERO),
            // A random delay keeps hosts that start together from sending together (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
            Detect::Strict if !claim.held => {
                let left = if claim.addr.is_ipv4() { PROBES_V4 } else { PROBES_V6 };
                (Phase::Probing { left }, random(&mut self.rng, SECOND))
            }
            Detect::Strict | Detect::Optimistic => (Phase::Probing { left: 1 }, Duration::ZERO),
        };
        (claim.phase, claim.next) = (phase, now + wait);
        self.deadline = self.deadline.min(claim.next);
    }

    /// The next due action, or `None`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Step> {
        let strict = self.are_strict();
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.next <= now) else {
            self.deadline = self.claims.iter().map(|claim| claim.next).min().unwrap_or(Instant::MAX);
            return None;
        };
        let addr = claim.addr;
        Some(match claim.phase {
            Phase::Probing { left: 0 } => {
                claim.phase = Phase::Announcing { left: ANNOUNCEMENTS };
                claim.held = true;
                Step::Take(addr)
            }
            Phase::Probing { left } => {
                let wait = match left - 1 {
                    0 if strict && !claim.held && addr.is_ipv4() => ANNOUNCE_WAIT,
                    0 => SECOND,
                    _ => SECOND + random(&mut self.rng, SECOND),
                };
                (claim.phase, claim.next) = (Phase::Probing { left: left - 1 }, now + wait);
                Step::Probe(addr)
            }
            Phase::Announcing { left } if left > 1 => {
                (claim.phase, claim.next) = (Phase::Announcing { left: left - 1 }, now + ANNOUNCE_INTERVAL);
                Step::Announce(addr)
            }
            Phase::Announcing { .. } | Phase::Idle => {
                (claim.phase, claim.next) = (Phase::Idle, Instant::MAX);
                Step::Announce(addr)
            }
        })
    }

    /// Handles a claim to `addr` by another station. During detection, it is a conflict (RFC 5227 §2.1.1, RFC 4862
    /// §5.4.4). Afterwards the address is defended, at most once in ten seconds, and never given up: otherwise anybody
    /// who can send ARP could take a server off the network (RFC 5227 §2.4 (c)).
    pub(super) fn heard(&mut self, now: Instant, addr: IpAddr, other: Other) -> Verdict {
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.addr == addr) else { return Verdict::None };
        match other {
            _ if !claim.held => {
                self.remove(addr);
                Verdict::Lost
            }
            Other::Uses if claim.defended.is_none_or(|at| now >= at + DEFEND_INTERVAL) => {
                claim.defended = Some(now);
                Verdict::Defend
            }
            Other::Uses | Other::Probes => Verdict::None,
        }
    }
}

/// A random duration up to `most`.
fn random(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_nanos(rng.below(most.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn claims(detect: Detect) -> Claims {
        Claims::new([ip("10.0.0.1"), ip("2001:db8::1")].into_iter(), detect, Voice::Ours, 7)
    }

    /// Runs all due actions and returns them with their times in milliseconds.
    fn play(claims: &mut Claims, from: Instant) -> Vec<(u64, Step)> {
        let mut done = Vec::new();
        let mut now = from;
        while claims.deadline() != Instant::MAX {
            now = now.max(claims.deadline());
            while let Some(step) = claims.due(now) {
                done.push((now.saturating_since(from).as_millis() as u64, step));
            }
        }
        done
    }

    fn of(steps: &[(u64, Step)], addr: IpAddr) -> Vec<(u64, &'static str)> {
        let name = |step| match step {
            Step::Probe(ip) => (ip, "probe"),
            Step::Take(ip) => (ip, "take"),
            Step::Announce(ip) => (ip, "announce"),
        };
        let named = steps.iter().map(|(at, step)| (at, name(*step)));
        named.filter(|(_, (ip, _))| *ip == addr).map(|(at, (_, name))| (*at, name)).collect()
    }

    #[test]
    fn each_way_in_its_time() {
        let mut c = claims(Detect::Off);
        assert_eq!(play(&mut c, Instant::ZERO), [], "nothing as long as the link is down");
        for _ in 0..2 {
            c.link_up(Instant::ZERO);
            let steps = play(&mut c, Instant::ZERO);
            assert_eq!(of(&steps, ip("10.0.0.1")), [(0, "announce"), (2000, "announce")]);
            c.link_down(Instant::ZERO);
        }
        let mut c = claims(Detect::Optimistic);
        assert!(c.are_settled() && !c.is_held(ip("10.0.0.1")));
        for _ in 0..2 {
            c.link_up(Instant::ZERO);
            let steps = play(&mut c, Instant::ZERO);
            let want = [(0, "probe"), (1000, "take"), (1000, "announce"), (3000, "announce")];
            assert_eq!((of(&steps, ip("10.0.0.1")), of(&steps, ip("2001:db8::1"))), (want.to_vec(), want.to_vec()));
            assert!(c.is_held(ip("10.0.0.1")));
            c.link_down(Instant::ZERO);
        }
        let mut c = claims(Detect::Strict);
        c.link_up(Instant::ZERO);
        assert!(!c.are_settled());
        let steps = play(&mut c, Instant::ZERO);
        assert!(c.are_settled());
        let v4 = of(&steps, ip("10.0.0.1"));
        assert_eq!(
            v4.iter().map(|(_, name)| *name).collect::<Vec<_>>(),
            ["probe", "probe", "probe", "take", "announce", "announce"]
        );
        let gaps: Vec<_> = v4.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(v4[0].0 < 1000 && gaps[..2].iter().all(|gap| (1000..2000).contains(gap)), "{v4:?}");
        assert_eq!(gaps[2..], [2000, 0, 2000]);
        let v6 = of(&steps, ip("2001:db8::1"));
        assert_eq!(v6.iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["probe", "take", "announce", "announce"]);
        assert!(v6[1].0 - v6[0].0 == 1000);
    }

    #[test]
    fn another_core_speaks_for_all() {
        let mut c = Claims::new([ip("10.0.0.1")].into_iter(), Detect::Strict, Voice::Nobody, 7);
        c.link_up(Instant::ZERO);
        assert!(c.are_settled() && c.is_held(ip("10.0.0.1")) && play(&mut c, Instant::ZERO).is_empty());
    }

    /// For a server's port whose link comes with its clients and goes again within a second.
    #[test]
    fn short_links_are_long_enough_to_take_an_address() {
        let ms = |n| Instant::ZERO + Duration::from_millis(n);
        for (up, want) in [(50, Verdict::Lost), (150, Verdict::Defend)] {
            let mut c = claims(Detect::Optimistic);
            c.link_up(ms(0));
            while c.due(ms(0)).is_some() {}
            c.link_down(ms(up));
            c.link_up(ms(5000));
            assert_eq!(c.heard(ms(5000), ip("10.0.0.1"), Other::Uses), want, "{up} ms");
        }
        let mut c = claims(Detect::Strict);
        c.link_up(ms(0));
        while c.due(ms(5000)).is_some() {}
        c.link_down(ms(5500));
        assert!(!c.is_held(ip("10.0.0.1")), "who is strict takes the whole time");
    }

    #[test]
    fn given_up_before_and_defended_after() {
        let now = Instant::ZERO + SECOND;
        for other in [Other::Uses, Other::Probes] {
            let mut c = claims(Detect::Optimistic);
            c.link_up(Instant::ZERO);
            c.due(Instant::ZERO);
            assert_eq!(c.heard(now, ip("10.0.0.1"), other), Verdict::Lost);
            assert!(!c.has(ip("10.0.0.1")));
            assert_eq!(of(&play(&mut c, Instant::ZERO), ip("10.0.0.1")), []);
        }
        let mut c = claims(Detect::Optimistic);
        c.link_up(Instant::ZERO);
        play(&mut c, Instant::ZERO);
        let heard =
            |c: &mut Claims, secs| c.heard(Instant::ZERO + Duration::from_secs(secs), ip("10.0.0.1"), Other::Uses);
        let verdicts: Vec<_> = [100, 101, 109, 110].map(|secs| heard(&mut c, secs)).to_vec();
        assert_eq!(verdicts, [Verdict::Defend, Verdict::None, Verdict::None, Verdict::Defend]);
        assert_eq!(c.heard(now, ip("10.0.0.1"), Other::Probes), Verdict::None);
        assert_eq!(c.heard(now, ip("10.0.0.9"), Other::Uses), Verdict::None);
    }
}
