//! The neighbour table: maps IP to MAC addresses, with one state machine for ARP (RFC 826, RFC 1122 §2.3.2) and
//! neighbour discovery (RFC 4861 §7.3). It neither reads nor writes packets.
//!
//! An entry is known until its time is up. If used after that, it remains in use while it is probed, and is forgotten
//! if it does not answer. An entry unused for twice its time counts as absent. Progress of connections keeps an entry
//! known without probes, and lack of progress triggers a probe (§7.3.1).
//!
//! # What strangers can do to the table
//! A stranger is a sender whose address is not validated. Only ARP and neighbour discovery are evidence; packets from
//! strangers can at most trigger solicitations. Entries created for strangers take at most a quarter of the table,
//! replace only each other, and are the first to be evicted. Neighbours in use stay. Broadcast and multicast
//! solicitations are limited, and strangers can use at most a quarter of them. No operation takes longer because the
//! table is full.

mod lists;
mod room;
mod timers;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::base::limit::Limit;
use crate::base::time::{Duration, Instant};
use crate::wire::eth::Mac;
use lists::{List, Lists};

/// The number of solicitations before a neighbour is given up (RFC 4861 §10).
const MAX_TRIES: u8 = 3;
/// The time between solicitations (RFC 4861 §10; RFC 1122 §2.3.2.1 allows at most one per second and destination).
const RETRY: Duration = Duration::from_secs(1);
/// How long a MAC address from a lookup may be used before the next lookup, which tells the table which neighbours are
/// in use.
const GRAIN: Duration = Duration::from_secs(1);
/// How often a dead router that was replaced by another is probed.
const DEAD_RETRY: Duration = Duration::from_secs(10);
/// The maximum share of strangers in the table and in solicitations to all nodes, as a divisor.
const STRANGERS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Being resolved.
    Incomplete { tries: u8 },
    /// Trusted until this time.
    Known { until: Instant },
    /// In use while being probed.
    Probe { tries: u8 },
    /// A router that did not answer and has an alternative.
    Dead,
}

#[derive(Clone, Debug)]
struct Entry {
    ip: IpAddr,
    mac: Mac,
    state: State,
    /// It answered a solicitation of ours with this MAC address.
    proven: bool,
    role: Role,
    /// The expiry of its timer.
    retry: Instant,
    /// The time of the last solicitation.
    asked: Option<Instant>,
    /// The time of the last lookup.
    used: Option<Instant>,
    /// The time of the last confirmation, by an answer or a connection's progress.
    confirmed: Instant,
}

/// The role of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The peer of connections.
    Host,
    /// A next hop: never evicted. With a substitute, packets do not wait for it.
    Router {
        /// Another route can be used instead.
        substitute: bool,
    },
}

/// On whose behalf a neighbour is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Ours: connections that we open, and those with validated peers.
    Own,
    /// A stranger's, whose address may be forged.
    Newcomer,
}

/// A solicitation to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solicit {
    pub(super) target: IpAddr,
    /// The destination MAC address; `None` for all nodes.
    pub(super) to: Option<Mac>,
}

/// The table slot that a MAC address came from. Valid while [`Neighbors::is_current`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aim {
    place: u32,
    version: u32,
}

impl Aim {
    /// Never valid.
    pub(super) const NONE: Self = Self { place: u32::MAX, version: 0 };
}

/// Whether addresses handed out from a slot are still valid.
#[derive(Clone, Copy, Debug)]
struct Gate {
    version: u32,
    until: Instant,
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The MAC address is known.
    Known { mac: Mac, aim: Aim },
    /// Being resolved: frames wait at this slot.
    Wait { place: u32 },
    /// Not known, and there is no free slot.
    Refused,
}

/// The outcome of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) lookup: Lookup,
    /// A solicitation to send.
    pub(super) ask: Option<Solicit>,
    /// The slot of an evicted neighbour; frames that wait there must be dropped.
    pub(super) evicted: Option<u32>,
}

/// The kind of evidence for a neighbour's MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// An answer to us, which counts as one only if we asked. Without `replace` it must not replace a different address
    /// (override flag of RFC 4861 §4.4).
    Answer { replace: bool },
    /// An unsolicited announcement.
    Hint { replace: bool },
    /// A solicitation for us, which may introduce a new neighbour.
    Question,
}

/// The effect of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// Nothing new, or not relevant.
    Nothing,
    /// A neighbour is resolved; frames wait at this slot.
    Resolved(u32),
    /// A neighbour has a different MAC address.
    Changed,
}

/// The effect of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    Ask(Solicit),
    /// The neighbour did not answer; frames that wait at its slot are dropped.
    Failed {
        ip: IpAddr,
        place: u32,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Neighbors {
    /// The slots. An entry keeps its slot.
    entries: Vec<Option<Entry>>,
    gates: Box<[Gate]>,
    lists: Lists,
    free: Vec<u32>,
    index: HashMap<IpAddr, u32>,
    ttl: Duration,
    /// Limits on solicitations to all nodes: in total, and on behalf of strangers.
    asks: Limit,
    stranger_asks: Limit,
    /// No timer expires before this time.
    deadline: Instant,
    /// The number of entries visited, for tests of cost.
    #[cfg(test)]
    pub(super) looks: u64,
}

impl Neighbors {
    /// Creates a table for `max` neighbours, each trusted for `ttl`, with at most `asks` solicitations to all nodes per
    /// second.
    pub(super) fn new(max: usize, ttl: Duration, asks: u32, now: Instant) -> Self {
        Self {
            entries: vec![None; max],
            gates: vec![Gate { version: 0, until: Instant::ZERO }; max].into(),
            lists: Lists::new(max),
            free: (0..max as u32).rev().collect(),
            index: HashMap::with_capacity(2 * max),
            ttl,
            asks: Limit::new(asks, now),
            stranger_asks: Limit::new(asks.div_ceil(STRANGERS as u32), now),
            deadline: Instant::MAX,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// The time at which [`Neighbors::expire`] next has work to do; it may be early.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Runs no timer before `until`.
    pub(super) fn defer(&mut self, until: Instant) {
        self.deadline = until;
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether the MAC address that came with `aim` may still be used.
    #[inline]
    pub(super) fn is_current(&self, aim: Aim, now: Instant) -> bool {
        self.gates.get(aim.place as usize).is_some_and(|gate| gate.version == aim.version && now < gate.until)
    }

    /// Returns whether `ip` is a dead router.
    pub(super) fn is_dead(&self, ip: IpAddr) -> bool {
        self.find(ip).is_some_and(|place| self.lists.of(place) == List::Dead)
    }

    /// Returns whether `ip` is in the table, in any state.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.find(ip).is_some()
    }

    /// The MAC address of `ip`, if known. Does not count as use and sends nothing.
    pub(super) fn peek(&self, now: Instant, ip: IpAddr) -> Option<Mac> {
        let entry = self.entries[self.find(ip)? as usize].as_ref()?;
        match entry.state {
            State::Known { until } if now < until + self.ttl => Some(entry.mac),
            State::Probe { .. } => Some(entry.mac),
            _ => None,
        }
    }

    fn find(&self, ip: IpAddr) -> Option<u32> {
        self.index.get(&ip).copied()
    }

    fn entry(&mut self, place: u32) -> &mut Entry {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        self.entries[place as usize].as_mut().expect("places in the index and in lists are taken")
    }

    /// Looks up `ip`, and solicits it if needed. With an `origin`, the MAC address that a stranger's packet came from,
    /// a new neighbour is solicited there rather than from all nodes: one frame for each that came, to where it came
    /// from.
    pub(super) fn lookup(
        &mut self,
        now: Instant,
        ip: IpAddr,
        role: Role,
        account: Account,
        origin: Option<Mac>,
    ) -> Found {
        let Some(place) = self.find(ip) else {
            let list = list_for(role, account);
            let Ok(evicted) = self.make_room(now, list) else {
                return Found { lookup: Lookup::Refused, ask: None, evicted: None };
            };
            let state = State::Incomplete { tries: 0 };
            let place = self.insert(now, ip, Mac::ZERO, state, role);
            let ask = self.ask(now, place, list, origin);
            return Found { lookup: Lookup::Wait { place }, ask, evicted };
        };
        let (ttl, version) = (self.ttl, self.gates[place as usize].version);
        let list = self.lists.of(place);
        let entry = self.entry(place);
        (entry.used, entry.role) = (Some(now), role);
        let (mac, state) = (entry.mac, entry.state);
        let known = Lookup::Known { mac, aim: Aim { place, version } };
        let (lookup, ask) = match state {
            State::Incomplete { tries } => {
                let better = list_for(role, account);
                let mut ask = None;
                if list == List::Newcomers && better != list {
                    self.lists.put(place, better);
                    // Solicit now what the limit for strangers did not allow.
                    ask = if tries == 0 { self.ask(now, place, better, None) } else { None };
                }
                (Lookup::Wait { place }, ask)
            }
            State::Known { until } if now < until => {
                self.open(place, until.min(now + GRAIN));
                self.keep(place);
                (known, None)
            }
            State::Known { until } if now < until + ttl => (known, self.probe(now, place)),
            State::Known { .. } | State::Dead => (Lookup::Wait { place }, self.forget_mac(now, place, account)),
            State::Probe { .. } => {
                self.open(place, now + GRAIN);
                (known, None)
            }
        };
        Found { lookup, ask, evicted: None }
    }

    /// Starts to resolve a neighbour again whose MAC address is no longer valid.
    fn forget_mac(&mut self, now: Instant, place: u32, account: Account) -> Option<Solicit> {
        self.shut(place);
        let entry = self.entry(place);
        (entry.state, entry.proven) = (State::Incomplete { tries: 0 }, false);
        let list = list_for(entry.role, account);
        self.ask_again(now, place, list, None)
    }

    /// Starts to probe a known neighbour, which remains in use.
    fn probe(&mut self, now: Instant, place: u32) -> Option<Solicit> {
        let entry = self.entry(place);
        entry.state = State::Probe { tries: 0 };
        let (mac, list) = (entry.mac, if entry.role == Role::Host { List::Probed } else { List::Routers });
        self.open(place, now + GRAIN);
        self.ask_again(now, place, list, Some(mac))
    }

    /// Notes that a connection via `ip` gets no answers: the neighbour is probed now, unless it was heard within the
    /// last second (RFC 4861 §7.3.1, RFC 1122 §2.3.2.1).
    pub(super) fn suspect(&mut self, now: Instant, ip: IpAddr) -> Option<Solicit> {
        let place = self.find(ip)?;
        let entry = self.entry(place);
        let known = matches!(entry.state, State::Known { .. });
        (known && now >= entry.confirmed + RETRY).then(|| self.probe(now, place)).flatten()
    }

    /// Notes that a connection via `ip` made progress at `at`, which confirms reachability (RFC 4861 §7.3.1), but not a
    /// MAC address that has not answered yet.
    pub(super) fn confirm(&mut self, ip: IpAddr, at: Instant) {
        let Some(place) = self.find(ip) else { return };
        let ttl = self.ttl;
        let entry = self.entry(place);
        if !entry.proven || at <= entry.confirmed {
            return;
        }
        match entry.state {
            State::Known { until } => entry.state = State::Known { until: until.max(at + ttl) },
            State::Probe { .. } if entry.asked.is_none_or(|asked| at > asked) => {
                entry.state = State::Known { until: at + ttl };
                self.keep(place);
            }
            _ => return,
        }
        self.entry(place).confirmed = at;
    }

    /// Handles evidence that `ip` is at `mac`, or for an answer without address (`None`) still at its old one.
    pub(super) fn learn(&mut self, now: Instant, ip: IpAddr, mac: Option<Mac>, news: News) -> Learned {
        let known = State::Known { until: now + self.ttl };
        let stale = State::Known { until: now };
        let Some(place) = self.find(ip) else {
            if let Some(mac) = mac
                && news == News::Question
            {
                self.hear(now, ip, mac, stale);
            }
            return Learned::Nothing;
        };
        let entry = self.entry(place);
        let answer = matches!(news, News::Answer { .. });
        let replace = !matches!(news, News::Answer { replace: false } | News::Hint { replace: false });
        if let State::Incomplete { .. } | State::Dead = entry.state {
            let Some(mac) = mac else { return Learned::Nothing };
            (entry.mac, entry.proven) = (mac, answer);
            entry.state = if answer { known } else { stale };
            entry.confirmed = now;
            self.keep(place);
            return Learned::Resolved(place);
        }
        match mac.filter(|mac| *mac != entry.mac) {
            Some(other) if replace => {
                // Solicited or not, a different address has to be confirmed on next use.
                (entry.mac, entry.state, entry.proven) = (other, stale, false);
                self.shut(place);
                self.keep(place);
                return Learned::Changed;
            }
            // Keep the old address, but probe it (RFC 4861 §7.2.5).
            Some(_) if matches!(entry.state, State::Known { until } if now < until) => {
                entry.state = stale;
                self.shut(place);
            }
            None if answer && matches!(entry.state, State::Probe { .. }) => {
                (entry.state, entry.proven, entry.confirmed) = (known, true, now);
                self.keep(place);
            }
            _ => {}
        }
        Learned::Nothing
    }

    /// Adds an entry from another core's table, as if resolved here.
    pub(super) fn share(&mut self, now: Instant, ip: IpAddr, mac: Mac) -> Learned {
        let state = State::Known { until: now + self.ttl };
        let Some(place) = self.find(ip) else {
            self.hear(now, ip, mac, state);
            return Learned::Nothing;
        };
        let entry = self.entry(place);
        let waited = matches!(entry.state, State::Incomplete { .. } | State::Dead);
        let changed = !waited && entry.mac != mac;
        (entry.mac, entry.state, entry.proven, entry.confirmed) = (mac, state, true, now);
        if changed {
            self.shut(place);
        }
        self.keep(place);
        match (waited, changed) {
            (true, _) => Learned::Resolved(place),
            (_, true) => Learned::Changed,
            _ => Learned::Nothing,
        }
    }

    /// Marks all entries for confirmation, as neighbours may have changed while the link was down.
    pub(super) fn doubt_all(&mut self, now: Instant) {
        for (entry, gate) in self.entries.iter_mut().zip(&mut self.gates) {
            if let Some(Entry { state: State::Known { until }, .. }) = entry {
                *until = (*until).min(now);
                gate.until = Instant::ZERO;
            }
        }
    }

    /// Invalidates all MAC addresses handed out.
    pub(super) fn shut_all(&mut self) {
        self.gates.iter_mut().for_each(|gate| gate.until = Instant::ZERO);
    }

    /// Moves the known entry `place` to its list, without a timer. If it was in use, it counts as just used.
    fn keep(&mut self, place: u32) {
        let entry = self.entry(place);
        let list = match entry.role {
            Role::Router { .. } => List::None,
            Role::Host if entry.used.is_none() => List::Heard,
            Role::Host => List::Living,
        };
        self.lists.put(place, list);
    }

    /// Makes addresses handed out from `place` valid until `until`.
    fn open(&mut self, place: u32, until: Instant) {
        self.gates[place as usize].until = until;
    }

    /// Invalidates addresses handed out from `place`.
    fn shut(&mut self, place: u32) {
        let gate = &mut self.gates[place as usize];
        gate.version = gate.version.wrapping_add(1);
        gate.until = Instant::ZERO;
    }
}

/// The list for entries being resolved.
fn list_for(role: Role, account: Account) -> List {
    match (role, account) {
        (Role::Router { .. }, _) => List::Routers,
        (_, Account::Own) => List::Own,
        (_, Account::Newcomer) => List::Newcomers,
    }
}

#[cfg(test)]
mod tests;
