//! What is on its way.

use std::collections::BTreeMap;

use crate::base::time::Instant;

/// Things on their way, ordered by when they arrive; those that arrive at the same time stay in the order in which they
/// were sent.
#[derive(Debug)]
pub struct InFlight<T, K = Instant> {
    things: BTreeMap<(K, u64), T>,
    sent: u64,
}

impl<T, K> Default for InFlight<T, K> {
    fn default() -> Self {
        Self { things: BTreeMap::new(), sent: 0 }
    }
}

impl<T, K: Copy + Ord> InFlight<T, K> {
    /// Adds one that arrives at `at`.
    pub fn push(&mut self, at: K, thing: T) {
        self.things.insert((at, self.sent), thing);
        self.sent += 1;
    }

    /// When the next one arrives.
    pub fn next(&self) -> Option<K> {
        self.things.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next one, and when it arrives.
    pub fn pop(&mut self) -> Option<(K, T)> {
        self.things.pop_first().map(|((at, _), thing)| (at, thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_arrival_and_then_that_of_departure() {
        let mut flying = InFlight::default();
        assert_eq!((flying.next(), flying.pop()), (None, None));
        for (at, name) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd')] {
            flying.push(at, name);
        }
        assert_eq!(flying.next(), Some(3));
        let all: Vec<_> = std::iter::from_fn(|| flying.pop()).collect();
        assert_eq!(all, [(3, 'b'), (3, 'd'), (5, 'a'), (5, 'c')]);
    }
}
