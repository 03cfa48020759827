//! The paths of a connection beyond the one in use, and whatever is to be sent on any of them for validation.
//!
//! It is bounded: at most [`MAX_OTHERS`] paths, of which at most one was in use before, and few answers and challenges
//! for each. A peer that comes from ever more addresses displaces its own.

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use super::{Path, PathData, Proof, Validation};
use crate::base::time::{Duration, Instant};
use crate::quic::cid::ResetToken;

/// Maximum number of paths besides the one in use.
const MAX_OTHERS: usize = 3;

/// Maximum number of PATH_RESPONSEs waiting to be sent on a path; more challenges are a flood.
pub(crate) const MAX_RESPONSES: usize = 4;

/// The least budget of an unvalidated path with which a packet is sent: a challenge, with the longest connection ID and
/// without padding, in bytes.
const LEAST_BUDGET: u64 = 64;

/// Time for which a validated path that is not in use is remembered: returning to it takes no validation (RFC 9000
/// §9.3).
const KEEP: Duration = Duration::from_secs(10);

/// Reset tokens, each with the address that may send it.
pub(crate) type Tokens = ArrayVec<(ResetToken, SocketAddr), MAX_OTHERS>;

/// Which path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The one in use.
    Active,
    /// Another one, by its index.
    Other(usize),
}

/// Why a path is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It was in use, and is validated. If the path in use fails its validation, the connection returns to it (RFC 9000
    /// §9.3.2).
    Former,
    /// The peer probes it (RFC 9000 §9.1).
    Probed,
    /// This end probes it.
    Probing,
}

/// What is to be sent on a path.
#[derive(Clone, Debug, Default)]
struct Work {
    validation: Option<Validation>,
    responses: ArrayVec<PathData, MAX_RESPONSES>,
}

impl Work {
    fn is_due(&self) -> bool {
        !self.responses.is_empty() || self.validation.as_ref().is_some_and(Validation::is_due)
    }

    fn is_idle(&self) -> bool {
        self.responses.is_empty() && self.validation.is_none()
    }

    fn deadline(&self) -> Option<Instant> {
        self.validation.as_ref().map(Validation::deadline)
    }

    /// True if the validation has failed, and is over.
    fn on_timeout(&mut self, now: Instant) -> bool {
        self.validation.take_if(|validation| validation.on_timeout(now)).is_some()
    }

    /// Whether `data` answers a challenge. Ends the validation if it has succeeded.
    fn on_response(&mut self, now: Instant, data: &PathData) -> Option<Proof> {
        let proof = self.validation.as_mut()?.on_response(now, data)?;
        if proof == Proof::Path {
            self.validation = None;
        }
        Some(proof)
    }
}

/// A path that is not in use.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) path: Path,
    /// Sequence number of the peer's ID that is used on it. Without one, nothing can be sent.
    pub(crate) cid: Option<u64>,
    pub(crate) role: Role,
    /// Whether the connection moves there as soon as the path is validated.
    pub(crate) go: bool,
    /// Whether its validation has succeeded.
    pub(crate) valid: bool,
    /// When it is forgotten.
    until: Instant,
    work: Work,
}

impl Other {
    pub(crate) fn new(path: Path, cid: Option<u64>, role: Role) -> Self {
        Self { path, cid, role, go: false, valid: false, until: Instant::MAX, work: Work::default() }
    }

    fn can_send(&self) -> bool {
        self.cid.is_some() && self.path.budget() >= LEAST_BUDGET
    }
}

/// A datagram to send on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) place: Place,
    /// Challenges to answer.
    pub(crate) responses: ArrayVec<PathData, MAX_RESPONSES>,
    /// Whether a challenge is to be sent.
    pub(crate) challenge: bool,
}

/// What has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The validation of a path, without success.
    Validation(Place),
    /// The time for which the path with this index is remembered.
    Time(usize),
}

/// The paths of a connection beyond the one in use, and validation of all.
#[derive(Debug)]
pub(crate) struct Paths {
    active: Work,
    others: ArrayVec<Other, MAX_OTHERS>,
    /// The peer's address at which the connection is registered with the endpoint.
    pub(crate) announced: SocketAddr,
    /// The reset tokens of IDs on other paths that are registered there.
    pub(crate) told: Tokens,
    /// The peer's address when the connection began.
    pub(crate) first: SocketAddr,
    /// The server's preferred address, to which the client moves once the handshake is confirmed (RFC 9000 §9.6).
    pub(crate) offered: Option<SocketAddr>,
}

impl Paths {
    /// Those of a connection with a peer at `remote`.
    pub(crate) fn new(remote: SocketAddr) -> Self {
        Self {
            active: Work::default(),
            others: ArrayVec::new(),
            announced: remote,
            told: Tokens::new(),
            first: remote,
            offered: None,
        }
    }

    /// Whether nothing is left to do or to remember.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_idle() && self.others.is_empty() && self.offered.is_none()
    }

    /// The reset tokens of the IDs on other paths, with the peer's address on each; `token` tells the one of an ID.
    pub(crate) fn tokens(&self, token: impl Fn(u64) -> Option<ResetToken>) -> Tokens {
        self.others.iter().filter_map(|other| Some((token(other.cid?)?, other.path.remote))).collect()
    }

    /// The path between these addresses.
    pub(crate) fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        self.others.iter().position(|other| other.path.is_between(local, remote))
    }

    pub(crate) fn others(&self) -> &[Other] {
        &self.others
    }

    pub(crate) fn other(&mut self, index: usize) -> Option<&mut Other> {
        self.others.get_mut(index)
    }

    /// The path that was in use before.
    pub(crate) fn former(&self) -> Option<usize> {
        self.others.iter().position(|other| other.role == Role::Former)
    }

    /// Adds a path, which has a role other than [`Role::Former`]. If there are too many, it takes the place of the oldest
    /// one that the peer probes. Returns its index, unless none makes room, and the path that is forgotten, if any.
    pub(crate) fn add(&mut self, other: Other) -> (Option<usize>, Option<Other>) {
        let mut displaced = None;
        if self.others.is_full() {
            match self.others.iter().position(|other| other.role == Role::Probed) {
                Some(oldest) => displaced = Some(self.others.remove(oldest)),
                None => return (None, Some(other)),
            }
        }
        self.others.push(other);
        (Some(self.others.len() - 1), displaced)
    }

    /// Removes a path.
    pub(crate) fn remove(&mut self, index: usize) -> Option<Other> {
        (index < self.others.len()).then(|| self.others.remove(index))
    }

    /// Uses the path `index` from now on instead of `active`, which takes its place if it is validated and is forgotten
    /// otherwise. `cid` is the ID used on it so far. Returns the path that is forgotten, if any: at most one that was in
    /// use before is remembered.
    pub(crate) fn move_to(&mut self, index: usize, active: &mut Path, cid: u64) -> Option<Other> {
        let mut to = self.others.remove(index);
        if to.valid {
            // Whatever was being asked there, the connection may rely on it.
            to.work.validation = None;
        }
        self.others.iter_mut().for_each(|other| other.go = false);
        let left = std::mem::replace(active, to.path);
        let work = std::mem::replace(&mut self.active, to.work);
        let mut from = Other::new(left, Some(cid), Role::Former);
        if !from.path.is_validated() {
            return Some(from);
        }
        // Its answers are still owed; a validation of its own is of no use any more.
        from.work.responses = work.responses;
        from.valid = true;
        let displaced = self.former().and_then(|index| self.remove(index));
        // One place has become free.
        self.others.push(from);
        displaced
    }

    /// From now on, the time counts for which validated paths that are not in use are remembered. Those to `original` are
    /// kept longer: a server sends from its original address until it has validated its client at the preferred one (RFC
    /// 9000 §9.6.2).
    pub(crate) fn keep_from(&mut self, now: Instant, original: Option<SocketAddr>) {
        let others = self.others.iter_mut().filter(|other| other.valid && other.until == Instant::MAX);
        for other in others.filter(|other| Some(other.path.remote) != original) {
            other.until = now + KEEP;
        }
    }

    fn work(&mut self, place: Place) -> Option<&mut Work> {
        match place {
            Place::Active => Some(&mut self.active),
            Place::Other(index) => self.others.get_mut(index).map(|other| &mut other.work),
        }
    }

    /// Begins the validation of a path, unless it is being validated.
    pub(crate) fn validate(&mut self, place: Place, validation: impl FnOnce() -> Validation) {
        if let Some(work) = self.work(place) {
            work.validation.get_or_insert_with(validation);
        }
    }

    /// Whether a path is being validated.
    pub(crate) fn is_validating(&self, place: Place) -> bool {
        let work = match place {
            Place::Active => Some(&self.active),
            Place::Other(index) => self.others.get(index).map(|other| &other.work),
        };
        work.is_some_and(|work| work.validation.is_some())
    }

    /// Handles a PATH_CHALLENGE that came by a path: it is answered there (RFC 9000 §8.2.2).
    pub(crate) fn on_challenge(&mut self, place: Place, data: PathData) {
        if let Some(work) = self.work(place) {
            let _ = work.responses.try_push(data);
        }
    }

    /// Handles a PATH_RESPONSE, whichever path it came by (RFC 9000 §8.2.3). Returns the path that it validates.
    pub(crate) fn on_response(&mut self, now: Instant, data: &PathData) -> Option<(Place, Proof)> {
        if let Some(proof) = self.active.on_response(now, data) {
            return Some((Place::Active, proof));
        }
        self.others.iter_mut().enumerate().find_map(|(index, other)| {
            let proof = other.work.on_response(now, data)?;
            Some((Place::Other(index), proof))
        })
    }

    /// The next datagram to send. `active` is the path in use.
    pub(crate) fn due(&self, active: &Path) -> Option<Job> {
        let job = |place, work: &Work| Job {
            place,
            responses: work.responses.clone(),
            challenge: work.validation.as_ref().is_some_and(Validation::is_due),
        };
        if self.active.is_due() && active.budget() >= LEAST_BUDGET {
            return Some(job(Place::Active, &self.active));
        }
        let mut others = self.others.iter().enumerate();
        let (index, other) = others.find(|(_, other)| other.work.is_due() && other.can_send())?;
        Some(job(Place::Other(index), &other.work))
    }

    /// Whether something is to be sent on the path in use as soon as its budget allows.
    pub(crate) fn waits_for_budget(&self) -> bool {
        self.active.is_due()
    }

    /// Records that a datagram was sent on a path, with the first `answered` answers, and with the challenge `data`. It
    /// was `expanded` if it had at least 1200 bytes.
    pub(crate) fn sent(
        &mut self,
        place: Place,
        now: Instant,
        answered: usize,
        challenge: Option<PathData>,
        expanded: bool,
    ) {
        let Some(work) = self.work(place) else { return };
        work.responses.drain(..answered.min(work.responses.len()));
        if let Some((data, validation)) = challenge.zip(work.validation.as_mut()) {
            validation.sent(now, data, expanded);
        }
    }

    /// The next deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let others = self.others.iter().flat_map(|other| [other.work.deadline(), Some(other.until)]);
        let all = others.chain([self.active.deadline()]).flatten();
        all.filter(|at| *at < Instant::MAX).min()
    }

    /// Handles deadlines that have passed: returns one thing that has ended at a time.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> Option<Ended> {
        if self.active.on_timeout(now) {
            return Some(Ended::Validation(Place::Active));
        }
        if let Some(index) = self.others.iter_mut().position(|other| other.work.on_timeout(now)) {
            return Some(Ended::Validation(Place::Other(index)));
        }
        self.others.iter().position(|other| other.until <= now).map(Ended::Time)
    }

    /// Whether nothing is to be sent.
    #[cfg(test)]
    fn is_quiet(&self) -> bool {
        !self.active.is_due() && !self.others.iter().any(|other| other.work.is_due())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ecn, Spin};
    use super::*;
    use crate::base::Side;
    use crate::base::rng::Rng;

    const PTO: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    fn path(n: u16, validated: bool) -> Path {
        let spin = Spin::new(Side::Server, false, &mut Rng::from_u64(1));
        let mut path = Path::new(addr(443), addr(n), validated, 1472, Ecn::new(false), spin);
        path.on_received(100);
        path
    }

    fn validation() -> Validation {
        Validation::new(at(0), PTO, PTO)
    }

    /// A set whose path in use is path 0, with one that the peer probes for each of `ports`.
    fn probed(ports: std::ops::Range<u16>) -> (Path, Paths) {
        let mut paths = Paths::new(addr(0));
        for n in ports {
            paths.add(Other::new(path(n, false), Some(n.into()), Role::Probed));
        }
        (path(0, true), paths)
    }

    #[test]
    fn challenges_are_answered_where_they_came_from() {
        let (active, mut paths) = probed(1..3);
        assert_eq!(paths.due(&active), None);
        for n in 0..10 {
            paths.on_challenge(Place::Other(1), [n; 8]);
        }
        paths.on_challenge(Place::Active, [99; 8]);
        let first = paths.due(&active).unwrap();
        assert_eq!((first.place, first.responses.as_slice(), first.challenge), (Place::Active, &[[99; 8]][..], false));
        paths.sent(Place::Active, at(0), 1, None, true);
        let second = paths.due(&active).unwrap();
        assert_eq!((second.place, second.responses.len()), (Place::Other(1), MAX_RESPONSES), "more are a flood");
        paths.sent(Place::Other(1), at(0), 3, None, true);
        assert_eq!(paths.due(&active).unwrap().responses.as_slice(), [[3; 8]]);
        paths.sent(Place::Other(1), at(0), 1, None, true);
        assert!(paths.is_quiet() && paths.due(&active).is_none());
    }

    /// RFC 9000 §8.2.3: a response validates the path of its challenge, whichever path it comes by.
    #[test]
    fn a_response_validates_the_path_of_its_challenge() {
        let (active, mut paths) = probed(1..3);
        for place in [Place::Other(0), Place::Other(1), Place::Active] {
            paths.validate(place, validation);
            assert!(paths.due(&active).is_some_and(|job| job.place == place && job.challenge));
            let byte = if let Place::Other(n) = place { n as u8 } else { 9 };
            paths.sent(place, at(0), 0, Some([byte; 8]), true);
            assert!(paths.is_validating(place));
        }
        assert_eq!(paths.on_response(at(1), &[5; 8]), None);
        assert_eq!(paths.on_response(at(1), &[1; 8]), Some((Place::Other(1), Proof::Path)));
        assert_eq!(paths.on_response(at(1), &[1; 8]), None, "once");
        assert_eq!(paths.on_response(at(1), &[9; 8]), Some((Place::Active, Proof::Path)));
        assert!(paths.is_validating(Place::Other(0)) && !paths.is_validating(Place::Other(1)));
    }

    #[test]
    fn an_unvalidated_address_gets_nothing_beyond_its_budget() {
        let (active, mut paths) = probed(1..2);
        paths.validate(Place::Other(0), validation);
        let other = paths.other(0).unwrap();
        other.path.on_sent(300 - LEAST_BUDGET as usize + 1);
        assert_eq!(paths.due(&active), None);
        paths.other(0).unwrap().path.on_received(1);
        assert!(paths.due(&active).is_some());
        paths.other(0).unwrap().cid = None;
        assert_eq!(paths.due(&active), None, "there is no ID to send to");
    }

    #[test]
    fn paths_are_bounded_in_number() {
        let (_, mut paths) = probed(1..1 + MAX_OTHERS as u16);
        for n in 100..1000 {
            let (index, displaced) = paths.add(Other::new(path(n, false), Some(n.into()), Role::Probed));
            assert!(index.is_some() && displaced.is_some());
        }
        let ports: Vec<_> = paths.others().iter().map(|other| other.path.remote.port()).collect();
        assert_eq!(ports, [997, 998, 999]);
        paths.others.iter_mut().for_each(|other| other.role = Role::Probing);
        let (index, refused) = paths.add(Other::new(path(5, false), None, Role::Probed));
        assert_eq!((index, refused.map(|other| other.path.remote)), (None, Some(addr(5))), "ours stay");
    }

    /// RFC 9000 §9.3.2: the last validated path is remembered, whatever comes after it.
    #[test]
    fn the_last_validated_path_is_what_to_return_to() {
        let (mut active, mut paths) = probed(1..3);
        assert!(paths.move_to(0, &mut active, 7).is_none(), "nothing is forgotten");
        assert_eq!(active.remote, addr(1));
        let former = paths.former().unwrap();
        assert_eq!((paths.others()[former].path.remote, paths.others()[former].cid), (addr(0), Some(7)));
        // The next move leaves an unvalidated path, which is forgotten.
        let forgotten = paths.move_to(paths.find(addr(443), addr(2)).unwrap(), &mut active, 8).unwrap();
        assert_eq!((forgotten.path.remote, forgotten.cid), (addr(1), Some(8)));
        assert_eq!(paths.others()[paths.former().unwrap()].path.remote, addr(0));
        active.validate();
        // One that leaves a validated path forgets the former one.
        paths.add(Other::new(path(3, false), Some(3), Role::Probed));
        let forgotten = paths.move_to(paths.find(addr(443), addr(3)).unwrap(), &mut active, 9).unwrap();
        assert_eq!(forgotten.path.remote, addr(0));
        assert_eq!((paths.others().len(), paths.others()[0].path.remote), (1, addr(2)));
    }

    /// Otherwise, the challenge to the former path would go on as that of the path in use, and fail with it.
    #[test]
    fn a_return_to_a_valid_path_ends_its_validation() {
        let (mut active, mut paths) = probed(1..2);
        paths.move_to(0, &mut active, 7);
        let former = paths.former().unwrap();
        paths.validate(Place::Other(former), validation);
        paths.move_to(former, &mut active, 8);
        assert_eq!((active.remote, paths.on_timeout(at(9000)), paths.deadline()), (addr(0), None, None));
    }

    #[test]
    fn deadlines_are_handled_one_by_one() {
        let (mut active, mut paths) = probed(1..2);
        assert_eq!(paths.deadline(), None);
        paths.validate(Place::Other(0), validation);
        assert_eq!((paths.deadline(), paths.on_timeout(at(599))), (Some(at(600)), None));
        assert_eq!(paths.on_timeout(at(600)), Some(Ended::Validation(Place::Other(0))));
        assert_eq!(paths.on_timeout(at(600)), None);
        paths.move_to(0, &mut active, 7);
        paths.validate(Place::Active, validation);
        assert_eq!(paths.on_timeout(at(600)), Some(Ended::Validation(Place::Active)));
        assert_eq!(paths.deadline(), None, "what to return to is not forgotten");
        paths.keep_from(at(600), Some(addr(0)));
        assert_eq!(paths.deadline(), None, "a server may go on sending from its original address");
        paths.keep_from(at(600), Some(addr(9)));
        assert_eq!(paths.deadline(), Some(at(600) + KEEP));
        assert_eq!(paths.on_timeout(at(600) + KEEP), Some(Ended::Time(0)));
        assert!(paths.remove(0).is_some() && paths.remove(0).is_none() && paths.is_idle());
    }
}
