//! An exchange of plain queues, for frames of any kind: for the simulator, tests and benchmarks.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::{Exchange, Handed};
use crate::datapath::Burst;

/// Creates the exchanges of `cores` cores, in order of their numbers. Each core has room for `capacity` frames from each
/// other core. The exchanges may be used by different threads; frames left in the queues are dropped along with the last
/// of them.
///
/// # Panics
/// If `cores` or `capacity` is 0.
pub fn mesh<F>(cores: u8, capacity: usize) -> Vec<Mesh<F>> {
    assert!(cores > 0, "a group without cores");
    let queues: Arc<[_]> = (0..usize::from(cores).pow(2)).map(|_| ArrayQueue::new(capacity)).collect();
    (0..cores).map(|core| Mesh { queues: queues.clone(), core, cores, next: 0 }).collect()
}

/// One core's part of a mesh of queues; see [`mesh`].
#[derive(Debug)]
pub struct Mesh<F> {
    /// The queue from core `a` to core `b` has the index `a * cores + b`.
    queues: Arc<[ArrayQueue<Handed<F>>]>,
    core: u8,
    cores: u8,
    /// The core whose queue is next to be emptied.
    next: u8,
}

impl<F> Mesh<F> {
    fn queue(&self, from: u8, to: u8) -> &ArrayQueue<Handed<F>> {
        &self.queues[usize::from(from) * usize::from(self.cores) + usize::from(to)]
    }
}

impl<F> Exchange<F> for Mesh<F> {
    fn cores(&self) -> u8 {
        self.cores
    }

    fn offer(&mut self, to: u8, burst: &mut Burst<Handed<F>>) -> usize {
        let queue = self.queue(self.core, to);
        // Only this core fills the queue, so free space stays free.
        let taken = burst.len().min(queue.capacity() - queue.len());
        for handed in burst.drain(..taken) {
            let _ = queue.push(handed);
        }
        taken
    }

    fn take(&mut self, burst: &mut Burst<Handed<F>>) -> usize {
        let before = burst.len();
        for _ in 0..self.cores {
            while !burst.is_full()
                && let Some(handed) = self.queue(self.next, self.core).pop()
            {
                burst.push(handed);
            }
            self.next = (self.next + 1) % self.cores;
            // A core that has filled the burst goes last next time.
            if burst.is_full() {
                break;
            }
        }
        burst.len() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::BURST;

    fn burst(frames: impl IntoIterator<Item = Arc<u32>>) -> Burst<Handed<Arc<u32>>> {
        frames.into_iter().map(|frame| Handed { tag: Some([*frame, 0, 0]), frame }).collect()
    }

    #[test]
    fn frames_arrive_once_in_order_and_with_their_tags() {
        let mut cores = mesh(3, 100);
        assert_eq!(cores.iter().map(Exchange::cores).collect::<Vec<_>>(), [3; 3]);
        let mut sent = burst((0..20).map(Arc::new));
        assert_eq!(cores[0].offer(2, &mut sent), 20);
        assert!(sent.is_empty());
        let mut got = Burst::new();
        assert_eq!(cores[1].take(&mut got), 0);
        assert_eq!(cores[2].take(&mut got), 20);
        assert!(got.iter().zip(0..).all(|(handed, n)| *handed.frame == n && handed.tag == Some([n, 0, 0])));
        assert_eq!(cores[2].take(&mut Burst::new()), 0);
    }

    #[test]
    fn a_full_queue_takes_what_fits_and_the_last_exchange_drops_the_rest() {
        let mut cores = mesh(2, 8);
        let frame = Arc::new(1);
        let mut sent = burst(vec![frame.clone(); 20]);
        assert_eq!(cores[0].offer(1, &mut sent), 8);
        assert_eq!((sent.len(), cores[0].offer(1, &mut sent)), (12, 0));
        sent.clear();
        assert_eq!(Arc::strong_count(&frame), 9);
        cores.pop();
        assert_eq!(Arc::strong_count(&frame), 9);
        cores.pop();
        assert_eq!(Arc::strong_count(&frame), 1);
    }

    /// A core that always fills its queue must not starve another.
    #[test]
    fn cores_take_turns() {
        let mut cores = mesh(3, 2 * BURST);
        let mut from = [0; 2];
        for _ in 0..100 {
            for n in 0..2 {
                while cores[n as usize].offer(2, &mut burst((0..BURST).map(|_| Arc::new(n)))) > 0 {}
            }
            let mut got = Burst::new();
            cores[2].take(&mut got);
            got.iter().for_each(|handed| from[*handed.frame as usize] += 1);
        }
        assert_eq!(from, [50 * BURST; 2]);
    }

    #[test]
    fn threads_lose_nothing() {
        const FRAMES: u32 = 20_000;
        let mut cores = mesh(3, 64);
        let mut last = cores.pop().unwrap();
        std::thread::scope(|scope| {
            for mut core in cores {
                scope.spawn(move || {
                    let mut waiting = Burst::new();
                    let mut n = 0;
                    while n < FRAMES || !waiting.is_empty() {
                        while n < FRAMES && !waiting.is_full() {
                            waiting.push(Handed { frame: (core.core, n), tag: None });
                            n += 1;
                        }
                        if core.offer(2, &mut waiting) == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let (mut next, mut got) = ([0; 2], Burst::new());
            while next != [FRAMES; 2] {
                last.take(&mut got);
                for handed in got.drain(..) {
                    let (from, n) = handed.frame;
                    assert_eq!(n, next[usize::from(from)]);
                    next[usize::from(from)] += 1;
                }
            }
        });
    }
}
