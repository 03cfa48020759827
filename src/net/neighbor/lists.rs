//! Doubly linked lists over the slots of a table: moving an entry takes constant time.

/// No slot.
const NONE: u32 = u32::MAX;

/// The list that an entry is in. Each is ordered by time, the latest at the back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// Being resolved for strangers.
    Newcomers,
    /// Heard of but never used.
    Heard,
    /// Being resolved for ourselves.
    Own,
    /// Known and in use, by time of last use.
    Living,
    /// Known, in use and being probed.
    Probed,
    /// Routers being resolved or probed.
    Routers,
    /// Routers that did not answer and have a substitute.
    Dead,
    /// No list: known routers.
    None,
}

const LISTS: usize = List::None as usize;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
    list: List,
}

/// The lists. Each slot is in at most one of them.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    links: Vec<Link>,
    ends: [(u32, u32); LISTS],
    lens: [usize; LISTS],
}

impl Lists {
    pub(super) fn new(places: usize) -> Self {
        let link = Link { prev: NONE, next: NONE, list: List::None };
        Self { links: vec![link; places], ends: [(NONE, NONE); LISTS], lens: [0; LISTS] }
    }

    /// The list that `place` is in.
    pub(super) fn of(&self, place: u32) -> List {
        self.links[place as usize].list
    }

    /// The oldest entry of `list`.
    pub(super) fn front(&self, list: List) -> Option<u32> {
        self.ends.get(list as usize).map(|ends| ends.0).filter(|place| *place != NONE)
    }

    /// The length of `list`.
    pub(super) fn len(&self, list: List) -> usize {
        self.lens.get(list as usize).copied().unwrap_or(0)
    }

    /// Moves `place` to the back of `list`.
    pub(super) fn put(&mut self, place: u32, list: List) {
        self.take(place);
        let Some(ends) = self.ends.get_mut(list as usize) else { return };
        let last = std::mem::replace(&mut ends.1, place);
        if last == NONE {
            ends.0 = place;
        } else {
            self.links[last as usize].next = place;
        }
        self.links[place as usize] = Link { prev: last, next: NONE, list };
        self.lens[list as usize] += 1;
    }

    fn take(&mut self, place: u32) {
        let none = Link { prev: NONE, next: NONE, list: List::None };
        let Link { prev, next, list } = std::mem::replace(&mut self.links[place as usize], none);
        let Some(ends) = self.ends.get_mut(list as usize) else { return };
        if prev == NONE {
            ends.0 = next;
        } else {
            self.links[prev as usize].next = next;
        }
        if next == NONE {
            ends.1 = prev;
        } else {
            self.links[next as usize].prev = prev;
        }
        self.lens[list as usize] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const ALL: [List; 4] = [List::Newcomers, List::Heard, List::Living, List::None];

    proptest! {
        #[test]
        fn lists_are_queues(moves in proptest::collection::vec((0u32..8, 0usize..4), 0..200)) {
            let mut lists = Lists::new(8);
            let mut model: [VecDeque<u32>; 4] = Default::default();
            for (place, to) in moves {
                lists.put(place, ALL[to]);
                model.iter_mut().for_each(|queue| queue.retain(|other| *other != place));
                model[to].push_back(place);
                prop_assert_eq!(lists.of(place), ALL[to]);
                for (list, queue) in ALL.iter().zip(&model).take(3) {
                    prop_assert_eq!((lists.front(*list), lists.len(*list)), (queue.front().copied(), queue.len()));
                }
            }
            for (list, queue) in ALL.iter().zip(&mut model).take(3) {
                while let Some(place) = lists.front(*list) {
                    prop_assert_eq!(queue.pop_front(), Some(place));
                    lists.put(place, List::None);
                }
                prop_assert!(queue.is_empty());
            }
        }
    }
}
