//! A hashed hierarchical timer wheel.
//!
//! Ticks have 2^16 ns (65.5 µs). An entry never fires early, and at most one tick late if [`TimerWheel::expire`] is
//! called often enough. Entries are not removed or moved: when one fires, the user checks its own deadline and arms a
//! new one if necessary.

use crate::base::time::Instant;

/// log2 of a tick in nanoseconds.
const TICK_SHIFT: u32 = 16;
/// log2 of slots per level.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Number of levels: 64^5 ticks are 19 hours. Later entries wait in the last level and are then placed again.
const LEVELS: usize = 5;

/// No entry.
const NONE: u32 = u32::MAX;

/// An entry in the list of a slot, or in the list of unused entries.
#[derive(Clone, Debug)]
struct Entry<K> {
    tick: u64,
    key: K,
    next: u32,
}

/// A list of entries, linked by index.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE };
}

#[derive(Clone, Debug)]
struct Level {
    slots: [List; SLOTS],
    /// A bit for each slot that is not empty.
    occupied: u64,
}

/// The timer wheel. `K` identifies what is timed. It allocates only when it holds more entries than ever before.
#[derive(Clone, Debug)]
pub struct TimerWheel<K> {
    levels: [Level; LEVELS],
    entries: Vec<Entry<K>>,
    /// First unused entry, which links to the next one.
    unused: u32,
    /// The current tick: all entries up to it have fired.
    now: u64,
    /// Entries that were already due when armed.
    due: Vec<K>,
}

/// The first tick that ends at or after `at`.
const fn tick_of(at: Instant) -> u64 {
    at.as_nanos().div_ceil(1 << TICK_SHIFT)
}

impl<K: Copy> TimerWheel<K> {
    /// An empty wheel at the time `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            levels: std::array::from_fn(|_| Level { slots: [List::EMPTY; SLOTS], occupied: 0 }),
            entries: Vec::new(),
            unused: NONE,
            now: now.as_nanos() >> TICK_SHIFT,
            due: Vec::new(),
        }
    }

    /// Arms an entry that fires `key` at `at`. [`Instant::MAX`] means never.
    pub fn arm(&mut self, key: K, at: Instant) {
        if at == Instant::MAX {
            return;
        }
        let tick = tick_of(at);
        if tick <= self.now {
            self.due.push(key);
            return;
        }
        let entry = Entry { tick, key, next: NONE };
        let index = self.unused;
        match self.entries.get_mut(index as usize) {
            Some(unused) => {
                self.unused = unused.next;
                *unused = entry;
                self.place(index);
            }
            None => {
                self.entries.push(entry);
                self.place(self.entries.len() as u32 - 1);
            }
        }
    }

    /// Puts an entry into the slot of its tick.
    fn place(&mut self, entry: u32) {
        let tick = self.entries[entry as usize].tick;
        let span = tick ^ self.now;
        let level = ((63 - span.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
        let far = tick.min(self.now + (1 << (SLOT_BITS * LEVELS as u32)) - (1 << (SLOT_BITS * level)));
        // Beyond the wheel: the furthest slot, from which it is placed again.
        let index = if (tick ^ self.now) >> (SLOT_BITS * LEVELS as u32) != 0 { far } else { tick };
        let slot = (index >> (SLOT_BITS * level)) as usize % SLOTS;
        let level = &mut self.levels[level as usize];
        let list = &mut level.slots[slot];
        self.entries[entry as usize].next = NONE;
        match self.entries.get_mut(list.last as usize) {
            Some(last) => last.next = entry,
            None => list.first = entry,
        }
        list.last = entry;
        level.occupied |= 1 << slot;
    }

    /// The earliest time at which [`TimerWheel::expire`] may have something to do. It may be early: for distant
    /// entries, it is the time at which they are placed again.
    pub fn next(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(Instant::from_nanos(self.now << TICK_SHIFT));
        }
        let mut best: Option<u64> = None;
        for (i, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * i as u32;
            let here = (self.now >> shift) as u32 % SLOTS as u32;
            // Slots after the current one; the current one is last, as it is a full turn away.
            let ahead = level.occupied.rotate_right(here + 1).trailing_zeros() + 1;
            let tick = ((self.now >> shift) + u64::from(ahead)) << shift;
            best = Some(best.map_or(tick, |b| b.min(tick)));
        }
        best.map(|tick| Instant::from_nanos(tick << TICK_SHIFT))
    }

    /// Advances the time to `now` and calls `fire` for every entry whose time has come.
    pub fn expire(&mut self, now: Instant, mut fire: impl FnMut(K)) {
        for key in self.due.drain(..) {
            fire(key);
        }
        let target = now.as_nanos() >> TICK_SHIFT;
        while self.now < target {
            let Some(next) = self.next().map(|at| at.as_nanos() >> TICK_SHIFT).filter(|tick| *tick <= target) else {
                self.now = target;
                return;
            };
            self.now = next;
            self.turn(&mut fire);
        }
    }

    /// Empties every slot that begins at the current tick, coarse levels first.
    fn turn(&mut self, fire: &mut impl FnMut(K)) {
        for i in (0..LEVELS).rev() {
            let shift = SLOT_BITS * i as u32;
            if self.now & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = (self.now >> shift) as usize % SLOTS;
            let level = &mut self.levels[i];
            if level.occupied & (1 << slot) == 0 {
                continue;
            }
            level.occupied &= !(1 << slot);
            let mut next = std::mem::replace(&mut level.slots[slot], List::EMPTY).first;
            while let Some(Entry { tick, key, next: behind }) = self.entries.get(next as usize).cloned() {
                if tick <= self.now {
                    self.entries[next as usize].next = std::mem::replace(&mut self.unused, next);
                    fire(key);
                } else {
                    self.place(next);
                }
                next = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: u64 = 1 << TICK_SHIFT;

    proptest! {
        #[test]
        fn fires_in_time(
            entries in proptest::collection::vec(prop_oneof![0u64..1 << 20, 0u64..1 << 34, 0u64..1 << 52], 1..40),
            steps in proptest::collection::vec(prop_oneof![1u64..1 << 18, 1u64..1 << 36], 1..60),
            start in 0u64..1 << 40,
        ) {
            let mut now = start;
            let mut wheel = TimerWheel::new(Instant::from_nanos(now));
            let mut waiting = std::collections::BTreeMap::new();
            for (key, delay) in entries.iter().enumerate() {
                let at = now + delay;
                wheel.arm(key, Instant::from_nanos(at));
                waiting.insert(key, at);
            }
            for step in steps {
                now += step;
                if let Some(next) = wheel.next() {
                    let first = waiting.values().min().copied().unwrap_or(u64::MAX);
                    prop_assert!(next.as_nanos() <= first.max(start) + TICK, "next must not be late");
                }
                let mut fired = Vec::new();
                wheel.expire(Instant::from_nanos(now), |key| fired.push(key));
                for key in fired {
                    let at = waiting.remove(&key);
                    prop_assert!(at.is_some_and(|at| at <= now), "not early, not twice");
                }
                prop_assert!(waiting.values().all(|at| *at + TICK > now), "at most a tick late");
            }
        }
    }

    #[test]
    fn following_next_reaches_the_deadline_in_few_steps() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        let at = Instant::from_nanos(123_456_789_012);
        wheel.arm(1u32, at);
        let mut steps = 0;
        let mut fired = None;
        while fired.is_none() {
            let now = wheel.next().unwrap();
            wheel.expire(now, |key| fired = Some((key, now)));
            steps += 1;
            assert!(steps <= LEVELS + 1);
        }
        let (_, now) = fired.unwrap();
        assert!(now >= at && now.as_nanos() - at.as_nanos() <= TICK);
    }

    #[test]
    fn entries_are_used_again() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        let mut fired = 0;
        for n in 0..10_000u64 {
            let now = n * TICK;
            wheel.arm(n, Instant::from_nanos(now + (n % 50) * TICK));
            wheel.expire(Instant::from_nanos(now), |_| fired += 1);
        }
        assert!(wheel.entries.len() <= 50, "{} entries", wheel.entries.len());
        wheel.expire(Instant::from_nanos(u64::MAX >> 8), |_| fired += 1);
        assert_eq!(fired, 10_000);
    }

    #[test]
    fn never_is_never() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        wheel.arm((), Instant::MAX);
        assert_eq!(wheel.next(), None);
    }
}
