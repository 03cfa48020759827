//! The threads and their view of a job.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use crossbeam::queue::SegQueue;

use super::input::Input;
use super::output::Output;
use super::rota::Rota;
use super::{Answer, Delay, JobId, Order};
use crate::proto::hq::PathError;
use crate::runtime::Waker;

/// The maximum number of files open for reading at a time, so that requests of slow clients need no descriptor.
pub(super) const MAX_OPEN: usize = 128;

/// How long an additional thread stays without work before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// The state of a job's file.
enum State {
    None,
    Input(Input),
    Output(Output),
}

/// A job: its orders, and its file. One thread at a time works on it.
pub(super) struct Task {
    id: JobId,
    /// The loop that it belongs to.
    desk: usize,
    orders: SegQueue<Order>,
    /// The number of outstanding orders. Whoever raises it from 0 schedules the job.
    pending: AtomicUsize,
    /// The job is closed.
    closed: AtomicBool,
    /// Locked while an order is executed, which may take for ever: others only try to lock it.
    state: Mutex<State>,
}

impl Task {
    pub(super) fn new(id: JobId, desk: usize) -> Self {
        Self {
            id,
            desk,
            orders: SegQueue::new(),
            pending: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            state: Mutex::new(State::None),
        }
    }
}

/// What a poll loop and the threads share.
struct Desk {
    /// Jobs that wait for a thread.
    ready: SegQueue<Arc<Task>>,
    answers: Sender<Answer>,
    /// Wakes the loop when there is an answer.
    waker: Waker,
    /// The number of orders started.
    begun: AtomicU64,
}

/// State shared by the loops and the threads.
pub(super) struct Shared {
    desks: Box<[Desk]>,
    /// Only threads lock it, for a moment.
    rota: Mutex<Rota>,
    /// Each call makes a waiting thread look at all desks.
    calls: Sender<()>,
    called: Receiver<()>,
    pub(super) threads: AtomicUsize,
    /// The number of threads that wait for a call.
    idle: AtomicUsize,
    stopped: AtomicBool,
    /// Jobs whose files are open for reading, the oldest first.
    open: Mutex<VecDeque<Weak<Task>>>,
    delay: Option<Delay>,
}

impl Shared {
    /// The state for a number of loops, and where each of them receives answers.
    pub(super) fn new(loops: usize, delay: Option<Delay>) -> (Arc<Self>, Vec<Receiver<Answer>>) {
        let desk = |_| {
            let (answers, answered) = unbounded();
            (Desk { ready: SegQueue::new(), answers, waker: Waker::new(), begun: AtomicU64::new(0) }, answered)
        };
        let (desks, answered): (Vec<_>, Vec<_>) = (0..loops).map(desk).unzip();
        // If as many calls are waiting as there can be threads, every thread will look anyway.
        let (calls, called) = bounded(Rota::most(loops));
        let shared = Self {
            desks: desks.into(),
            rota: Mutex::new(Rota::new(loops)),
            calls,
            called,
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
            delay,
        };
        (Arc::new(shared), answered)
    }

    /// Wakes a loop.
    pub(super) fn waker(&self, desk: usize) -> &Waker {
        &self.desks[desk].waker
    }

    /// The number of a loop's jobs that wait for a thread.
    pub(super) fn waiting(&self, desk: usize) -> usize {
        self.desks[desk].ready.len()
    }

    /// The number of a loop's orders that have been started.
    pub(super) fn begun(&self, desk: usize) -> u64 {
        self.desks[desk].begun.load(Ordering::Relaxed)
    }

    /// Whether every thread is at work.
    pub(super) fn is_busy(&self) -> bool {
        self.idle.load(Ordering::Relaxed) == 0
    }

    fn loops(&self) -> usize {
        self.desks.len()
    }

    pub(super) fn give(&self, task: &Arc<Task>, order: Order) {
        task.orders.push(order);
        if task.pending.fetch_add(1, Ordering::AcqRel) == 0 {
            self.desks[task.desk].ready.push(task.clone());
            let _ = self.calls.try_send(());
        }
    }

    pub(super) fn close(&self, task: &Arc<Task>) {
        task.closed.store(true, Ordering::Release);
        self.give(task, Order::Close);
    }

    /// Ends the threads once the jobs that are waiting now are done.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        while self.calls.try_send(()).is_ok() {}
    }

    /// Executes orders until this thread is no longer needed.
    fn work(&self, counted: Counted<'_>) {
        loop {
            // A thread that finishes a job looks again, so a job that was left because its loop had no right to another
            // thread is found as soon as it has.
            while let Some((desk, task)) = self.find() {
                self.desks[desk].begun.fetch_add(1, Ordering::Relaxed);
                let _at_work = AtWork { shared: self, desk };
                if self.advance(&task) {
                    // Other jobs first.
                    self.desks[desk].ready.push(task);
                }
            }
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            self.idle.fetch_add(1, Ordering::Relaxed);
            let called = self.called.recv_timeout(IDLE);
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if called.is_err() && self.is_one_too_many() {
                return std::mem::forget(counted);
            }
        }
    }

    /// The next job, and its loop.
    fn find(&self) -> Option<(usize, Arc<Task>)> {
        lock(&self.rota).find(|desk| self.desks[desk].ready.pop())
    }

    /// Returns whether there are more threads than the permanent ones; the caller is then no longer counted.
    fn is_one_too_many(&self) -> bool {
        let permanent = Rota::permanent(self.loops());
        let fewer = |threads: usize| (threads > permanent).then(|| threads - 1);
        self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }

    /// Executes the next order of a job, or all remaining ones of a closed job. Returns whether there are more.
    fn advance(&self, task: &Arc<Task>) -> bool {
        let desk = &self.desks[task.desk];
        loop {
            if let Some(order) = task.orders.pop()
                && let Some(answer) = self.carry_out(task, order)
            {
                // The loop may be gone.
                let _ = desk.answers.send(answer);
                desk.waker.wake();
            }
            if task.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
                return false;
            }
            if !task.closed.load(Ordering::Acquire) {
                return true;
            }
        }
    }

    fn carry_out(&self, task: &Arc<Task>, order: Order) -> Option<Answer> {
        let job = task.id;
        let mut state = lock(&task.state);
        if task.closed.load(Ordering::Acquire) {
            *state = State::None;
            return match order {
                Order::Data { buf, valid, .. } => Some(Answer::Written { job, buf, valid }),
                _ => None,
            };
        }
        let fail = |path: PathBuf, error: PathError, buf| Some(Answer::Failed { job, path, error, buf });
        match order {
            Order::Open { root, path } => {
                self.delay(&path);
                match Input::open(&root, &path) {
                    Ok((input, len)) => {
                        *state = State::Input(input);
                        drop(state);
                        self.opened(task);
                        Some(Answer::Opened { job, len })
                    }
                    Err(error) => fail(path, error, None),
                }
            }
            Order::Fill { offset, mut buf } => {
                let State::Input(input) = &mut *state else { return None };
                self.delay(input.path());
                let was_closed = !input.is_open();
                let result = input.read(offset, &mut buf);
                let path = input.path().to_owned();
                drop(state);
                if was_closed {
                    self.opened(task);
                }
                match result {
                    Ok(()) => Some(Answer::Filled { job, buf }),
                    Err(error) => fail(path, error.into(), None),
                }
            }
            Order::Create { sink, hash } => {
                self.delay(sink.path());
                let path = sink.path().to_owned();
                match Output::open(sink, hash, &task.closed) {
                    Ok(output) => {
                        *state = State::Output(output);
                        Some(Answer::Created { job })
                    }
                    Err(error) => fail(path, error, None),
                }
            }
            Order::Data { buf, skip, valid } => {
                // The job has failed already.
                let State::Output(output) = &mut *state else { return Some(Answer::Written { job, buf, valid }) };
                self.delay(output.path());
                match output.write(&buf[skip..valid], &task.closed) {
                    Ok(()) => Some(Answer::Written { job, buf, valid }),
                    Err(error) => {
                        let path = output.path().to_owned();
                        *state = State::None;
                        fail(path, error.into(), Some((buf, valid)))
                    }
                }
            }
            Order::Finish => {
                let State::Output(output) = std::mem::replace(&mut *state, State::None) else { return None };
                let path = output.path().to_owned();
                self.delay(&path);
                match output.finish() {
                    Ok(sha256) => Some(Answer::Saved { job, sha256 }),
                    Err(error) => fail(path, error.into(), None),
                }
            }
            Order::Close => None,
        }
    }

    fn delay(&self, path: &Path) {
        if let Some(delay) = &self.delay {
            delay(path);
        }
    }

    /// Notes a file opened for reading, and closes others beyond the limit, except those being read.
    fn opened(&self, task: &Arc<Task>) {
        let mut open = lock(&self.open);
        open.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(task)));
        open.push_back(Arc::downgrade(task));
        let excess = open.len().saturating_sub(MAX_OPEN);
        let old: Vec<_> = open.drain(..excess).collect();
        drop(open);
        for task in old.iter().filter_map(Weak::upgrade) {
            let file = match task.state.try_lock().as_deref_mut() {
                Ok(State::Input(input)) => input.close(),
                _ => None,
            };
            drop(file);
        }
    }
}

/// Locks a mutex, ignoring poison: a thread that panicked leaves no inconsistent state here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spawns threads.
pub(super) struct Threads {
    shared: Arc<Shared>,
    /// Each thread holds a clone until it ends.
    alive: Sender<()>,
}

impl Threads {
    /// Starts the permanent threads, and one that starts more on request.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<(Sender<()>, Receiver<()>)> {
        let (alive, ended) = bounded(0);
        let (grow, wanted) = bounded::<()>(1);
        let threads = Self { shared: shared.clone(), alive };
        let loops = shared.loops();
        for _ in 0..Rota::permanent(loops) {
            threads.spawn()?;
        }
        let keep = move || {
            for () in wanted {
                if threads.shared.threads.load(Ordering::Relaxed) < Rota::most(loops) {
                    // If no thread can be started, waiting jobs become overdue.
                    let _ = threads.spawn();
                }
            }
        };
        std::thread::Builder::new().name("gannet-files".into()).spawn(keep)?;
        Ok((grow, ended))
    }

    fn spawn(&self) -> io::Result<()> {
        let (shared, alive) = (self.shared.clone(), self.alive.clone());
        shared.threads.fetch_add(1, Ordering::Relaxed);
        let work = move || {
            let _alive = alive;
            shared.work(Counted(&shared.threads));
        };
        let spawned = std::thread::Builder::new().name("gannet-file".into()).spawn(work);
        if spawned.is_err() {
            self.shared.threads.fetch_sub(1, Ordering::Relaxed);
        }
        spawned.map(drop)
    }
}

/// A thread's work for a loop, which ends even if it panics.
struct AtWork<'a> {
    shared: &'a Shared,
    desk: usize,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        lock(&self.shared.rota).done(self.desk);
    }
}

/// Counts a thread until it ends, for whatever reason.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
