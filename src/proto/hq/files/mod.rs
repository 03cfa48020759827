//! Files are looked up, read and written on threads of their own: a poll loop never waits for a disk.
//!
//! Each file is a job, whose orders are carried out one after the other by whichever thread is free. A file that is stuck
//! (a dead network file system, a failing disk) keeps one thread, and holds up nobody else: threads that are stuck are
//! replaced, up to [`MAX_THREADS`], and whoever ordered something learns from [`Files::overdue`] what was not done in time.
//! Nobody ever waits for a thread for longer than [`EXIT_WAIT`].

mod input;
mod output;
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

/// Threads that are always there.
const THREADS: usize = 4;

/// Threads at the most, with those that are stuck.
const MAX_THREADS: usize = 64;

/// Jobs that wait for a thread at the most; what comes on top is refused.
const MAX_WAITING: usize = 4096;

/// How long the threads are given in the end to finish what they do and to remove temporary files.
const EXIT_WAIT: Duration = Duration::from_millis(500);

/// How often the loop looks whether the threads get on with their work.
const LOOK: Duration = Duration::from_millis(50);

/// Names one file that is being read or written.
pub(super) type JobId = u64;

/// What tests put before every access to a file, with its path: a slow disk.
pub(super) type Delay = Arc<dyn Fn(&std::path::Path) + Send + Sync>;

/// What to do with a file.
pub(super) enum Order {
    /// Find and open a file of a directory, to be read.
    Open { root: Root, path: PathBuf },
    /// Fill `buf` with the bytes at `offset`; its length says how many.
    Fill { offset: u64, buf: PinnedBuf },
    /// Start a file.
    Create { sink: Sink, hash: bool },
    /// Bytes `skip..valid` of `buf` come next.
    Data { buf: PinnedBuf, skip: usize, valid: usize },
    /// Everything is there: give the file its name.
    Finish,
    /// Forget it: nothing is left behind that has no name yet.
    Close,
}

/// What came of an order.
pub(super) enum Answer {
    /// The file is open and has so many bytes.
    Opened { job: JobId, len: u64 },
    /// The buffer is full.
    Filled { job: JobId, buf: PinnedBuf },
    /// The file is started.
    Created { job: JobId },
    /// The buffer is free again; it held so many bytes.
    Written { job: JobId, buf: PinnedBuf, valid: usize },
    /// The file is there.
    Saved { job: JobId, sha256: Option<String> },
    /// It did not work, and nothing that is ordered for this job will. The buffer that was to be written is free.
    Failed { job: JobId, path: PathBuf, error: PathError, buf: Option<(PinnedBuf, usize)> },
}

impl Answer {
    /// Whose answer it is.
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

/// One file, as the loop sees it.
struct Job {
    task: Arc<Task>,
    /// Orders that were not answered yet.
    open: usize,
    /// Since when the oldest of them could have been worked on.
    since: Instant,
}

/// The file threads of one poll loop.
pub(super) struct Files {
    shared: Arc<Shared>,
    answers: Receiver<Answer>,
    jobs: HashMap<JobId, Job>,
    /// Jobs with orders by when they are overdue; the times may be too early.
    due: BTreeSet<(Instant, JobId)>,
    patience: Option<Duration>,
    /// Asks for one more thread.
    grow: Option<Sender<()>>,
    /// Disconnected once all threads have ended.
    alive: Receiver<()>,
    next_look: Instant,
    /// Orders that had been begun at the last look, if others were waiting then.
    begun: Option<u64>,
}

impl Files {
    /// Starts the threads. What takes longer than `patience` is overdue; `None`: nothing is.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(patience: Option<Duration>, delay: Option<Delay>) -> io::Result<Self> {
        let (shared, answers) = Shared::new(delay);
        let (grow, alive) = Threads::start(&shared)?;
        Ok(Self {
            shared,
            answers,
            jobs: HashMap::new(),
            due: BTreeSet::new(),
            patience,
            grow: Some(grow),
            alive,
            next_look: Instant::ZERO,
            begun: None,
        })
    }

    /// Wakes the loop when there is an answer.
    pub(super) fn waker(&self) -> Waker {
        self.shared.waker.clone()
    }

    /// Whether so many jobs wait for a thread that no more should be taken.
    pub(super) fn is_full(&self) -> bool {
        self.shared.waiting() >= MAX_WAITING
    }

    /// Gives an order for a job, which begins with its first one. It is carried out after those that were given before it.
    pub(super) fn order(&mut self, now: Instant, id: JobId, order: Order) {
        let job = self.jobs.entry(id).or_insert_with(|| Job { task: Arc::new(Task::new(id)), open: 0, since: now });
        if job.open == 0 {
            job.since = now;
            if let Some(patience) = self.patience {
                self.due.insert((now + patience, id));
            }
        }
        job.open += 1;
        self.shared.give(&job.task, order);
    }

    /// Forgets a job: nothing is heard of it any more, but for buffers that were to be written. What has no name yet is
    /// removed.
    pub(super) fn close(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.shared.close(&job.task);
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

    /// A job that has waited for an answer for longer than it should; it is forgotten.
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

    /// To be called in each turn: starts another thread when those that are there get nowhere.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.jobs.is_empty() || now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        let begun = (self.shared.waiting() > 0).then(|| self.shared.begun());
        if begun.is_some()
            && begun == self.begun
            && let Some(grow) = &self.grow
        {
            // If it has not got round to the last one, one is on its way.
            let _ = grow.try_send(());
        }
        self.begun = begun;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.jobs.drain().for_each(|(_, job)| self.shared.close(&job.task));
        self.grow = None;
        self.shared.stop();
        // A thread that is stuck dies with the process.
        let _ = self.alive.recv_timeout(EXIT_WAIT);
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = self.shared.threads.load(Ordering::Relaxed);
        f.debug_struct("Files").field("jobs", &self.jobs.len()).field("threads", &threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
