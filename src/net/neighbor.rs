//! Who is on the link: IP to MAC addresses, one state machine for ARP (RFC 826, RFC 1122 §2.3.2) and
//! neighbour discovery (RFC 4861 §7.3). It neither reads nor writes packets.
//!
//! An entry is known until its time is up; used after that, it is still used but asked again (probed),
//! and forgotten if it does not answer. An entry unused for twice its time counts as absent.
//! Nothing a stranger sends can push out an entry: strangers fill only free places.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::base::time::{Duration, Instant};
use crate::wire::eth::Mac;

/// Solicitations before a neighbour is given up (RFC 4861 §10).
const MAX_TRIES: u8 = 3;
/// Time between solicitations (RFC 4861 §10; RFC 1122 §2.3.2.1 allows no more than one per second).
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked for, address not known.
    Incomplete { tries: u8, retry: Instant },
    /// Trusted until then.
    Known { until: Instant },
    /// Used, but asked again.
    Probe { tries: u8, retry: Instant },
}

#[derive(Clone, Debug)]
struct Entry {
    ip: IpAddr,
    mac: Mac,
    state: State,
    /// When it was last looked up.
    used: Instant,
    /// Never pushed out.
    pinned: bool,
}

/// A question to be put on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solicit {
    pub(super) target: IpAddr,
    /// The MAC address to ask; `None` asks everyone.
    pub(super) to: Option<Mac>,
}

/// What looking up a neighbour came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its MAC address, good until then if [`Neighbors::epoch`] stays the same.
    Known { mac: Mac, until: Instant },
    /// Not known yet.
    Wait,
}

/// How good the news of a neighbour's MAC address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// An answer to us, which counts as one only if we asked. Without `replace` it must not take the
    /// place of another address (override flag of RFC 4861 §4.4).
    Answer { replace: bool },
    /// It spoke of itself, or was spoken of.
    Hint { replace: bool },
    /// A question put to us: also news of strangers.
    Question,
}

/// What news came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// Nothing new, or not our business.
    Nothing,
    /// A neighbour that was waited for is known.
    Resolved,
    /// A neighbour has another MAC address.
    Changed,
}

/// What became of time passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    Ask(Solicit),
    /// The neighbour did not answer and is forgotten.
    Failed(IpAddr),
}

/// How far a run of the timers has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    at: usize,
    next: Instant,
}

impl Scan {
    pub(super) fn new() -> Self {
        Self { at: 0, next: Instant::MAX }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Neighbors {
    entries: Vec<Entry>,
    index: HashMap<IpAddr, usize>,
    max: usize,
    ttl: Duration,
    /// Changes whenever a MAC address that was handed out may be wrong.
    epoch: u64,
    /// No timer runs out before.
    deadline: Instant,
}

impl Neighbors {
    pub(super) fn new(max: usize, ttl: Duration) -> Self {
        Self {
            entries: Vec::with_capacity(max),
            index: HashMap::with_capacity(2 * max),
            max,
            ttl,
            epoch: 0,
            deadline: Instant::MAX,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When [`Neighbors::expire`] has something to do; it may be early.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Looks up `ip`, asking for it if need be. A neighbour that had to make room is in `evicted`.
    pub(super) fn lookup(
        &mut self,
        now: Instant,
        ip: IpAddr,
        pinned: bool,
        evicted: &mut Option<IpAddr>,
    ) -> (Lookup, Option<Solicit>) {
        let retry = now + RETRY;
        let Some(&i) = self.index.get(&ip) else {
            *evicted = self.make_room();
            self.insert(Entry { ip, mac: Mac::ZERO, state: State::Incomplete { tries: 1, retry }, used: now, pinned });
            self.deadline = self.deadline.min(retry);
            return (Lookup::Wait, Some(Solicit { target: ip, to: None }));
        };
        let entry = &mut self.entries[i];
        entry.used = now;
        entry.pinned |= pinned;
        let mac = entry.mac;
        match entry.state {
            State::Incomplete { .. } => (Lookup::Wait, None),
            State::Known { until } if now < until => (Lookup::Known { mac, until }, None),
            State::Known { until } if now < until + self.ttl => {
                entry.state = State::Probe { tries: 1, retry };
                self.deadline = self.deadline.min(retry);
                (Lookup::Known { mac, until: retry }, Some(Solicit { target: ip, to: Some(mac) }))
            }
            State::Known { .. } => {
                entry.state = State::Incomplete { tries: 1, retry };
                self.deadline = self.deadline.min(retry);
                self.epoch += 1;
                (Lookup::Wait, Some(Solicit { target: ip, to: None }))
            }
            State::Probe { retry, .. } => (Lookup::Known { mac, until: retry.max(now) }, None),
        }
    }

    /// Takes news: `ip` is at `mac`, or for an answer without address (`None`) still where it was.
    pub(super) fn learn(&mut self, now: Instant, ip: IpAddr, mac: Option<Mac>, news: News) -> Learned {
        let known = State::Known { until: now + self.ttl };
        let stale = State::Known { until: now };
        let Some(&i) = self.index.get(&ip) else {
            if let Some(mac) = mac
                && news == News::Question
                && self.entries.len() < self.max
            {
                self.insert(Entry { ip, mac, state: stale, used: Instant::ZERO, pinned: false });
            }
            return Learned::Nothing;
        };
        let entry = &mut self.entries[i];
        let answer = matches!(news, News::Answer { .. });
        let replace = !matches!(news, News::Answer { replace: false } | News::Hint { replace: false });
        if let State::Incomplete { .. } = entry.state {
            let Some(mac) = mac else { return Learned::Nothing };
            entry.mac = mac;
            entry.state = if answer { known } else { stale };
            return Learned::Resolved;
        }
        match mac.filter(|mac| *mac != entry.mac) {
            Some(other) if replace => {
                // Asked for or not, another address has to prove itself on next use.
                (entry.mac, entry.state) = (other, stale);
                self.epoch += 1;
                return Learned::Changed;
            }
            // Keep the first address, but ask again (RFC 4861 §7.2.5).
            Some(_) if matches!(entry.state, State::Known { until } if now < until) => {
                entry.state = stale;
                self.epoch += 1;
            }
            None if answer && matches!(entry.state, State::Probe { .. }) => entry.state = known,
            _ => {}
        }
        Learned::Nothing
    }

    /// Enters what another core's table learned, as if asked and answered here.
    pub(super) fn share(&mut self, now: Instant, ip: IpAddr, mac: Mac) -> Learned {
        let state = State::Known { until: now + self.ttl };
        let Some(&i) = self.index.get(&ip) else {
            if self.entries.len() < self.max {
                self.insert(Entry { ip, mac, state, used: Instant::ZERO, pinned: false });
            }
            return Learned::Nothing;
        };
        let entry = &mut self.entries[i];
        let waited = matches!(entry.state, State::Incomplete { .. });
        let changed = !waited && entry.mac != mac;
        self.epoch += u64::from(changed);
        (entry.mac, entry.state) = (mac, state);
        match (waited, changed) {
            (true, _) => Learned::Resolved,
            (_, true) => Learned::Changed,
            _ => Learned::Nothing,
        }
    }

    /// Runs the timers: the next thing to do, until there is none. `scan` is fresh for each run.
    pub(super) fn expire(&mut self, now: Instant, scan: &mut Scan) -> Option<Timeout> {
        if now < self.deadline {
            return None;
        }
        while let Some(entry) = self.entries.get_mut(scan.at) {
            let (tries, retry, to) = match &mut entry.state {
                State::Incomplete { tries, retry } => (tries, retry, None),
                State::Probe { tries, retry } => (tries, retry, Some(entry.mac)),
                State::Known { .. } => {
                    scan.at += 1;
                    continue;
                }
            };
            if *retry > now {
                scan.next = scan.next.min(*retry);
                scan.at += 1;
                continue;
            }
            let target = entry.ip;
            if *tries >= MAX_TRIES {
                // Another entry takes its place and is looked at next.
                self.remove(scan.at);
                return Some(Timeout::Failed(target));
            }
            *tries += 1;
            *retry = now + RETRY;
            scan.next = scan.next.min(*retry);
            scan.at += 1;
            return Some(Timeout::Ask(Solicit { target, to }));
        }
        self.deadline = scan.next;
        None
    }

    fn insert(&mut self, entry: Entry) {
        self.index.insert(entry.ip, self.entries.len());
        self.entries.push(entry);
    }

    fn remove(&mut self, i: usize) {
        let gone = self.entries.swap_remove(i);
        self.index.remove(&gone.ip);
        if let Some(moved) = self.entries.get(i) {
            self.index.insert(moved.ip, i);
        }
        self.epoch += 1;
    }

    /// Forgets the neighbour least recently used if the table is full.
    fn make_room(&mut self) -> Option<IpAddr> {
        if self.entries.len() < self.max {
            return None;
        }
        let least = self.entries.iter().enumerate().filter(|(_, e)| !e.pinned).min_by_key(|(_, e)| e.used);
        let (i, ip) = least.map(|(i, e)| (i, e.ip))?;
        self.remove(i);
        Some(ip)
    }
}

#[cfg(test)]
mod tests;
