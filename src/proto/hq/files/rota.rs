//! Which poll loop's job a free thread takes next.

use super::{MAX_THREADS, THREADS};

/// The order in which the poll loops that share the threads take turns, and the number of threads that each of them may
/// block.
///
/// Threads may be blocked for ever, so none can be taken away from a loop again. Half of them are therefore reserved in
/// equal parts, at least two for each loop, so that a blocked one has a replacement whatever other loops block; the
/// others are for whichever loop needs them first.
pub(super) struct Rota {
    /// The number of threads that work for each loop.
    busy: Box<[usize]>,
    /// Threads reserved for each loop, and all others.
    reserved: usize,
    common: usize,
    /// The number of the others that are at work.
    taken: usize,
    /// The loop whose turn it is.
    next: usize,
}

impl Rota {
    pub(super) fn new(loops: usize) -> Self {
        let most = Self::most(loops);
        let reserved = most / (2 * loops).max(1);
        let common = most - reserved * loops;
        Self { busy: vec![0; loops].into(), reserved, common, taken: 0, next: 0 }
    }

    /// The maximum number of threads: at least four for each loop, two of which are reserved for it.
    pub(super) fn most(loops: usize) -> usize {
        MAX_THREADS.max(4 * loops)
    }

    /// The number of permanent threads.
    pub(super) fn permanent(loops: usize) -> usize {
        THREADS.max(loops)
    }

    /// Finds work for a thread: asks the loops that may have another thread in turn. The result contains the loop, for
    /// [`Rota::done`].
    pub(super) fn find<T>(&mut self, mut work_of: impl FnMut(usize) -> Option<T>) -> Option<(usize, T)> {
        let loops = self.busy.len();
        let mut turns = (self.next..loops).chain(0..self.next).filter(|at| self.may_have_more(*at));
        let (at, work) = turns.find_map(|at| Some((at, work_of(at)?)))?;
        self.next = (at + 1) % loops;
        self.taken += usize::from(self.busy[at] >= self.reserved);
        self.busy[at] += 1;
        Some((at, work))
    }

    fn may_have_more(&self, at: usize) -> bool {
        self.busy[at] < self.reserved || self.taken < self.common
    }

    /// A thread has finished its work for a loop.
    pub(super) fn done(&mut self, at: usize) {
        self.busy[at] -= 1;
        self.taken -= usize::from(self.busy[at] >= self.reserved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loops of which work is found until there is no more thread for any.
    fn found(rota: &mut Rota, mut has_work: impl FnMut(usize) -> bool) -> Vec<usize> {
        std::iter::from_fn(|| rota.find(|at| has_work(at).then_some(())).map(|(at, ())| at)).collect()
    }

    #[test]
    fn one_loop_may_block_all_threads() {
        assert_eq!(found(&mut Rota::new(1), |_| true).len(), MAX_THREADS);
    }

    #[test]
    fn loops_take_turns() {
        let mut rota = Rota::new(3);
        let turns = found(&mut rota, |_| true);
        assert_eq!(turns[..7], [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(turns.len(), MAX_THREADS);
        rota.done(1);
        assert_eq!(found(&mut rota, |at| at != 0), [1]);
    }

    #[test]
    fn a_loop_that_blocks_threads_leaves_the_others_their_part() {
        for loops in [2, 4, 5, 16, 17, 33, 63, 64, 255] {
            let mut rota = Rota::new(loops);
            let greedy = found(&mut rota, |at| at == 0).len();
            let part = Rota::most(loops) / 2 / loops;
            // One may be blocked, and the next file of the same loop still has a thread.
            assert!(part >= 2, "{loops}");
            assert_eq!(greedy, Rota::most(loops) - part * (loops - 1), "{loops}");
            let others = found(&mut rota, |at| at != 0);
            for at in 1..loops {
                assert_eq!(others.iter().filter(|other| **other == at).count(), part, "{loops}");
            }
            // What one gives back of the common part, another may take.
            rota.done(0);
            assert_eq!(found(&mut rota, |at| at == loops - 1), [loops - 1], "{loops}");
        }
    }
}
