//! Timers: retransmission of solicitations, and giving up.

use crate::base::time::Instant;
use crate::net::neighbor::lists::List;
use crate::net::neighbor::{DEAD_RETRY, MAX_TRIES, Neighbors, RETRY, Role, Solicit, State, Timeout};
use crate::wire::eth::Mac;

/// Lists of entries with a timer, each ordered by expiry.
const TIMED: [List; 5] = [List::Routers, List::Own, List::Newcomers, List::Probed, List::Dead];

impl Neighbors {
    /// Runs the timers; returns the next action, or `None`.
    pub(in crate::net) fn expire(&mut self, now: Instant) -> Option<Timeout> {
        if now < self.deadline {
            return None;
        }
        for list in TIMED {
            while let Some(place) = self.lists.front(list)
                && self.entry(place).retry <= now
            {
                if let Some(timeout) = self.fire(now, place, list) {
                    return Some(timeout);
                }
            }
        }
        let next = TIMED.map(|list| self.lists.front(list).map_or(Instant::MAX, |place| self.entry(place).retry));
        self.deadline = next.into_iter().min().unwrap_or(Instant::MAX);
        None
    }

    fn fire(&mut self, now: Instant, place: u32, list: List) -> Option<Timeout> {
        let entry = self.entry(place);
        let target = entry.ip;
        let to = match entry.state {
            State::Incomplete { tries } | State::Probe { tries } if tries >= MAX_TRIES => {
                self.fail(now, place);
                return Some(Timeout::Failed { ip: target, place });
            }
            // Only the first probe is unicast: a neighbour that has moved is not found at its old MAC address.
            State::Probe { tries: 0 } => Some(entry.mac),
            State::Incomplete { .. } | State::Probe { .. } | State::Dead => None,
            State::Known { .. } => {
                self.keep(place);
                return None;
            }
        };
        self.ask(now, place, list, to).map(Timeout::Ask)
    }

    /// Handles a neighbour that did not answer. A router with a substitute is remembered as dead, others are forgotten.
    fn fail(&mut self, now: Instant, place: u32) {
        let entry = self.entry(place);
        if entry.role != (Role::Router { substitute: true }) {
            self.remove(place);
            return;
        }
        (entry.state, entry.proven) = (State::Dead, false);
        self.shut(place);
        self.wait(now, place, List::Dead);
    }

    /// Counts a try and restarts the timer. The solicitation is sent if the limits allow: unicast ones and those of
    /// routers, which are few, always.
    pub(super) fn ask(&mut self, now: Instant, place: u32, list: List, to: Option<Mac>) -> Option<Solicit> {
        let allowed = to.is_some()
            || match list {
                List::Routers | List::Dead => true,
                List::Newcomers => self.stranger_asks.take(now) && self.asks.take(now),
                _ => self.asks.take(now),
            };
        let entry = self.entry(place);
        let target = entry.ip;
        if let State::Incomplete { tries } | State::Probe { tries } = &mut entry.state
            && (allowed || list == List::Newcomers)
        {
            *tries += 1;
        }
        if allowed {
            entry.asked = Some(now);
        }
        self.wait(now, place, list);
        allowed.then_some(Solicit { target, to })
    }

    /// Solicits at most once per second, whatever the cause: otherwise the timer does it later.
    pub(super) fn ask_again(&mut self, now: Instant, place: u32, list: List, to: Option<Mac>) -> Option<Solicit> {
        if self.entry(place).asked.is_some_and(|at| now < at + RETRY) {
            self.wait(now, place, list);
            return None;
        }
        self.ask(now, place, list, to)
    }

    /// Restarts the timer of `place`, in `list`.
    pub(super) fn wait(&mut self, now: Instant, place: u32, list: List) {
        let retry = now + if list == List::Dead { DEAD_RETRY } else { RETRY };
        self.entry(place).retry = retry;
        self.lists.put(place, list);
        self.deadline = self.deadline.min(retry);
    }
}
