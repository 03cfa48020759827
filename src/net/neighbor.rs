//! Who is on the link: IP to MAC addresses, one state machine for ARP (RFC 826, RFC 1122 §2.3.2) and
//! neighbour discovery (RFC 4861 §7.3). It neither reads nor writes packets.
//!
//! An entry is known until its time is up; used after that, it is still used but asked again (probed),
//! and forgotten if it does not answer. An entry unused for twice its time counts as absent. Progress of
//! connections keeps an entry known without a question, and their silence is a reason to ask (§7.3.1).
//!
//! # What strangers can do to the table
//! Only ARP and neighbour discovery are evidence; packets from made-up addresses can at most make us ask.
//! Entries asked for because of strangers are at most a quarter of the table, push out only each other, and are the
//! first to go. Neighbours that are in use stay. Questions to everyone have a budget, of which strangers can use up
//! a quarter. Nothing here takes longer because the table is full.

mod lists;
mod room;
mod timers;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::base::limit::Limit;
use crate::base::time::{Duration, Instant};
use crate::wire::eth::Mac;
use lists::{List, Lists};

/// Solicitations before a neighbour is given up (RFC 4861 §10).
const MAX_TRIES: u8 = 3;
/// Time between solicitations (RFC 4861 §10; RFC 1122 §2.3.2.1 allows no more than one per second and destination).
const RETRY: Duration = Duration::from_secs(1);
/// For so long a MAC address that was looked up may be used before it is looked up again: that is how the table
/// knows which neighbours are in use.
const GRAIN: Duration = Duration::from_secs(1);
/// How often a router that was given up for another one is asked whether it is back.
const DEAD_RETRY: Duration = Duration::from_secs(10);
/// Strangers make up this part of the table, and of the questions to everyone, at the most.
const STRANGERS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked for, address not known.
    Incomplete { tries: u8 },
    /// Trusted until then.
    Known { until: Instant },
    /// Used, but asked again.
    Probe { tries: u8 },
    /// A router that did not answer; there is another one.
    Dead,
}

#[derive(Clone, Debug)]
struct Entry {
    ip: IpAddr,
    mac: Mac,
    state: State,
    /// It answered a question of ours with this MAC address.
    proven: bool,
    role: Role,
    /// When its timer runs out.
    retry: Instant,
    /// When it was last asked for.
    asked: Option<Instant>,
    /// When it was last looked up.
    used: Option<Instant>,
    /// When it was last heard to be there, by an answer or by a connection's progress.
    confirmed: Instant,
}

/// What a neighbour is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The other end of connections.
    Host,
    /// A way to others: never pushed out. With a substitute it is not waited for.
    Router {
        /// Another route serves when this one does not.
        substitute: bool,
    },
}

/// On whose account a neighbour is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Ours: connections that we open, and those whose peers are known to be where they say.
    Own,
    /// Somebody's whose address may be made up.
    Newcomer,
}

/// A question to be put on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solicit {
    pub(super) target: IpAddr,
    /// The MAC address to ask; `None` asks everyone.
    pub(super) to: Option<Mac>,
}

/// Where in the table a MAC address came from. It is good while [`Neighbors::is_current`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aim {
    place: u32,
    version: u32,
}

impl Aim {
    /// Never good.
    pub(super) const NONE: Self = Self { place: u32::MAX, version: 0 };
}

/// Whether what was handed out of a place is still good.
#[derive(Clone, Copy, Debug)]
struct Gate {
    version: u32,
    until: Instant,
}

/// What looking up a neighbour came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its MAC address.
    Known { mac: Mac, aim: Aim },
    /// Not known yet: frames wait at this place.
    Wait { place: u32 },
    /// Not known, and there is no place for it.
    Refused,
}

/// What became of looking up a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) lookup: Lookup,
    /// A question to be put.
    pub(super) ask: Option<Solicit>,
    /// The place of a neighbour that had to make room; what waits there waits for nobody any more.
    pub(super) evicted: Option<u32>,
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
    /// A neighbour that was waited for is known; frames wait at this place.
    Resolved(u32),
    /// A neighbour has another MAC address.
    Changed,
}

/// What became of time passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    Ask(Solicit),
    /// The neighbour did not answer; what waits at its place is given up.
    Failed {
        ip: IpAddr,
        place: u32,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Neighbors {
    /// Entries stay in their place.
    entries: Vec<Option<Entry>>,
    gates: Box<[Gate]>,
    lists: Lists,
    free: Vec<u32>,
    index: HashMap<IpAddr, u32>,
    ttl: Duration,
    /// Questions to everyone: all of them, and those because of strangers.
    asks: Limit,
    stranger_asks: Limit,
    /// No timer runs out before.
    deadline: Instant,
    /// Entries looked at, for tests of what things cost.
    #[cfg(test)]
    pub(super) looks: u64,
}

impl Neighbors {
    /// A table for `max` neighbours, each trusted for `ttl`. At most `asks` questions a second go to everyone.
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

    /// When [`Neighbors::expire`] has something to do; it may be early.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether the MAC address that came with `aim` may be used now.
    #[inline]
    pub(super) fn is_current(&self, aim: Aim, now: Instant) -> bool {
        self.gates.get(aim.place as usize).is_some_and(|gate| gate.version == aim.version && now < gate.until)
    }

    /// Whether `ip` is a router that does not answer.
    pub(super) fn is_dead(&self, ip: IpAddr) -> bool {
        self.find(ip).is_some_and(|place| self.lists.of(place) == List::Dead)
    }

    /// Whether `ip` is in the table, known or asked for.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.find(ip).is_some()
    }

    /// The MAC address of `ip` if it is known. That is no use of it, and nobody is asked.
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

    /// Looks up `ip`, asking for it if need be. With an `origin`, the MAC address that a stranger's packet came from, a
    /// new neighbour is asked for there rather than of everyone: one frame for each that came, to where it came from.
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
                    // What strangers' budget did not allow is asked now.
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

    /// Starts to ask for a neighbour whose MAC address is of no use any more.
    fn forget_mac(&mut self, now: Instant, place: u32, account: Account) -> Option<Solicit> {
        self.shut(place);
        let entry = self.entry(place);
        (entry.state, entry.proven) = (State::Incomplete { tries: 0 }, false);
        let list = list_for(entry.role, account);
        self.ask_again(now, place, list, None)
    }

    /// Starts to ask whether a known neighbour is still there; meanwhile it is used.
    fn probe(&mut self, now: Instant, place: u32) -> Option<Solicit> {
        let entry = self.entry(place);
        entry.state = State::Probe { tries: 0 };
        let (mac, list) = (entry.mac, if entry.role == Role::Host { List::Probed } else { List::Routers });
        self.open(place, now + GRAIN);
        self.ask_again(now, place, list, Some(mac))
    }

    /// A connection that goes through `ip` gets no answers: whether the neighbour is still there is asked now rather than
    /// when its time is up, unless it was heard in the last second (RFC 4861 §7.3.1, RFC 1122 §2.3.2.1).
    pub(super) fn suspect(&mut self, now: Instant, ip: IpAddr) -> Option<Solicit> {
        let place = self.find(ip)?;
        let entry = self.entry(place);
        let known = matches!(entry.state, State::Known { .. });
        (known && now >= entry.confirmed + RETRY).then(|| self.probe(now, place)).flatten()
    }

    /// A connection whose packets go through `ip` made progress at `at`: so they arrive (RFC 4861 §7.3.1). That says
    /// nothing about a MAC address that has not yet answered.
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

    /// Takes news: `ip` is at `mac`, or for an answer without address (`None`) still where it was.
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
                // Asked for or not, another address has to prove itself on next use.
                (entry.mac, entry.state, entry.proven) = (other, stale, false);
                self.shut(place);
                self.keep(place);
                return Learned::Changed;
            }
            // Keep the first address, but ask again (RFC 4861 §7.2.5).
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

    /// Enters what another core's table learned, as if asked and answered here.
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

    /// Whoever was known may be somewhere else now, as after a link was down: all have to prove themselves.
    pub(super) fn doubt_all(&mut self, now: Instant) {
        for (entry, gate) in self.entries.iter_mut().zip(&mut self.gates) {
            if let Some(Entry { state: State::Known { until }, .. }) = entry {
                *until = (*until).min(now);
                gate.until = Instant::ZERO;
            }
        }
    }

    /// Every MAC address that was handed out has to be looked up again.
    pub(super) fn shut_all(&mut self) {
        self.gates.iter_mut().for_each(|gate| gate.until = Instant::ZERO);
    }

    /// `place` is known: it has no timer. If it was in use, it counts as just used.
    fn keep(&mut self, place: u32) {
        let entry = self.entry(place);
        let list = match entry.role {
            Role::Router { .. } => List::None,
            Role::Host if entry.used.is_none() => List::Heard,
            Role::Host => List::Living,
        };
        self.lists.put(place, list);
    }

    /// What was handed out of `place` may be used until then.
    fn open(&mut self, place: u32, until: Instant) {
        self.gates[place as usize].until = until;
    }

    /// What was handed out of `place` is wrong.
    fn shut(&mut self, place: u32) {
        let gate = &mut self.gates[place as usize];
        gate.version = gate.version.wrapping_add(1);
        gate.until = Instant::ZERO;
    }
}

/// The list of who is asked for.
fn list_for(role: Role, account: Account) -> List {
    match (role, account) {
        (Role::Router { .. }, _) => List::Routers,
        (_, Account::Own) => List::Own,
        (_, Account::Newcomer) => List::Newcomers,
    }
}

#[cfg(test)]
mod tests;
