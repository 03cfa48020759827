//! Doubly linked lists through the places of a table: moving an entry costs the same however many there are.

/// No place.
const NONE: u32 = u32::MAX;

/// Which list an entry is in. Each is in order of time: what came last is at the back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// Asked for because of strangers.
    Newcomers,
    /// Heard of and never used.
    Heard,
    /// Asked for on our own account.
    Own,
    /// Known and in use, by time of last use.
    Living,
    /// Known, in use, and asked again.
    Probed,
    /// Routers that are asked for or asked again.
    Routers,
    /// Routers that did not answer, and have a substitute.
    Dead,
    /// In no list: routers that are known.
    None,
}

const LISTS: usize = List::None as usize;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
    list: List,
}

/// The lists. Every place is in one of them at the most.
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

    /// The oldest of `list`.
    pub(super) fn front(&self, list: List) -> Option<u32> {
        self.ends.get(list as usize).map(|ends| ends.0).filter(|place| *place != NONE)
    }

    /// How many there are in `list`.
    pub(super) fn len(&self, list: List) -> usize {
        self.lens.get(list as usize).copied().unwrap_or(0)
    }

    /// Takes `place` out of the list it is in, and puts it at the back of `list`.
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
