//! A thread for work that may block, such as writing to files and terminals, on behalf of threads that must not.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// A thread that processes items one by one, in the order in which they were offered. Offering an item never blocks:
/// the queue is bounded, and items for which it has no room are returned.
#[derive(Debug)]
pub struct Aside<T> {
    orders: Sender<Order<T>>,
    /// Disconnected when the thread has ended.
    end: Receiver<()>,
}

#[derive(Debug)]
enum Order<T> {
    Item(T),
    End,
}

impl<T: Send + 'static> Aside<T> {
    /// Starts a thread called `name` that calls `work` with each item. `room` is the capacity of the queue.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start(name: &str, room: usize, mut work: impl FnMut(T) + Send + 'static) -> io::Result<Self> {
        let (orders, queue) = bounded(room);
        let (alive, end) = bounded(0);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            while let Ok(Order::Item(item)) = queue.recv() {
                work(item);
            }
            // When the end is signalled, nothing can be offered any more, and what `work` holds is dropped.
            drop((queue, work));
        })?;
        Ok(Self { orders, end })
    }

    /// Queues `item`. Never blocks.
    ///
    /// # Errors
    /// The item, if the queue is full or the thread has ended.
    pub fn offer(&self, item: T) -> Result<(), T> {
        self.orders.try_send(Order::Item(item)).map_err(|refused| match refused.into_inner() {
            Order::Item(item) => item,
            Order::End => unreachable!("an item was sent"),
        })
    }

    /// Number of items in the queue.
    pub fn waiting(&self) -> usize {
        self.orders.len()
    }

    /// Waits until all items are processed, but not longer than `patience`, after which the thread, which may be stuck,
    /// is left alone. Returns whether they were processed. Nothing can be offered afterwards.
    pub fn finish(&self, patience: Duration) -> bool {
        let by = Instant::now() + patience;
        // Fails if the thread has ended, or is stuck with a full queue.
        let _ = self.orders.send_deadline(Order::End, by);
        self.end.recv_deadline(by) == Err(RecvTimeoutError::Disconnected)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Nothing takes that long; the test has failed otherwise.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn items_are_worked_off_in_order_and_the_end_waits_for_them() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let aside = Aside::start("test", 100, move |n| sink.lock().unwrap().push(n)).unwrap();
        (0..100).for_each(|n| aside.offer(n).unwrap());
        assert!(aside.finish(PATIENCE));
        assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(Arc::strong_count(&seen), 1, "the work is gone with its thread");
        assert_eq!(aside.offer(1), Err(1), "it has ended");
    }

    #[test]
    fn whoever_offers_never_waits_for_work_that_is_stuck() {
        let (go, stuck) = bounded::<()>(0);
        let (began, begins) = bounded(1);
        let aside = Aside::start("test", 3, move |_| {
            let _ = began.try_send(());
            let _ = stuck.recv();
        })
        .unwrap();
        aside.offer(0).unwrap();
        begins.recv_timeout(PATIENCE).unwrap();
        (1..=3).for_each(|n| aside.offer(n).unwrap());
        assert_eq!((aside.offer(4), aside.waiting()), (Err(4), 3));
        assert!(!aside.finish(Duration::from_millis(1)), "it is stuck, and nobody waits for it");
        drop(go);
        assert!(aside.finish(PATIENCE));
        assert_eq!(aside.offer(5), Err(5));
    }

    #[test]
    fn work_that_panics_is_over() {
        let aside = Aside::start("test", 1, |()| std::panic::resume_unwind(Box::new("test"))).unwrap();
        aside.offer(()).unwrap();
        assert!(aside.finish(PATIENCE));
    }
}
