//! Threads that look up, read and write files: a poll loop never waits for a disk. All poll loops of a server share them.
//!
//! Each file is a job, whose orders are executed in sequence by whichever thread is free. A file that hangs (a dead
//! network file system, a failing disk) blocks one thread and delays no other file: blocked threads are replaced, up to
//! [`MAX_THREADS`], of which each loop has its part, at least two ([`rota`]). [`Files::overdue`] reports orders that were
//! not executed in time. Shutdown waits for threads for at most [`EXIT_WAIT`].

mod input;
mod output;
mod rota;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender};

use crate::base::time::{Duration, Instant};
use crate::mem::PinnedBuf;
use crate::proto::hq::{PathError, Root};
use crate::runtime::Waker;
use worker::{Shared, Task, Threads};

pub(super) use output::Sink;

/// The number of permanent threads, unless there are more poll loops.
const THREADS: usize = 4;

/// The maximum number of threads, including blocked ones, with up to 16 poll loops; four for each loop beyond that.
const MAX_THREADS: usize = 64;

/// The maximum number of jobs that wait for a thread, divided among the loops; further ones are refused.
const MAX_WAITING: usize = 4096;

/// How long shutdown waits for threads to finish their work and remove temporary files.
const EXIT_WAIT: Duration = Duration::from_millis(500);

/// How often the loop checks whether the threads make progress.
const LOOK: Duration = Duration::from_millis(50);

/// Identifies a file being read or written.
pub(super) type JobId = u64;

/// Called by tests before every access to a file, with its path, to simulate a slow disk.
pub(super) type Delay = Arc<dyn Fn(&std::path::Path) + Send + Sync>;

/// An order for a file thread.
pub(super) enum Order {
    /// Find a file in a directory and open it for reading.
    Open { root: Root, path: PathBuf },
    /// Fill `buf`, whose length is the number of bytes, from `offset`.
    Fill { offset: u64, buf: PinnedBuf },
    /// Create a file.
    Create { sink: Sink, hash: bool },
    /// Append bytes `skip..valid` of `buf`.
    Data { buf: PinnedBuf, skip: usize, valid: usize },
    /// The file is complete: give it its name.
    Finish,
    /// Drop the job, and remove a file that has no name yet.
    Close,
}

/// The result of an order.
pub(super) enum Answer {
    /// The file is open; its length is `len`.
    Opened { job: JobId, len: u64 },
    /// The buffer is full.
    Filled { job: JobId, buf: PinnedBuf },
    /// The file was created.
    Created { job: JobId },
    /// The bytes were written, and the buffer is free.
    Written { job: JobId, buf: PinnedBuf, valid: usize },
    /// The file is complete and has its name.
    Saved { job: JobId, sha256: Option<String> },
    /// The order failed, and all further orders of this job will. A buffer that was to be written is free.
    Failed { job: JobId, path: PathBuf, error: PathError, buf: Option<(PinnedBuf, usize)> },
}

impl Answer {
    /// The job that this answers.
    pub(super) fn job(&self) -> JobId {
        match self {
            Self::Opened { job, .. }
            | Self::Filled { job, .. }
            | Self::Created { job }
            | Self::Written { job, .. }
            | Self::Saved { job, .. }
            | Self::Failed { job, .. } => *job,
        }
    }
}

/// The loop's view of a file.
struct Job {
    task: Arc<Task>,
    /// The number of unanswered orders.
    open: usize,
    /// When the oldest of them could have been started.
    since: Instant,
}

/// The threads, until the last loop is gone.
struct Pool {
    shared: Arc<Shared>,
    /// Requests another thread.
    grow: Option<Sender<()>>,
    /// Disconnected once all threads have ended.
    alive: Receiver<()>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.grow = None;
        self.shared.stop();
        // Blocked threads end with the process.
        let _ = self.alive.recv_timeout(EXIT_WAIT);
    }
}

/// A poll loop's access to the file threads.
pub(super) struct Files {
    pool: Arc<Pool>,
    /// The loop's number among those that share the threads.
    desk: usize,
    /// The maximum number of this loop's jobs that wait for a thread.
    max_waiting: usize,
    answers: Receiver<Answer>,
    jobs: HashMap<JobId, Job>,
    /// Jobs with orders, by the time at which they are overdue; times may be too early.
    due: BTreeSet<(Instant, JobId)>,
    patience: Option<Duration>,
    next_look: Instant,
    /// The number of orders that had been started at the last check, if others were waiting.
    begun: Option<u64>,
}

impl Files {
    /// Starts the threads for one loop. Orders that take longer than `patience` are overdue; `None` for no limit.
    ///
    /// # Errors
    /// If no thread can be started.
    #[cfg(test)]
    pub(super) fn start(patience: Option<Duration>, delay: Option<Delay>) -> io::Result<Self> {
        Ok(Self::start_for(1, patience, delay)?.remove(0))
    }

    /// Like [`Files::start`], for several loops, which share the threads.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start_for(loops: usize, patience: Option<Duration>, delay: Option<Delay>) -> io::Result<Vec<Self>> {
        let (shared, answers) = Shared::new(loops, delay);
        let (grow, alive) = Threads::start(&shared)?;
        let pool = Arc::new(Pool { shared, grow: Some(grow), alive });
        let files = |(desk, answers)| Self {
            pool: pool.clone(),
            desk,
            max_waiting: (MAX_WAITING / loops).max(1),
            answers,
            jobs: HashMap::new(),
            due: BTreeSet::new(),
            patience,
            next_look: Instant::ZERO,
            begun: None,
        };
        Ok(answers.into_iter().enumerate().map(files).collect())
    }

    fn shared(&self) -> &Shared {
        &self.pool.shared
    }

    /// The number of threads, which other loops may share.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.shared().threads.load(Ordering::SeqCst)
    }

    /// The waker that wakes the loop when there is an answer.
    pub(super) fn waker(&self) -> Waker {
        self.shared().waker(self.desk).clone()
    }

    /// Returns whether no more jobs should be accepted, since too many wait for a thread.
    pub(super) fn is_full(&self) -> bool {
        self.shared().waiting(self.desk) >= self.max_waiting
    }

    /// Gives an order for a job, which the first order creates. Orders of a job are executed in sequence.
    pub(super) fn order(&mut self, now: Instant, id: JobId, order: Order) {
        let task = || Arc::new(Task::new(id, self.desk));
        let job = self.jobs.entry(id).or_insert_with(|| Job { task: task(), open: 0, since: now });
        if job.open == 0 {
            job.since = now;
            if let Some(patience) = self.patience {
                self.due.insert((now + patience, id));
            }
        }
        job.open += 1;
        self.pool.shared.give(&job.task, order);
    }

    /// Closes a job: it sends no further answers, except to return buffers. A file that has no name yet is removed.
    pub(super) fn close(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.shared().close(&job.task);
        }
    }

    /// The next answer, if there is one.
    pub(super) fn answer(&mut self, now: Instant) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        if let Some(job) = self.jobs.get_mut(&answer.job()) {
            job.open = job.open.saturating_sub(1);
            job.since = now;
        }
        if let Answer::Saved { job, .. } = &answer {
            self.jobs.remove(job);
        }
        Some(answer)
    }

    /// The next job that is overdue, which is then closed.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<JobId> {
        let patience = self.patience?;
        while let Some(&(at, id)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(job) = self.jobs.get(&id).filter(|job| job.open > 0) else { continue };
            if job.since + patience <= now {
                self.close(id);
                return Some(id);
            }
            self.due.insert((job.since + patience, id));
        }
        None
    }

    /// Starts another thread if the existing ones make no progress. To be called in each turn.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.jobs.is_empty() || now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        let shared = self.shared();
        // A thread that waits does not help: the loop's part of the threads is at work.
        let waits = shared.waiting(self.desk) > 0 && shared.is_busy();
        let begun = waits.then(|| shared.begun(self.desk));
        if begun.is_some()
            && begun == self.begun
            && let Some(grow) = &self.pool.grow
        {
            // If the previous request is still pending, a thread is on its way.
            let _ = grow.try_send(());
        }
        self.begun = begun;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for (_, job) in std::mem::take(&mut self.jobs) {
            self.shared().close(&job.task);
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = self.shared().threads.load(Ordering::Relaxed);
        f.debug_struct("Files").field("jobs", &self.jobs.len()).field("threads", &threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
