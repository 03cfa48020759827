//! Insertion and eviction of entries.

use std::net::IpAddr;

use crate::base::time::Instant;
use crate::net::neighbor::lists::List;
use crate::net::neighbor::{Entry, Neighbors, Role, STRANGERS, State};
use crate::wire::eth::Mac;

impl Neighbors {
    /// Inserts an entry. There must be room, see [`Neighbors::make_room`].
    pub(super) fn insert(&mut self, now: Instant, ip: IpAddr, mac: Mac, state: State, role: Role) -> u32 {
        let place = self.free.pop().expect("room was made");
        self.entries[place as usize] = Some(Entry {
            ip,
            mac,
            state,
            proven: false,
            role,
            retry: Instant::MAX,
            asked: None,
            used: Some(now),
            confirmed: Instant::ZERO,
        });
        self.index.insert(ip, place);
        place
    }

    /// Forgets the neighbour at `place`.
    pub(in crate::net) fn remove(&mut self, place: u32) {
        self.shut(place);
        self.lists.put(place, List::None);
        if let Some(gone) = self.entries[place as usize].take() {
            self.index.remove(&gone.ip);
            self.free.push(place);
        }
    }

    /// The oldest entry being resolved for strangers, whose waiting frames can be dropped first.
    pub(in crate::net) fn oldest_newcomer(&self) -> Option<u32> {
        self.lists.front(List::Newcomers)
    }

    /// The least recently used neighbour, if it is unused for so long that it counts as absent.
    fn idle(&mut self, now: Instant) -> Option<u32> {
        let (place, ttl) = (self.lists.front(List::Living)?, self.ttl);
        self.entry(place).used.is_none_or(|at| at + ttl <= now).then_some(place)
    }

    /// Ensures that there is a free slot for an entry in `list`; returns the slot of an evicted entry. Neighbours in
    /// use are evicted last, and never for strangers, who replace each other once they have their share of the table.
    pub(super) fn make_room(&mut self, now: Instant, list: List) -> Result<Option<u32>, ()> {
        let part = self.entries.len().div_ceil(STRANGERS);
        let front = |list| self.lists.front(list);
        let stranger = list == List::Newcomers;
        let gone = if stranger && self.lists.len(List::Newcomers) >= part {
            front(List::Newcomers)
        } else if !self.free.is_empty() {
            return Ok(None);
        } else {
            let never_used = front(List::Newcomers).or(front(List::Heard));
            let unused = never_used.or_else(|| self.idle(now));
            if stranger { unused } else { unused.or_else(|| self.least_of_ours(part)) }
        };
        let gone = gone.ok_or(())?;
        self.remove(gone);
        Ok(Some(gone))
    }

    fn least_of_ours(&self, part: usize) -> Option<u32> {
        let front = |list| self.lists.front(list);
        let asking = front(List::Own).filter(|_| self.lists.len(List::Own) >= part);
        asking.or(front(List::Living)).or(front(List::Probed)).or(front(List::Own))
    }

    /// Adds a neighbour that was heard of and is not needed yet, if there is room.
    pub(super) fn hear(&mut self, now: Instant, ip: IpAddr, mac: Mac, state: State) {
        if self.free.is_empty() {
            let unused = self.lists.front(List::Heard).or_else(|| self.idle(now));
            let Some(place) = unused else { return };
            self.remove(place);
        }
        let place = self.insert(now, ip, mac, state, Role::Host);
        self.entry(place).used = None;
        self.lists.put(place, List::Heard);
    }
}
