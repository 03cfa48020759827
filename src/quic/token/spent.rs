//! Recognises tokens that were used before (RFC 9000 §8.1.4), in bounded memory.

use crate::quic::token::lasting::Mark;

/// Number of bits of a filter.
const BITS: usize = 1 << 19;

/// Number of tokens in a filter before another one is begun. With three bits for each, 1 in 200 unused tokens is then
/// mistaken for a used one, which costs its client no more than if it had none.
const FULL: usize = 1 << 15;

type Filter = Box<[u64; BITS / 64]>;

/// The tokens used last: two Bloom filters, of which the older is emptied when the younger is full. So the last 32,768
/// tokens at least are recognised, and the memory is 128 KiB, or nothing as long as no client has sent a token.
#[derive(Default)]
pub(super) struct Spent {
    young: Option<Filter>,
    old: Option<Filter>,
    /// Number of tokens in the younger filter.
    count: usize,
}

fn places(mark: Mark) -> [(usize, u64); 3] {
    mark.bits().map(|bits| (bits as usize % BITS / 64, 1 << (bits % 64)))
}

impl Spent {
    /// Whether the token was probably used before.
    pub(super) fn contains(&self, mark: Mark) -> bool {
        let has = |filter: &Filter| places(mark).iter().all(|(word, bit)| filter[*word] & bit != 0);
        self.young.iter().chain(&self.old).any(has)
    }

    pub(super) fn insert(&mut self, mark: Mark) {
        if self.count == FULL {
            let emptied = self.old.take().map(|mut filter| {
                filter.fill(0);
                filter
            });
            self.old = std::mem::replace(&mut self.young, emptied);
            self.count = 0;
        }
        let empty = || vec![0; BITS / 64].into_boxed_slice().try_into().expect("as many words");
        let young = self.young.get_or_insert_with(empty);
        for (word, bit) in places(mark) {
            young[word] |= bit;
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn the_latest_are_recognised_and_hardly_any_other() {
        let mut rng = Rng::from_u64(5);
        let mut mark = || {
            let mut nonce = [0; 12];
            rng.fill(&mut nonce);
            Mark::new(nonce)
        };
        let mut spent = Spent::default();
        let used: Vec<Mark> = std::iter::repeat_with(&mut mark).take(5 * FULL / 2).collect();
        for mark in &used {
            spent.insert(*mark);
        }
        assert!(used[used.len() - FULL..].iter().all(|mark| spent.contains(*mark)));
        let forgotten = used[..FULL / 2].iter().filter(|mark| !spent.contains(**mark)).count();
        assert!(forgotten > FULL / 2 * 97 / 100, "{forgotten} of the oldest are forgotten");
        let mistaken = std::iter::repeat_with(mark).take(10_000).filter(|mark| spent.contains(*mark)).count();
        assert!(mistaken < 150, "{mistaken} of 10,000 unused ones are mistaken");
    }
}
